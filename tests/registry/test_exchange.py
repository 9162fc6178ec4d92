"""Rubin's export files: real ones load whole, old spellings too, and what is written is read back."""

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID, uuid3

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loadmaster_registry.errors import ConfigError, Conflict, RegistryError
from loadmaster_registry.exchange import import_export, read_export, write_export
from loadmaster_registry.export import Export
from loadmaster_registry.export_writer import export_text
from loadmaster_registry.records import CollectionType
from loadmaster_registry.store import Registry
from loadmaster_registry.timespan import MAX_NS, MIN_NS
from loadmaster_registry.universe import load_universe

RECORDS = {
    "micro": {"instrument": 1, "detector": 4, "physical_filter": 3, "band": 2, "exposure": 0, "visit": 0},
    "micro-spatial": {"skymap": 1, "visit": 2, "visit_detector_region": 8, "tract": 2, "patch": 12},
    "rc2-visits": {"detector": 111, "physical_filter": 5, "band": 5, "exposure": 1, "visit": 160,
                   "visit_detector_region": 1132, "visit_definition": 0, "tract": 2, "patch": 2},
    "rc2-small": {"skymap": 1, "detector": 112, "exposure": 40, "visit": 40, "visit_detector_region": 240,
                  "visit_definition": 40, "tract": 1, "patch": 23, "group": 40, "day_obs": 9},
    "rc2-full": {"exposure": 160, "visit": 160, "visit_detector_region": 17760, "visit_definition": 160,
                 "tract": 21, "patch": 1701},
    "decam-hits": {"skymap": 1, "detector": 62, "physical_filter": 1, "tract": 3, "patch": 10},
}  # fmt: skip
MEMBERS = {  # collections, datasets
    "micro": (2, 13), "micro-spatial": (0, 0), "rc2-visits": (0, 0), "rc2-small": (51, 1851), "rc2-full": (0, 0),
    "decam-hits": (24, 1101),
}  # fmt: skip
HEAD = "description: x\nversion: 1.0.2\nuniverse_version: 8\nuniverse_namespace: daf_butler\n"
CAMERA = """
- {type: dimension, element: instrument, records: [{name: Cam}]}
- {type: dimension, element: detector, records: [{instrument: Cam, id: 1}, {instrument: Cam, id: 2}]}
- {type: dimension, element: physical_filter, records: [{instrument: Cam, name: r, band: r}]}
- {type: collection, collection_type: RUN, name: run, host: null, timespan_begin: null, timespan_end: null}
- {type: dataset_type, name: bias, dimensions: [detector], storage_class: ExposureF, is_calibration: true}
"""


@pytest.fixture
def load(registry: Registry, tmp_path: Path) -> Callable[..., Registry]:
    """Return a function that imports the text of an export."""

    def load(data: str, head: str = HEAD, **options: Any) -> Registry:
        path = tmp_path / "export.yaml"
        path.write_text(f"{head}data:{data}")
        import_export(registry, path, **options)
        return registry

    return load


def n_datasets(registry: Registry) -> int:
    runs = [c.name for c in registry.collections() if c.type is CollectionType.RUN]
    return sum(registry.datasets(t.name, runs, find_first=False).height for t in registry.dataset_types())


# The real ones


@pytest.mark.parametrize("name", RECORDS)
def test_a_real_registry_loads_whole(name: str, imported: Callable[[str], Registry]) -> None:
    registry = imported(name)
    assert {e: registry.records(e).height for e in RECORDS[name]} == RECORDS[name]
    assert (len(registry.collections()), n_datasets(registry)) == MEMBERS[name]


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("micro", "micro/datasets.yaml"),
        ("rc2-small", "rc2-small/rc2_subset-export.yaml"),
        ("rc2-full", "rc2-full/rc2-full.yaml.gz"),
        ("decam-hits", "decam-hits/export.yaml"),
    ],
)
def test_the_same_file_again_adds_nothing(
    name: str, file: str, cases: Path, imported: Callable[[str], Registry]
) -> None:
    counts = import_export(imported(name), cases / "registry" / file)
    assert not any(counts.records.values())
    assert (counts.datasets, counts.collections, counts.dataset_types, counts.tags, counts.ranges) == (0,) * 5


def test_real_values_come_through(imported: Callable[[str], Registry]) -> None:
    registry = imported("rc2-small")
    exposure = registry.records("exposure", {"exposure": [322]}).row(0, named=True)
    assert (exposure["group"], exposure["day_obs"], exposure["physical_filter"]) == ("322", 20140325, "HSC-Y")
    assert exposure["tracking_ra"] == 150.08539166666665
    assert exposure["timespan_begin"] == 1395740625_055_000_000
    assert registry.records("skymap")["hash"][0].startswith(b"\xe2\x9f\xe9\xf1")
    assert set(registry.records("patch")["region"].bin.size()) == {97}
    assert registry.collection("HSC/RC2/defaults").children[:2] == ("HSC/raw/RC2", "HSC/calib")


