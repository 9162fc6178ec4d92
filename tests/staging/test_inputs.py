"""Inputs in: linked, copied or through the cache; verified, read only, from the first replica that has them."""

import hashlib
import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

import pytest
from full_disk import largest_file
from loadmaster_registry.errors import StageError
from loadmaster_staging.endpoints import troubled
from loadmaster_staging.inputs import stage_in
from loadmaster_staging.links import Links, remembered
from loadmaster_staging.location import remote
from loadmaster_staging.manifest import InputFile, Staging
from staged_files import bytes_of, given_file, web_server


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


def test_a_disk_that_is_full_is_told_and_is_no_fault_of_the_source(tmp_path: Path) -> None:
    file = given_file(tmp_path / "c", bytes(100_000))
    staging = Staging("copy", endpoints=str(tmp_path / "endpoints"))
    with largest_file(50_000), pytest.raises(StageError, match="could not be brought to the job"):
        stage_in([file], tmp_path / "job" / "in", staging)
    assert not troubled(tmp_path / "endpoints")


@pytest.fixture
def other_disk() -> Iterator[Path]:
    """Return a folder on a file system that is not that of `tmp_path`."""
    with TemporaryDirectory(dir="/dev/shm") as folder:
        yield Path(folder)


def test_on_one_file_system_links_are_hard_and_this_is_remembered(tmp_path: Path) -> None:
    file = given_file(tmp_path / "x")
    staging = Staging(endpoints=str(tmp_path / "endpoints"))
    stage_in([file], tmp_path / "job" / "in", staging)
    ((means, source, target),) = remembered(tmp_path / "endpoints")
    assert means in ("hard link", "reflink")
    assert (source, target) == (str(tmp_path), str(tmp_path / "job" / "in"))


def test_from_another_file_system_a_link_is_symbolic(tmp_path: Path, other_disk: Path) -> None:
    file = given_file(other_disk / "x")
    path = stage_in([file], tmp_path / "job" / "in", Staging())[file.dataset_id]
    assert path.is_symlink()
    assert path.read_bytes() == b"bytes"


def test_where_a_remembered_means_fails_the_next_one_is_taken(tmp_path: Path, other_disk: Path) -> None:
    memory = tmp_path / "memory"
    given_file(other_disk / "x")
    assert Links(tmp_path, memory).link(other_disk / "x", tmp_path / "1") == "symbolic link"
    (answer,) = memory.iterdir()
    answer.write_text(answer.read_text().replace("symbolic", "hard"))
    assert Links(tmp_path, memory).link(other_disk / "x", tmp_path / "2") == "symbolic link"


def test_linking_what_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Links(tmp_path).link(tmp_path / "none", tmp_path / "x")
    assert not (tmp_path / "x").is_symlink()


def test_a_job_that_changes_a_reflink_changes_its_own_bytes_only(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    subprocess.run(["truncate", "-s", "300M", disk], check=True)
    maker = next((m for m in ("mkfs.xfs", "mkfs.btrfs") if subprocess.call(["which", m]) == 0), None)
    if maker is None or subprocess.call([maker, "-q", disk]) or os.geteuid():
        pytest.skip("needs root and mkfs.xfs or mkfs.btrfs")
    place = tmp_path / "mounted"
    place.mkdir()
    subprocess.run(["mount", "-o", "loop", disk, place], check=True)
    try:
        file = given_file(place / "x", b"0123456789" * 1000)
        path = stage_in([file], place / "job" / "in", Staging())[file.dataset_id]
        assert path.stat().st_nlink == 1
        path.chmod(0o644)
        path.write_bytes(b"changed")
        assert (place / "x").read_bytes() == b"0123456789" * 1000
    finally:
        subprocess.run(["umount", place], check=True)


def test_a_link_is_taken_on_trust_where_the_site_says_so_but_for_its_size(tmp_path: Path) -> None:
    trusting = Staging(verify="moved")
    file = given_file(tmp_path / "x", b"0123456789")
    (tmp_path / "x").write_bytes(b"0123456788")
    stage_in([file], tmp_path / "1" / "in", trusting)
    os.truncate(tmp_path / "x", 5)
    with pytest.raises(StageError, match="it has 5 bytes, 10 were promised"):
        stage_in([file], tmp_path / "2" / "in", trusting)
    with pytest.raises(StageError, match="it has 5 bytes, 10 were promised"):
        stage_in([file], tmp_path / "3" / "in", Staging("copy", verify="moved"))


def test_replicas_are_tried_in_order_and_all_are_told_of(tmp_path: Path, staging: Staging) -> None:
    good = given_file(tmp_path / "good", b"right")
    (tmp_path / "bad").write_bytes(b"wrong")

    def asked(*places: str) -> InputFile:
        urls = [str(tmp_path / place) for place in places]
        return InputFile("c", "id", "raw", {}, urls[0], 5, good.checksum, tuple(urls[1:]))

    for i, places in enumerate([("bad", "good"), ("none", "bad", "good"), ("good", "bad")]):
        paths = stage_in([asked(*places)], tmp_path / str(i) / "in", staging)
        assert bytes_of(paths) == {"id": b"right"}
    with pytest.raises(StageError) as caught:
        stage_in([asked("none", "bad")], tmp_path / "x" / "in", staging)
    why = caught.value.args[2]
    assert "No such file" in why
    assert f"{tmp_path}/bad: its checksum is" in why


def test_replicas_may_be_anywhere(tmp_path: Path) -> None:
    with web_server() as web:
        file = web.file("x.fits", b"far away")
        for i, url in enumerate((f"{web.url}/none", "memory://none/x", str(tmp_path / "none"))):
            asked = InputFile("c", "id", "raw", {}, url, 8, file.checksum, (file.url,))
            assert bytes_of(stage_in([asked], tmp_path / str(i) / "in", Staging())) == {"id": b"far away"}


def test_a_protocol_that_nobody_knows_is_told_at_once(tmp_path: Path, staging: Staging) -> None:
    file = InputFile("c", "id", "raw", {}, "gopher://host/x", 5, "")
    with pytest.raises(StageError, match=r"Protocol not known: gopher"):
        stage_in([file], tmp_path / "job" / "in", staging)


def test_many_inputs_come_at_once_but_no_more_than_the_endpoint_may_serve(tmp_path: Path) -> None:
    with web_server(delay_s=0.05) as web:
        files = [web.file(f"{i}.fits", f"{i}".encode()) for i in range(12)]
        paths = stage_in(files, tmp_path / "job" / "in", Staging(streams=3))
        assert bytes_of(paths) == {f.dataset_id: f"{i}".encode() for i, f in enumerate(files)}
        assert 1 < web.most_at_once <= 3


def test_large_files_are_the_same_bytes_whatever_way_they_come(tmp_path: Path) -> None:
    content = os.urandom(37_000_001)
    local = given_file(tmp_path / "x", content)
    assert local.checksum == f"sha256:{hashlib.sha256(content).hexdigest()}"
    with web_server() as web:
        for i, file in enumerate((local, web.file("x", content))):
            paths = stage_in([file], tmp_path / str(i) / "in", Staging("copy"))
            assert bytes_of(paths) == {file.dataset_id: content}
