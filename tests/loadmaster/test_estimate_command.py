"""`loadmaster estimate`: what a plan costs, from the runs of the repository, and a refusal over a limit."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from loadmaster import Repo

WHERE = "instrument='Cam'"
Command = Callable[..., Any]


@pytest.fixture
def plan(survey: Repo, pipeline: Path, tmp_path: Path) -> Path:
    made = survey.plan(pipeline, inputs="Cam/raw", output="u/me/y", where=WHERE)
    made.write(tmp_path / "y.plan")
    return tmp_path / "y.plan"


def run(survey: Repo, pipeline: Path, command: Command) -> None:
    here = ("--repo", survey.place.folder)
    told = command("run", pipeline, "-i", "Cam/raw", "-o", "u/me/x", "--where", WHERE, "-j", "2", *here)
    assert told.returncode == 0, told.stderr


def test_without_a_repository_what_nobody_knows_is_said_to_be_unknown(plan: Path, command: Command) -> None:
    told = command("estimate", plan, "--slots", "2")
    assert told.returncode == 0
    assert "there is no repository here to learn from" in told.stderr
    assert "run time unknown, and not in the figures: copy, gather" in told.stdout
    lines = [line.split() for line in told.stdout.splitlines()]
    assert ["core", "hours", "unknown", "unknown"] in [words[:4] for words in lines]
    facts = json.loads(command("estimate", plan, "--json").stdout)
    assert facts["core_hours"] == {"value": None, "unknown": 9, "parts": 9}
    assert facts["bytes_in"] == {"value": 6 * 22, "unknown": 0, "parts": 6}


def test_a_repository_that_is_named_must_be_there(plan: Path, command: Command) -> None:
    assert command("estimate", plan, "--repo", "nowhere").returncode == 3


def test_earlier_runs_tell_run_times_memory_and_sizes(
    survey: Repo, pipeline: Path, plan: Path, command: Command
) -> None:
    run(survey, pipeline, command)
    here = ("--repo", survey.place.folder)
    facts = json.loads(command("estimate", plan, "--slots", "3", "--json", *here).stdout)
    assert facts["runs"] == [Repo(survey.place.folder).open_run("u/me/x").name]
    assert {t["label"]: (t["run_time_source"], t["run_time_s"]["n"]) for t in facts["tasks"]} == {
        "copy": ("history", 6),
        "gather": ("history", 3),
    }
    assert all(t["memory_source"] == "history" and t["memory_mib"] > 1 for t in facts["tasks"])
    assert facts["bytes_out"] == {"value": 6 * 22 + 3 * 44, "unknown": 0, "parts": 9}
    assert facts["wall_s"]["value"] >= facts["critical_path_s"]["value"] > 0
    text = command("estimate", plan, *here).stdout
    assert "history of 6" in text
    assert "history: u/me/x/" in text


def test_a_run_that_cannot_be_read_is_passed_over(
    survey: Repo, pipeline: Path, plan: Path, command: Command
) -> None:
    run(survey, pipeline, command)
    (file,) = survey.place.runs.rglob("plan")
    file.write_bytes(b"gone")
    told = command("estimate", plan, "--repo", survey.place.folder)
    assert told.returncode == 0
    assert "there are no earlier runs of these tasks" in told.stdout


@pytest.mark.parametrize(
    ("limit", "code"),
    [
        (("--max-bytes", "1KB"), 0),
        (("--max-bytes", "0.1KiB"), 3),
        (("--max-core-hours", "1"), 0),
        (("--max-core-hours", "0"), 3),
        (("--max-bytes", "some"), 2),
    ],
)
def test_a_plan_over_a_limit_is_refused(
    survey: Repo, pipeline: Path, plan: Path, command: Command, limit: tuple[str, ...], code: int
) -> None:
    run(survey, pipeline, command)
    told = command("estimate", plan, *limit, "--repo", survey.place.folder)
    assert told.returncode == code, told.stderr
    assert ("the plan is over its limits" in told.stderr) == (code == 3)
