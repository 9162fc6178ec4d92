"""Planning again what a plan asked for, and how two plans differ, against comparing them quantum by quantum."""

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any
from uuid import UUID

import polars as pl
import pytest
from hypothesis import HealthCheck, Phase, find, given, settings
from hypothesis import strategies as st
from loadmaster_pipelines.batch import Cluster, Clustering
from loadmaster_pipelines.pipeline import Pipeline
from loadmaster_pipelines.resources import ResourceRequest
from loadmaster_planner.data_id_tables import DataIdTable
from loadmaster_planner.difference import Difference, difference
from loadmaster_planner.overrides import Override
from loadmaster_planner.plan import Plan
from loadmaster_planner.planner import make_plan
from loadmaster_planner.replan import replan, request_of
from loadmaster_planner.request import Request
from loadmaster_registry.errors import PlanError
from loadmaster_registry.store import Registry
from loadmaster_registry.timespan import Timespan
from lsst.sphgeom import Circle, LonLat, UnitVector3d
from small_worlds import CONDITIONS, HOUR, World, examples, pipelines, register, worlds

Quanta = dict[str, dict[Any, frozenset[Any]]]
SLOW = settings(
    max_examples=examples(15),
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=set(Phase) - {Phase.shrink},
)


def quanta_of(plan: Plan) -> Quanta:
    """Return for each task: data ID → {(connection, type, data ID, id of what exists)}."""
    found: Quanta = {task.label: {} for task in plan.header.tasks}
    for job in plan.jobs():
        for quantum in job.quanta:
            found[quantum.task][tuple(quantum.data_id.items())] = frozenset(
                (name, d.dataset_type, tuple(d.data_id.items()), d.id if d.exists else None)
                for name, datasets in quantum.inputs.items()
                for d in datasets
            )
    return found


def counted(found: Difference) -> dict[str, tuple[int, int, int, int]]:
    return {t.label: (t.added.height, t.gone.height, t.changed.height, t.same) for t in found.tasks}


def counted_slowly(old: Quanta, new: Quanta) -> dict[str, tuple[int, int, int, int]]:
    return {
        label: (
            len(new[label].keys() - old[label].keys()),
            len(old[label].keys() - new[label].keys()),
            sum(old[label].get(key, inputs) != inputs for key, inputs in new[label].items()),
            sum(old[label].get(key) == inputs for key, inputs in new[label].items()),
        )
        for label in new
    }


def add(registry: Registry, world: World, biases: list[tuple[int, int, int]]) -> None:
    """Register what comes later: raws, and calibrations for times that had none."""
    with registry.transaction() as t:
        if world.raws:
            ids = [UUID(int=1_000_000 + i).bytes for i in range(len(world.raws))]
            rows = pl.DataFrame(world.raws).with_columns(pl.Series("id", ids), pl.lit("there").alias("url"))
            t.insert_datasets("raw", "raw", rows)
        for i, (detector, first, end) in enumerate(biases):
            run, number = f"biases/{detector}/{first}/later", UUID(int=2_000_000 + i)
            t.register_collection(replace(t.collection("biases"), name=run))
            columns = {"instrument": ["I"], "detector": [detector], "id": [number.bytes], "url": [f"{first}"]}
            t.insert_datasets("bias", run, pl.DataFrame(columns))
            t.certify("calib", "bias", [number], Timespan(first * HOUR, end * HOUR))