@pytest.mark.parametrize(
    ("name", "collections", "file"),
    [
        ("rc2-small", ["HSC/RC2/defaults"], "all.yaml.gz"),
        ("decam-hits", ["DECam/defaults"], "all.yaml"),
        ("micro", ["imported_g", "imported_r"], "all.yaml"),
    ],
)
def test_what_is_written_is_read_back(
    name: str, collections: list[str], file: str, imported: Callable[[str], Registry], registry: Registry,
    tmp_path: Path,
) -> None:  # fmt: skip
    original = imported(name)
    write_export(original, collections, tmp_path / file)
    import_export(registry, tmp_path / file)
    assert all(original.collection(c.name) == c for c in registry.collections())
    searched = [c.name for c in original.flatten(collections)]
    for type in registry.dataset_types():
        assert type == original.dataset_type(type.name)
        assert members(registry, type.name, searched) == members(original, type.name, searched)
    needed = (e for e in registry.universe.elements if not registry.records(e).is_empty())
    for element in needed:
        copy, whole = registry.records(element), original.records(element)
        assert copy.equals(whole.join(copy, on=copy.columns, how="semi", nulls_equal=True))
    if name == "rc2-small":
        assert registry.records("visit_detector_region").height == 240


def members(registry: Registry, type: str, collections: list[str]) -> list[Any]:
    rows = registry.calibrations(type, collections)
    files = registry.files(rows["dataset"]).drop("dataset")
    return pl.concat([rows.drop("dataset"), files], how="horizontal").sort(pl.all()).rows()


def test_sizes_and_checksums_are_exchanged_too(load: Callable[..., Registry], tmp_path: Path) -> None:
    id = UUID(int=7)
    facts = "path: b.fits, size_bytes: 7, checksum: 'sha256:0'"
    registry = load(
        f"{CAMERA}- {{type: dataset, dataset_type: bias, run: run, records: "
        f"[{{dataset_id: [!uuid '{id}'], data_id: [{{instrument: Cam, detector: 1}}], {facts}}}]}}",
    )
    write_export(registry, ["run"], tmp_path / "again.yaml")
    with Registry.create(str(tmp_path / "other.sqlite3")) as other:
        import_export(other, tmp_path / "again.yaml")
        assert other.find(id) == registry.find(id)
        assert (other.find(id).size_bytes, other.find(id).checksum) == (7, "sha256:0")


# Old spellings


def test_plain_columns_of_old_exposures_become_records(load: Callable[..., Registry]) -> None:
    registry = load(
        """
- {type: dimension, element: instrument, records: [{name: Cam}]}
- {type: dimension, element: physical_filter, records: [{instrument: Cam, name: r, band: r}]}
- type: dimension
  element: exposure
  records:
  - {instrument: Cam, id: 1, physical_filter: r, day_obs: 20200101, group_name: a, group_id: 5,
     datetime_begin: 2020-01-01 00:00:00, datetime_end: 2020-01-01 00:00:30}
- {type: run, name: old}
""",
        head="version: 0\n",
    )
    assert registry.records("group").rows() == [("Cam", "a")]
    assert registry.records("day_obs")["day_obs"].to_list() == [20200101]
    begin = registry.records("exposure")["timespan_begin"][0]
    assert begin == (1577836800 + 37) * 1_000_000_000  # a plain date is UTC
    assert registry.collection("old").type is CollectionType.RUN


def test_visits_that_name_their_system_become_its_members(load: Callable[..., Registry]) -> None:
    registry = load(
        """
- {type: dimension, element: instrument, records: [{name: Cam}]}
- {type: dimension, element: physical_filter, records: [{instrument: Cam, name: r, band: r}]}
- {type: dimension, element: visit_system, records: [{instrument: Cam, id: 3, name: one-to-one}]}
- {type: dimension, element: exposure, records: [
    {instrument: Cam, id: 1, physical_filter: r, day_obs: 20200101, group_name: a}]}
- {type: dimension, element: visit, records: [
    {instrument: Cam, id: 1, physical_filter: r, name: one, visit_system: 3, seeing: 0.7}]}
- {type: dimension, element: visit_definition, records: [
    {instrument: Cam, exposure: 1, visit: 1, visit_system: 3}]}
""",
        head="version: 0\n",
    )
    assert registry.records("visit_system_membership").select("visit", "visit_system").rows() == [(1, 3)]
    assert registry.records("visit_definition").rows() == [("Cam", 1, 1)]
    assert registry.records("visit")["day_obs"].to_list() == [20200101]  # its exposure's


