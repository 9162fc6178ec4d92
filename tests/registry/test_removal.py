"""Rows that go, and who keeps them: leases, policies, tombstones, the trash; on both databases."""

from collections.abc import Sequence
from uuid import UUID, uuid5

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from loadmaster_registry import holdings, leases, needs, removal
from loadmaster_registry.errors import Conflict, NotFound, RegistryError
from loadmaster_registry.leases import Lease, ranges
from loadmaster_registry.records import Collection, CollectionType, DatasetType
from loadmaster_registry.retention import policies, set_policy
from loadmaster_registry.snapshot import Snapshot
from loadmaster_registry.store import Registry, utc_now
from loadmaster_registry.timespan import Timespan

RUN, TAGGED, CHAINED, CALIBRATION = CollectionType
NAMES = UUID("8d9c1a0e-3c5f-4b0e-9f53-0a3d5c1b7e11")
N = 5


def id_of(name: str) -> UUID:
    return uuid5(NAMES, name)


def add(registry: Registry, run: str, n: int = N, read: str = "") -> None:
    """Register `n` datasets of a run; with `read`, each was made from that of another run."""
    ids = [id_of(f"{run}{i}").bytes for i in range(n)]
    quanta = [id_of(f"{run}{i} quantum").bytes if read else None for i in range(n)]
    rows = {
        "instrument": ["Cam"] * n,
        "detector": range(n),
        "id": ids,
        "url": [f"{run}/{i}" for i in range(n)],
        "size_bytes": [10] * n,
        "quantum": pl.Series(quanta, dtype=pl.Binary),
    }
    with registry.transaction() as write:
        write.insert_records("instrument", pl.DataFrame({"instrument": ["Cam"]}))
        write.insert_records("detector", pl.DataFrame({"instrument": "Cam", "detector": range(n)}))
        group = registry.universe.group(["instrument", "detector"])
        write.register_dataset_type(DatasetType("text", group, "Text", is_calibration=True))
        write.register_collection(Collection(run, RUN))
        write.insert_datasets("text", run, pl.DataFrame(rows))
        if read:
            facts = {"run": run, "task": "copy", "data_id": "{}", "attempt": 1, "status": "succeeded"}
            inputs = {"dataset_id": [id_of(f"{read}{i}").bytes for i in range(n)], "connection": "input"}
            write.insert_quanta(
                pl.DataFrame({"id": quanta, **facts}), pl.DataFrame({"quantum": quanta, **inputs})
            )


def numbers(now: Snapshot, *names: str) -> pl.Series:
    return now.known(pl.Series([id_of(name).bytes for name in names], dtype=pl.Binary))["dataset"].sort()


def remove(registry: Registry, *names: str, tombs: Sequence[str] = ()) -> removal.Removed:
    with registry.transaction() as write:
        dataset = numbers(write, *names)
        files = removal.own_files(write, dataset).with_columns(signature=pl.lit("as it was"))
        buried, since = numbers(write, *tombs), removal.highest(write)
        return removal.remove_datasets(write, dataset, why="a test", files=files, since=since, tombs=buried)


def test_parts_and_copies_come_with_their_dataset_and_the_same_again_changes_nothing(
    registry: Registry,
) -> None:
    add(registry, "a", 2)
    id = [id_of("a0").bytes]
    parts = pl.DataFrame({"id": id * 2, "name": ["x", "y"], "url": ["a/0.x", "a/0.y"], "size_bytes": [1, 2]})
    row = pl.DataFrame({"instrument": "Cam", "detector": [0], "id": id, "url": ["a/0"], "size_bytes": [10]})
    copies = pl.DataFrame(
        {"id": id, "destination": ["disk"], "url": ["/disk/0"], "until": ["2030-01-01T00:00:00Z"]}
    )
    for _ in range(2):
        with registry.transaction() as write:
            write.insert_datasets("text", "a", row, parts)
            write.insert_copies(copies)
    with registry.snapshot() as now:
        dataset = numbers(now, "a0", "a1")
        assert now.parts(dataset).select("name", "url", "size_bytes").rows() == [
            ("x", "a/0.x", 1),
            ("y", "a/0.y", 2),
        ]
        assert now.copies(dataset).select("destination", "url").rows() == [("disk", "/disk/0")]
        assert holdings.files(now, dataset)["url"].to_list() == ["a/0", "a/0.x", "a/0.y", "a/1"]
        assert holdings.files(now).equals(holdings.files(now, dataset))


