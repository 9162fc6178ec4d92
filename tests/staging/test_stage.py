"""Outputs out: measured, read only, whole or not at all."""

import hashlib
import os
from pathlib import Path
from uuid import uuid4

import pytest
from full_disk import largest_file
from loadmaster_registry.errors import StageError
from loadmaster_staging.checksum import measure
from loadmaster_staging.manifest import Report
from loadmaster_staging.stage import (
    WrittenFile,
    clear_folder,
    read_report,
    stage_out,
    write_report,
)

REPORT = Report("r", 0, 1, "token", "done", (), "host", "then", "now", 0.0, 0.0, 0.0)


def test_outputs_are_moved_measured_and_made_read_only(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.txt").write_text("abc")
    (staged,) = stage_out([WrittenFile("id", tmp_path / "out" / "a.txt")], str(tmp_path / "staging"))
    target = tmp_path / "staging-a.txt"
    assert (staged.size_bytes, staged.checksum) == (3, measure(str(target)).checksum)
    assert not target.stat().st_mode & 0o222
    assert not (tmp_path / "out" / "a.txt").exists()


def test_an_output_that_shares_its_bytes_with_another_name_is_copied(tmp_path: Path) -> None:
    (tmp_path / "raw").write_text("abc")
    os.link(tmp_path / "raw", tmp_path / "a.txt")
    stage_out([WrittenFile("id", tmp_path / "a.txt")], str(tmp_path / "staging"))
    (tmp_path / "raw").write_text("changed")
    assert (tmp_path / "staging-a.txt").read_text() == "abc"


def test_outputs_go_to_an_object_store_with_the_report(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("abc")
    url = f"memory://{uuid4().hex}/job"
    (staged,) = stage_out([WrittenFile("id", tmp_path / "a.txt")], url)
    assert measure(f"{url}-a.txt").checksum == staged.checksum
    assert read_report(url, "token") is None
    write_report(REPORT, url)
    assert read_report(url, "token") == REPORT


def test_a_report_of_another_attempt_is_none(tmp_path: Path) -> None:
    write_report(REPORT, str(tmp_path / "s"))
    assert read_report(str(tmp_path / "s"), "token") == REPORT
    assert read_report(str(tmp_path / "s"), "other") is None


def test_a_disk_that_is_full_is_told(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(100_000))
    os.link(tmp_path / "a", tmp_path / "b")  # so that it must be copied
    with largest_file(50_000), pytest.raises(StageError, match="could not be brought to the staging area"):
        stage_out([WrittenFile("id", tmp_path / "b")], str(tmp_path / "staging"))


def test_a_job_folder_is_cleared_although_its_inputs_are_read_only(tmp_path: Path) -> None:
    (tmp_path / "job" / "in").mkdir(parents=True)
    (tmp_path / "job" / "in" / "x").write_bytes(b"bytes")
    (tmp_path / "job" / "in").chmod(0o555)
    clear_folder(tmp_path / "job")
    assert not (tmp_path / "job").exists()


@pytest.mark.parametrize("algorithm", ["sha256", "sha512", "blake2b", "md5"])
def test_outputs_are_measured_by_the_algorithm_that_the_site_names(tmp_path: Path, algorithm: str) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    (staged,) = stage_out([WrittenFile("id", tmp_path / "a")], str(tmp_path / "s"), algorithm)
    assert staged.checksum == f"{algorithm}:{hashlib.new(algorithm, b'abc').hexdigest()}"
