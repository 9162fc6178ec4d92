"""Small files brought many at once: verified, within the endpoint's bounds; what fails is brought the patient way."""

import stat
from collections.abc import Sequence
from pathlib import Path

import pytest
from loadmaster_registry.errors import StageError
from loadmaster_staging import batch
from loadmaster_staging.batch import MANY, Batch, Wanted
from loadmaster_staging.checksum import Measured
from loadmaster_staging.endpoints import Endpoints, troubled
from loadmaster_staging.inputs import stage_in
from loadmaster_staging.location import remote
from loadmaster_staging.manifest import InputFile, Staging
from staged_files import WebServer, bytes_of, given_file, web_server

N = 3 * MANY


def site(tmp_path: Path, **settings: object) -> Staging:
    return Staging(**{"endpoints": str(tmp_path / "endpoints"), **settings})  # type: ignore[arg-type]


def contents_of(files: Sequence[InputFile]) -> dict[str, bytes]:
    return {file.dataset_id: str(i).encode() for i, file in enumerate(files)}


def served(web: WebServer) -> list[InputFile]:
    return [web.file(f"{i}.fits", str(i).encode()) for i in range(N)]


def written(folder: Path) -> list[InputFile]:
    return [given_file(folder / f"{i}.fits", str(i).encode()) for i in range(N)]


def test_each_is_asked_for_once_and_no_more_at_once_than_the_endpoint_may_serve(tmp_path: Path) -> None:
    with web_server(delay_s=0.01) as web:
        files = served(web)
        paths = stage_in(files, tmp_path / "job" / "in", site(tmp_path, streams=3))
        assert bytes_of(paths) == contents_of(files)
        assert len(web.requests) == N
        assert 1 < web.most_at_once <= 3


def test_streams_that_others_use_are_not_used(tmp_path: Path) -> None:
    with web_server(delay_s=0.01) as web, Endpoints(tmp_path / "endpoints", 3, 30.0).slot(web.url):
        files = served(web)
        assert bytes_of(stage_in(files, tmp_path / "job" / "in", site(tmp_path, streams=3))) == contents_of(
            files
        )
        assert web.most_at_once == 2


def test_what_breaks_off_or_comes_wrong_is_fetched_again(tmp_path: Path) -> None:
    with web_server() as web:
        files = served(web)
        web.flips |= {"/1.fits", "/7.fits"}
        web.cuts["/2.fits"] = [0]
        web.errors["/40.fits"] = 1
        assert bytes_of(stage_in(files, tmp_path / "job" / "in", site(tmp_path))) == contents_of(files)
        assert len(web.requests) == N + 4


def test_a_server_that_is_down_is_not_asked_for_all(tmp_path: Path) -> None:
    with web_server() as web:
        files = served(web)
        web.errors.update({f"/{i}.fits": 1000 for i in range(N)})
        with pytest.raises(StageError, match="no answer for 0 s"):
            stage_in(files, tmp_path / "job" / "in", site(tmp_path, patience_s=0.3, pause_s=60))
        assert len(web.requests) < N / 2
        assert list(troubled(tmp_path / "endpoints")) == [web.url]
        web.requests.clear()
        with pytest.raises(StageError, match="no answer"):
            stage_in(files, tmp_path / "job2" / "in", site(tmp_path, patience_s=0.1, pause_s=60))
        assert not web.requests, "the pause holds for many as for one"


def test_of_many_the_one_that_is_not_there_is_named(tmp_path: Path) -> None:
    with web_server() as web:
        files = served(web)
        del web.files["/5.fits"]
        with pytest.raises(StageError, match=r"/5\.fits"):
            stage_in(files, tmp_path / "job" / "in", site(tmp_path))


@pytest.mark.parametrize("slow_s", [batch._SLOW_S, 0.0])
def test_copies_are_the_jobs_own_and_read_only(
    tmp_path: Path, slow_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "_SLOW_S", slow_s)  # with 0, every file system counts as slow
    files = written(tmp_path / "source")
    paths = stage_in(files, tmp_path / "job" / "in", site(tmp_path, transfer="copy"))
    assert bytes_of(paths) == contents_of(files)
    assert {stat.S_IMODE(path.stat().st_mode) for path in paths.values()} == {0o444}
    assert {path.stat().st_nlink for path in paths.values()} == {1}


def test_of_many_copies_a_bad_one_comes_from_its_replica_or_is_refused(tmp_path: Path) -> None:
    files = written(tmp_path / "source")
    bad = Path(files[3].url)
    bad.write_bytes(b"x")
    with pytest.raises(StageError, match=f"{bad}: its checksum is"):
        stage_in(files, tmp_path / "1" / "in", site(tmp_path, transfer="copy"))
    good = given_file(tmp_path / "mirror" / "3.fits", b"3")
    files[3] = InputFile("c", "id", "raw", {}, str(bad), 1, good.checksum, (good.url,))
    paths = stage_in(files, tmp_path / "2" / "in", site(tmp_path, transfer="copy"))
    assert bytes_of(paths) == contents_of(files)


def test_an_offline_site_brings_none_of_many_from_afar(tmp_path: Path) -> None:
    with web_server() as web:
        with pytest.raises(StageError, match="offline: true"):
            stage_in(served(web), tmp_path / "job" / "in", site(tmp_path, is_offline=True))
        assert not web.requests


def test_objects_of_a_store_come_by_signed_urls_and_are_verified(tmp_path: Path, object_store: str) -> None:
    local = written(tmp_path / "source")
    # With what a URL must quote in their names.
    urls = [f"{object_store}/many {Path(file.url).stem}+b%20&=é.fits" for file in local]
    fs = remote(object_store)[0]
    paths = [remote(url)[1] for url in urls]
    fs.pipe({path: str(i).encode() for i, path in enumerate(paths)})
    assert batch._read(batch._signed(fs, paths), 4) == [str(i).encode() for i in range(N)]
    files = [
        InputFile("c", file.dataset_id, "raw", {}, url, file.size_bytes, file.checksum)
        for file, url in zip(local, urls, strict=True)
    ]
    assert bytes_of(stage_in(files, tmp_path / "1" / "in", site(tmp_path))) == contents_of(files)
    fs.pipe_file(paths[3], b"x")
    with pytest.raises(StageError, match="its checksum is"):
        stage_in(files, tmp_path / "2" / "in", site(tmp_path))


def test_a_store_whose_signed_urls_lead_nowhere_is_asked_by_its_library(
    tmp_path: Path, object_store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    local = written(tmp_path / "source")
    urls = [f"{object_store}/unsigned/{i}.fits" for i in range(N)]
    fs = remote(object_store)[0]
    fs.pipe({remote(url)[1]: str(i).encode() for i, url in enumerate(urls)})
    monkeypatch.setattr(batch, "_SIGNED_S", -1)  # over before they are used
    endpoints = Endpoints(tmp_path / "endpoints", 4, 30.0)
    wanted = [
        Wanted(url, Measured(file.size_bytes, file.checksum), tmp_path / f"{i}.fits")
        for i, (url, file) in enumerate(zip(urls, local, strict=True))
    ]
    assert Batch(endpoints).brought(wanted) == {file.target for file in wanted}
    assert not troubled(tmp_path / "endpoints")
