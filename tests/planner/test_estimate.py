"""What a plan will cost is what adding up job by job gives; what nobody knows is said, and is never nothing."""

from collections.abc import Callable
from dataclasses import replace
from heapq import heappop, heappush

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loadmaster_pipelines.batch import Cluster, Clustering
from loadmaster_pipelines.pipeline import TaskNode
from loadmaster_pipelines.resources import ResourceRequest, Resources
from loadmaster_planner.estimate import (
    Estimate,
    Figure,
    History,
    Limits,
    Spread,
    estimate,
    refuse_over_limits,
)
from loadmaster_planner.plan import Plan
from loadmaster_planner.planner import make_plan
from loadmaster_registry.errors import PlanError
from night import ISR, REQUEST, STACK, make_night, pipeline

HISTORY = History(
    usage=pl.DataFrame(
        {
            "task": ["isr"] * 4 + ["stack"],
            "wall_s": [1.0, 2.0, 3.0, 10.0, 100.0],
            "peak_memory_mib": [50.0, 50.0, 50.0, 250.0, 900.0],
        }
    ),
    sizes=pl.DataFrame({"dataset_type": ["post_isr", "post_isr", "stack"], "size_bytes": [100, 300, 1000]}),
    runs=("u/me/earlier",),
)
MIB = 2**20
Make = Callable[..., Plan]


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Return what plans three exposures of two detectors: raws of 10, 20 and 30 bytes, biases of 5."""
    path = tmp_path_factory.mktemp("night") / "registry"

    def plan(*tasks: TaskNode, clustering: Clustering | None = None) -> Plan:
        return make_plan(registry, pipeline(*tasks), REQUEST, clustering)

    registry = make_night(path)
    return plan


def asking(task: TaskNode, **resources: int) -> TaskNode:
    return replace(task, resources=Resources(**resources))


def test_figures_are_of_history_and_say_so(make: Make) -> None:
    found = estimate(make(), HISTORY, slots=2)
    isr, stack = found.tasks
    assert (isr.run_time_s, isr.run_time_source) == (Spread(4.0, 2.5, pytest.approx(8.95), 4), "history")
    assert (isr.memory_source, stack.memory_mib) == ("history", 900.0)
    assert found.core_hours == Figure(pytest.approx((6 * 4 + 2 * 100) / 3600), 0, 8)
    assert found.core_hours_p95.value == pytest.approx((6 * 8.95 + 2 * 100) / 3600)
    assert (found.bytes_in, found.files_in) == (Figure(2 * (10 + 20 + 30) + 2 * 5, 0, 8), 8)
    assert (found.bytes_out, found.files_out) == (Figure(6 * 200 + 2 * 1000, 0, 8), 8)
    assert found.bytes_staged == Figure(2 * (10 + 20 + 30) + 6 * 5 + 6 * 200, 0, 18)
    assert (found.wall_s.value, found.critical_path_s.value) == (112.0, 104.0)
    assert found.scratch_job_bytes.value == 3 * 200 + 1000
    assert found.scratch_bytes.value == 2 * (3 * 200 + 1000)
    assert found.runs == ("u/me/earlier",)
    assert {t.name: (t.count, t.source) for t in found.types} == {
        "post_isr": (6, "history"),
        "stack": (2, "history"),
    }
    assert (isr.bytes_in.value, stack.bytes_in.parts, isr.bytes_out.value) == (130, 0, 1200)


def test_without_history_declarations_count_and_say_so(make: Make) -> None:
    declared = (
        asking(ISR, run_time_s=60, cpus=4, output_mib=3, memory_mib=512),
        asking(STACK, walltime_s=600, output_mib=1),
    )
    found = estimate(make(*declared), slots=6)
    isr, stack = found.tasks
    assert (isr.run_time_source, stack.run_time_source) == ("declared", "limit")
    assert (isr.memory_mib, isr.memory_source) == (512, "declared")
    assert found.core_hours == Figure(pytest.approx((6 * 4 * 60 + 2 * 600) / 3600), 0, 8)
    assert found.bytes_out == Figure(6 * 3 * MIB + 2 * MIB, 0, 8)
    assert found.wall_s.value == found.critical_path_s.value == 660
    assert {t.source for t in found.types} == {"declared"}


def test_what_nobody_knows_is_unknown_and_not_nothing(make: Make) -> None:
    found = estimate(make(asking(ISR, run_time_s=60), STACK))
    assert found.tasks[1].run_time_source == "unknown"
    assert found.core_hours == Figure(pytest.approx(0.1), 2, 8)
    assert not found.core_hours.is_complete
    assert found.bytes_out.is_unknown
    assert found.wall_s.unknown == 2
    assert found.scratch_bytes.unknown == 8


def test_disk_asked_for_is_the_scratch_of_jobs_whose_files_are_unknown(make: Make) -> None:
    found = estimate(make(asking(ISR, disk_mib=10), asking(STACK, disk_mib=30)), slots=3)
    assert found.scratch_job_bytes == Figure(30 * MIB, 0, 8)
    assert found.scratch_bytes == Figure((30 + 30 + 10) * MIB, 0, 8)


def test_a_job_of_several_quanta_runs_them_in_turn_and_brings_each_file_once(make: Make) -> None:
    both = Cluster("both", ("isr", "stack"), ("detector",), resources=ResourceRequest(cpus=2))
    found = estimate(make(clustering=Clustering(clusters=(both,))), HISTORY, slots=1)
    assert found.n_jobs == 2
    assert found.wall_s.value == 2 * (3 * 4 + 100)
    assert found.critical_path_s.value == 3 * 4 + 100
    assert found.core_hours.value == pytest.approx(2 * (6 * 4 + 2 * 100) / 3600)
    assert found.bytes_staged == Figure(2 * (10 + 20 + 30 + 5), 0, 8)
    assert found.scratch_job_bytes.value == 10 + 20 + 30 + 5 + 3 * 200 + 1000


def test_what_is_handed_on_in_memory_is_no_file(make: Make) -> None:
    both = Cluster("both", ("isr", "stack"), ("detector",))
    found = estimate(make(clustering=Clustering(clusters=(both,), elide=("post_isr",))), HISTORY)
    assert (found.files_out, found.bytes_out.value) == (2, 2000)
    assert found.scratch_job_bytes.value == 10 + 20 + 30 + 5 + 1000


CLUSTERS = (None, Cluster("c", ("isr",), ("exposure",)), Cluster("c", ("isr", "stack"), ("detector",)))


@pytest.fixture(scope="module")
def plans(make: Make) -> list[Plan]:
    return [make(clustering=Clustering(clusters=(c,) if c else ())) for c in CLUSTERS]


@settings(max_examples=40, deadline=None)
@given(
    which=st.integers(0, len(CLUSTERS) - 1),
    sizes=st.dictionaries(st.sampled_from(["post_isr", "stack"]), st.integers(0, 1000)),
    times=st.dictionaries(st.sampled_from(["isr", "stack"]), st.integers(0, 50)),
    slots=st.integers(1, 9),
)
def test_an_estimate_is_what_going_from_job_to_job_gives(
    plans: list[Plan], which: int, sizes: dict[str, int], times: dict[str, int], slots: int
) -> None:
    plan, none = plans[which], History()
    usage = {
        "task": list(times),
        "wall_s": list(map(float, times.values())),
        "peak_memory_mib": [1.0] * len(times),
    }
    found = estimate(
        plan,
        History(
            pl.DataFrame(usage, schema=none.usage.schema),
            pl.DataFrame(
                {"dataset_type": list(sizes), "size_bytes": list(sizes.values())}, schema=none.sizes.schema
            ),
        ),
        slots,
    )
    figures = (found.wall_s.value, found.scratch_bytes.value, found.bytes_staged.value)
    assert figures == slowly(plan, sizes, times, slots)


def slowly(
    plan: Plan, sizes: dict[str, int], times: dict[str, int], slots: int
) -> tuple[float, float, float]:
    scratch, staged, needs = [], 0, {}
    pairs = plan.dependencies().rows()
    for job in plan.jobs():
        made = {d.id: d for q in job.quanta for files in q.outputs.values() for d in files}
        read = {d.id: d for q in job.quanta for files in q.inputs.values() for d in files}
        size = {
            i: d.size_bytes if d.exists else sizes.get(d.dataset_type, 0) for i, d in {**made, **read}.items()
        }
        scratch.append(sum(size.values()))
        staged += sum(size[i] for i in read if i not in made)
        needs[job.index] = {of for one, of in pairs if one == job.index}
    waiting, ready, running, now = dict(needs), [], [], 0.0
    while waiting or ready or running:
        free = [j for j, of in waiting.items() if not of]
        ready += free
        for j in free:
            del waiting[j]
        while ready and len(running) < slots:
            job = ready.pop(0)
            length = sum(times.get(q.task, 0) for q in plan.job(job).quanta)
            heappush(running, (now + length, job))
        now, over = heappop(running)
        for of in waiting.values():
            of.discard(over)
    return now, sum(sorted(scratch)[::-1][:slots]), staged


def priced(make: Make, history: History = HISTORY) -> Estimate:
    return estimate(make(), history)


def test_a_plan_within_its_limits_passes(make: Make) -> None:
    refuse_over_limits(priced(make), Limits(core_hours=1.0, bytes=4000))
    refuse_over_limits(estimate(make()), Limits())


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (Limits(core_hours=0.06), r"0\.0622222 core hours, and --max-core-hours is 0\.06: stack 0\.05"),
        (Limits(bytes=3000), r"3,330 bytes, and --max-bytes is 3,000: stack \(makes\) 2,000"),
    ],
)
def test_a_plan_over_a_limit_is_refused_with_its_figures(make: Make, limits: Limits, reason: str) -> None:
    with pytest.raises(PlanError, match=reason):
        refuse_over_limits(priced(make), limits)


def test_a_limit_that_cannot_be_checked_is_a_refusal_that_names_what_is_unknown(make: Make) -> None:
    with pytest.raises(PlanError) as refused:
        refuse_over_limits(estimate(make()), Limits(core_hours=100, bytes=1000))
    assert "the core hours of isr, stack are unknown" in str(refused.value)
    assert "the bytes of isr (makes), stack (makes) are unknown" in str(refused.value)
    known = replace(HISTORY, usage=HISTORY.usage.filter(task="stack"))
    with pytest.raises(
        PlanError, match=r"at least 0\.0555556 core hours, and --max-core-hours is 0\.01: stack"
    ):
        refuse_over_limits(priced(make, known), Limits(core_hours=0.01))
