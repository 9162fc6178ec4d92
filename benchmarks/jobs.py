"""What a job costs that does nothing: planned, staged, run, harvested, by the local executor with everything on.

    python benchmarks/jobs.py [--jobs N] [-j CPUS]

The last line is JSON; `ms_per_job_core` is wall time × cores / jobs. `cpu_ms_per_job`, beside it, does not grow
with what else runs on the machine.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar
from uuid import uuid4

import polars as pl
from loadmaster_executors.controller import execute
from loadmaster_executors.local import LocalExecutor
from loadmaster_executors.report import RunReport
from loadmaster_executors.run import RunFolder
from loadmaster_pipelines.loader import load_pipeline
from loadmaster_planner.plan import Plan
from loadmaster_planner.planner import make_plan
from loadmaster_planner.request import Request
from loadmaster_registry.records import Collection, CollectionType, DatasetType
from loadmaster_registry.store import Registry
from loadmaster_staging.backbone import Backbone
from loadmaster_staging.checksum import measure

RAWS = "bench/raw"
TASK = """
from loadmaster_pipelines.connections import Input, Output
from loadmaster_pipelines.task import Task

class Nothing(Task):
    dimensions = ("instrument", "detector")
    raw = Input("raw", "Bytes", ("instrument", "detector"))
    result = Output("result", "Bytes", ("instrument", "detector"))

    def run(self, inputs, outputs):
        outputs.result.path.write_bytes(b"done")
"""
PIPELINE = "description: nothing\ntasks: {nothing: {class: nothing_task.Nothing}}\n"
T = TypeVar("T")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=2000)
    parser.add_argument("-j", "--cpus", type=int, default=2)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="loadmaster-jobs-") as folder:
        measured = measure_jobs(Path(folder), asked.jobs, asked.cpus)
    for name, value in measured.items():
        print(f"{name:>18}  {value}")
    print(json.dumps(measured))


def measure_jobs(folder: Path, n_jobs: int, cpus: int) -> dict[str, float]:
    """Make a survey of `n_jobs` small files, run a task on each that does nothing, and return the times."""
    registry, backbone = survey(folder, n_jobs)
    with registry:
        plan, plan_s = timed(lambda: null_plan(folder, registry))
        run, begin_s = timed(lambda: RunFolder.create(folder / "run", plan))
        cpu_s = -cpu_of_all_s()
        report, wall_s = timed(lambda: run_all(run, cpus, registry, backbone))
        cpu_s += cpu_of_all_s()
        n_made = registry.datasets("result", [plan.output_run]).height
    if not report.is_good or n_made != n_jobs:
        raise SystemExit(f"only {n_made} of {n_jobs} results came home: {report}")
    return {
        "jobs": n_jobs,
        "cores": cpus,
        "plan_s": round(plan_s, 3),
        "begin_s": round(begin_s, 3),
        "wall_s": round(wall_s, 3),
        "jobs_per_s": round(n_jobs / wall_s, 1),
        "cpu_ms_per_job": round(1000 * cpu_s / n_jobs, 3),
        "ms_per_job_core": round(1000 * wall_s * cpus / n_jobs, 3),
    }


def survey(folder: Path, n_jobs: int) -> tuple[Registry, Backbone]:
    registry = Registry.create(str(folder / "registry.sqlite3"))
    keys = pl.DataFrame({"instrument": ["Bench"] * n_jobs, "detector": range(n_jobs)})
    type = DatasetType("raw", registry.universe.group(("instrument", "detector")), "Bytes")
    with registry.transaction() as transaction:
        transaction.insert_records("instrument", pl.DataFrame({"instrument": ["Bench"]}))
        names = keys["detector"].cast(pl.String).alias("full_name")
        transaction.insert_records("detector", keys.with_columns(names))
        transaction.register_collection(Collection(RAWS, CollectionType.RUN))
        transaction.register_dataset_type(type)
        transaction.insert_datasets("raw", RAWS, raws(folder / "files", keys))
    return registry, Backbone(str(folder / "files"))


def raws(root: Path, keys: pl.DataFrame) -> pl.DataFrame:
    (root / "raw").mkdir(parents=True)
    rows = []
    for detector in keys["detector"]:
        path = root / "raw" / f"{detector}.bin"
        path.write_bytes(b"%d" % detector)
        found = measure(str(path))
        rows.append((uuid4().bytes, f"raw/{detector}.bin", found.size_bytes, found.checksum))
    return keys.hstack(pl.DataFrame(rows, schema=("id", "url", "size_bytes", "checksum"), orient="row"))


def null_plan(folder: Path, registry: Registry) -> Plan:
    sys_path_entry(folder)
    (folder / "pipeline.yaml").write_text(PIPELINE)
    pipeline = load_pipeline(folder / "pipeline.yaml", universe=registry.universe)
    return make_plan(registry, pipeline, Request(inputs=(RAWS,), output_run="bench/run"))


def sys_path_entry(folder: Path) -> None:
    """Write the task's module to where Python finds it; workers look where their controller does."""
    (folder / "nothing_task.py").write_text(TASK)
    sys.path.insert(0, str(folder))


def run_all(run: RunFolder, cpus: int, registry: Registry, backbone: Backbone) -> RunReport:
    return execute(run, LocalExecutor(cpus), registry, backbone)


def cpu_of_all_s() -> float:
    """Return the CPU time of this process and of all that it has waited for; other users' load is not in it."""
    return sum(os.times()[:4])


def timed(act: Callable[[], T]) -> tuple[T, float]:
    start = time.perf_counter()
    result = act()
    return result, time.perf_counter() - start


if __name__ == "__main__":
    main()
