"""What a plan says of its jobs: members, names, resources, steps; in memory and from the file."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import numpy as np
import polars as pl
import pytest
from loadmaster_pipelines.batch import Cluster, Clustering, Order
from loadmaster_pipelines.connections import Connection
from loadmaster_pipelines.pipeline import Pipeline, Step, Subset, TaskNode
from loadmaster_pipelines.resources import ResourceRequest, Resources
from loadmaster_planner.orders import JobGroup
from loadmaster_planner.plain import clustering_from_json
from loadmaster_planner.plan import Plan
from loadmaster_planner.planner import make_plan
from loadmaster_planner.request import Request
from loadmaster_planner.show import job_facts, verify
from loadmaster_registry.errors import PlanError
from loadmaster_registry.records import Collection, CollectionType, DatasetType
from loadmaster_registry.store import Registry
from loadmaster_registry.universe import load_universe

PLACES = ("instrument", "detector")
N = 6


def text(name: str, kind: str, dimensions: tuple[str, ...] = PLACES, **more: bool) -> Connection:
    return Connection(name, kind, name, "Text", dimensions, **more)  # type: ignore[arg-type]


A = TaskNode("a", PLACES, (text("raw", "input"), text("x", "output")), command="true",
             resources=Resources(2, 1000, 60, 10, 0, 30))  # fmt: skip
B = TaskNode("b", PLACES, (text("x", "input"), text("y", "output")), command="true",
             resources=Resources(1, 3000, 20, 5, 4))  # fmt: skip
C = TaskNode("c", ("instrument",), (text("y", "input", multiple=True), text("z", "output", ("instrument",))),
             command="true")  # fmt: skip
SUBSETS = {"first": Subset("first", ("a", "b")), "last": Subset("last", ("c",))}
STEPS = (Step("first", ("detector",)), Step("last", ("instrument",)))
PIPELINE = Pipeline("for tests", None, {t.label: t for t in (A, B, C)}, SUBSETS, STEPS)
BY_DETECTOR = Order("nights", ("a",), ("detector",), is_blocking=True)
PAIRS = Cluster("pair", ("a", "b"), (), (), ("detector",), None, 2, resources=ResourceRequest(cpus=8))


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """One raw for each of six detectors."""
    universe = load_universe()
    folder = tmp_path_factory.mktemp("registry")
    with Registry.create(f"sqlite:///{folder}/registry.sqlite3", universe) as made:
        keys = pl.DataFrame({"instrument": ["I"] * N, "detector": range(1, N + 1)})
        files = keys.with_columns(
            pl.Series("id", [UUID(int=i + 1).bytes for i in range(N)]),
            pl.Series("url", [f"raw/{i}" for i in range(N)]),
        )
        with made.transaction() as txn:
            txn.insert_records("instrument", pl.DataFrame({"instrument": ["I"]}))
            txn.insert_records(
                "detector", keys.with_columns(pl.col("detector").cast(pl.String).alias("full_name"))
            )
            txn.register_collection(Collection("raw", CollectionType.RUN))
            txn.register_dataset_type(DatasetType("raw", universe.group(PLACES), "Text"))
            txn.insert_datasets("raw", "raw", files)
        yield made


@pytest.fixture(params=["in memory", "from a file"])
def plan(registry: Registry, request: pytest.FixtureRequest, tmp_path: Path) -> Plan:
    made = planned(registry, Clustering((PAIRS,), sites={"farm": ResourceRequest(disk_mib=70)}))
    if request.param == "in memory":
        return made
    made.write(tmp_path / "plan")
    return Plan.open(tmp_path / "plan")


def planned(registry: Registry, clustering: Clustering | None = None, pipeline: Pipeline = PIPELINE) -> Plan:
    return make_plan(registry, pipeline, Request(("raw",), "out", where="instrument='I'"), clustering)


def test_a_job_has_its_members_in_order_with_name_step_and_shard(plan: Plan) -> None:
    assert plan.n_jobs == 4
    assert [job.name for job in plan.jobs()] == ["pair_001", "pair_002", "pair_003", "c_I"]
    first = plan.job(0)
    assert [(q.task, q.data_id["detector"]) for q in first.quanta] == [("a", 1), ("a", 2), ("b", 1), ("b", 2)]
    assert plan.members(1) == (("a", 2), ("a", 3), ("b", 2), ("b", 3))
    assert (first.cluster, first.step, first.shard) == ("pair", "first", {})
    assert (plan.job(3).cluster, plan.job(3).step, plan.job(3).shard) == ("c", "last", {"instrument": "I"})
    assert [plan.task_of(job) for job in range(4)] == ["pair", "pair", "pair", "c"]
    with pytest.raises(PlanError, match="there is no job 4"):
        plan.job(4)


def test_rows_lead_to_jobs_and_jobs_to_rows(plan: Plan) -> None:
    for task in plan.header.tasks:
        numbers = plan.jobs_of(task.label).tolist()
        assert len(numbers) == task.quanta
        for row, job in enumerate(numbers):
            assert (task.label, row) in plan.members(job)
        assert plan.jobs_of(task.label, 0, 1).tolist() == numbers[:1]


def test_only_what_crosses_jobs_is_a_dependency(plan: Plan) -> None:
    assert plan.dependencies().rows() == [(3, 0), (3, 1), (3, 2)]


def test_resources_are_the_clusters_then_those_of_all_its_quanta(plan: Plan) -> None:
    assert plan.resources(0) == Resources(8, 3000, 160, 30, 4, None)
    assert plan.resources(3) == Resources()
    assert plan.resources(3, "farm") == Resources(disk_mib=70)
    assert plan.resources(0, "farm") == plan.resources(0)  # the tasks themselves say


def test_the_table_of_jobs_says_the_same_as_each_job(plan: Plan) -> None:
    for row in plan.job_table("farm").iter_rows(named=True):
        job = plan.job(row["job"])
        wanted = plan.resources(row["job"], "farm")
        assert (row["cluster"], row["step"], row["quanta"]) == (job.cluster, job.step, len(job.quanta))
        assert Resources(**{name: row[name] for name in Resources.__dataclass_fields__}) == wanted
    priorities = plan.priorities()
    assert priorities is not None
    assert priorities.tolist() == [4, 4, 4, 0]


def test_a_shard_is_known_where_a_job_is_within_one(registry: Registry) -> None:
    plan = planned(registry, Clustering((replace(PAIRS, partition_max_size=4),)))
    assert plan.shards("first").rows() == [(0, None), (1, None)]
    singly = planned(registry)
    assert singly.shards("first").sort("job")["detector"].to_list() == [1, 2, 3, 4, 5, 6] * 2
    assert singly.job(0).shard == {"detector": 1}
    assert singly.priorities() is not None


def test_a_job_a_quantum_has_no_tables_and_no_rows_of_its_own(registry: Registry) -> None:
    plan = planned(registry)
    assert plan.n_jobs == 13
    assert [c.members for c in plan.header.jobs.clusters] == [0, 0, 0]
    assert "job" not in plan.rows("quanta/a", 0, 1).columns
    assert [plan.members(job) for job in (0, 6, 12)] == [(("a", 0),), (("b", 0),), (("c", 0),)]


def test_the_digest_depends_on_jobs_and_resources_and_on_no_chance(registry: Registry) -> None:
    clustering = Clustering((PAIRS,))
    digests = {
        planned(registry).digest,
        planned(registry, clustering).digest,
        planned(registry, Clustering((replace(PAIRS, partition_max_size=3),))).digest,
        planned(registry, Clustering((replace(PAIRS, resources=ResourceRequest(cpus=9)),))).digest,
        planned(registry, replace(clustering, defaults=ResourceRequest(memory_mib=5))).digest,
        planned(registry, replace(clustering, sites={"farm": ResourceRequest(cpus=3)})).digest,
        planned(registry, replace(clustering, elide=("x",))).digest,
    }
    assert len(digests) == 7
    assert planned(registry, clustering).digest in digests


@pytest.mark.parametrize("is_reopened", [False, True])
def test_an_order_is_in_the_plan_and_every_job_knows_its_group(
    registry: Registry, tmp_path: Path, is_reopened: bool
) -> None:
    plan = planned(registry, Clustering(orders=(BY_DETECTOR,)))
    if is_reopened:
        plan.write(tmp_path / "plan")
        plan = Plan.open(tmp_path / "plan")
    verify(plan)
    assert plan.groups_of(2) == (JobGroup("nights", 3, N, {"detector": 3}, True),)
    assert plan.groups_of(7) == ()
    barriers = plan.barriers()
    assert barriers.is_blocking.tolist() == [True] * (N - 1)
    levels = plan.job_graph().levels()
    assert levels[:N].tolist() == [0, 2, 4, 6, 8, 10]
    assert levels[N : 2 * N].tolist() == [1, 3, 5, 7, 9, 11]
    assert job_facts(plan, 2)["groups"][0]["values"] == {"detector": 3}


def test_an_order_changes_the_digest_and_what_was_asked_leads_to_it_again(registry: Registry) -> None:
    plan = planned(registry, Clustering(orders=(BY_DETECTOR,)))
    found, _ = clustering_from_json(json.loads(json.dumps(plan.header.clustering)))
    assert found.orders == (BY_DETECTOR,)
    assert planned(registry, found).digest == plan.digest
    assert plan.digest != planned(registry).digest
    free = planned(registry, Clustering(orders=(replace(BY_DETECTOR, is_blocking=False),)))
    assert free.digest != plan.digest


def test_an_order_counts_in_the_wall_time(registry: Registry) -> None:
    def longest_s(clustering: Clustering) -> float:
        graph = planned(registry, clustering).job_graph()
        duration = np.where(np.arange(graph.n_jobs) < 2 * N + 1, 1.0, 0.0)
        assert graph.simulate(duration, 100) == graph.critical_path(duration)
        return graph.critical_path(duration)

    assert longest_s(Clustering()) == 3
    assert longest_s(Clustering(orders=(BY_DETECTOR,))) == N + 2


def test_elided_datasets_are_marked_and_their_type_is_not_to_be_registered(registry: Registry) -> None:
    plan = planned(registry, Clustering((PAIRS,), elide=("x",)))
    quantum = plan.job(0).quanta[0]
    assert [d.is_elided for d in quantum.outputs["x"]] == [True]
    assert [d.is_elided for d in quantum.inputs["raw"]] == [False]
    assert [t.name for t in plan.dataset_types] == ["y", "z"]
