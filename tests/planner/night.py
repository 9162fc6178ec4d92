"""A night of one instrument as small as wanted, with sizes of files: what is shown, digested and estimated."""

from pathlib import Path
from random import Random
from uuid import UUID

import polars as pl
from loadmaster_pipelines.connections import Connection
from loadmaster_pipelines.pipeline import Pipeline, TaskNode
from loadmaster_planner.request import Request
from loadmaster_registry.records import Collection, CollectionType, DatasetType
from loadmaster_registry.store import Registry
from loadmaster_registry.timespan import Timespan
from loadmaster_registry.universe import load_universe

UNIVERSE = load_universe()
HOUR = 3_600_000_000_000
FRAME = ("exposure", "detector")
ISR = TaskNode(
    "isr",
    FRAME,
    (
        Connection("raw", "input", "raw", "Text", FRAME),
        Connection("bias", "prerequisite", "bias", "Text", ("detector",), calibration=True),
        Connection("out", "output", "post_isr", "Text", FRAME),
    ),
    command="true",
)
STACK = TaskNode(
    "stack",
    ("detector",),
    (
        Connection("frames", "input", "post_isr", "Text", FRAME, multiple=True),
        Connection("out", "output", "stack", "Text", ("detector",)),
    ),
    command="true",
)
REQUEST = Request(("raw", "calib"), "out", where="instrument = :i", bind={"i": "I"})


def pipeline(*tasks: TaskNode) -> Pipeline:
    return Pipeline("for tests", None, {task.label: task for task in tasks or (ISR, STACK)})


def make_night(
    path: Path,
    exposures: int = 3,
    detectors: int = 2,
    *,
    instrument: str = "I",
    bias_run: str = "calib/run",
    raw_unit_bytes: int = 10,
    algorithm: str = "sha256",
    root: str = "",
    order: int = 0,
) -> Registry:
    """Register raws, the n-th exposure's of 10 × n bytes, and biases of 5; `order` is a seed for the order of all."""
    registry = Registry.create(f"sqlite:///{path}", UNIVERSE)
    random = Random(order)
    numbers = random.sample(range(1, exposures + 1), exposures)
    sensors = random.sample(range(detectors), detectors)
    name = pl.lit(instrument).alias("instrument")
    texts = list(map(str, numbers))
    times = [n * HOUR for n in numbers]
    frames = {
        "instrument": pl.DataFrame({"instrument": [instrument]}),
        "physical_filter": pl.DataFrame({"physical_filter": ["F"], "band": ["r"]}),
        "detector": pl.DataFrame({"detector": sensors, "full_name": list(map(str, sensors))}),
        "day_obs": pl.DataFrame({"day_obs": [20260101]}),
        "group": pl.DataFrame({"group": texts}),
        "exposure": pl.DataFrame(
            {
                "exposure": numbers,
                "obs_id": texts,
                "group": texts,
                "timespan_begin": times,
                "timespan_end": [t + HOUR // 2 for t in times],
            }
        ).with_columns(pl.lit("F").alias("physical_filter"), pl.lit(20260101).alias("day_obs")),
    }
    raws = [(n, d) for n in numbers for d in sensors]
    random.shuffle(raws)
    with registry.transaction() as txn:
        for element, frame in frames.items():
            txn.insert_records(element, frame.with_columns(name))
        for run in (bias_run, "raw"):
            txn.register_collection(Collection(run, CollectionType.RUN))
        txn.register_collection(Collection("calib", CollectionType.CALIBRATION))
        txn.register_dataset_type(DatasetType("raw", UNIVERSE.group(FRAME), "Text"))
        txn.register_dataset_type(DatasetType("bias", UNIVERSE.group(["detector"]), "Text", True))
        frame = pl.DataFrame(raws, schema=dict.fromkeys(FRAME, pl.Int64), orient="row")
        frame = frame.with_columns(name, size_bytes=pl.col("exposure") * raw_unit_bytes)
        txn.insert_datasets("raw", "raw", _with_files(frame, f"{root}raw", algorithm, random))
        frame = pl.DataFrame({"detector": sensors}).with_columns(name, size_bytes=pl.lit(5))
        biases = _with_files(frame, f"{root}bias", algorithm, random)
        txn.insert_datasets("bias", bias_run, biases)
        txn.certify("calib", "bias", [UUID(bytes=id) for id in biases["id"]], Timespan())
    return registry


def _with_files(frame: pl.DataFrame, place: str, algorithm: str, random: Random) -> pl.DataFrame:
    ids = [UUID(int=random.getrandbits(128)) for _ in range(frame.height)]
    return frame.with_columns(
        pl.Series("id", [id.bytes for id in ids]),
        pl.Series("url", [f"{place}/{id}" for id in ids]),
        pl.lit(f"{algorithm}:").add(pl.col("size_bytes").cast(pl.String)).alias("checksum"),
    )
