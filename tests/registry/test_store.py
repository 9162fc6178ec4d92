"""The registry: what is written is read, the same again changes nothing, and a refusal leaves nothing."""

import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import polars as pl
import pytest
import yaml
from loadmaster_registry.errors import ConfigError, Conflict, NotFound, RegistryError
from loadmaster_registry.records import Collection, CollectionType, DatasetType
from loadmaster_registry.store import Registry
from loadmaster_registry.universe import load_universe

RUN, TAGGED = CollectionType.RUN, CollectionType.TAGGED


def camera(registry: Registry, n_visits: int = 2, n_detectors: int = 3) -> None:
    """Add an instrument with detectors, and visits of one night."""
    with registry.transaction() as transaction:
        transaction.insert_records("instrument", pl.DataFrame({"instrument": ["Cam"]}))
        transaction.insert_records("physical_filter", frame(physical_filter=["Cam-r"], band=["r"]))
        transaction.insert_records("day_obs", frame(day_obs=[20260301]))
        transaction.insert_records("detector", frame(detector=range(n_detectors)))
        visits = frame(visit=range(n_visits), physical_filter="Cam-r", day_obs=20260301)
        transaction.insert_records("visit", visits)
        group = registry.universe.group(["visit", "detector"])
        transaction.register_dataset_type(DatasetType("image", group, "ExposureF"))
        transaction.register_collection(Collection("run", RUN))


def frame(**columns: Any) -> pl.DataFrame:
    return pl.DataFrame({"instrument": "Cam", **columns})


def images(n: int, first_visit: int = 0, **columns: Any) -> pl.DataFrame:
    ids = [uuid4().bytes for _ in range(n)]
    return frame(visit=first_visit, detector=range(n), **{"id": ids, **columns})


def insert(registry: Registry, rows: pl.DataFrame, run: str = "run") -> int:
    with registry.transaction() as transaction:
        return transaction.insert_datasets("image", run, rows)


def uuids(rows: pl.DataFrame) -> list[UUID]:
    return [UUID(bytes=id) for id in rows["id"]]


# Creating and opening


def test_a_registry_is_opened_with_the_universe_it_was_created_with(tmp_path: Path) -> None:
    path = str(tmp_path / "registry.sqlite3")
    Registry.create(path).close()
    with Registry.open(path) as opened, Registry.open(f"sqlite:///{path}") as again:
        assert opened.universe == again.universe == load_universe()


def test_creating_where_something_is_is_refused(tmp_path: Path) -> None:
    path = str(tmp_path / "registry.sqlite3")
    Registry.create(path).close()
    with pytest.raises(RegistryError, match="not empty"):
        Registry.create(path)


def test_a_missing_registry_tells_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="loadmaster init"):
        Registry.open(str(tmp_path / "none.sqlite3"))
    assert not list(tmp_path.iterdir())


def test_a_newer_registry_is_refused_in_words(tmp_path: Path) -> None:
    path = tmp_path / "registry.sqlite3"
    Registry.create(str(path)).close()
    with sqlite3.connect(path) as database:
        database.execute("UPDATE meta SET value = '99' WHERE key = 'schema_version'")
    with pytest.raises(RegistryError, match="upgrade Loadmaster"):
        Registry.open(str(path))


def test_a_rubin_registry_is_told_from_ours(tmp_path: Path) -> None:
    path = tmp_path / "gen3.sqlite3"
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE butler_attributes (name TEXT, value TEXT)")
    with pytest.raises(RegistryError, match="Rubin Butler registry"):
        Registry.open(str(path))


@pytest.mark.parametrize("content", [b"", b"this is no database, but it is long enough to be looked at" * 20])
def test_a_file_that_is_no_registry_is_refused_in_words(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    with pytest.raises(RegistryError, match=r"not a Loadmaster registry|not a database"):
        Registry.open(str(path))


def test_errors_never_show_a_password() -> None:
    with pytest.raises((ConfigError, RegistryError)) as caught:  # the former without a driver
        Registry.create("postgresql+psycopg://me:secret@localhost:1/none")
    assert "me:***@localhost" in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["sqlite://", "nosuch://host/database", "sqlite:///:memory:"])
