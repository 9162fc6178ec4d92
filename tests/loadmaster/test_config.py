"""The files a person writes for Loadmaster itself."""

from pathlib import Path

import pytest
from loadmaster_registry.errors import ConfigError, NotFound
from loadmaster_staging.destinations import Destination

from loadmaster.config import SITES, read_repository, read_site, write_repository


@pytest.fixture(autouse=True)
def aliases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep the user's own aliases out of the tests."""
    path = tmp_path / "repositories.yaml"
    monkeypatch.setenv("LOADMASTER_REPOSITORIES", str(path))
    return path


def test_what_is_relative_in_a_repository_file_is_relative_to_it(tmp_path: Path) -> None:
    write_repository(tmp_path, "registry.sqlite3", "files")
    place = read_repository(tmp_path)
    assert (place.registry, place.backbone) == (f"{tmp_path}/registry.sqlite3", f"{tmp_path}/files")


def test_absolute_places_and_urls_stand_for_themselves(tmp_path: Path) -> None:
    write_repository(tmp_path, "postgresql+psycopg://host/survey", "s3://bucket/survey")
    place = read_repository(tmp_path)
    assert (place.registry, place.backbone) == (
        "postgresql+psycopg://host/survey",
        "s3://bucket/survey",
    )


def test_a_misspelt_key_is_an_error_with_its_line_and_a_suggestion(tmp_path: Path) -> None:
    (tmp_path / "loadmaster.yaml").write_text("registry: r.sqlite3\nbackbon: files\n")
    with pytest.raises(ConfigError) as caught:
        read_repository(tmp_path)
    assert f"{tmp_path}/loadmaster.yaml:2" in str(caught.value)
    assert "did you mean 'backbone'?" in str(caught.value)


def test_destinations_are_places_with_what_goes_there_and_for_how_long(tmp_path: Path) -> None:
    (tmp_path / "loadmaster.yaml").write_text(
        "registry: r.sqlite3\nbackbone: files\ndestinations:\n"
        "  month: {url: s3://cache/survey, dataset_types: [calexp, 'src*'], days: 30}\n"
        "  mirror: {url: copies, dataset_types: ['*']}\n"
    )
    assert read_repository(tmp_path).destinations == (
        Destination("month", "s3://cache/survey", ("calexp", "src*"), 30),
        Destination("mirror", f"{tmp_path}/copies", ("*",), None),
    )
    (tmp_path / "loadmaster.yaml").write_text(
        "registry: r.sqlite3\nbackbone: files\ndestinations: {m: {url: x, dataset_type: ['*']}}\n"
    )
    with pytest.raises(ConfigError, match="did you mean 'dataset_types'"):
        read_repository(tmp_path)


def test_an_alias_stands_for_a_folder(tmp_path: Path, aliases: Path) -> None:
    write_repository(tmp_path, "registry.sqlite3", "files")
    aliases.write_text(f"repositories:\n  survey: {tmp_path}\n")
    assert read_repository("survey").folder == tmp_path


def test_a_misspelt_alias_is_answered_with_the_nearest(tmp_path: Path, aliases: Path) -> None:
    aliases.write_text(f"repositories:\n  survey: {tmp_path}\n")
    with pytest.raises(NotFound, match=r"did you mean 'survey'\?"):
        read_repository("survye")


def test_a_folder_without_a_repository_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="loadmaster init"):
        read_repository(tmp_path)


@pytest.mark.parametrize("path", sorted(SITES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_site_reads(path: Path) -> None:
    assert read_site(path.stem).jobs >= 1


def test_a_site_file_of_ones_own_is_read_by_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAST_DISK", "/fast")
    path = tmp_path / "mine.yaml"
    path.write_text("executor: local\njobs: 3\ntransfer: copy\nscratch: $FAST_DISK/jobs\n")
    site = read_site(str(path))
    assert (site.name, site.jobs, site.staging.transfer, site.scratch) == (
        "mine",
        3,
        "copy",
        Path("/fast/jobs"),
    )


def test_a_site_cannot_have_no_jobs(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("executor: local\njobs: 0\n")
    with pytest.raises(ConfigError, match=f"{path}:2"):
        read_site(str(path))


def test_an_unknown_site_is_answered_with_the_shipped_ones() -> None:
    with pytest.raises(NotFound, match="did you mean 'local'"):
        read_site("locall")


SITE = """\
executor: local
transfer: cache
cache: $FAST_DISK/cache
cache_bytes: 1.5 TB
scratch_bytes: 200GiB
verify: moved
mirrors:
  s3://survey/: [s3://near/, s3://survey/]
streams: 8
patience_s: 60
checksum: blake2b
sandbox: audit
software: [$FAST_DISK/stack]
"""


def test_a_site_says_how_files_travel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAST_DISK", "/fast")
    (tmp_path / "mine.yaml").write_text(SITE)
    staging = read_site(str(tmp_path / "mine.yaml")).staging
    assert (staging.transfer, staging.cache, staging.cache_bytes) == (
        "cache",
        "/fast/cache",
        1_500_000_000_000,
    )
    assert staging.scratch_bytes == 200 << 30
    assert staging.mirrors == (("s3://survey/", ("s3://near/", "s3://survey/")),)
    assert (staging.verify, staging.streams, staging.patience_s) == ("moved", 8, 60)
    assert (staging.checksum, staging.sandbox, staging.software) == ("blake2b", "audit", ("/fast/stack",))


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("transfer: cache", "needs `cache:`"),
        ("cache_bytes: lots", "is no size"),
        ("checksum: crc32", "checksum"),
        ("streams: 0", "greater than or equal to 1"),
        ("mirros: {}", "did you mean 'mirrors'"),
    ],
)
def test_what_a_site_cannot_mean_is_refused(tmp_path: Path, line: str, why: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(f"executor: local\n{line}\n")
    with pytest.raises(ConfigError, match=why):
        read_site(str(path))
