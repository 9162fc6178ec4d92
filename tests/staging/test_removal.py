"""Removal: what somebody needs stays, what nobody needs goes with its files, whatever happens in between."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID, uuid4, uuid5

import polars as pl
import pytest
from loadmaster_registry import holdings, leases, removal
from loadmaster_registry.errors import Conflict, NotFound, RegistryError
from loadmaster_registry.leases import Lease
from loadmaster_registry.records import Collection, CollectionType, DatasetType
from loadmaster_registry.retention import set_policy
from loadmaster_registry.store import Registry, utc_now
from loadmaster_registry.timespan import Timespan
from loadmaster_staging import inventory
from loadmaster_staging.backbone import Backbone
from loadmaster_staging.fsck import check
from loadmaster_staging.location import remote
from loadmaster_staging.removal import collect, delete_datasets, empty_trash, remove_collections

RUN, TAGGED, CHAINED, CALIBRATION = CollectionType
NAMES = UUID("8d9c1a0e-3c5f-4b0e-9f53-0a3d5c1b7e11")


def id_of(run: str, detector: int) -> UUID:
    return uuid5(NAMES, f"{run} {detector}")


@dataclass(frozen=True)
class Survey:
    """Text files of some detectors in some runs."""

    registry: Registry
    backbone: Backbone

    def write(self, path: str, text: str) -> None:
        fs, inner = remote(self.backbone.url(path))
        fs.makedirs(inner.rsplit("/", 1)[0], exist_ok=True)
        fs.pipe_file(inner, text.encode())

    def add(self, run: str, detectors: Sequence[int], made_from: Mapping[int, UUID] | None = None) -> None:
        """Register files of a run; those of `made_from` were made by quanta that read one dataset each."""
        quanta = {n: uuid5(NAMES, f"quantum of {run} {n}").bytes for n in made_from or {}}
        rows = {
            "instrument": ["Cam"] * len(detectors),
            "detector": list(detectors),
            "id": [id_of(run, n).bytes for n in detectors],
            "url": [f"{run}/{n}.txt" for n in detectors],
            "size_bytes": [6] * len(detectors),
            "quantum": pl.Series([quanta.get(n) for n in detectors], dtype=pl.Binary),
        }
        for n in detectors:
            self.write(f"{run}/{n}.txt", f"text {n}")
        with self.registry.transaction() as write:
            write.register_collection(Collection(run, RUN))
            write.insert_datasets("text", run, pl.DataFrame(rows))
            for n, source in (made_from or {}).items():
                facts = {"run": run, "task": "copy", "data_id": "{}", "attempt": 1, "status": "succeeded"}
                read = {"quantum": [quanta[n]], "dataset_id": [source.bytes], "connection": ["input"]}
                write.insert_quanta(pl.DataFrame({"id": [quanta[n]], **facts}), pl.DataFrame(read))

    def collection(
        self, name: str, type: CollectionType, *members: UUID, children: Sequence[str] = ()
    ) -> None:
        with self.registry.transaction() as write:
            write.register_collection(Collection(name, type, children=tuple(children)))
            if type is TAGGED:
                write.associate(name, members)
            elif type is CALIBRATION:
                write.certify(name, "text", members, Timespan(0, 10))

    def owned_by(self, name: str, owner: str) -> None:
        with self.registry.transaction() as write:
            set_policy(write, name, owner=owner)

    def lease(self, *members: UUID, run: str = "", seconds: float = 60.0) -> None:
        with self.registry.transaction() as write:
            known = write.known(pl.Series([id.bytes for id in members], dtype=pl.Binary))["dataset"]
            lease = Lease("it", "process 7 on mars", "the run u/x", run, utc_now(seconds))
            leases.take(write, lease, known)

    def files(self) -> list[str]:
        return inventory.listing(self.backbone.root_url)["path"].to_list()

    def found(self, *collections: str) -> list[str]:
        dataset = self.registry.datasets("text", collections, find_first=False)["dataset"]
        return sorted(self.registry.files(dataset)["url"])

    def delete(self, *ids: UUID, force: bool = False, reason: str = "") -> None:
        delete_datasets(self.registry, self.backbone, ids, force=force, reason=reason)

    def is_consistent(self) -> bool:
        with self.registry.snapshot() as now:
            assert holdings.trash(now).is_empty()
        return check(self.registry, self.backbone, grace_s=0).problems.is_empty()


@pytest.fixture
def survey(tmp_path: Path) -> Survey:
    return begin(tmp_path)


@pytest.fixture(params=["file system", "object store"])
def anywhere(request: pytest.FixtureRequest, tmp_path: Path) -> Survey:
    return begin(tmp_path, f"memory://{uuid4().hex}" if request.param == "object store" else "")


def begin(folder: Path, root: str = "") -> Survey:
    registry = Registry.create(str(folder / "registry.sqlite3"))
    with registry.transaction() as write:
        write.insert_records("instrument", pl.DataFrame({"instrument": ["Cam"]}))
        write.insert_records("detector", pl.DataFrame({"instrument": "Cam", "detector": range(10)}))
        group = registry.universe.group(["instrument", "detector"])
        write.register_dataset_type(DatasetType("text", group, "Text", is_calibration=True))
    survey = Survey(registry, Backbone(root or str(folder / "files")))
    survey.add("a", [0, 1, 2])
    return survey


# Datasets


def test_what_is_deleted_is_gone_from_queries_and_from_storage(anywhere: Survey) -> None:
    removed, emptied = delete_datasets(anywhere.registry, anywhere.backbone, [id_of("a", 0), id_of("a", 1)])
    assert (removed.n_datasets, removed.n_bytes, emptied.n_files) == (2, 12, 2)
    assert anywhere.found("a") == anywhere.files() == ["a/2.txt"]
    with pytest.raises(NotFound):
        anywhere.registry.find(id_of("a", 0))
    assert anywhere.is_consistent()


def test_what_somebody_needs_is_refused_and_it_is_said_who(survey: Survey) -> None:
    survey.add("b", [5])
    survey.collection("best", TAGGED, id_of("a", 0))
    survey.collection("bias", CALIBRATION, id_of("a", 1))
    survey.lease(id_of("a", 2))
    survey.collection("out", CHAINED, children=["b"])
    survey.owned_by("out", "bob")
    for id, words in (
        (id_of("a", 0), "collection best holds it"),
        (id_of("a", 1), "collection bias holds it"),
        (id_of("a", 2), "the run u/x .process 7 on mars"),
        (id_of("b", 5), "chain 'out' of bob shows it"),
    ):
        with pytest.raises(Conflict, match=words):
            survey.delete(id_of("a", 0) if id is None else id)
    survey.owned_by("b", "ann")
    with pytest.raises(Conflict, match="'b' is ann's"):
        survey.delete(id_of("b", 5))
    assert survey.files() == ["a/0.txt", "a/1.txt", "a/2.txt", "b/5.txt"]
    assert survey.is_consistent()


def test_one_that_is_needed_keeps_all_that_were_named_with_it(survey: Survey) -> None:
    survey.collection("best", TAGGED, id_of("a", 0))
    with pytest.raises(Conflict, match="1 of 3 datasets are needed; none of them was removed"):
        survey.delete(*(id_of("a", n) for n in range(3)))
    assert len(survey.found("a")) == 3


def test_an_expired_lease_and_ones_own_chains_keep_nothing(survey: Survey) -> None:
    survey.lease(id_of("a", 0), run="a", seconds=-1.0)
    survey.collection("mine", CHAINED, children=["a"])
    survey.delete(id_of("a", 0))
    assert survey.found("a") == ["a/1.txt", "a/2.txt"]


def test_a_lease_on_a_run_keeps_all_of_it(survey: Survey) -> None:
    survey.lease(run="a")
    with pytest.raises(Conflict, match="the run u/x"):
        survey.delete(id_of("a", 1))
    with survey.registry.transaction() as write:
        leases.end(write, "it")
    survey.delete(id_of("a", 1))


def test_force_leaves_a_tombstone_with_who_when_and_why(survey: Survey) -> None:
    survey.collection("best", TAGGED, id_of("a", 0))
    with pytest.raises(RegistryError, match="needs a reason"):
        survey.delete(id_of("a", 0), force=True)
    survey.delete(id_of("a", 0), force=True, reason="wrong sky")
    with survey.registry.snapshot() as now:
        (stone,) = holdings.tombstones(now, pl.Series([id_of("a", 0).bytes])).iter_rows(named=True)
    assert (stone["dataset_type"], stone["run"], stone["why"]) == ("text", "a", "wrong sky")
    assert (stone["who"], stone["url"]) == (write_name(survey), "a/0.txt")
    assert stone["data_id"] == '{"instrument":"Cam","detector":0}'
    assert survey.found("best") == []
    assert survey.files() == ["a/1.txt", "a/2.txt"]
    survey.delete(id_of("a", 0), force=True, reason="again")  # the same command again finds it done
    assert survey.is_consistent()


def write_name(survey: Survey) -> str:
    with survey.registry.transaction() as write:
        return write.who


def test_an_unknown_dataset_is_refused_before_anything_goes(survey: Survey) -> None:
    with pytest.raises(NotFound, match="1 of 2 datasets do not exist"):
        survey.delete(id_of("a", 0), id_of("nowhere", 0))
    assert len(survey.found("a")) == 3


def test_lineage_passes_through_what_was_removed(survey: Survey) -> None:
    survey.add("b", [0, 1], {0: id_of("a", 0), 1: id_of("a", 1)})
    survey.add("c", [0], {0: id_of("b", 0)})
    survey.delete(id_of("b", 0), id_of("b", 1))
    up = survey.registry.lineage(id_of("c", 0))
    assert {UUID(bytes=id) for id in up["id"]} == {id_of("b", 0), id_of("a", 0)}
    assert up.filter(pl.col("id") == id_of("b", 0).bytes)["task"].to_list() == ["copy"]
    down = survey.registry.lineage(id_of("a", 0), upstream=False)
    assert {UUID(bytes=id) for id in down["id"]} == {id_of("b", 0), id_of("c", 0)}
    with survey.registry.snapshot() as now:  # what nothing was made from is not remembered
        assert holdings.tombstones(now, pl.Series([id_of("b", 1).bytes])).is_empty()


def test_files_that_others_use_or_that_are_not_ours_stay(survey: Survey, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs.txt"
    theirs.write_text("theirs")
    survey.write("a/.shards/0.shard.txt", "abcd")
    urls = [str(theirs), "a/.shards/0.shard.txt#0+2", "a/.shards/0.shard.txt#2+2", "a/2.txt"]
    ids = [uuid5(NAMES, url) for url in urls]
    rows = {"instrument": "Cam", "detector": [6, 7, 8, 9], "id": [id.bytes for id in ids], "url": urls}
    with survey.registry.transaction() as write:
        write.insert_datasets("text", "a", pl.DataFrame(rows))
    survey.delete(ids[0], ids[1], id_of("a", 2))
    assert theirs.read_text() == "theirs"
    assert {"a/.shards/0.shard.txt", "a/2.txt"} < set(survey.files())
    survey.delete(ids[2], ids[3])
    assert survey.files() == ["a/0.txt", "a/1.txt"]
    assert survey.is_consistent()


def test_parts_and_copies_go_with_their_dataset(survey: Survey, tmp_path: Path) -> None:
    (tmp_path / "copy.txt").write_text("text 0")
    survey.write("a/0.fits", "table")
    id = [id_of("x", 3).bytes]
    survey.write("a/3.txt", "text 3")
    row = pl.DataFrame({"instrument": "Cam", "detector": [3], "id": id, "url": ["a/3.txt"]})
    with survey.registry.transaction() as write:
        write.insert_datasets(
            "text", "a", row, pl.DataFrame({"id": id, "name": ["table"], "url": ["a/0.fits"]})
        )
        copies = {"id": id, "destination": ["disk"], "url": [str(tmp_path / "copy.txt")]}
        write.insert_copies(pl.DataFrame(copies))
    survey.delete(id_of("x", 3))
    assert survey.files() == ["a/0.txt", "a/1.txt", "a/2.txt"]
    assert not (tmp_path / "copy.txt").exists()


# The trash


def test_a_removal_that_was_cut_off_between_rows_and_files_is_finished_by_the_next(anywhere: Survey) -> None:
    cut_off(anywhere, id_of("a", 0))
    assert "a/0.txt" in anywhere.files()
    assert check(anywhere.registry, anywhere.backbone, grace_s=0).problems.is_empty()  # it waits in the trash
    collect(anywhere.registry, anywhere.backbone)
    assert anywhere.files() == ["a/1.txt", "a/2.txt"]
    assert anywhere.is_consistent()


def cut_off(survey: Survey, id: UUID) -> None:
    """Remove the row of a dataset, and die before its file goes."""
    with survey.registry.transaction() as write:
        dataset = write.known(pl.Series([id.bytes]))["dataset"]
        files = removal.own_files(write, dataset)
        signed = [inventory.signature(survey.backbone.url(path)) for path in files["path"]]
        files = files.with_columns(signature=pl.Series(signed, dtype=pl.String))
        since, none = removal.highest(write), dataset.clear()
        removal.remove_datasets(write, dataset, why="", files=files, since=since, tombs=none)


def test_another_file_that_was_published_in_its_place_meanwhile_stays(anywhere: Survey) -> None:
    cut_off(anywhere, id_of("a", 0))
    fs, inner = remote(anywhere.backbone.url("a/0.txt"))
    fs.rm_file(inner)  # somebody emptied the trash, and died before he could say so
    anywhere.add("a", [0, 1, 2])  # and the place, which was free, was taken again
    assert empty_trash(anywhere.registry, anywhere.backbone).n_files == 1
    assert anywhere.files() == ["a/0.txt", "a/1.txt", "a/2.txt"]
    assert anywhere.is_consistent()


def test_what_cannot_be_taken_away_stays_in_the_trash_until_it_can(
    survey: Survey, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(url: str, signed: str) -> bool:
        raise PermissionError(f"not {url}")

    with monkeypatch.context() as patch:
        patch.setattr("loadmaster_staging.removal.remove", refused)
        _, emptied = delete_datasets(survey.registry, survey.backbone, [id_of("a", 0)])
    assert [url for url, _ in emptied.left] == ["a/0.txt"]
    assert empty_trash(survey.registry, survey.backbone).n_files == 1
    assert survey.is_consistent()


# Collections


def test_files_go_when_no_collection_uses_them_any_more(anywhere: Survey) -> None:
    anywhere.add("b", [5])
    anywhere.collection("best", TAGGED, id_of("a", 0))
    anywhere.collection("better", TAGGED, id_of("a", 0), id_of("a", 1))
    remove_collections(anywhere.registry, ["a", "better"])
    foretold = collect(anywhere.registry, anywhere.backbone, dry_run=True).removed
    assert len(anywhere.files()) == 4
    assert collect(anywhere.registry, anywhere.backbone).removed == foretold
    assert (foretold.n_datasets, foretold.n_bytes) == (2, 12)
    assert anywhere.files() == ["a/0.txt", "b/5.txt"]
    assert anywhere.found("best") == ["a/0.txt"]
    remove_collections(anywhere.registry, ["best"])
    collect(anywhere.registry, anywhere.backbone)
    assert anywhere.files() == ["b/5.txt"]
    assert [c.name for c in anywhere.registry.collections()] == ["b"]
    assert anywhere.is_consistent()


def test_the_name_of_a_removed_run_is_free_again(survey: Survey) -> None:
    survey.collection("best", TAGGED, id_of("a", 0))
    remove_collections(survey.registry, ["a"])
    collect(survey.registry, survey.backbone)
    assert survey.registry.find(id_of("a", 0)).run.startswith("a~removed-")
    survey.add("a", [])
    assert survey.found("a") == []


@pytest.mark.parametrize("type", [TAGGED, CHAINED, CALIBRATION])
def test_other_collections_are_only_labels(survey: Survey, type: CollectionType) -> None:
    survey.collection("label", type, id_of("a", 0), children=["a"] if type is CHAINED else ())
    remove_collections(survey.registry, ["label"])
    assert collect(survey.registry, survey.backbone).removed.n_datasets == 0
    assert [c.name for c in survey.registry.collections()] == ["a"]
    survey.collection("label", type, id_of("a", 0), children=["a"] if type is CHAINED else ())


def test_a_collection_that_is_needed_is_refused(survey: Survey) -> None:
    survey.collection("mine", CHAINED, children=["a"])
    with pytest.raises(Conflict, match="'a': chain 'mine' holds it"):
        remove_collections(survey.registry, ["a"])
    survey.lease(id_of("a", 2))
    with pytest.raises(Conflict, match="the run u/x"):
        remove_collections(survey.registry, ["a"], unlink=True)
    survey.lease()
    remove_collections(survey.registry, ["a"], unlink=True)
    assert survey.registry.collection("mine").children == ()


def test_a_chain_of_somebody_else_keeps_a_collection(survey: Survey) -> None:
    survey.collection("inner", CHAINED, children=["a"])
    survey.collection("theirs", CHAINED, children=["inner"])
    survey.owned_by("theirs", "bob")
    with pytest.raises(Conflict, match="chain 'theirs' of bob shows it"):
        remove_collections(survey.registry, ["a"], unlink=True)
    remove_collections(survey.registry, ["a"], force=True)
    assert survey.registry.collection("inner").children == ()


def test_what_has_expired_goes_unless_somebody_needs_it(survey: Survey) -> None:
    survey.add("b", [5])
    survey.add("c", [6])
    with survey.registry.transaction() as write:
        set_policy(write, "a", retention="temporary", expires=utc_now(-1.0))
        set_policy(write, "b", expires=utc_now(-1.0))
        set_policy(write, "c", expires=utc_now(60.0))
    survey.lease(id_of("b", 5))
    collected = collect(survey.registry, survey.backbone)
    assert collected.collections == ("a",)
    assert "the run u/x" in collected.kept["b"][0]
    assert survey.files() == ["b/5.txt", "c/6.txt"]


def test_permanent_collections_are_only_removed_by_force(survey: Survey) -> None:
    with survey.registry.transaction() as write:
        set_policy(write, "a", retention="permanent")
    with pytest.raises(Conflict, match="'a' is permanent"):
        survey.delete(id_of("a", 0))
    with pytest.raises(Conflict, match="'a' is permanent"):
        remove_collections(survey.registry, ["a"])
    with survey.registry.transaction() as write, pytest.raises(RegistryError, match="cannot be permanent"):
        set_policy(write, "a", expires=utc_now())


def test_copies_whose_time_is_over_go(survey: Survey, tmp_path: Path) -> None:
    rows = []
    for n, until in ((0, utc_now(-1.0)), (1, utc_now(60.0))):
        (tmp_path / f"{n}.txt").write_text(f"text {n}")
        rows.append((id_of("a", n).bytes, "disk", str(tmp_path / f"{n}.txt"), until))
    with survey.registry.transaction() as write:
        write.insert_copies(pl.DataFrame(rows, schema=["id", "destination", "url", "until"], orient="row"))
    assert collect(survey.registry, survey.backbone).n_copies == 1
    assert [(tmp_path / f"{n}.txt").exists() for n in (0, 1)] == [False, True]
    assert len(survey.files()) == 3


def test_a_removed_run_is_forgotten_with_its_quanta_unless_lineage_passes_through_it(survey: Survey) -> None:
    survey.add("b", [0], {0: id_of("a", 0)})
    survey.add("c", [0], {0: id_of("b", 0)})
    survey.add("d", [1], {1: id_of("a", 1)})
    remove_collections(survey.registry, ["b", "d"])
    collect(survey.registry, survey.backbone)
    with survey.registry.snapshot() as now:
        (left,) = now.catalog.removed_runs.values()
        assert left.startswith("b~removed-")
        assert now.recorded_quanta(task="copy").height == 2  # those of b and c
    assert id_of("a", 0).bytes in survey.registry.lineage(id_of("c", 0))["id"].to_list()
    remove_collections(survey.registry, ["c"])
    collect(survey.registry, survey.backbone)
    assert survey.files() == ["a/0.txt", "a/1.txt", "a/2.txt"]
