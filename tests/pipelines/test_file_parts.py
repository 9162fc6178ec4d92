"""Components and parts of files: what cutting the whole would give, without reading the whole."""

import tempfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from astropy import units as u
from astropy.nddata import CCDData, VarianceUncertainty
from astropy.table import MaskedColumn, QTable, Table
from astropy.wcs import WCS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from loadmaster_pipelines import storage
from loadmaster_pipelines.formats import Recipe
from loadmaster_registry.errors import StageError

ROWS, COLUMNS = 40, 50
IMAGES = {
    "plain.fits": {},
    "lossless.fits": {"compression": "GZIP_2", "tile": [16, 16]},
    "rice.fits": {"compression": "RICE_1", "tile": [16, 16]},
    "plain.h5": {},
    "packed.h5": {"compression": "gzip", "level": 4},
}
TABLES = {
    "a.fits": "SourceCatalog",
    "a.ecsv": "AstropyTable",
    "a.vot": "VOTable",
    "a.parq": "ArrowAstropy",
    "a.h5": "SourceCatalog",
}
small_ints = st.none() | st.integers(-60, 60)
ranges = st.builds(slice, small_ints, small_ints)


def image() -> CCDData:
    rng = np.random.default_rng(3)
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = "RA---TAN", "DEC--TAN"
    wcs.wcs.crval, wcs.wcs.crpix, wcs.wcs.cdelt = (150.1, 2.2), (6.5, 5.5), (-5e-5, 5e-5)
    found = CCDData(
        rng.normal(100, 5, (ROWS, COLUMNS)).astype("f4"),
        unit="electron",
        mask=rng.random((ROWS, COLUMNS)) < 0.2,
        uncertainty=VarianceUncertainty(rng.random((ROWS, COLUMNS)).astype("f4")),
        wcs=wcs,
        meta={"OBJECT": "M13"},
    )
    found.flags = rng.integers(0, 2**40, (ROWS, COLUMNS))
    return found


def table() -> Table:
    found = Table({"id": np.arange(ROWS), "g_flux": np.linspace(0, 1, ROWS) * u.Jy})
    found["r_flux"] = MaskedColumn(np.arange(ROWS), mask=np.arange(ROWS) % 3 == 0)
    found["name"] = [f"star {n}" for n in range(ROWS)]
    return found


@pytest.fixture(scope="module")
def files() -> Any:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file, options in IMAGES.items():
            storage.write(image(), "ExposureF", folder / file, recipe=Recipe(options))
        for file, storage_class in TABLES.items():
            storage.write(table(), storage_class, folder / file)
        storage.write(pl.DataFrame({"a": range(ROWS), "b_x": range(ROWS)}), "DataFrame", folder / "f.parq")
        storage.write(image().data, "NumpyArray", folder / "a.npy")
        yield folder


@pytest.mark.parametrize("name", IMAGES)
def test_every_way_to_write_an_image_keeps_every_bit(name: str, files: Path) -> None:
    got, sent = storage.read("ExposureF", files / name), image()
    for plane in ("data", "mask", "flags"):
        np.testing.assert_array_equal(getattr(got, plane), getattr(sent, plane))
        assert getattr(got, plane).dtype == getattr(sent, plane).dtype
    np.testing.assert_array_equal(got.uncertainty.array, sent.uncertainty.array)
    assert isinstance(got.uncertainty, VarianceUncertainty)
    assert (got.unit, dict(got.meta)["OBJECT"]) == (u.electron, "M13")
    assert dict(got.meta) == dict(storage.read("ExposureF", files / "plain.fits").meta)


