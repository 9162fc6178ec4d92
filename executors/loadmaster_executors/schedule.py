"""Which jobs may run: a pure machine over columns, told of each job's end, that never scans them all."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from heapq import heappop, heappush

import numpy as np
from numpy.typing import NDArray

from .journal import JobState


@dataclass
class Changes:
    """What the end of jobs means for others."""

    ready: list[int] = field(default_factory=list)
    blocked: dict[int, list[int]] = field(default_factory=dict)  # by the job that is to blame


class Ready:
    """Jobs that may run: the highest priority first, then the one that has been ready longest."""

    def __init__(self, priority: NDArray[np.int64] | None) -> None:
        self._priority = priority
        self._heap: list[tuple[int, int, int]] = []
        self._count = 0

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, job: int) -> None:
        """Put a job in."""
        rank = 0 if self._priority is None else -int(self._priority[job])
        heappush(self._heap, (rank, self._count, job))
        self._count += 1

    def take(self) -> int:
        """Take out the job whose turn it is."""
        return heappop(self._heap)[2]


class Schedule:
    """The states of all jobs of a run.

    Parameters
    ----------
    states : ndarray of uint8, shape (n_jobs,)
        As in the journal; ready ones count as waiting.
    left_out : ndarray of bool, shape (n_jobs,)
        Jobs that are done, but made less than was planned.
    job, needs : ndarray of int64, shape (n_dependencies,)
        Job `job[i]` reads what job `needs[i]` makes; distinct pairs without circles.
    priority : ndarray of int64, shape (n_jobs,), optional
        Of what is ready, the highest goes first.
    """

    def __init__(
        self,
        states: NDArray[np.uint8],
        left_out: NDArray[np.bool_],
        job: NDArray[np.int64],
        needs: NDArray[np.int64],
        priority: NDArray[np.int64] | None = None,
    ) -> None:
        self.states = states.copy()
        self.states[states == JobState.READY] = JobState.WAITING
        self.ready = Ready(priority)
        order = np.argsort(needs, kind="stable")
        self._children = job[order]
        self._first_child = np.searchsorted(needs[order], np.arange(len(states) + 1))
        settled = states == JobState.DONE
        self._n_missing = np.bincount(job[~settled[needs]], minlength=len(states))
        self._is_short = np.zeros(len(states), dtype=bool)
        self._is_short[job[settled[needs] & left_out[needs]]] = True

    def counts(self) -> NDArray[np.int64]:
        """Return how many jobs are in each state, in the order of `JobState`."""
        return np.bincount(self.states, minlength=len(JobState))

    def is_short(self, job: int) -> bool:
        """Whether some job that this one needs made less than was planned."""
        return bool(self._is_short[job])

    def begin(self) -> Changes:
        """Find what is ready, and what partial jobs of an earlier life block."""
        changes = Changes()
        for job in np.flatnonzero(self.states == JobState.PARTIAL):
            self._block_after(int(job), changes)
        free = (self.states == JobState.WAITING) & (self._n_missing == 0)
        self._make_ready(map(int, np.flatnonzero(free)), changes)
        return changes

    def started(self, job: int) -> None:
        """Take note that a ready job was given to the executor."""
        self.states[job] = JobState.RUNNING

    def finished(self, job: int) -> None:
        """Take note that a job's report is there."""
        self.states[job] = JobState.FINISHED

    def ended(self, job: int, state: JobState, *, left_out: bool) -> Changes:
        """Take note of a harvested job (done, partial or failed)."""
        self.states[job] = state
        changes = Changes()
        if state == JobState.DONE:
            self._settle(job, left_out, changes)
        else:
            self._block_after(job, changes)
        return changes

    def starved(self, job: int) -> Changes:
        """Take note that a job cannot run because others had nothing to do; those after it still may."""
        self.states[job] = JobState.BLOCKED
        changes = Changes()
        self._settle(job, True, changes)
        return changes

    def _settle(self, job: int, left_out: bool, changes: Changes) -> None:
        children = self._children_of(job)
        self._n_missing[children] -= 1
        if left_out:
            self._is_short[children] = True
        free = children[(self._n_missing[children] == 0) & (self.states[children] == JobState.WAITING)]
        self._make_ready(map(int, free), changes)

    def _make_ready(self, jobs: Iterator[int], changes: Changes) -> None:
        for job in jobs:
            self.states[job] = JobState.READY
            self.ready.add(job)
            changes.ready.append(job)

    def _block_after(self, culprit: int, changes: Changes) -> None:
        found = changes.blocked.setdefault(culprit, [])
        frontier = [culprit]
        while frontier:
            children = self._children_of(frontier.pop())
            new = children[self.states[children] == JobState.WAITING]
            self.states[new] = JobState.BLOCKED
            found.extend(map(int, new))
            frontier.extend(map(int, new))

    def _children_of(self, job: int) -> NDArray[np.int64]:
        return self._children[self._first_child[job] : self._first_child[job + 1]]
