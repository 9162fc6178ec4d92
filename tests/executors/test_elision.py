"""Jobs of several quanta, in real runs: what is handed on in memory is never stored, and results are the same."""

import json
from uuid import UUID

import polars as pl
from loadmaster_pipelines.batch import Cluster, Clustering
from toy_survey import RUN, Survey

NEGATED = {1: "-2", 2: "-4", 3: "-6", 4: "-8"}
PAIRS = Clustering((Cluster("pair", ("Double", "Negate"), ("detector",)),))
ELIDED = Clustering(PAIRS.clusters, elide=("doubled",))
COMMANDS = """
description: toy
tasks:
  Double: {class: toy_tasks.Double}
  look:
    command: sh -c 'cat $0 > $1; readlink $0 > $2' {inputs.doubled.path} {outputs.seen.path} {outputs.place.path}
    dimensions: [instrument, detector]
    inputs: {doubled: {dataset_type: doubled, storage_class: Text, dimensions: [instrument, detector]}}
    outputs:
      seen: {dataset_type: seen, storage_class: Text, dimensions: [instrument, detector]}
      place: {dataset_type: place, storage_class: Text, dimensions: [instrument, detector]}
  show:
    command: cp {inputs.seen.path} {outputs.shown.path}
    dimensions: [instrument, detector]
    inputs: {seen: {dataset_type: seen, storage_class: Text, dimensions: [instrument, detector]}}
    outputs: {shown: {dataset_type: shown, storage_class: Text, dimensions: [instrument, detector]}}
"""


def inputs_of(survey: Survey, task: str) -> pl.DataFrame:
    """Return what quanta of a task read: connection, id, dataset_type."""
    with survey.registry.snapshot() as now:
        quanta = now.quanta(RUN).filter(pl.col("task") == task)
        return now.inputs_of(quanta["id"])


def test_quanta_of_one_job_run_in_order_and_come_home_together(survey: Survey) -> None:
    plan = survey.plan("Total", "Negate", clustering=PAIRS)
    found = survey.execute(survey.begin(plan))
    assert found.is_good
    assert found.counts["done"] == plan.n_jobs == 5
    assert survey.contents("negated") == NEGATED
    assert survey.contents("total") == {-1: "20"}
    assert survey.registry.quanta(RUN).height == 9


def test_what_is_elided_is_never_stored_and_results_are_the_same(survey: Survey) -> None:
    plan = survey.plan("Negate", clustering=ELIDED)
    assert survey.execute(survey.begin(plan)).is_good
    assert survey.contents("negated") == NEGATED
    assert survey.contents("doubled_note").keys() == NEGATED.keys()
    assert not [name for name in survey.files_of_run() if "doubled/" in name]
    assert len(survey.files_of_run()) == 8
    assert survey.staged() == []


def test_provenance_names_what_was_elided_and_leads_past_it(survey: Survey) -> None:
    plan = survey.plan("Negate", clustering=ELIDED)
    survey.execute(survey.begin(plan))
    planned = {d.id.bytes for job in plan.jobs() for q in job.quanta for d in q.outputs.get("doubled", ())}
    read = inputs_of(survey, "Negate").sort("connection")
    assert read["connection"].to_list() == ["doubled"] * 4 + ["doubled via Double.number"] * 4
    assert set(read["id"][:4]) == planned
    assert read["dataset_type"].to_list() == [None] * 4 + ["number"] * 4
    negated = next(q.outputs["negated"][0] for job in plan.jobs() for q in job.quanta if q.task == "Negate")
    types = survey.registry.lineage(negated.id)["dataset_type"].to_list()
    assert types == ["number", None]
    (raw,) = survey.registry.lineage(negated.id).filter(pl.col("dataset_type") == "number")["id"]
    downstream = survey.registry.lineage(UUID(bytes=raw), upstream=False)["dataset_type"]
    assert sorted(downstream) == ["doubled_note", "negated"]


def test_a_program_reads_what_is_in_memory_by_its_path(survey: Survey) -> None:
    cluster = Cluster("all", ("Double", "look", "show"), ("detector",))
    plan = survey.plan_yaml(COMMANDS, clustering=Clustering((cluster,), elide=("doubled", "seen")))
    assert survey.execute(survey.begin(plan)).is_good
    assert survey.contents("shown") == {1: "2", 2: "4", 3: "6", 4: "8"}
    assert all(place.startswith("/proc/") for place in survey.contents("place").values())
    assert len(survey.files_of_run()) == 4 * 3  # note, place, shown


def test_what_is_in_memory_is_there_to_be_read_only(survey: Survey) -> None:
    cluster = Cluster("all", ("Double", "look", "show"), ("detector",))
    spoiling = COMMANDS.replace("readlink $0", "echo more >> $0; readlink $0")
    plan = survey.plan_yaml(spoiling, clustering=Clustering((cluster,), elide=("doubled", "seen")))
    found = survey.execute(survey.begin(plan))
    assert found.counts["failed"] == 4
    assert {f.task for f in found.failures} == {"look"}
    assert survey.files_of_run() == set()


def test_after_a_quantum_that_fails_those_that_need_it_are_not_run_and_other_jobs_are(survey: Survey) -> None:
    plan = survey.plan("Negate", config={"raises": "[2]"}, clustering=ELIDED)
    found = survey.execute(survey.begin(plan))
    assert found.counts["failed"] == 1
    assert found.counts["done"] == 3
    assert [(f.task, f.count) for f in found.failures] == [("Double", 1)]
    assert survey.contents("negated") == {k: v for k, v in NEGATED.items() if k != 2}
    assert set(survey.registry.quanta(RUN)["status"]) == {"succeeded"}


def test_an_elided_dataset_that_was_not_made_leaves_its_readers_without_work(survey: Survey) -> None:
    plan = survey.plan("Negate", config={"has_no_work": "[2]"}, clustering=ELIDED)
    found = survey.execute(survey.begin(plan))
    assert found.is_good
    assert found.counts["done"] == 4
    assert 2 not in survey.contents("negated")
    assert inputs_of(survey, "Negate").height == 6
    rows = survey.registry.quanta(RUN).filter(pl.col("task") == "Negate")
    idle = [json.loads(d)["detector"] for d, s in rows.select("data_id", "status").rows() if s == "no_work"]
    assert idle == [2]


def test_an_elided_type_that_another_job_reads_is_stored_after_all(survey: Survey) -> None:
    clustering = Clustering(ELIDED.clusters, elide=("doubled",), store_after_all=True)
    plan = survey.plan("Total", "Negate", clustering=clustering)
    (note,) = plan.header.jobs.notes
    assert "doubled: 1 quanta of Total" in note
    assert survey.execute(survey.begin(plan)).is_good
    assert survey.contents("total") == {-1: "20"}
    assert survey.contents("doubled") == {1: "2", 2: "4", 3: "6", 4: "8"}
