"""Publishing: once, whole, and never over anything; on a file system and on an object store."""

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest
from loadmaster_registry.errors import StageError
from loadmaster_staging import backbone as module
from loadmaster_staging.backbone import Backbone, Gone, NameTaken
from loadmaster_staging.checksum import measure
from loadmaster_staging.location import remote


@pytest.fixture(params=["path", "file", "memory", pytest.param("s3", marks=pytest.mark.integration)])
def backbone(request: pytest.FixtureRequest, tmp_path: Path) -> Backbone:
    if request.param == "s3":
        return Backbone(f"{request.getfixturevalue('object_store')}/{uuid4().hex}")
    roots = {"path": str(tmp_path / "b"), "file": f"file://{tmp_path}/b", "memory": f"memory://{uuid4().hex}"}
    return Backbone(roots[request.param])


@pytest.fixture
def stage(backbone: Backbone) -> Callable[[str, bytes], str]:
    """Return a function that puts bytes into the staging area and returns their URL."""

    def put(name: str, content: bytes) -> str:
        url = f"{backbone.staging_url('u/run', 'cafe')}/0.1-{name}"
        fs, path = remote(url)
        fs.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
        fs.pipe_file(path, content)
        return url

    return put


def content(backbone: Backbone, path: str) -> bytes:
    with backbone.open(path) as stream:
        return stream.read()


Stage = Callable[[str, bytes], str]


def test_what_is_published_can_be_read_by_its_path(backbone: Backbone, stage: Stage) -> None:
    assert not backbone.exists("run/a/x.txt")
    backbone.publish(stage("x.txt", b"x"), "run/a/x.txt")
    assert backbone.exists("run/a/x.txt")
    assert content(backbone, "run/a/x.txt") == b"x"
    assert backbone.measure("run/a/x.txt") == measure(backbone.url("run/a/x.txt"))


def test_a_taken_name_is_refused_and_keeps_its_bytes(backbone: Backbone, stage: Stage) -> None:
    backbone.publish(stage("x.txt", b"first"), "x.txt")
    second = stage("y.txt", b"second")
    with pytest.raises(NameTaken, match="already"):
        backbone.publish(second, "x.txt")
    assert content(backbone, "x.txt") == b"first"


def test_publishing_again_after_an_interruption_is_no_second_act(backbone: Backbone, stage: Stage) -> None:
    staged = stage("x.txt", b"x")
    checksum = measure(staged).checksum
    backbone.publish(staged, "x.txt", resumed_checksum=checksum)
    backbone.publish(staged, "x.txt", resumed_checksum=checksum)
    backbone.remove_staged(staged)
    backbone.publish(staged, "x.txt", resumed_checksum=checksum)
    assert content(backbone, "x.txt") == b"x"


def test_what_was_staged_and_is_gone_is_missed(backbone: Backbone, stage: Stage) -> None:
    staged = stage("x.txt", b"x")
    backbone.remove_staged(staged)
    with pytest.raises(StageError, match="cannot be published"):
        backbone.publish(staged, "x.txt")


def test_withdrawing_takes_back_what_was_published_and_nothing_else(backbone: Backbone, stage: Stage) -> None:
    ours, checksum = stage("x.txt", b"x"), measure(stage("x.txt", b"x")).checksum
    backbone.publish(ours, "x.txt")
    backbone.withdraw(ours, "x.txt", checksum=checksum)
    assert not backbone.exists("x.txt")
    backbone.publish(stage("y.txt", b"another"), "x.txt")
    backbone.withdraw(ours, "x.txt", checksum=checksum)
    assert content(backbone, "x.txt") == b"another"


def test_what_was_withdrawn_cannot_be_published_again(backbone: Backbone, stage: Stage) -> None:
    staged = stage("x.txt", b"x")
    checksum = measure(staged).checksum
    backbone.withdraw(staged, "x.txt", checksum=checksum)
    with pytest.raises(Gone):
        backbone.publish(staged, "x.txt", resumed_checksum=checksum)
    assert not backbone.exists("x.txt")


def test_only_what_is_staged_can_be_removed(backbone: Backbone, stage: Stage) -> None:
    backbone.publish(stage("x.txt", b"x"), "x.txt")
    with pytest.raises(StageError, match="only what is staged"):
        backbone.remove_staged(backbone.url("x.txt"))
    assert backbone.exists("x.txt")


