"""What a case adds to its registry before it asks: collections, tags, runs with datasets, validity ranges."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID, uuid4

import polars as pl
from case_files import check_keys, listed, names, one_of
from case_values import bound, span
from loadmaster_pipelines.pipeline import Pipeline
from loadmaster_registry.errors import NotFound
from loadmaster_registry.queries import query_data_ids, query_datasets
from loadmaster_registry.records import Collection, CollectionType, DatasetType
from loadmaster_registry.store import Registry

_SELECTION = ("where", "bind", "like", "collections", "input_collections", "from", "data_ids")
_NAME = ("name", "collection", "run", "tag")
_TYPES = ("dataset_types", "dataset_type")


def set_up(registry: Registry, steps: Sequence[Mapping[str, Any]], pipeline: Pipeline | None = None,
           searched: Sequence[str] = ()) -> None:  # fmt: skip
    """Do the steps of a case in turn.

    Parameters
    ----------
    pipeline : Pipeline, optional
        Says what dataset types are that the registry does not know.
    searched : sequence of str
        The collections in which `tag` and `like` look where a step names none.
    """
    acts = {"run": _run, "chain": _chain, "tag": _tag, "insert": _insert, "certify": _certify,
            "decertify": _decertify, "calibration": _calibration}  # fmt: skip
    for step in steps:
        assert step["op"] in acts, f"what does {step} mean? Known steps are {sorted(acts)}"
        acts[step["op"]](registry, step, pipeline, searched)


def _register(registry: Registry, name: str, type: CollectionType, children: Sequence[str] = ()) -> None:
    with registry.transaction() as transaction:
        transaction.register_collection(Collection(name, type, children=tuple(children)))


def _run(registry: Registry, step: Mapping[str, Any], *_: Any) -> None:
    check_keys(step, {"op", *_NAME}, "step run")
    _register(registry, one_of(step, *_NAME), CollectionType.RUN)


def _calibration(registry: Registry, step: Mapping[str, Any], *_: Any) -> None:
    check_keys(step, {"op", *_NAME}, "step calibration")
    _register(registry, one_of(step, *_NAME), CollectionType.CALIBRATION)


def _chain(registry: Registry, step: Mapping[str, Any], *_: Any) -> None:
    check_keys(step, {"op", "children", *_NAME}, "step chain")
    _register(registry, one_of(step, *_NAME), CollectionType.CHAINED, names(step["children"]))


def _tag(
    registry: Registry, step: Mapping[str, Any], pipeline: Pipeline | None, searched: Sequence[str]
) -> None:
    check_keys(step, {"op", "datasets", *_NAME, *_TYPES, *_SELECTION}, "step tag")
    ids = [_dataset_id(registry, *dataset) for dataset in step.get("datasets", ())]
    for name in names(one_of(step, *_TYPES)):
        places = names(one_of(step, "collections", "input_collections", "from")) or list(searched)
        found = query_datasets(
            registry, name, places, where=step.get("where", ""), bind=bound(step.get("bind"))
        )
        ids += [UUID(bytes=id) for id in found["id"]]
    name = one_of(step, "name", "collection", "tag", "run")
    _register(registry, name, CollectionType.TAGGED)
    with registry.transaction() as transaction:
        transaction.associate(name, ids)


def _insert(
    registry: Registry, step: Mapping[str, Any], pipeline: Pipeline | None, searched: Sequence[str]
) -> None:
    check_keys(step, {"op", *_NAME, *_TYPES, *_SELECTION}, "step insert")
    run = one_of(step, "run", "collection", "name")
    _register(registry, run, CollectionType.RUN)
    for spelled in listed(one_of(step, *_TYPES)):
        type = dataset_type(registry, spelled, pipeline)
        rows = _selected(registry, type, step, searched)
        count = rows.height if rows.width else 1
        ids = pl.Series("id", [uuid4().bytes for _ in range(count)], dtype=pl.Binary)
        url = pl.Series("url", [f"{run}/{type.name}"] * count, dtype=pl.String)
        with registry.transaction() as transaction:
            transaction.register_dataset_type(type)
            transaction.insert_datasets(type.name, run, pl.DataFrame([*rows.get_columns(), ids, url]))


def dataset_type(registry: Registry, spelled: Any, pipeline: Pipeline | None) -> DatasetType:
    """Return the type that a step means: spelled out, or known to the registry or the pipeline by its name."""
    if isinstance(spelled, Mapping):
        check_keys(
            spelled,
            {"name", "dataset_type", "dimensions", "storage_class", "calibration", "is_calibration"},
            "dataset type",
        )
        group = registry.universe.group(names(spelled["dimensions"]))
        calibration = bool(one_of(spelled, "calibration", "is_calibration", default=False))
        storage = spelled.get("storage_class", "StructuredDataDict")
        return DatasetType(one_of(spelled, "name", "dataset_type"), group, storage, calibration)
    try:
        return registry.dataset_type(spelled)
    except NotFound:
        return _type_of_pipeline(registry, spelled, pipeline)


def _type_of_pipeline(registry: Registry, name: str, pipeline: Pipeline | None) -> DatasetType:
    assert pipeline is not None, f"nothing says what {name!r} is"
    if known := pipeline.dataset_types().get(name):
        group = registry.universe.group(known.dimensions)
        return DatasetType(name, group, known.storage_class or "StructuredDataDict", known.calibration)
    label, _, suffix = name.rpartition("_")
    storage = {"metadata": "TaskMetadata", "log": "ButlerLogRecords", "config": "Config"}
    assert label in pipeline.tasks, f"neither registry nor pipeline knows {name!r}"
    assert suffix in storage, f"neither registry nor pipeline knows {name!r}"
    dimensions = () if suffix == "config" else pipeline.tasks[label].dimensions
    return DatasetType(name, registry.universe.group(dimensions), storage[suffix])


def _selected(
    registry: Registry, type: DatasetType, step: Mapping[str, Any], searched: Sequence[str]
) -> pl.DataFrame:
    """Return the data IDs for which a step inserts datasets."""
    keys = list(type.dimensions.required)
    if "data_ids" in step:
        rows = [r if isinstance(r, Mapping) else dict(zip(keys, r, strict=True)) for r in step["data_ids"]]
        return pl.DataFrame(rows).select(keys)
    where, bind = step.get("where", ""), bound(step.get("bind"))
    if "like" not in step:
        found = query_data_ids(registry, keys, where=where, bind=bind)
        return found.select(keys) if keys else pl.DataFrame()
    places = names(one_of(step, "collections", "input_collections", "from")) or list(searched)
    found = query_datasets(registry, step["like"], places, where=where, bind=bind)
    return found.select(keys).unique() if keys else pl.DataFrame()


def _dataset_id(registry: Registry, type: str, run: str, data_id: Mapping[str, Any]) -> UUID:
    found = registry.datasets(type, [run], keep={d: [v] for d, v in data_id.items()})
    return UUID(bytes=registry.files(found["dataset"])["id"][0])


_CERTIFY = {"op", "collection", "begin", "end", "dataset_type", "run", "detectors", "physical_filter",
            "result"}  # fmt: skip


def _certify(registry: Registry, step: Mapping[str, Any], *_: Any) -> None:
    check_keys(step, _CERTIFY, "step certify")
    keep: dict[str, Any] = {}
    if step.get("physical_filter"):
        keep["physical_filter"] = listed(step["physical_filter"])
    if step.get("detectors") is not None:
        keep["detector"] = listed(step["detectors"])
    found = registry.datasets(step["dataset_type"], [step["run"]], keep=keep)
    ids = [UUID(bytes=id) for id in registry.files(found["dataset"])["id"]]
    with registry.transaction() as transaction:
        transaction.certify(step["collection"], step["dataset_type"], ids, span(step["begin"], step["end"]))


def _decertify(registry: Registry, step: Mapping[str, Any], *_: Any) -> None:
    check_keys(step, _CERTIFY, "step decertify")
    data_ids = None
    if step.get("detectors") is not None:
        data_ids = registry.records("detector").filter(pl.col("detector").is_in(step["detectors"]))
        data_ids = data_ids.select("instrument", "detector")
        if filter_ := step.get("physical_filter"):
            data_ids = data_ids.with_columns(physical_filter=pl.lit(filter_))
    with registry.transaction() as transaction:
        timespan = span(step["begin"], step["end"])
        transaction.decertify(step["collection"], step["dataset_type"], timespan, data_ids)