def test_a_url_that_leads_to_no_database_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="no database can be reached"):
        Registry.create(url)


def test_a_damaged_file_is_told_in_words(tmp_path: Path) -> None:
    path = tmp_path / "registry.sqlite3"
    with Registry.create(str(path)) as registry:
        camera(registry, n_visits=5000)
    content = bytearray(path.read_bytes())
    content[len(content) // 2 :] = b"x" * (len(content) - len(content) // 2)
    path.write_bytes(content)
    with pytest.raises(RegistryError, match="restore it from a back-up"):
        visits_of(path)


def visits_of(path: Path) -> int:
    with Registry.open(str(path)) as registry:
        return registry.records("visit").height


# Records


def test_records_come_back_as_they_were_given(registry: Registry) -> None:
    camera(registry)
    given = frame(
        visit=[7, 8],
        physical_filter="Cam-r",
        day_obs=20260301,
        name=["seven", None],
        exposure_time=[30.0, None],
        region=[b"p" + bytes(72), None],
        timespan_begin=[1, None],
        timespan_end=[2, None],
    )
    with registry.transaction() as transaction:
        assert transaction.insert_records("visit", given) == 2
    found = registry.records("visit", {"visit": [8, 7]})
    assert found.select(given.columns).equals(given)
    assert found["target_name"].null_count() == 2


def test_what_is_not_a_number_is_null(registry: Registry) -> None:
    camera(registry)
    rows = frame(visit=[7], physical_filter="Cam-r", day_obs=20260301, azimuth=[float("nan")])
    with registry.transaction() as transaction:
        assert transaction.insert_records("visit", rows) == 1
        assert transaction.insert_records("visit", rows) == 0
    assert registry.records("visit", {"visit": [7]})["azimuth"].to_list() == [None]


def test_record_columns_are_named_like_their_dimension_and_typed(registry: Registry) -> None:
    schema = registry.records("exposure").schema
    expected = ["instrument", "exposure", "day_obs", "group", "physical_filter", "obs_id"]
    assert list(schema)[:6] == expected
    assert schema["exposure"] == schema["timespan_begin"] == pl.Int64
    assert schema["group"] == pl.String
    assert schema["can_see_sky"] == pl.Boolean
    assert registry.records("tract").schema["region"] == pl.Binary


def test_every_element_of_the_universe_can_be_read_though_empty(registry: Registry) -> None:
    for element in registry.universe.elements.values():
        found = registry.records(element.name)
        assert found.is_empty()
        assert found.columns[: len(element.required)] == list(element.required)


def test_bands_are_those_of_the_filters_and_need_no_records(registry: Registry) -> None:
    camera(registry)
    with registry.transaction() as transaction:
        transaction.insert_records("physical_filter", frame(physical_filter=["r2", "g"], band=["r", "g"]))
        assert transaction.insert_records("band", pl.DataFrame({"band": ["i"]})) == 0
    assert registry.records("band").rows() == [("g",), ("r",)]
    assert registry.records("band", {"band": ["r"]}).rows() == [("r",)]


def test_the_same_records_again_change_nothing(registry: Registry) -> None:
    camera(registry)
    with registry.transaction() as transaction:
        assert transaction.insert_records("detector", frame(detector=[0, 1, 5, 5])) == 1
    assert registry.records("detector")["detector"].to_list() == [0, 1, 2, 5]


def test_a_column_left_out_is_not_compared_but_a_null_is(registry: Registry) -> None:
    camera(registry)
    with registry.transaction() as transaction:
        transaction.insert_records("detector", frame(detector=[7], raft=["R7"]))
        assert transaction.insert_records("detector", frame(detector=[7])) == 0
        with pytest.raises(Conflict, match="there raft='R7', given raft=None"):
            transaction.insert_records("detector", frame(detector=[7], raft=[None]))


def test_another_record_of_the_same_key_is_a_conflict_that_shows_both(registry: Registry) -> None:
    camera(registry)
    with (
        pytest.raises(
            Conflict, match=r"instrument='Cam' physical_filter='Cam-r': there band='r', given band='z'"
        ),
        registry.transaction() as transaction,
    ):
        transaction.insert_records("physical_filter", frame(physical_filter=["g", "Cam-r"], band=["g", "z"]))
    assert registry.records("physical_filter").height == 1


def test_two_records_of_one_key_in_one_call_are_a_conflict(registry: Registry) -> None:
    camera(registry)
    with pytest.raises(Conflict, match="given twice"), registry.transaction() as transaction:
        transaction.insert_records("detector", frame(detector=[9, 9], raft=["a", "b"]))


def test_an_alternate_key_stands_for_one_record(registry: Registry) -> None:
    camera(registry)
    with registry.transaction() as transaction:
        transaction.insert_records("detector", frame(detector=[7], full_name=["S7"]))
        with pytest.raises(Conflict, match="full_name='S7': there detector=7, given detector=8"):
            transaction.insert_records("detector", frame(detector=[8], full_name=["S7"]))


def test_records_that_name_missing_dimensions_are_refused_with_all_of_them(registry: Registry) -> None:
    camera(registry)
    visits = frame(visit=[8, 9], physical_filter=["Cam-r", "Cam-x"], day_obs=[20260302, 20260301])
    said = r"no day_obs .*20260302; no physical_filter .*'Cam-x'"
    with pytest.raises(RegistryError, match=said), registry.transaction() as transaction:
        transaction.insert_records("visit", visits)
    assert registry.records("visit").height == 2


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"detector": [1], "rafft": ["a"]}, "did you mean 'raft'"),
        ({"raft": ["a"]}, "missing column detector"),
        ({"detector": ["one"]}, "'detector' holds String"),
        ({"detector": [1, None]}, "null in 1 of 2 rows"),
    ],
)
def test_wrong_columns_are_refused_by_name(registry: Registry, columns: dict[str, Any], said: str) -> None:
    camera(registry)
    with pytest.raises(RegistryError, match=said), registry.transaction() as transaction:
        transaction.insert_records("detector", frame(**columns))


