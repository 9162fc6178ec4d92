"""Inputs in and outputs out: verified, read only, whole or not at all."""

import os
import resource
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest
from loadmaster_registry.errors import StageError
from loadmaster_staging.checksum import measure
from loadmaster_staging.location import remote
from loadmaster_staging.manifest import InputFile, Report, Staging
from loadmaster_staging.stage import (
    WrittenFile,
    clear_folder,
    read_report,
    stage_in,
    stage_out,
    write_report,
)

REPORT = Report("r", 0, 1, "token", "done", (), "host", "then", "now", 0.0, 0.0, 0.0)


def given_file(path: Path, content: bytes = b"bytes", **changed: object) -> InputFile:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    found = measure(str(path))
    facts = {"url": str(path), "size_bytes": found.size_bytes, "checksum": found.checksum, **changed}
    return InputFile("c", uuid4().hex, "raw", {"visit": 1}, **facts)  # type: ignore[arg-type]


@pytest.fixture(params=["direct", "copy"])
def staging(request: pytest.FixtureRequest) -> Staging:
    return Staging(transfer=request.param)


def test_inputs_come_under_their_own_names_and_each_once(tmp_path: Path, staging: Staging) -> None:
    one, two = given_file(tmp_path / "a" / "x.fits", b"1"), given_file(tmp_path / "b" / "x.fits", b"2")
    paths = stage_in([one, two, one], tmp_path / "job" / "in", staging)
    assert [paths[file.dataset_id].read_bytes() for file in (one, two)] == [b"1", b"2"]
    assert paths[one.dataset_id].name == "x.fits"
    assert all(path.suffix == ".fits" for path in paths.values())
    assert len(list((tmp_path / "job" / "in").iterdir())) == 2


def test_a_link_shares_the_bytes_and_a_copy_does_not(tmp_path: Path) -> None:
    file = given_file(tmp_path / "x")
    linked = stage_in([file], tmp_path / "1" / "in", Staging())[file.dataset_id]
    copied = stage_in([file], tmp_path / "2" / "in", Staging("copy"))[file.dataset_id]
    assert linked.samefile(tmp_path / "x")
    assert not copied.samefile(tmp_path / "x")
    assert stat.S_IMODE(copied.stat().st_mode) == 0o444


def test_where_hard_links_fail_a_symbolic_one_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    file = given_file(tmp_path / "x")
    path = stage_in([file], tmp_path / "job" / "in", Staging())[file.dataset_id]
    assert path.is_symlink()
    assert path.read_bytes() == b"bytes"


def test_an_input_that_is_itself_a_link_is_followed(tmp_path: Path, staging: Staging) -> None:
    real = given_file(tmp_path / "real")
    (tmp_path / "alias").symlink_to("real")
    alias = InputFile("c", "id", "raw", {}, str(tmp_path / "alias"), real.size_bytes, real.checksum)
    assert stage_in([alias], tmp_path / "job" / "in", staging)["id"].read_bytes() == b"bytes"


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"size_bytes": 4}, "it has 5 bytes, 4 were promised"),
        ({"checksum": "sha256:00"}, "its checksum is sha256:"),
        ({"checksum": "crc99:00"}, "no algorithm"),
        ({"url": "/nowhere/x"}, "No such file"),
    ],
)
def test_an_input_that_is_not_what_was_promised_is_refused(
    tmp_path: Path, staging: Staging, changed: dict[str, object], why: str
) -> None:
    file = given_file(tmp_path / "x", **changed)
    with pytest.raises(StageError, match=why):
        stage_in([file], tmp_path / "job" / "in", staging)


def test_a_truncated_input_is_noticed(tmp_path: Path, staging: Staging) -> None:
    file = given_file(tmp_path / "x", b"0123456789")
    os.truncate(tmp_path / "x", 5)
    with pytest.raises(StageError, match="it has 5 bytes, 10 were promised"):
        stage_in([file], tmp_path / "job" / "in", staging)


