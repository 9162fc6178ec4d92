"""Bytes over connections that break, from servers that fail: resumed, retried, paused, and told."""

import os
import time
from itertools import pairwise
from pathlib import Path

import pytest
from loadmaster_registry.errors import StageError
from loadmaster_staging.endpoints import Endpoints, endpoint_of, troubled
from loadmaster_staging.inputs import stage_in
from loadmaster_staging.location import remote
from loadmaster_staging.manifest import InputFile, Staging
from loadmaster_staging.mover import REQUEST_BYTES
from staged_files import bytes_of, web_server

LARGE = os.urandom(2 * REQUEST_BYTES + 1_000_000)


def site(tmp_path: Path, **settings: object) -> Staging:
    return Staging(**{"endpoints": str(tmp_path / "endpoints"), **settings})  # type: ignore[arg-type]


def test_a_large_file_goes_on_where_the_connection_broke(tmp_path: Path) -> None:
    with web_server() as web:
        file = web.file("x", LARGE)
        web.cuts["/x"] = [REQUEST_BYTES, 1000]  # the second request of three breaks off
        paths = stage_in([file], tmp_path / "job" / "in", site(tmp_path))
        assert bytes_of(paths) == {file.dataset_id: LARGE}
        assert web.sent["/x"] == len(LARGE) + 1000
    assert not troubled(tmp_path / "endpoints"), "it answers again"


def test_from_a_server_without_ranges_it_comes_from_the_beginning(tmp_path: Path) -> None:
    with web_server(has_ranges=False) as web:
        file = web.file("x", LARGE)
        paths = stage_in([file], tmp_path / "1" / "in", site(tmp_path))
        assert bytes_of(paths) == {file.dataset_id: LARGE}
        web.cuts["/x"] = [20_000_000] * 2
        paths = stage_in([file], tmp_path / "2" / "in", site(tmp_path))
        assert bytes_of(paths) == {file.dataset_id: LARGE}


def test_a_flipped_bit_on_the_way_is_noticed_and_the_file_fetched_again(tmp_path: Path) -> None:
    with web_server() as web:
        files = [web.file("small", b"0123456789"), web.file("large", LARGE)]
        web.flips |= {"/small", "/large"}
        paths = stage_in(files, tmp_path / "job" / "in", site(tmp_path))
        assert bytes_of(paths) == {files[0].dataset_id: b"0123456789", files[1].dataset_id: LARGE}
        assert web.n_got("small") == 2


def test_a_file_that_is_wrong_at_rest_is_refused_after_two_tries(tmp_path: Path) -> None:
    with web_server() as web:
        file = web.file("x", b"0123456789")
        web.files["/x"] = b"0123456788"
        with pytest.raises(StageError, match="its checksum is"):
            stage_in([file], tmp_path / "job" / "in", site(tmp_path))
        assert web.n_got("x") == 2


def test_what_a_server_has_not_is_told_at_once(tmp_path: Path) -> None:
    with web_server() as web:
        file = InputFile("c", "id", "raw", {"visit": 3}, f"{web.url}/none", 5, "")
        with pytest.raises(StageError, match=r"raw \{'visit': 3\}") as caught:
            stage_in([file], tmp_path / "job" / "in", site(tmp_path))
        assert f"{web.url}/none" in str(caught.value)
        assert len(web.requests) == 1


def test_errors_of_a_server_are_tried_again(tmp_path: Path) -> None:
    with web_server() as web:
        file = web.file("x", b"content")
        web.errors["/x"] = 2
        paths = stage_in([file], tmp_path / "job" / "in", site(tmp_path))
        assert bytes_of(paths) == {file.dataset_id: b"content"}
        times = [at for _, _, at in web.requests]
        assert len(times) == 3
        assert times[2] - times[1] > 0.2, "longer each time"


def test_a_server_that_is_down_is_paused_for_all_and_jobs_wait_until_it_is_back(tmp_path: Path) -> None:
    staging = site(tmp_path, pause_s=1.5)
    with web_server() as web:
        file, other = web.file("x", b"content"), web.file("y", b"other")
        web.errors["/x"] = web.errors["/y"] = 1
        started = time.time()
        begun = Endpoints(tmp_path / "endpoints", 4, 1.5)
        for _ in range(4):
            begun.failed(web.url, "others have failed there, too")
        paths = stage_in([file, other], tmp_path / "1" / "in", staging)
        assert bytes_of(paths) == {file.dataset_id: b"content", other.dataset_id: b"other"}
        assert time.time() - started > 1, "it waited, and did not fail"
        assert not troubled(tmp_path / "endpoints")
        gaps = sorted(b[2] - a[2] for a, b in pairwise(web.requests))
        assert gaps[-1] > 1, "nobody asked during a pause"


def test_a_paused_server_is_told_of_and_patience_ends(tmp_path: Path) -> None:
    with web_server() as web:
        file = web.file("x", b"content")
        web.errors["/x"] = 100
        for _ in range(3):
            Endpoints(tmp_path / "endpoints", 4, 30).failed(web.url, "others have failed there, too")
        with pytest.raises(StageError, match="no answer for 3 s") as caught:
            stage_in([file], tmp_path / "1" / "in", site(tmp_path, patience_s=3, pause_s=30))
        assert "loadmaster status" in str(caught.value)
        (endpoint, health), *others = troubled(tmp_path / "endpoints").items()
        assert (endpoint, others) == (web.url, [])
        assert health.failures == 5
        assert health.until > time.time() + 10
        assert "500" in health.why
        web.requests.clear()
        with pytest.raises(StageError, match="no answer"):
            stage_in([file], tmp_path / "2" / "in", site(tmp_path, patience_s=1, pause_s=30))
        assert not web.requests, "the pause holds for later jobs, too"


def test_nobody_answers_is_like_an_error(tmp_path: Path) -> None:
    file = InputFile("c", "id", "raw", {}, "http://127.0.0.1:9/x", 5, "")
    with pytest.raises(StageError, match="no answer for 1 s"):
        stage_in([file], tmp_path / "1" / "in", site(tmp_path, patience_s=1))


def test_any_file_system_of_fsspec_will_do(tmp_path: Path) -> None:
    fs, inner = remote("memory://many/a.fits")
    fs.pipe_file(inner, LARGE)
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "b").write_bytes(b"b")
    files = [
        InputFile("c", "1", "raw", {}, "memory://many/a.fits", len(LARGE), ""),
        InputFile("c", "2", "raw", {}, f"local://{tmp_path}/src/b", 1, ""),
        InputFile("c", "3", "raw", {}, f"file://{tmp_path}/src/b", 1, ""),
    ]
    paths = stage_in(files, tmp_path / "job" / "in", site(tmp_path))
    assert bytes_of(paths) == {"1": LARGE, "2": b"b", "3": b"b"}


@pytest.mark.parametrize(
    ("url", "endpoint"),
    [
        ("s3://bucket/a/b.fits", "s3://bucket"),
        ("https://host:8080/a?b=c", "https://host:8080"),
        ("file:///proc/self/status", "file:///proc"),
        ("/dev/shm/x", "file:///dev/shm"),
    ],
)
def test_an_endpoint_is_a_server_or_a_file_system(url: str, endpoint: str) -> None:
    assert endpoint_of(url) == endpoint
