"""What is said of one quantum that is not in the plan, or is; and how a quantum is written."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from explained_survey import BIAS, COADD, FRAMES, INPUTS, ISR, RAW, WARP, add_datasets, flag, pipeline, survey
from loadmaster_pipelines.connections import Connection
from loadmaster_pipelines.pipeline import Pipeline
from loadmaster_planner.data_id_tables import DataIdTable
from loadmaster_planner.explain.absence import WhyNot, why_not
from loadmaster_planner.request import Request
from loadmaster_registry.errors import PlanError, QueryError
from loadmaster_registry.store import Registry

EVERYTHING = Request(INPUTS, "out", allow_partial_gather=True)
ALL_TASKS = pipeline(ISR, WARP, COADD)
DARK = Connection("dark", "input", "dark", "Text", ("detector",), no_graph_constraint=True)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with survey(tmp_path_factory.mktemp("survey")) as made:
        yield made


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Registry]:
    """Return a registry to write to."""
    with survey(tmp_path) as made:
        yield made


def where(text: str) -> Request:
    return replace(EVERYTHING, where=f"instrument='I' AND skymap='S' AND {text}")


def reason(answer: WhyNot) -> str:
    (one,) = answer.reasons
    return one


def test_a_quantum_that_is_planned_is_said_to_be(registry: Registry) -> None:
    answer = why_not(registry, ALL_TASKS, EVERYTHING, "coadd tract=0 patch=0")
    assert answer.is_planned
    assert str(answer) == "coadd skymap=S tract=0 patch=0: in the plan"
    assert json.loads(json.dumps(answer.to_json())) == {
        "quantum": "coadd skymap=S tract=0 patch=0", "is_planned": True, "kind": "planned", "reasons": [],
        "removed_by": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("quantum", "told"),
    [
        ("isr exposure=9 detector=1", "there is no exposure=9 in instrument='I'; nearest: 4"),
        ("isr exposure=1 detector=1 instrument=J", "there is no instrument='J'; there is 'I'"),
        ("warp visit=11 tract=0 patch=4", "there is no patch=4 in skymap='S' and tract=0; nearest: 1"),
        ("warp visit=11 tract=0 patch=0 band=r", "its band is 'g', not 'r'"),
    ],
)
def test_a_value_without_a_record_is_told_with_the_nearest(
    registry: Registry, quantum: str, told: str
) -> None:
    answer = why_not(registry, ALL_TASKS, EVERYTHING, quantum)
    assert answer.kind == "record"
    assert reason(answer).startswith(told)


@pytest.mark.parametrize(
    ("condition", "told"),
    [
        ("band='r'", "the condition `band='r'` of where does not hold: here band='g'"),
        ("(detector > 1 OR visit = 12)", "does not hold: here detector=1 visit=11"),
        ("exposure.timespan.begin > T'2026-01-01'", "here exposure.timespan_begin=1970-01-01T01:00:00 TAI"),
        ("visit.exposure_time > 3", "here visit.exposure_time=null"),
        ("patch = 2", "here patch=0; patch=1"),
        ("tract.region OVERLAPS CIRCLE(80, 80, 1)", "does not hold for skymap='S' tract=0"),
    ],
)
def test_a_condition_is_told_with_what_the_quantum_has_instead(
    registry: Registry, condition: str, told: str
) -> None:
    answer = why_not(registry, pipeline(ISR), where(condition), "isr exposure=1 detector=1")
    assert answer.kind == "where"
    assert told in reason(answer)


def test_a_condition_about_what_does_not_go_with_the_quantum_says_so(registry: Registry) -> None:
    answer = why_not(registry, pipeline(ISR), where("visit = 12"), "isr exposure=4 detector=1")
    assert reason(answer) == "`visit = 12` is about visit, of which none goes with it"


def test_the_first_of_several_conditions_is_the_one_that_is_told(registry: Registry) -> None:
    answer = why_not(registry, pipeline(ISR), where("exposure < 9 AND detector = 2 AND band = 'r'"),
                     "isr exposure=1 detector=1")  # fmt: skip
    assert answer.removed_by is not None
    assert answer.removed_by.name == "`detector = 2`"


@pytest.mark.parametrize(
    ("tasks", "request_", "quantum", "kind", "told"),
    [
        (
            ALL_TASKS, EVERYTHING, "isr exposure=4 detector=1", "links",
            "no record of visit_definition links it to the rest",
        ),
        (
            ALL_TASKS, EVERYTHING, "warp visit=12 tract=0 patch=1", "overlap",
            "on the sky visit_detector_region instrument='I' detector=1 visit=12 does not overlap "
            "patch skymap='S' tract=0 patch=1",
        ),
        (
            ALL_TASKS, EVERYTHING, "isr exposure=3 detector=2", "overlap",
            "there is no visit_detector_region region for instrument='I' detector=2 visit=12",
        ),
        (
            pipeline(ISR), EVERYTHING, "isr exposure=3 detector=2", "existing",
            "there is no 'raw' in raw, calib for instrument='I' detector=2 exposure=3",
        ),
        (
            pipeline(ISR), replace(EVERYTHING, inputs=("calib",)), "isr exposure=3 detector=1", "existing",
            "there is no 'raw' in calib for instrument='I' detector=1 exposure=3; there is in run raw",
        ),
        (
            pipeline(ISR),
            replace(EVERYTHING, tables=(DataIdTable("bad.csv", pl.DataFrame({"exposure": [5]})),)),
            "isr exposure=3 detector=1", "table", "the table bad.csv has no row for exposure=3",
        ),
        (
            ALL_TASKS, replace(EVERYTHING, target="patch = 1"), "coadd tract=0 patch=0", "target",
            "the condition `patch = 1` of the target does not hold: here patch=0",
        ),
        (
            ALL_TASKS, replace(EVERYTHING, target="patch = 1"), "isr exposure=1 detector=1", "closure",
            "nothing that the target `patch = 1` asks for needs it",
        ),
    ],
)  # fmt: skip
def test_what_does_not_admit_a_quantum_is_told_by_name_and_place(
    registry: Registry, tasks: Pipeline, request_: Request, quantum: str, kind: str, told: str
) -> None:
    answer = why_not(registry, tasks, request_, quantum)
    assert (answer.kind, reason(answer)) == (kind, told)


@pytest.mark.parametrize(
    ("element", "key", "told"),
    [
        ("exposure", {"exposure": [1]}, "there is a flag on instrument='I' exposure=1 (satellite)"),
        ("visit", {"visit": [11]}, "there is a flag on instrument='I' exposure=1 (satellite)"),
        ("detector", {"detector": [1]}, "there is a flag on instrument='I' detector=1 (satellite)"),
    ],
)
def test_a_flag_is_told_with_its_reason(
    own: Registry, element: str, key: dict[str, list[int]], told: str
) -> None:
    flag(own, element, key)
    answer = why_not(own, pipeline(ISR), EVERYTHING, "isr exposure=1 detector=1")
    assert answer.kind == "flags"
    assert reason(answer) == f"{told}; what is flagged takes part with --include-flagged"
    with_flagged = replace(EVERYTHING, include_flagged=True)
    assert why_not(own, pipeline(ISR), with_flagged, "isr exposure=1 detector=1").is_planned


def test_what_a_target_needs_is_in_the_plan(registry: Registry) -> None:
    request = replace(EVERYTHING, target="patch = 1")
    assert why_not(registry, pipeline(ISR, WARP), request, "isr exposure=1 detector=2").is_planned


def test_too_few_inputs_are_told_with_how_many_there_are(registry: Registry) -> None:
    answer = why_not(registry, ALL_TASKS, EVERYTHING, "coadd tract=0 patch=1")
    assert answer.kind == "missing"
    assert reason(answer) == (
        "coadd skymap=S tract=0 patch=1 needs at least 2 'warp' (warps) and has 1 of the 1 that go with it"
    )


def test_a_lost_input_is_followed_down_to_the_root(registry: Registry) -> None:
    tasks = pipeline(replace(ISR, connections=(*ISR.connections, DARK)), WARP, COADD)
    assert why_not(registry, tasks, EVERYTHING, "coadd tract=0 patch=0").lines() == [
        "coadd skymap=S tract=0 patch=0: not in the plan",
        "  coadd skymap=S tract=0 patch=0 needs at least 2 'warp' (warps) and has 0 of the 2 that go with it",
        "  because warp instrument=I skymap=S tract=0 patch=0 visit=11 needs at least 1 'frame' (frames) and has 0 of "
        "the 2 that go with it",
        "  because isr instrument=I detector=1 exposure=1 needs at least 1 'dark' (dark) and has 0 of the 1 that go "
        "with it",
        "  because dark instrument=I detector=1 is in none of raw, calib",
    ]


def test_a_done_quantum_is_told_with_the_run_that_has_it(own: Registry) -> None:
    one = pl.DataFrame({"instrument": ["I"], "exposure": [1], "detector": [1]})
    add_datasets(own, "isr_metadata", "earlier", one)
    request = replace(EVERYTHING, skip_existing="exists", skip_existing_in=("earlier",))
    answer = why_not(own, ALL_TASKS, request, "isr exposure=1 detector=1")
    assert answer.kind == "done"
    assert reason(answer) == "it is done already: isr_metadata is in run earlier"
    assert why_not(own, ALL_TASKS, request, "isr exposure=2 detector=1").is_planned


def test_an_output_that_a_done_quantum_did_not_leave_is_the_root(own: Registry) -> None:
    every = own.records("exposure").select("instrument", "exposure").join(
        own.records("detector").select("detector"), how="cross"
    )  # fmt: skip
    add_datasets(own, "isr_metadata", "earlier", every)
    request = replace(EVERYTHING, skip_existing="exists", skip_existing_in=("earlier",))
    answer = why_not(own, pipeline(ISR, WARP), request, "warp visit=12 tract=0 patch=0")
    assert answer.reasons[-1] == (
        "isr counts as done in earlier, but its frame instrument=I detector=1 exposure=3 is not there"
    )


def test_a_missing_prerequisite_is_told_for_this_quantum_only(registry: Registry) -> None:
    needy = pipeline(replace(ISR, connections=(RAW, replace(BIAS, minimum=1))))
    answer = why_not(registry, needy, EVERYTHING, "isr exposure=3 detector=1")
    assert answer.kind == "prerequisite"
    assert "1 quanta of isr lack the prerequisite 'bias'" in reason(answer)
    assert why_not(registry, needy, EVERYTHING, "isr exposure=3 detector=2").kind == "existing"
    assert why_not(registry, needy, EVERYTHING, "isr exposure=4 detector=2").is_planned


def test_texts_may_stand_in_quotes(registry: Registry) -> None:
    tasks = pipeline(replace(COADD, dimensions=("patch", "band"), connections=(FRAMES,)), ISR)
    for text in ("coadd tract=0 patch=0 band=g", "coadd  band='g' patch = 0 tract=0 skymap=\"S\""):
        assert why_not(registry, tasks, EVERYTHING, text).quantum == "coadd band=g skymap=S tract=0 patch=0"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "no quantum is named"),
        ("exposure=1 isr", "a task's label is wanted here"),
        ("isr exposure=1 2", "key=value is wanted here"),
        ("isr exposure=1 detector=", "key=value is wanted here"),
        ("isr exposure=1, detector=2", "1, is no whole number"),
        ("isr exposure=1 exposure=2", "exposure is given twice"),
        ("isr exposure=1 detectr=2", "did you mean 'detector'"),
        ("isr exposure=1 tract=2", "a quantum of isr has no 'tract'"),
        ("isr exposure=one detector=2", "one is no whole number"),
        ("isr exposure=1", "the data ID lacks detector"),
    ],
)
def test_a_quantum_that_is_written_wrongly_is_refused_at_the_place(
    registry: Registry, text: str, told: str
) -> None:
    with pytest.raises(QueryError, match=told):
        why_not(registry, ALL_TASKS, EVERYTHING, text)


def test_an_unknown_task_is_refused_with_the_nearest(registry: Registry) -> None:
    with pytest.raises(PlanError, match="did you mean 'warp'"):
        why_not(registry, ALL_TASKS, EVERYTHING, "wrap visit=11 tract=0 patch=0")


def test_a_task_that_was_not_selected_is_said_to_be_left_out(registry: Registry) -> None:
    with pytest.raises(PlanError, match="left out when the tasks were selected"):
        why_not(registry, ALL_TASKS.subset(["isr"]), EVERYTHING, "warp visit=11 tract=0 patch=0")


def test_an_instrument_must_be_named_where_several_can_be_meant(own: Registry) -> None:
    with own.transaction() as txn:
        txn.insert_records("instrument", pl.DataFrame({"instrument": ["J"]}))
    with pytest.raises(QueryError, match="the data ID lacks instrument"):
        why_not(own, ALL_TASKS, EVERYTHING, "isr exposure=1 detector=1")
    assert why_not(own, ALL_TASKS, where("detector > 0"), "isr exposure=1 detector=1").is_planned
