"""Jobs that run group after group: against groups made by hand, with barriers that say neither more nor less."""

from collections.abc import Mapping
from dataclasses import replace
from random import Random

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from job_graphs import AXES, Task, World, numbers, random_clustering, random_world
from loadmaster_pipelines.batch import Cluster, Clustering, Order
from loadmaster_planner.clusters import Jobs, make_jobs
from loadmaster_planner.orders import Barriers, OrderedJobs, make_orders
from loadmaster_registry.errors import PlanError

SEEDS = st.integers(0, 2**32 - 1)
EQUAL = (("visit", "exposure"),)
DETECTORS = [{"instrument": "Toy", "detector": d} for d in AXES["detector"]]
SAME = [(i, i) for i in range(len(DETECTORS))]
MAKE = Task("make", ("instrument", "detector"), DETECTORS, {}, [])
USE = Task("use", ("instrument", "detector"), DETECTORS, {"make": SAME}, [])
SUM = Task("sum", ("instrument",), DETECTORS[:1], {"use": [(0, i) for i, _ in SAME]}, [])
VISITS = [{"instrument": "Toy", "visit": v} for v in AXES["visit"]]
LOOK = Task("look", ("instrument", "visit"), VISITS, {}, [])
BANDS = [{"instrument": "Toy", "band": b} for b in AXES["band"]]


class Refused(Exception):  # noqa: N818 (as errors here are named)
    """The slow twin cannot make groups either."""


def order(*labels: str, **more: object) -> Order:
    return replace(Order("o", labels, ("detector",)), **more)


def ordered(world: World, wanted: Order, *clusters: Cluster) -> OrderedJobs:
    (found,) = make_orders(world.graph, jobs_of(world, *clusters), [wanted])
    return found


def jobs_of(world: World, *clusters: Cluster) -> Jobs:
    return make_jobs(world.graph, world.pipeline, Clustering(clusters))


def groups(found: OrderedJobs) -> list[tuple[tuple[object, ...], list[int]]]:
    return list(
        zip(found.groups.rows(), (p.tolist() for p in np.split(found.job, found.start[1:])), strict=True)
    )


def random_order(world: World, clustering: Clustering, seed: int) -> Order:
    """Return an order of some kinds of jobs by a dimension or two, which most often are in all of them."""
    random = Random(seed)
    home = {t: c.name for c in clustering.clusters for t in c.tasks}
    names = list(dict.fromkeys(home.get(t.label, t.label) for t in world.tasks))
    labels = tuple(name for name in names if random.random() < 0.7) or (names[0],)
    tasks = [t for t in world.tasks if home.get(t.label, t.label) in labels]
    common = [d for d in AXES if all(d in t.dimensions for t in tasks)]
    pool = common if random.random() < 0.8 else list(AXES)
    return Order("o", labels, tuple(random.sample(pool, min(len(pool), random.randint(1, 2)))), EQUAL)


def by_hand(
    world: World, clustering: Clustering, wanted: Order, job: Mapping[tuple[str, int], int]
) -> list[list[int]]:
    """Return the jobs of each group: the slow twin, one quantum at a time."""
    home = {t: c.name for c in clustering.clusters for t in c.tasks}
    keys: dict[int, set[tuple[object, ...]]] = {}
    for quantum in world.quanta:
        if home.get(quantum[0], quantum[0]) in wanted.labels:
            keys.setdefault(job[quantum], set())
            values = tuple(_value(world, quantum, d) for d in wanted.dimensions)
            if None not in values:
                keys[job[quantum]].add(values)
    if any(len(found) != 1 for found in keys.values()):
        raise Refused
    distinct = sorted({next(iter(found)) for found in keys.values()})
    return [sorted(j for j, found in keys.items() if found == {key}) for key in distinct]


def _value(world: World, quantum: tuple[str, int], dimension: str) -> object:
    other = {"visit": "exposure", "exposure": "visit"}.get(dimension, dimension)
    return next((v for d in (dimension, other) if (v := world.value(quantum, d)) is not None), None)


@settings(deadline=None)
@given(SEEDS, SEEDS, SEEDS)
def test_groups_and_what_waits_are_what_one_gets_by_hand(seed: int, how: int, which: int) -> None:
    world = random_world(seed, is_local=True)
    clustering = random_clustering(world, how)
    try:
        jobs = make_jobs(world.graph, world.pipeline, clustering)
    except PlanError:
        return
    wanted, job = random_order(world, clustering, which), numbers(jobs, world)
    reads = {(job[a], job[b]) for a, b in world.links if job[a] != job[b]}
    waits = nx.DiGraph(reads)
    try:
        hand = by_hand(world, clustering, wanted, job)
        waits.add_edges_from(
            (a, b) for i, later in enumerate(hand) for g in hand[:i] for a in g for b in later
        )
        if not nx.is_directed_acyclic_graph(waits):
            raise Refused
    except Refused:
        with pytest.raises(PlanError, match="order 'o'"):
            make_orders(world.graph, jobs, [wanted])
        return
    found = make_orders(world.graph, jobs, [wanted])
    assert [members for o in found for _, members in groups(o)] == hand
    barriers = Barriers.between(jobs.n_jobs, ((o.start, o.job, False) for o in found))
    assert barriers.node.size <= 3 * jobs.n_jobs
    kept = nx.DiGraph(reads)
    kept.add_edges_from(zip(barriers.needs.tolist(), barriers.node.tolist(), strict=True))
    assert _paths(kept, jobs.n_jobs) == _paths(waits, jobs.n_jobs)


