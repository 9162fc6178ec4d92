"""Validity ranges: certified, decertified and searched as Rubin's registry does it."""

from typing import Any
from uuid import UUID, uuid4

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from loadmaster_registry.calibrations import find_calibration
from loadmaster_registry.errors import Conflict, NotFound, RegistryError
from loadmaster_registry.records import Collection, CollectionType, DatasetType
from loadmaster_registry.store import Registry
from loadmaster_registry.timespan import MAX_NS, MIN_NS, Timespan
from loadmaster_registry.validity import trimmed


def run_of(registry: Registry, type: str, collections: list[str], data_id: Any, timespan: Timespan) -> str:
    try:
        found = find_calibration(registry, type, collections, data_id, timespan)
    except RegistryError as error:
        return "AMBIGUOUS" if "valid at once" in str(error) else str(error)
    return found.run if found else "NONE"


def ids_of(registry: Registry, type: str, run: str, **keep: list[int | str]) -> list[UUID]:
    found = registry.datasets(type, [run], keep=keep)
    return [UUID(bytes=id) for id in registry.files(found["dataset"])["id"]]


@pytest.fixture
def biases(registry: Registry) -> Registry:
    """Return a registry with a bias for detector 1 in each of two runs."""
    with registry.transaction() as transaction:
        transaction.insert_records("instrument", pl.DataFrame({"instrument": ["Cam"]}))
        transaction.insert_records("detector", pl.DataFrame({"instrument": "Cam", "detector": [1]}))
        group = registry.universe.group(["detector"])
        transaction.register_dataset_type(DatasetType("bias", group, "ExposureF", is_calibration=True))
        transaction.register_dataset_type(DatasetType("raw", group, "ExposureF"))
        transaction.register_collection(Collection("calib", CollectionType.CALIBRATION))
        for run in ("a", "b"):
            transaction.register_collection(Collection(run, CollectionType.RUN))
            for type in ("bias", "raw"):
                row = {"instrument": ["Cam"], "detector": [1], "id": [uuid4().bytes]}
                transaction.insert_datasets(type, run, pl.DataFrame(row))
    return registry


def ranges(registry: Registry) -> list[tuple[int, int]]:
    return registry.calibrations("bias", ["calib"]).select("begin", "end").rows()


def test_certifying_the_same_again_changes_nothing(biases: Registry) -> None:
    ids = ids_of(biases, "bias", "a")
    with biases.transaction() as transaction:
        assert transaction.certify("calib", "bias", ids, Timespan(0, 10)) == 1
        assert transaction.certify("calib", "bias", ids, Timespan(0, 10)) == 0
        assert transaction.certify("calib", "bias", ids, Timespan(3, 5)) == 0
    assert ranges(biases) == [(0, 10)]


def test_overlapping_ranges_of_one_dataset_become_one(biases: Registry) -> None:
    ids = ids_of(biases, "bias", "a")
    with biases.transaction() as transaction:
        for begin, end in ((0, 10), (20, 30), (5, 25)):
            transaction.certify("calib", "bias", ids, Timespan(begin, end))
    assert ranges(biases) == [(0, 30)]


def test_a_refused_certification_leaves_nothing_of_itself(biases: Registry) -> None:
    with biases.transaction() as transaction:
        transaction.certify("calib", "bias", ids_of(biases, "bias", "a"), Timespan(0, 10))
        with pytest.raises(Conflict, match=r"\[1970-01-01T00:00:00 TAI, 1970-01-01T00:00:00.00000001 TAI\)"):
            transaction.certify("calib", "bias", ids_of(biases, "bias", "b"), Timespan(9, 20))
    assert ranges(biases) == [(0, 10)]


def test_two_datasets_of_one_data_id_cannot_be_certified_together(biases: Registry) -> None:
    ids = ids_of(biases, "bias", "a") + ids_of(biases, "bias", "b")
    with pytest.raises(Conflict, match="given twice"), biases.transaction() as transaction:
        transaction.certify("calib", "bias", ids, Timespan(0, 10))


def test_only_calibrations_are_certified_and_only_in_calibration_collections(biases: Registry) -> None:
    with biases.transaction() as transaction:
        with pytest.raises(RegistryError, match="not registered as a calibration"):
            transaction.certify("calib", "raw", ids_of(biases, "raw", "a"), Timespan(0, 1))
        with pytest.raises(RegistryError, match="is RUN, this needs CALIBRATION"):
            transaction.certify("a", "bias", ids_of(biases, "bias", "a"), Timespan(0, 1))
        with pytest.raises(RegistryError, match="not of type 'bias'"):
            transaction.certify("calib", "bias", ids_of(biases, "raw", "a"), Timespan(0, 1))
        with pytest.raises(RegistryError, match="is empty"):
            transaction.certify("calib", "bias", ids_of(biases, "bias", "a"), Timespan(1, 1))
        with pytest.raises(NotFound, match="no dataset has uuid="):
            transaction.certify("calib", "bias", [uuid4()], Timespan(0, 1))


def test_a_run_member_is_valid_for_all_times(biases: Registry) -> None:
    assert biases.calibrations("bias", ["a"]).select("begin", "end").rows() == [(MIN_NS, MAX_NS)]


def test_the_first_collection_with_any_match_decides(biases: Registry) -> None:
    with biases.transaction() as transaction:
        transaction.certify("calib", "bias", ids_of(biases, "bias", "b"), Timespan(0, 10))
    data_id = {"instrument": "Cam", "detector": 1}
    assert run_of(biases, "bias", ["calib", "a"], data_id, Timespan(5, 6)) == "b"
    assert run_of(biases, "bias", ["calib", "a"], data_id, Timespan(50, 60)) == "a"
    assert run_of(biases, "bias", ["a", "calib"], data_id, Timespan(5, 6)) == "a"


def test_a_calibration_collection_member_counts_once_whatever_its_ranges(biases: Registry) -> None:
    ids = ids_of(biases, "bias", "a")
    with biases.transaction() as transaction:
        transaction.certify("calib", "bias", ids, Timespan(0, 10))
        transaction.certify("calib", "bias", ids, Timespan(20, 30))
    assert biases.datasets("bias", ["calib"], find_first=False).height == 1
    assert biases.datasets("bias", ["calib"]).height == 1


instants = st.integers(0, 12)


@given(st.lists(st.tuples(instants, instants).map(sorted), max_size=5), instants, instants)
def test_trimming_takes_away_just_the_instants_of_the_span(pairs: list[Any], a: int, b: int) -> None:
    begin, end = sorted((a, b))
    given_ = [(x, y) for x, y in pairs if x < y]
    frame = pl.DataFrame(given_, schema={"begin": pl.Int64, "end": pl.Int64}, orient="row")
    before = sorted(t for x, y in given_ for t in range(x, y) if not begin <= t < end)
    touched = frame.filter(pl.col("begin") < end, pl.col("end") > begin)
    kept = frame.filter((pl.col("begin") >= end) | (pl.col("end") <= begin))
    left = pl.concat([kept, trimmed(touched, Timespan(begin, end))])
    assert sorted(t for x, y in left.rows() for t in range(x, y)) == before
