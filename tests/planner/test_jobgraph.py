"""The graph of jobs: against networkx, and at the shapes that would make level-by-level work slow."""

from dataclasses import dataclass

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loadmaster_planner.jobgraph import JobGraph
from loadmaster_registry.errors import PlanError
from numpy.typing import NDArray


@dataclass
class Case:
    n_jobs: int
    job: NDArray[np.int64]
    needs: NDArray[np.int64]
    duration_s: NDArray[np.float64]

    @property
    def graph(self) -> JobGraph:
        return JobGraph(self.n_jobs, self.job, self.needs)

    @property
    def twin(self) -> nx.DiGraph:
        twin = nx.DiGraph()
        twin.add_nodes_from(range(self.n_jobs))
        twin.add_edges_from(zip(self.needs.tolist(), self.job.tolist(), strict=True))
        return twin


@st.composite
def cases(draw: st.DrawFn, acyclic: bool = True) -> Case:
    """Sparse and dense graphs, narrow and wide, jobs numbered in any order."""
    n = draw(st.integers(1, 150))
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    width = draw(st.sampled_from([1, 3, 60, 150]))
    n_pairs = draw(st.integers(0, 3 * n))
    later = rng.integers(0, n, n_pairs)
    earlier = later - rng.integers(1, width + 1, n_pairs) if acyclic else rng.integers(0, n, n_pairs)
    kept = (earlier >= 0) & (earlier != later)
    names = rng.permutation(n)
    pairs = np.unique(np.stack([names[later[kept]], names[earlier[kept]]], axis=1), axis=0).astype(np.int64)
    return Case(n, pairs[:, 0], pairs[:, 1], rng.uniform(0, 10, n))


@settings(deadline=None)
@given(cases())
def test_levels_are_those_of_networkx(case: Case) -> None:
    expected = {job: i for i, level in enumerate(nx.topological_generations(case.twin)) for job in level}
    assert dict(enumerate(case.graph.levels().tolist())) == expected


@settings(deadline=None)
@given(cases())
def test_each_job_comes_after_those_it_needs(case: Case) -> None:
    order = case.graph.order()
    place = np.empty_like(order)
    place[order] = np.arange(case.n_jobs)
    assert sorted(order.tolist()) == list(range(case.n_jobs))
    assert (place[case.job] > place[case.needs]).all()


@settings(deadline=None)
@given(cases())
def test_the_critical_path_is_the_longest_chain(case: Case) -> None:
    end: dict[int, float] = {}
    for job in nx.topological_sort(case.twin):
        begin = max((end[j] for j in case.twin.predecessors(job)), default=0.0)
        end[job] = begin + case.duration_s[job]
    assert case.graph.critical_path(case.duration_s) == pytest.approx(max(end.values()))
    np.testing.assert_allclose(case.graph.earliest_end(case.duration_s), [end[j] for j in range(case.n_jobs)])


@settings(deadline=None)
@given(cases(), st.integers(1, 9))
def test_wall_time_on_slots_is_within_grahams_bounds(case: Case, slots: int) -> None:
    wall = case.graph.simulate(case.duration_s, slots)
    best = max(case.graph.critical_path(case.duration_s), case.duration_s.sum() / slots)
    assert best <= wall * (1 + 1e-9)
    assert wall <= best * (2 - 1 / slots) * (1 + 1e-9)


@settings(deadline=None)
@given(cases())
def test_one_slot_takes_the_sum_and_many_take_the_critical_path(case: Case) -> None:
    assert case.graph.simulate(case.duration_s, 1) == pytest.approx(case.duration_s.sum())
    enough = case.graph.simulate(case.duration_s, case.n_jobs)
    assert enough == pytest.approx(case.graph.critical_path(case.duration_s))


@settings(deadline=None)
@given(cases(acyclic=False))
def test_a_circle_is_found_where_there_is_one(case: Case) -> None:
    circle = case.graph.circle()
    assert bool(circle) == (not nx.is_directed_acyclic_graph(case.twin))
    assert len(set(circle)) == len(circle)
    for before, after in zip(circle, circle[1:] + circle[:1], strict=True):
        assert case.twin.has_edge(before, after)
    if circle:
        with pytest.raises(PlanError, match=f"{len(circle)} jobs wait for each other"):
            case.graph.levels()


@pytest.mark.parametrize("width", [1, 30, 1000])
def test_chains_and_fans_are_levelled_alike(width: int) -> None:
    n = 20 * width
    job = np.arange(width, n)
    graph = JobGraph(n, job, job - width)
    assert graph.levels().tolist() == (np.arange(n) // width).tolist()
    assert graph.critical_path(np.ones(n)) == 20


def test_a_graph_without_jobs_takes_no_time() -> None:
    none = np.zeros(0, dtype=np.int64)
    graph = JobGraph(0, none, none)
    assert graph.order().size == graph.levels().size == 0
    assert graph.critical_path(np.zeros(0)) == graph.simulate(np.zeros(0), 3) == 0.0