def test_a_flipped_bit_is_noticed(tmp_path: Path, staging: Staging) -> None:
    file = given_file(tmp_path / "x", b"0123456789")
    (tmp_path / "x").write_bytes(b"0123456788")
    with pytest.raises(StageError, match="its checksum is"):
        stage_in([file], tmp_path / "job" / "in", staging)


def test_what_nobody_measured_is_taken_as_it_is(tmp_path: Path, staging: Staging) -> None:
    file = given_file(tmp_path / "x", size_bytes=-1, checksum="")
    assert stage_in([file], tmp_path / "job" / "in", staging)[file.dataset_id].read_bytes() == b"bytes"


def test_other_algorithms_are_verified_too(tmp_path: Path, staging: Staging) -> None:
    file = given_file(tmp_path / "x", checksum="md5:4b3a6218bb3e3a7303e8a171a60fcf92")
    assert stage_in([file], tmp_path / "job" / "in", staging)


def test_inputs_come_from_an_object_store(tmp_path: Path, staging: Staging) -> None:
    url = f"memory://{uuid4().hex}/x.fits"
    fs, inner = remote(url)
    fs.pipe_file(inner, b"far")
    file = InputFile("c", "id", "raw", {}, url, 3, "")
    assert stage_in([file], tmp_path / "job" / "in", staging)["id"].read_bytes() == b"far"
    with pytest.raises(StageError, match="4 were promised"):
        stage_in([InputFile("c", "id", "raw", {}, url, 4, "")], tmp_path / "job2" / "in", staging)


def test_outputs_are_moved_measured_and_made_read_only(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.txt").write_text("abc")
    (staged,) = stage_out([WrittenFile("id", tmp_path / "out" / "a.txt")], str(tmp_path / "staging"))
    target = tmp_path / "staging" / "a.txt"
    assert (staged.size_bytes, staged.checksum) == (3, measure(str(target)).checksum)
    assert not target.stat().st_mode & 0o222
    assert not (tmp_path / "out" / "a.txt").exists()


def test_an_output_that_shares_its_bytes_with_another_name_is_copied(tmp_path: Path) -> None:
    (tmp_path / "raw").write_text("abc")
    os.link(tmp_path / "raw", tmp_path / "a.txt")
    stage_out([WrittenFile("id", tmp_path / "a.txt")], str(tmp_path / "staging"))
    (tmp_path / "raw").write_text("changed")
    assert (tmp_path / "staging" / "a.txt").read_text() == "abc"


def test_outputs_go_to_an_object_store_with_the_report(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("abc")
    url = f"memory://{uuid4().hex}/job"
    (staged,) = stage_out([WrittenFile("id", tmp_path / "a.txt")], url)
    assert measure(f"{url}/a.txt").checksum == staged.checksum
    assert read_report(url, "token") is None
    write_report(REPORT, url)
    assert read_report(url, "token") == REPORT


def test_a_report_of_another_attempt_is_none(tmp_path: Path) -> None:
    write_report(REPORT, str(tmp_path / "s"))
    assert read_report(str(tmp_path / "s"), "token") == REPORT
    assert read_report(str(tmp_path / "s"), "other") is None


@contextmanager
def largest_file(size_bytes: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_that_is_full_is_told(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(100_000))
    os.link(tmp_path / "a", tmp_path / "b")  # so that it must be copied
    with largest_file(50_000), pytest.raises(StageError, match="could not be brought to the staging area"):
        stage_out([WrittenFile("id", tmp_path / "b")], str(tmp_path / "staging"))
    file = given_file(tmp_path / "c", bytes(100_000))
    with largest_file(50_000), pytest.raises(StageError, match="could not be brought to the job"):
        stage_in([file], tmp_path / "job" / "in", Staging("copy"))


def test_a_job_folder_is_cleared_although_its_inputs_are_read_only(tmp_path: Path) -> None:
    stage_in([given_file(tmp_path / "x")], tmp_path / "job" / "in", Staging("copy"))
    clear_folder(tmp_path / "job")
    assert not (tmp_path / "job").exists()
    assert (tmp_path / "x").read_bytes() == b"bytes"
