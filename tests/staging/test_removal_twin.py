"""Removal against a slow and obvious twin: sets of names."""

from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import UUID, uuid5

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st
from loadmaster_registry import leases
from loadmaster_registry.errors import Conflict
from loadmaster_registry.leases import Lease
from loadmaster_registry.records import Collection, CollectionType, DatasetType
from loadmaster_registry.store import Registry, utc_now
from loadmaster_staging.backbone import Backbone
from loadmaster_staging.fsck import check
from loadmaster_staging.inventory import listing
from loadmaster_staging.removal import collect, delete_datasets, remove_collections

RUNS, TAGS, N = ("a", "b"), ("x", "y"), 3
NAMES = UUID("8d9c1a0e-3c5f-4b0e-9f53-0a3d5c1b7e11")
Name = tuple[str, int]  # run and detector of a dataset

names = st.tuples(st.sampled_from(RUNS), st.integers(0, N - 1))
acts = st.one_of(
    st.tuples(st.sampled_from(["delete", "force", "lease"]), names),
    st.tuples(st.just("tag"), st.tuples(st.sampled_from(TAGS), names)),
    st.tuples(st.just("remove"), st.sampled_from(RUNS + TAGS)),
    st.tuples(st.sampled_from(["gc", "end lease"]), st.none()),
)


@dataclass
class Twin:
    """What must be there."""

    datasets: set[Name] = field(default_factory=lambda: {(run, n) for run in RUNS for n in range(N)})
    runs: set[str] = field(default_factory=lambda: set(RUNS))
    tags: dict[str, set[Name]] = field(default_factory=lambda: {tag: set() for tag in TAGS})
    leased: set[Name] = field(default_factory=set)

    def act(self, act: str, given_: object) -> bool | None:
        """Return whether it is done; None where it makes no sense."""
        tagged = set().union(*self.tags.values())
        match act, given_:
            case "delete" | "force", name:
                if name not in self.datasets:
                    return None
                if act == "delete" and name in tagged | self.leased:
                    return False
                self.datasets.discard(name)  # type: ignore[arg-type]
                for members in self.tags.values():
                    members.discard(name)  # type: ignore[arg-type]
            case "tag", (tag, name):
                if name not in self.datasets or tag not in self.tags:
                    return None
                if any(other[1] == name[1] and other != name for other in self.tags[tag]):
                    return False
                self.tags[tag].add(name)
            case "lease", name:
                if name not in self.datasets:
                    return None
                self.leased = {name}  # type: ignore[arg-type]
            case "end lease", _:
                self.leased = set()
            case "remove", str(collection):
                if collection not in self.runs | set(self.tags):
                    return None
                if any(run == collection for run, _ in self.leased & self.datasets):
                    return False
                self.runs.discard(collection)
                self.tags.pop(collection, None)
            case "gc", _:
                self.datasets = {d for d in self.datasets if d[0] in self.runs or d in tagged | self.leased}
        return True


@dataclass
class Real:
    """What is there."""

    registry: Registry
    backbone: Backbone

    def act(self, act: str, given_: object) -> bool:
        try:
            self._act(act, given_)
        except Conflict:
            return False
        return True

    def _act(self, act: str, given_: object) -> None:
        match act, given_:
            case "delete" | "force", (str(run), int(n)):
                force = act == "force"
                delete_datasets(
                    self.registry, self.backbone, [id_of(run, n)], force=force, reason="why" if force else ""
                )
            case "tag", (tag, (run, n)):
                with self.registry.transaction() as write:
                    write.associate(tag, [id_of(run, n)])
            case "lease", (str(run), int(n)):
                with self.registry.transaction() as write:
                    known = write.known(pl.Series([id_of(run, n).bytes]))["dataset"]
                    leases.take(write, Lease("it", "me", "a test", "", utc_now(60)), known)
            case "end lease", _:
                with self.registry.transaction() as write:
                    leases.end(write, "it")
            case "remove", str(collection):
                remove_collections(self.registry, [collection])
            case "gc", _:
                collect(self.registry, self.backbone)

    def datasets(self) -> set[Name]:
        return {
            (path.split("/")[0], int(path.split("/")[1])) for path in listing(self.backbone.root_url)["path"]
        }

    def members(self, collection: str) -> set[Name]:
        rows = self.registry.datasets("text", [collection], find_first=False)
        urls = self.registry.files(rows["dataset"])["url"]
        return {(url.split("/")[0], int(url.split("/")[1])) for url in urls}


def id_of(run: str, n: int) -> UUID:
    return uuid5(NAMES, f"{run} {n}")


def begin(folder: Path) -> Real:
    registry = Registry.create(str(folder / "registry.sqlite3"))
    with registry.transaction() as write:
        write.insert_records("instrument", pl.DataFrame({"instrument": ["Cam"]}))
        write.insert_records("detector", pl.DataFrame({"instrument": "Cam", "detector": range(N)}))
        group = registry.universe.group(["instrument", "detector"])
        write.register_dataset_type(DatasetType("text", group, "Text"))
        for tag in TAGS:
            write.register_collection(Collection(tag, CollectionType.TAGGED))
        for run in RUNS:
            write.register_collection(Collection(run, CollectionType.RUN))
            (folder / "files" / run).mkdir(parents=True)
            for n in range(N):
                (folder / "files" / run / str(n)).write_text(f"{run} {n}")
            facts = {"id": [id_of(run, n).bytes for n in range(N)], "url": [f"{run}/{n}" for n in range(N)]}
            rows = pl.DataFrame({"instrument": "Cam", "detector": range(N), **facts})
            write.insert_datasets("text", run, rows)
    return Real(registry, Backbone(str(folder / "files")))


@settings(max_examples=15, deadline=None)
@given(st.lists(acts, min_size=8, max_size=14))
def test_after_any_order_of_removals_just_what_should_be_there_is(order: list[tuple[str, object]]) -> None:
    with TemporaryDirectory() as folder:
        twin, real = Twin(), begin(Path(folder))
        for act, given_ in order:
            if (expected := twin.act(act, given_)) is not None:
                assert real.act(act, given_) == expected, (act, given_)
        assert real.datasets() == twin.datasets
        for run in twin.runs:
            assert real.members(run) == {name for name in twin.datasets if name[0] == run}
        for tag, members in twin.tags.items():
            assert real.members(tag) == members
        assert check(real.registry, real.backbone, grace_s=0).problems.is_empty()
        real.registry.close()
