"""Batch files: both forms mean the same, and what is unknown or misspelt is refused with its place."""

from pathlib import Path

import pytest
from loadmaster_pipelines.batch import Cluster, Clustering, Order
from loadmaster_pipelines.batch_file import parse_clustering, read_clustering
from loadmaster_pipelines.loader import load_pipeline
from loadmaster_pipelines.pipeline import Pipeline, TaskNode
from loadmaster_pipelines.resources import ResourceRequest, Resources, together
from loadmaster_pipelines.yaml_source import parse_yaml
from loadmaster_registry.errors import PipelineError
from loadmaster_registry.universe import load_universe

OWN = """
clusters:
  night:
    tasks: [isr, calibrate]
    dimensions: [visit, detector]
    equal_dimensions: [[visit, exposure]]
    partition_dimensions: [detector]
    partition_max_jobs: 40
    template: "night_{visit}"
    find_method: sink
    resources: {cpus: 2, walltime_s: 600, priority: -3}
resources:
  isr: {memory_mib: 4000, disk_mib: 50}
defaults: {memory_mib: 3000}
sites:
  farm: {cpus: 4}
"""
SUBMITTED = """
pipelineYaml: drp.yaml
clusterAlgorithm: lsst.ctrl.bps.quantum_clustering_funcs.dimension_clustering
requestMemory: 3000
cluster:
  night:
    pipetasks: isr, calibrate
    dimensions: visit,detector
    equalDimensions: visit:exposure
    partitionDimensions: detector
    partitionMaxClusters: 40
    clusterTemplate: "night_{visit}"
    findDependencyMethod: sink
    requestCpus: 2
    requestWalltime: 10
    priority: -3
    numberOfRetries: 3
pipetask:
  isr: {requestMemory: 4000, requestDisk: 50}
site:
  farm: {requestCpus: 4, profile: {condor: {+Group: drp}}}
"""


def read(text: str) -> Clustering:
    return parse_clustering(parse_yaml(text, "batch.yaml"))


def pipeline(*labels: str, left_out: tuple[str, ...] = ()) -> Pipeline:
    tasks = {label: TaskNode(label, ("visit",), ()) for label in labels}
    return Pipeline("for tests", None, tasks, left_out=frozenset(left_out))


def refusal(text: str, *labels: str) -> str:
    with pytest.raises(PipelineError) as caught:
        read(text).of(pipeline(*labels))
    return str(caught.value)


def test_our_form_and_a_submit_file_say_the_same() -> None:
    own, submitted = read(OWN), read(SUBMITTED)
    assert own.clusters == submitted.clusters
    assert own.clusters == (
        Cluster(
            name="night",
            tasks=("isr", "calibrate"),
            dimensions=("visit", "detector"),
            equal_dimensions=(("visit", "exposure"),),
            partition_dimensions=("detector",),
            partition_max_jobs=40,
            template="night_{visit}",
            find_method="sink",
            resources=ResourceRequest(cpus=2, walltime_s=600, priority=-3),
        ),
    )
    assert own.tasks == submitted.tasks == {"isr": ResourceRequest(memory_mib=4000, disk_mib=50)}
    assert own.defaults == submitted.defaults == ResourceRequest(memory_mib=3000)
    assert own.sites == submitted.sites == {"farm": ResourceRequest(cpus=4)}


