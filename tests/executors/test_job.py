"""Jobs of several quanta, given to an executor by hand: what one leaves the next may read, and no more."""

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest
from hand_jobs import job, of, output, quantum, reads, run, staged, statuses, wait
from loadmaster_executors.executor import RunPlace
from loadmaster_executors.local import LocalExecutor
from loadmaster_pipelines.connections import Connection
from loadmaster_staging.checksum import measure
from loadmaster_staging.manifest import InputFile, OutputFile


@pytest.fixture
def executor(tmp_path: Path) -> Iterator[LocalExecutor]:
    made = LocalExecutor(2)
    made.prepare(RunPlace(tmp_path, "t", ()))
    yield made
    made.close()


def test_a_quantum_reads_what_an_earlier_one_of_its_job_wrote(
    executor: LocalExecutor, tmp_path: Path
) -> None:
    a, b = output("a"), output("b")
    manifest = job(
        tmp_path,
        quantum("echo one > $1", outputs=[a]),
        quantum("cat $2 $2 > $1", [of(a)], [b], [reads("a")]),
    )
    report = run(executor, manifest)
    assert report.outcome == "done"
    assert statuses(report) == ["succeeded", "succeeded"]
    assert staged(manifest) == {"a.txt": "one\n", "b.txt": "one\none\n"}
    for file in (f for q in report.quanta for f in q.outputs):
        found = measure(f"{manifest.staging_url}-{file.name}")
        assert (found.size_bytes, found.checksum) == (file.size_bytes, file.checksum)
    assert report.peak_memory_mib > 1
    assert report.wall_s > 0


def test_quanta_do_not_find_what_others_left_lying_about(executor: LocalExecutor, tmp_path: Path) -> None:
    manifest = job(tmp_path, quantum("touch litter; pwd"), quantum("test ! -e litter; pwd"))
    assert statuses(run(executor, manifest)) == ["succeeded", "succeeded"]


def test_after_a_failure_only_what_does_not_need_it_runs_and_nothing_comes_home(
    executor: LocalExecutor, tmp_path: Path
) -> None:
    a, b, c = output("a"), output("b"), output("c")
    manifest = job(
        tmp_path,
        quantum("echo half > $1; exit 2", outputs=[a]),
        quantum("cat $2 > $1", [of(a)], [b], [reads("a")]),
        quantum("echo fine > $1", outputs=[c]),
    )
    report = run(executor, manifest)
    assert statuses(report) == ["code_error", "blocked", "succeeded"]
    assert report.outcome == "failed"
    assert staged(manifest) == {}
    assert not any(q.outputs for q in report.quanta)


def test_after_a_missing_output_what_exists_comes_home(executor: LocalExecutor, tmp_path: Path) -> None:
    a, b, c = output("a"), output("b"), output("c")
    manifest = job(
        tmp_path,
        quantum("echo there > $1", outputs=[a, b]),
        quantum("cat $2 > $1", [of(b)], [c], [reads("b")]),
    )
    report = run(executor, manifest)
    assert statuses(report) == ["missing_output", "blocked"]
    assert report.outcome == "partial"
    assert staged(manifest) == {"a.txt": "there\n"}


def test_a_link_to_elsewhere_is_no_output(executor: LocalExecutor, tmp_path: Path) -> None:
    manifest = job(tmp_path, quantum("ln -s /etc/hostname $1", outputs=[output("a")]))
    assert statuses(run(executor, manifest)) == ["missing_output"]


@pytest.mark.parametrize("script", ["echo more >> $2", "rm -f $2", "mv $2 away", "cp $2 new; mv -f new $2"])
def test_an_earlier_output_must_not_be_changed(executor: LocalExecutor, tmp_path: Path, script: str) -> None:
    a, b = output("a"), output("b")
    manifest = job(
        tmp_path,
        quantum("echo one > $1", outputs=[a]),
        quantum(f"chmod u+w $2; {script}; echo two > $1", [of(a)], [b], [reads("a")]),
    )
    report = run(executor, manifest)
    assert statuses(report) == ["succeeded", "overwrite_attempt"]
    assert report.quanta[1].message == "it tried to write or remove made/a.txt, which is not its own"
    assert report.outcome == "failed"


def test_an_output_of_another_quantum_must_not_be_written(executor: LocalExecutor, tmp_path: Path) -> None:
    a, b = output("a"), output("b")
    manifest = job(
        tmp_path,
        quantum("echo one > $1; echo mine > $(dirname $1)/b.txt", outputs=[a]),
        quantum("echo two > $1", outputs=[b]),
    )
    report = run(executor, manifest)
    assert statuses(report) == ["succeeded", "overwrite_attempt"]
    assert "an earlier quantum of the job wrote b.txt" in report.quanta[1].message


