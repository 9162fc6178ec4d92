"""`loadmaster show`: a plan file says all that is in it, without a repository."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import networkx as nx
import polars as pl
import pytest

from loadmaster import Repo

Command = Callable[..., Any]


@pytest.fixture
def plan(survey: Repo, pipeline: Path, tmp_path: Path) -> Path:
    """Return the file of a plan of six copies and three gathers; its repository is out of reach."""
    made = survey.plan(
        pipeline, inputs="Cam/raw", output="u/me/x", where="instrument='Cam'", output_run="u/me/x/1"
    )
    made.write(tmp_path / "x.plan")
    return tmp_path / "x.plan"


def test_a_plan_is_shown_with_its_tasks_and_dataset_types(plan: Path, command: Command) -> None:
    told = command("show", plan)
    assert told.returncode == 0
    lines = [line.split() for line in told.stdout.splitlines()]
    assert ["copy", "6"] in [words[:2] for words in lines]
    assert ["frame", "0", "6", "instrument,", "detector,", "exposure", "Text"] in lines
    facts = json.loads(command("show", plan, "--format", "json").stdout)
    assert (facts["output_run"], facts["n_jobs"], facts["inputs"]) == ("u/me/x/1", 9, ["Cam/raw"])
    assert f"digest: {facts['digest']}" in told.stdout


def test_the_quanta_of_a_task_come_page_by_page(plan: Path, command: Command) -> None:
    told = command("show", plan, "--task", "copy", "--limit", "4")
    assert "1 to 4 of 6 quanta" in told.stdout
    assert "--offset 4" in told.stdout
    pages = [
        json.loads(command("show", plan, "--task", "copy", "--format", "json", "--limit", "4", *more).stdout)[
            "copy"
        ]
        for more in ((), ("--offset", "4"))
    ]
    assert [row["job"] for page in pages for row in page] == list(range(6))
    assert pages[1][0]["instrument"] == "Cam"


def test_a_quantum_is_shown_by_its_data_id_its_uuid_and_its_job(plan: Path, command: Command) -> None:
    (first, *_) = json.loads(command("show", plan, "--task", "gather", "--format", "json").stdout)["gather"]
    names = (f"gather exposure={first['exposure']}", first["id"], str(first["job"]))
    shown = [
        json.loads(command("show", plan, "--quantum", name, "--format", "json").stdout) for name in names
    ]
    assert shown[0] == shown[1] == shown[2]
    assert [d["data_id"]["detector"] for d in shown[0]["inputs"]["copies"]] == [0, 1]
    text = command("show", plan, "--quantum", names[0]).stdout
    for dataset in (*shown[0]["inputs"]["copies"], *shown[0]["outputs"]["whole"]):
        assert dataset["id"] in text
        assert f"to be made: {dataset['path']}" in text
    assert f"quantum {first['id']} of job {first['job']}, which asks for cpus 1" in text


def test_an_input_that_exists_is_shown_with_place_size_and_checksum(plan: Path, command: Command) -> None:
    job = json.loads(command("show", plan, "--job", "0", "--format", "json").stdout)
    (raw,) = job["quanta"][0]["inputs"]["raw"]
    text = command("show", plan, "--job", "0").stdout
    assert raw["size_bytes"] == len("exposure 1 detector 0\n")
    assert f"{raw['size_bytes']} B" in text
    assert raw["checksum"] in text
    assert raw["url"] in text


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--quantum", "gather exposure=7"), "no quantum of gather has exposure=7"),
        (("--quantum", "gathr exposure=1"), "did you mean 'gather'"),
        (("--task", "gathr"), "did you mean 'gather'"),
        (("--job", "9"), "it has 9 jobs, counted from 0"),
        (("--step", "frames"), "its pipeline declares no steps"),
    ],
)
def test_what_is_not_there_is_refused_with_words(
    plan: Path, command: Command, words: tuple[str, ...], reason: str
) -> None:
    told = command("show", plan, *words)
    assert (told.returncode, told.stdout) == (3, "")
    assert reason in told.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("--task", "copy", "--job", "1"),
        ("--level", "task"),
        ("--format", "parquet"),
        ("--folder", "out"),
        ("--format", "parquet", "--folder", "out", "--job", "1"),
        ("--step", "frames", "--task", "copy"),
        ("--step", "frames", "--format", "dot"),
    ],
)
def test_options_that_do_not_go_together_are_wrong_usage(
    plan: Path, command: Command, words: tuple[str, ...]
) -> None:
    assert command("show", plan, *words).returncode == 2


def test_graphs_are_of_quanta_where_these_are_few_and_of_tasks_where_one_says_so(
    plan: Path, command: Command
) -> None:
    graph = nx.parse_graphml(command("show", plan, "--format", "graphml").stdout)
    kinds = [facts["kind"] for facts in graph.nodes.values()]
    assert (kinds.count("quantum"), kinds.count("dataset")) == (9, 6 + 6 + 3)
    assert graph.number_of_edges() == 6 + 6 + 6 + 3
    assert command("show", plan, "--format", "dot").stdout.count(" -> ") == 21
    told = command("show", plan, "--format", "mermaid", "--level", "task").stdout
    assert told.count("-->|6|") == 3
    one = command("show", plan, "--format", "mermaid", "--task", "gather").stdout
    assert one.count("-->") == 6 + 3


def test_parquet_tables_are_written_to_a_new_folder(plan: Path, command: Command, tmp_path: Path) -> None:
    assert command("show", plan, "--format", "parquet", "--folder", "out").returncode == 0
    assert pl.read_parquet(tmp_path / "out" / "quanta" / "copy").height == 6
    again = command("show", plan, "--format", "parquet", "--folder", "out")
    assert again.returncode == 3
    assert "is there already" in again.stderr


STEPS = """
subsets:
  frames: {subset: [copy], description: each frame}
  exposures: {subset: [gather], description: each exposure}
