"""What counts as done, against going through quanta one by one; over random surveys, pipelines and changes."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any
from uuid import UUID

import polars as pl
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from loadmaster_pipelines.pipeline import Pipeline
from loadmaster_planner.plan import Plan
from loadmaster_planner.planner import make_plan
from loadmaster_planner.request import Request
from loadmaster_registry.records import Collection, CollectionType
from loadmaster_registry.store import Registry
from recorded_runs import record_run
from small_worlds import World, examples, pipelines, register, worlds

INPUTS = ("raw/again", "raw", "calib")
RUNS = ("run/2", "run/1")  # as searched


def with_changes(pipeline: Pipeline, code: Iterable[str], config: Iterable[str], tag: str) -> Pipeline:
    """Return the pipeline with other code and configuration of some tasks."""
    tasks = {
        label: replace(
            task,
            code_digest=f"code {tag if label in code else ''}",
            config={"x": tag if label in config else ""},
        )
        for label, task in pipeline.tasks.items()
    }
    return replace(pipeline, tasks=tasks)


def take_raws_again(registry: Registry, world: World, same: list[int], other: list[int]) -> None:
    """Register some raws once more: with the same bytes, or with other ones."""
    frame = pl.DataFrame(world.raws).with_row_index("n") if world.raws else pl.DataFrame({"n": []})
    with registry.transaction() as t:
        t.register_collection(Collection("raw/again", CollectionType.RUN))
        for suffix, rows in (("", same), ("'", other)):
            part = frame.filter(pl.col("n").cast(pl.Int64).is_in(rows))
            if part.height:
                numbers = part["n"].to_list()
                columns = [
                    pl.Series("id", [UUID(int=5_000 + n).bytes for n in numbers]),
                    pl.Series("url", [f"again/{n}" for n in numbers]),
                    pl.Series("checksum", [f"raw {n}{suffix}" for n in numbers]),
                ]
                t.insert_datasets("raw", "raw/again", part.drop("n").with_columns(columns))


def give_checksums(world: World) -> list[dict[str, Any]]:
    return [{**row, "checksum": f"raw {n}"} for n, row in enumerate(world.raws)]


class SlowReuse:
    """Goes through the quanta of a plan from scratch, and says which an earlier quantum stands for."""

    def __init__(self, registry: Registry, policy: str, earlier: list[tuple[Plan, dict[UUID, str]]]) -> None:
        self.policy = policy
        self.recorded: dict[Any, Any] = {}
        for plan, checksums in reversed(earlier):  # what is searched first wins
            for job in plan.jobs():
                for q in job.quanta:
                    read = [
                        (c, d, d.id, checksums.get(d.id, d.checksum)) for c, f in q.inputs.items() for d in f
                    ]
                    made = {(d.dataset_type, str(d.data_id)): d.id for f in q.outputs.values() for d in f}
                    self.recorded[self.key(plan, q, read)] = {
                        k: (id, checksums[id]) for k, id in made.items()
                    }

    def key(self, plan: Plan, quantum: Any, read: Any) -> Any:
        task = plan.pipeline.tasks[quantum.task]
        inputs = frozenset(
            (
                c,
                d.dataset_type,
                str(d.data_id),
                id if self.policy == "provenance" or not checksum else checksum,
            )
            for c, d, id, checksum in read
        )
        return quantum.task, str(quantum.data_id), task.code_digest, task.config_digest, inputs

    def planned(self, scratch: Plan) -> set[Any]:
        reused: dict[Any, tuple[UUID, str]] = {}
        left = set()
        for job in scratch.jobs():
            for q in job.quanta:
                read = []
                for connection, found in q.inputs.items():
                    for d in found:
                        id, checksum = (
                            (d.id, d.checksum)
                            if d.exists
                            else reused.get((d.dataset_type, str(d.data_id)), (None, ""))
                        )
                        read.append((connection, d, id, checksum))
                known = all(id is not None for _, _, id, _ in read)
                earlier = self.recorded.get(self.key(scratch, q, read)) if known else None
                if earlier is None:
                    left.add((q.task, str(q.data_id)))
                else:
                    reused |= earlier
        return left


def quanta(plan: Plan) -> set[Any]:
    return {(q.task, str(q.data_id)) for job in plan.jobs() for q in job.quanta}


def checksums_of(registry: Registry, plan: Plan) -> dict[UUID, str]:
    found = {}
    for t in plan.dataset_types:
        files = registry.files(registry.datasets(t.name, [plan.output_run])["dataset"])
        found |= {UUID(bytes=id): text for id, text in files.select("id", "checksum").iter_rows()}
    return found


@settings(
    max_examples=examples(25),
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=set(Phase) - {Phase.shrink},
)
@given(worlds(), pipelines(), st.data())
def test_what_is_planned_is_what_no_earlier_quantum_stands_for(
    tmp_path_factory: Any, world: World, pipeline: Pipeline, data: st.DataObject
) -> None:
    labels = st.lists(st.sampled_from(sorted(pipeline.tasks)), unique=True)
    frames = st.lists(st.integers(0, max(0, len(world.raws) - 1)), unique=True)
    first = with_changes(pipeline, (), (), "1")
    second = with_changes(pipeline, data.draw(labels), data.draw(labels), "2")
    third = data.draw(st.sampled_from([first, second, with_changes(pipeline, data.draw(labels), (), "3")]))
    world = replace(world, raws=give_checksums(world))
    with register(world, tmp_path_factory.mktemp("world") / "registry.sqlite3") as registry:
        take_raws_again(registry, world, [], [])
        runs = []
        for made, run in ((first, "run/1"), (second, "run/2")):
            runs.append(make_plan(registry, made, Request(INPUTS, run, skip_existing=None)))
            record_run(registry, runs[-1])
        again = data.draw(frames)
        take_raws_again(registry, world, again[::2], again[1::2])
        scratch = make_plan(registry, third, Request(INPUTS, "run/3"))
        earlier = [(plan, checksums_of(registry, plan)) for plan in reversed(runs)]
        for policy in ("provenance", "content"):
            request = Request(INPUTS, "run/3", skip_existing=policy, skip_existing_in=RUNS)  # type: ignore[arg-type]
            found = make_plan(registry, third, request)
            expected = SlowReuse(registry, policy, earlier).planned(scratch)
            assert quanta(found) == expected
            assert sum(t.done for t in found.summary) == len(quanta(scratch)) - len(expected)
        exists = make_plan(
            registry, third, Request(INPUTS, "run/3", skip_existing="exists", skip_existing_in=RUNS)
        )
        assert quanta(exists) == quanta(scratch) - quanta(runs[0]) - quanta(runs[1])
