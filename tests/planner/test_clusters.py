"""Jobs made of quanta: against grouping by hand, never in a circle, and with words where it cannot be done."""

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from job_graphs import AXES, Quantum, Task, World, numbers, random_clustering, random_world
from loadmaster_pipelines.batch import Cluster, Clustering
from loadmaster_pipelines.pipeline import Step, Subset
from loadmaster_planner.clusters import make_jobs
from loadmaster_registry.errors import PlanError

SEEDS = st.integers(0, 2**32 - 1)


class Refused(Exception):  # noqa: N818 (as errors here are named)
    """The slow twin cannot make jobs either."""


def by_hand(world: World, clustering: Clustering) -> dict[Quantum, object]:
    """Return for each quantum a key that all quanta of its job have: the slow twin, one quantum at a time."""
    home = {label: c for c in clustering.clusters for label in c.tasks}
    keys: dict[Quantum, object] = {q: q for q in world.quanta if q[0] not in home}
    for cluster in clustering.clusters:
        members = [q for q in world.quanta if q[0] in cluster.tasks]
        group = {q: tuple(value(world, cluster, q, d) for d in cluster.dimensions) for q in members}
        part = {
            q: "==".join(str(value(world, cluster, q, d)) for d in cluster.partition_dimensions)
            for q in members
        }
        number = dealt(cluster, sorted(set(part.values())), len(set(group.values())))
        keys |= {q: (cluster.name, group[q], number[part[q]]) for q in members}
    return keys


def value(world: World, cluster: Cluster, quantum: Quantum, dimension: str) -> object:
    names = [
        dimension,
        *(b if a == dimension else a for a, b in cluster.equal_dimensions if dimension in (a, b)),
    ]
    found = [v for name in names if (v := world.value(quantum, name)) is not None]
    if not found:
        raise Refused(f"{quantum} has no {dimension}")
    return found[0]


