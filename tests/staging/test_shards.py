"""Small files in few large ones: what was put in comes out, whatever was killed, wherever it lies."""

import stat
from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from loadmaster_registry.errors import StageError
from loadmaster_staging import shards as module
from loadmaster_staging.backbone import Backbone
from loadmaster_staging.checksum import measure
from loadmaster_staging.inputs import stage_in
from loadmaster_staging.manifest import InputFile, Staging
from loadmaster_staging.shards import Shards, piece_of, read_piece


@pytest.fixture(params=["path", "file", "memory"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return {"path": f"{tmp_path}/s", "file": f"file://{tmp_path}/s", "memory": f"memory://{uuid4().hex}"}[
        request.param
    ]


def content(url: str) -> bytes:
    piece = piece_of(url)
    assert piece is not None
    return read_piece(piece)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None)
@given(batches=st.lists(st.lists(st.binary(max_size=40), max_size=5), max_size=5))
def test_what_was_appended_is_read_back(folder: str, batches: list[list[bytes]]) -> None:
    shards = Shards(folder, ".json")
    urls = [[f"{folder}/{name}" for name in shards.append(contents)] for contents in batches]
    assert [[content(url) for url in batch] for batch in urls] == batches
    for batch, contents in zip(urls, batches, strict=True):
        assert [measure(url).size_bytes for url in batch] == list(map(len, contents))


def test_only_pieces_of_shards_are_taken_for_such() -> None:
    piece = piece_of("s3://b/u/run/.shards/1f.shard.json#12+3")
    assert piece is not None
    assert (piece.shard_url, piece.extension, piece.offset, piece.size_bytes) == (
        "s3://b/u/run/.shards/1f.shard.json",
        ".json",
        12,
        3,
    )
    for url in (
        "raw#1+2",
        "a.fits",
        "1f.shard.json",
        "1f.shard.json#1",
        "1f.shard.json#1+2 ",
        "raw.json#1+2",
    ):
        assert piece_of(url) is None


def test_a_shard_that_is_large_is_followed_by_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ROLL_BYTES", 100)
    shards = Shards(str(tmp_path), ".txt")
    urls = [shards.append([bytes(60)])[0] for _ in range(6)]
    assert len({url.partition("#")[0] for url in urls}) == 3
    assert len(list(tmp_path.iterdir())) == 3


def test_two_processes_never_write_to_one_shard(tmp_path: Path) -> None:
    one, other = Shards(str(tmp_path), ".txt"), Shards(str(tmp_path), ".txt")
    urls = [shards.append([text])[0] for shards, text in ((one, b"1"), (other, b"2"), (one, b"3"))]
    assert [content(f"{tmp_path}/{url}") for url in urls] == [b"1", b"2", b"3"]
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("rest", [b"", b"half of what a killed process"])
def test_what_was_appended_in_part_or_by_others_shifts_nobodys_range(tmp_path: Path, rest: bytes) -> None:
    shards = Shards(str(tmp_path), ".txt")
    (first,) = shards.append([b"first"])
    path = tmp_path / first.partition("#")[0]
    path.write_bytes(path.read_bytes() + rest)
    try:
        (second,) = shards.append([b"second"])
    except OSError:
        (second,) = shards.append([b"second"])  # into another shard
    assert content(f"{tmp_path}/{first}") == b"first"
    assert content(f"{tmp_path}/{second}") == b"second"


def test_a_piece_of_a_shard_that_was_cut_off_is_an_error_not_fewer_bytes(folder: str) -> None:
    (name,) = Shards(folder, ".txt").append([b"whole"])
    url = f"{folder}/{name}"
    longer = url.replace("+5", "+6")
    with pytest.raises(OSError, match="ends 1 bytes before"):
        content(longer)


def test_a_job_gets_a_piece_as_a_file_of_its_own_read_only_and_verified(folder: str, tmp_path: Path) -> None:
    names = Shards(folder, ".json").append([b"{}", b"[1]"])
    url = f"{folder}/{names[1]}"
    found = measure(url)
    file = InputFile("c", "id", "isr_metadata", {}, url, found.size_bytes, found.checksum)
    path = stage_in([file], tmp_path / "job" / "in", Staging())["id"]
    assert path.name == "isr_metadata.json"
    assert path.read_bytes() == b"[1]"
    assert stat.S_IMODE(path.stat().st_mode) == 0o444
    wrong = InputFile("c", "id", "isr_metadata", {}, url, found.size_bytes, "sha256:00")
    with pytest.raises(StageError, match="was promised"):
        stage_in([wrong], tmp_path / "job2" / "in", Staging())


def test_a_backbone_opens_and_measures_pieces_as_it_does_files(folder: str) -> None:
    backbone = Backbone(folder)
    one, two = backbone.pack("u/run", "cafe", ".json", [b"one", b"two"])
    (three,) = backbone.pack("u/run", "cafe", ".json", [b"three"])
    for path, expected in ((one, b"one"), (two, b"two"), (three, b"three")):
        assert backbone.exists(path)
        with backbone.open(path) as stream:
            assert stream.read() == expected
        assert backbone.measure(path).size_bytes == len(expected)
    assert not backbone.exists("u/run/.shards/none.shard.json#0+1")
    with pytest.raises(StageError, match="cannot be read"):
        backbone.open("u/run/.shards/none.shard.json#0+1")