@pytest.mark.parametrize("name", IMAGES)
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(box=st.tuples(ranges, ranges))
def test_a_box_of_an_image_is_what_cutting_the_whole_gives(
    name: str, files: Path, box: tuple[slice, slice]
) -> None:
    if 0 in np.zeros((ROWS, COLUMNS))[box].shape:
        return  # an empty image is no image
    whole, part = storage.read("ExposureF", files / name), read(files / name, box=box)
    cut = whole[box]
    np.testing.assert_array_equal(part.data, cut.data)
    np.testing.assert_array_equal(part.mask, cut.mask)
    np.testing.assert_array_equal(part.uncertainty.array, cut.uncertainty.array)
    np.testing.assert_array_equal(part.flags, whole.flags[box])
    assert part.wcs.to_header() == cut.wcs.to_header()
    assert part.wcs.pixel_shape == cut.wcs.pixel_shape
    assert dict(part.meta) == dict(whole.meta)


@pytest.mark.parametrize("name", IMAGES)
def test_components_of_an_image_are_those_of_the_whole(name: str, files: Path) -> None:
    whole, box = storage.read("ExposureF", files / name), np.s_[3:9, 10:30]
    for component in ("data", "mask", "flags"):
        found = storage.read("ExposureF", files / name, component=component, parameters={"box": box})
        np.testing.assert_array_equal(found, getattr(whole, component)[box])
    errors = storage.read("ExposureF", files / name, component="uncertainty")
    np.testing.assert_array_equal(errors.array, whole.uncertainty.array)
    assert storage.read("Wcs", files / name, component="wcs").to_header() == whole.wcs.to_header()
    assert storage.read("ExposureF", files / name, component="header")["OBJECT"] == "M13"
    assert storage.read("ExposureF", files / name, component="unit") == u.electron


@pytest.mark.parametrize("name", TABLES)
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=ranges)
def test_rows_and_columns_of_a_table_are_what_cutting_the_whole_gives(
    name: str, files: Path, rows: slice
) -> None:
    whole = storage.read(TABLES[name], files / name)
    part = read(files / name, TABLES[name], rows=rows, columns=["r_flux", "id"])
    assert part.colnames == ["r_flux", "id"]
    expected = whole[rows]["r_flux", "id"]
    assert len(part) == len(expected)
    for column in part.colnames:
        mask = np.ma.getmaskarray(expected[column])
        np.testing.assert_array_equal(np.ma.getmaskarray(part[column]), mask)
        np.testing.assert_array_equal(np.asarray(part[column])[~mask], np.asarray(expected[column])[~mask])


@pytest.mark.parametrize("name", TABLES)
def test_columns_can_be_asked_for_by_pattern_and_keep_their_units(name: str, files: Path) -> None:
    part = read(files / name, TABLES[name], columns=["*_flux", "id", "g_flux"])
    assert part.colnames == ["g_flux", "r_flux", "id"]
    assert part["g_flux"].unit == u.Jy


@pytest.mark.parametrize("name", ["a.fits", "a.parq", "a.h5"])
def test_a_table_says_its_columns_and_rows_without_being_read(name: str, files: Path) -> None:
    names = storage.read(TABLES[name], files / name, component="columns")
    assert names == ["id", "g_flux", "r_flux", "name"]
    assert storage.read(TABLES[name], files / name, component="rowcount") == ROWS


@pytest.mark.parametrize("ending", [".ecsv", ".parq", ".h5", ".fits"])
def test_quantities_come_back_with_their_units(ending: str, tmp_path: Path) -> None:
    sent = QTable({"flux": [1.0, 2.0] * u.Jy, "n": [1, 2]}, meta={"SEEING": 0.7})
    storage.write(sent, "AstropyQTable", tmp_path / f"a{ending}")
    got = QTable(storage.read("AstropyQTable", tmp_path / f"a{ending}"))
    assert (got["flux"] == sent["flux"]).all()
    assert dict(got.meta) == {"SEEING": 0.7}
    assert type(sent["flux"]) is u.Quantity


def test_parts_of_frames_and_arrays(files: Path) -> None:
    part = read(files / "f.parq", "DataFrame", rows=slice(2, 4), columns=["b_*"])
    assert part.to_dict(as_series=False) == {"b_x": [2, 3]}
    np.testing.assert_array_equal(read(files / "a.npy", "NumpyArray", box=np.s_[3:5]), image().data[3:5])