def test_integer_ids_become_the_uuids_that_rubin_gives_them(load: Callable[..., Registry]) -> None:
    registry = load(
        f"{CAMERA}- {{type: dataset, dataset_type: bias, run: run, records: "
        "[{dataset_id: 12, data_id: {instrument: Cam, detector: 1}, path: a}]}",
    )
    id = uuid3(UUID("4d4851f4-2890-4d41-8779-5f38a3f5062b"), "12")
    assert registry.find(id).data_id == ("Cam", 1)


def test_chains_may_come_before_their_children_and_restrictions_are_ignored(
    load: Callable[..., Registry],
) -> None:
    registry = load(
        f"""{CAMERA}
- {{type: collection, collection_type: CHAINED, name: outer, children: [inner, run]}}
- {{type: collection, collection_type: CHAINED, name: inner, children: [[run, '...']]}}
"""
    )
    assert registry.collection("outer").children == ("inner", "run")
    assert registry.collection("inner").children == ("run",)


def test_validity_is_read_in_both_spellings(load: Callable[..., Registry]) -> None:
    ids = [UUID(int=1), UUID(int=2)]
    registry = load(
        f"""{CAMERA}
- {{type: collection, collection_type: CALIBRATION, name: calib}}
- type: dataset
  dataset_type: bias
  run: run
  records:
  - dataset_id: [!uuid '{ids[0]}', !uuid '{ids[1]}']
    data_id: [{{instrument: Cam, detector: 1}}, {{instrument: Cam, detector: 2}}]
    path: both.fits
- type: associations
  collection: calib
  collection_type: CALIBRATION
  validity_ranges:
  - timespan: !lsst.daf.butler.Timespan
      begin: !butler_time/tai/iso '1970-01-01 00:00:01.000000000'
      end: null
    dataset_ids: [!uuid '{ids[0]}']
  - begin: null
    end: !butler_time/utc/mjd '58849.0'
    dataset_ids: [!uuid '{ids[1]}']
"""
    )
    rows = registry.calibrations("bias", ["calib"]).select("detector", "begin", "end").rows()
    assert rows == [(1, 1_000_000_000, MAX_NS), (2, MIN_NS, (1577836800 + 37) * 1_000_000_000)]
    both = registry.files(registry.datasets("bias", ["run"])["dataset"])
    assert both["url"].n_unique() == 1


# Files


@pytest.mark.parametrize(
    ("path", "root", "url"),
    [
        ("a/b.fits", None, "{folder}/a/b.fits"),
        ("a/b.fits", "s3://bucket/top/", "s3://bucket/top/a/b.fits"),
        ("/data/b.fits", "s3://bucket", "/data/b.fits"),
        ("https://host/b.fits", None, "https://host/b.fits"),
    ],
)
def test_paths_are_below_the_root_unless_they_say_more(
    path: str, root: str | None, url: str, load: Callable[..., Registry], tmp_path: Path
) -> None:
    registry = load(
        f"{CAMERA}- {{type: dataset, dataset_type: bias, run: run, records: "
        f"[{{dataset_id: 1, data_id: {{instrument: Cam, detector: 1}}, path: '{path}'}}]}}",
        file_root=root,
    )
    files = registry.files(registry.datasets("bias", ["run"])["dataset"])
    assert files["url"][0] == url.format(folder=tmp_path)
    assert files.select("size_bytes", "checksum").row(0) == (None, None)


# Refusals


@pytest.mark.parametrize(
    ("head", "said"),
    [
        ("version: 1.1.0\n", "version 1.1.0"),
        ("version: 2\n", "version 2"),
        ("version: 1.0.2\nuniverse_version: 9\n", "universe has version 9; the registry has 8"),
        ("version: 1.0.2\nuniverse_namespace: mars\n", "those of 'mars'"),
    ],
)
def test_a_newer_or_foreign_file_is_refused(head: str, said: str, load: Callable[..., Registry]) -> None:
    with pytest.raises(ConfigError, match=said):
        load(" []", head=head)


DETECTOR = "- {type: dimension, element: detector, records: "
DAY = "- {type: dimension, element: day_obs, records: "
BIAS = "- {type: dataset, dataset_type: bias, run: run, records: "
REGION = "- {type: dimension, element: tract, records: [{region: !<lsst.sphgeom."