@pytest.mark.parametrize("name", ["real-hsc-drp-rc2", "real-lsstcam-drp"])
def test_the_real_batch_files_are_read_for_their_pipelines(cases: Path, name: str) -> None:
    whole = load_pipeline(cases / "pipelines" / f"{name}.yaml", universe=load_universe())
    clustering = read_clustering(cases / "pipelines" / f"{name}.batch.yaml").of(whole)
    (note,) = clustering.notes
    assert "tasks that the pipeline has not" in note
    assert all(set(c.tasks) <= set(whole.tasks) for c in clustering.clusters)
    asked = clustering.applied(whole).tasks
    memory = {label: task.resources.memory_mib for label, task in asked.items()}
    assert sum(m != Resources().memory_mib for m in memory.values()) > 20
    if name == "real-lsstcam-drp":
        assert (asked["fgcmFitCycle"].resources.cpus, memory["fgcmFitCycle"]) == (60, 480000)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("cluster_: {}\nclusters: {}", ("unknown key 'cluster_'", "batch.yaml:1:1", "'clusters'")),
        ("clusters: {c: {tasks: [a], dimension: [visit]}}", ("unknown key 'dimension'", "'dimensions'")),
        ("cluster: {c: {pipetasks: a, equaldimensions: x}}", ("'equaldimensions'", "'equalDimensions'")),
        ("pipetask: {a: {requestmemory: 5}}", ("unknown key 'requestmemory'", "'requestMemory'")),
        ("clusters: {c: {tasks: [a], dimensions: visit}}", ("no list of names", "batch.yaml:1:")),
        ("clusters: {c: {dimensions: [visit]}}", ("cluster 'c' has no tasks",)),
        ("clusters: {c: {tasks: [a, a]}}", ("'a' twice",)),
        ("clusters: {c: {tasks: [a]}, d: {tasks: [a]}}", ("'a' is in two clusters", "in 'c' already (batch.yaml:1:")),
        ("clusters: {b: {tasks: [a]}}", ("'b' has the name of a task that is not in it",)),
        ("clusters: {c: {tasks: [a], partition_max_jobs: 4}}", ("does not say how to split jobs",)),
        (
            "clusters: {c: {tasks: [a], partition_dimensions: [x], partition_max_jobs: 4, partition_max_size: 2}}",
            ("exactly one of `partition_max_jobs` and `partition_max_size`",),
        ),
        ("cluster: {c: {pipetasks: a, partitionDimensions: x}}", ("`partitionMaxClusters`",)),
        ("clusters: {c: {tasks: [a], equal_dimensions: [visit]}}", ("no list of pairs",)),
        ("cluster: {c: {pipetasks: a, equalDimensions: visit}}", ("no list of pairs", "visit:exposure")),
        ("clusters: {c: {tasks: [a], find_method: sinc}}", ("'sinc'", "'sink'")),
        ("clusters: {c: {tasks: [a], partition_dimensions: [x], partition_max_size: 2, target_s: 9}}", ("two sizes",)),
        ("cluster: {}\nclusterAlgorithm: my.dimension_clusterin", ("unknown way to cluster", "'dimension_clustering'")),
        ("cluster: {c: {pipetasks: a, requestMemory: '{mem}'}}", ("`requestMemory` is no whole number from 1",)),
        ("cluster: {}\nordering: {o: {labels: a}}", ("order 'o' has no dimensions", "batch.yaml:2:12")),
        ("ordering: {o: {dimensions: [visit]}}", ("order 'o' has no labels",)),
        ("ordering: {o: {labels: [a], dimension: [visit]}}", ("unknown key 'dimension'", "'dimensions'")),
        ("cluster: {}\nordering: {o: {labels: a, dimensions: x, implementation: nop}}", ("'nop'", "'noop'")),
        ("cluster: {}\nordering: {o: {labels: a, dimensions: x, ordering_type: desc}}", ("it is sort",)),
        ("ordering: {o: {labels: [aa, a], dimensions: [x]}}", ("there is no task 'aa'", "batch.yaml:1:25")),
        (
            "clusters: {c: {tasks: [a]}}\nordering: {o: {labels: [a], dimensions: [x]}}",
            ("task 'a', which has no jobs of its own", "batch.yaml:2:25", "name 'c' instead"),
        ),
        ("memory_mb: {a: 0}", ("`a` is no whole number from 1", "batch.yaml:1:13")),
        ("store_after_all: perhaps", ("neither true nor false",)),
    ],
)  # fmt: skip
def test_what_is_unknown_or_does_not_fit_is_refused_with_place_and_suggestion(
    text: str, told: tuple[str, ...]
) -> None:
    message = refusal(text, "a", "b")
    assert all(words in message for words in told), message


def test_an_unknown_task_is_refused_with_its_place_and_the_nearest() -> None:
    told = refusal("clusters:\n  c:\n    tasks: [isr, calibrat]\n", "isr", "calibrate")
    assert "there is no task 'calibrat'" in told
    assert "batch.yaml:3:18" in told
    assert "did you mean 'calibrate'?" in told
    assert "there is no task 'warp'" in refusal("memory_mb: {warp: 5}", "isr")


def test_tasks_that_the_selection_left_out_are_no_mistake() -> None:
    known = read(OWN).of(pipeline("isr", left_out=("calibrate",)))
    assert [c.tasks for c in known.clusters] == [("isr",)]
    assert known.notes == ()


def test_a_file_for_several_pipelines_may_name_tasks_that_are_not_here_but_not_misspell_them() -> None:
    shared = read("cluster: {c: {pipetasks: 'isr,warpImage'}, d: {pipetasks: coadd}}")
    known = shared.of(pipeline("isr"))
    assert [c.name for c in known.clusters] == ["c"]
    assert "2 tasks that the pipeline has not: coadd, warpImage" in known.notes[0]
    with pytest.raises(PipelineError, match="did you mean 'warpImages'"):
        shared.of(pipeline("isr", "warpImages"))


