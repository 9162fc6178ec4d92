"""The graph of jobs as columns: levels, order, circles, the longest chain, and how long it takes on so many slots.

A graph of 10⁶ jobs takes about a second: wide levels go by arrays, and runs of narrow ones by plain steps, so that
neither a fan nor a chain is slow.
"""

from collections import deque
from functools import cached_property
from heapq import heappop, heappush

import numpy as np
from loadmaster_registry.errors import PlanError
from numpy.typing import NDArray

_NARROW = 48  # jobs in a level below which steps one by one are faster than arrays

Ints = NDArray[np.int64]


class JobGraph:
    """Which job needs which others to be done before.

    Parameters
    ----------
    n_jobs : int
        Jobs are numbered from 0.
    job, needs : ndarray of int, shape (n_dependencies,)
        Job `job[i]` needs job `needs[i]`; distinct pairs.
    """

    def __init__(self, n_jobs: int, job: Ints, needs: Ints) -> None:
        self.n_jobs = n_jobs
        self.n_needed: Ints = np.bincount(job, minlength=n_jobs)
        order = np.argsort(needs, kind="stable")
        self._child: Ints = np.ascontiguousarray(job[order], dtype=np.int64)
        counts = np.bincount(needs, minlength=n_jobs)
        self._first: Ints = np.concatenate(([0], np.cumsum(counts))).astype(np.int64)

    def levels(self) -> Ints:
        """Return for each job the length of the longest chain of jobs before it, shape (n_jobs,).

        Raises
        ------
        PlanError
            If jobs wait for each other in a circle, which is named.
        """
        order, starts = self._by_level
        levels = np.empty(self.n_jobs, dtype=np.int64)
        levels[order] = np.repeat(np.arange(starts.size - 1), np.diff(starts))
        return levels

    def order(self) -> Ints:
        """Return all jobs, each after those it needs: level by level, by number within one."""
        return self._by_level[0]

    def critical_path(self, duration_s: NDArray[np.float64]) -> float:
        """Return how long the longest chain of jobs takes: the wall time where slots are plenty."""
        if not self.n_jobs:
            return 0.0
        return float(self.earliest_end(duration_s).max())

    def earliest_end(self, duration_s: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return when each job ends if each begins as soon as those it needs have ended, shape (n_jobs,)."""
        order, starts = self._by_level
        begin = np.zeros(self.n_jobs)
        end = np.empty(self.n_jobs)
        level = 0
        while level < starts.size - 1:
            jobs = order[starts[level] : starts[level + 1]]
            if jobs.size >= _NARROW:
                end[jobs] = begin[jobs] + duration_s[jobs]
                parents, children = self._edges_from(jobs)
                np.maximum.at(begin, children, end[parents])
                level += 1
                continue
            last = _end_of_narrow(starts, level)
            self._end_one_by_one(order[starts[level] : starts[last]], duration_s, begin, end)
            level = last
        return end

    def simulate(self, duration_s: NDArray[np.float64], slots: int) -> float:
        """Return the wall time on `slots` slots if each takes, when free, the job that has been ready longest.

        What takes no time needs no slot.

        That is list scheduling, never longer than 2 − 1 / slots times the best possible [1]_.

        References
        ----------
        .. [1] R. L. Graham, SIAM J. Appl. Math. 17 (1969) 416, doi:10.1137/0117039
        """
        if not self.n_jobs:
            return 0.0
        self.order()  # refuses circles, in which nothing would ever be ready
        left, first, child = self.n_needed.tolist(), self._first.tolist(), self._child.tolist()
        duration = duration_s.tolist()
        ready = deque(np.flatnonzero(self.n_needed == 0).tolist())
        running: list[tuple[float, int]] = []
        now = 0.0
        while ready or running:
            while ready and (len(running) < slots or not duration[ready[0]]):
                job = ready.popleft()
                heappush(running, (now + duration[job], job))
            now, job = heappop(running)
            for c in child[first[job] : first[job + 1]]:
                left[c] -= 1
                if not left[c]:
                    (ready.append if duration[c] else ready.appendleft)(c)
        return now

    def circle(self) -> list[int]:
        """Return jobs that wait for each other, each for the one before it; empty where there are none."""
        order, _ = self._leveled
        if order.size == self.n_jobs:
            return []
        stuck = np.ones(self.n_jobs, dtype=bool)
        stuck[order] = False
        # Of each job that is stuck some other stuck one is needed: going back must come round.
        parents, children = self._edges_from(np.flatnonzero(stuck))
        needs = dict(zip(children.tolist(), parents.tolist(), strict=True))
        seen: dict[int, int] = {}
        job = int(np.flatnonzero(stuck)[0])
        while job not in seen:
            seen[job] = len(seen)
            job = needs[job]
        return list(seen)[seen[job] :][::-1]

    @cached_property
    def _by_level(self) -> tuple[Ints, Ints]:
        order, starts = self._leveled
        if order.size < self.n_jobs:
            circle = self.circle()
            raise PlanError(
                what=f"{len(circle)} jobs wait for each other in a circle",
                where="jobs " + " → ".join(map(str, (*circle[:10], circle[0]))),
                why="each needs what the one before it makes",
                todo="put fewer tasks into a cluster, or more",
            )
        return order, starts

    @cached_property
    def _leveled(self) -> tuple[Ints, Ints]:
        """Return the jobs that can be ordered, level by level, and where each level begins [1]_.

        References
        ----------
        .. [1] A. B. Kahn, Comm. ACM 5 (1962) 558, doi:10.1145/368996.369025
        """
        left = self.n_needed.copy()
        frontier = np.flatnonzero(left == 0)
        order, sizes = [frontier], [frontier.size]
        while frontier.size:
            if frontier.size >= _NARROW:
                _, children = self._edges_from(frontier)
                touched, times = np.unique(children, return_counts=True)
                left[touched] -= times
                frontier = touched[left[touched] == 0]
                order.append(frontier)
                sizes.append(frontier.size)
            else:
                jobs, more = self._narrow_levels(frontier, left)
                frontier = jobs[jobs.size - more[-1] :]
                order.append(jobs)
                sizes += more
        starts = np.concatenate(([0], np.cumsum(sizes)))
        return np.concatenate(order), starts[: np.count_nonzero(sizes) + 1]

    def _narrow_levels(self, frontier: Ints, left: Ints) -> tuple[Ints, list[int]]:
        """Go on from a narrow frontier until one is wide, or empty; `left` is counted down.

        Returns
        -------
        jobs : ndarray of int64
            Level by level.
        sizes : list of int
            How many jobs each level has.
        """
        first, child, missing = self._first.data, self._child.data, left.data
        here, found, sizes = frontier.tolist(), [], []
        while here and len(here) < _NARROW:
            following = []
            for job in here:
                for i in range(first[job], first[job + 1]):
                    c = child[i]
                    missing[c] -= 1
                    if not missing[c]:
                        following.append(c)
            here = sorted(following)
            found += here
            sizes.append(len(here))
        return np.array(found, dtype=np.int64), sizes

    def _end_one_by_one(
        self,
        jobs: Ints,
        duration_s: NDArray[np.float64],
        begin: NDArray[np.float64],
        end: NDArray[np.float64],
    ) -> None:
        first, child, starts = self._first.data, self._child.data, begin.data
        ends = []
        for job, duration in zip(jobs.tolist(), duration_s[jobs].tolist(), strict=True):
            finished = starts[job] + duration
            ends.append(finished)
            for i in range(first[job], first[job + 1]):
                if starts[child[i]] < finished:
                    starts[child[i]] = finished
        end[jobs] = ends

    def _edges_from(self, jobs: Ints) -> tuple[Ints, Ints]:
        """Return both ends of all dependencies on these jobs: the job, and who needs it."""
        begin, count = self._first[jobs], self._first[jobs + 1] - self._first[jobs]
        within = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
        return np.repeat(jobs, count), self._child[np.repeat(begin, count) + within]


def _end_of_narrow(starts: Ints, level: int) -> int:
    """Return the first level from `level` on that is wide, or the number of levels."""
    sizes = np.diff(starts[level : level + 4096])
    wide = np.flatnonzero(sizes >= _NARROW)
    return level + int(wide[0] if wide.size else sizes.size)