@SLOW
@given(worlds(), pipelines(), st.sampled_from(["", *CONDITIONS]), st.data())
def test_replanning_gives_what_planning_from_scratch_gives_and_tells_each_difference(
    tmp_path_factory: Any, world: World, pipeline: Pipeline, condition: str, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("world")
    late = data.draw(st.integers(0, len(world.raws))), data.draw(st.integers(0, len(world.biases)))
    first = replace(world, raws=world.raws[late[0] :], biases=world.biases[late[1] :])
    with register(first, folder / "registry.sqlite3") as registry:
        where = f"instrument='I' AND skymap='S' AND ({condition})" if condition else ""
        request = Request(("raw", "calib"), "out", where=where, allow_partial_gather=True)
        old = make_plan(registry, pipeline, request)
        old.write(folder / "plan")
        add(registry, replace(world, raws=world.raws[: late[0]]), world.biases[: late[1]])
        new = replan(registry, Plan.open(folder / "plan"))
        assert new.digest == make_plan(registry, pipeline, request).digest
        found = difference(Plan.open(folder / "plan"), new)
        assert counted(found) == counted_slowly(quanta_of(old), quanta_of(new))
        assert found.is_empty == (quanta_of(old) == quanta_of(new))
        for task in found.tasks:
            assert bool(task.changes) == bool(task.changed.height)


@pytest.fixture
def plan(tmp_path: Path, small: tuple[Registry, Pipeline]) -> Plan:
    registry, pipeline = small
    made = make_plan(registry, pipeline, Request(("raw", "calib"), "out"))
    made.write(tmp_path / "plan")
    return Plan.open(tmp_path / "plan")


@pytest.fixture
def small(tmp_path: Path) -> Any:
    world, drawn = _drawn()
    with register(world, tmp_path / "registry.sqlite3") as registry:
        yield registry, drawn


@cache
def _drawn() -> tuple[World, Pipeline]:
    quick = settings(database=None, max_examples=2000)
    world = find(worlds(), lambda w: len(w.raws) >= 3, settings=quick)
    return world, find(pipelines(), lambda p: len(p.tasks) == 2, settings=quick)


def test_plans_of_other_pipelines_differ_in_tasks_and_settings(small: tuple[Registry, Pipeline]) -> None:
    registry, pipeline = small
    request = Request(("raw", "calib"), "out")
    changed = {
        label: replace(task, config={"x": 1}, code_digest="other") for label, task in pipeline.tasks.items()
    }
    old, new = (make_plan(registry, p, request) for p in (pipeline, replace(pipeline, tasks=changed)))
    assert [t.settings for t in difference(old, new).tasks] == [("code", "configuration")] * 2
    one = make_plan(registry, pipeline.subset(["task0"]), request)
    (_, other) = difference(old, one).tasks
    assert (other.label, other.settings) == ("task1", ("task",))
    assert other.gone.height == old.header.tasks[1].quanta


def test_a_request_survives_the_plan_file_with_all_its_fields(tmp_path: Path, small: Any) -> None:
    registry, pipeline = small
    circle = Circle(UnitVector3d(LonLat.fromDegrees(1, 2)))
    request = Request(
        ("raw", "calib"),
        "out",
        where="instrument = :name AND detector IN (:some)",
        bind={
            "name": "I",
            "some": [1, 2, 3],
            "at": datetime(2026, 1, 1, tzinfo=UTC),
            "span": Timespan(1, 2),
            "place": circle,
        },
        tables=(DataIdTable("mine.csv", pl.DataFrame({"instrument": ["I"], "detector": [1]})),),
        allow_partial_gather=True,
        include_flagged=True,
        overrides=(
            Override(
                "bias",
                ("detector",),
                pl.DataFrame(
                    {"detector": [99], "instrument": ["I"], "dataset": [1], "row": [1]},
                ),
                "mine.csv",
            ),
        ),
        skip_existing="content",
        skip_existing_in=("raw",),
    )
    make_plan(registry, pipeline, request).write(tmp_path / "plan")
    again = request_of(Plan.open(tmp_path / "plan"))
    assert again.to_json() == Request.from_json(again.to_json()).to_json() == _as_read(request)
    assert again.bind["place"] == circle
    assert replan(registry, Plan.open(tmp_path / "plan")).digest == Plan.open(tmp_path / "plan").digest


def _as_read(request: Request) -> Mapping[str, Any]:
    return json.loads(json.dumps(request.to_json()))  # type: ignore[no-any-return]


def test_jobs_and_resources_are_planned_again_as_they_were(tmp_path: Path, small: Any) -> None:
    registry, pipeline = small
    clustering = Clustering(
        clusters=(Cluster("all", tuple(pipeline.tasks)),),
        tasks={"task0": ResourceRequest(cpus=3)},
        sites={"far": ResourceRequest(memory_mib=9)},
    )
    old = make_plan(registry, pipeline, Request(("raw", "calib"), "out"), clustering)
    old.write(tmp_path / "plan")
    new = replan(registry, Plan.open(tmp_path / "plan"))
    assert new.digest == old.digest
    assert new.header.jobs == old.header.jobs


def test_code_that_is_not_what_it_was_is_refused(tmp_path: Path, small: Any) -> None:
    registry, pipeline = small
    moved = {
        label: replace(task, command=None, task_class="no.such.Task")
        for label, task in pipeline.tasks.items()
    }
    made = make_plan(registry, replace(pipeline, tasks=moved), Request(("raw", "calib"), "out"))
    made.write(tmp_path / "plan")
    tasks = {label: replace(task, code_digest="then") for label, task in moved.items()}
    old = make_plan(registry, replace(pipeline, tasks=tasks), Request(("raw", "calib"), "out"))
    with pytest.raises(PlanError, match=r"code of 2 tasks.*\n.*task0, task1"):
        replan(registry, old)


def test_a_plan_differs_in_nothing_from_itself(plan: Plan) -> None:
    assert difference(plan, plan).is_empty
    assert [t.same for t in difference(plan, plan).tasks] == [t.quanta for t in plan.header.tasks]
