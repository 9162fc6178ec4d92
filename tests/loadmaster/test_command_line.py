"""The command line: results on stdout, talk on stderr, and an exit code that says how it went."""

import ast
import importlib
import json
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest

from loadmaster import Repo
from loadmaster.cli import COMMANDS

WHERE = "instrument='Cam'"
MAIN = "import sys; from loadmaster.cli import main; sys.exit(main())"
Command = Callable[..., Any]
VERBS = {verb: entry for section in COMMANDS.values() for verb, entry in section.items()}


@pytest.mark.parametrize("verb", VERBS)
def test_the_help_of_all_promises_what_each_command_promises(verb: str) -> None:
    module, promise = VERBS[verb]
    command = getattr(
        importlib.import_module(f"loadmaster.cli.{module}"), f"{verb.replace('-', '_')}_command"
    )
    assert isinstance(command, click.Command)
    assert (command.name, (command.help or "").splitlines()[0]) == (verb, promise)


def test_help_and_a_misspelt_verb_load_nothing_heavy(command: Command) -> None:
    heavy = "{'polars', 'sqlalchemy', 'astropy', 'numpy', 'pydantic', 'networkx', 'rich'}"
    code = (
        "import sys; from loadmaster.cli import main;"
        f"main(['--help']); main(['plna']); sys.exit(str({heavy} & set(sys.modules)))"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert told.stderr.endswith("set()\n")
    assert "First steps:" in told.stdout


def test_a_misspelt_verb_is_wrong_usage_and_answered_with_the_nearest(command: Command) -> None:
    told = command("plna")
    assert told.returncode == 2
    assert "did you mean 'plan'" in told.stderr
    assert not told.stdout


def test_an_error_is_its_four_parts_and_no_traceback(command: Command) -> None:
    told = command("query-collections", "--repo", "nowhere")
    assert told.returncode == 3
    assert [line.split(":")[0].strip() for line in told.stderr.splitlines()] == [
        "error",
        "where",
        "why",
        "do",
    ]


def test_a_survey_goes_from_import_to_answers(command: Command, cases: Path) -> None:
    registry = cases / "registry" / "rc2-small"
    assert command("init", "rc2").returncode == 0
    told = command(
        "import", registry / "rc2_subset-export.yaml", registry / "visits.yaml", "--repo", "rc2", "--json"
    )
    assert told.returncode == 0
    first, second = json.loads(told.stdout)
    assert (first["datasets"], first["collections"]) == (1851, 51)
    assert second["records"]["visit_detector_region"] == 240
    where = "instrument='HSC' AND skymap='hsc_rings_v1' AND tract = 9813 AND patch = 40 AND band = :b"
    told = command(
        *("plan", cases / "pipelines" / "drp-mini.yaml", "-i", "HSC/RC2/defaults", "-o", "u/me/x"),
        *("--where", where, "--bind", "b=i", "--repo", "rc2", "--json", "--save", "x.plan"),
        "--allow-partial-gather",
    )
    assert told.returncode == 0
    expected = json.loads((cases / "expected" / "graphs" / "g10-drp-one-patch-one-band.json").read_text())
    planned = json.loads(told.stdout)
    assert {task["label"]: task["quanta"] for task in planned["summary"]} == expected["n_quanta"]
    assert "loadmaster submit x.plan" in told.stderr
    refused = command("submit", "x.plan", "--repo", "rc2")
    assert refused.returncode == 3
    assert "for planning only" in refused.stderr or "nothing to run" in refused.stderr


def test_a_run_is_done_reported_and_asked_about(survey: Repo, pipeline: Path, command: Command) -> None:
    here = ("--repo", survey.place.folder)
    told = command("run", pipeline, "-i", "Cam/raw", "-o", "u/me/x", "--where", WHERE, "-j", "2", *here)
    assert told.returncode == 0, told.stderr
    assert "9   done" in told.stdout
    assert "copy" in told.stderr  # the plan is shown before
    assert "u/me/x" in told.stderr
    (line,) = json.loads(command("status", "--json", *here).stdout)
    assert (line["status"], line["counts"]["done"]) == ("done", 9)
    found = json.loads(command("query-datasets", "whole", "-i", "u/me/x", "--json", *here).stdout)
    assert [row["exposure"] for row in found] == [1, 2, 3]
    assert command("report", "u/me/x", *here).returncode == 0


def test_a_failed_run_says_what_failed_why_and_what_hangs_on_it(
    survey: Repo, pipeline: Path, command: Command
) -> None:
    pipeline.with_name("broken").touch()
    here = ("--repo", survey.place.folder)
    told = command("run", pipeline, "-i", "Cam/raw", "-o", "u/me/x", "--where", WHERE, "-j", "2", *here)
    assert told.returncode == 1
    assert "6 × copy: code_error" in told.stdout
    assert "3 jobs are blocked by it" in told.stdout
    assert "loadmaster report u/me/x/" in told.stderr
    report = command("report", "u/me/x", "--traceback", *here)
    assert report.returncode == 1
    assert "no light" in report.stdout
    (hint,) = (line for line in report.stdout.splitlines() if "loadmaster log" in line)
    said = command(*hint.partition("loadmaster ")[2].split(), *here)
    assert "no light" in said.stdout
    assert "said nothing" in command("log", "u/me/x", "gather exposure=1", *here).stderr
    (group,) = json.loads(command("report", "u/me/x", "--json", *here).stdout)["failures"]
    assert (group["task"], group["count"], group["n_blocked"]) == ("copy", 6, 3)
    assert group["example"]["data_id"]["instrument"] == "Cam"


def test_no_column_is_cut_short_where_nobody_looks(survey: Repo, command: Command) -> None:
    told = command("query-datasets", "raw", "-i", "Cam/raw", "--repo", survey.place.folder)
    assert "6 datasets" in told.stdout
    assert all(ref["checksum"] in told.stdout for ref in survey.query_datasets("raw", "Cam/raw").to_dicts())


def test_bound_values_are_json_or_text(survey: Repo, command: Command) -> None:
    where = "instrument=:camera AND exposure IN (:some)"
    words = ("--bind", "camera=Cam", "--bind", "some=[1, 3]", "--json", "--repo", survey.place.folder)
    told = command("query-data-ids", "exposure", "--where", where, *words)
    assert [row["exposure"] for row in json.loads(told.stdout)] == [1, 3]
    wrong = command("query-data-ids", "exposure", "--where", where, "--bind", "camera", *words)
    assert wrong.returncode == 2
    assert "NAME=VALUE" in wrong.stderr


def test_a_plan_with_nothing_to_do_says_why_and_is_no_success(
    survey: Repo, pipeline: Path, command: Command
) -> None:
    words = ("-i", "Cam/raw", "-o", "u/me/x", "--where", f"{WHERE} AND exposure=99")
    told = command("plan", pipeline, *words, "--repo", survey.place.folder)
    assert told.returncode == 3
    assert "nothing to do: " in told.stdout
    assert "there would be something without `exposure=99`" in told.stderr
    assert "1 to 3" in told.stderr  # what there is instead


def test_a_suggested_command_is_about_the_same_repository(
    survey: Repo, pipeline: Path, command: Command, tmp_path: Path
) -> None:
    named = tmp_path / "with blank"
    survey.place.folder.rename(named)
    words = ("-i", "Cam/raw", "-o", "u/me/x", "--where", WHERE, "--save", "x.plan")
    told = command("plan", pipeline, *words, "--repo", "with blank")
    suggested = told.stderr.strip().removeprefix("next: loadmaster ")
    assert command(*shlex.split(suggested), "-j", "2").returncode == 0


def test_a_pipeline_is_shown_without_a_repository(pipeline: Path, command: Command) -> None:
    assert "copy" in command("pipeline", "show", pipeline).stdout
    assert command("pipeline", "show", pipeline, "--format", "mermaid").stdout.startswith("flowchart")
    assert "<svg" in command("pipeline", "show", pipeline, "--format", "svg").stdout
    shown = json.loads(command("pipeline", "show", pipeline, "--format", "json").stdout)
    assert [task["label"] for task in shown["tasks"]] == ["copy", "gather"]


def test_the_repository_may_be_named_by_the_environment(
    survey: Repo, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOADMASTER_REPO", str(survey.place.folder))
    assert "Cam/raw" in command("query-collections").stdout


def test_what_has_seen_enough_ends_the_command_quietly(survey: Repo) -> None:
    line = f"{sys.executable} -c '{MAIN}' query-datasets raw -i Cam/raw --repo {survey.place.folder} | true"
    told = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False)
    assert not told.stderr


def test_each_command_is_one_function_long() -> None:
    folder = Path(importlib.import_module("loadmaster.cli").__path__[0])
    for path in folder.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and node.name.endswith("_command"):
                assert len(node.body) <= 8, f"{path.name}: {node.name}"
