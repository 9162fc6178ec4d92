"""One small survey with a bit of everything that can take a quantum away, and a pipeline for it.

Exposures 1 to 4; visit 11 is 1 and 2 in g, visit 12 is 3 in r, and 4 is of no visit. Patch 0 lies under detector 1
of both visits, patch 1 under detector 2 of visit 11; detector 2 of visit 12 has no region. There is no raw of
exposure 3 with detector 2. The bias of detector 1 is valid until hour 3, that of detector 2 for ever.
"""

from pathlib import Path
from uuid import NAMESPACE_URL, uuid5

import polars as pl
from loadmaster_pipelines.connections import Connection
from loadmaster_pipelines.pipeline import Pipeline, TaskNode
from loadmaster_registry.records import Collection, CollectionType, DatasetType
from loadmaster_registry.store import Registry
from small_worlds import UNIVERSE, World, register

INPUTS = ("raw", "calib")
FRAME = ("exposure", "detector")
RAW = Connection("raw", "input", "raw", "Text", FRAME)
BIAS = Connection("bias", "prerequisite", "bias", "Text", ("detector",), calibration=True, minimum=0)
ISR = TaskNode("isr", FRAME, (RAW, BIAS, Connection("out", "output", "frame", "Text", FRAME)), command="true")
FRAMES = Connection("frames", "input", "frame", "Text", FRAME, multiple=True)
WARP = TaskNode(
    "warp",
    ("patch", "visit"),
    (FRAMES, Connection("out", "output", "warp", "Text", ("patch", "visit"))),
    command="true",
)
WARPS = Connection("warps", "input", "warp", "Text", ("patch", "visit"), multiple=True, minimum=2)
COADD = TaskNode(
    "coadd",
    ("patch",),
    (WARPS, Connection("out", "output", "coadd", "Text", ("patch",))),
    command="true",
)


def pipeline(*tasks: TaskNode) -> Pipeline:
    return Pipeline("for tests", None, {task.label: task for task in tasks})


def survey(folder: Path) -> Registry:
    """Return the survey's registry, new."""
    filters = {1: "F-g", 2: "F-g", 3: "F-r", 4: "F-r"}
    day = {"instrument": "I", "day_obs": 20260101}
    records = {
        "instrument": [{"instrument": "I"}],
        "skymap": [{"skymap": "S"}],
        "physical_filter": [
            {"instrument": "I", "physical_filter": "F-g", "band": "g"},
            {"instrument": "I", "physical_filter": "F-r", "band": "r"},
        ],
        "detector": [{"instrument": "I", "detector": d} for d in (1, 2)],
        "day_obs": [day],
        "group": [{"instrument": "I", "group": str(e)} for e in filters],
        "exposure": [
            {**day, "exposure": e, "physical_filter": f, "group": str(e)} for e, f in filters.items()
        ],
        "visit": [
            {**day, "visit": 11, "physical_filter": "F-g"},
            {**day, "visit": 12, "physical_filter": "F-r"},
        ],
        "visit_definition": [
            {"instrument": "I", "exposure": e, "visit": v} for e, v in ((1, 11), (2, 11), (3, 12))
        ],
        "visit_detector_region": [
            {"instrument": "I", "visit": v, "detector": d} for v, d in ((11, 1), (11, 2), (12, 1))
        ],
        "tract": [{"skymap": "S", "tract": 0}],
        "patch": [{"skymap": "S", "tract": 0, "patch": p} for p in (0, 1)],
    }
    squares: dict[str, dict[tuple[int, ...], tuple[int, int]]] = {
        "visit": {(11,): (0, 5), (12,): (0, 5)},
        "visit_detector_region": {(11, 1): (0, 2), (11, 2): (3, 2), (12, 1): (0, 2)},
        "tract": {(0,): (0, 5)},
        "patch": {(0, 0): (0, 2), (0, 1): (3, 2)},
    }
    raws = [
        {"instrument": "I", "exposure": e, "detector": d} for e in filters for d in (1, 2) if (e, d) != (3, 2)
    ]
    return register(World(records, squares, raws, [(1, 0, 3), (2, 0, 9)]), folder / "registry.sqlite3")


def add_datasets(registry: Registry, dataset_type: str, run: str, frame: pl.DataFrame) -> None:
    """Register datasets of a type, made where it does not exist, by the dimensions that `frame` has."""
    whole = frame.with_columns(
        pl.Series(
            "id", [uuid5(NAMESPACE_URL, f"{dataset_type} {run} {i}").bytes for i in range(frame.height)]
        ),
        pl.lit("there").alias("url"),
    )
    with registry.transaction() as txn:
        txn.register_dataset_type(DatasetType(dataset_type, UNIVERSE.group(frame.columns), "Text"))
        txn.register_collection(Collection(run, CollectionType.RUN))
        txn.insert_datasets(dataset_type, run, whole)


def flag(registry: Registry, element: str, key: dict[str, list[int]]) -> None:
    """Flag some records of the instrument."""
    rows = pl.DataFrame({"instrument": "I", **key, "flagged": True, "flag_reason": "satellite"})
    with registry.transaction() as txn:
        txn.set_metadata(element, rows, loaded="2026-01-01", source="a test")
