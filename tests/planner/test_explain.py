"""What explanations say: funnels, what would help, and what exists near to what was asked for."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from explained_survey import (
    FRAME,
    FRAMES,
    INPUTS,
    ISR,
    RAW,
    WARP,
    WARPS,
    add_datasets,
    flag,
    pipeline,
    survey,
)
from loadmaster_pipelines.connections import Connection
from loadmaster_pipelines.pipeline import TaskNode
from loadmaster_planner.data_id_tables import DataIdTable
from loadmaster_planner.explain import funnel as explain_funnel
from loadmaster_planner.explain.explanation import Explanation, explain, explain_query
from loadmaster_planner.request import Request
from loadmaster_registry.errors import NotFound, PlanError
from loadmaster_registry.store import Registry

EVERYTHING = Request(INPUTS, "out", allow_partial_gather=True)
OVERLAP = "the overlap on the sky of visit_detector_region and patch regions"


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


def removed(explanation: Explanation) -> list[set[str]]:
    return [{restriction.name for restriction in r.removed} for r in explanation.relaxations]


def hints(explanation: Explanation) -> list[str]:
    return [hint.text for hint in explanation.hints]


def test_a_funnel_tells_how_many_are_left_after_what_takes_some_away(registry: Registry) -> None:
    assert explain(registry, pipeline(ISR, WARP), where("detector = 1")).lines() == [
        "isr {instrument, detector, exposure}: 3",
        "  8 by the records",
        "  6 after links (visit_definition) (8 before)",
        "  3 after `detector = 1` (6 before)",
        "warp {instrument, skymap, tract, patch, visit}: 2",
        "  4 by the records",
        f"  2 after {OVERLAP} (4 before)",
    ]


def test_tasks_with_the_same_funnel_are_told_together(registry: Registry) -> None:
    twin = TaskNode("twin", FRAME, (RAW, Connection("out", "output", "twin", "Text", FRAME)), command="true")
    lines = explain(registry, pipeline(ISR, twin), EVERYTHING).lines()
    assert lines[0] == "isr, twin {instrument, detector, exposure}: 7 each"
    assert lines[1:] == ["  8 by the records", "  7 after 'raw' having to exist in raw, calib (8 before)"]


def test_sky_pixels_that_nothing_lists_come_last(registry: Registry) -> None:
    dimensions = ("visit", "detector", "htm4")
    made = Connection("out", "output", "pixel", "Text", dimensions)
    shards = TaskNode("shards", dimensions, (FRAMES, made), command="true")
    funnel = explain(registry, pipeline(ISR, shards), EVERYTHING).funnels[-1]
    assert [(s.kind, s.after) for s in funnel.steps] == [
        ("records", 4), ("links", 4), ("existing", 3), ("pixels", 10),
    ]  # fmt: skip
    assert funnel.quanta == 10


def test_a_condition_whose_combinations_are_too_many_to_be_made_comes_last(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = where("(visit = 12 OR patch = 1) AND detector = 1")
    early = explain(registry, pipeline(ISR, WARP), request).funnels[-1]
    monkeypatch.setattr(explain_funnel, "_MANY", 3)
    late = explain(registry, pipeline(ISR, WARP), request).funnels[-1]
    assert [s.name for s in early.steps][4] == [s.name for s in late.steps][-1]
    assert early.quanta == late.quanta == late.steps[-1].after == 1


def test_json_has_every_step_also_those_that_take_nothing_away(registry: Registry) -> None:
    told = json.loads(json.dumps(explain(registry, pipeline(ISR), where("detector = 1")).to_json()))
    (funnel,) = told["funnels"]
    assert [(s["kind"], s["before"], s["after"]) for s in funnel["steps"]] == [
        ("records", 8, 8), ("where", 8, 8), ("where", 8, 8), ("where", 8, 4), ("existing", 4, 4),
        ("prerequisite", 4, 4),
    ]  # fmt: skip
    assert not told["is_empty"]
    assert told["relaxations"] == told["hints"] == []


def test_of_conditions_that_contradict_each_other_each_one_helps(registry: Registry) -> None:
    explanation = explain(registry, pipeline(ISR, WARP), where("patch = 1 AND visit = 12"))
    assert removed(explanation) == [{"`patch = 1`"}, {"`visit = 12`"}, {OVERLAP}]
    assert hints(explanation) == []


def test_several_wrong_conditions_must_all_go(registry: Registry) -> None:
    explanation = explain(registry, pipeline(ISR), where("detector = 3 AND exposure = 9 AND visit = 11"))
    assert removed(explanation) == [{"`detector = 3`", "`exposure = 9`"}]
    assert explanation.lines()[:2] == [
        "nothing is left",
        "  there would be something without `detector = 3` and `exposure = 9`",
    ]


def test_an_instrument_that_does_not_exist_can_be_left_out_by_itself(registry: Registry) -> None:
    request = replace(EVERYTHING, where="instrument='J' AND detector = 1")
    explanation = explain(registry, pipeline(ISR), request)
    assert removed(explanation) == [{"`instrument='J'`"}]
    assert "there is 'I'" in hints(explanation)[0]


def test_an_or_is_left_out_as_a_whole(registry: Registry) -> None:
    explanation = explain(registry, pipeline(ISR), where("(detector = 7 OR exposure = 8)"))
    assert removed(explanation) == [{"`(detector = 7 OR exposure = 8)`"}]
    assert [hint.nearest for hint in explanation.hints] == [(2,), (4,)]


def test_regions_that_must_overlap_can_be_left_out_as_the_usual_overlap_can(registry: Registry) -> None:
    text = "visit_detector_region.region OVERLAPS patch.region AND patch = 1 AND visit = 12"
    explanation = explain(registry, pipeline(ISR, WARP), where(text))
    by = "the overlap on the sky by `visit_detector_region.region OVERLAPS patch.region`"
    assert removed(explanation) == [{by}, {"`patch = 1`"}, {"`visit = 12`"}]


def test_a_table_can_be_left_out(registry: Registry) -> None:
    request = replace(EVERYTHING, tables=(DataIdTable("bad.csv", pl.DataFrame({"exposure": [5]})),))
    assert removed(explain(registry, pipeline(ISR), request)) == [{"the table bad.csv"}]


def test_a_table_that_stands_for_the_overlap_says_so(registry: Registry) -> None:
    pairs = pl.DataFrame({"visit": [99], "detector": [1], "tract": [0], "patch": [0]})
    request = replace(EVERYTHING, tables=(DataIdTable("pairs.csv", pairs),))
    explanation = explain(registry, pipeline(ISR, WARP), request)
    assert removed(explanation) == [{"the table pairs.csv and the overlap on the sky that it stands for"}]


def test_flags_can_be_left_out(own: Registry) -> None:
    flag(own, "visit", {"visit": [11]})
    explanation = explain(own, pipeline(ISR, WARP), where("band = 'g'"))
    assert removed(explanation) == [{"`band = 'g'`"}, {"the observation flags"}]
    assert explanation.lines()[-1] == "  0 after the observation flags (2 before)"


def test_an_input_that_other_collections_hold_is_told_with_these(registry: Registry) -> None:
    explanation = explain(registry, pipeline(ISR), replace(EVERYTHING, inputs=("calib",)))
    assert removed(explanation) == [{"'raw' having to exist in calib"}]
    assert hints(explanation) == ["there is no 'raw' in calib; there is some in raw (7)"]


def test_what_all_quanta_lack_is_told_with_what_would_be_enough(registry: Registry) -> None:
    greedy = replace(WARPS, minimum=3)
    alone = TaskNode("coadd", ("patch",), (greedy,), command="true")
    explanation = explain(registry, pipeline(ISR, WARP, alone), EVERYTHING)
    assert not explanation.is_empty
    (text,) = hints(explanation)
    assert text.startswith(
        "2 quanta of coadd need at least 3 'warp' (warps), made by warp, of which 3 quanta are planned; none has more "
        "than 2, for which `minimum: 2` would do; for instance"
    )


def test_an_input_that_restricts_no_data_id_can_be_what_is_missing(registry: Registry) -> None:
    dark = Connection("dark", "input", "dark", "Text", ("detector",), no_graph_constraint=True)
    explanation = explain(
        registry, pipeline(replace(ISR, connections=(*ISR.connections, dark)), WARP), EVERYTHING
    )
    assert removed(explanation) == [{"'dark' having to exist in raw, calib"}]
    assert "need at least 1 'dark' (dark), looked for in raw, calib; they have none" in hints(explanation)[0]


def test_what_is_done_already_can_be_why_nothing_is_left(own: Registry) -> None:
    one = pl.DataFrame({"instrument": ["I"], "exposure": [1], "detector": [1]})
    add_datasets(own, "isr_metadata", "earlier", one)
    request = replace(
        where("exposure = 1 AND detector = 1"), skip_existing="exists", skip_existing_in=("earlier",)
    )
    explanation = explain(own, pipeline(ISR), request)
    done = "leaving out what is done already in earlier"
    assert {done} in removed(explanation)
    assert hints(explanation) == [f"{done} leaves none of the 1 quanta of isr"]


def test_without_links_no_restriction_is_to_blame(registry: Registry) -> None:
    system = TaskNode("isr", ("exposure", "detector", "visit_system"), (RAW,), command="true")
    explanation = explain(registry, pipeline(system), EVERYTHING)
    assert explanation.relaxations == ()
    assert "there are no visit_system records in the registry" in hints(explanation)
    assert "  leaving out restrictions would not help" in explanation.lines()


def test_a_missing_prerequisite_is_told_though_planning_refuses_it(registry: Registry) -> None:
    raw, bias, out = ISR.connections
    needy = replace(ISR, connections=(raw, replace(bias, minimum=1), out))
    explanation = explain(registry, pipeline(needy), EVERYTHING)
    assert explanation.funnels[0].steps[-1].after == 5  # the bias of detector 1 ends before two exposures
    told = "planning refuses: the prerequisite 'bias' (bias) is missing for 2 of 7 quanta of isr"
    assert hints(explanation) == [told]


def test_with_a_target_the_last_task_has_a_funnel_and_others_what_it_needs(registry: Registry) -> None:
    request = replace(EVERYTHING, target="patch = 1")
    assert explain(registry, pipeline(ISR, WARP), request).lines() == [
        "isr {instrument, detector, exposure}: 2",
        "  2 after what the target needs (2 before)",
        "warp {instrument, skymap, tract, patch, visit}: 1",
        "  4 by the records",
        "  2 after `patch = 1` of the target (4 before)",
        f"  1 after {OVERLAP} (2 before)",
    ]


def test_a_target_that_no_record_has_is_told_with_the_nearest(registry: Registry) -> None:
    explanation = explain(registry, pipeline(ISR, WARP), replace(EVERYTHING, target="patch = 7"))
    assert removed(explanation) == [{"`patch = 7` of the target"}]
    assert hints(explanation) == ["no record has patch = 7; nearest: 1; there are 2 from 0 to 1"]


@pytest.mark.parametrize(
    ("condition", "told"),
    [
        ("skymap = 'T'", "no record has skymap = 'T'; there is 'S'"),
        ("physical_filter = 'F_r'", "in instrument I has physical_filter = 'F_r'; there is 'F-r'"),
        ("GLOB(physical_filter, 'Fg*')", "has GLOB(physical_filter, 'Fg*'); there is 'F-g' and 'F-r'"),
        ("band IN ('R', 'G')", "no record has band IN ('R', 'G'); there is 'g', 'r'"),
        ("visit = 99", "in instrument I has visit = 99; nearest: 12; there are 2 from 11 to 12"),
        ("exposure IN (7..9, -2)", "nearest: 1, 4; there are 4 from 1 to 4"),
        ("visit > 12", "has visit > 12; nearest: 11, 12; there are 2 from 11 to 12"),
        ("tract = 0 AND patch = 5", "in skymap S and tract 0 has patch = 5; nearest: 1"),
        ("visit.exposure_time > 30", "visit.exposure_time has no value in any record"),
        (
            "exposure.timespan.begin > T'2026-01-01'",
            "exposure.timespan.begin runs from 1970-01-01T01:00:00 TAI to 1970-01-01T04:00:00 TAI",
        ),
        (
            "exposure.timespan OVERLAPS (T'2026-01-01', NULL)",
            "the time spans lie between 1970-01-01T01:00:00 TAI and 1970-01-01T04:30:00 TAI",
        ),
        ("patch.region OVERLAPS CIRCLE(80, 80, 1)", "none of the 2 regions does"),
        ("visit = :wanted", "has visit = :wanted; nearest: 12; there are 2"),
    ],
)
def test_a_condition_that_no_record_fulfils_is_told_with_the_nearest_values(
    registry: Registry, condition: str, told: str
) -> None:
    request = replace(where(condition), bind={"wanted": 20})
    if condition.startswith("skymap"):
        request = replace(request, where=f"instrument = 'I' AND {condition}")
    assert told in "\n".join(hints(explain(registry, pipeline(ISR), request)))


def test_a_condition_that_records_fulfil_or_that_excludes_is_no_hint(registry: Registry) -> None:
    explanation = explain(registry, pipeline(ISR), where("detector = 1 AND exposure = 9 AND NOT visit = 99"))
    assert [hint.about for hint in explanation.hints] == ["exposure = 9"]


def test_a_collection_that_does_not_exist_is_refused_with_the_nearest_name(registry: Registry) -> None:
    with pytest.raises(NotFound, match="did you mean 'calib'"):
        explain(registry, pipeline(ISR), replace(EVERYTHING, inputs=("clib",)))


def test_a_target_that_nobody_makes_is_refused(registry: Registry) -> None:
    with pytest.raises(PlanError, match="no task makes what the target asks for"):
        explain(registry, pipeline(ISR), replace(EVERYTHING, target="patch = 1"))


def test_an_empty_query_is_explained_as_a_plan_is(registry: Registry) -> None:
    explanation = explain_query(
        registry,
        ["exposure", "detector"],
        where="instrument = 'I' AND exposure = 3 AND detector = :d",
        bind={"d": 2},
        datasets=["raw"],
        collections=["raw"],
    )
    assert removed(explanation) == [
        {"`exposure = 3`"}, {"`detector = :d`"}, {"'raw' having to exist in raw"},
    ]  # fmt: skip
    assert [step.after for step in explanation.funnels[0].steps] == [8, 8, 2, 1, 0]
    assert explanation.lines()[0] == "nothing is left"


def test_a_query_that_finds_something_has_a_funnel_only(registry: Registry) -> None:
    explanation = explain_query(registry, ["visit", "patch"], where="instrument = 'I' AND visit = 11")
    assert explanation.lines() == [
        "data IDs {instrument, skymap, tract, patch, visit}: 2",
        "  4 by the records",
        "  2 after `visit = 11` (4 before)",
    ]
