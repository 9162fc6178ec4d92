"""Registry against backbone: each kind of damage is found by name, and mending loses nothing."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID, uuid4

import polars as pl
import pytest
from loadmaster_registry.records import Collection, CollectionType, DatasetType
from loadmaster_registry.store import Registry
from loadmaster_staging.backbone import Backbone
from loadmaster_staging.checksum import measure
from loadmaster_staging.fsck import Findings, check, repair
from loadmaster_staging.inventory import listing
from loadmaster_staging.location import remote

N = 6


@dataclass(frozen=True)
class Survey:
    """Text files of some detectors, registered."""

    registry: Registry
    backbone: Backbone
    ids: list[UUID]

    def path(self, number: int) -> str:
        return f"run/text/{number}.txt"

    def write(self, path: str, text: str) -> str:
        url = self.backbone.url(path)
        fs, inner = remote(url)
        fs.makedirs(inner.rsplit("/", 1)[0], exist_ok=True)
        fs.pipe_file(inner, text.encode())
        return url

    def remove(self, number: int) -> None:
        fs, inner = remote(self.backbone.url(self.path(number)))
        fs.rm_file(inner)

    def text(self, number: int) -> str:
        with self.backbone.open(self.path(number)) as stream:
            return stream.read().decode()

    def insert(self, rows: pl.DataFrame, parts: pl.DataFrame | None = None) -> None:
        with self.registry.transaction() as write:
            write.insert_datasets("text", "run", rows.with_columns(instrument=pl.lit("Cam")), parts)

    def check(self, *, deep: bool = False, grace_s: float = 0.0) -> Findings:
        return check(self.registry, self.backbone, deep=deep, grace_s=grace_s)


@pytest.fixture(params=["file system", "object store"])
def survey(request: pytest.FixtureRequest, tmp_path: Path) -> Survey:
    root = str(tmp_path / "files") if request.param == "file system" else f"memory://{uuid4().hex}"
    registry = Registry.create(str(tmp_path / "registry.sqlite3"))
    with registry.transaction() as write:
        write.insert_records("instrument", pl.DataFrame({"instrument": ["Cam"]}))
        detectors = pl.DataFrame({"instrument": "Cam", "detector": range(100)})
        write.insert_records("detector", detectors)
        group = registry.universe.group(["instrument", "detector"])
        write.register_dataset_type(DatasetType("text", group, "Text"))
        write.register_collection(Collection("run", CollectionType.RUN))
    made = Survey(registry, Backbone(root), [uuid4() for _ in range(N)])
    urls = [made.write(made.path(n), f"text {n}") for n in range(N)]
    measured = [measure(url) for url in urls]
    facts = {"size_bytes": [m.size_bytes for m in measured], "checksum": [m.checksum for m in measured]}
    names = {
        "id": [id.bytes for id in made.ids],
        "detector": range(N),
        "url": [made.path(n) for n in range(N)],
    }
    made.insert(pl.DataFrame({**names, **facts}))
    return made


def found(findings: Findings) -> Sequence[tuple[str, str]]:
    return list(findings.problems.select("kind", "url").iter_rows())


def test_nothing_is_found_where_all_is_well(survey: Survey) -> None:
    findings = survey.check(deep=True)
    assert found(findings) == []
    assert (findings.n_files, findings.n_bytes, findings.n_read) == (N, 6 * N, N)


def test_each_kind_of_damage_is_found_and_nothing_else(survey: Survey) -> None:
    survey.remove(0)
    survey.write(survey.path(1), "text 1 and more")
    survey.write(survey.path(2), "text X")
    survey.write("run/stray.txt", "whose?")
    survey.write(".staging/run.abc-1.txt", "under way")
    shallow = [("missing", survey.path(0)), ("wrong_size", survey.path(1)), ("orphan", "run/stray.txt")]
    assert found(survey.check()) == shallow
    assert sorted(found(survey.check(deep=True))) == sorted([*shallow, ("wrong_checksum", survey.path(2))])


def test_a_file_that_may_be_on_its_way_into_the_registry_is_no_orphan(survey: Survey) -> None:
    survey.write("run/fresh.txt", "just published")
    findings = survey.check(grace_s=3600)
    assert (found(findings), findings.n_young) == ([], 1)


def test_repair_never_loses_a_byte(survey: Survey) -> None:
    survey.write("run/stray.txt", "whose?")
    survey.write(survey.path(1), "flipped")
    repaired = repair(survey.registry, survey.backbone, survey.check(deep=True)).problems
    told = dict(repaired.select("kind", "repair").iter_rows())
    assert told["wrong_size"].startswith("nothing: no copy has the recorded bytes")
    moved = told["orphan"].removeprefix("moved to ")
    fs, inner = remote(moved)
    assert fs.cat_file(inner) == b"whose?"
    assert survey.text(1) == "flipped"
    assert found(survey.check()) == [("wrong_size", survey.path(1))]


def test_what_has_a_good_copy_elsewhere_comes_back(survey: Survey, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    rows = []
    for number, text in ((0, "text 0"), (1, "text 1"), (2, "no good")):
        path = tmp_path / "elsewhere" / f"{number}.txt"
        path.write_text(text)
        rows.append((survey.ids[number].bytes, "disk", str(path)))
    with survey.registry.transaction() as write:
        write.insert_copies(pl.DataFrame(rows, schema=["id", "destination", "url"], orient="row"))
    survey.remove(0)
    survey.write(survey.path(1), "text X")
    survey.remove(2)
    repair(survey.registry, survey.backbone, survey.check(deep=True))
    assert (survey.text(0), survey.text(1)) == ("text 0", "text 1")
    assert found(survey.check(deep=True)) == [("missing", survey.path(2))]


def test_parts_and_ranges_of_shared_files_are_checked_like_files(survey: Survey) -> None:
    url = survey.write("run/.shards/0.shard.txt", "abcdef")
    survey.write("run/text/10.fits", "table")
    ids = [uuid4().bytes for _ in range(3)]
    part = measure(survey.write("run/x", "cd")).checksum
    survey.insert(
        pl.DataFrame(
            {
                "id": ids,
                "detector": [10, 11, 12],
                "url": [
                    "run/.shards/0.shard.txt#2+2",
                    "run/.shards/0.shard.txt#0+2",
                    "run/.shards/0.shard.txt#5+2",
                ],
                "size_bytes": [2, 2, 2],
                "checksum": [part, part, ""],
            }
        ),
        pl.DataFrame({"id": ids[:1], "name": ["table"], "url": ["run/text/10.fits"], "size_bytes": [6]}),
    )
    assert remote(url)[0].size(remote(url)[1]) == 6
    assert sorted(found(survey.check(deep=True))) == [
        ("orphan", "run/x"),
        ("wrong_checksum", "run/.shards/0.shard.txt#0+2"),
        ("wrong_size", "run/.shards/0.shard.txt#5+2"),
        ("wrong_size", "run/text/10.fits"),
    ]


def test_files_that_were_left_where_they_are_are_looked_at_there(survey: Survey, tmp_path: Path) -> None:
    there = tmp_path / "raw.txt"
    there.write_text("raw")
    ids = [uuid4().bytes, uuid4().bytes]
    urls = [str(there), str(tmp_path / "gone.txt")]
    survey.insert(pl.DataFrame({"id": ids, "detector": [20, 21], "url": urls, "size_bytes": [3, 3]}))
    assert found(survey.check(deep=True)) == [("missing", urls[1])]


def test_the_listing_has_all_files_but_those_of_the_staging_area(tmp_path: Path) -> None:
    for name in ("a/b/c", "a/d", "e", ".staging/x/y", ".aside/z"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (tmp_path / "dangling").symlink_to("nowhere")
    assert listing(str(tmp_path)).select("path", "size_bytes").rows() == [("a/b/c", 5), ("a/d", 3), ("e", 1)]
    assert listing(str(tmp_path / "none")).height == 0


def test_what_cannot_be_reached_is_not_called_missing(survey: Survey) -> None:
    url = "http://127.0.0.1:9/raw.fits"  # nobody listens there
    rows = {"id": [uuid4().bytes], "detector": [20], "url": [url], "size_bytes": [3]}
    survey.insert(pl.DataFrame(rows))
    assert found(survey.check()) == [("unreadable", url)]