def test_sky_pixels_have_no_records(registry: Registry) -> None:
    with pytest.raises(RegistryError, match="computed, not stored"):
        registry.records("htm7")
    with pytest.raises(RegistryError, match="computed, not stored"), registry.transaction() as transaction:
        transaction.insert_records("htm7", pl.DataFrame({"htm7": [131072]}))


def test_only_rows_with_values_kept_come_back_however_long_the_list(registry: Registry) -> None:
    camera(registry, n_visits=5)
    for values in ([3, 1, 3], range(1, 5000, 2)):
        found = registry.records("visit", {"visit": values, "detector": [0]})
        assert found["visit"].to_list() == [1, 3]
    assert registry.records("visit", {"visit": []}).is_empty()


def test_a_universe_extended_by_the_user_stores_its_elements(tmp_path: Path) -> None:
    extension = tmp_path / "fibres.yaml"
    fibre = {
        "key": {"id": "int"},
        "requires": ["detector"],
        "metadata": {"throughput": "float!", "note": "str"},
    }
    extension.write_text(yaml.safe_dump({"namespace": "toy", "version": 1, "elements": {"fibre": fibre}}))
    Registry.create(str(tmp_path / "toy.sqlite3"), load_universe(extension)).close()
    with Registry.open(str(tmp_path / "toy.sqlite3")) as registry:
        camera(registry)
        spectrum = DatasetType("spectrum", registry.universe.group(["fibre", "visit"]), "Text")
        rows = frame(detector=1, fibre=[4, 5], throughput=[0.5, 0.25])
        with registry.transaction() as transaction:
            assert transaction.insert_records("fibre", rows) == 2
            transaction.register_dataset_type(spectrum)
            row = frame(detector=[1], fibre=[4], visit=[0], id=[uuid4().bytes])
            assert transaction.insert_datasets("spectrum", "run", row) == 1
        assert registry.records("fibre").select(rows.columns).equals(rows)
        found = registry.datasets("spectrum", ["run"])
        assert found.select("detector", "fibre", "visit").rows() == [(1, 4, 0)]


