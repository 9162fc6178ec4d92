"""What a plan refuses, drops and says; what its digest depends on."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import polars as pl
import pytest
from loadmaster_pipelines.connections import Connection
from loadmaster_pipelines.pipeline import Pipeline, TaskNode
from loadmaster_planner.header import FORMAT
from loadmaster_planner.plan import Plan
from loadmaster_planner.planner import make_plan
from loadmaster_planner.request import Request
from loadmaster_planner.tables import write_tables
from loadmaster_registry.errors import PlanError, QueryError
from loadmaster_registry.records import Collection, CollectionType, DatasetType
from loadmaster_registry.store import Registry
from loadmaster_registry.timespan import Timespan
from loadmaster_registry.universe import load_universe

UNIVERSE = load_universe()
HOUR = 3_600_000_000_000
FRAME = ("exposure", "detector")
RAW = Connection("raw", "input", "raw", "Text", FRAME)
ISR_OUT = Connection("out", "output", "post_isr", "Text", FRAME)
BIAS = Connection("bias", "prerequisite", "bias", "Text", ("detector",), calibration=True)
GATHER = Connection("frames", "input", "post_isr", "Text", FRAME, multiple=True, minimum=3)
REQUEST = Request(("raw", "calib"), "out", where="instrument='I'")


def pipeline(*tasks: TaskNode) -> Pipeline:
    return Pipeline("for tests", None, {task.label: task for task in tasks})


ISR = TaskNode("isr", FRAME, (RAW, ISR_OUT), command="true")
WITH_BIAS = TaskNode("isr", FRAME, (RAW, BIAS, ISR_OUT), command="true")
STACK = TaskNode(
    "stack",
    ("detector",),
    (GATHER, Connection("out", "output", "stack", "Text", ("detector",))),
    command="true",
)


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    """Three exposures an hour apart; detector 1 has three raws, detector 2 has two."""
    with Registry.create(f"sqlite:///{tmp_path}/registry.sqlite3", UNIVERSE) as made:
        exposures = pl.DataFrame({"exposure": [1, 2, 3]}).with_columns(
            pl.lit("I").alias("instrument"),
            pl.lit("F").alias("physical_filter"),
            pl.lit(20260101).alias("day_obs"),
            pl.col("exposure").cast(pl.String).alias("obs_id"),
            pl.col("exposure").cast(pl.String).alias("group"),
            (pl.col("exposure") * HOUR).alias("timespan_begin"),
            (pl.col("exposure") * HOUR + HOUR // 2).alias("timespan_end"),
        )
        with made.transaction() as txn:
            txn.insert_records("instrument", pl.DataFrame({"instrument": ["I"]}))
            filters = pl.DataFrame({"instrument": ["I"], "physical_filter": ["F"], "band": ["r"]})
            txn.insert_records("physical_filter", filters)
            detectors = pl.DataFrame({"instrument": "I", "detector": [1, 2], "full_name": ["one", "two"]})
            txn.insert_records("detector", detectors)
            txn.insert_records("day_obs", pl.DataFrame({"instrument": ["I"], "day_obs": [20260101]}))
            txn.insert_records("group", exposures.select("instrument", "group"))
            txn.insert_records("exposure", exposures)
            txn.register_collection(Collection("raw", CollectionType.RUN))
            txn.register_collection(Collection("calib", CollectionType.CALIBRATION))
            txn.register_dataset_type(DatasetType("raw", UNIVERSE.group(FRAME), "Text"))
            txn.register_dataset_type(DatasetType("bias", UNIVERSE.group(["detector"]), "Text", True))
        add(made, "raw", "raw", [(1, 1), (2, 1), (3, 1), (1, 2), (2, 2)])
        yield made


def add(
    registry: Registry, dataset_type: str, run: str, keys: list[tuple[int, ...]], first_id: int = 1
) -> None:
    """Register datasets by exposure and detector, or by detector."""
    names = FRAME if len(keys[0]) == 2 else ("detector",)
    frame = pl.DataFrame(keys, schema=dict.fromkeys(names, pl.Int64), orient="row").with_columns(
        pl.lit("I").alias("instrument"),
        pl.Series("id", [UUID(int=first_id + i).bytes for i in range(len(keys))]),
        pl.Series("url", [f"{dataset_type}/{run}/{'-'.join(map(str, key))}" for key in keys]),
        pl.lit(10).alias("size_bytes"),
    )
    with registry.transaction() as txn:
        txn.register_collection(Collection(run, CollectionType.RUN))
        txn.insert_datasets(dataset_type, run, frame)


def certify(
    registry: Registry, run: str, first_id: int, begin_h: int, end_h: int, detectors: int = 2
) -> None:
    add(registry, "bias", run, [(d,) for d in range(1, detectors + 1)], first_id)
    with registry.transaction() as txn:
        ids = [UUID(int=first_id + i) for i in range(detectors)]
        txn.certify("calib", "bias", ids, Timespan(begin_h * HOUR, end_h * HOUR))


def test_quanta_inputs_bytes_and_outputs_are_summed_up(registry: Registry) -> None:
    (isr, stack) = make_plan(registry, pipeline(ISR, STACK), REQUEST).summary
    assert (isr.quanta, isr.inputs_found, isr.bytes_in, isr.outputs) == (5, 5, 50, 5)
    assert (stack.quanta, stack.inputs_found, stack.dropped) == (1, 0, 1)


def test_a_quantum_that_lacks_an_input_is_dropped_with_its_reason(registry: Registry) -> None:
    (dropped,) = make_plan(registry, pipeline(ISR, STACK), REQUEST).header.dropped
    assert (dropped.task, dropped.connection, dropped.count, dropped.minimum) == ("stack", "frames", 1, 3)
    assert dropped.example == {"instrument": "I", "detector": 2}
    assert "fewer than 3 'post_isr'" in str(dropped)


def test_jobs_depend_on_those_whose_outputs_they_read(registry: Registry) -> None:
    plan = make_plan(registry, pipeline(ISR, STACK), REQUEST)
    stack = plan.n_jobs - 1
    assert plan.task_of(stack) == "stack"
    needed = [plan.job(job).quanta[0].data_id["detector"] for job in plan.dependencies()["needs"]]
    assert plan.dependencies()["job"].to_list() == [stack] * 3
    assert needed == [1, 1, 1]


def test_all_outputs_that_exist_already_are_listed_and_refused(registry: Registry) -> None:
    with registry.transaction() as txn:
        txn.register_dataset_type(DatasetType("post_isr", UNIVERSE.group(FRAME), "Text"))
    add(registry, "post_isr", "out", [(1, 1), (3, 1)], first_id=100)
    with pytest.raises(PlanError, match="2 outputs exist already") as refused:
        make_plan(registry, pipeline(ISR), REQUEST)
    assert "'exposure': 1" in str(refused.value)
    assert "'exposure': 3" in str(refused.value)
    assert make_plan(registry, pipeline(ISR), replace(REQUEST, output_run="elsewhere")).n_jobs == 5


def test_a_calibration_is_found_by_its_validity(registry: Registry) -> None:
    certify(registry, "early", 200, 0, 2)
    certify(registry, "late", 300, 2, 9)
    plan = make_plan(registry, pipeline(WITH_BIAS), REQUEST)
    runs = {
        (q.data_id["exposure"], q.data_id["detector"]): q.inputs["bias"][0].run
        for job in plan.jobs()
        for q in job.quanta
    }
    assert runs == {(1, 1): "early", (1, 2): "early", (2, 1): "late", (2, 2): "late", (3, 1): "late"}


def test_a_missing_prerequisite_names_its_quanta(registry: Registry) -> None:
    certify(registry, "early", 200, 0, 2)
    with pytest.raises(PlanError, match="3 quanta of isr lack the prerequisite 'bias'") as refused:
        make_plan(registry, pipeline(WITH_BIAS), REQUEST)
    assert "'exposure': 2" in str(refused.value)


def test_an_optional_prerequisite_may_be_missing(registry: Registry) -> None:
    optional = TaskNode("isr", FRAME, (RAW, replace(BIAS, minimum=0), ISR_OUT), command="true")
    plan = make_plan(registry, pipeline(optional), REQUEST)
    assert plan.n_jobs == 5
    assert plan.job(0).quanta[0].inputs["bias"] == ()


def test_two_calibrations_at_once_are_an_error_that_shows_both_ranges(registry: Registry) -> None:
    certify(registry, "early", 200, 0, 2)
    certify(registry, "late", 300, 2, 9)
    with registry.transaction() as txn:  # exposures that reach over the border of the ranges
        longer = (
            registry.records("exposure")
            .filter(exposure=1)
            .with_columns(exposure=pl.lit(7), obs_id=pl.lit("7"), timespan_end=pl.lit(3 * HOUR))
        )
        txn.insert_records("exposure", longer)
    add(registry, "raw", "raw", [(7, 1)], first_id=50)
    with pytest.raises(PlanError, match="several 'bias' are valid at once") as refused:
        make_plan(registry, pipeline(WITH_BIAS), REQUEST)
    assert "1970-01-01T02:00:00 TAI) in early" in str(refused.value)
    assert "[1970-01-01T02:00:00 TAI" in str(refused.value)


def test_an_unknown_overall_input_is_an_error_with_the_nearest_name(registry: Registry) -> None:
    misspelt = TaskNode("isr", FRAME, (replace(RAW, dataset_type="rew"), ISR_OUT), command="true")
    with pytest.raises(PlanError, match="overall input 'rew'") as refused:
        make_plan(registry, pipeline(misspelt), REQUEST)
    assert "did you mean 'raw'" in str(refused.value)


def test_a_type_with_other_dimensions_than_the_registrys_is_refused(registry: Registry) -> None:
    wrong = TaskNode("isr", ("exposure",), (replace(RAW, dimensions=("exposure",)),), command="true")
    with pytest.raises(PlanError, match="has dimensions"):
        make_plan(registry, pipeline(wrong), REQUEST)


def test_two_datasets_for_one_that_is_taken_are_refused(registry: Registry) -> None:
    single = TaskNode("stack", ("detector",), (replace(GATHER, multiple=False),), command="true")
    with pytest.raises(PlanError, match="more than one 'post_isr'"):
        make_plan(registry, pipeline(ISR, single), REQUEST)


@pytest.mark.parametrize(
    ("where", "reason"),
    [
        ("instrument='I' AND exposure = 99", "nothing matches exposure where"),
        ("instrument='I' AND exposure = 1 AND exposure = 2", "no value of exposure fulfils"),
        (
            "instrument='I' AND exposure = 3 AND detector = 2",
            "nothing matches existing raw in raw, calib with instrument I; detector 2; exposure 3",
        ),
        ("instrument='I' AND exposure > 2 AND detector > 1", "no data ID matches all of them"),
    ],
)
def test_an_empty_plan_says_why(registry: Registry, where: str, reason: str) -> None:
    plan = make_plan(registry, pipeline(ISR), replace(REQUEST, where=where))
    assert plan.n_jobs == 0
    assert reason in plan.header.why_empty


def test_an_expression_that_makes_no_sense_is_refused(registry: Registry) -> None:
    with pytest.raises(QueryError, match="did you mean"):
        make_plan(registry, pipeline(ISR), replace(REQUEST, where="instrument='I' AND exposre = 1"))


def test_the_digest_depends_on_what_is_selected_and_on_nothing_else(registry: Registry) -> None:
    one = replace(REQUEST, where="instrument='I' AND detector = 1")
    digest = make_plan(registry, pipeline(ISR), one).digest
    add(registry, "raw", "raw", [(3, 2)], first_id=60)  # of the other detector
    assert make_plan(registry, pipeline(ISR), replace(one, output_run="another")).digest == digest
    assert make_plan(registry, pipeline(ISR), REQUEST).digest != digest


def test_a_plan_of_a_newer_format_is_refused_with_words(registry: Registry, tmp_path: Path) -> None:
    plan = make_plan(registry, pipeline(ISR), REQUEST)
    write_tables(tmp_path / "plan", {**plan.header.to_json(), "format": FORMAT + 1}, {})
    with pytest.raises(PlanError, match="a newer Loadmaster wrote it"):
        Plan.open(tmp_path / "plan")


def test_outputs_have_ids_and_names_of_their_own(registry: Registry) -> None:
    plan = make_plan(registry, pipeline(ISR, STACK), REQUEST)
    made = [d for job in plan.jobs() for q in job.quanta for ds in q.outputs.values() for d in ds]
    assert len({d.id for d in made}) == len({d.path for d in made}) == len(made) == 6
    assert {d.id.version for d in made} == {4}
    assert {d.run for d in made} == {"out"}
