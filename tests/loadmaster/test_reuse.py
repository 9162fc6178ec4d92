"""What earlier runs made stands for outputs of a new one; why it does not; planning again after the survey grew."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import loadmaster_planner.planner as planner
import polars as pl
import pytest
from loadmaster_pipelines.loader import load_pipeline
from loadmaster_planner.all_done import parts_if_all_done
from loadmaster_planner.request import Request, SkipExisting
from loadmaster_planner.show import verify
from loadmaster_registry.records import CollectionType
from loadmaster_registry.transaction import Transaction

from loadmaster import Repo

Command = Callable[..., Any]
POLICIES = ("provenance", "content")
ASKED: dict[str, Any] = {"inputs": "Cam/raw", "output": "u/me"}


@pytest.fixture
def done(survey: Repo, pipeline: Path) -> Repo:
    """Return a repository in which everything was run once."""
    survey.run(pipeline, **ASKED, output_run="u/me/1").wait()
    return survey


def gather_otherwise(pipeline: Path) -> Path:
    """Return the same pipeline but for the code of its last task."""
    other = pipeline.with_name("other.yaml")
    other.write_text(pipeline.read_text().replace("gather_frames.py {", "gather_frames.py  {"))
    return other


def put_frame(repo: Repo, detector: int, exposure: int, run: str) -> None:
    repo.put("new\n", "raw", run=run, instrument="Cam", exposure=exposure, detector=detector)


def files_below(repo: Repo, run: str) -> list[Path]:
    return [path for path in (repo.place.folder / "files" / run).rglob("*") if path.is_file()]


@pytest.mark.parametrize("policy", POLICIES)
def test_what_is_reused_is_shown_as_the_runs_own_and_copied_nowhere(
    done: Repo, pipeline: Path, policy: str
) -> None:
    plan = done.plan(gather_otherwise(pipeline), **ASKED, output_run="u/me/2", skip_existing=policy)
    assert [(t.label, t.quanta, t.done) for t in plan.planned.summary] == [("copy", 0, 6), ("gather", 3, 0)]
    assert plan.planned.header.reused == {"frame": 6}
    plan.write(pipeline.with_name("plan"))
    verify(done.open_plan(pipeline.with_name("plan")).planned)  # what is reused is part of the file's content
    assert any("reused: 6 datasets" in note for note in plan.table().notes)
    assert plan.submit().wait().is_good
    assert done.registry.collection("u/me").children == ("u/me/2", "u/me/2/reused", "u/me/1", "Cam/raw")
    assert done.registry.collection("u/me/2/reused").type is CollectionType.TAGGED
    assert done.query_datasets("frame", "u/me/2/reused").height == 6
    assert (
        done.find_dataset("frame", collections=["u/me/2", "u/me/2/reused"], exposure=1, detector=0).run
        == "u/me/1"
    )
    assert len(files_below(done, "u/me/2")) == 3


@pytest.mark.parametrize("policy", POLICIES)
def test_a_run_in_which_all_is_reused_is_over_at_once_and_shows_all_of_it(
    done: Repo, pipeline: Path, policy: str
) -> None:
    plan = done.plan(pipeline, **ASKED, output_run="u/me/2", skip_existing=policy)
    assert plan.n_jobs == 0
    assert plan.submit().wait().is_good
    for dataset_type, n in (("frame", 6), ("whole", 3)):
        assert done.query_datasets(dataset_type, "u/me/2/reused").height == n
    # What a third run finds through the second one is what the first one made.
    third = done.plan(
        pipeline, **ASKED, output_run="u/me/3", skip_existing=policy, skip_existing_in="u/me/2/reused"
    )
    assert (third.n_jobs, third.planned.header.reused) == (0, {"frame": 6, "whole": 3})


def test_a_submission_that_is_cut_off_shows_nothing_and_can_be_repeated(
    done: Repo, pipeline: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = done.plan(gather_otherwise(pipeline), **ASKED, output_run="u/me/2", skip_existing="content")
    with monkeypatch.context() as patched:
        patched.setattr(Transaction, "set_chain", _die)
        with pytest.raises(KeyboardInterrupt):
            plan.submit()
    assert not done.registry.collections("u/me/2*")
    assert done.registry.collection("u/me").children == ("u/me/1", "Cam/raw")
    assert plan.submit().wait().is_good
    assert done.query_datasets("frame", "u/me/2/reused").height == 6


def _die(*_: object) -> None:
    raise KeyboardInterrupt


def test_why_names_the_settings_and_inputs_that_differ(done: Repo, pipeline: Path, command: Command) -> None:
    put_frame(done, 0, 1, "Cam/new")
    other = gather_otherwise(pipeline)
    text = other.read_text().replace("    command:", "    environment: {gcc: '14'}\n    command:")
    other.write_text(text)
    done.plan(other, inputs=["Cam/new", "Cam/raw"], output="u/you").write("plan")
    told = command("why", "copy exposure=1 detector=0", "--plan", "plan", "--repo", "survey")
    assert told.returncode == 0
    (found,) = [line for line in told.stdout.splitlines() if line.lstrip().startswith("input ")]
    assert "raw: raw instrument=Cam detector=0 exposure=1" in found
    (line,) = [line for line in told.stdout.splitlines() if line.lstrip().startswith("environment ")]
    assert line.split() == ["environment", "gcc", "None", "14"]
    assert "run u/me/1, succeeded" in told.stdout
    assert "it cannot stand for this one" in told.stdout
    facts = json.loads(
        command("why", "gather exposure=1", "--plan", "plan", "--json", "--repo", "survey").stdout
    )
    assert sorted(facts["digests"]) == ["code_digest", "environment_digest"]
    assert {row["kind"] for row in facts["inputs"]} == {"to be made"}


def test_why_says_that_nothing_differs_or_that_there_is_nothing_earlier(
    done: Repo, pipeline: Path, command: Command
) -> None:
    done.plan(pipeline, **ASKED).write("plan")
    told = command("why", "copy exposure=2 detector=1", "--plan", "plan", "--repo", "survey")
    assert "nothing differs" in told.stdout
    assert "it stands for this one by: provenance, content" in told.stdout
    told = command("why", "copy exposure=2 detector=1", "--repo", "survey")
    assert "the registry records no earlier quantum" in told.stdout
    told = command("why", "copy exposure=9", "--repo", "survey")
    assert (told.returncode, "no quantum is called 'copy exposure=9'" in told.stderr) == (3, True)
    told = command("why", "copy exposure=2", "--repo", "survey")
    assert (told.returncode, "quanta on 2 data IDs are called" in told.stderr) == (3, True)


def test_replanning_tells_what_the_survey_gained_and_can_be_run(
    done: Repo, pipeline: Path, command: Command
) -> None:
    old = done.plan(pipeline, **ASKED)
    old.write("old")
    with done.registry.transaction() as t:
        t.insert_records(
            "detector",
            done.registry.records("detector")
            .tail(1)
            .with_columns(detector=pl.lit(2), full_name=pl.lit("S2")),
        )
    put_frame(done, 2, 1, "Cam/raw")
    told = command("replan", "old", "--save", "new", "--repo", "survey")
    assert told.returncode == 0
    assert "added: copy instrument=Cam detector=2 exposure=1" in told.stdout
    assert "gather instrument=Cam exposure=1" in told.stdout
    assert "reads now copies: frame" in told.stdout
    assert "next: loadmaster submit new" in told.stderr
    assert done.open_plan("new").digest == done.plan(pipeline, **ASKED).digest
    facts = json.loads(command("replan", "old", "--against", "new", "--json").stdout)
    counts = [(t["label"], t["added"], t["gone"], t["changed"], t["same"]) for t in facts["tasks"]]
    assert counts == [("copy", 1, 0, 0, 6), ("gather", 0, 0, 1, 2)]
    rest = command("replan", "old", "--skip-existing", "content", "--save", "rest", "--repo", "survey")
    assert rest.returncode == 0
    assert [(t.label, t.quanta, t.done) for t in done.open_plan("rest").planned.summary] == [
        ("copy", 1, 6),
        ("gather", 1, 2),
    ]
    assert done.open_plan("rest").submit().wait().is_good


def test_comparing_two_plans_plans_nothing(command: Command, done: Repo, pipeline: Path) -> None:
    done.plan(pipeline, **ASKED).write("plan")
    told = command("replan", "plan", "--against", "plan", "--save", "x")
    assert (told.returncode, "nothing is planned" in told.stderr) == (2, True)
    told = command("replan", "plan", "--against", "plan")
    assert "both plans run the same on the same" in told.stdout


def seen_at_once(repo: Repo, pipeline: Path, policy: SkipExisting = "exists", **asked: Any) -> bool:
    """Say whether it is known without looking at the data that all is done."""
    loaded = load_pipeline(pipeline, universe=repo.registry.universe)
    within = ("u/me/1", "Cam/raw")
    request = Request(("Cam/raw",), "u/me/2", skip_existing=policy, skip_existing_in=within, **asked)
    with repo.registry.snapshot() as now:
        return parts_if_all_done(now, loaded, request) is not None


@pytest.mark.parametrize("policy", ["exists", *POLICIES])
def test_a_plan_of_what_is_all_done_is_the_same_with_and_without_looking_at_the_data(
    done: Repo, pipeline: Path, policy: SkipExisting, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert seen_at_once(done, pipeline, policy)

    def plan() -> tuple[Any, ...]:
        header = done.plan(pipeline, **ASKED, output_run="u/me/2", skip_existing=policy).planned.header
        return header.digest, header.summary, header.reused, header.types, header.axes

    at_once = plan()
    monkeypatch.setattr(planner, "parts_if_all_done", lambda *_: None)
    assert at_once == plan()


def test_whatever_may_have_changed_the_plan_is_looked_at(done: Repo, pipeline: Path) -> None:
    assert not seen_at_once(done, gather_otherwise(pipeline))
    assert not seen_at_once(done, pipeline, where="exposure = 1")
    assert not seen_at_once(done, pipeline, include_flagged=True)
    assert seen_at_once(done, pipeline)
    put_frame(done, 0, 1, "Cam/elsewhere")
    assert seen_at_once(done, pipeline)
    with done.registry.transaction() as t:
        one = done.registry.records("detector").tail(1)
        t.insert_records("detector", one.with_columns(detector=pl.lit(2), full_name=pl.lit("S2")))
    assert not seen_at_once(done, pipeline)


def test_new_data_and_flags_are_looked_at(done: Repo, pipeline: Path) -> None:
    with done.registry.transaction() as t:
        rows = pl.DataFrame(
            {"instrument": ["Cam"], "exposure": [1], "flagged": [True], "flag_reason": ["wind"]}
        )
        t.set_metadata("exposure", rows, loaded="2026-01-01", source="a test")
    assert not seen_at_once(done, pipeline)


def test_a_run_that_is_not_over_is_looked_at(survey: Repo, pipeline: Path) -> None:
    pipeline.with_name("broken").touch()
    survey.run(pipeline, **ASKED, output_run="u/me/1").wait()
    assert not seen_at_once(survey, pipeline)
    pipeline.with_name("broken").unlink()
    survey.run(pipeline, **ASKED, output_run="u/me/1").wait()
    assert seen_at_once(survey, pipeline)
