"""Small random surveys and pipelines, and their rows by nested loops: what slow twins of the planner are made of."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any
from uuid import UUID

import polars as pl
from hypothesis import strategies as st
from loadmaster_pipelines.connections import Connection
from loadmaster_pipelines.pipeline import Pipeline, TaskNode
from loadmaster_planner.plan import Plan
from loadmaster_registry.records import Collection, CollectionType, DatasetType
from loadmaster_registry.store import Registry
from loadmaster_registry.timespan import Timespan
from loadmaster_registry.universe import load_universe
from lsst.sphgeom import ConvexPolygon, LonLat, UnitVector3d

Record = dict[str, Any]
UNIVERSE = load_universe()
BANDS = {"F-g": "g", "F-r": "r"}
AXES = (
    ("exposure", "detector"),
    ("visit", "detector"),
    ("visit",),
    ("patch", "visit"),
    ("patch", "band"),
    ("tract",),
    ("detector",),
    ("physical_filter",),
)  # what tasks and datasets may be spread over
HOUR = 3_600_000_000_000


@dataclass(frozen=True)
class World:
    """A small survey: records by element, raws, and calibrations with the hours for which they are valid."""

    records: dict[str, list[Record]]
    squares: dict[
        str, dict[tuple[int, ...], tuple[int, int]]
    ]  # element → key → (place, size) along the equator
    raws: list[Record]
    biases: list[tuple[int, int, int]]  # detector, first hour, end hour


def examples(quick: int) -> int:
    """Return how many examples to draw: LOADMASTER_THOROUGH times as many as in the daily run."""
    return quick * int(os.environ.get("LOADMASTER_THOROUGH", "1"))


def rows_of(values: Iterable[Any], **columns: Any) -> list[Record]:
    return [{k: f(v) if callable(f) else f for k, f in columns.items()} for v in values]


@st.composite
def worlds(draw: st.DrawFn) -> World:
    detectors = range(1, draw(st.integers(1, 3)) + 1)
    exposures = range(1, draw(st.integers(1, 4)) + 1)
    filters = {e: draw(st.sampled_from(sorted(BANDS))) for e in exposures}
    visits = range(11, 11 + draw(st.integers(1, 3)))
    visit_filters = {v: draw(st.sampled_from(sorted(BANDS))) for v in visits}
    pairs = [(e, v) for e in exposures for v in visits]
    links = draw(st.lists(st.sampled_from(pairs), unique=True))
    tracts = range(draw(st.integers(1, 2)))
    patches = [(t, p) for t in tracts for p in range(draw(st.integers(1, 2)))]
    detector_keys = [(v, d) for v in visits for d in detectors]
    with_region = draw(st.lists(st.sampled_from(detector_keys), unique=True))
    square = st.tuples(st.integers(0, 6), st.integers(1, 3))
    squares: dict[str, dict[tuple[int, ...], tuple[int, int]]] = {
        "visit": {(v,): draw(square) for v in visits},
        "visit_detector_region": {key: draw(square) for key in with_region},
        "tract": {(t,): draw(square) for t in tracts},
        "patch": {key: draw(square) for key in patches},
    }
    instrument, skymap = {"instrument": "I"}, {"skymap": "S"}
    records = {
        "instrument": [instrument],
        "skymap": [skymap],
        "band": rows_of("gr", band=lambda b: b),
        "physical_filter": rows_of(
            sorted(BANDS), instrument="I", physical_filter=lambda f: f, band=BANDS.get
        ),
        "detector": rows_of(detectors, instrument="I", detector=lambda d: d),
        "day_obs": rows_of([20260101], instrument="I", day_obs=lambda d: d),
        "group": rows_of(exposures, instrument="I", group=str),
        "exposure": [
            {**instrument, "exposure": e, "physical_filter": filters[e], "group": str(e), "day_obs": 20260101}
            for e in exposures
        ],
        "visit": [
            {**instrument, "visit": v, "physical_filter": visit_filters[v], "day_obs": 20260101}
            for v in visits
        ],
        "visit_definition": [{**instrument, "exposure": e, "visit": v} for e, v in links],
        "visit_detector_region": [{**instrument, "visit": v, "detector": d} for v, d in with_region],
        "tract": [{**skymap, "tract": t} for t in tracts],
        "patch": [{**skymap, "tract": t, "patch": p} for t, p in patches],
    }
    frames = [{**instrument, "exposure": e, "detector": d} for e in exposures for d in detectors]
    raws = draw(st.lists(st.sampled_from(frames), unique_by=lambda r: (r["exposure"], r["detector"])))
    cut = draw(st.integers(0, 5))
    biases = [(d, first, end) for d in detectors for first, end in ((0, cut), (cut, 9)) if first < end]
    return World(records, squares, raws, draw(st.lists(st.sampled_from(biases), unique=True)))


@st.composite
def pipelines(draw: st.DrawFn) -> Pipeline:
    """Draw up to four tasks in a row, each reading some of what is there before it."""
    there = {"raw": ("exposure", "detector")}
    tasks = {}
    for i in range(draw(st.integers(1, 4))):
        names = draw(st.lists(st.sampled_from(sorted(there)), min_size=1, max_size=2, unique=True))
        inputs = [
            Connection(n, "input", n, "Text", there[n], multiple=True, minimum=draw(st.integers(0, 2)))
            for n in names
        ]
        dimensions = draw(st.sampled_from(AXES))
        made = Connection("made", "output", f"made{i}", "Text", dimensions)
        prerequisites = []
        if "exposure" in dimensions and draw(st.booleans()):
            prerequisites = [
                Connection("bias", "prerequisite", "bias", "Text", ("detector",), calibration=True, minimum=0)
            ]
        tasks[f"task{i}"] = TaskNode(f"task{i}", dimensions, (*inputs, *prerequisites, made), command="true")
        there[made.dataset_type] = dimensions
    return Pipeline("drawn", None, tasks)


CONDITIONS = {
    "detector > 1": lambda row: row["detector"] > 1,
    "band = 'g'": lambda row: row["band"] == "g",
    "NOT (detector = 1 OR band = 'r')": lambda row: not (row["detector"] == 1 or row["band"] == "r"),
    "exposure IN (1..3:2)": lambda row: row["exposure"] in (1, 3),
    "visit = 11 OR detector = 2": lambda row: row["visit"] == 11 or row["detector"] == 2,
    "patch = 0": lambda row: row["patch"] == 0,
    "tract = patch": lambda row: row["tract"] == row["patch"],
}
NAMED = {
    "detector > 1": {"detector"},
    "band = 'g'": {"band"},
    "NOT (detector = 1 OR band = 'r')": {"detector", "band"},
    "exposure IN (1..3:2)": {"exposure"},
    "visit = 11 OR detector = 2": {"visit", "detector"},
    "patch = 0": {"patch"},
    "tract = patch": {"tract", "patch"},
}


def square(place: int, size: int) -> bytes:
    """Return a region of `size` degrees at twice `place`; edges are odd or even so that none ever touch."""
    lon, width = 2.0 * place, 2.0 * size - 0.5
    corners = [(lon, 0.0), (lon + width, 0.0), (lon + width, 1.0), (lon, 1.0)]
    return bytes(ConvexPolygon([UnitVector3d(LonLat.fromDegrees(*c)) for c in corners]).encode())


def overlap(a: tuple[int, int], b: tuple[int, int]) -> bool:
    return a[0] < b[0] + b[1] and b[0] < a[0] + a[1]


def register(world: World, path: Path) -> Registry:
    registry = Registry.create(f"sqlite:///{path}", UNIVERSE)
    numbers = count(1)
    with registry.transaction() as txn:
        for element in UNIVERSE.elements.values():
            if rows := world.records.get(element.name):
                txn.insert_records(element.name, element_frame(world, element.name, rows))
        txn.register_collection(Collection("raw", CollectionType.RUN))
        txn.register_collection(Collection("biases", CollectionType.RUN))
        txn.register_collection(Collection("calib", CollectionType.CALIBRATION))
        txn.register_dataset_type(DatasetType("raw", UNIVERSE.group(["exposure", "detector"]), "Text"))
        txn.register_dataset_type(DatasetType("bias", UNIVERSE.group(["detector"]), "Text", True))
        if world.raws:
            ids = [UUID(int=next(numbers)).bytes for _ in world.raws]
            rows = pl.DataFrame(world.raws).with_columns(pl.Series("id", ids), pl.lit("there").alias("url"))
            txn.insert_datasets("raw", "raw", rows)
        for detector, first, end in world.biases:
            run, number = f"biases/{detector}/{first}", UUID(int=next(numbers))
            txn.register_collection(Collection(run, CollectionType.RUN))
            rows = pl.DataFrame(
                {"instrument": ["I"], "detector": [detector], "id": [number.bytes], "url": [f"{first}"]}
            )
            txn.insert_datasets("bias", run, rows)
            txn.certify("calib", "bias", [number], Timespan(first * HOUR, end * HOUR))
    return registry


def element_frame(world: World, element: str, rows: list[Record]) -> pl.DataFrame:
    frame = pl.DataFrame(rows)
    if element in world.squares:
        keys = {"visit_detector_region": ("visit", "detector"), "patch": ("tract", "patch")}.get(
            element, (element,)
        )
        regions = [square(*world.squares[element][tuple(row[k] for k in keys)]) for row in rows]
        frame = frame.with_columns(pl.Series("region", regions))
    if element == "exposure":
        begin = pl.col("exposure") * HOUR
        frame = frame.with_columns(timespan_begin=begin, timespan_end=begin + HOUR // 2)
    names = {"detector": "full_name", "exposure": "obs_id", "visit": "name"}
    if element in names:
        frame = frame.with_columns(pl.col(element).cast(pl.String).alias(names[element]))
    if element == "patch":
        frame = frame.with_columns(cell_x=pl.col("patch"), cell_y=pl.lit(0))
    if element == "skymap":
        frame = frame.with_columns(pl.lit(b"hash").alias("hash"))
    return frame


def all_rows(world: World, names: set[str], condition: str, raws_constrain: bool) -> list[Record]:
    group = set(UNIVERSE.group(names | NAMED.get(condition, set())))
    rows: list[Record] = [{}]
    for element in UNIVERSE.elements.values():
        if element.name in group or (element.always_join and set(element.required) <= group):
            rows = joined(rows, world.records.get(element.name, []))
    if raws_constrain:
        rows = joined(rows, world.raws)
    if {"visit", "tract"} <= group:
        rows = [row for row in rows if on_the_same_sky(world, row)]
    return [row for row in rows if not condition or CONDITIONS[condition](row)]


def joined(rows: list[Record], records: list[Record]) -> list[Record]:
    return [a | b for a in rows for b in records if all(a.get(k, v) == v for k, v in b.items())]


def on_the_same_sky(world: World, row: Record) -> bool:
    seen = world.squares["visit"][row["visit"],]
    if "detector" in row:
        key = (row["visit"], row["detector"])
        if key not in world.squares["visit_detector_region"]:
            return False
        seen = world.squares["visit_detector_region"][key]
    cell = (
        world.squares["patch"][row["tract"], row["patch"]]
        if "patch" in row
        else world.squares["tract"][row["tract"],]
    )
    return overlap(seen, cell)


def key_of(row: Record, dimensions: Iterable[str]) -> tuple[Any, ...]:
    return tuple(row[d] for d in UNIVERSE.group(dimensions).required)


def told(plan: Plan) -> dict[str, set[Any]]:
    result: dict[str, set[Any]] = {task.label: set() for task in plan.header.tasks}
    required = {t.name: t.dimensions for t in plan.header.types}
    for job in plan.jobs():
        for q in job.quanta:
            inputs = {
                (d.dataset_type, tuple(d.data_id[k] for k in required[d.dataset_type]))
                for datasets in q.inputs.values()
                for d in datasets
            }
            dimensions = next(t.dimensions for t in plan.header.tasks if t.label == q.task)
            result[q.task].add((tuple(q.data_id[k] for k in dimensions), frozenset(inputs)))
    return result


def raws_constrain(tasks: Iterable[TaskNode], pipeline: Pipeline) -> bool:
    """Say whether raws must exist: one of `tasks` reads them, and no task of the pipeline can do without."""
    minima = [c.minimum for t in pipeline.tasks.values() for c in t.inputs if c.dataset_type == "raw"]
    return 0 not in minima and any(c.dataset_type == "raw" for t in tasks for c in t.inputs)