def test_an_element_whose_columns_clash_is_refused(tmp_path: Path) -> None:
    extension = tmp_path / "clash.yaml"
    for name, element, said in (
        (
            "fibre",
            {"key": {"id": "int"}, "requires": ["detector"], "metadata": {"detector": "str"}},
            "two columns",
        ),
        ("rank", {"key": {"id": "int"}}, "can be named 'rank'"),
    ):
        extension.write_text(yaml.safe_dump({"elements": {name: element}}))
        with pytest.raises(ConfigError, match=said):
            Registry.create(str(tmp_path / "toy.sqlite3"), load_universe(extension))


# Dataset types and datasets


def test_dataset_types_are_found_by_name_and_by_glob(registry: Registry) -> None:
    camera(registry)
    group = registry.universe.group(["visit", "detector"])
    assert registry.dataset_type("image") == DatasetType("image", group, "ExposureF")
    assert [t.name for t in registry.dataset_types("im*")] == ["image"]
    assert registry.dataset_types("*.wcs") == []
    with pytest.raises(NotFound, match="did you mean 'image'"):
        registry.dataset_type("imgae")


def test_another_definition_of_a_dataset_type_is_a_conflict_that_shows_both(registry: Registry) -> None:
    camera(registry)
    same = registry.dataset_type("image")
    with registry.transaction() as transaction:
        assert not transaction.register_dataset_type(same)
        with pytest.raises(Conflict, match=r"there: image {.*} as ExposureF; given: image {.*} as Text"):
            transaction.register_dataset_type(DatasetType("image", same.dimensions, "Text"))


@pytest.mark.parametrize(
    ("name", "said"), [("image.wcs", "register 'image'"), ("a b", "letters, digits and _")]
)
def test_a_dataset_type_name_is_checked(registry: Registry, name: str, said: str) -> None:
    group = registry.universe.group(["visit"])
    with pytest.raises(RegistryError, match=said), registry.transaction() as transaction:
        transaction.register_dataset_type(DatasetType(name, group, "Text"))


def test_datasets_come_back_in_order_with_their_files(registry: Registry) -> None:
    camera(registry)
    rows = images(
        3, url=["a.fits", None, "c.fits"], size_bytes=[1, None, None], checksum=["sha256:1", None, None]
    )
    assert insert(registry, rows[::-1]) == 3
    found = registry.datasets("image", ["run"])
    assert found.schema == {
        "instrument": pl.String, "detector": pl.Int64, "visit": pl.Int64, "dataset": pl.Int64, "rank": pl.Int32,
    }  # fmt: skip
    assert found["detector"].to_list() == [0, 1, 2]
    files = registry.files(found["dataset"])
    assert files.select("id", "url", "size_bytes", "checksum").equals(
        rows.select("id", "url", "size_bytes", "checksum")
    )
    assert files["run"].to_list() == ["run"] * 3


def test_files_come_in_the_order_asked_for_once_for_each_time_asked(registry: Registry) -> None:
    camera(registry)
    insert(registry, images(3, url=["a", "b", "c"]))
    a, b, c = registry.datasets("image", ["run"])["dataset"]
    found = registry.files(pl.Series([c, a, c, b]))
    assert found["dataset"].to_list() == [c, a, c, b]
    assert found["url"].to_list() == ["c", "a", "c", "b"]


def test_a_dataset_is_found_by_its_id(registry: Registry) -> None:
    camera(registry)
    rows = images(2, url=["a.fits", None], size_bytes=[5, None])
    insert(registry, rows)
    first, second = map(registry.find, uuids(rows))
    assert (first.data_id, first.run, first.url, first.size_bytes) == (("Cam", 0, 0), "run", "a.fits", 5)
    assert (second.data_id, second.url, second.size_bytes, second.checksum) == (("Cam", 1, 0), "", -1, "")
    with pytest.raises(NotFound, match="there is no dataset"):
        registry.find(uuid4())


