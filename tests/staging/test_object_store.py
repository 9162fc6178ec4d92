"""An object store as backbone: one act publishes, whatever else the store's name was given to stays."""

import io
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from loadmaster_registry.errors import StageError
from loadmaster_staging import object_store as module
from loadmaster_staging.backbone import Backbone, Gone, NameTaken
from loadmaster_staging.checksum import measure, pour
from loadmaster_staging.location import remote
from loadmaster_staging.stage import WrittenFile, stage_out

PUBLISH = """\
import sys, time
from loadmaster_staging.backbone import Backbone, NameTaken
root, me, start = sys.argv[1:]
backbone = Backbone(root)
backbone.exists("warm")
time.sleep(max(0.0, float(start) - time.time()))
for number in range(20):
    try:
        checksum = sys.stdin.readline().strip()
        backbone.publish(f"{root}/.staging/r.{me}/1.1-{number}", f"run/{number}", resumed_checksum=checksum)
        print(number)
    except NameTaken:
        pass
"""


@pytest.fixture
def memory() -> Backbone:
    return Backbone(f"memory://{uuid4().hex}")


@pytest.fixture
def s3(object_store: str) -> Backbone:
    return Backbone(f"{object_store}/{uuid4().hex}")


def put(backbone: Backbone, path: str, content: bytes) -> str:
    url = backbone.url(path)
    fs, inner = remote(url)
    fs.pipe_file(inner, content)
    return url


def content(backbone: Backbone, path: str) -> bytes:
    with backbone.open(path) as stream:
        return stream.read()


def uploads(backbone: Backbone) -> list[str]:
    """Return the keys of multipart uploads that were neither finished nor given up."""
    fs, inner = remote(backbone.root_url)
    bucket, _, prefix = inner.partition("/")
    found = fs.call_s3("list_multipart_uploads", Bucket=bucket, Prefix=prefix)
    return [upload["Key"] for upload in found.get("Uploads", ())]


