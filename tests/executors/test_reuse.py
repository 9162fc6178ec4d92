"""What is planned again after one thing changed: by existence, by provenance, by content. Real runs, real files."""

import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from uuid import UUID

import polars as pl
import pytest
from loadmaster_executors.run import RunFolder
from loadmaster_pipelines.loader import load_pipeline
from loadmaster_pipelines.pipeline import Pipeline
from loadmaster_planner.plan import Plan
from loadmaster_planner.planner import make_plan
from loadmaster_planner.request import Request
from loadmaster_registry.records import Collection, CollectionType
from loadmaster_staging.checksum import measure
from toy_survey import RAWS, Survey

FIRST, SECOND, THIRD = "u/me/1", "u/me/2", "u/me/3"
POLICIES = ("exists", "provenance", "content")
COPY = "cp {inputs.number.path} {outputs.copied.path}"
SORT = "sort -o {outputs.sorted.path} {inputs.copied.path}"


def document(*, copy: str = COPY, sort_config: str = "{}", environment: str = "{}") -> str:
    """A copy for each detector, and one task that gathers the copies."""
    return f"""
description: toy
tasks:
  copy:
    dimensions: [instrument, detector]
    command: "{copy}"
    inputs: {{number: {{dataset_type: number, storage_class: Text, dimensions: [instrument, detector]}}}}
    outputs: {{copied: {{dataset_type: copied, storage_class: Text, dimensions: [instrument, detector]}}}}
  sort:
    dimensions: [instrument]
    command: "{SORT}"
    config: {sort_config}
    environment: {environment}
    inputs:
      copied: {{dataset_type: copied, storage_class: Text, dimensions: [instrument, detector], multiple: true}}
    outputs: {{sorted: {{dataset_type: sorted, storage_class: Text, dimensions: [instrument]}}}}
"""


def plan(
    survey: Survey,
    text: str,
    run: str,
    policy: str | None = None,
    within: Sequence[str] = (FIRST,),
    inputs: Sequence[str] = (RAWS,),
) -> Plan:
    searched = tuple(within) if policy else ()
    request = Request(tuple(inputs), run, skip_existing=policy, skip_existing_in=searched)  # type: ignore[arg-type]
    return make_plan(survey.registry, loaded(survey, text), request)


def loaded(survey: Survey, text: str) -> Pipeline:
    path = survey.folder / "pipeline.yaml"
    path.write_text(text)
    return load_pipeline(path, universe=survey.registry.universe)


def run(survey: Survey, made: Plan) -> None:
    folder = RunFolder.create(survey.folder / "runs" / made.output_run.replace("/", "-"), made)
    with survey.registry.transaction() as t:
        for dataset_type in made.dataset_types:
            t.register_dataset_type(dataset_type)
        t.register_collection(Collection(made.output_run, CollectionType.RUN))
    survey.execute(folder)
    folder.close()


def planned(made: Plan) -> dict[str, list[int]]:
    """Return the detectors of each task's quanta; -1 for those that have none."""
    found: dict[str, list[int]] = {}
    for job in made.jobs():
        for quantum in job.quanta:
            found.setdefault(quantum.task, []).append(int(quantum.data_id.get("detector", -1)))
    return found