def test_the_same_datasets_again_change_nothing(registry: Registry) -> None:
    camera(registry)
    rows = images(3, url=["a", "b", "c"])
    assert insert(registry, rows[:2]) == 2
    assert insert(registry, pl.concat([rows, rows])) == 1
    assert registry.datasets("image", ["run"]).height == 3


def test_a_taken_data_id_is_a_conflict_that_names_both_datasets(registry: Registry) -> None:
    camera(registry)
    old, new = images(2), images(3)
    insert(registry, old)
    with pytest.raises(Conflict, match=f"there id={uuids(old)[0]}, given id={uuids(new)[0]}"):
        insert(registry, new)
    assert registry.datasets("image", ["run"]).height == 2


def test_an_id_stands_for_one_dataset(registry: Registry) -> None:
    camera(registry)
    rows = images(1)
    insert(registry, rows)
    with pytest.raises(Conflict, match="there visit=0, given visit=1"):
        insert(registry, rows.with_columns(visit=pl.lit(1)))
    with registry.transaction() as transaction:
        transaction.register_collection(Collection("other", RUN))
        with pytest.raises(Conflict, match="there run='run', given run='other'"):
            transaction.insert_datasets("image", "other", rows)


@pytest.mark.parametrize("change", [{"id": pl.col("id").first()}, {"detector": pl.lit(0)}])
def test_what_contradicts_itself_in_one_call_is_a_conflict(
    registry: Registry, change: dict[str, Any]
) -> None:
    camera(registry)
    with pytest.raises(Conflict, match="given twice"):
        insert(registry, images(2).with_columns(**change))


def test_a_data_id_without_records_is_refused(registry: Registry) -> None:
    camera(registry)
    with pytest.raises(RegistryError, match=r"no detector instrument='Cam' detector=3"):
        insert(registry, images(5))


def test_an_id_is_a_uuid(registry: Registry) -> None:
    camera(registry)
    with pytest.raises(RegistryError, match="'id' holds values that are no uuid"):
        insert(registry, frame(visit=[0], detector=[0], id=[b"seven"]))


def test_datasets_go_into_runs_only(registry: Registry) -> None:
    camera(registry)
    with registry.transaction() as transaction:
        transaction.register_collection(Collection("tag", TAGGED))
        with pytest.raises(RegistryError, match="is TAGGED, this needs RUN"):
            transaction.insert_datasets("image", "tag", images(1))


def test_datasets_without_dimensions_are_one_a_run(registry: Registry) -> None:
    camera(registry)
    packages, ids = (
        DatasetType("packages", registry.universe.group([]), "Text"),
        [uuid4().bytes for _ in range(3)],
    )
    with registry.transaction() as transaction:
        transaction.register_dataset_type(packages)
        transaction.register_collection(Collection("run2", RUN))
        for run, id in (("run", ids[0]), ("run", ids[0]), ("run2", ids[1])):
            transaction.insert_datasets("packages", run, pl.DataFrame({"id": [id]}))
        with pytest.raises(Conflict, match="there id="):
            transaction.insert_datasets("packages", "run", pl.DataFrame({"id": [ids[2]]}))
    assert registry.datasets("packages", ["run2", "run"]).select("rank").rows() == [(0,)]
    assert registry.datasets("packages", ["run2", "run"], find_first=False).select("rank").rows() == [
        (0,),
        (1,),
    ]
    assert registry.find(UUID(bytes=ids[1])).data_id == ()


def test_a_search_in_nothing_finds_nothing_but_says_what_is_unknown(registry: Registry) -> None:
    camera(registry)
    assert registry.datasets("image", []).columns == ["instrument", "detector", "visit", "dataset", "rank"]
    with pytest.raises(NotFound, match="did you mean 'run'"):
        registry.datasets("image", ["rum"])
    with pytest.raises(NotFound, match="there is no dataset type"):
        registry.datasets("images", ["run"])


