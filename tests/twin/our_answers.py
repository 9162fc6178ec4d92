"""Our side of the live twin: the same survey, pipelines and requests, planned by us and told in the same form."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import numpy as np
import polars as pl
from loadmaster_pipelines.connections import Connection
from loadmaster_pipelines.pipeline import Pipeline, TaskNode, with_automatic
from loadmaster_planner.data_id_tables import DataIdTable
from loadmaster_planner.plan import Plan
from loadmaster_planner.planner import make_plan
from loadmaster_planner.request import Request
from loadmaster_registry.errors import Error
from loadmaster_registry.records import Collection, CollectionType, DatasetType
from loadmaster_registry.store import Registry
from loadmaster_registry.timespan import MAX_NS, MIN_NS, Timespan
from loadmaster_registry.transaction import Transaction
from loadmaster_registry.universe import Universe, load_universe

UNIVERSE = load_universe()
STORAGE = "StructuredDataDict"
SIDES = {"inputs": "input", "prerequisites": "prerequisite", "outputs": "output", "init_inputs": "init_input",
         "init_outputs": "init_output"}  # fmt: skip


def make_registry(path: Path, survey: Mapping[str, Any]) -> Registry:
    """Make a registry that holds a survey."""
    registry = Registry.create(str(path), UNIVERSE)
    with registry.transaction() as transaction:
        for element in UNIVERSE.elements.values():
            if rows := survey["records"].get(element.name):
                transaction.insert_records(
                    element.name, pl.DataFrame([record_of(element.name, r) for r in rows])
                )
        for name, (dimensions, calibration) in survey["dataset_types"].items():
            group = UNIVERSE.group(dimensions)
            transaction.register_dataset_type(DatasetType(name, group, storage_of(name), calibration))
        for name in survey["runs"]:
            transaction.register_collection(Collection(name, CollectionType.RUN))
        fill(transaction, survey)
    return registry


def storage_of(name: str) -> str:
    return {"_metadata": "TaskMetadata", "_config": "Config"}.get(name[name.rfind("_") :], STORAGE)


def record_of(element: str, columns: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record under our names for its columns."""
    found = dict(columns)
    if element in UNIVERSE.dimensions:
        found[element] = found.pop("id" if "id" in found else "name")
    if "region" in found:
        found["region"] = bytes.fromhex(found["region"])
    if "hash" in found:
        found["hash"] = bytes.fromhex(found["hash"])
    if "timespan" in found:
        found["timespan_begin"], found["timespan_end"] = found.pop("timespan")
    return found


def fill(transaction: Transaction, survey: Mapping[str, Any]) -> None:
    """Insert datasets, tag and certify them, make the chains."""
    ids: dict[tuple[str, str, tuple[tuple[str, Any], ...]], UUID] = {}
    for name, run, rows in survey["datasets"]:
        made = [uuid4() for _ in rows]
        ids |= {(name, run, tuple(sorted(row.items()))): id for row, id in zip(rows, made, strict=True)}
        frame = pl.DataFrame(rows) if rows[0] else pl.DataFrame()
        columns = (
            pl.Series("id", [id.bytes for id in made]),
            pl.Series("url", [f"{run}/{name}"] * len(made)),
        )
        transaction.insert_datasets(name, run, pl.DataFrame([*frame.get_columns(), *columns]))

    def id_of(name: str, run: str, data_id: Mapping[str, Any]) -> UUID:
        return ids[name, run, tuple(sorted(data_id.items()))]

    for name, members in survey["tags"].items():
        transaction.register_collection(Collection(name, CollectionType.TAGGED))
        transaction.associate(name, [id_of(*member) for member in members])
    for collection, name, run, rows, begin, end in survey["ranges"]:
        transaction.register_collection(Collection(collection, CollectionType.CALIBRATION))
        span = Timespan(MIN_NS if begin is None else begin, MAX_NS if end is None else end)
        transaction.certify(collection, name, [id_of(name, run, row) for row in rows], span)
    for name, children in survey["chains"]:
        transaction.register_collection(Collection(name, CollectionType.CHAINED, children=tuple(children)))