def test_names_that_are_alike_and_both_in_the_file_are_no_misspelling() -> None:
    shared = read("cluster: {c: {pipetasks: 'makeImage,makeNImage'}}")
    assert [c.tasks for c in shared.of(pipeline("makeImage")).clusters] == [("makeImage",)]


def test_an_order_reads_the_same_in_both_forms_and_names_jobs_by_cluster_or_task() -> None:
    own = read(
        "clusters: {c: {tasks: [a, b]}}\nordering:\n  o: {labels: [c, d], dimensions: [visit, detector], "
        "equal_dimensions: [[visit, exposure]], find_method: source, blocking: true}\n"
    )
    submitted = read(
        "cluster: {c: {pipetasks: 'a, b'}}\nordering:\n  o: {labels: 'c, d', dimensions: 'visit, detector', "
        "equalDimensions: 'visit:exposure', findDependencyMethod: source, ordering_type: sort, blocking: true}\n"
    )
    (order,) = own.orders
    equal = (("visit", "exposure"),)
    assert order == Order("o", ("c", "d"), ("visit", "detector"), equal, "source", is_blocking=True)
    assert submitted.orders == own.orders
    assert own.of(pipeline("a", "b", "d")).orders == own.orders


def test_jobs_that_only_keep_an_order_wait_for_what_is_done() -> None:
    form = "cluster: {{}}\nordering: {{o: {{labels: a, dimensions: visit, implementation: {}}}}}"
    assert [read(form.format(word)).orders[0].is_blocking for word in ("noop", "group")] == [True, False]


def test_an_order_keeps_the_jobs_that_the_pipeline_has() -> None:
    shared = read(
        "cluster: {c: {pipetasks: 'isr,cal'}, w: {pipetasks: warpImage}}\n"
        "ordering: {o: {labels: 'c,w,coadd', dimensions: visit}, p: {labels: w, dimensions: visit}}"
    )
    known = shared.of(pipeline("isr"))
    assert [(o.name, o.labels) for o in known.orders] == [("o", ("c",))]
    assert "coadd" in known.notes[0]
    left = shared.of(pipeline("isr", left_out=("cal", "warpImage", "coadd")))
    assert [o.labels for o in left.orders] == [("c",)]
    assert left.notes == ()


def test_an_algorithm_without_clusters_makes_none() -> None:
    single = "clusterAlgorithm: lsst.ctrl.bps.quantum_clustering_funcs.single_quantum_clustering\n"
    assert read(single + "cluster: {c: {pipetasks: a}}").clusters == ()


def test_included_files_are_beneath_the_one_that_includes_them(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(
        "requestMemory: 1000\ncluster: {c: {pipetasks: a, dimensions: visit}}\n"
    )
    (tmp_path / "more.yaml").write_text("cluster: {c: {dimensions: detector}}\n")
    (tmp_path / "submit.yaml").write_text(
        "includeConfigs: [base.yaml, more.yaml]\ncluster: {c: {requestCpus: 3}}\nrequestMemory: 5000\n"
    )
    found = read_clustering(tmp_path / "submit.yaml")
    (cluster,) = found.clusters
    assert (cluster.tasks, cluster.dimensions, cluster.resources.cpus) == (("a",), ("detector",), 3)
    assert found.defaults.memory_mib == 5000
    (tmp_path / "base.yaml").write_text("includeConfigs: submit.yaml\n")
    with pytest.raises(PipelineError, match="include each other"):
        read_clustering(tmp_path / "submit.yaml")


def test_what_is_said_of_a_task_goes_before_task_site_and_defaults() -> None:
    node = TaskNode("a", ("visit",), (), resources=Resources(memory_mib=6000))
    whole = Pipeline("for tests", None, {"a": node, "b": TaskNode("b", ("visit",), ())})
    text = (
        "{}defaults: {{memory_mib: 1, cpus: 3, disk_mib: 7}}\nsites: {{farm: {{memory_mib: 2, disk_mib: 9}}}}"
    )
    plain, told = read(text.format("")), read(text.format("resources: {a: {memory_mib: 5}}\n"))
    assert plain.resources(whole)["a"] == Resources(cpus=3, memory_mib=6000, disk_mib=7)
    assert plain.resources(whole, "farm")["a"] == Resources(cpus=3, memory_mib=6000, disk_mib=9)
    assert plain.resources(whole, "farm")["b"] == Resources(cpus=3, memory_mib=2, disk_mib=9)
    assert told.resources(whole)["a"].memory_mib == 5


def test_a_job_needs_the_most_of_its_quanta_at_once_and_the_sum_over_time() -> None:
    small = Resources(1, 1000, 60, 5, 1, 30)
    large = Resources(4, 500, 100, 7, -2, None)
    assert together([(small, 3), (large, 2)]) == Resources(4, 1000, 380, 29, 1, None)