def test_datasets_are_restricted_to_what_is_kept(registry: Registry) -> None:
    camera(registry, n_detectors=40)
    insert(registry, images(40))
    keep = {"detector": [39, 2, 1000], "tract": [1]}
    assert registry.datasets("image", ["run"], keep=keep)["detector"].to_list() == [2, 39]


def test_tags_are_put_on_and_taken_off(registry: Registry) -> None:
    camera(registry)
    rows = images(3)
    insert(registry, rows)
    with registry.transaction() as transaction:
        transaction.register_collection(Collection("tag", TAGGED))
        assert transaction.associate("tag", uuids(rows[:2])) == 2
        assert transaction.associate("tag", uuids(rows)) == 1
        assert transaction.disassociate("tag", uuids(rows[:1])) == 1
        assert transaction.disassociate("tag", uuids(rows[:1])) == 0
    assert registry.datasets("image", ["tag"])["detector"].to_list() == [1, 2]


def test_a_tagged_collection_has_one_dataset_for_a_data_id(registry: Registry) -> None:
    camera(registry)
    rows, others = images(2), images(2)
    insert(registry, rows)
    with registry.transaction() as transaction:
        transaction.register_collection(Collection("run2", RUN))
        transaction.register_collection(Collection("tag", TAGGED))
        transaction.insert_datasets("image", "run2", others)
        transaction.associate("tag", uuids(rows[:1]))
        with pytest.raises(Conflict, match=f"there uuid={uuids(rows)[0]}, given uuid={uuids(others)[0]}"):
            transaction.associate("tag", uuids(others))
        with pytest.raises(RegistryError, match="is RUN, this needs TAGGED"):
            transaction.associate("run2", uuids(rows))
    assert registry.datasets("image", ["tag"]).height == 1


# Transactions


def test_a_transaction_sees_its_own_writes_and_others_do_not_until_it_ends(registry: Registry) -> None:
    camera(registry)
    with registry.transaction() as transaction:
        transaction.insert_datasets("image", "run", images(3))
        assert transaction.datasets("image", ["run"]).height == 3
        assert registry.datasets("image", ["run"]).is_empty()
    assert registry.datasets("image", ["run"]).height == 3


def test_a_snapshot_does_not_change_while_it_is_open(registry: Registry) -> None:
    camera(registry)
    with registry.snapshot() as before:
        assert before.datasets("image", ["run"]).is_empty()
        insert(registry, images(3))
        assert before.datasets("image", ["run"]).is_empty()


def test_after_an_exception_nothing_is_left(registry: Registry) -> None:
    camera(registry)
    group = registry.universe.group(["tract"])
    with suppress(KeyError), registry.transaction() as transaction:
        transaction.insert_datasets("image", "run", images(3))
        transaction.register_dataset_type(DatasetType("coadd", group, "ExposureF"))
        transaction.register_collection(Collection("run2", RUN))
        transaction.insert_records("skymap", pl.DataFrame({"skymap": ["rings"]}))
        raise KeyError
    assert registry.datasets("image", ["run"]).is_empty()
    assert [t.name for t in registry.dataset_types()] == ["image"]
    assert [c.name for c in registry.collections()] == ["run"]
    assert registry.records("skymap").is_empty()


def test_a_group_that_takes_the_place_of_one_never_kept_has_tables_of_its_own(registry: Registry) -> None:
    camera(registry)
    with suppress(KeyError), registry.transaction() as transaction:
        transaction.register_dataset_type(DatasetType("a", registry.universe.group(["detector"]), "Text"))
        raise KeyError
    with registry.transaction() as transaction:
        transaction.register_dataset_type(DatasetType("b", registry.universe.group(["visit"]), "Text"))
        assert transaction.insert_datasets("b", "run", frame(visit=[0], id=[uuid4().bytes])) == 1
    assert registry.datasets("b", ["run"])["visit"].to_list() == [0]