def test_a_gather_runs_with_what_is_there_if_it_is_enough(executor: LocalExecutor, tmp_path: Path) -> None:
    gone = InputFile("a", str(uuid4()), "a", {}, url="")
    (tmp_path / "x.txt").write_text("x\n")
    there = InputFile("a", str(uuid4()), "a", {}, str(tmp_path / "x.txt"))
    enough, too_few = output("b"), output("c")
    elsewhere = quantum("exit 1", outputs=[OutputFile("z", gone.dataset_id, "z", {}, "run/z.txt")])
    elsewhere = replace(
        elsewhere, connections=(reads("q"),)
    )  # lacks its input: there is nothing for it to do
    manifest = job(
        tmp_path,
        elsewhere,
        quantum("cat $2 > $1", [gone, there], [enough], [reads("a", multiple=True)]),
        quantum("cat $2 > $1", [gone, there], [too_few], [reads("a", multiple=True, minimum=2)]),
    )
    report = run(executor, manifest)
    assert statuses(report) == ["no_work", "succeeded", "no_work"]
    assert report.quanta[2].message == "no_work upstream: a: 1 of at least 2 'a'"
    assert report.outcome == "done"
    assert staged(manifest) == {"b.txt": "x\n"}


def test_what_the_framework_owes_a_task_is_written_for_it(executor: LocalExecutor, tmp_path: Path) -> None:
    files = [
        OutputFile(n, str(uuid4()), f"shell{n}", {}, f"run/shell{n}.json") for n in ("_metadata", "_log")
    ]
    spec = replace(
        quantum("echo words"),
        outputs=tuple(files),
        connections=tuple(
            Connection(f.connection, "output", f.dataset_type, "TaskMetadata", automatic=True) for f in files
        ),
    )
    manifest = job(tmp_path, spec)
    assert statuses(run(executor, manifest)) == ["succeeded"]
    found = {name: json.loads(text) for name, text in staged(manifest).items()}
    assert found["shell_log.json"] == ["words"]
    assert found["shell_metadata.json"]["quantum"] == spec.id


def test_inputs_that_cannot_come_end_the_job_before_it_begins(
    executor: LocalExecutor, tmp_path: Path
) -> None:
    missing = InputFile("a", str(uuid4()), "a", {"visit": 1}, str(tmp_path / "nowhere"))
    manifest = job(tmp_path, quantum("touch ran", [missing], [], [reads("a")]))
    report = run(executor, manifest)
    assert statuses(report) == ["stage_in_failed"]
    assert "nowhere" in report.quanta[0].message


def test_jobs_wait_for_a_place_and_can_be_cancelled(executor: LocalExecutor, tmp_path: Path) -> None:
    manifests = [job(tmp_path, quantum("sleep 100"), number=i) for i in range(3)]
    assert executor.room() == 2
    executor.submit(manifests)
    assert executor.room() == 0
    executor.cancel([manifest.token for manifest in manifests])
    ended = wait(executor, 2)
    assert sorted(end.token for end in ended) == sorted(m.token for m in manifests[:2])
    assert {end.returncode for end in ended} == {-9}
    assert executor.room() == 2
    assert executor.status(0) == []


def test_what_a_task_left_running_ends_before_its_outputs_come_home(
    executor: LocalExecutor, tmp_path: Path
) -> None:
    writer = "echo begun > \\$0; while sleep 0.01; do echo more >> \\$0; done"
    manifest = job(tmp_path, quantum(f'setsid sh -c "{writer}" $1 & sleep 0.3', outputs=[output("a")]))
    assert statuses(run(executor, manifest)) == ["succeeded"]
    before = staged(manifest)
    assert before["a.txt"].startswith("begun\nmore\n")
    time.sleep(0.1)
    assert staged(manifest) == before


def test_a_job_whose_report_cannot_be_written_leaves_none(executor: LocalExecutor, tmp_path: Path) -> None:
    (tmp_path / "staging").write_text("a file where a folder should be")
    manifest = job(tmp_path, quantum("echo one > $1", outputs=[output("a")]))
    executor.submit([manifest])
    (ended,) = wait(executor, 1)
    assert ended.returncode == 74
    assert ended.folder is not None
    assert ended.folder.exists()