@pytest.mark.integration
@pytest.mark.parametrize("alike", [False, True], ids=["different bytes", "equal bytes"])
def test_of_two_processes_that_publish_the_same_names_at_once_exactly_one_wins_each(
    s3: Backbone, alike: bool
) -> None:
    checksums: dict[str, str] = {}
    for me in ("a", "b"):
        for number in range(20):
            url = put(s3, f".staging/r.{me}/1.1-{number}", b"bytes" if alike else me.encode() * 1000)
        checksums[me] = measure(url).checksum
    start = str(time.time() + 2.5)
    processes = {
        me: subprocess.Popen(
            [sys.executable, "-c", PUBLISH, s3.root_url, me, start],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for me in ("a", "b")
    }
    won = {me: p.communicate(f"{checksums[me]}\n" * 20)[0].split() for me, p in processes.items()}
    assert [p.returncode for p in processes.values()] == [0, 0]
    assert sorted(won["a"] + won["b"], key=int) == [str(number) for number in range(20)]
    if not alike:
        for me, numbers in won.items():
            assert all(content(s3, f"run/{number}") == me.encode() * 1000 for number in numbers)


@pytest.mark.integration
def test_a_file_of_somebody_else_with_the_same_bytes_is_neither_ours_nor_taken_back(s3: Backbone) -> None:
    theirs = put(s3, "x", b"same")
    ours = put(s3, ".staging/r.a/1.1-x", b"same")
    checksum = measure(theirs).checksum
    with pytest.raises(NameTaken):
        s3.publish(ours, "x", resumed_checksum=checksum)
    s3.withdraw(ours, "x", checksum=checksum)
    assert content(s3, "x") == b"same"


@pytest.mark.parametrize("store", ["memory", pytest.param("s3", marks=pytest.mark.integration)])
@pytest.mark.parametrize("size_bytes", [0, 1, 100_000])
def test_a_file_of_any_size_is_published_and_stands_in_the_way_of_any_other(
    request: pytest.FixtureRequest, store: str, size_bytes: int
) -> None:
    backbone: Backbone = request.getfixturevalue(store)
    first = put(backbone, ".staging/r.a/1.1-x", b"x" * size_bytes)
    backbone.publish(first, "run/x")
    for other in (b"", b"other"):
        if other != b"x" * size_bytes:
            with pytest.raises(NameTaken):
                backbone.publish(put(backbone, ".staging/r.b/1.1-y", other), "run/x")
    assert content(backbone, "run/x") == b"x" * size_bytes


@pytest.mark.integration
def test_names_with_every_character_that_a_path_may_have_are_published(s3: Backbone) -> None:
    path = "u/ä b/100%/[x]*?#1/x+y&z=1.txt"
    s3.publish(put(s3, f"{s3.staging_url('u/ä%2F', 'cafe')}/1.1-ä%20[1]+.txt", b"x"), path)
    assert content(s3, path) == b"x"


@pytest.mark.integration
def test_what_was_removed_by_others_is_not_remembered(s3: Backbone) -> None:
    put(s3, "run/x", b"x")
    fs, folder = remote(s3.url("run"))
    assert fs.ls(folder)
    assert s3.exists("run/x")
    subprocess.run(
        [
            sys.executable,
            "-c",
            f"from fsspec.core import url_to_fs as u; f, p = u({s3.url('run/x')!r}); f.rm(p)",
        ],
        check=True,
    )
    assert not s3.exists("run/x")
    assert s3.staged_names(s3.url("run")) == []


@pytest.mark.integration
def test_what_is_too_large_to_be_copied_at_once_is_copied_in_parts(
    s3: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PART_BYTES", 5 << 20)
    large = bytes(range(256)) * (12 << 12)
    fs, source = remote(put(s3, ".staging/r.a/1.1-x", large))
    bucket, key, _ = fs.split_path(source)
    _, target = remote(s3.url("run/x"))
    place = {"Bucket": bucket, "Key": target.removeprefix(f"{bucket}/")}

    def copy() -> None:
        module._copied_in_parts(fs, {"Bucket": bucket, "Key": key}, place, {}, len(large))

    copy()
    assert content(s3, "run/x") == large
    with pytest.raises(FileExistsError):
        copy()
    assert uploads(s3) == []


class Broken(io.BytesIO):
    """Bytes of which the last cannot be read."""

    def read(self, size: int | None = -1, /) -> bytes:
        if not (block := super().read(size)):
            raise OSError(5, "Input/output error")
        return block


@pytest.mark.integration
def test_an_upload_that_breaks_off_leaves_nothing_to_be_seen_or_paid_for(s3: Backbone) -> None:
    fs, target = remote(s3.url("x"))
    with pytest.raises(OSError, match="Input/output error"):
        pour(Broken(b"x" * (12 << 20)), fs.open(target, "wb", block_size=5 << 20))
    assert not s3.exists("x")
    assert uploads(s3) == []


@pytest.mark.integration
def test_what_a_killed_process_had_begun_to_send_goes_with_the_folder(s3: Backbone) -> None:
    folder = s3.staging_url("u/run", "cafe")
    fs, target = remote(f"{folder}/1.1-x")
    sending = fs.open(target, "wb", block_size=5 << 20)
    sending.write(b"x" * (6 << 20))
    sending.flush()
    sending.closed = True  # as if it had been killed here
    assert len(uploads(s3)) == 1
    put(s3, f"{folder}/1.1-y", b"y")
    s3.remove_staged(folder)
    assert uploads(s3) == []
    assert s3.staged_names(folder) == []


class Careless(MemoryFileSystem):
    """A store that takes no notice of conditions, as many do."""

    protocol = "careless"
    store: dict[str, object] = {}  # noqa: RUF012 (as in its base class)
    pseudo_dirs: list[str] = [""]  # noqa: RUF012

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **settings: object) -> None:
        super().pipe_file(path, value)

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(super()._strip_protocol(path.replace("careless://", "memory://")))


@pytest.fixture
def careless() -> Iterator[Backbone]:
    fsspec.register_implementation("careless", Careless, clobber=True)
    yield Backbone(f"careless://{uuid4().hex}")
    Careless.store.clear()


def test_a_store_that_takes_no_notice_of_conditions_is_asked_first(careless: Backbone) -> None:
    careless.publish(put(careless, ".staging/r.a/1.1-x", b"first"), "run/x")
    with pytest.raises(NameTaken):
        careless.publish(put(careless, ".staging/r.b/1.1-x", b"second"), "run/x")
    assert content(careless, "run/x") == b"first"


def test_what_the_store_was_tried_with_is_gone(careless: Backbone, memory: Backbone) -> None:
    for backbone in (careless, memory):
        staged = put(backbone, ".staging/r.a/1.1-x", b"x")
        backbone.publish(staged, "run/x")
        backbone.remove_staged(staged)
        assert backbone.staged_names(backbone.url(".staging")) == []


@pytest.mark.integration
def test_a_store_without_that_bucket_says_so(object_store: str, tmp_path: Path) -> None:
    nowhere = Backbone(f"s3://no-such-bucket-{uuid4().hex}/x")
    (tmp_path / "x").write_text("x")
    with pytest.raises(StageError, match="bucket"):
        stage_out([WrittenFile("id", tmp_path / "x")], nowhere.staging_url("r", "t") + "/1.1")
    with pytest.raises(StageError, match="bucket") as caught:
        nowhere.publish(f"{nowhere.root_url}/.staging/r.t/1.1-x", "run/x")
    assert not isinstance(caught.value, Gone)
