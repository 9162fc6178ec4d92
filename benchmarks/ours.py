"""The synthetic survey on our side: its registry, its pipeline, and what a run of it would leave behind."""

from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import polars as pl
import survey as synthetic
import yaml
from loadmaster_pipelines.loader import load_pipeline
from loadmaster_pipelines.pipeline import Pipeline
from loadmaster_planner.all_done import planned_record
from loadmaster_planner.plan import Plan
from loadmaster_registry.records import Collection, CollectionType, DatasetType
from loadmaster_registry.store import Registry, Transaction
from loadmaster_registry.timespan import Timespan
from loadmaster_registry.universe import load_universe

STORAGE = "StructuredDataDict"
_NO_INPUTS = pl.DataFrame(schema={"quantum": pl.Binary, "dataset_id": pl.Binary, "connection": pl.String})
INPUTS = ("raw", "calib")


def new_registry(folder: Path) -> Registry:
    """Create an empty registry in `folder`."""
    return Registry.create(f"sqlite:///{folder}/registry.sqlite3", load_universe())


def registry_in(folder: Path) -> Registry:
    """Open the registry that `new_registry` made."""
    return Registry.open(f"sqlite:///{folder}/registry.sqlite3")


def pipeline_in(folder: Path, registry: Registry) -> Pipeline:
    """Write the pipeline to `folder` and load it."""
    path = folder / "pipeline.yaml"
    path.write_text(yaml.safe_dump(pipeline_document()))
    return load_pipeline(path, universe=registry.universe)


def finish(registry: Registry, plan: Plan, run: str) -> None:
    """Register every output of `plan` in `run`, with markers, quanta and what was planned, as if all had been done."""
    frames = {t.name: plan.datasets(t.name) for t in plan.dataset_types}
    dimensions = {t.name: t.dimensions for t in plan.dataset_types}
    for task in plan.header.tasks:
        frames[f"{task.label}_metadata"] = plan.quanta(task.label)
        dimensions[f"{task.label}_metadata"] = registry.universe.group(task.dimensions)
    with registry.transaction() as txn:
        txn.register_collection(Collection(run, CollectionType.RUN))
        for name, frame in frames.items():
            group = dimensions[name]
            txn.register_dataset_type(DatasetType(name, group, STORAGE))
            txn.insert_datasets(name, run, frame.select(group.required).with_columns(_ids(frame.height)))
        for label in (task.label for task in plan.header.tasks):
            ended = plan.quanta(label).select(data_id=pl.struct(pl.all()).struct.json_encode())
            same = {"run": run, "task": label, "attempt": 1, "status": "succeeded"}
            literals = {
                n: pl.lit(v, dtype=pl.Int64 if n == "attempt" else pl.String) for n, v in same.items()
            }
            txn.insert_quanta(ended.with_columns(_ids(ended.height), **literals), _NO_INPUTS)
        txn.record_plan(
            run, plan.header.basis["asked"], plan.header.basis["state"], planned_record(plan.header)
        )


def _ids(count: int) -> pl.Series:
    return pl.Series("id", [uuid4().bytes for _ in range(count)])


def pipeline_document() -> dict[str, Any]:
    """Return the pipeline in YAML's terms."""

    def connections(types: dict[str, tuple[str, ...]], **flags: bool) -> dict[str, Any]:
        return {
            name: {"dataset_type": name, "storage_class": STORAGE, "dimensions": list(dimensions), **flags}
            for name, dimensions in types.items()
        }

    tasks = {}
    for label, (dimensions, inputs, outputs) in synthetic.TASKS.items():
        tasks[label] = {
            "dimensions": list(dimensions),
            "inputs": connections(inputs, multiple=True),
            "prerequisites": connections(synthetic.PREREQUISITES.get(label, {}), calibration=True),
            "outputs": connections(outputs),
        }
    return {"description": "a synthetic release", "tasks": tasks}