def test_parts_of_a_dataset_that_is_not_there_leave_nothing_behind(registry: Registry) -> None:
    add(registry, "a", 1)
    parts = pl.DataFrame({"id": [id_of("other").bytes], "name": ["x"], "url": ["x"]})
    row = {"instrument": "Cam", "detector": [0], "id": [id_of("b0").bytes], "url": ["b/0"]}
    with registry.transaction() as write:
        write.register_collection(Collection("b", RUN))
    with pytest.raises(RegistryError, match="belong to no dataset"), registry.transaction() as write:
        write.insert_datasets("text", "b", pl.DataFrame(row), parts)
    with pytest.raises(NotFound):
        registry.find(id_of("b0"))
    moved = pl.DataFrame({"id": [id_of("a0").bytes], "destination": ["disk"], "url": ["/disk/0"]})
    with registry.transaction() as write:
        write.insert_copies(moved)
    with pytest.raises(Conflict), registry.transaction() as write:
        write.insert_copies(moved.with_columns(url=pl.lit("/disk/other")))


def test_a_removed_dataset_is_in_no_table_and_its_file_is_in_the_trash(registry: Registry) -> None:
    add(registry, "a")
    with registry.transaction() as write:
        write.register_collection(Collection("tag", TAGGED))
        write.register_collection(Collection("calib", CALIBRATION))
        write.associate("tag", [id_of("a0"), id_of("a1")])
        write.certify("calib", "text", [id_of("a0")], Timespan(0, 10))
    with registry.snapshot() as now:
        before = now.state_of(["a", "tag"])
    assert remove(registry, "a0", "a3", tombs=["a0"]) == removal.Removed(2, 2, 20, 1)
    with registry.snapshot() as now:
        assert now.state_of(["a", "tag"]) != before
        assert now.datasets("text", ["a"])["detector"].to_list() == [1, 2, 4]
        assert now.datasets("text", ["tag"])["detector"].to_list() == [1]
        assert now.calibrations("text", ["calib"]).is_empty()
        assert holdings.trash(now).select("url", "signature").rows() == [
            ("a/0", "as it was"),
            ("a/3", "as it was"),
        ]
        stones = holdings.tombstones(now, pl.Series([id_of("a0").bytes, id_of("a3").bytes]))
        assert stones.select("uuid", "run", "why").rows() == [(id_of("a0").bytes, "a", "a test")]
    with pytest.raises(NotFound, match="a test"):
        registry.find(id_of("a0"))
    with registry.transaction() as write:
        removal.empty(write, ["a/0", "a/3"])
        assert holdings.trash(write).is_empty()


def test_only_what_something_that_stays_was_made_from_is_remembered(registry: Registry) -> None:
    for run, read in (("a", ""), ("b", "a"), ("c", "b"), ("d", "c")):
        add(registry, run, 2, read)
    remove(registry, "d1")
    with registry.snapshot() as now:
        going = numbers(now, "a0", "b0", "c0", "a1", "b1", "c1")
        assert removal.remembered(now, going).sort().equals(numbers(now, "a0", "b0", "c0"))
    remove(registry, "b0", "b1", tombs=["b0"])
    with registry.snapshot() as now:  # what a tombstone leads to counts as something that stays
        assert removal.remembered(now, numbers(now, "a0", "a1")).equals(numbers(now, "a0"))
    assert [UUID(bytes=id) for id in registry.lineage(id_of("d0"))["id"]] == [
        id_of("a0"),
        id_of("c0"),
        id_of("b0"),
    ]


