"""Why a quantum is not in the plan: for any quantum of random small surveys, against nested loops."""

from dataclasses import replace
from itertools import product
from typing import Any

from explained_by_loops import (
    CLAUSES,
    LINKS,
    LISTED,
    OVERLAP,
    RAW,
    Asked,
    asked,
    components,
    pieces,
    quanta_of,
    rows_with,
)
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from loadmaster_pipelines.pipeline import Pipeline, TaskNode
from loadmaster_planner.explain.absence import WhyNot, why_not
from loadmaster_planner.planner import make_plan
from small_worlds import UNIVERSE, World, examples, key_of, pipelines, register, told, worlds

Quantum = tuple[TaskNode, tuple[Any, ...]]


def all_quanta(world: World, pipeline: Pipeline) -> list[Quantum]:
    """Return every task on every combination of values that records have."""
    found = []
    for task in pipeline.tasks.values():
        required = UNIVERSE.group(task.dimensions).required
        values = [sorted({record[d] for record in world.records[d]}) for d in required]
        found += [(task, data_id) for data_id in product(*values)]
    return found


def first_refusal(world: World, pipeline: Pipeline, asked: Asked, quantum: Quantum) -> str:
    """Return the first of all that takes part whose loops leave nothing of the quantum."""
    task, data_id = quantum
    required = UNIVERSE.group(task.dimensions).required
    own = dict(zip(required, data_id, strict=True))
    for d in required:
        keys = UNIVERSE[d].required
        if not any(all(record[k] == own[k] for k in keys) for record in world.records[d]):
            return "record"
    (tasks,) = (tasks for tasks in components(pipeline) if task.label in tasks.labels)
    steps = pieces(tasks, asked)
    for name, rows in (
        ("records", rows_with(world, tasks, [], links=False)),
        *((name, rows_with(world, tasks, steps[:n])) for n, name in enumerate([LINKS, *steps])),
    ):
        if data_id not in {key_of(row, task.dimensions) for row in rows}:
            return name
    enough = quanta_of(tasks, rows_with(world, tasks, steps), world.raws)[task.label]
    return "planned" if data_id in enough else "missing"


def named(answer: WhyNot) -> str:
    """Return what nested loops call the reason."""
    if answer.kind == "where":
        assert answer.removed_by is not None
        text = answer.removed_by.name.strip("`")
        return text[1:-1] if text[1:-1] in CLAUSES else text
    names: dict[str, str] = {"table": LISTED, "overlap": OVERLAP, "existing": RAW}
    return names.get(answer.kind, answer.kind)


def written(quantum: Quantum) -> str:
    task, data_id = quantum
    required = UNIVERSE.group(task.dimensions).required
    return " ".join([task.label, *(f"{d}={value}" for d, value in zip(required, data_id, strict=True))])


# Worlds are large to shrink: a failure is worth minutes of a person's time, not of every run.
@settings(
    max_examples=examples(20),
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)
@given(worlds(), pipelines(), asked(), st.data())
def test_the_first_thing_that_removed_a_quantum_is_named_or_it_is_in_the_plan(
    tmp_path_factory: Any, world: World, pipeline: Pipeline, asked: Asked, data: st.DataObject
) -> None:
    quanta = all_quanta(world, pipeline)
    with register(world, tmp_path_factory.mktemp("world") / "registry.sqlite3") as registry:
        plan = told(make_plan(registry, pipeline, asked.request()))
        for i in data.draw(st.sets(st.integers(0, len(quanta) - 1), min_size=1, max_size=4)):
            task, data_id = quanta[i]
            answer = why_not(registry, pipeline, asked.request(), written(quanta[i]))
            assert answer.is_planned == (data_id in {key for key, _ in plan[task.label]})
            assert named(answer) == first_refusal(world, pipeline, asked, quanta[i])
            assert answer.is_planned != bool(answer.reasons)
            if named(answer) in asked.clauses:
                others = tuple(clause for clause in asked.clauses if clause != named(answer))
                without = replace(asked, clauses=others).request()
                assert named(why_not(registry, pipeline, without, written(quanta[i]))) != named(answer)
