"""Observation metadata in versions: new values, newer values, flags, and what queries make of them."""

import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from loadmaster_registry.errors import Conflict, QueryError, RegistryError
from loadmaster_registry.exchange import import_export, write_export
from loadmaster_registry.queries import query_data_ids
from loadmaster_registry.records import Collection, CollectionType, DatasetType
from loadmaster_registry.store import Registry
from lsst.sphgeom import ConvexPolygon, LonLat, UnitVector3d

CAM = "instrument='Cam'"


def square(ra: float) -> bytes:
    corners = ((ra, 0.0), (ra + 0.1, 0.0), (ra + 0.1, 0.1), (ra, 0.1))
    encoded: bytes = ConvexPolygon([UnitVector3d(LonLat.fromDegrees(*c)) for c in corners]).encode()
    return encoded


@pytest.fixture
def survey(registry: Registry) -> Registry:
    cam = {"instrument": "Cam"}
    facts = {**cam, "physical_filter": "r1", "day_obs": 20260101}
    rows = {
        "instrument": [cam],
        "physical_filter": [{**cam, "physical_filter": "r1", "band": "r"}],
        "day_obs": [{**cam, "day_obs": 20260101}],
        "detector": [{**cam, "detector": d, "full_name": str(d)} for d in (0, 1)],
        "visit": [
            {**facts, "visit": v, "name": str(v), "exposure_time": 30.0, "region": square(v)}
            for v in (1, 2, 3)
        ],
        "visit_detector_region": [
            {**cam, "visit": v, "detector": d, "region": square(v)} for v in (1, 2) for d in (0, 1)
        ],
    }
    with registry.transaction() as transaction:
        for element, records in rows.items():
            transaction.insert_records(element, pl.DataFrame(records))
    return registry


def put(registry: Registry, rows: Mapping[str, Any], element: str = "visit") -> int:
    frame = pl.DataFrame({"instrument": ["Cam"] * len(next(iter(rows.values()))), **rows})
    with registry.transaction() as transaction:
        return transaction.set_metadata(element, frame, loaded="2026-03-01T00:00:00", source="seeing.csv")


def visits(registry: Registry, where: str, **more: Any) -> list[int]:
    return query_data_ids(registry, ["visit"], where=f"{CAM} AND {where}", **more)["visit"].to_list()


def test_a_new_column_is_in_the_records_and_in_every_query(survey: Registry) -> None:
    assert put(survey, {"visit": [1, 2], "seeing": [0.7, 1.1]}) == 2
    assert survey.records("visit")["seeing"].to_list() == [0.7, 1.1, None]
    assert visits(survey, "visit.seeing < 1.0") == [1]
    assert visits(survey, "seeing > 1.0") == [2]  # a bare name: no other element has it
    assert visits(survey, "visit > 0", order_by=["-visit.seeing"]) == [2, 1, 3]
    assert "seeing" in {c.name for c in survey.universe["visit"].versioned}


def test_an_element_without_versions_has_the_columns_it_had(survey: Registry) -> None:
    before = survey.records("detector").columns
    put(survey, {"visit": [1], "seeing": [0.7]})
    assert survey.records("detector").columns == before
    assert survey.records("visit", columns=["exposure_time"]).columns == [
        "instrument",
        "visit",
        "exposure_time",
    ]


def test_the_newest_version_wins_value_by_value_and_older_ones_stay_readable(survey: Registry) -> None:
    put(survey, {"visit": [1, 2], "seeing": [0.7, 1.1], "sky": [20.0, 21.0]})
    assert put(survey, {"visit": [1, 2], "seeing": [0.8, None], "sky": [None, 22.0]}) == 2
    records = survey.records("visit")
    assert records["seeing"].to_list() == [0.8, 1.1, None]
    assert records["sky"].to_list() == [20.0, 22.0, None]
    with survey.snapshot() as now:
        told = now.metadata_history("visit").filter(column="seeing", visit=1)
    assert told.select("value", "version", "is_newest").rows() == [("0.7", 1, False), ("0.8", 2, True)]
    assert set(told["source"]) == {"seeing.csv"}