steps:
  - {label: frames, dimensions: [exposure, detector]}
  - {label: exposures, dimensions: [exposure]}
"""
ORDERED = """
clusters:
  pair: {tasks: [copy], dimensions: [exposure]}
ordering:
  nights: {labels: [pair, gather], dimensions: [exposure], blocking: true}
"""


@pytest.fixture
def stepped(survey: Repo, pipeline: Path, tmp_path: Path) -> Path:
    """Return the file of a plan with two steps, whose jobs go exposure by exposure."""
    pipeline.write_text(pipeline.read_text() + STEPS)
    (tmp_path / "batch.yaml").write_text(ORDERED)
    asked = {"inputs": "Cam/raw", "output": "u/me/x", "where": "instrument='Cam'"}
    made = survey.plan(pipeline, **asked, clusters=tmp_path / "batch.yaml")
    made.write(tmp_path / "stepped.plan")
    return tmp_path / "stepped.plan"


def test_a_step_is_shown_shard_by_shard(stepped: Path, command: Command) -> None:
    told = json.loads(command("show", stepped, "--step", "exposures", "--json").stdout)
    assert told["n_shards"] == 3
    assert told["shards"] == [{"exposure": e, "quanta": 1, "jobs": 1} for e in (1, 2, 3)]
    text = command("show", stepped, "--step", "frames", "--limit", "2").stdout
    assert "1 to 2 of 3 shards" in text
    assert "--offset 2" in text
    assert "jobs that have several" in text, "a job of the step has all detectors of an exposure"
    assert "did you mean 'frames'" in command("show", stepped, "--step", "frame").stderr


def test_an_order_is_shown_with_its_groups(stepped: Path, command: Command) -> None:
    text = command("show", stepped).stdout
    assert "order nights: 6 jobs of pair, gather in 3 groups by exposure, one after the other" in text
    assert "a failure in one keeps those after it from running" in text
    assert "group 2 of 3 of order nights: exposure=2" in command("show", stepped, "--job", "1").stdout
    job = json.loads(command("show", stepped, "--job", "4", "--json").stdout)
    assert [(group["order"], group["number"]) for group in job["groups"]] == [("nights", 2)]


def test_a_file_can_be_verified_and_damage_is_told(plan: Path, command: Command) -> None:
    assert "is as it was written" in command("show", plan, "--verify").stderr
    content = bytearray(plan.read_bytes())
    content[len(content) // 2] ^= 1
    plan.write_bytes(content)
    told = command("show", plan, "--verify")
    assert told.returncode == 3
    assert "the plan file is damaged" in told.stderr