def test_what_is_staged_is_listed_by_attempt_and_removed_whole(backbone: Backbone, stage: Stage) -> None:
    root = backbone.staging_url("u/run", "cafe")
    assert backbone.staged_names(root) == []
    assert backbone.names_staged_by(f"{root}/0.1") == []
    stage("x.txt", b"x")
    assert backbone.staged_names(root) == ["0.1-x.txt"]
    assert backbone.names_staged_by(f"{root}/0.1") == ["x.txt"]
    assert backbone.names_staged_by(f"{root}/0") == []
    backbone.remove_staged(root)
    backbone.remove_staged(root)
    assert backbone.staged_names(root) == []


def test_many_things_are_done_in_order_however_long_each_takes(backbone: Backbone) -> None:
    def slow(number: int) -> int:
        time.sleep(0.03 - number * 0.001)
        return -number

    assert backbone.each(slow, range(24)) == [-n for n in range(24)]
    assert backbone.each(abs, [-1, -2]) == [1, 2]
    assert backbone.each(abs, []) == []


@pytest.mark.parametrize("path", ["../x", "a/../../x", "/etc/x", "", "s3://elsewhere/x"])
def test_no_path_leads_out_of_the_backbone(backbone: Backbone, stage: Stage, path: str) -> None:
    with pytest.raises(StageError, match="no path below"):
        backbone.publish(stage("x.txt", b"x"), path)


def test_a_file_that_is_elsewhere_keeps_its_url(backbone: Backbone) -> None:
    assert backbone.url("s3://archive/raw.fits") == "s3://archive/raw.fits"
    assert backbone.url("/archive/raw.fits") == "/archive/raw.fits"
    assert backbone.url("a/b.fits") == f"{backbone.root_url}/a/b.fits"


def test_runs_with_confusable_names_are_staged_apart(tmp_path: Path) -> None:
    backbone = Backbone(str(tmp_path))
    names = ["u/a", "u%2Fa", "..", ".", "u", "u/a.1"]
    urls = {backbone.staging_url(name, "t") for name in names}
    assert len(urls) == len(names)
    assert all(Path(url).parent == tmp_path / ".staging" for url in urls)


def test_of_many_who_publish_one_name_at_once_exactly_one_wins(tmp_path: Path) -> None:
    backbone = Backbone(str(tmp_path))
    folder = tmp_path / ".staging" / "t"
    folder.mkdir(parents=True)
    staged = [folder / str(i) for i in range(16)]
    for i, path in enumerate(staged):
        path.write_text(f"{i}" * 1000)
    outcomes: list[str] = []
    gate = threading.Barrier(len(staged))

    def publish(path: Path) -> None:
        gate.wait()
        try:
            backbone.publish(str(path), "run/x")
            outcomes.append(path.name)
        except NameTaken:
            outcomes.append("")

    threads = [threading.Thread(target=publish, args=(path,)) for path in staged]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (winner,) = filter(None, outcomes)
    assert (tmp_path / "run" / "x").read_text() == winner * 1000


def test_without_hard_links_publishing_moves_and_still_never_overwrites(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")  # what link(2) says on such a file system

    monkeypatch.setattr(module.os, "link", refuse)
    backbone = Backbone(str(tmp_path))
    folder = tmp_path / ".staging"
    folder.mkdir()
    for name in ("x", "y"):
        (folder / name).write_text(name)
    checksum = measure(str(folder / "x")).checksum
    backbone.publish(str(folder / "x"), "run/x", resumed_checksum=checksum)
    assert not (folder / "x").exists()
    backbone.publish(str(folder / "x"), "run/x", resumed_checksum=checksum)
    with pytest.raises(NameTaken):
        backbone.publish(str(folder / "y"), "run/x")
    assert (tmp_path / "run" / "x").read_text() == "x"
    backbone.withdraw(str(folder / "x"), "run/x", checksum=checksum)
    assert (folder / "x.withdrawn").read_text() == "x"
    assert not (tmp_path / "run" / "x").exists()


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="needs a second file system: /dev/shm")
def test_a_file_from_another_file_system_is_copied_then_made_visible_at_once(tmp_path: Path) -> None:
    source = Path("/dev/shm") / f"loadmaster-test-{os.getpid()}"
    source.write_text("far")
    try:
        backbone = Backbone(str(tmp_path))
        backbone.publish(str(source), "x")
        with pytest.raises(NameTaken):
            backbone.publish(str(source), "x")
        assert (tmp_path / "x").read_text() == "far"
        assert [path.name for path in tmp_path.iterdir()] == ["x"]
    finally:
        source.unlink()