def test_the_same_values_again_are_no_new_version(survey: Registry) -> None:
    rows = {"visit": [1, 2], "seeing": [0.7, None], "exposure_time": [30.0, 31.0]}
    assert put(survey, rows) == 2  # the record says 30.0 already
    assert put(survey, rows) == 0
    with survey.snapshot() as now:
        assert now.metadata_history("visit").height == 2


def test_values_that_the_records_have_themselves_can_have_versions(survey: Registry) -> None:
    put(survey, {"visit": [1], "exposure_time": [15], "region": [square(50.0)]})
    assert survey.records("visit")["exposure_time"].to_list() == [15.0, 30.0, 30.0]
    assert visits(survey, "visit.exposure_time < 20") == [1]
    assert visits(survey, "visit.region OVERLAPS POINT(50.05, 0.05)") == [1]
    assert visits(survey, "visit.region OVERLAPS POINT(1.05, 0.05)") == []
    assert survey.universe["visit"].versioned == ()


def test_a_value_can_go_back_to_what_it_was(survey: Registry) -> None:
    for seconds in (15.0, 30.0, 15.0):
        assert put(survey, {"visit": [1], "exposure_time": [seconds]}) == 1
    assert survey.records("visit")["exposure_time"][0] == 15.0


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ({"visit": [1, 9], "seeing": [1.0, 2.0]}, "1 of 2 rows(?s:.*)row 2: instrument='Cam' visit=9"),
        ({"visit": [1], "name": ["one"]}, "'name' cannot be metadata(?s:.*)identifies the record"),
        ({"visit": [1], "physical_filter": ["g"]}, "'physical_filter' cannot be metadata"),
        ({"visit": [1], "detector": [3]}, "'detector' cannot be metadata"),
        ({"visit": [1], "see-ing": [3]}, "no plain word"),
        ({"visit": [1], "seeing": [[3]]}, "which no record can hold"),
        ({"visit": [1], "exposure_time": ["long"]}, "'exposure_time' holds String(?s:.*)Float64 is wanted"),
        ({"visit": [1], "flagged": [1]}, "'flagged' holds Int64(?s:.*)Boolean is wanted"),
        ({"visit": [1]}, "no values are given"),
        ({"visit": ["one"], "seeing": [1.0]}, "'visit' holds String"),
    ],
)
def test_what_cannot_be_meant_is_refused_and_nothing_is_stored(
    rows: dict[str, Any], words: str, survey: Registry
) -> None:
    with pytest.raises(RegistryError, match=words):
        put(survey, rows)
    with survey.snapshot() as now:
        assert now.metadata_history("visit").is_empty()


def test_one_record_given_twice_differently_is_refused(survey: Registry) -> None:
    with pytest.raises(Conflict, match="given twice"):
        put(survey, {"visit": [1, 1], "seeing": [1.0, 2.0]})


def test_the_type_of_a_column_stays(survey: Registry) -> None:
    put(survey, {"visit": [1], "seeing": [1.0]})
    assert put(survey, {"visit": [1], "seeing": [2]}) == 1  # a whole number is a number
    with pytest.raises(RegistryError, match="'seeing' holds String"):
        put(survey, {"visit": [1], "seeing": ["bad"]})
    with pytest.raises(QueryError, match="seeing"):
        visits(survey, "visit.seeing = 'bad'")


def test_a_transaction_that_fails_leaves_neither_values_nor_columns(survey: Registry) -> None:
    def breaking_off() -> None:
        with survey.transaction() as transaction:
            rows = pl.DataFrame({"instrument": ["Cam"], "visit": [1], "seeing": [1.0]})
            transaction.set_metadata("visit", rows, loaded="", source="")
            assert transaction.records("visit")["seeing"][0] == 1.0
            raise RuntimeError

    with pytest.raises(RuntimeError):
        breaking_off()
    assert "seeing" not in survey.records("visit").columns
    assert put(survey, {"visit": [1], "seeing": ["fine"]}) == 1  # the name is free, with another type


def test_what_another_process_sets_is_seen_by_the_next_snapshot(survey: Registry) -> None:
    with Registry.open(survey.url) as other:
        put(other, {"visit": [1], "seeing": [0.7]})
        assert visits(survey, "visit.seeing < 1") == [1]
    with Registry.open(survey.url) as later:
        assert [c.name for c in later.universe["visit"].versioned] == ["seeing"]


