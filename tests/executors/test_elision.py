"""Jobs of several quanta, in real runs: what is handed on in memory is never stored, and results are the same."""

import json
from dataclasses import replace
from uuid import UUID

import polars as pl
from loadmaster_executors.run import RunFolder
from loadmaster_pipelines.batch import Cluster, Clustering
from loadmaster_pipelines.loader import load_pipeline
from loadmaster_planner.plan import Plan
from loadmaster_planner.planner import make_plan
from loadmaster_planner.request import Request
from toy_survey import RAWS, RUN, Survey

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


def handing_on(*tasks: str) -> str:
    """Return a pipeline: half, whole and last each copy what the one before made, other copies what half made."""
    reads = {"half": "number", "whole": "half", "last": "whole", "other": "half"}
    form = (
        "  {0}:\n    command: cp {{inputs.{1}.path}} {{outputs.{0}.path}}\n    dimensions: [instrument, detector]\n"
        "    inputs: {{{1}: {{dataset_type: {1}, storage_class: Text, dimensions: [instrument, detector]}}}}\n"
        "    outputs: {{{0}: {{dataset_type: {0}, storage_class: Text, dimensions: [instrument, detector]}}}}\n"
    )
    return "description: toy\ntasks:\n" + "".join(form.format(task, reads[task]) for task in tasks)


def handed_on(*tasks: str) -> Clustering:
    elided = tuple(task for task in tasks if task in ("half", "whole"))
    return Clustering((Cluster("all", tasks, ("detector",)),), elide=elided)


def again(survey: Survey, text: str, clustering: Clustering) -> Plan:
    path = survey.folder / "pipeline.yaml"
    path.write_text(text)
    pipeline = load_pipeline(path, universe=survey.registry.universe)
    request = Request((RAWS,), "u/me/again", skip_existing="exists", skip_existing_in=(RUN,))
    return make_plan(survey.registry, pipeline, request, clustering)


def planned(plan: Plan) -> dict[str, list[int]]:
    return {t.label: plan.quanta(t.label)["detector"].to_list() for t in plan.header.tasks if t.quanta}


def test_what_only_hands_on_is_done_once_all_its_readers_are(survey: Survey) -> None:
    tasks = ("half", "whole", "last")
    assert survey.execute(
        survey.begin(survey.plan_yaml(handing_on(*tasks), clustering=handed_on(*tasks)))
    ).is_good
    plan = again(survey, handing_on(*tasks), handed_on(*tasks))
    assert planned(plan) == {}
    assert {line.label: line.done for line in plan.summary} == dict.fromkeys(tasks, 4)


def test_what_a_reader_needs_anew_is_made_again_with_it_and_nothing_else(survey: Survey) -> None:
    tasks = ("half", "whole", "last")
    survey.execute(survey.begin(survey.plan_yaml(handing_on(*tasks), clustering=handed_on(*tasks))))
    more = (*tasks, "other")
    plan = again(survey, handing_on(*more), handed_on(*more))
    every = [1, 2, 3, 4]
    assert planned(plan) == {"half": every, "other": every}
    assert survey.execute(RunFolder.create(survey.folder / "again", plan)).is_good
    assert survey.contents("other", "u/me/again") == {1: "1", 2: "2", 3: "3", 4: "4"}


def test_where_one_job_is_left_all_of_it_is_planned_and_no_other(survey: Survey) -> None:
    tasks = ("half", "whole", "last")
    path = survey.folder / "files" / "raw" / "4.txt"
    path.rename(path.with_suffix(".hidden"))
    first = survey.plan_yaml(handing_on(*tasks), clustering=handed_on(*tasks))
    assert survey.execute(survey.begin(first)).counts["failed"] == 1
    path.with_suffix(".hidden").rename(path)
    assert planned(again(survey, handing_on(*tasks), handed_on(*tasks))) == {task: [4] for task in tasks}


def test_what_was_handed_on_and_is_now_to_be_stored_is_made(survey: Survey) -> None:
    tasks = ("half", "whole", "last")
    survey.execute(survey.begin(survey.plan_yaml(handing_on(*tasks), clustering=handed_on(*tasks))))
    stored = replace(handed_on(*tasks), elide=("half",))
    assert planned(again(survey, handing_on(*tasks), stored)) == {
        task: [1, 2, 3, 4] for task in ("half", "whole")
    }


def test_a_maker_that_stored_something_too_runs_again_for_a_new_reader(survey: Survey) -> None:
    double = (
        "description: toy\ntasks:\n  Double: {class: toy_tasks.Double}\n  Negate: {class: toy_tasks.Negate}\n"
    )
    survey.execute(survey.begin(survey.plan("Negate", clustering=ELIDED)))
    assert planned(again(survey, double, ELIDED)) == {}
    look = COMMANDS.partition("  Double: {class: toy_tasks.Double}\n")[2].partition("  show:")[0]
    wider = Clustering((Cluster("pair", ("Double", "Negate", "look"), ("detector",)),), elide=("doubled",))
    every = [1, 2, 3, 4]
    assert planned(again(survey, double + look, wider)) == {"Double": every, "look": every}
