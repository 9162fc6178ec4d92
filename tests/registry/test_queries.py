"""Questions to real registries: data IDs, datasets, one dataset."""

from collections.abc import Callable

import pytest
from loadmaster_registry.errors import NotFound, QueryError
from loadmaster_registry.queries import find_dataset, query_data_ids, query_datasets
from loadmaster_registry.store import Registry


def test_existing_datasets_restrict_data_ids(opened: Callable[[str], Registry]) -> None:
    registry = opened("rc2-small")
    everything = query_data_ids(registry, ["exposure", "detector"], where="instrument='HSC'")
    with_raw = query_data_ids(
        registry,
        ["exposure", "detector"],
        where="instrument='HSC'",
        datasets=["raw"],
        collections=["HSC/raw/all"],
    )
    assert everything.height == 40 * 112
    assert with_raw.height == 240


def test_datasets_of_a_type_come_with_where_they_are(opened: Callable[[str], Registry]) -> None:
    found = query_datasets(
        opened("rc2-small"), "raw", ["HSC/raw/all"], where="instrument='HSC' AND exposure = 322"
    )
    assert found.height == 6
    assert found["url"].null_count() == 0
    assert found["id"].n_unique() == 6


def test_a_data_id_may_name_what_implies_the_missing_dimension(opened: Callable[[str], Registry]) -> None:
    registry = opened("rc2-small")
    raw = find_dataset(
        registry, "raw", {"instrument": "HSC", "exposure": 322, "detector": 41}, ["HSC/raw/all"]
    )
    assert raw.height == 1
    with pytest.raises(QueryError, match="lacks detector"):
        find_dataset(registry, "raw", {"instrument": "HSC", "exposure": 322}, ["HSC/raw/all"])
    with pytest.raises(NotFound, match="there is no 'raw'"):
        find_dataset(registry, "raw", {"instrument": "HSC", "exposure": 5, "detector": 41}, ["HSC/raw/all"])
    with pytest.raises(QueryError, match="did you mean 'detector'"):
        find_dataset(registry, "raw", {"detektor": 41}, ["HSC/raw/all"])


def test_an_overlap_that_is_written_takes_the_place_of_the_finest_one(
    opened: Callable[[str], Registry],
) -> None:
    where = "instrument='HSC' AND skymap='hsc_rings_v1'"
    finest = query_data_ids(opened("rc2-visits"), ["visit", "detector", "patch"], where=where)
    written = query_data_ids(
        opened("rc2-visits"),
        ["visit", "detector", "patch"],
        where=f"{where} AND visit.region OVERLAPS patch.region",
    )
    assert finest.height == 1132  # each of the registered detector regions is on one patch
    assert written.height == 160 * 111  # as Rubin's registry: every detector of every visit


def test_data_ids_are_ordered_by_what_a_name_stands_for(opened: Callable[[str], Registry]) -> None:
    registry = opened("rc2-visits")
    asked = {"where": "instrument='HSC' AND band = 'i'"}
    plain = query_data_ids(registry, ["visit"], order_by=["-exposure_time", "visit"], **asked)["visit"]
    in_full = query_data_ids(registry, ["visit"], order_by=["-visit.exposure_time", "visit.id"], **asked)[
        "visit"
    ]
    assert plain.to_list() == in_full.to_list() != sorted(plain)
    with pytest.raises(QueryError, match="exposure_time"):
        query_data_ids(registry, ["visit"], order_by=["visit.exposure_tim"], **asked)
    with pytest.raises(QueryError, match="tract is no part of the data IDs"):
        query_data_ids(registry, ["visit"], order_by=["tract"], **asked)
