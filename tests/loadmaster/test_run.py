"""From a plan to outputs: what a run leaves, and how it goes on after whatever stopped it."""

import json
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from loadmaster_registry.errors import Conflict, NotFound, PlanError, RunError
from loadmaster_registry.records import CollectionType

from loadmaster import Repo

WHERE = "instrument='Cam'"
Command = Callable[..., Any]
Start = Callable[..., subprocess.Popen[str]]


def test_a_run_makes_what_the_plan_says(survey: Repo, pipeline: Path) -> None:
    plan = survey.plan(pipeline, inputs="Cam/raw", output="u/me/x", where=WHERE)
    assert plan.n_jobs == 9
    run = plan.submit(jobs=2)
    report = run.wait(progress=False)
    assert report.is_good
    assert report.counts["done"] == 9
    assert run.status() == "done"
    whole = survey.get("whole", collections="u/me/x", instrument="Cam", exposure=3)
    assert whole == "exposure 3 detector 0\nexposure 3 detector 1\n"


def test_a_plan_writes_nothing(survey: Repo, pipeline: Path) -> None:
    before = sorted(survey.place.folder.rglob("*"))
    survey.plan(pipeline, inputs="Cam/raw", output="u/me/x", where=WHERE)
    assert sorted(survey.place.folder.rglob("*")) == before
    assert survey.query_collections("u/*").is_empty()


def test_the_output_chain_holds_runs_newest_first_then_inputs(survey: Repo, pipeline: Path) -> None:
    first, second = (
        survey.run(pipeline, inputs="Cam/raw", output="u/me/x", where=WHERE, config=[]) for _ in range(2)
    )
    assert second.is_resumed
    first.wait(progress=False)
    third = survey.run(pipeline, inputs="Cam/raw", output="u/me/x", where=WHERE)
    assert not third.is_resumed
    assert survey.registry.collection("u/me/x").children == (third.name, first.name, "Cam/raw")
    assert survey.registry.collection(third.name).type is CollectionType.RUN


def test_outputs_of_other_inputs_are_refused_before_anything_is_written(survey: Repo, pipeline: Path) -> None:
    survey.run(pipeline, inputs="Cam/raw", output="u/me/x", where=WHERE).wait(progress=False)
    survey.put("light", "raw", run="Cam/more", instrument="Cam", exposure=1, detector=0)
    plan = survey.plan(pipeline, inputs=["Cam/more", "Cam/raw"], output="u/me/x", where=WHERE)
    with pytest.raises(Conflict, match="--rebase"):
        plan.submit()
    assert len(survey.runs()) == 1
    assert not survey.registry.collections(plan.output_run)
    plan.submit(rebase=True)
    assert survey.registry.collection("u/me/x").children[0] == plan.output_run
    assert survey.registry.collection("u/me/x").children[-2:] == ("Cam/more", "Cam/raw")


def test_an_empty_plan_is_not_run_and_says_why(survey: Repo, pipeline: Path) -> None:
    plan = survey.plan(pipeline, inputs="Cam/raw", output="u/me/x", where=f"{WHERE} AND exposure=99")
    with pytest.raises(PlanError, match="there is nothing to run"):
        plan.submit()


def test_a_task_for_planning_only_is_not_run(survey: Repo, pipeline: Path) -> None:
    text = "\n".join(line for line in pipeline.read_text().splitlines() if "command:" not in line)
    pipeline.write_text(text)
    plan = survey.plan(pipeline, inputs="Cam/raw", output="u/me/x", where=WHERE)
    assert "for planning only" in plan.table().notes[0]
    with pytest.raises(RunError, match="nothing to run"):
        plan.submit()
    assert not survey.runs()


def test_jobs_that_failed_are_tried_again_by_the_same_request(survey: Repo, pipeline: Path) -> None:
    broken = pipeline.with_name("broken")
    broken.touch()
    first = survey.run(pipeline, inputs="Cam/raw", output="u/me/x", where=WHERE)
    report = first.wait(progress=False)
    assert (report.counts["failed"], report.counts["blocked"]) == (6, 3)
    broken.unlink()
    again = survey.run(pipeline, inputs="Cam/raw", output="u/me/x", where=WHERE)
    assert (again.name, again.is_resumed) == (first.name, True)
    assert again.wait(progress=False).is_good


