"""What may run: told of each end, the schedule says the same as looking at everything anew."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from loadmaster_executors.journal import JobState
from loadmaster_executors.schedule import Schedule
from loadmaster_planner.orders import Barriers

ENDS = (JobState.DONE, JobState.PARTIAL, JobState.FAILED)


@dataclass(frozen=True)
class Case:
    """Jobs that need only jobs before them, and how each will end if it runs."""

    n_jobs: int
    pairs: tuple[tuple[int, int], ...]  # (job, needs)
    ends: tuple[JobState, ...]
    left_out: tuple[bool, ...]
    orders: tuple[tuple[bool, tuple[tuple[int, int], ...]], ...] = ()  # is blocking; jobs with their groups

    def before(self, job: int, *, blocking: bool | None = None) -> set[int]:
        """Return the jobs of earlier groups of a job's orders, one by one."""
        orders = [(dict(members), blocks) for blocks, members in self.orders]
        return {
            other
            for group, blocks in orders
            for other in group
            if job in group and group[other] < group[job] and blocking in (None, blocks)
        }

    @property
    def barriers(self) -> Barriers:
        columns = []
        for blocks, members in self.orders:
            _, start = np.unique([group for _, group in members], return_index=True)
            columns.append((start, np.array([job for job, _ in members]), blocks))
        return Barriers.between(self.n_jobs, columns)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    n = draw(st.integers(1, 12))
    possible = [(job, needs) for job in range(n) for needs in range(job)]
    pairs = draw(st.lists(st.sampled_from(possible), unique=True)) if possible else []
    ends = draw(st.lists(st.sampled_from(ENDS), min_size=n, max_size=n))
    left_out = draw(st.lists(st.booleans(), min_size=n, max_size=n))
    return Case(n, tuple(pairs), tuple(ends), tuple(left_out))


@st.composite
def ordered_cases(draw: st.DrawFn) -> Case:
    """Jobs some of which run group after group, which does not contradict what they need."""
    case = draw(cases())
    orders = []
    for _ in range(draw(st.integers(1, 2))):
        jobs = sorted(draw(st.sets(st.integers(0, case.n_jobs - 1), min_size=1)))
        groups = sorted(draw(st.lists(st.integers(0, 4), min_size=len(jobs), max_size=len(jobs))))
        orders.append((draw(st.booleans()), tuple(zip(jobs, groups, strict=True))))
    return replace(case, orders=tuple(orders))


def schedule(
    case: Case,
    states: Sequence[int] | None = None,
    left_out: Sequence[bool] | None = None,
    priority: Sequence[int] | None = None,
) -> Schedule:
    pairs = np.array(case.pairs, dtype=np.int64).reshape(-1, 2)
    return Schedule(
        np.array(states if states is not None else [0] * case.n_jobs, dtype=np.uint8),
        np.array(left_out if left_out is not None else [False] * case.n_jobs),
        pairs[:, 0],
        pairs[:, 1],
        None if priority is None else np.array(priority),
        case.barriers,
    )


def obvious(case: Case) -> list[JobState]:
    """Return how each job ends, by going through them in order."""
    final: list[JobState] = []
    for job in range(case.n_jobs):
        needed = {needs for child, needs in case.pairs if child == job} | case.before(job, blocking=True)
        parents = [final[needs] for needs in needed]
        final.append(case.ends[job] if all(p == JobState.DONE for p in parents) else JobState.BLOCKED)
    return final


@given(st.one_of(cases(), ordered_cases()), st.lists(st.integers(-2, 2), min_size=12, max_size=12))
def test_jobs_end_as_they_do_when_gone_through_in_order(case: Case, priority: list[int]) -> None:
    tested = schedule(case, priority=priority)
    tested.begin()
    ran = set()
    while tested.ready:
        job = tested.ready.take()
        assert job not in ran
        assert all(tested.states[needs] == JobState.DONE for child, needs in case.pairs if child == job)
        assert all(tested.states[other] in (*ENDS, JobState.BLOCKED) for other in case.before(job))
        ran.add(job)
        tested.started(job)
        tested.finished(job)
        tested.ended(job, case.ends[job], left_out=case.left_out[job])
        assert tested.counts().sum() == case.n_jobs
    assert tested.states.tolist() == obvious(case)


