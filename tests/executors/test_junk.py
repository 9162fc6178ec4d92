"""Undeclared files: told of in every report, packed where they are wanted, and unpacked with care."""

import io
import json
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest
from hand_jobs import job, output, quantum, run, staged, statuses
from loadmaster_executors.executor import RunPlace
from loadmaster_executors.local import LocalExecutor
from loadmaster_registry.errors import StageError
from loadmaster_staging import junk
from loadmaster_staging.manifest import Manifest, OutputFile, QuantumSpec, Report, Staging
from toy_survey import Survey

LITTER = (
    "echo made > $1; echo one > one.txt; mkdir -p deep; echo two > deep/two.txt; ln -s /etc/hostname link"
)
PIPELINE = """
description: toy
tasks:
  litter:
    command: sh -c 'echo made > $0; echo {data_id.detector} > left.txt; test {data_id.detector} != 2 || rm left.txt' \
{outputs.made.path}
    dimensions: [instrument, detector]
    inputs: {number: {dataset_type: number, storage_class: Text, dimensions: [instrument, detector]}}
    outputs: {made: {dataset_type: made, storage_class: Text, dimensions: [instrument, detector]}}
"""


@pytest.fixture
def executor(tmp_path: Path) -> Iterator[LocalExecutor]:
    made = LocalExecutor(1)
    made.prepare(RunPlace(tmp_path, "t", ()))
    yield made
    made.close()


def with_junk(spec: QuantumSpec) -> QuantumSpec:
    return replace(
        spec, junk=OutputFile("junk", str(uuid4()), "shell_junk", {"visit": 1}, "run/shell_junk.tar")
    )


def archive_of(manifest: Manifest, report: Report, index: int = 0) -> dict[str, str]:
    """Return what the archive of a quantum holds."""
    spec = manifest.quanta[index]
    assert spec.junk is not None
    (file,) = [f for f in report.quanta[index].outputs if f.dataset_id == spec.junk.dataset_id]
    with tarfile.open(f"{manifest.staging_url}-{file.name}") as opened:
        return {m.name: opened.extractfile(m).read().decode() for m in opened.getmembers()}  # type: ignore[union-attr]


def test_undeclared_files_are_told_of_and_left_behind(executor: LocalExecutor, tmp_path: Path) -> None:
    manifest = job(tmp_path, quantum(LITTER, outputs=[output("a")]))
    report = run(executor, manifest)
    assert statuses(report) == ["succeeded"]
    assert report.quanta[0].undeclared == ("work/deep/two.txt", "work/link", "work/one.txt")
    assert staged(manifest) == {"a.txt": "made\n"}


def test_where_they_are_wanted_they_come_home_in_one_archive(executor: LocalExecutor, tmp_path: Path) -> None:
    spec = with_junk(quantum(LITTER, outputs=[output("a")]))
    manifest = job(tmp_path, spec, staging=Staging(junk_bytes=1000))
    held = archive_of(manifest, run(executor, manifest))
    listing = json.loads(held.pop(junk.LISTING))
    assert held == {"work/one.txt": "one\n", "work/deep/two.txt": "two\n"}
    assert listing == [
        {"name": "work/deep/two.txt", "size_bytes": 4},
        {"name": "work/link", "size_bytes": 0, "left_out": "a symbolic link"},
        {"name": "work/one.txt", "size_bytes": 4},
    ]


def test_what_is_beyond_the_limit_is_listed_only(executor: LocalExecutor, tmp_path: Path) -> None:
    spec = with_junk(quantum("head -c 900 /dev/zero > big; echo small > small", outputs=[]))
    manifest = job(tmp_path, spec, staging=Staging(junk_bytes=100))
    held = archive_of(manifest, run(executor, manifest))
    assert set(held) == {junk.LISTING, "work/small"}
    assert json.loads(held[junk.LISTING])[0] == {
        "name": "work/big",
        "size_bytes": 900,
        "left_out": "beyond 100 bytes in all",
    }


def test_each_quantum_of_a_job_has_its_own(executor: LocalExecutor, tmp_path: Path) -> None:
    specs = [
        with_junk(quantum(f"echo {name} > $(dirname $1)/{name}; echo > $1", outputs=[output(name + "x")]))
        for name in ("a", "b")
    ]
    manifest = job(tmp_path, *specs, staging=Staging(junk_bytes=1000))
    report = run(executor, manifest)
    assert [quantum.undeclared for quantum in report.quanta] == [("out/a",), ("out/b",)]
    assert archive_of(manifest, report, 1).keys() == {junk.LISTING, "out/b"}


def test_no_junk_is_no_error(executor: LocalExecutor, tmp_path: Path) -> None:
    manifest = job(
        tmp_path, with_junk(quantum("echo > $1", outputs=[output("a")])), staging=Staging(junk_bytes=1000)
    )
    report = run(executor, manifest)
    assert statuses(report) == ["succeeded"]
    assert report.quanta[0].undeclared == ()
    assert len(report.quanta[0].outputs) == 1


def test_the_same_files_make_the_same_archive(tmp_path: Path) -> None:
    contents = []
    for name in ("first", "second"):
        root = tmp_path / name
        (root / "work").mkdir(parents=True)
        for file in ("b", "a") if name == "first" else ("a", "b"):
            (root / "work" / file).write_text(file)
        junk.pack(root, junk.undeclared_files(root, ["work"], set()), root / "junk.tar", 100)
        contents.append((root / "junk.tar").read_bytes())
    assert contents[0] == contents[1]


def test_an_archive_can_be_unpacked(tmp_path: Path) -> None:
    (tmp_path / "work" / "deep").mkdir(parents=True)
    (tmp_path / "work" / "deep" / "file").write_text("content")
    junk.pack(tmp_path, junk.undeclared_files(tmp_path, ["work"], set()), tmp_path / "junk.tar", 100)
    paths = junk.unpack(tmp_path / "junk.tar", tmp_path / "new")
    assert [str(path.relative_to(tmp_path / "new")) for path in paths] == [junk.LISTING, "work/deep/file"]
    assert paths[1].read_text() == "content"


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("/etc/cron.d/job", tarfile.REGTYPE),
        ("../outside", tarfile.REGTYPE),
        ("deep/../../outside", tarfile.REGTYPE),
        ("link", tarfile.SYMTYPE),
        ("hard", tarfile.LNKTYPE),
        ("device", tarfile.CHRTYPE),
        ("pipe", tarfile.FIFOTYPE),
    ],
)
def test_an_archive_that_leads_out_of_its_folder_is_not_unpacked(
    tmp_path: Path, name: str, kind: bytes
) -> None:
    with tarfile.open(tmp_path / "bad.tar", "x") as archive:
        archive.addfile(tarfile.TarInfo("harmless"), io.BytesIO())
        member = tarfile.TarInfo(name)
        member.type, member.linkname = kind, "/etc/passwd"
        archive.addfile(member, io.BytesIO())
    with pytest.raises(StageError, match="is not unpacked"):
        junk.unpack(tmp_path / "bad.tar", tmp_path / "new")
    assert not (tmp_path / "new").exists()
    assert not (tmp_path / "outside").exists()


def test_a_run_brings_junk_home_as_datasets_of_its_tasks(survey: Survey) -> None:
    plan = survey.plan_yaml(PIPELINE)
    report = survey.execute(survey.begin(plan), staging=Staging(junk_bytes=1000))
    assert report.is_good
    assert survey.contents("made").keys() == {1, 2, 3, 4}
    found = survey.contents("litter_junk")
    assert found.keys() == {1, 3, 4}
    assert "work/left.txt" in found[1]