def ingest(survey: Survey, collection: str, contents: dict[int, str]) -> None:
    """Register numbers of some detectors, as other datasets, in a run that is searched first."""
    rows = []
    for detector, content in contents.items():
        path = survey.folder / "files" / f"{collection}/{detector}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        found = measure(str(path))
        url = f"{collection}/{detector}.txt"
        rows.append(("Toy", detector, UUID(int=1000 + detector).bytes, url, found.size_bytes, found.checksum))
    columns = ("instrument", "detector", "id", "url", "size_bytes", "checksum")
    with survey.registry.transaction() as t:
        t.register_collection(Collection(collection, CollectionType.RUN))
        t.insert_datasets("number", collection, pl.DataFrame(rows, schema=columns, orient="row"))


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a survey in which everything was run once."""
    folder = tmp_path_factory.mktemp("original")
    survey = Survey.create(folder, range(1, 5))
    run(survey, plan(survey, document(), FIRST))
    survey.registry.close()
    return folder


@pytest.fixture
def done(original: Path, tmp_path: Path) -> Iterator[Survey]:
    """Return a copy of it."""
    shutil.copytree(original, tmp_path / "copy")
    (tmp_path / "copy" / "backbone").write_text(str(tmp_path / "copy" / "files"))
    survey = Survey.open(tmp_path / "copy")
    yield survey
    survey.registry.close()


def by_policy(*expected: dict[str, list[int]]) -> list[tuple[str, dict[str, list[int]]]]:
    return list(zip(POLICIES, expected, strict=True))


EVERYTHING = {"copy": [1, 2, 3, 4], "sort": [-1]}


@pytest.mark.parametrize("policy", POLICIES)
def test_nothing_is_planned_where_nothing_changed(done: Survey, policy: str) -> None:
    again = plan(done, document(), SECOND, policy)
    assert planned(again) == {}
    assert [(t.label, t.done) for t in again.summary] == [("copy", 4), ("sort", 1)]


@pytest.mark.parametrize(("policy", "expected"), by_policy({}, EVERYTHING, EVERYTHING))
def test_other_code_is_run_with_all_that_reads_its_outputs(
    done: Survey, policy: str, expected: dict[str, list[int]]
) -> None:
    assert planned(plan(done, document(copy=COPY.replace("cp ", "cp -p ")), SECOND, policy)) == expected


@pytest.mark.parametrize(("policy", "expected"), by_policy({}, {"sort": [-1]}, {"sort": [-1]}))
@pytest.mark.parametrize("change", [{"sort_config": "{x: 1}"}, {"environment": '{tool: "9"}'}])
def test_another_configuration_or_environment_is_run(
    done: Survey, change: dict[str, str], policy: str, expected: dict[str, list[int]]
) -> None:
    assert planned(plan(done, document(**change), SECOND, policy)) == expected


@pytest.mark.parametrize(("policy", "expected"), by_policy({}, {"copy": [2], "sort": [-1]}, {}))
def test_another_dataset_with_the_same_bytes_matters_for_provenance_only(
    done: Survey, policy: str, expected: dict[str, list[int]]
) -> None:
    ingest(done, "toy/again", {2: "2"})
    made = plan(done, document(), SECOND, policy, inputs=("toy/again", RAWS))
    assert planned(made) == expected


@pytest.mark.parametrize("policy", ["provenance", "content"])
def test_what_reads_other_bytes_is_run_and_reads_what_is_reused(done: Survey, policy: str) -> None:
    ingest(done, "toy/again", {2: "7"})
    made = plan(done, document(), SECOND, policy, inputs=("toy/again", RAWS))
    assert planned(made) == {"copy": [2], "sort": [-1]}
    assert made.header.reused == {"copied": 3}
    sort = made.job(made.n_jobs - 1).quanta[0]
    assert sorted((d.data_id["detector"], d.exists) for d in sort.inputs["copied"]) == [
        (1, True), (2, False), (3, True), (4, True)
    ]  # fmt: skip
    run(done, made)
    assert done.contents("sorted", SECOND) == {-1: "1\n3\n4\n7\n"}


def test_what_gave_the_same_bytes_with_other_code_stops_the_rest_from_running_again(done: Survey) -> None:
    other = document(copy=COPY.replace("cp ", "cp -p "))
    run(done, make_plan(done.registry, loaded(done, other).subset(["copy"]), Request((RAWS,), SECOND)))
    assert planned(plan(done, other, THIRD, "provenance", (SECOND, FIRST))) == {"sort": [-1]}
    cut_off = plan(done, other, THIRD, "content", (SECOND, FIRST))
    assert planned(cut_off) == {}
    assert runs_of(done, cut_off.reused_ids()) == {SECOND: 4, FIRST: 1}


def runs_of(survey: Survey, ids: Iterable[UUID]) -> dict[str, int]:
    found: dict[str, int] = {}
    for id in ids:
        name = survey.registry.find(id).run
        found[name] = found.get(name, 0) + 1
    return found


@pytest.mark.parametrize("policy", POLICIES)
def test_a_quantum_that_failed_is_run_again_with_what_waits_for_it(survey: Survey, policy: str) -> None:
    run(survey, survey.plan("Negate", config={"raises": [2]}, run=FIRST))
    assert planned(plan(survey, toy("{raises: [2]}"), SECOND, policy)) == {"Double": [2], "Negate": [2]}


@pytest.mark.parametrize("policy", POLICIES)
def test_a_quantum_without_work_counts_as_done_and_so_does_what_got_nothing_from_it(
    survey: Survey, policy: str
) -> None:
    run(survey, survey.plan("Negate", config={"has_no_work": [2]}, run=FIRST))
    assert planned(plan(survey, toy("{has_no_work: [2]}"), SECOND, policy)) == {}


@pytest.mark.parametrize("policy", POLICIES)
def test_a_quantum_that_left_an_output_out_is_run_again(survey: Survey, policy: str) -> None:
    run(survey, survey.plan(config={"omits": [3]}, run=FIRST))
    assert planned(plan(survey, toy("{omits: [3]}", "Double"), SECOND, policy)) == {"Double": [3]}


def toy(config: str, *labels: str) -> str:
    tasks = {
        "Double": f"{{class: toy_tasks.Double, config: {config}}}",
        "Negate": "{class: toy_tasks.Negate}",
    }
    lines = [f"  {label}: {tasks[label]}" for label in labels or tasks]
    return "\n".join(("description: toy", "tasks:", *lines, ""))
