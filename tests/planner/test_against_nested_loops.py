"""The planner against the slow and obvious one: nested loops over all records, sets of tuples, no shared code."""

from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from loadmaster_pipelines.pipeline import Pipeline, TaskNode
from loadmaster_planner.plan import Plan
from loadmaster_planner.planner import make_plan
from loadmaster_planner.request import Request
from small_worlds import (
    CONDITIONS,
    Record,
    World,
    all_rows,
    examples,
    key_of,
    pipelines,
    raws_constrain,
    register,
    told,
    worlds,
)


def slow_plan(world: World, pipeline: Pipeline, condition: str) -> dict[str, set[Any]]:
    """Return for each task the set of (data ID, frozenset of (input type, data ID))."""
    result: dict[str, set[Any]] = {}
    for labels in pipeline.components():
        tasks = [pipeline.tasks[label] for label in labels]
        names = {d for t in tasks for d in t.dimensions}
        names |= {d for t in tasks for c in (*t.inputs, *t.outputs) for d in c.dimensions}
        reads_raw = raws_constrain(tasks, pipeline)
        rows = all_rows(world, names, condition, reads_raw)
        there = {"raw": {key_of(r, ("exposure", "detector")) for r in world.raws}}
        for task in tasks:
            result[task.label] = slow_quanta(world, task, rows, there)
    return result


def slow_quanta(world: World, task: TaskNode, rows: list[Record], there: dict[str, set[Any]]) -> set[Any]:
    quanta = set()
    for data_id in {key_of(row, task.dimensions) for row in rows}:
        mine = [row for row in rows if key_of(row, task.dimensions) == data_id]
        links = {
            c.name: {key_of(r, c.dimensions) for r in mine} & there.get(c.dataset_type, set())
            for c in task.inputs
        }
        if all(len(links[c.name]) >= c.minimum for c in task.inputs):
            inputs = {(c.dataset_type, key) for c in task.inputs for key in links[c.name]}
            for _ in task.prerequisites:
                inputs |= valid_biases(world, mine[0])
            quanta.add((data_id, frozenset(inputs)))
            for c in task.outputs:
                there.setdefault(c.dataset_type, set()).update(key_of(r, c.dimensions) for r in mine)
    return quanta


def valid_biases(world: World, row: Record) -> set[Any]:
    begin = row["exposure"]
    return {
        ("bias", ("I", d))
        for d, first, end in world.biases
        if d == row["detector"] and first < begin + 0.5 and begin < end
    }


@settings(
    max_examples=examples(60),
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=set(Phase) - {Phase.shrink},
)
@given(worlds(), pipelines(), st.sampled_from(["", *CONDITIONS]))
def test_a_plan_is_what_nested_loops_give(
    tmp_path_factory: Any, world: World, pipeline: Pipeline, condition: str
) -> None:
    with register(world, tmp_path_factory.mktemp("world") / "registry.sqlite3") as registry:
        where = f"instrument='I' AND skymap='S' AND ({condition})" if condition else ""
        request = Request(("raw", "calib"), "out", where=where, allow_partial_gather=True)
        expected = slow_plan(world, pipeline, condition)
        plan = make_plan(registry, pipeline, request)
        assert told(plan) == expected
        path = tmp_path_factory.mktemp("plan") / "plan"
        plan.write(path)
        assert told(Plan.open(path)) == expected
        assert make_plan(registry, pipeline, request).digest == plan.digest == Plan.open(path).digest
