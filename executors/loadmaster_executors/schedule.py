"""Which jobs may run: a pure machine over columns, told of each job's end, that never scans them all."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from heapq import heappop, heappush

import numpy as np
from loadmaster_planner.orders import Barriers
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

    Jobs and barriers are nodes of one graph. A barrier opens when all before it is over: done, or, unless it is
    blocking, ended in any way.

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
    barriers : Barriers, optional
        What jobs wait for beside what they read; without circles together with that.
    """

    def __init__(
        self,
        states: NDArray[np.uint8],
        left_out: NDArray[np.bool_],
        job: NDArray[np.int64],
        needs: NDArray[np.int64],
        priority: NDArray[np.int64] | None = None,
        barriers: Barriers | None = None,
    ) -> None:
        known = barriers or Barriers.between(len(states), ())
        n_nodes = len(states) + known.is_blocking.size
        self._all_states = np.full(n_nodes, JobState.WAITING, dtype=np.uint8)
        self.states = self._all_states[: len(states)]
        self.states[:] = np.where(states == JobState.READY, JobState.WAITING, states)
        self._is_blocking = known.is_blocking
        self.ready = Ready(priority)
        child, parent = np.concatenate([job, known.node]), np.concatenate([needs, known.needs])
        order = np.argsort(parent, kind="stable")
        self._children = child[order]
        self._first_child = np.searchsorted(parent[order], np.arange(n_nodes + 1))
        settled = self._all_states == JobState.DONE
        self._n_missing = np.bincount(child[~settled[parent]], minlength=n_nodes)
        self._is_short = np.zeros(n_nodes, dtype=bool)
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
        waiting = np.flatnonzero((self._all_states == JobState.WAITING) & (self._n_missing == 0))
        partial = np.flatnonzero(self.states == JobState.PARTIAL)
        self._release(waiting, changes)
        for job in map(int, partial):
            self._block_after(job, changes)
        return changes

    def started(self, job: int) -> None:
        """Take note that a ready job was given to the executor."""
        self.states[job] = JobState.RUNNING

    def finished(self, job: int) -> None:
        """Take note that a job's report is there."""
        self.states[job] = JobState.FINISHED

    def again(self, job: int) -> None:
        """Take note that a job whose report is there is to be run once more."""
        self.states[job] = JobState.READY
        self.ready.add(job)

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
        if left_out:
            self._is_short[children] = True
        self._release(self._freed(children), changes)

    def _freed(self, nodes: NDArray[np.int64], fewer: NDArray[np.int64] | int = 1) -> NDArray[np.int64]:
        """Take note that distinct nodes wait for so many nodes less; return those that wait for nothing any more."""
        self._n_missing[nodes] -= fewer
        is_free = (self._n_missing[nodes] == 0) & (self._all_states[nodes] == JobState.WAITING)
        return np.asarray(nodes[is_free])

    def _release(self, free: NDArray[np.int64], changes: Changes) -> None:
        """Make jobs ready that wait for nothing, and open barriers."""
        rest = [free]
        while rest:
            nodes = rest.pop()
            is_job = nodes < self.states.size
            self._make_ready(map(int, nodes[is_job]), changes)
            for barrier in map(int, nodes[~is_job]):
                self._all_states[barrier] = JobState.DONE
                rest.append(self._freed(self._children_of(barrier)))

    def _make_ready(self, jobs: Iterator[int], changes: Changes) -> None:
        for job in jobs:
            self.states[job] = JobState.READY
            self.ready.add(job)
            changes.ready.append(job)

    def _block_after(self, culprit: int, changes: Changes) -> None:
        """Block all that waits for a job that is not done; barriers that only wait for its end wait no longer."""
        found = changes.blocked.setdefault(culprit, [])
        frontier = np.array([culprit])
        while frontier.size:
            children, times = np.unique(self._children_of_all(frontier), return_counts=True)
            passing = self._is_passing(children)
            self._release(self._freed(children[passing], times[passing]), changes)
            frontier = children[~passing & (self._all_states[children] == JobState.WAITING)]
            self._all_states[frontier] = JobState.BLOCKED
            found += frontier[frontier < self.states.size].tolist()

    def _is_passing(self, nodes: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Say which nodes are barriers that any end opens."""
        is_passing = np.zeros(nodes.size, dtype=bool)
        barriers = nodes >= self.states.size
        is_passing[barriers] = ~self._is_blocking[nodes[barriers] - self.states.size]
        return is_passing

    def _children_of(self, node: int) -> NDArray[np.int64]:
        return self._children[self._first_child[node] : self._first_child[node + 1]]

    def _children_of_all(self, nodes: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the children of some nodes; one that several of them have is there as often."""
        begin, count = self._first_child[nodes], self._first_child[nodes + 1] - self._first_child[nodes]
        within = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
        return np.asarray(self._children[np.repeat(begin, count) + within])
