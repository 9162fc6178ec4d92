"""The site cache: each object crosses once, stays while a job holds it, goes when it was used least lately."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from loadmaster_registry.errors import StageError
from loadmaster_staging.cache import Cache
from loadmaster_staging.inputs import open_cache, stage_in
from loadmaster_staging.locks import locked
from loadmaster_staging.manifest import InputFile, Staging
from staged_files import bytes_of, given_file, web_server

HERE = Path(__file__).parent


def site(tmp_path: Path, **settings: object) -> Staging:
    (tmp_path / "cache").mkdir(exist_ok=True)
    facts = {"cache": str(tmp_path / "cache"), "endpoints": str(tmp_path / "endpoints"), **settings}
    return Staging("cache", **facts)  # type: ignore[arg-type]


def cache_of(staging: Staging) -> Cache:
    return open_cache(staging, Path(staging.endpoints))


def keys(staging: Staging) -> set[str]:
    return {f"sha256:{entry.key.removeprefix('sha256-')}" for entry in cache_of(staging).entries()}


def start_jobs(
    folder: Path, staging: Staging, files: Sequence[InputFile], n_jobs: int, user: int = 0
) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, str(HERE / "many_jobs.py"), str(n_jobs), str(user), str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdin is not None
    json.dump({"staging": asdict(staging), "files": [asdict(file) for file in files]}, process.stdin)
    process.stdin.close()
    process.stdin = None
    return process


def test_of_64_processes_one_fetches_and_all_have_it(tmp_path: Path) -> None:
    with web_server(delay_s=0.3) as web:
        files = [web.file("a.fits", os.urandom(3_000_000)), web.file("b.fits", b"small")]
        process = start_jobs(tmp_path, site(tmp_path), files, 64)
        out, _ = process.communicate(timeout=60)
        assert (process.returncode, out) == (0, "")
        assert [web.n_got(name) for name in ("a.fits", "b.fits")] == [1, 1]
    inodes = {(tmp_path / f"{i}-0" / "in" / "a.fits").stat().st_ino for i in range(64)}
    assert len(inodes) == 1, "all jobs share the bytes of the entry"
    assert not list((tmp_path / "cache" / "parts").iterdir())


def test_what_the_cache_has_is_not_asked_for_again(tmp_path: Path) -> None:
    with web_server() as web:
        file = web.file("x.fits", b"content")
        for i in range(3):
            assert bytes_of(stage_in([file], tmp_path / str(i) / "in", site(tmp_path))) == {
                file.dataset_id: b"content"
            }
        assert len(web.requests) == 1


def test_equal_bytes_are_one_entry_wherever_they_came_from(tmp_path: Path) -> None:
    with web_server() as web:
        stage_in([web.file("a", b"same"), web.file("b", b"same")], tmp_path / "1" / "in", site(tmp_path))
        assert web.n_got("a") + web.n_got("b") == 1
    assert len(keys(site(tmp_path))) == 1


def test_a_file_beside_the_cache_is_linked_and_one_from_another_file_system_goes_through_it(
    tmp_path: Path,
) -> None:
    beside = given_file(tmp_path / "x")
    stage_in([beside], tmp_path / "1" / "in", site(tmp_path))
    assert not keys(site(tmp_path))
    afar = given_file(Path(f"/dev/shm/{os.getpid()}-loadmaster"), b"afar")
    try:
        path = stage_in([afar], tmp_path / "2" / "in", site(tmp_path))[afar.dataset_id]
        assert not path.is_symlink()
    finally:
        Path(afar.url).unlink()
    assert keys(site(tmp_path)) == {afar.checksum}
    stage_in([afar], tmp_path / "3" / "in", site(tmp_path))


def test_a_killed_fetch_is_gone_on_with_where_it_broke_off(tmp_path: Path) -> None:
    content = os.urandom(50_000_000)
    with web_server(delay_s=0.4) as web:
        file = web.file("big.fits", content)
        process = start_jobs(tmp_path, site(tmp_path), [file], 1)
        parts = tmp_path / "cache" / "parts"
        while not any(part.stat().st_size for part in parts.glob("*.part")):
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
        begun = sum(part.stat().st_size for part in parts.glob("*.part"))
        assert 0 < begun < len(content)
        web.sent.clear()
        paths = stage_in([file], tmp_path / "2" / "in", site(tmp_path))
        assert bytes_of(paths) == {file.dataset_id: content}
        assert web.sent["/big.fits"] == len(content) - begun
    assert not list(parts.iterdir())


def held(staging: Staging, file: InputFile, folder: Path) -> None:
    stage_in([file], folder / "in", staging)


def test_what_was_used_least_lately_goes_first_and_what_a_job_has_stays(tmp_path: Path) -> None:
    staging = site(tmp_path, cache_bytes=1000)
    with web_server() as web:
        a, b, c, d = (web.file(name, os.urandom(300)) for name in "abcd")
        for name, file in (("a", a), ("b", b), ("c", c)):
            cache_file(staging, file)
            used = tmp_path / "cache" / "used" / file.checksum.replace(":", "-")
            os.utime(used, (1e9 + ord(name),) * 2)
        held(staging, b, tmp_path / "job")  # and so used last, too
        cache_file(staging, a)
        cache_file(staging, d)
        assert keys(staging) == {a.checksum, b.checksum, d.checksum}, "c was used least lately"
        os.utime(tmp_path / "cache" / "used" / b.checksum.replace(":", "-"), (1, 1))
        cache_file(staging, c)
        assert keys(staging) == {b.checksum, d.checksum, c.checksum}, "b is held by a job"
        for path in (tmp_path / "job").rglob("*"):
            path.chmod(0o755)
        (tmp_path / "job" / "in" / "b").unlink()
        cache_file(staging, a)
        assert b.checksum not in keys(staging), "the job is over"


def cache_file(staging: Staging, file: InputFile) -> None:
    _, descriptor = cache_of(staging).hold(file)
    os.close(descriptor)


def test_an_entry_that_a_job_reads_by_a_symbolic_link_is_held_until_its_process_ends(tmp_path: Path) -> None:
    staging = site(tmp_path, cache_bytes=1000)
    with web_server() as web:
        a, b = web.file("a", os.urandom(600)), web.file("b", os.urandom(600))
        path, descriptor = cache_of(staging).hold(a)  # as a job does that has such a link
        stage_in([b], tmp_path / "1" / "in", staging)
        assert keys(staging) == {a.checksum}
        assert path.exists()
        assert (tmp_path / "1" / "in" / "b").read_bytes() == web.files["/b"], "it passed the cache by"
        os.close(descriptor)
        cache_file(staging, b)
        assert keys(staging) == {b.checksum}


def test_an_object_larger_than_the_cache_passes_it_by(tmp_path: Path) -> None:
    staging = site(tmp_path, cache_bytes=1000)
    with web_server() as web:
        small, large = web.file("small", bytes(500)), web.file("large", bytes(2000))
        cache_file(staging, small)
        paths = stage_in([large], tmp_path / "1" / "in", staging)
        assert bytes_of(paths) == {large.dataset_id: bytes(2000)}
        assert keys(staging) == {small.checksum}, "and nothing was evicted in vain"


def test_the_budget_holds_however_many_fetch_at_once(tmp_path: Path) -> None:
    staging = site(tmp_path, cache_bytes=250_000)
    with web_server() as web:
        files = [web.file(f"{i}", os.urandom(20_000)) for i in range(40)]
        processes = [start_jobs(tmp_path / str(i), staging, files[i::4], 2) for i in range(4)]
        largest = 0
        while any(process.poll() is None for process in processes):
            with locked(tmp_path / "cache" / "ledger"):  # nothing is evicted while it is counted
                largest = max(largest, sum(entry.size_bytes for entry in cache_of(staging).entries()))
            time.sleep(0.02)
        for process in processes:
            assert (process.communicate()[0], process.returncode) == ("", 0)
    assert 0 < largest <= 250_000


@pytest.mark.parametrize("damage", ["flipped", "truncated", "lengthened"])
def test_a_corrupt_entry_is_noticed_and_fetched_again(tmp_path: Path, damage: str) -> None:
    staging = site(tmp_path)
    with web_server() as web:
        file = web.file("x", b"0123456789")
        stage_in([file], tmp_path / "1" / "in", staging)
        (entry,) = cache_of(staging).entries()
        entry.path.chmod(0o644)
        spoilt = {"flipped": b"0123456788", "truncated": b"01234", "lengthened": b"01234567890"}[damage]
        entry.path.write_bytes(spoilt)
        paths = stage_in([file], tmp_path / "2" / "in", staging)
        assert bytes_of(paths) == {file.dataset_id: b"0123456789"}
        assert web.n_got("x") == 2
        stage_in([file], tmp_path / "3" / "in", staging)
        assert web.n_got("x") == 2


def test_an_entry_that_was_only_touched_is_read_through_and_kept(tmp_path: Path) -> None:
    staging = site(tmp_path)
    with web_server() as web:
        file = web.file("x", b"0123456789")
        stage_in([file], tmp_path / "1" / "in", staging)
        (entry,) = cache_of(staging).entries()
        os.utime(entry.path)
        stage_in([file], tmp_path / "2" / "in", staging)
        assert web.n_got("x") == 1


def test_all_entries_can_be_read_through(tmp_path: Path) -> None:
    staging = site(tmp_path)
    with web_server() as web:
        good, bad = web.file("good", b"good"), web.file("bad", b"bad")
        cache_file(staging, good)
        cache_file(staging, bad)
        path = tmp_path / "cache" / "objects" / bad.checksum[7:9] / bad.checksum.replace(":", "-")
        path.chmod(0o644)
        path.write_bytes(b"b@d")
        status = path.stat()
        os.utime(path, ns=(status.st_atime_ns, 10**18))  # so that nothing shows from outside
        assert [entry.path for entry in cache_of(staging).verify()] == [path]
        assert keys(staging) == {good.checksum}


def test_without_a_recorded_checksum_a_url_is_fetched_once_for_each_version(tmp_path: Path) -> None:
    staging = site(tmp_path)
    with web_server() as web:
        file = web.file("x", b"first", checksum="", size_bytes=-1)
        for i in range(2):
            assert bytes_of(stage_in([file], tmp_path / str(i) / "in", staging)) == {
                file.dataset_id: b"first"
            }
        assert web.n_got("x") == 1
        web.files["/x"] = b"later"
        assert bytes_of(stage_in([file], tmp_path / "2" / "in", staging)) == {file.dataset_id: b"later"}
        assert bytes_of(stage_in([file], tmp_path / "3" / "in", staging)) == {file.dataset_id: b"later"}
        assert web.n_got("x") == 2
        process = start_jobs(tmp_path / "many", staging, [web.file("y", b"y", checksum="")], 8)
        assert (process.communicate()[0], process.returncode) == ("", 0)
        assert web.n_got("y") == 1


def test_offline_what_the_cache_has_is_there_and_what_it_has_not_is_told(tmp_path: Path) -> None:
    online, offline = site(tmp_path), site(tmp_path, is_offline=True)
    with web_server() as web:
        there, nameless = web.file("there", b"there"), web.file("nameless", b"?", checksum="")
        missing, unknown = web.file("missing", b"missing"), web.file("unknown", b"!", checksum="")
        for file in (there, nameless):
            cache_file(online, file)
    paths = stage_in([there, nameless], tmp_path / "1" / "in", offline)
    assert bytes_of(paths) == {there.dataset_id: b"there", nameless.dataset_id: b"?"}
    for i, file in enumerate((missing, unknown)):
        with pytest.raises(StageError) as caught:
            stage_in([file], tmp_path / f"x{i}" / "in", offline)
        assert file.url in str(caught.value)
        assert "offline" in str(caught.value)
        assert "loadmaster cache pull" in str(caught.value)


def test_without_a_cache_an_offline_site_says_so(tmp_path: Path) -> None:
    file = InputFile("c", "id", "raw", {}, "http://127.0.0.1:9/x", 5, "")
    with pytest.raises(StageError, match="offline"):
        stage_in([file], tmp_path / "1" / "in", Staging("copy", is_offline=True))


def test_what_is_local_needs_no_network(tmp_path: Path) -> None:
    file = given_file(tmp_path / "x")
    for i, transfer in enumerate(("direct", "copy", "cache")):
        staging = replace(site(tmp_path, is_offline=True), transfer=transfer)
        assert stage_in([file], tmp_path / str(i) / "in", staging)


def test_clearing_leaves_what_jobs_hold_and_what_was_used_lately(tmp_path: Path) -> None:
    staging = site(tmp_path, cache_bytes=10_000)
    with web_server() as web:
        a, b, c = (web.file(name, os.urandom(100)) for name in "abc")
        for file in (a, b, c):
            cache_file(staging, file)
        held(staging, b, tmp_path / "job")
        os.utime(tmp_path / "cache" / "used" / a.checksum.replace(":", "-"), (1, 1))
        cache = cache_of(staging)
        assert cache.clear(unused_since=time.time() - 60) == 100
        assert keys(staging) == {b.checksum, c.checksum}
        assert cache.clear() == 100
        assert keys(staging) == {b.checksum}
    assert (tmp_path / "cache" / "ledger").read_text() == "100"


@pytest.fixture
def common() -> Iterator[Path]:
    """Return a folder that every user may use; those below `tmp_path` are this user's own."""
    with TemporaryDirectory(prefix="loadmaster-") as name:
        Path(name).chmod(0o777)
        yield Path(name)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be several users")
def test_several_users_share_a_cache_that_its_folder_lets_them_write(common: Path) -> None:
    staging = site(common)
    (common / "cache").chmod(0o777)
    with web_server(delay_s=0.1) as web:
        files = [web.file("a", os.urandom(1000)), web.file("b", os.urandom(30_000_000))]
        process = start_jobs(common, staging, files, 6, user=40_000)
        assert (process.communicate(timeout=60)[0], process.returncode) == ("", 0)
        assert web.sent == {"/a": 1000, "/b": 30_000_000}
        late = start_jobs(common, staging, [*files, web.file("c", b"c")], 2, user=41_000)
        assert (late.communicate(timeout=60)[0], late.returncode) == ("", 0)
        assert web.sent["/b"] == 30_000_000
    assert len({entry.path.stat().st_uid for entry in cache_of(staging).entries()}) > 1
