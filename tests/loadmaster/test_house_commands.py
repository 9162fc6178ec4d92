"""Keeping house by commands: what an operator types, reads, and gets as exit code."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from loadmaster_registry.errors import NotFound

from loadmaster import Repo

Command = Callable[..., Any]


@pytest.fixture
def asked(survey: Repo, command: Command) -> Command:
    return lambda *words: command(*words, "--repo", survey.place.folder)


def raw_id(survey: Repo, exposure: int = 1) -> str:
    found = survey.find_dataset("raw", collections="Cam/raw", instrument="Cam", exposure=exposure, detector=0)
    return str(found.id)


def n_raws(survey: Repo) -> int:
    return len(list((survey.place.folder / "files" / "Cam").rglob("*.txt")))


def test_a_sound_repository_passes_and_a_damaged_one_fails_by_name(survey: Repo, asked: Command) -> None:
    told = asked("fsck", "--deep")
    assert (told.returncode, "nothing is wrong" in told.stdout) == (0, True)
    (path, *_) = sorted((survey.place.folder / "files" / "Cam").rglob("*.txt"))
    path.unlink()
    told = asked("fsck", "--json")
    (problem,) = json.loads(told.stdout)["problems"]
    assert (told.returncode, problem["kind"], problem["dataset_type"]) == (1, "missing", "raw")
    assert path.name in problem["url"]
    told = asked("fsck", "--repair")
    assert "make it again, or restore it from a back-up" in told.stdout


def test_the_repository_to_check_may_be_named_by_itself(survey: Repo, command: Command) -> None:
    assert command("fsck", survey.place.folder).returncode == 0


def test_orphans_are_moved_aside_once_they_are_old_enough(survey: Repo, asked: Command) -> None:
    stray = survey.place.folder / "files" / "stray.txt"
    stray.write_text("whose?")
    assert asked("fsck").returncode == 0
    told = asked("fsck", "--grace", "0", "--repair", "--json")
    (problem,) = json.loads(told.stdout)["problems"]
    assert Path(problem["repair"].removeprefix("moved to ")).read_text() == "whose?"
    assert asked("fsck", "--grace", "0").returncode == 0


def test_datasets_are_deleted_with_their_files(survey: Repo, asked: Command) -> None:
    told = asked("delete", raw_id(survey), "--dry-run")
    assert told.stdout.startswith("would go: 1 datasets")
    assert n_raws(survey) == 6
    told = asked(
        "delete", "--type", "raw", "-i", "Cam/raw", "--where", "instrument='Cam' AND exposure=1", "--json"
    )
    assert told.returncode == 0
    assert json.loads(told.stdout)["n_datasets"] == 2
    assert n_raws(survey) == 4
    with pytest.raises(NotFound):
        raw_id(survey)


def test_what_is_needed_is_refused_without_a_word_of_force_and_a_reason(
    survey: Repo, pipeline: Path, asked: Command
) -> None:
    survey.house.set_policy("Cam/raw", retention_class="permanent")
    told = asked("delete", raw_id(survey))
    assert (told.returncode, "'Cam/raw' is permanent" in told.stderr) == (3, True)
    assert asked("delete", raw_id(survey), "--force").returncode == 2
    id = raw_id(survey)
    assert asked("delete", id, "--force", "--reason", "wrong sky").returncode == 0
    told = asked("dataset", "show", id)
    assert told.returncode == 3
    assert "wrong sky" in told.stderr


@pytest.mark.parametrize(
    "words",
    [(), ("--type", "raw"), (str(uuid4()), "--type", "raw", "-i", "x"), (str(uuid4()), "--where", "x=1")],
)
def test_a_command_that_does_not_say_what_is_to_go_is_refused(asked: Command, words: tuple[str, ...]) -> None:
    assert asked("delete", *words).returncode == 2


def test_a_run_is_removed_and_collected(survey: Repo, pipeline: Path, asked: Command) -> None:
    run = survey.run(pipeline, inputs=["Cam/raw"], output="u/me/out", jobs=1)
    run.wait()
    files = survey.place.folder / "files" / "u"
    told = asked("collection", "remove", run.name)
    assert (told.returncode, "chain 'u/me/out' holds it" in told.stderr) == (3, True)
    assert asked("collection", "remove", run.name, "--unlink").returncode == 0
    assert survey.query_collections("u/me/out")["children"].to_list() == [["Cam/raw"]]
    assert "9 datasets" in asked("gc", "--dry-run").stdout
    assert len([path for path in files.rglob("*") if path.is_file()]) == 9
    facts = json.loads(asked("gc", "--json").stdout)
    assert (facts["n_datasets"], facts["n_files"], facts["left_in_trash"]) == (9, 9, [])
    assert not (files / "me" / "out").exists() or not list((files / "me" / "out").iterdir())
    assert asked("fsck", "--deep", "--grace", "0").returncode == 0


def test_policies_are_set_and_listed(asked: Command) -> None:
    told = asked(
        "collection",
        "set-policy",
        "Cam/raw",
        "--retention",
        "temporary",
        "--expires",
        "30d",
        "--owner",
        "ann",
    )
    assert told.returncode == 0
    assert "Cam/raw: temporary, expires 20" in told.stderr
    (policy,) = json.loads(asked("collection", "policies", "Cam/*", "--json").stdout)
    assert (policy["owner"], policy["retention"]) == ("ann", "temporary")
    assert asked("collection", "set-policy", "Cam/raw", "--retention", "permanent").returncode == 3
    assert (
        asked(
            "collection", "set-policy", "Cam/raw", "--retention", "permanent", "--expires", "never"
        ).returncode
        == 0
    )
    assert asked("collection", "set-policy", "Cam/raw", "--expires", "soon").returncode == 3
    assert asked("collection", "set-policy", "Cam/raw").returncode == 2


def test_what_a_later_run_reuses_outlives_the_run_that_made_it(
    survey: Repo, pipeline: Path, asked: Command
) -> None:
    where = {"inputs": "Cam/raw", "output": "u/me"}
    survey.run(pipeline, **where, output_run="u/me/1").wait()
    other = pipeline.with_name("other.yaml")
    other.write_text(pipeline.read_text().replace("gather_frames.py {", "gather_frames.py  {"))
    survey.run(other, **where, output_run="u/me/2", skip_existing="provenance").wait()
    assert asked("collection", "remove", "u/me/1", "--unlink").returncode == 0
    assert json.loads(asked("gc", "--json").stdout)["n_datasets"] == 3  # the wholes
    assert survey.query_datasets("frame", "u/me").height == 6
    assert asked("collection", "remove", "u/me/2", "--unlink").returncode == 0
    assert json.loads(asked("gc", "--json").stdout)["n_datasets"] == 9
    assert survey.query_collections("u/*")["name"].to_list() == ["u/me"]
    assert asked("fsck", "--deep", "--grace", "0").returncode == 0


def test_what_was_deleted_is_made_again_when_it_is_asked_for_again(
    survey: Repo, pipeline: Path, asked: Command
) -> None:
    where = {"inputs": "Cam/raw", "output": "u/me", "skip_existing": "provenance"}
    survey.run(pipeline, **where, output_run="u/me/1").wait()
    gone = survey.find_dataset("whole", collections="u/me", instrument="Cam", exposure=2)
    assert asked("delete", gone.id).returncode == 0
    again = survey.plan(pipeline, **where, output_run="u/me/2")
    assert [(task.label, task.quanta) for task in again.planned.summary] == [("copy", 0), ("gather", 1)]
    assert again.submit().wait().is_good
    assert survey.query_datasets("whole", "u/me").height == 3


def test_a_new_repository_is_in_order(tmp_path: Path, command: Command) -> None:
    assert command("init", tmp_path / "new").returncode == 0
    for words in (("fsck", "--deep"), ("gc", "--dry-run"), ("gc",), ("collection", "policies")):
        told = command(*words, "--repo", tmp_path / "new")
        assert (told.returncode, told.stderr) == (0, "")