@pytest.mark.parametrize(
    ("file", "storage_class", "parameters", "told"),
    [
        ("plain.fits", "ExposureF", {"bx": 1}, "did you mean 'box'"),
        ("a.parq", "ArrowAstropy", {"box": np.s_[1:2]}, "known: columns, rows"),
        ("a.parq", "ArrowAstropy", {"columns": ["g_flx"]}, "did you mean 'g_flux'"),
        ("a.parq", "ArrowAstropy", {"rows": 3}, "slices without steps"),
        ("plain.fits", "ExposureF", {"box": np.s_[::2, :]}, "slices without steps"),
        ("plain.fits", "ExposureF", {"box": np.s_[:, :, :]}, r"shape \(40, 50\)"),
    ],
)
def test_a_part_that_there_is_not_is_answered_with_those_there_are(
    file: str, storage_class: str, parameters: dict[str, Any], told: str, files: Path
) -> None:
    with pytest.raises(StageError, match=told):
        storage.read(storage_class, files / file, parameters=parameters)


def test_a_box_of_a_big_compressed_image_costs_its_tiles_only(tmp_path: Path) -> None:
    size, box = 3000, np.s_[1000:1300, 1500:1800]
    noise = np.random.default_rng(0).normal(100, 5, (size, size)).astype("f4")
    recipe = Recipe({"compression": "GZIP_2", "tile": [100, 100]})
    storage.write(CCDData(noise, unit="adu"), "ExposureF", tmp_path / "big.fits", recipe=recipe)
    part, n_read, peak = measured(lambda: read(tmp_path / "big.fits", box=box))
    np.testing.assert_array_equal(part.data, noise[box])
    assert n_read < 2 * part.data.nbytes
    assert n_read < (tmp_path / "big.fits").stat().st_size / 20
    assert peak < noise.nbytes / 10


@pytest.mark.parametrize("name", ["big.fits", "big.h5"])
def test_a_box_of_a_big_image_costs_its_rows_only(name: str, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).normal(100, 5, (2000, 2000)).astype("f4")
    storage.write(CCDData(noise, unit="adu"), "ExposureF", tmp_path / name)
    part, n_read, peak = measured(lambda: read(tmp_path / name, box=np.s_[700:800, :]))
    np.testing.assert_array_equal(part.data, noise[700:800])
    assert n_read < 1.2 * part.data.nbytes + 100_000
    assert peak < noise.nbytes / 4


def test_columns_and_rows_of_a_wide_table_cost_what_they_hold(tmp_path: Path) -> None:
    n_rows, wide = 50_000, 120
    rng = np.random.default_rng(0)
    frame = pl.DataFrame({f"c{n}": rng.random(n_rows) for n in range(wide)})
    path = tmp_path / "wide.parq"
    storage.write(frame, "DataFrame", path, recipe=Recipe({"rows_per_group": 5000}))
    part, n_read, _ = measured(lambda: read(path, "DataFrame", columns=["c7", "c90"]))
    assert part.equals(frame.select("c7", "c90"))
    assert n_read < 2 * part.estimated_size()
    part, n_read, _ = measured(
        lambda: read(path, "DataFrame", columns=["c7", "c90"], rows=slice(20_000, 25_000))
    )
    assert part.equals(frame.select("c7", "c90")[20_000:25_000])
    assert n_read < path.stat().st_size / 50


def read(path: Path, storage_class: str = "ExposureF", **parameters: Any) -> Any:
    return storage.read(storage_class, path, parameters=parameters)


def measured(act: Callable[[], Any]) -> tuple[Any, int, int]:
    """Return what `act` gives, the bytes that the process read meanwhile, and the most that Python held."""
    act()  # libraries are loaded, which is no reading of data
    before = bytes_read()
    tracemalloc.start()
    try:
        found = act()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    return found, bytes_read() - before, peak


def bytes_read() -> int:
    return int(Path("/proc/self/io").read_text().split()[1])
