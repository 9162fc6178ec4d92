"""How fast is planning of Rubin's real pipelines over a real survey's observations?

    python benchmarks/real.py --cases FOLDER

FOLDER (or the environment variable LOADMASTER_CASES) holds ``registry/rc2-full/rc2-full.yaml.gz``, 160 visits of 111
detectors on 1701 patches, and ``pipelines/real-*.yaml``. Every overall input and prerequisite is registered on every
data ID that it can have. The last line is JSON.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import polars as pl
from loadmaster_pipelines.connections import Connection
from loadmaster_pipelines.loader import load_pipeline
from loadmaster_pipelines.pipeline import Pipeline
from loadmaster_planner.planner import make_plan
from loadmaster_planner.request import Request
from loadmaster_registry.exchange import import_export
from loadmaster_registry.queries import query_data_ids
from loadmaster_registry.records import Collection, CollectionType, DatasetType
from loadmaster_registry.sky import envelope_pixels
from loadmaster_registry.store import Registry
from loadmaster_registry.timespan import Timespan
from rich.console import Console
from rich.table import Table

EXPORT = "registry/rc2-full/rc2-full.yaml.gz"
PIPELINES = ("real-hsc-drp-rc2", "real-lsstcam-drp")


def main() -> None:
    """Plan each pipeline in a registry of its own."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--cases", default=os.environ.get("LOADMASTER_CASES", "../shared/data"))
    cases = Path(parser.parse_args().cases)
    table = Table("pipeline", "tasks", "quanta", "edges", "load s", "plan s", "CPU s", "quanta/s")
    figures: dict[str, Any] = {}
    for name in PIPELINES:
        missing = [p for p in (cases / EXPORT, cases / "pipelines" / f"{name}.yaml") if not p.is_file()]
        if missing:
            print(f"{name} is skipped: there is no {missing[0]}; give the folder by --cases")
            continue
        with tempfile.TemporaryDirectory() as folder:
            figures[name] = found = measured(Path(folder), cases, name)
        cells = (f"{found[k]:,}" for k in ("tasks", "quanta", "edges"))
        times = (f"{found[k]:.3f}" for k in ("load_s", "plan_s", "cpu_s"))
        table.add_row(name, *cells, *times, f"{found['quanta'] / found['plan_s']:,.0f}")
    Console(width=130).print(table)
    print(json.dumps(figures))


def measured(folder: Path, cases: Path, name: str) -> dict[str, Any]:
    """Fill a registry, load the pipeline, plan, write."""
    with Registry.create(str(folder / "registry.sqlite3")) as registry:
        import_export(registry, cases / EXPORT)
        begin = time.perf_counter()
        pipeline = load_pipeline(cases / "pipelines" / f"{name}.yaml", universe=registry.universe)
        load_s = time.perf_counter() - begin
        register_inputs(registry, pipeline)
        request = Request(("inputs", "calib"), "out")
        begin, cpu = time.perf_counter(), time.process_time()
        plan = make_plan(registry, pipeline, request)
        plan.write(folder / "plan")
        plan_s, cpu_s = time.perf_counter() - begin, time.process_time() - cpu
    tasks = plan.header.tasks
    return {
        "tasks": len(tasks),
        "quanta": sum(task.quanta for task in tasks),
        "edges": sum(c.edges for task in tasks for c in task.connections),
        "load_s": load_s,
        "plan_s": plan_s,
        "cpu_s": cpu_s,
    }


def register_inputs(registry: Registry, pipeline: Pipeline) -> None:
    """Register what the pipeline reads and does not make: on every data ID, valid for ever."""
    with registry.transaction() as txn:
        for name, type in (("inputs", CollectionType.RUN), ("calib", CollectionType.CALIBRATION)):
            txn.register_collection(Collection(name, type))
    for connection in _read(pipeline):
        dimensions = tuple("htm7" if d == "skypix" else d for d in connection.dimensions)
        group = registry.universe.group(dimensions)
        keys = data_ids(registry, group.required).get_columns() if group.required else []
        ids = [uuid4() for _ in range(keys[0].len() if keys else 1)]
        named = {"id": [i.bytes for i in ids], "url": [f"{connection.dataset_type}/{i}" for i in ids]}
        rows = pl.DataFrame([*keys, *(pl.Series(column, values) for column, values in named.items())])
        type = DatasetType(connection.dataset_type, group, connection.storage_class, connection.calibration)
        with registry.transaction() as txn:
            txn.register_dataset_type(type)
            txn.insert_datasets(type.name, "inputs", rows)
            if connection.calibration:
                txn.certify("calib", type.name, ids, Timespan())


def data_ids(registry: Registry, required: tuple[str, ...]) -> pl.DataFrame:
    """Return all data IDs over some dimensions; of sky pixels those that tracts touch."""
    if required == ("htm7",):
        _, pixel = envelope_pixels(registry.records("tract")["region"], "htm7")
        return pl.DataFrame({"htm7": pixel}).unique()
    return (
        query_data_ids(registry, required).select(required) if required else pl.DataFrame({"": [0]}).drop("")
    )


def _read(pipeline: Pipeline) -> Iterator[Connection]:
    made = {c.dataset_type for task in pipeline.tasks.values() for c in task.outputs}
    read = {
        c.dataset_type: c for task in pipeline.tasks.values() for c in (*task.inputs, *task.prerequisites)
    }
    yield from (c for name, c in read.items() if name not in made)


if __name__ == "__main__":
    main()
