"""A target plans what its end products need, complete, and nothing else; a restriction that trims gathers is told."""

from pathlib import Path
from typing import Any

import networkx as nx
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from loadmaster_pipelines.loader import load_pipeline
from loadmaster_pipelines.pipeline import Pipeline, TaskNode
from loadmaster_planner.planner import make_plan
from loadmaster_planner.request import Request
from loadmaster_registry.errors import PlanError
from loadmaster_registry.queries import query_data_ids, query_datasets
from small_worlds import (
    CONDITIONS,
    NAMED,
    UNIVERSE,
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

QUICK = settings(
    max_examples=examples(50),
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=set(Phase) - {Phase.shrink},
)
TARGETS = (
    "detector = 1",
    "patch = 0",
    "band = 'g'",
    "visit = 11",
    "tract = 0 AND band = 'r'",
    "exposure = 2",
)
TARGET_DIMENSIONS = {
    "detector = 1": {"detector"},
    "patch = 0": {"patch"},
    "band = 'g'": {"band"},
    "visit = 11": {"visit"},
    "tract = 0 AND band = 'r'": {"tract", "band"},
    "exposure = 2": {"exposure"},
}


# ------------------------------------------------------------------------------------------ slow and obvious


def above(pipeline: Pipeline, label: str) -> list[TaskNode]:
    wanted = nx.ancestors(pipeline.task_graph(), label) | {label}
    return [task for task in pipeline.tasks.values() if task.label in wanted]


def rows_above(world: World, pipeline: Pipeline, label: str, condition: str) -> list[Record]:
    """Return the rows of a task and those upstream of it, under a condition where it is about their dimensions."""
    tasks = above(pipeline, label)
    names = {d for t in tasks for d in t.dimensions}
    names |= {d for t in tasks for c in (*t.inputs, *t.outputs) for d in c.dimensions}
    applies = NAMED.get(condition, set()) <= set(UNIVERSE.group(names))
    return all_rows(world, names, condition if applies else "", raws_constrain(tasks, pipeline))


def holds(target: str, row: Record) -> bool:
    conditions = [part.split(" = ") for part in target.split(" AND ")]
    return all(str(row[name]) == value.strip("'") for name, value in conditions)


def ends(pipeline: Pipeline, target: str) -> set[str]:
    able = {
        t.label
        for t in pipeline.tasks.values()
        if TARGET_DIMENSIONS[target] <= set(UNIVERSE.group(t.dimensions))
    }
    return {label for label in able if not able & nx.descendants(pipeline.task_graph(), label)}


def slow_target(world: World, pipeline: Pipeline, target: str, condition: str) -> dict[str, set[Any]]:
    last, needed = ends(pipeline, target), set[Any]()
    links: dict[str, dict[Any, tuple[set[Any], set[Any]]]] = {}
    for task in reversed(list(pipeline.tasks.values())):
        quanta: dict[Any, tuple[set[Any], set[Any]]] = {}
        for row in rows_above(world, pipeline, task.label, condition):
            outputs = {(c.dataset_type, key_of(row, c.dimensions)) for c in task.outputs}
            quantum = quanta.setdefault(key_of(row, task.dimensions), (set(), set()))
            quantum[0].update((c.dataset_type, key_of(row, c.dimensions)) for c in task.inputs)
            quantum[1].update(outputs)
        chosen = {
            key_of(row, task.dimensions)
            for row in rows_above(world, pipeline, task.label, condition)
            if task.label in last and holds(target, row)
        }
        links[task.label] = {k: q for k, q in quanta.items() if k in chosen or q[1] & needed}
        for inputs, _ in links[task.label].values():
            needed |= inputs
    there = {("raw", key_of(r, ("exposure", "detector"))) for r in world.raws}
    result: dict[str, set[Any]] = {}
    for task in pipeline.tasks.values():
        result[task.label] = set()
        for key, (inputs, outputs) in links[task.label].items():
            by_type = [{d for d in inputs & there if d[0] == c.dataset_type} for c in task.inputs]
            if all(len(found) >= c.minimum for found, c in zip(by_type, task.inputs, strict=True)):
                result[task.label].add((key, frozenset(inputs & there)))
                there |= outputs
    return result


def without_biases(found: dict[str, set[Any]]) -> dict[str, set[Any]]:
    return {
        label: {(key, frozenset(d for d in inputs if d[0] != "bias")) for key, inputs in quanta}
        for label, quanta in found.items()
    }


@QUICK
@given(worlds(), pipelines(), st.sampled_from(TARGETS), st.sampled_from(["", "detector > 1", "band = 'g'"]))
def test_a_target_plans_all_that_its_products_need_and_nothing_else(
    tmp_path_factory: Any, world: World, pipeline: Pipeline, target: str, condition: str
) -> None:
    with register(world, tmp_path_factory.mktemp("world") / "registry.sqlite3") as registry:
        where = f"instrument='I' AND skymap='S' AND ({condition})" if condition else ""
        request = Request(("raw", "calib"), "out", where=where, target=target)
        if not any(ends(pipeline, target)):
            with pytest.raises(PlanError, match="no task makes what the target asks for"):
                make_plan(registry, pipeline, request)
            return
        plan = make_plan(registry, pipeline, request)
        assert without_biases(told(plan)) == slow_target(world, pipeline, target, condition)


@QUICK
@given(worlds(), pipelines(), st.sampled_from(list(CONDITIONS)))
def test_gathers_that_a_restriction_trims_are_told_with_how_many_of_how_many(
    tmp_path_factory: Any, world: World, pipeline: Pipeline, condition: str
) -> None:
    expected = slow_partial_gathers(world, pipeline, condition)
    with register(world, tmp_path_factory.mktemp("world") / "registry.sqlite3") as registry:
        where = f"instrument='I' AND skymap='S' AND ({condition})"
        accepted = Request(("raw", "calib"), "out", where=where, allow_partial_gather=True)
        plan = make_plan(registry, pipeline, accepted)
        found = {(p.task, p.connection): (p.quanta, p.planned, p.complete) for p in plan.header.partial}
        final = {label: {key for key, _ in quanta} for label, quanta in told(plan).items()}
        assert found == expected_of(expected, final)
        if found:
            with pytest.raises(PlanError, match="leaves gathers with a part of their inputs"):
                make_plan(registry, pipeline, Request(("raw", "calib"), "out", where=where))
        else:
            strict = make_plan(registry, pipeline, Request(("raw", "calib"), "out", where=where))
            assert strict.digest == plan.digest


def slow_partial_gathers(
    world: World, pipeline: Pipeline, condition: str
) -> dict[tuple[str, str], dict[Any, tuple[int, int]]]:
    """Return for each gathering connection and candidate quantum how many inputs it has, and would have."""
    result: dict[tuple[str, str], dict[Any, tuple[int, int]]] = {}
    for labels in pipeline.components():
        tasks = [pipeline.tasks[label] for label in labels]
        names = {d for t in tasks for d in t.dimensions}
        names |= {d for t in tasks for c in (*t.inputs, *t.outputs) for d in c.dimensions}
        rows = all_rows(world, names, condition, raws_constrain(tasks, pipeline))
        for task in tasks:
            if NAMED[condition] <= set(UNIVERSE.group(task.dimensions)):
                continue  # what restricts its own dimensions takes nothing from a quantum
            whole = rows_above(world, pipeline, task.label, "")
            for c in task.inputs:
                if set(UNIVERSE.group(c.dimensions).required) <= set(UNIVERSE.group(task.dimensions)):
                    continue
                counts = result.setdefault((task.label, c.name), {})
                for key in {key_of(row, task.dimensions) for row in rows}:
                    pair = tuple(
                        len({key_of(r, c.dimensions) for r in some if key_of(r, task.dimensions) == key})
                        for some in (rows, whole)
                    )
                    counts[key] = (pair[0], pair[1])
    return result


def expected_of(
    counts: dict[tuple[str, str], dict[Any, tuple[int, int]]], final: dict[str, set[Any]]
) -> dict[tuple[str, str], tuple[int, int, int]]:
    result = {}
    for (label, connection), quanta in counts.items():
        short = [n for key, n in quanta.items() if key in final[label] and n[0] < n[1]]
        if short:
            result[label, connection] = (len(short), sum(n[0] for n in short), sum(n[1] for n in short))
    return result


def test_visits_that_touch_the_patch_bring_all_their_detectors_and_no_other_visit_comes(
    opened: Any, cases: Path
) -> None:
    registry = opened("rc2-small")
    pipeline = load_pipeline(cases / "pipelines" / "drp-mini.yaml", universe=registry.universe)
    patch = "skymap='hsc_rings_v1' AND tract = 9813 AND patch = 40"
    request = Request(
        ("HSC/RC2/defaults",), "out", where="instrument='HSC'", target=f"{patch} AND band = 'i'"
    )
    plan = make_plan(registry, pipeline, request)
    touching = query_data_ids(registry, ["visit", "detector", "patch"], where=f"instrument='HSC' AND {patch}")
    visits = sorted(set(touching["visit"]))
    raws = query_datasets(
        registry,
        "raw",
        ["HSC/RC2/defaults"],
        where=f"instrument='HSC' AND visit IN ({', '.join(map(str, visits))})",
    )
    quanta = {s.label: s.quanta for s in plan.summary}
    assert (
        sorted(set(plan.quanta("warp")["visit"])) == sorted(plan.quanta("summarize_visit")["visit"]) == visits
    )
    assert raws.height > touching.select("visit", "detector").n_unique()  # some detectors miss the patch
    assert quanta["isr"] == quanta["calibrate"] == raws.height
    assert quanta["measure"] == quanta["merge"] == 1
    assert quanta["detect"] == quanta["coadd"] == touching["band"].n_unique() > 1  # merging needs all bands
    assert quanta["object_table"] == 0
    assert not plan.header.partial