def test_another_request_is_another_run(survey: Repo, pipeline: Path) -> None:
    first = survey.run(pipeline, inputs="Cam/raw", output="u/me/x", where=WHERE)
    other = survey.run(pipeline, inputs="Cam/raw", output="u/me/x", where=f"{WHERE} AND exposure=1")
    assert other.name != first.name
    assert not other.is_resumed


def test_a_run_left_behind_by_a_slip_of_the_fingers_is_mentioned(
    survey: Repo, pipeline: Path, command: Command
) -> None:
    left = survey.run(pipeline, inputs="Cam/raw", output="u/me/x", where=WHERE)
    words = ("-i", "Cam/raw", "-o", "u/me/x", "--where", f"{WHERE} AND exposure=1", "-j", "2")
    told = command("run", pipeline, *words, "--repo", survey.place.folder)
    assert told.returncode == 0
    assert f"note: {left.name}, of another request, is unfinished" in told.stderr
    told = command("submit", left.folder.path / "plan", "-j", "2", "--repo", survey.place.folder)
    assert told.returncode == 0
    assert f"going on with run {left.name}" in told.stderr


def test_a_saved_plan_is_run_and_run_again_without_a_second_effect(
    survey: Repo, pipeline: Path, tmp_path: Path
) -> None:
    survey.plan(pipeline, inputs="Cam/raw", output="u/me/x", where=WHERE).write(tmp_path / "x.plan")
    first = survey.open_plan(tmp_path / "x.plan").submit()
    first.wait(progress=False)
    again = survey.open_plan(tmp_path / "x.plan").submit()
    assert (again.name, again.is_resumed) == (first.name, True)
    again.wait(progress=False)
    assert survey.registry.quanta(first.name).height == 9


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_run_goes_on_with_the_same_command(
    survey: Repo, pipeline: Path, start: Start, command: Command, sent: signal.Signals
) -> None:
    slow = pipeline.with_name("slow")
    slow.touch()
    words = [
        *("run", str(pipeline), "-i", "Cam/raw", "-o", "u/me/x", "--where", WHERE, "-j", "2"),
        *("--repo", str(survey.place.folder), "--json"),
    ]
    process = start(*words)
    until(lambda: [run.report().counts["running"] for run in survey.runs()] == [2])
    process.send_signal(sent)
    _, told = process.communicate(timeout=20)
    if sent == signal.SIGINT:
        assert process.returncode == 1
        assert "the same command goes on" in told
    slow.unlink()
    again = command(*words)
    assert again.returncode == 0, again.stderr
    assert "going on with run u/me/x/" in again.stderr
    assert json.loads(again.stdout)["counts"]["done"] == 9
    assert len(survey.runs()) == 1
    assert survey.registry.quanta(survey.runs()[0].name).height == 9


def test_a_second_process_at_the_same_run_is_refused(
    survey: Repo, pipeline: Path, command: Command, start: Start
) -> None:
    pipeline.with_name("slow").touch()
    words = [
        *("run", str(pipeline), "-i", "Cam/raw", "-o", "u/me/x", "--where", WHERE, "-j", "1"),
        *("--repo", str(survey.place.folder)),
    ]
    process = start(*words)
    until(lambda: [run.status() for run in survey.runs()] == ["running"])
    second = command(*words)
    assert second.returncode == 3
    assert "another process is at work on this run" in second.stderr
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert survey.runs()[0].status() == "stopped"


def test_a_run_is_found_by_its_name_and_by_its_output(survey: Repo, pipeline: Path) -> None:
    run = survey.run(pipeline, inputs="Cam/raw", output="u/me/x", where=WHERE)
    assert survey.open_run(run.name).name == run.name
    assert survey.open_run("u/me/x").name == run.name
    with pytest.raises(NotFound, match="loadmaster status"):
        survey.open_run("u/me/y")


def test_plan_and_run_show_themselves_in_a_notebook(survey: Repo, pipeline: Path) -> None:
    plan = survey.plan(pipeline, inputs="Cam/raw", output="u/me/x", where=WHERE)
    assert "<td>copy</td>" in plan._repr_html_()
    assert plan.output_run in plan.submit()._repr_html_()


def until(is_so: Callable[[], bool], at_most_s: float = 30) -> None:
    """Wait for something to be so."""
    deadline = time.monotonic() + at_most_s
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.05)
