"""What can be asked of `loadmaster plan`, and what it answers."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from loadmaster import Repo

WHERE = "instrument='Cam'"
Ask = Callable[..., Any]


@pytest.fixture
def ask(survey: Repo, pipeline: Path, command: Any) -> Ask:
    """Return what runs `loadmaster plan` with more words."""

    def run(*words: str | Path, where: str = WHERE) -> Any:
        request = ("plan", pipeline, "-i", "Cam/raw", "-o", "u/me/x", "--where", where)
        return command(*request, "--repo", survey.place.folder, *words)

    return run


def quanta(told: Any) -> dict[str, int]:
    assert told.returncode == 0, told.stderr
    return {task["label"]: task["quanta"] for task in json.loads(told.stdout)["summary"]}


def test_a_restriction_that_trims_a_gather_is_refused_with_how_much_and_what_to_type(ask: Ask) -> None:
    where = f"{WHERE} AND detector=0"
    told = ask(where=where)
    assert told.returncode == 3
    assert "3 quanta of gather get 3 of 6 'frame'" in told.stderr
    assert "--target" in told.stderr
    assert "--allow-partial-gather" in told.stderr
    assert quanta(ask("--json", "--allow-partial-gather", where=where)) == {"copy": 3, "gather": 3}


def test_a_target_brings_all_that_it_needs_and_nothing_else(ask: Ask) -> None:
    assert quanta(ask("--json", "--target", "exposure IN (1, 3)")) == {"copy": 4, "gather": 2}
    only = ask("--json", "--target", "exposure=1 AND detector=0", "--target-type", "frame")
    assert quanta(only) == {"copy": 1, "gather": 0}
    wrong = ask("--target", "exposure=1", "--target-type", "fram")
    assert wrong.returncode == 3
    assert "none of them makes 'fram'" in wrong.stderr


def test_a_table_admits_only_its_data_ids(ask: Ask, tmp_path: Path) -> None:
    (tmp_path / "good.csv").write_text("exposure\n1\n2\n")
    assert quanta(ask("--json", "--data-id-table", "good.csv")) == {"copy": 4, "gather": 2}
    (tmp_path / "bad.csv").write_text("exposur\n1\n")
    told = ask("--data-id-table", "bad.csv")
    assert told.returncode == 3
    assert "did you mean 'exposure'" in told.stderr


def test_a_flagged_observation_drops_out_unless_it_is_included(ask: Ask, survey: Repo, command: Any) -> None:
    here = ("--repo", survey.place.folder)
    assert command("flag", "exposure=2", "--reason", "clouds", *here).returncode == 0
    told = ask()
    assert "flagged, and left out: 1 exposure" in told.stdout
    assert quanta(ask("--json")) == {"copy": 4, "gather": 2}
    assert quanta(ask("--json", "--include-flagged")) == {"copy": 6, "gather": 3}
    why = ask("--why-not", "copy exposure=2 detector=1")
    assert "clouds" in why.stdout
    assert command("unflag", "exposure=2", *here).returncode == 0
    assert quanta(ask("--json")) == {"copy": 6, "gather": 3}


def test_what_takes_data_away_is_told_task_by_task(ask: Ask) -> None:
    told = ask("--explain", where=f"{WHERE} AND exposure > 1")
    assert told.returncode == 0
    assert "exposure > 1" in told.stdout
    told = ask("--explain", where="instrument='Can'")
    assert told.returncode == 3
    assert "there is Cam" in told.stdout or "'Cam'" in told.stdout
    assert ask("--explain", "--why-not", "copy exposure=1").returncode == 2


def test_jobs_hold_what_a_batch_file_puts_together(ask: Ask, tmp_path: Path) -> None:
    (tmp_path / "batch.yaml").write_text(
        "clusters:\n  whole: {tasks: [copy, gather], dimensions: [exposure]}\n"
    )
    words = ("--clusters", "batch.yaml", "--elide", "frame")
    assert json.loads(ask("--json", *words).stdout)["n_jobs"] == 3
    refused = ask("--elide", "frame")
    assert refused.returncode == 3
    assert "frame cannot be handed on in memory" in refused.stderr
    assert json.loads(ask("--json", "--elide", "frame", "--store-after-all").stdout)["n_jobs"] == 9


def test_a_plan_that_may_cost_too_much_is_refused(ask: Ask) -> None:
    told = ask("--max-bytes", "1")
    assert told.returncode == 3
    assert "bytes" in told.stderr
    assert ask("--max-core-hours", "0.001").returncode == 3  # nobody knows how long the tasks take


def test_what_is_done_is_left_out_and_nothing_left_is_a_success(
    ask: Ask, survey: Repo, pipeline: Path, command: Any
) -> None:
    here = ("--repo", survey.place.folder)
    run = ("run", pipeline, "-i", "Cam/raw", "-o", "u/me/x", "--where", f"{WHERE} AND exposure < 3")
    assert command(*run, *here).returncode == 0
    assert quanta(ask("--json", "--skip-existing", "exists")) == {"copy": 2, "gather": 1}
    done = ask("--skip-existing", "exists", where=f"{WHERE} AND exposure < 3")
    assert done.returncode == 0, done.stderr
    assert "4" in done.stdout
