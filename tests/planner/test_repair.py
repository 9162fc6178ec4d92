"""Repairs: what is made anew without flagged observations, against a full rebuild without them."""

import ast
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, Phase, find, given, settings
from hypothesis import strategies as st
from loadmaster_pipelines.pipeline import Pipeline
from loadmaster_planner.plan import Plan
from loadmaster_planner.planner import make_plan
from loadmaster_planner.repair import contaminated_in
from loadmaster_planner.request import Request
from loadmaster_registry.errors import PlanError
from loadmaster_registry.store import Registry
from recorded_runs import inputs_by_quantum, record_run
from small_worlds import World, examples, pipelines, register, worlds

INPUTS = ("raw", "calib")


def flag(registry: Registry, element: str, rows: list[dict[str, Any]]) -> None:
    frame = pl.DataFrame(rows).with_columns(flagged=True, flag_reason=pl.lit("clouds"))
    with registry.transaction() as t:
        t.set_metadata(element, frame, loaded="2026-01-02", source="a test")


def is_bad(data_id: dict[str, Any], flagged: list[dict[str, Any]]) -> bool:
    return any(row.items() <= data_id.items() for row in flagged)


def spoiled_slowly(plan: Plan, flagged: list[dict[str, Any]]) -> set[Any]:
    """Return the outputs of a plan that flagged observations led to, one quantum after the other."""
    spoiled: set[Any] = set()
    bad: set[Any] = set()
    for job in plan.jobs():
        for q in job.quanta:
            read = [d for found in q.inputs.values() for d in found]
            made = [d for found in q.outputs.values() for d in found]
            dirty = any(d.id in bad or is_bad(d.data_id, flagged) for d in read)
            bad |= {d.id for d in made if dirty or is_bad(d.data_id, flagged)}
            spoiled |= {(d.dataset_type, str(d.data_id)) for d in made if d.id in bad}
    return spoiled


@settings(
    max_examples=examples(25),
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=set(Phase) - {Phase.shrink},
)
@given(worlds(), pipelines(), st.data())
def test_a_repair_is_the_part_of_a_full_rebuild_that_is_contaminated(
    tmp_path_factory: Any, world: World, pipeline: Pipeline, data: st.DataObject
) -> None:
    element = data.draw(st.sampled_from(["exposure", "detector"]))
    keys = sorted({row[element] for row in world.records[element]})
    flagged = [
        {"instrument": "I", element: k} for k in data.draw(st.lists(st.sampled_from(keys), unique=True))
    ]
    with register(world, tmp_path_factory.mktemp("world") / "registry.sqlite3") as registry:
        old = make_plan(registry, pipeline, Request(INPUTS, "run/1"))
        record_run(registry, old)
        if flagged:
            flag(registry, element, flagged)
        rebuilt = make_plan(registry, pipeline, Request(INPUTS, "run/2"))
        repaired = make_plan(registry, pipeline, Request(INPUTS, "run/2", repair=("run/1",)))
        spoiled = spoiled_slowly(old, flagged)
        anew = {
            (q.task, tuple(q.data_id.items()))
            for job in rebuilt.jobs()
            for q in job.quanta
            if any((d.dataset_type, str(d.data_id)) in spoiled for f in q.outputs.values() for d in f)
        }
        whole = inputs_by_quantum(rebuilt)
        assert inputs_by_quantum(repaired) == {key: whole[key] for key in anew}
        with registry.snapshot() as now:
            told = {
                (name, str({d: row[d] for d in row if d != "dataset"}))
                for name, frame in contaminated_in(now, ["run/1"], INPUTS).items()
                for row in frame.iter_rows(named=True)
            }
        assert told == {(name, str(_required(old, name, text))) for name, text in spoiled}


def _required(plan: Plan, dataset_type: str, data_id: str) -> dict[str, Any]:
    dimensions = next(t.dimensions for t in plan.header.types if t.name == dataset_type)
    whole = ast.literal_eval(data_id)
    return {d: whole[d] for d in dimensions}


@pytest.fixture
def recorded(tmp_path: Path) -> Any:
    quick = settings(database=None, max_examples=2000)
    world = find(worlds(), lambda w: len(w.raws) >= 3, settings=quick)
    pipeline = find(pipelines(), lambda p: len(p.tasks) == 2, settings=quick)
    with register(world, tmp_path / "registry.sqlite3") as registry:
        record_run(registry, make_plan(registry, pipeline, Request(INPUTS, "run/1")))
        yield registry, pipeline


def test_a_repair_says_that_nothing_is_contaminated(recorded: tuple[Registry, Pipeline]) -> None:
    registry, pipeline = recorded
    made = make_plan(registry, pipeline, Request(INPUTS, "run/2", repair=("run/1",)))
    assert made.n_jobs == 0
    assert "no flagged observation has anything in run/1" in made.header.why_empty


def test_a_repair_that_skips_too_or_includes_what_has_a_flag_is_refused(
    recorded: tuple[Registry, Pipeline],
) -> None:
    registry, pipeline = recorded
    request = Request(INPUTS, "run/2", repair=("run/1",))
    with pytest.raises(PlanError, match="--repair and --skip-existing contradict"):
        make_plan(registry, pipeline, replace(request, skip_existing="exists", skip_existing_in=("run/1",)))
    with pytest.raises(PlanError, match="--repair and --include-flagged contradict"):
        make_plan(registry, pipeline, replace(request, include_flagged=True))
