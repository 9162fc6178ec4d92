"""How fast is planning? A synthetic survey of growing size, beside lsst.pipe.base on the same survey in the same run.

    python benchmarks/plan.py --quanta 100000 --peer /path/to/python-with-lsst-pipe-base

Prints a table and, last, one JSON line for the largest size: `quanta_per_s` and, with `--peer`, `ratio`.
"""

import argparse
import hashlib
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import polars as pl
import survey as synthetic
import yaml
from loadmaster_pipelines.loader import load_pipeline
from loadmaster_planner.plan import Plan
from loadmaster_planner.planner import make_plan
from loadmaster_planner.request import Request
from loadmaster_registry.records import Collection, CollectionType, DatasetType
from loadmaster_registry.store import Registry, Transaction
from loadmaster_registry.timespan import Timespan
from loadmaster_registry.universe import load_universe
from rich.console import Console
from rich.table import Table

STORAGE = "StructuredDataDict"


@dataclass(frozen=True)
class Measured:
    """One planning of one size."""

    quanta: int
    edges: int
    seconds: float  # wall, pipeline and registry open already, until the plan file is on disk
    peak_mib: float
    digests: dict[str, str]

    @property
    def quanta_per_s(self) -> float:
        """The rate."""
        return self.quanta / self.seconds


def main() -> None:
    """Measure each size in a process of its own, so that peak memory is its own too."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    arguments.add_argument(
        "--quanta", type=int, default=100_000, help="the largest size; 1000 and × 10 before it"
    )
    arguments.add_argument(
        "--peer", metavar="PYTHON", help="interpreter of an environment with lsst-pipe-base"
    )
    arguments.add_argument("--one", metavar="FOLDER", help=argparse.SUPPRESS)
    options = arguments.parse_args()
    if options.one:
        print(json.dumps(vars(measure(Path(options.one), options.quanta))))
        return
    rows = []
    for size in sizes(options.quanta):
        ours = Measured(**run([sys.executable, __file__, "--quanta", str(size), "--one"]))
        theirs = None
        if options.peer and size == options.quanta:
            raw = run([options.peer, str(Path(__file__).with_name("peer_plan.py"))], str(size))
            theirs = Measured(raw["quanta"], raw["edges"], raw["seconds"], raw["peak_mib"], raw["digests"])
            if theirs.digests != ours.digests:
                raise SystemExit(f"the graphs differ: {differing(ours, theirs)}")
        rows.append((ours, theirs))
    show(rows)
    ours, theirs = rows[-1]
    figures = {"quanta": ours.quanta, "quanta_per_s": ours.quanta_per_s, "peak_mib": ours.peak_mib}
    if theirs:
        figures |= {
            "peer_quanta_per_s": theirs.quanta_per_s,
            "ratio": ours.quanta_per_s / theirs.quanta_per_s,
        }
    print(json.dumps({name: round(value, 1) for name, value in figures.items()}))


def sizes(largest: int) -> Iterator[int]:
    """Count up to the largest size."""
    size = 1000
    while size < largest:
        yield size
        size *= 10
    yield largest


def run(command: list[str], *more: str) -> dict[str, Any]:
    """Run `command FOLDER more…` with a fresh folder; return the JSON of its last line."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run([*command, folder, *more], stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def differing(ours: Measured, theirs: Measured) -> str:
    """Name the tasks whose quanta or edges are not the same."""
    tasks = [label for label, digest in ours.digests.items() if theirs.digests[label] != digest]
    return (
        f"{', '.join(tasks)}; {ours.quanta} and {theirs.quanta} quanta, {ours.edges} and {theirs.edges} edges"
    )


def show(rows: list[tuple[Measured, Measured | None]]) -> None:
    """Print the table."""
    table = Table(
        "quanta", "edges", "seconds", "quanta/s", "peak MiB", "peer seconds", "peer quanta/s", "ratio"
    )
    for ours, theirs in rows:
        cells = [f"{ours.quanta:,}", f"{ours.edges:,}", f"{ours.seconds:.3f}", f"{ours.quanta_per_s:,.0f}"]
        cells.append(f"{ours.peak_mib:,.0f}")
        if theirs:
            ratio = ours.quanta_per_s / theirs.quanta_per_s
            cells += [f"{theirs.seconds:.1f}", f"{theirs.quanta_per_s:,.0f}", f"{ratio:,.0f} ×"]
        table.add_row(*cells)
    Console(width=130).print(table)


def measure(folder: Path, quanta: int) -> Measured:
    """Fill a registry, plan, and write the plan."""
    registry = Registry.create(f"sqlite:///{folder}/registry.sqlite3", load_universe())
    fill(registry, synthetic.survey_of(quanta))
    path = folder / "pipeline.yaml"
    path.write_text(yaml.safe_dump(pipeline_document()))
    pipeline = load_pipeline(path, universe=registry.universe)
    begin = time.perf_counter()
    plan = make_plan(registry, pipeline, Request(("raw", "calib"), "out", where=synthetic.WHERE))
    plan.write(folder / "plan")
    seconds = time.perf_counter() - begin
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    edges = sum(c.edges for task in plan.header.tasks for c in task.connections)
    return Measured(
        plan.n_jobs, edges, seconds, peak, {label: digest(plan, label) for label in synthetic.TASKS}
    )


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


def digest(plan: Plan, label: str) -> str:
    """Digest a task's quanta with their edges: one JSON line a quantum, [id, inputs, outputs], in order of id."""
    facts = next(task for task in plan.header.tasks if task.label == label)
    ids = plan.quanta(label).select(facts.dimensions).rows()
    lines: list[list[Any]] = [[list(row), {}, {}] for row in ids]
    dimensions = {t.name: t.dimensions for t in plan.header.types}
    for c in facts.connections:
        known = plan.datasets(c.dataset_type).select(dimensions[c.dataset_type]).rows()
        for quantum, dataset in plan.edges(label, c.name).rows():
            lines[quantum][1 + c.is_output].setdefault(c.dataset_type, []).append(list(known[dataset]))
    result = hashlib.sha256()
    for line in lines:
        line[1:] = [{name: sorted(ids) for name, ids in side.items()} for side in line[1:]]
        result.update(json.dumps(line, sort_keys=True, separators=(",", ":")).encode() + b"\n")
    return result.hexdigest()


if __name__ == "__main__":
    main()
