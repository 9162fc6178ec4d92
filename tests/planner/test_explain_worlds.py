"""Funnels and relaxations of random small surveys, against nested loops and trying every set."""

from itertools import combinations
from typing import Any

from explained_by_loops import (
    LINKS,
    LISTED,
    OVERLAP,
    RAW,
    Asked,
    asked,
    components,
    has_quanta_without,
    pieces,
    quanta_of,
    rows_with,
)
from hypothesis import HealthCheck, Phase, given, settings
from loadmaster_pipelines.pipeline import Pipeline
from loadmaster_planner.explain.explanation import Relaxation, explain
from loadmaster_planner.explain.restrictions import Restriction
from loadmaster_planner.planner import make_plan
from small_worlds import UNIVERSE, World, examples, key_of, pipelines, register, worlds

# Worlds are large to shrink: a failure is worth minutes of a person's time, not of every run.
quick = settings(
    max_examples=examples(20),
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)


def piece_of(restriction: Restriction) -> str:
    """Return what nested loops call a restriction."""
    if restriction.kind == "where":
        return restriction.name.strip("`")[1:-1]
    return {"table": LISTED, "overlap": OVERLAP, "existing": RAW}[restriction.kind]


def smallest_sets(world: World, pipeline: Pipeline, asked: Asked) -> set[frozenset[str]]:
    found = []
    for tasks in components(pipeline):
        all_pieces = pieces(tasks, asked)
        for size in range(len(all_pieces) + 1):
            found += [
                frozenset(removed)
                for removed in combinations(all_pieces, size)
                if has_quanta_without(world, tasks, asked, removed)
            ]
    least = min(map(len, found), default=0)
    return {removed for removed in found if len(removed) == least}


def pieces_of(relaxation: Relaxation) -> frozenset[str]:
    return frozenset(map(piece_of, relaxation.removed))


@quick
@given(worlds(), pipelines(), asked())
def test_all_smallest_sets_of_restrictions_that_help_are_named_and_no_other(
    tmp_path_factory: Any, world: World, pipeline: Pipeline, asked: Asked
) -> None:
    with register(world, tmp_path_factory.mktemp("world") / "registry.sqlite3") as registry:
        explanation = explain(registry, pipeline, asked.request())
        plan = make_plan(registry, pipeline, asked.request())
        smallest = smallest_sets(world, pipeline, asked)
    assert explanation.is_empty == (not plan.n_jobs) == (frozenset() not in smallest)
    named = {pieces_of(relaxation) for relaxation in explanation.relaxations}
    assert named == (smallest if explanation.is_empty else set())


@quick
@given(worlds(), pipelines(), asked())
def test_a_funnel_counts_what_nested_loops_leave_after_each_step(
    tmp_path_factory: Any, world: World, pipeline: Pipeline, asked: Asked
) -> None:
    with register(world, tmp_path_factory.mktemp("world") / "registry.sqlite3") as registry:
        funnels = {funnel.task: funnel for funnel in explain(registry, pipeline, asked.request()).funnels}
    for tasks in components(pipeline):
        told = pieces(tasks, asked)
        held = [told[:n] for n in range(len(told) + 1)]
        rows = [rows_with(world, tasks, [], links=False), *(rows_with(world, tasks, some) for some in held)]
        kept = quanta_of(tasks, rows[-1], world.raws)
        for task in tasks.members:
            steps = [
                s for s in funnels[task.label].steps if s.name not in ("`instrument='I'`", "`skymap='S'`")
            ]
            counted = [len({key_of(row, task.dimensions) for row in some}) for some in rows]
            if all(step.kind != LINKS for step in steps):
                assert counted[0] == counted[1]  # there is no link
                counted = counted[1:]
            required = UNIVERSE.group(task.dimensions).required
            before_inputs = [s for s in steps if s.kind not in ("missing", "prerequisite")]
            assert [s.after for s in before_inputs] == counted
            assert funnels[task.label].dimensions == required
            assert funnels[task.label].quanta == len(kept[task.label])
            assert [s.after for s in steps if s.kind != "prerequisite"][-1] == len(kept[task.label])
            assert [s.before for s in steps[1:]] == [s.after for s in steps[:-1]]