@pytest.mark.parametrize(
    ("block", "said"),
    [
        ("- {type: dimensions}", "did you mean 'dimension'"),
        ("- {type: dimension, element: vist, records: []}", "did you mean 'visit'"),
        (DETECTOR + "[{instrument: Cam, id: 1, rafft: a}]}", "did you mean 'raft'"),
        (DETECTOR + "[{instrument: Cam, id: one}]}", "'detector' is not all int"),
        (DAY + "[{instrument: Cam, id: 1, datetime_begin: soon}]}", "'timespan_begin' is not all int"),
        ("- {type: dataset_type, name: a, dimensions: [detectr], storage_class: B}", "mean 'detector'"),
        ("- {type: dataset_type, name: a, dimensions: [detector]}", "'storage_class' is missing"),
        ("- {type: dataset, dataset_type: biass, run: run, records: []}", "did you mean 'bias'"),
        (BIAS + "[{dataset_id: x, data_id: {instrument: Cam, detector: 1}}]}", "give a !uuid"),
        (BIAS + "[{dataset_id: 1, data_id: {instrument: Cam}}]}", "1 data IDs of 'bias' have no 'detector'"),
        (BIAS + "[{dataset_id: 1, data_id: {visit: 2}}]}", "'bias' has no dimension 'visit'"),
        (BIAS + "[{dataset_id: [1, 2], data_id: {instrument: Cam}}]}", "are not as many"),
        ("- {type: collection, collection_type: CHAIN, name: a}", "did you mean 'CHAINED'"),
        ("- {type: collection, collection_type: TAGGED, name: run}", "defined twice"),
        ("- {type: collection, collection_type: CHAINED, name: c, children: [c]}", "hold each other: c"),
        ("- {type: associations, collection: a, validity_ranges: [{timespan: now}]}", "timespan 'now'"),
        ("- {type: associations, collection: run, dataset_ids: [!nothing 5]}", "'!nothing' is not known"),
        ("- {type: associations, collection: run, dataset_ids: [!uuid '5']}", "cannot be read as '!uuid'"),
        ("- {type: run, name: a, name: b}", "'name' stands twice"),
        (REGION + "ConvexPolygon> {encoded: '70ab'}}]}", "ConvexPolygon of 2 bytes .* is damaged"),
        (REGION + "Circle> {encoded: zz}}]}", "not encoded in hexadecimal"),
        ("- {type: [}", "not valid YAML"),
        ("- type", "a Scalar stands where a MappingStart should"),
    ],
)
def test_what_is_wrong_is_told_with_its_line_and_nothing_is_imported(
    block: str, said: str, load: Callable[..., Registry], registry: Registry
) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        load(f"{CAMERA}{block}\n")
    assert ":11" in str(caught.value) or ":12" in str(caught.value)
    assert registry.collections() == []
    assert registry.records("instrument").is_empty()


def test_a_contradiction_deep_in_the_file_leaves_nothing(
    load: Callable[..., Registry], registry: Registry
) -> None:
    records = "[{dataset_id: 1, data_id: {instrument: Cam, detector: 9}}]"
    with pytest.raises(RegistryError, match="no detector instrument='Cam' detector=9"):
        load(f"{CAMERA}- {{type: dataset, dataset_type: bias, run: run, records: {records}}}")
    assert registry.dataset_types() == []
    assert registry.records("detector").is_empty()


def test_a_file_that_contradicts_the_registry_is_a_conflict(load: Callable[..., Registry]) -> None:
    load(CAMERA)
    with pytest.raises(Conflict, match="there band='r', given band='g'"):
        load(CAMERA.replace("band: r", "band: g"))


def test_a_broken_compressed_file_is_told_in_words(registry: Registry, tmp_path: Path) -> None:
    path = tmp_path / "export.yaml.gz"
    path.write_bytes(gzip.compress(b"description: x\n" * 1000)[:-20])
    with pytest.raises(ConfigError, match="cannot be read"):
        import_export(registry, path)


# The text itself

texts = st.text(st.characters(exclude_categories=["Cs"]))
floats = st.none() | st.floats(allow_nan=False)
ints = st.integers(MIN_NS + 1, MAX_NS - 1)


@settings(deadline=None)
@given(
    rows=st.lists(st.tuples(ints, texts, floats, ints), min_size=1, max_size=5, unique_by=lambda row: row[0])
)
def test_any_value_survives_being_written_and_read(
    rows: list[Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    schema = {"visit": pl.Int64, "target_name": pl.String, "azimuth": pl.Float64, "timespan_begin": pl.Int64}
    written = pl.DataFrame(rows, schema=schema, orient="row").with_columns(instrument=pl.lit("Cam"))
    path = tmp_path_factory.mktemp("export") / "export.yaml"
    export = Export(path, {"visit": written}, (), (), (), (), ())
    path.write_text("".join(export_text(export, load_universe())))
    found = read_export(path).records["visit"]
    kept = [c for c in written.columns if written[c].null_count() < written.height]  # a null is not written
    assert found.select(kept).equals(written.select(kept))