def test_a_conflict_that_is_caught_takes_back_only_its_own_call(registry: Registry) -> None:
    camera(registry)
    with registry.transaction() as transaction:
        transaction.insert_datasets("image", "run", images(2))
        with pytest.raises(Conflict):
            transaction.insert_datasets("image", "run", images(3))
    assert registry.datasets("image", ["run"]).height == 2


def test_a_transaction_inside_another_is_refused_at_once(registry: Registry) -> None:
    with (
        registry.transaction(),
        pytest.raises(RegistryError, match="inside a transaction"),
        registry.transaction(),
    ):
        pass
    with registry.transaction():  # the refusal has not locked the registry
        pass


WRITER = """
import sys
from uuid import uuid4
import polars as pl
from loadmaster_registry.records import Collection, CollectionType, DatasetType
from loadmaster_registry.store import Registry

path, first = sys.argv[1], int(sys.argv[2])
with Registry.open(path) as registry:
    type = DatasetType("mask", registry.universe.group(["visit", "detector"]), "Mask")
    sys.stdin.readline()
    for visit in range(first, first + 20):
        with registry.transaction() as transaction:
            transaction.register_dataset_type(type)
            transaction.register_collection(Collection("masks", CollectionType.RUN))
            ids = [uuid4().bytes for _ in range(50)]
            rows = {"instrument": "Cam", "visit": visit, "detector": range(50), "id": ids}
            transaction.insert_datasets("mask", "masks", pl.DataFrame(rows))
"""

DYING_WRITER = """
import sys, time
from uuid import uuid4
import polars as pl
from loadmaster_registry.records import Collection, CollectionType, DatasetType
from loadmaster_registry.store import Registry

with Registry.open(sys.argv[1]) as registry, registry.transaction() as transaction:
    group = registry.universe.group(["visit"])
    transaction.register_dataset_type(DatasetType("summary", group, "Text"))
    transaction.register_collection(Collection("run2", CollectionType.RUN))
    n = 200_000  # more than stays in memory: some of it is in the file
    visits = {"instrument": "Cam", "visit": range(1000, 1000 + n), "physical_filter": "Cam-r", "day_obs": 20260301}
    transaction.insert_records("visit", pl.DataFrame(visits))
    print("written", flush=True)
    time.sleep(600)
"""


def started(script: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_two_processes_that_write_at_once_queue_and_both_succeed(tmp_path: Path) -> None:
    path = tmp_path / "registry.sqlite3"
    with Registry.create(str(path)) as registry:
        camera(registry, n_visits=40, n_detectors=50)
        writers = [started(WRITER, path, first) for first in (0, 20)]
        for writer in writers:
            writer.communicate("go\n", timeout=120)
        assert [writer.returncode for writer in writers] == [0, 0]
        found = registry.datasets("mask", ["masks"])
        assert found.height == found["dataset"].n_unique() == 2000


def test_a_writer_killed_in_the_middle_leaves_the_registry_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "registry.sqlite3"
    with Registry.create(str(path)) as registry:
        camera(registry)
    writer = started(DYING_WRITER, path)
    assert writer.stdout
    assert writer.stdout.readline() == "written\n"
    os.kill(writer.pid, signal.SIGKILL)
    writer.communicate(timeout=60)
    with Registry.open(str(path)) as registry:
        assert registry.records("visit").height == 2
        assert [t.name for t in registry.dataset_types()] == ["image"]
        assert [c.name for c in registry.collections()] == ["run"]
        assert insert(registry, images(3)) == 3


def test_an_implied_dimension_must_be_told_from_others(tmp_path: Path) -> None:
    path = tmp_path / "more.yaml"
    path.write_text(
        "elements:\n"
        "  plate: {key: {id: int}, requires: [instrument]}\n"
        "  scan: {key: {id: int}, implies: [plate]}\n"
    )
    with pytest.raises(
        ConfigError, match="'scan' implies 'plate', of which it does not know the 'instrument'"
    ):
        load_universe(path)