def test_a_name_that_two_elements_have_needs_its_element(survey: Registry) -> None:
    put(survey, {"visit": [1], "quality": [1]})
    put(survey, {"detector": [1], "quality": [2]}, "detector")
    with pytest.raises(QueryError, match="several elements"):
        query_data_ids(survey, ["visit", "detector"], where=f"{CAM} AND quality = 1")
    assert visits(survey, "visit.quality = 1") == [1]


def test_flags_are_what_is_flagged_now(survey: Registry) -> None:
    with survey.snapshot() as now:
        assert now.flagged() == {}
    put(survey, {"visit": [1, 2], "flagged": [True, True], "flag_reason": ["trail", "cloud"]})
    pair = {"visit": [2], "detector": [1], "flagged": [True]}
    put(survey, pair, "visit_detector_region")
    put(survey, {"visit": [1], "flagged": [False]})
    with survey.snapshot() as now:
        flagged = {name: rows.rows() for name, rows in now.flagged().items()}
    assert flagged == {"visit": [("Cam", 2)], "visit_detector_region": [("Cam", 1, 2)]}
    assert survey.records("visit")["flagged"].to_list() == [False, True, False]  # never unknown
    assert visits(survey, "NOT visit.flagged") == [1, 3]


def test_an_export_has_the_newest_of_its_own_values_and_no_column_that_others_do_not_know(
    survey: Registry, tmp_path: Path
) -> None:
    put(survey, {"visit": [1], "seeing": [0.7], "exposure_time": [15.0]})
    with survey.transaction() as transaction:
        group = survey.universe.group(["visit"])
        transaction.register_dataset_type(DatasetType("summary", group, "Table"))
        transaction.register_collection(Collection("run", CollectionType.RUN))
        row = {"instrument": ["Cam"], "visit": [1], "id": [uuid4().bytes], "url": ["summary"]}
        transaction.insert_datasets("summary", "run", pl.DataFrame(row))
    write_export(survey, ["run"], tmp_path / "export.yaml")
    with Registry.create(str(tmp_path / "other.sqlite3")) as other:
        import_export(other, tmp_path / "export.yaml")
        records = other.records("visit")
    assert records["exposure_time"].to_list() == [15.0]
    assert "seeing" not in records.columns


def test_a_registry_of_the_first_schema_is_refused_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "registry.sqlite3"
    Registry.create(str(path)).close()
    with sqlite3.connect(path) as database:
        database.execute("UPDATE meta SET value = '1' WHERE key = 'schema_version'")
    with pytest.raises(RegistryError, match=r"schema version 1(?s:.*)loadmaster init"):
        Registry.open(str(path))


VALUES = st.one_of(st.none(), st.integers(-3, 3).map(float))
LOADS = st.lists(
    st.dictionaries(st.sampled_from([1, 2, 3]), st.tuples(VALUES, VALUES), min_size=1), max_size=6
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25, deadline=None)
@given(LOADS)
def test_whatever_is_loaded_records_say_what_a_dictionary_that_remembers_would(
    survey: Registry, loads: list[dict[int, tuple[float | None, float | None]]]
) -> None:
    columns = {
        "exposure_time": "exposure_time",
        "fresh": f"fresh_{uuid4().hex}",
    }
    held: dict[tuple[int, str], float | None] = {}
    for visit, seconds in survey.records("visit").select("visit", "exposure_time").iter_rows():
        held[visit, "exposure_time"] = seconds
    for load in loads:
        keys = list(load)
        rows = {
            c: pl.Series([load[v][i] for v in keys], dtype=pl.Float64) for i, c in enumerate(columns.values())
        }
        new = {(v, c): load[v][i] for v in keys for i, c in enumerate(columns) if load[v][i] is not None}
        n_new = sum(held.get(key) != value for key, value in new.items())
        assert put(survey, {"visit": keys, **rows}) == n_new
        held |= new
    records = survey.records("visit")
    for c, name in columns.items():
        if name in records.columns:
            assert records[name].to_list() == [held.get((v, c)) for v in (1, 2, 3)]
        else:
            assert not any(key == c for _, key in held)
