"""Flagged observations take no part, whichever element the flag is on."""

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from loadmaster_pipelines.loader import load_pipeline
from loadmaster_planner.plan import Plan
from loadmaster_planner.planner import make_plan
from loadmaster_planner.request import Request
from loadmaster_registry.store import Registry

WHERE = "instrument='HSC' AND {} IN (322, 1242)"
Planned = Callable[..., Plan]


@pytest.fixture
def registry(imported: Callable[[str], Registry]) -> Registry:
    return imported("rc2-small")


@pytest.fixture
def planned(registry: Registry, cases: Path) -> Planned:
    """Return what plans the frames of two visits, of six detectors each, until the named tasks."""

    def plan(tasks: str = "isr,calibrate,summarize_visit", *, include_flagged: bool = False) -> Plan:
        pipeline = load_pipeline(
            f"{cases / 'pipelines' / 'drp-mini.yaml'}#{tasks}", universe=registry.universe
        )
        where = WHERE.format("exposure" if tasks == "isr" else "visit")
        request = Request(("HSC/RC2/defaults",), "out", where=where, include_flagged=include_flagged)
        return make_plan(registry, pipeline, request)

    return plan


def flag(registry: Registry, element: str, **keys: int) -> None:
    row = pl.DataFrame([{"instrument": "HSC", **keys, "flagged": True, "flag_reason": "trailed"}])
    with registry.transaction() as txn:
        txn.set_metadata(element, row, loaded="2026-11-24T00:00:00+00:00", source="a test")


def quanta(plan: Plan) -> dict[str, int]:
    return {task.label: task.quanta for task in plan.summary}


def test_a_flagged_visit_takes_all_that_is_its_own_with_it(registry: Registry, planned: Planned) -> None:
    assert quanta(planned()) == {"isr": 12, "calibrate": 12, "summarize_visit": 2}
    flag(registry, "visit", visit=322)
    plan = planned()
    assert quanta(plan) == {"isr": 6, "calibrate": 6, "summarize_visit": 1}
    assert set(plan.quanta("isr")["exposure"]) == {1242}
    assert plan.header.notes == ("flagged, and left out: 1 visit; see them: loadmaster query-flags",)
    assert quanta(planned(include_flagged=True)) == {"isr": 12, "calibrate": 12, "summarize_visit": 2}


def test_a_flag_on_a_visit_counts_for_its_exposures_where_no_visits_take_part(
    registry: Registry, planned: Planned
) -> None:
    flag(registry, "visit", visit=322)
    assert set(planned("isr").quanta("isr")["exposure"]) == {1242}


def test_a_flag_on_an_exposure_counts_for_what_is_made_of_it(registry: Registry, planned: Planned) -> None:
    flag(registry, "exposure", exposure=1242)
    assert quanta(planned()) == {"isr": 6, "calibrate": 6, "summarize_visit": 1}


def test_one_detector_of_one_visit_can_be_flagged(registry: Registry, planned: Planned) -> None:
    flag(registry, "visit_detector_region", visit=322, detector=41)
    plan = planned()
    assert quanta(plan) == {"isr": 11, "calibrate": 11, "summarize_visit": 2}
    left = plan.quanta("isr").filter(pl.col("detector") == 41)
    assert left["exposure"].to_list() == [1242]
    assert quanta(planned("isr")) == {"isr": 11}


def test_a_flagged_detector_drops_out_of_every_visit(registry: Registry, planned: Planned) -> None:
    flag(registry, "detector", detector=41)
    assert quanta(planned()) == {"isr": 10, "calibrate": 10, "summarize_visit": 2}
