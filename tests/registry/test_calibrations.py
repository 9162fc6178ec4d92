"""Validity ranges: certified, decertified and searched as Rubin's registry does it."""

import csv
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import numpy as np
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

CASES = Path(os.environ.get("LOADMASTER_CASES", Path(__file__).parents[3] / "shared" / "data"))
MICRO = CASES / "expected" / "calibs-micro.json"
S = 1_000_000_000


def lookups() -> list[Any]:
    found = json.loads(MICRO.read_text())["lookups"] if MICRO.exists() else []
    return [pytest.param(row, id=" ".join(map(str, row[1:6]))) for row in found]


def ns(text: str | None, unbounded: int) -> int:
    return unbounded if text is None else int(np.datetime64(text, "ns").astype(np.int64))


def span(begin: str | None, end: str | None) -> Timespan:
    return Timespan(ns(begin, MIN_NS), ns(end, MAX_NS))


def run_of(registry: Registry, type: str, collections: list[str], data_id: Any, timespan: Timespan) -> str:
    try:
        found = find_calibration(registry, type, collections, data_id, timespan)
    except RegistryError as error:
        return "AMBIGUOUS" if "valid at once" in str(error) else str(error)
    return found.run if found else "NONE"


def ids_of(registry: Registry, type: str, run: str, **keep: list[int | str]) -> list[UUID]:
    found = registry.datasets(type, [run], keep=keep)
    return [UUID(bytes=id) for id in registry.files(found["dataset"])["id"]]


def certify(registry: Registry, op: dict[str, Any]) -> None:
    filters = {"physical_filter": [op["physical_filter"]]} if op["physical_filter"] else {}
    ids = ids_of(registry, op["dataset_type"], op["run"], detector=op["detectors"], **filters)
    with registry.transaction() as transaction:
        transaction.certify(op["collection"], op["dataset_type"], ids, span(op["begin"], op["end"]))


def decertify(registry: Registry, op: dict[str, Any]) -> None:
    data_ids = None
    if op["detectors"] is not None:
        data_ids = pl.DataFrame({"instrument": "Cam1", "detector": op["detectors"]})
    with registry.transaction() as transaction:
        timespan = span(op["begin"], op["end"])
        transaction.decertify(op["collection"], op["dataset_type"], timespan, data_ids)


@pytest.fixture(scope="session")
def certified(originals: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Registry:
    """Return the small registry after all operations, each of which ended as it should."""
    path = tmp_path_factory.mktemp("certified") / "micro.sqlite3"
    path.write_bytes(originals("micro").read_bytes())
    registry = Registry.open(str(path))
    operations = json.loads(MICRO.read_text())["operations"]
    with registry.transaction() as transaction:
        for name in {op["collection"] for op in operations}:
            transaction.register_collection(Collection(name, CollectionType.CALIBRATION))
    for op in operations:
        act = {"certify": certify, "decertify": decertify}[op["op"]]
        if op["result"] == "ok":
            act(registry, op)
        else:
            with pytest.raises(Conflict, match=r"is valid .* was given for"):
                act(registry, op)
    return registry


def test_certifying_and_decertifying_leaves_the_ranges_that_rubins_registry_has(certified: Registry) -> None:
    found = set()
    for collection in ("calib", "calib2"):
        for type in ("bias", "flat"):
            rows = certified.calibrations(type, [collection])
            runs = certified.files(rows["dataset"])["run"]
            for row, run in zip(rows.iter_rows(named=True), runs, strict=True):
                key = (collection, type, row["detector"], row.get("physical_filter"), run)
                found.add((*key, row["begin"], row["end"]))
    state = json.loads(MICRO.read_text())["state"]
    assert found == {(*row[:5], ns(row[5], MIN_NS), ns(row[6], MAX_NS)) for row in state}


@pytest.mark.parametrize("row", lookups())
def test_a_look_up_in_time_answers_as_rubins_registry(row: list[Any], certified: Registry) -> None:
    collection, type, detector, physical_filter, begin, end, answer = row
    data_id = {"instrument": "Cam1", "detector": detector}
    if physical_filter:
        data_id["physical_filter"] = physical_filter
    assert run_of(certified, type, [collection], data_id, span(begin, end)) == answer


def test_every_exposure_of_the_real_registry_finds_the_calibrations_that_it_should(
    cases: Path, imported: Callable[[str], Registry]
) -> None:
    registry = imported("rc2-small")
    exposures = {row["exposure"]: row for row in registry.records("exposure").iter_rows(named=True)}
    wrong = []
    for row in csv.DictReader((cases / "expected" / "calibs-rc2-small.csv").read_text().splitlines()):
        exposure = exposures[int(row["exposure"])]
        data_id = exposure | {"detector": int(row["detector"])}
        taken = Timespan(exposure["timespan_begin"], exposure["timespan_end"])
        found = run_of(registry, row["dataset_type"], ["HSC/calib"], data_id, taken)
        if found != row["answer"]:
            wrong.append((row, found))
    assert not wrong


def test_calibrations_at_chosen_times_are_those_of_the_real_registry(
    cases: Path, imported: Callable[[str], Registry]
) -> None:
    registry = imported("decam-hits")
    physical_filter = registry.records("physical_filter")["physical_filter"][0]
    wrong = []
    for row in csv.DictReader((cases / "expected" / "calibs-decam-hits.csv").read_text().splitlines()):
        begin = ns(row["begin"], MIN_NS)
        data_id = {
            "instrument": "DECam",
            "detector": int(row["detector"]),
            "physical_filter": physical_filter,
        }
        timespan = Timespan(begin, begin + 90 * S)
        found = run_of(registry, row["dataset_type"], ["DECam/calib"], data_id, timespan)
        if found != row["answer"]:
            wrong.append((row, found))
    assert not wrong


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