def test_needs_are_told_in_words(registry: Registry) -> None:
    add(registry, "a")
    with registry.transaction() as write:
        write.register_collection(Collection("tag", TAGGED))
        write.associate("tag", [id_of("a0")])
        write.register_collection(Collection("chain", CHAINED, children=("a",)))
        leases.take(write, Lease("1", "mars", "the run x", "", utc_now(60)), numbers(write, "a0", "a2", "a3"))
        leases.take(write, Lease("2", "moon", "the run y", "a", utc_now(-60)), numbers(write))
        who = write.who
    with registry.snapshot() as now:
        dataset = numbers(now, *(f"a{i}" for i in range(N)))
        found = needs.of_datasets(now, dataset, who, utc_now())
        assert found["by"].str.slice(0, 18).to_list() == [
            "collection tag hol", "the run x (mars), ", "the run x (mars), ", "the run x (mars), ",
        ]  # fmt: skip
        others = needs.of_datasets(now, dataset, "somebody else", utc_now())
        assert f"chain 'chain' of {who} shows it" in set(others["by"])
        assert needs.own_chains(now, "a", who) == ["chain"]
    with registry.transaction() as write:
        assert leases.renew(write, "2", utc_now(60))
        assert not leases.renew(write, "3", utc_now(60))
        assert len(needs.of_collection(write, "a", who, utc_now())) == 2
        leases.end(write, "1")
        leases.end(write, "2")
        assert needs.of_collection(write, "a", who, utc_now()) == []


@given(st.sets(st.integers(1, 60)))
def test_ranges_hold_just_the_numbers_and_are_the_fewest(chosen: set[int]) -> None:
    found = ranges(pl.Series(sorted(chosen), dtype=pl.Int64)).rows()
    assert [n for first, last in found for n in range(first, last + 1)] == sorted(chosen)
    assert len(found) == sum(n - 1 not in chosen for n in chosen)


def test_policies_are_kept_and_contradictions_refused(registry: Registry) -> None:
    add(registry, "a")
    with registry.transaction() as write:
        owner = write.who
        set_policy(write, "a", retention="temporary", expires="2030-01-01T00:00:00Z")
        set_policy(write, "a", owner="ann")
        for given_ in ({"retention": "permanent"}, {"expires": ""}, {"retention": "temporal"}):
            with pytest.raises(RegistryError):
                set_policy(write, "a", **given_)
    with registry.snapshot() as now:
        assert policies(now).rows() == [("a", "RUN", "ann", "temporary", "2030-01-01T00:00:00Z")]
    assert owner != "ann"


def test_a_removed_run_goes_step_by_step_as_nobody_uses_it_any_more(registry: Registry) -> None:
    for run, read in (("a", ""), ("b", "a")):
        add(registry, run, 3, read)
    with registry.transaction() as write:
        write.register_collection(Collection("tag", TAGGED))
        write.associate("tag", [id_of("b0")])
        write.register_collection(Collection("chain", CHAINED, children=("b", "a")))
        removal.remove_collections(write, ["b"])
    with registry.snapshot() as now:
        assert now.collection("chain").children == ("a",)
        assert removal.garbage(now, "", utc_now()).datasets.equals(numbers(now, "b1", "b2"))
    remove(registry, "b1", "b2")
    with registry.transaction() as write:
        assert removal.drop_empty_runs(write) == []
        removal.remove_collections(write, ["tag"])
    remove(registry, "b0")
    with registry.transaction() as write:
        assert removal.drop_empty_runs(write) == ["b"]
        assert write.recorded_quanta(task="copy").is_empty()
        assert [c.name for c in write.collections()] == ["a", "chain"]


def test_what_another_removed_meanwhile_is_not_taken_away_twice(registry: Registry) -> None:
    add(registry, "a", 2)
    with registry.snapshot() as now:
        dataset = numbers(now, "a0", "a1")
        files = removal.own_files(now, dataset).with_columns(signature=pl.lit("another's by now"))
        since = removal.highest(now)
    remove(registry, "a1")
    with registry.transaction() as write:
        removal.empty(write, ["a/1"])
        removed = removal.remove_datasets(
            write, dataset, why="", files=files, since=since, tombs=dataset.clear()
        )
        assert (removed.n_datasets, removed.n_files) == (1, 1)
        assert holdings.trash(write)["url"].to_list() == ["a/0"]


def test_the_number_of_a_removed_dataset_is_never_given_to_another(registry: Registry) -> None:
    add(registry, "a", 2)
    with registry.snapshot() as now:
        before = numbers(now, "a0", "a1")
    remove(registry, "a0", "a1")
    add(registry, "b", 2)
    with registry.snapshot() as now:
        assert numbers(now, "b0", "b1").min() > before.max()
