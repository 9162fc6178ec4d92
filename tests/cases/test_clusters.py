"""Jobs made of real graphs: the same quanta run together, and wait for the same others, as in Rubin's batch system."""

import json
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from case_files import EXPECTED, check_keys, params
from case_plans import plan_of
from loadmaster_pipelines.batch_file import read_clustering
from loadmaster_planner.plan import Plan
from loadmaster_registry.errors import Error
from loadmaster_registry.store import Registry

KNOWN = {"id", "graph", "clusters", "n_jobs", "n_dependencies", "jobs_per_cluster", "jobs", "dependencies",
         "failure", "reason", "peer_seconds"}  # fmt: skip
Job = tuple[str, frozenset[Any]]


@pytest.mark.parametrize("case", params("clusters/*.json"))
def test_jobs_and_what_they_wait_for_are_those_of_rubins_batch_system(
    case: dict[str, Any], imported: Callable[[str], Registry], tmp_path: Path
) -> None:
    check_keys(case, KNOWN, f"clusters {case['id']}")
    graph = json.loads((EXPECTED / "graphs" / f"{case['graph']}.json").read_text())
    if "failure" in case:
        with pytest.raises(Error):
            clustered(case, graph, imported, tmp_path)
        return
    plan = clustered(case, graph, imported, tmp_path)
    jobs = jobs_of(plan)
    assert Counter(cluster for cluster, _ in jobs) == case["jobs_per_cluster"]
    assert len(jobs) == case["n_jobs"]
    needs = plan.dependencies().select("needs", "job").rows()
    assert len(needs) == case["n_dependencies"]
    if "jobs" in case:
        wanted = [job_of(job) for job in case["jobs"]]
        assert set(jobs) == set(wanted)
    if "dependencies" in case:
        pairs = {(wanted[a], wanted[b]) for a, b in case["dependencies"]}
        assert {(jobs[a], jobs[b]) for a, b in needs} == pairs


def clustered(
    case: Mapping[str, Any], graph: Mapping[str, Any], imported: Callable[[str], Registry], folder: Path
) -> Plan:
    """Plan the graph of a case with its clusters, which are written as in a submit file."""
    file = folder / "submit.yaml"
    file.write_text(yaml.safe_dump({"cluster": case["clusters"]}))
    return plan_of(graph, imported, clustering=read_clustering(file))


def jobs_of(plan: Plan) -> list[Job]:
    """Return for each job its cluster and its quanta: task and required data ID."""
    keys = {task.label: task.dimensions for task in plan.header.tasks}
    return [
        (
            job.cluster,
            frozenset((q.task, tuple(q.data_id[k] for k in keys[q.task])) for q in job.quanta),
        )
        for job in plan.jobs()
    ]


def job_of(job: Mapping[str, Any]) -> Job:
    check_keys(job, {"cluster", "members", "name"}, "job")
    return job["cluster"], frozenset((label, tuple(data_id)) for label, data_id in job["members"])