def dealt(cluster: Cluster, texts: list[str], n_groups: int) -> dict[str, int]:
    """Return the number of the part of each value, cards being dealt one part after another."""
    if not cluster.partition_dimensions or not texts:
        return dict.fromkeys(texts, 0)
    if cluster.partition_max_size is not None:
        return {text: i // cluster.partition_max_size for i, text in enumerate(texts)}
    assert cluster.partition_max_jobs is not None
    n_parts = cluster.partition_max_jobs // n_groups
    if not n_parts:
        raise Refused("more groups than jobs are allowed")
    hands: list[list[str]] = [[] for _ in range(n_parts)]
    for i in range(len(texts)):
        hands[i % n_parts].append("")
    left = iter(texts)
    return {next(left): number for number, hand in enumerate(hands) for _ in hand}


def cannot_run(keys: Mapping[Quantum, object], world: World, clustering: Clustering) -> bool:
    """Whether jobs, or clusters as a whole, would wait for each other in a circle."""
    home = {label: c.name for c in clustering.clusters for label in c.tasks}
    jobs, kinds = nx.DiGraph(), nx.DiGraph()
    jobs.add_edges_from((keys[a], keys[b]) for a, b in world.links if keys[a] != keys[b])
    ends = [(home.get(a, a), home.get(b, b)) for a, b in world.pipeline.task_graph().edges]
    kinds.add_edges_from((a, b) for a, b in ends if a != b)
    return not (nx.is_directed_acyclic_graph(jobs) and nx.is_directed_acyclic_graph(kinds))


@settings(deadline=None)
@given(SEEDS, SEEDS, st.booleans())
def test_jobs_are_those_of_grouping_quanta_by_their_values(seed: int, other: int, is_local: bool) -> None:
    world = random_world(seed, is_local)
    clustering = random_clustering(world, other)
    try:
        keys = by_hand(world, clustering)
        refused = cannot_run(keys, world, clustering)
    except Refused:
        refused = True
    if refused:
        with pytest.raises(PlanError, match=r"cluster 'c\d'"):
            make_jobs(world.graph, world.pipeline, clustering)
        return
    jobs = make_jobs(world.graph, world.pipeline, clustering)
    found = numbers(jobs, world)
    pairs = {(keys[q], found[q]) for q in world.quanta}
    assert len(pairs) == len({key for key, _ in pairs}) == len({job for _, job in pairs})
    assert sorted({job for _, job in pairs}) == list(range(sum(c.n_jobs for c in jobs.clusters)))
    assert all(
        found[maker] <= found[reader] for maker, reader in world.links
    )  # numbered in order of execution


@settings(deadline=None)
@given(SEEDS, SEEDS)
def test_members_of_a_job_are_listed_in_order_of_execution(seed: int, other: int) -> None:
    world = random_world(seed, is_local=True)
    try:
        jobs = make_jobs(world.graph, world.pipeline, random_clustering(world, other))
    except PlanError:
        return
    order = list(world.pipeline.tasks)
    found = numbers(jobs, world)
    first = 0
    for cluster in jobs.clusters:
        ends = np.append(cluster.start, cluster.row.size) if cluster.row.size else []
        for j, (a, b) in enumerate(pairwise(ends)):
            members = [
                (cluster.tasks[t], int(r)) for t, r in zip(cluster.task[a:b], cluster.row[a:b], strict=True)
            ]
            assert members == sorted(members, key=lambda m: (order.index(m[0]), m[1]))
            assert {found[m] for m in members} == {first + j}
        first += cluster.n_jobs


FRAMES = [
    {"instrument": "Toy", "exposure": e, "detector": d} for e in AXES["exposure"] for d in AXES["detector"]
]
ISR = Task("isr", ("instrument", "exposure", "detector"), FRAMES, {}, [], 10)
VISITS = [{"instrument": "Toy", "visit": e} for e in AXES["visit"]]
SUMMARY = Task(
    "summary",
    ("instrument", "visit"),
    VISITS,
    {
        "isr": [
            (i, j) for i, v in enumerate(VISITS) for j, f in enumerate(FRAMES) if f["exposure"] == v["visit"]
        ]
    },
    [],
)


def refused(world: World, *clusters: Cluster) -> str:
    with pytest.raises(PlanError) as caught:
        make_jobs(world.graph, world.pipeline, Clustering(clusters))
    return str(caught.value)


def test_a_value_that_tells_the_job_and_is_missing_is_named_with_task_and_cluster() -> None:
    told = refused(
        World((ISR, SUMMARY)),
        Cluster("c", ("isr", "summary"), ("visit", "detector"), (("visit", "exposure"),)),
    )
    assert "task 'summary' has no detector, by which cluster 'c' is made" in told
    assert "its dimensions are instrument, visit" in told


def test_tasks_without_a_value_follow_the_graph_where_the_cluster_says_so() -> None:
    world = World((ISR, SUMMARY))
    cluster = Cluster("c", ("isr", "summary"), ("exposure",), find_method="source")
    (jobs,) = make_jobs(world.graph, world.pipeline, Clustering((cluster,))).clusters
    assert jobs.n_jobs == 4  # exposure 3 is of no visit
    assert np.diff(np.append(jobs.start, jobs.row.size)).tolist() == [4, 5, 5, 5]


def test_quanta_that_would_belong_to_several_jobs_are_refused() -> None:
    told = refused(
        World((ISR, SUMMARY)), Cluster("c", ("isr", "summary"), ("detector",), find_method="source")
    )
    assert "3 quanta of 'summary' find no job of cluster 'c'" in told
    assert "several of its jobs" in told


def test_a_cluster_around_a_task_that_is_outside_is_named_with_the_tasks() -> None:
    middle = replace(SUMMARY, label="middle")
    last = Task("last", ("instrument",), [{"instrument": "Toy"}], {"middle": [(0, 0)], "isr": [(0, 0)]}, [])
    told = refused(World((ISR, middle, last)), Cluster("c", ("isr", "last"), ("instrument",)))
    assert "cluster 'c' would wait for itself" in told
    assert "put middle into cluster 'c'" in told


def test_jobs_of_one_cluster_that_wait_for_each_other_are_refused_with_examples() -> None:
    rows = [{"instrument": "Toy", "detector": d} for d in AXES["detector"][:2]]
    a = Task("a", ("instrument", "detector"), rows, {}, [])
    b = Task("b", ("instrument", "detector"), rows, {"a": [(0, 1), (1, 0)]}, [])
    told = refused(World((a, b)), Cluster("c", ("a", "b"), ("detector",)))
    assert "2 jobs of cluster 'c' would wait for each other in a circle" in told
    assert "of its tasks a, b" in told


def test_too_many_values_for_the_jobs_allowed_are_counted() -> None:
    told = refused(World((ISR,)), Cluster("c", ("isr",), ("exposure",), (), ("detector",), 3))
    assert "cannot have at most 3 jobs" in told
    assert "4 values" in told


def test_values_are_split_in_the_order_of_their_text_over_all_groups_alike() -> None:
    world = World((ISR,))
    cluster = Cluster(
        "c", ("isr",), ("exposure",), (), ("detector",), 11
    )  # two parts for each of four exposures
    jobs = make_jobs(world.graph, world.pipeline, Clustering((cluster,)))
    assert jobs.clusters[0].n_jobs == 8
    assert jobs.clusters[0].part.tolist() == [1, 2] * 4
    detectors = {}
    for quantum, job in numbers(jobs, world).items():
        detectors.setdefault(job, []).append(world.value(quantum, "detector"))
    assert detectors[0] == [1, 10]  # as text: 1, 10, 11, 2
    assert detectors[1] == [2, 11]


def test_jobs_of_one_name_are_one_job() -> None:
    world = World((ISR,))
    cluster = Cluster("c", ("isr",), ("exposure", "detector"), template="night_{detector}")
    assert make_jobs(world.graph, world.pipeline, Clustering((cluster,))).clusters[0].n_jobs == 4


def test_a_cluster_over_two_steps_is_refused() -> None:
    world = World((ISR, SUMMARY))
    subsets = {"one": Subset("one", ("isr",)), "two": Subset("two", ("summary",))}
    pipeline = replace(
        world.pipeline, subsets=subsets, steps=(Step("one", ("exposure",)), Step("two", ("visit",)))
    )
    clustering = Clustering((Cluster("c", ("isr", "summary"), ("instrument",)),))
    with pytest.raises(PlanError, match="cluster 'c' spans steps one and two"):
        make_jobs(world.graph, pipeline, clustering)


def packed(world: World, cluster: Cluster) -> dict[int, list[Quantum]]:
    jobs = make_jobs(world.graph, world.pipeline, Clustering((cluster,)))
    members: dict[int, list[Quantum]] = {}
    for quantum, job in numbers(jobs, world).items():
        members.setdefault(job, []).append(quantum)
    return members


@settings(deadline=None)
@given(SEEDS, st.integers(1, 60))
def test_packed_jobs_keep_to_the_target_and_none_is_lost(seed: int, target_s: int) -> None:
    first = random_world(seed, is_local=True).tasks[0]
    members = packed(World((first,)), Cluster("c", (first.label,), target_s=target_s))
    assert sorted(q for job in members.values() for q in job) == [
        (first.label, i) for i in range(len(first.rows))
    ]
    assert first.run_time_s is not None
    most = max(1, target_s // first.run_time_s)
    assert all(len(job) <= most for job in members.values())
    assert len(members) == -(-len(first.rows) // most)


def test_what_shares_inputs_shares_a_job() -> None:
    detectors = list(AXES["detector"])
    shares = [(i, detectors.index(row["detector"])) for i, row in enumerate(FRAMES)] + [
        (i, 4) for i in range(16)
    ]
    world = World((replace(ISR, shares=shares),))  # a flat for each detector, and one thing that all read
    members = packed(world, Cluster("c", ("isr",), target_s=40))
    assert [{world.value(q, "detector") for q in job} for job in members.values()] == [{1}, {2}, {10}, {11}]


def test_units_of_several_tasks_are_packed_whole() -> None:
    world = World((ISR, replace(SUMMARY, run_time_s=20)))
    cluster = Cluster("c", ("isr", "summary"), ("visit",), (("visit", "exposure"),), target_s=130)
    members = packed(world, cluster)
    values = [
        {world.value(q, "visit") or world.value(q, "exposure") for q in job} for job in members.values()
    ]
    assert sorted(map(len, values)) == [2, 2]
    assert not values[0] & values[1]


def test_packing_needs_to_know_how_long_a_task_runs() -> None:
    world = World((ISR, SUMMARY))
    told = refused(world, Cluster("c", ("summary",), target_s=60))
    assert "nothing says how long summary runs" in told
    told = refused(
        World((ISR, replace(SUMMARY, run_time_s=5))), Cluster("c", ("isr", "summary"), target_s=60)
    )
    assert "2 tasks and no dimensions" in told