@given(st.one_of(cases(), ordered_cases()), st.integers(0, 12))
def test_a_schedule_that_is_made_anew_in_the_middle_goes_on_the_same(case: Case, n_before: int) -> None:
    first = schedule(case)
    first.begin()
    for _ in range(n_before):
        if first.ready:
            job = first.ready.take()
            first.started(job)
            first.finished(job)
            first.ended(job, case.ends[job], left_out=case.left_out[job])
    states = first.states.copy()
    states[np.isin(states, (JobState.READY, JobState.BLOCKED))] = JobState.WAITING  # as the journal lets them
    left_out = [bool(s == JobState.DONE and lo) for s, lo in zip(states, case.left_out, strict=True)]
    failed = states == JobState.FAILED
    states[failed] = JobState.WAITING  # tried again, and failing again
    second = schedule(case, states.tolist(), left_out)
    second.begin()
    while second.ready:
        job = second.ready.take()
        second.started(job)
        second.ended(job, case.ends[job], left_out=case.left_out[job])
    assert second.states.tolist() == obvious(case)


@given(st.one_of(cases(), ordered_cases()))
def test_changes_name_every_job_that_changes_and_the_one_to_blame(case: Case) -> None:
    tested = schedule(case)
    told = dict.fromkeys(tested.begin().ready, JobState.READY)
    while tested.ready:
        job = tested.ready.take()
        tested.started(job)
        changes = tested.ended(job, case.ends[job], left_out=False)
        told[job] = case.ends[job]
        told.update((ready, JobState.READY) for ready in changes.ready)
        for culprit, blocked in changes.blocked.items():
            assert case.ends[culprit] != JobState.DONE
            told.update((one, JobState.BLOCKED) for one in blocked)
    assert [told[job] for job in range(case.n_jobs)] == obvious(case)


def test_of_what_is_ready_the_highest_priority_goes_first_then_who_waits_longest() -> None:
    tested = schedule(Case(5, ((1, 0),), (JobState.DONE,) * 5, (False,) * 5), priority=[0, 7, 0, 5, 5])
    tested.begin()
    assert tested.ready.take() == 3
    assert tested.ready.take() == 4
    assert tested.ready.take() == 0
    tested.started(0)
    assert tested.ended(0, JobState.DONE, left_out=False).ready == [1]
    assert tested.ready.take() == 1
    assert tested.ready.take() == 2
    assert not tested.ready


def test_a_job_after_one_that_had_nothing_to_do_is_looked_at_and_those_after_it_may_run() -> None:
    tested = schedule(Case(3, ((1, 0), (2, 1)), (JobState.DONE,) * 3, (True, False, False)))
    tested.begin()
    tested.started(tested.ready.take())
    assert tested.ended(0, JobState.DONE, left_out=True).ready == [1]
    assert tested.is_short(1)
    assert not tested.is_short(2)
    tested.ready.take()
    assert tested.starved(1).ready == [2]
    assert tested.states.tolist() == [JobState.DONE, JobState.BLOCKED, JobState.READY]
    assert tested.is_short(2)


def test_what_had_nothing_to_do_is_no_failure_to_the_groups_after_it() -> None:
    case = Case(3, ((1, 0),), (JobState.DONE,) * 3, (True, False, False), ((True, ((1, 0), (2, 1))),))
    tested = schedule(case)
    assert tested.begin().ready == [0]
    tested.started(tested.ready.take())
    assert tested.ended(0, JobState.DONE, left_out=True).ready == [1]
    assert tested.starved(tested.ready.take()).ready == [2]
    assert not tested.is_short(2)