def _paths(graph: nx.DiGraph, n_jobs: int) -> set[tuple[int, int]]:
    return {(a, b) for a in graph if a < n_jobs for b in nx.descendants(graph, a) if b < n_jobs}


def test_groups_go_by_value_and_numbers_are_no_text() -> None:
    found = ordered(World((MAKE, USE)), order("make", "use"))
    assert groups(found) == [((1,), [0, 4]), ((2,), [1, 5]), ((10,), [2, 6]), ((11,), [3, 7])]
    assert (found.facts().groups, found.facts().jobs) == (4, 8)


def test_a_cluster_is_ordered_as_a_whole() -> None:
    pair = Cluster("pair", ("make", "use"), ("detector",))
    found = ordered(World((MAKE, USE, SUM)), order("pair"), pair)
    assert groups(found) == [((1,), [0]), ((2,), [1]), ((10,), [2]), ((11,), [3])]


def test_jobs_without_the_dimension_follow_what_they_read_or_what_reads_them() -> None:
    band = Task("band", ("instrument", "band"), BANDS, {"make": [(0, 0), (1, 1)]}, [])
    after = ordered(World((MAKE, band)), order("make", "band", find_method="source"))
    assert [members for _, members in groups(after)] == [[0, 4], [1, 5], [2], [3]]
    first = Task("band", ("instrument", "band"), BANDS, {}, [])
    user = replace(MAKE, reads={"band": [(2, 0), (3, 1)]})
    before = ordered(World((first, user)), order("band", "make", find_method="sink"))
    assert [members for _, members in groups(before)] == [[2], [3], [0, 4], [1, 5]]


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        (order("use", "sum"), ("task 'sum' has no detector", "1 quanta, for instance instrument", "source, sink")),
        (order("use", "sum", find_method="source"), ("1 jobs of 'sum' find no group", "in several of its groups")),
        (order("use", "sum", find_method="sink"), ("'sum' find no group", "in none of its groups")),
        (order("all"), ("1 jobs would be in several groups", "has quanta of detector=1 and detector=11")),
        (order("look"), ("task 'look' has no detector",)),
    ],
)  # fmt: skip
def test_a_job_that_is_in_no_group_or_in_several_is_refused_with_an_example(
    wanted: Order, told: tuple[str, ...]
) -> None:
    clusters = (Cluster("all", ("make",)),) if "all" in wanted.labels else ()
    with pytest.raises(PlanError) as caught:
        ordered(World((MAKE, USE, SUM, LOOK)), wanted, *clusters)
    message = str(caught.value).replace("{'instrument': 'Toy'}", "instrument")
    assert all(words in message for words in told), message


def test_an_order_against_the_flow_is_refused_and_names_groups_and_tasks() -> None:
    backwards = replace(USE, reads={"make": [(0, 3)]})
    with pytest.raises(PlanError) as caught:
        ordered(World((MAKE, backwards)), order("make", "use"))
    told = str(caught.value)
    assert "order 'o' would make jobs wait for themselves" in told
    assert "use with instrument=Toy detector=1" in told
    assert "make with instrument=Toy detector=11" in told
    assert "the end of group detector=10" in told
    assert "take some of" in told


def test_two_orders_that_contradict_each_other_are_refused_by_name() -> None:
    rows = [{"instrument": "Toy", "detector": d, "patch": p} for d, p in ((1, 30), (2, 7))]
    world = World((Task("make", ("instrument", "detector", "patch"), rows, {}, []),))
    orders = [Order("first", ("make",), ("detector",)), Order("second", ("make",), ("patch",))]
    with pytest.raises(PlanError, match=r"order '(first|second)' and '(first|second)' would make"):
        make_orders(world.graph, jobs_of(world), orders)


def test_without_quanta_there_is_nothing_to_order() -> None:
    world = World((replace(MAKE, rows=[], reads={}), LOOK))
    assert make_orders(world.graph, jobs_of(world), [order("make")]) == ()


@pytest.mark.parametrize("n_groups", [1_000, 100_000])
def test_barriers_are_as_many_as_jobs_however_many_groups(n_groups: int) -> None:
    n = 200_000
    start = np.arange(0, n, n // n_groups)
    barriers = Barriers.between(n, [(start, np.arange(n), True)])
    assert barriers.is_blocking.size == n_groups - 1
    assert barriers.node.size <= 3 * n
    none = np.zeros(0, np.int64)
    assert barriers.graph(n, none, none).levels().max() == 2 * (n_groups - 1)
