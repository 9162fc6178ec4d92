"""What may be handed on in memory: whatever its readers' jobs are, and with words where it may not."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from job_graphs import AXES, Task, World, numbers, random_clustering, random_world
from loadmaster_pipelines.batch import Cluster, Clustering
from loadmaster_planner.clusters import make_jobs
from loadmaster_planner.elision import elided_types
from loadmaster_registry.errors import PipelineError, PlanError

ROWS = [{"instrument": "Toy", "detector": d} for d in AXES["detector"]]
SAME = [(i, i) for i in range(len(ROWS))]
MAKE = Task("make", ("instrument", "detector"), ROWS, {}, [])
USE = Task("use", ("instrument", "detector"), ROWS, {"make": SAME}, [])
SUM = Task(
    "sum", ("instrument",), [{"instrument": "Toy"}], {"make": [(0, i) for i, _ in SAME], "use": []}, []
)
PAIR = Cluster("pair", ("make", "use"), ("detector",))


def elide(
    world: World, *types: str, store_after_all: bool = False
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    clustering = Clustering((PAIR,), elide=types, store_after_all=store_after_all)
    jobs = make_jobs(world.graph, world.pipeline, clustering)
    return elided_types(world.graph, world.pipeline, jobs, clustering)


def test_a_type_whose_readers_are_all_in_its_makers_jobs_is_elided() -> None:
    assert elide(World((MAKE, USE)), "make") == (("make",), ())


def test_a_reader_in_another_job_is_named_with_how_many_quanta_and_an_example() -> None:
    with pytest.raises(PlanError) as caught:
        elide(World((MAKE, USE, SUM)), "make")
    told = str(caught.value)
    assert "make cannot be handed on in memory: other jobs need it" in told
    assert "1 quanta of sum, for instance {'instrument': 'Toy'}, read it from jobs of make" in told
    assert "--store-after-all" in told


def test_a_reader_in_another_job_of_the_same_cluster_is_one_elsewhere() -> None:
    shifted = replace(USE, reads={"make": [(i, i + 1) for i in range(3)]})
    with pytest.raises(PlanError, match="3 quanta of use"):
        elide(World((MAKE, shifted)), "make")


def test_stored_after_all_means_stored_and_said() -> None:
    types, notes = elide(World((MAKE, USE, SUM)), "make", store_after_all=True)
    assert types == ()
    assert len(notes) == 1
    assert "1 quanta of sum" in notes[0]


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("mak", "there is no dataset type 'mak' to elide"),
        ("stored", "it comes from outside"),
        ("use", "no task of the pipeline reads it"),
    ],
)
def test_only_what_one_task_makes_and_another_reads_can_be_elided(name: str, why: str) -> None:
    with pytest.raises(PipelineError, match=why):
        elide(World((MAKE, USE)), name)


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_a_type_is_elided_if_and_only_if_no_job_reads_another_jobs_datasets(seed: int, other: int) -> None:
    world = random_world(seed, is_local=True)
    read = {maker for task in world.tasks for maker in task.reads}
    clustering = replace(random_clustering(world, other), elide=tuple(sorted(read)), store_after_all=True)
    try:
        jobs = make_jobs(world.graph, world.pipeline, clustering)
    except PlanError:
        return
    types, notes = elided_types(world.graph, world.pipeline, jobs, clustering)
    job = numbers(jobs, world)
    crossing = {maker[0] for maker, reader in world.links if job[maker] != job[reader]}
    assert set(types) == read - crossing
    assert all(any(f"need it: {name}:" in note for note in notes) for name in crossing)