def fill(registry: Registry, s: synthetic.Survey) -> None:
    """Register the survey's records and datasets."""
    instrument = pl.lit(synthetic.INSTRUMENT).alias("instrument")
    skymap = pl.lit(synthetic.SKYMAP).alias("skymap")
    bands = pl.Series([f"S-{b}" for b in synthetic.BANDS])
    detectors = np.arange(synthetic.DETECTORS)
    tracts = np.arange(len(s.tract_region))
    observed = pl.DataFrame(
        {
            "physical_filter": bands.gather(s.band),
            "day_obs": s.day_obs,
            "timespan_begin": s.begin_ns,
            "timespan_end": s.begin_ns + 30_000_000_000,
        }
    ).with_columns(instrument)
    name = pl.Series(s.visit).cast(pl.String)
    with registry.transaction() as txn:
        txn.insert_records("instrument", pl.DataFrame({"instrument": [synthetic.INSTRUMENT]}))
        txn.insert_records("skymap", pl.DataFrame({"skymap": [synthetic.SKYMAP], "hash": [b"0" * 20]}))
        filters = pl.DataFrame({"physical_filter": bands, "band": synthetic.BANDS}).with_columns(instrument)
        txn.insert_records("physical_filter", filters)
        frame = pl.DataFrame({"detector": detectors, "full_name": detectors.astype(str)}).with_columns(
            instrument
        )
        txn.insert_records("detector", frame)
        txn.insert_records("day_obs", observed.select("instrument", "day_obs").unique())
        txn.insert_records("group", pl.DataFrame({"group": name}).with_columns(instrument))
        txn.insert_records("exposure", observed.with_columns(exposure=s.visit, obs_id=name, group=name))
        visits = observed.with_columns(
            visit=s.visit, name=name, region=pl.Series(synthetic.encoded(s.visit_region))
        )
        txn.insert_records("visit", visits)
        links = pl.DataFrame({"exposure": s.visit, "visit": s.visit}).with_columns(instrument)
        txn.insert_records("visit_definition", links)
        regions = {
            "visit": np.repeat(s.visit, synthetic.DETECTORS),
            "detector": np.tile(detectors, s.visit.size),
            "region": pl.Series(synthetic.encoded(s.detector_region)),
        }
        txn.insert_records("visit_detector_region", pl.DataFrame(regions).with_columns(instrument))
        frame = pl.DataFrame({"tract": tracts, "region": pl.Series(synthetic.encoded(s.tract_region))})
        txn.insert_records("tract", frame.with_columns(skymap))
        cell = np.tile(np.arange(64), tracts.size)
        patches = {
            "tract": np.repeat(tracts, 64),
            "patch": cell,
            "cell_x": cell % 8,
            "cell_y": cell // 8,
            "region": pl.Series(synthetic.encoded(s.patch_region)),
        }
        txn.insert_records("patch", pl.DataFrame(patches).with_columns(skymap))
        fill_datasets(txn, registry, s)


def fill_datasets(txn: Transaction, registry: Registry, s: synthetic.Survey) -> None:
    """Register a raw for every exposure and detector, and calibrations that are valid for ever."""
    universe = registry.universe
    detectors = np.arange(synthetic.DETECTORS)
    filters = [f"S-{b}" for b in synthetic.BANDS]
    txn.register_collection(Collection("raw", CollectionType.RUN))
    txn.register_collection(Collection("calib/run", CollectionType.RUN))
    txn.register_collection(Collection("calib", CollectionType.CALIBRATION))
    frames = {
        "raw": pl.DataFrame(
            {"exposure": np.repeat(s.visit, detectors.size), "detector": np.tile(detectors, s.visit.size)}
        ),
        "bias": pl.DataFrame({"detector": detectors}),
        "flat": pl.DataFrame(
            {"detector": np.repeat(detectors, len(filters)), "physical_filter": filters * detectors.size}
        ),
    }
    for name, frame in frames.items():
        calibration = name != "raw"
        txn.register_dataset_type(DatasetType(name, universe.group(frame.columns), STORAGE, calibration))
        ids = [uuid4() for _ in range(frame.height)]
        rows = frame.with_columns(
            pl.lit(synthetic.INSTRUMENT).alias("instrument"),
            pl.Series("id", [i.bytes for i in ids]),
            pl.Series("url", [f"{name}/{i}" for i in ids]),
        )
        txn.insert_datasets(name, "calib/run" if calibration else "raw", rows)
        if calibration:
            txn.certify("calib", name, ids, Timespan())