def pipeline_of(neutral: Mapping[str, Any]) -> Pipeline:
    """Return a pipeline from its neutral definition."""
    tasks = []
    for label, task in neutral["tasks"].items():
        connections = []
        for side, kind in SIDES.items():
            for name, c in task.get(side, {}).items():
                flags = {"storage_class": STORAGE, **c, "dimensions": tuple(c.get("dimensions", ()))}
                connections.append(Connection(name, kind, **flags))  # type: ignore[arg-type]
        bounds = tuple(task.get("spatial_bounds_from", ()))
        tasks.append(
            TaskNode(
                label,
                tuple(task["dimensions"]),
                tuple(connections),
                command="true",
                spatial_bounds_from=bounds,
            )
        )
    return Pipeline("drawn", None, {task.label: task for task in with_automatic(tasks)})


def request_of(asked: Mapping[str, Any]) -> Request:
    """Return a request from its neutral definition."""
    skip = tuple(asked.get("skip_existing_in", ()))
    return Request(
        tuple(asked["inputs"]),
        asked["output_run"],
        where=asked["where"],
        bind=asked.get("bind", {}),
        tables=tuple(
            table_of(UNIVERSE, i, keys, rows) for i, (keys, rows) in enumerate(asked.get("tables", ()))
        ),
        allow_partial_gather=True,
        skip_existing="exists" if skip else None,
        skip_existing_in=skip,
        clobber=asked.get("clobber", False),
    )


def table_of(universe: Universe, number: int, keys: list[str], rows: list[list[Any]]) -> DataIdTable:
    types = {k: pl.String if universe[k].key.type == "str" else pl.Int64 for k in keys}  # type: ignore[union-attr]
    return DataIdTable(f"table {number}", pl.DataFrame(rows, schema=types, orient="row").unique())


def answer(registry: Registry, neutral: Mapping[str, Any], asked: Mapping[str, Any]) -> dict[str, Any]:
    """Plan and tell the plan, or what was raised on purpose."""
    try:
        return told(make_plan(registry, pipeline_of(neutral), request_of(asked)))
    except Error as error:
        return {"failure": type(error).__name__, "message": str(error)}


def told(plan: Plan) -> dict[str, Any]:
    """Return each task's quanta with their edges, and the existing inputs with their runs."""
    automatic = {c.dataset_type for t in plan.pipeline.tasks.values() for c in t.connections if c.automatic}
    rows = {t.name: values(plan.datasets(t.name), t.dimensions, t.count) for t in plan.header.types}
    used = {t.name: np.zeros(t.count, dtype=bool) for t in plan.header.types}
    tasks = {}
    for task in plan.header.tasks:
        ids = values(plan.quanta(task.label), task.dimensions, task.quanta)
        quanta: list[Any] = [[id, {}, {}] for id in ids]
        for c in task.connections:
            if not c.edges or (c.is_output and c.dataset_type in automatic):
                continue
            for quantum, dataset in plan.edges(task.label, c.name).select("quantum", "dataset").iter_rows():
                quanta[quantum][1 + c.is_output].setdefault(c.dataset_type, set()).add(
                    tuple(rows[c.dataset_type][dataset])
                )
                used[c.dataset_type][dataset] |= not c.is_output
        if quanta:
            tasks[task.label] = sorted(
                ([id, *({n: [list(r) for r in sorted(found)] for n, found in side.items()} for side in sides)]
                 for id, *sides in quanta),
                key=lambda quantum: quantum[0],
            )  # fmt: skip
    existing = {}
    for t in plan.header.types:
        frame = plan.datasets(t.name).filter(pl.Series(used[t.name], dtype=pl.Boolean)).filter("exists")
        if frame.height:
            existing[t.name] = sorted(list(row) for row in frame.select(*t.dimensions, "run").rows())
    return {"tasks": tasks, "existing": existing}


def values(frame: pl.DataFrame, dimensions: tuple[str, ...], count: int) -> list[list[Any]]:
    return [list(row) for row in frame.select(dimensions).rows()] if dimensions else [[]] * count
