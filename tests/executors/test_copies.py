"""Small files and copies of a run: few of the first, all of the second, whatever fails."""

import time
from pathlib import Path
from typing import Any

import pytest
from loadmaster_executors import controller, delivery
from loadmaster_executors.run import RunFolder
from loadmaster_staging.destinations import Destination
from loadmaster_staging.harvest import Reported
from loadmaster_staging.location import staged
from toy_survey import RUN, Survey

LOOK = """
description: a task, and one that reads what the framework says of it
tasks:
  Double: {class: toy_tasks.Double}
  look:
    dimensions: [instrument, detector]
    command: sh -c 'cat "$1" > "$2"; cat "$1"' - {inputs.about.path} {outputs.seen.path}
    inputs:
      about: {dataset_type: Double_metadata, storage_class: TaskMetadata, dimensions: [instrument, detector]}
    outputs:
      seen: {dataset_type: seen, storage_class: Text, dimensions: [instrument, detector]}
"""


def test_logs_and_metadata_of_many_quanta_are_in_few_files_and_each_is_found(tmp_path: Path) -> None:
    detectors = range(24)
    survey = Survey.create(tmp_path, detectors)
    run = survey.begin(survey.plan_yaml(LOOK))
    assert survey.execute(run).is_good
    science = {name for name in survey.files_of_run() if not name.startswith(".shards/")}
    assert len(science) == 3 * len(detectors)
    others = [path for root in ("files", "run") for path in (tmp_path / root).rglob("*") if path.is_file()]
    n_others = len(others) - len(science) - len(detectors)  # raws
    assert n_others <= 14, "as many as there would be for 10⁵ quanta"
    about = survey.contents("Double_metadata")
    assert set(about) == set(detectors)
    assert all('"task": "Double"' in text for text in about.values())
    assert survey.contents("seen") == about
    for quantum in run.plan.job(0).quanta:
        assert run.log(str(quantum.id))


def test_copies_go_to_each_destination_and_are_registered(tmp_path: Path) -> None:
    survey = Survey.create(tmp_path, (1, 2))
    run = survey.begin(survey.plan("Total"))
    places = (
        Destination("near", str(tmp_path / "near"), ("doubled*",), 30),
        Destination("far", "memory://far-away", ("total",)),
    )
    report = survey.execute(run, destinations=places)
    assert report.is_good
    assert report.undelivered == ()
    assert (tmp_path / "near" / RUN / "doubled" / "doubled_Toy_1.txt").read_text() == "2"
    with survey.registry.snapshot() as now:
        copies = {
            name: now.copies(survey.registry.datasets(name, [RUN])["dataset"]).to_dicts()
            for name in ("doubled", "doubled_note", "total")
        }
    assert [len(rows) for rows in copies.values()] == [2, 2, 1]
    assert copies["total"][0]["url"].startswith(f"memory://far-away/{RUN}/total/")
    assert copies["total"][0]["until"] is None
    assert copies["doubled"][0]["until"] > time.strftime("%Y-%m-%d", time.gmtime(time.time() + 29 * 86400))


def test_a_destination_that_fails_holds_nothing_else_up_and_the_same_command_tries_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "N_TRIES", 2)
    survey = Survey.create(tmp_path, (1, 2))
    run = survey.begin(survey.plan())
    (tmp_path / "near").write_text("a file where a folder should be")
    places = (
        Destination("near", str(tmp_path / "near"), ("doubled",)),
        Destination("other", str(tmp_path / "other"), ("doubled",)),
    )
    report = survey.execute(run, destinations=places)
    assert report.is_good, "what is on the backbone stays there"
    assert survey.contents("doubled") == {1: "2", 2: "4"}
    assert len(list((tmp_path / "other").rglob("*.txt"))) == 2
    (group,) = report.undelivered
    assert (group.destination, group.count) == ("near", 2)
    assert "near" in group.example
    (tmp_path / "near").unlink()
    again = survey.execute(RunFolder.open(run.path), destinations=places)
    assert again.undelivered == ()
    assert len(list((tmp_path / "near").rglob("*.txt"))) == 2


def spoil_first(monkeypatch: pytest.MonkeyPatch, n_times: int) -> list[int]:
    """Flip bytes of a staged output between report and harvest, as often as asked; return the attempts harvested."""
    real, seen = controller.harvest, []

    def harvest(jobs: list[Reported], *rest: Any) -> Any:
        for job in jobs:
            seen.append(job.manifest.attempt)
            if len(seen) <= n_times:
                file = job.report.quanta[0].outputs[0]
                path = Path(staged(job.manifest.staging_url, file.name))
                path.chmod(0o644)
                path.write_bytes(b"?" * file.size_bytes)
        return real(jobs, *rest)

    monkeypatch.setattr(controller, "harvest", harvest)
    return seen


def test_a_job_whose_outputs_were_spoilt_on_their_way_is_run_once_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = spoil_first(monkeypatch, 1)
    survey = Survey.create(tmp_path, (1,))
    report = survey.execute(survey.begin(survey.plan()))
    assert report.is_good
    assert seen == [1, 2]
    assert survey.contents("doubled") == {1: "2"}
    assert survey.staged() == []


def test_a_job_whose_outputs_are_spoilt_again_fails_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = spoil_first(monkeypatch, 9)
    survey = Survey.create(tmp_path, (1,))
    report = survey.execute(survey.begin(survey.plan()))
    assert seen == [1, 2]
    assert report.counts["failed"] == 1
    (group,) = report.failures
    assert group.class_ == "checksum_mismatch"
    assert "not what the job reported" in group.message
    assert survey.contents("doubled") == {}
    assert survey.files_of_run() == set()
