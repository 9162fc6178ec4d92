"""What is written comes back, as what it was; nothing is overwritten; libraries wait until they are needed."""

import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from astropy import units as u
from astropy.io import fits
from astropy.nddata import CCDData, StdDevUncertainty, VarianceUncertainty
from astropy.table import MaskedColumn, Table
from astropy.wcs import WCS
from hypothesis import given
from hypothesis import strategies as st
from loadmaster_pipelines import storage
from loadmaster_pipelines.formats import FORMATS
from loadmaster_registry.errors import ConfigError, StageError
from matplotlib.figure import Figure

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=12,
)


def wcs() -> WCS:
    result = WCS(naxis=2)
    result.wcs.ctype = "RA---TAN", "DEC--TAN"
    result.wcs.crval = 150.1, 2.2
    result.wcs.crpix = 6.5, 5.5
    result.wcs.cdelt = -5e-5, 5e-5
    return result


def image(**changes: Any) -> CCDData:
    rng = np.random.default_rng(1)
    parts: dict[str, Any] = {
        "data": rng.normal(100, 5, (10, 12)).astype("f4"),
        "unit": "electron",
        "mask": rng.random((10, 12)) < 0.2,
        "uncertainty": StdDevUncertainty(np.full((10, 12), 5, "f4")),
        "wcs": wcs(),
        "header": {"OBJECT": "M13", "EXPTIME": 5.0},
    }
    return CCDData(**(parts | changes))


def round_trip(obj: Any, name: str, folder: Path) -> Any:
    path = folder / f"file{storage.extension_of(name)}"
    storage.write(obj, name, path)
    return storage.read(name, path)


def test_an_image_comes_back_with_mask_errors_header_unit_and_coordinates(tmp_path: Path) -> None:
    sent = image()
    got = round_trip(sent, "ExposureF", tmp_path)
    np.testing.assert_array_equal(got.data, sent.data)
    np.testing.assert_array_equal(got.mask, sent.mask)
    np.testing.assert_array_equal(got.uncertainty.array, sent.uncertainty.array)
    assert isinstance(got.uncertainty, StdDevUncertainty)
    assert (got.unit, got.header["OBJECT"], got.header["EXPTIME"]) == (u.electron, "M13", 5.0)
    assert got.wcs.pixel_to_world(3, 4).separation(sent.wcs.pixel_to_world(3, 4)).arcsec < 1e-9


def test_an_image_is_in_the_byte_order_of_the_machine(tmp_path: Path) -> None:
    got = round_trip(image(), "ExposureF", tmp_path)
    assert got.data.dtype.isnative
    assert got.uncertainty.array.dtype.isnative


def test_bit_planes_come_back_as_flags(tmp_path: Path) -> None:
    sent = image()
    sent.flags = np.arange(120, dtype="i4").reshape(10, 12) * 1000
    got = round_trip(sent, "ExposureF", tmp_path)
    np.testing.assert_array_equal(got.flags, sent.flags)


@pytest.mark.parametrize("changes", [{"mask": None}, {"uncertainty": None}, {"wcs": None}, {"header": {}}])
def test_an_image_may_lack_any_of_its_parts(tmp_path: Path, changes: dict[str, Any]) -> None:
    got = round_trip(image(**changes), "ExposureF", tmp_path)
    for name in changes.keys() - {"header"}:
        assert getattr(got, name) is None


def test_variances_stay_variances(tmp_path: Path) -> None:
    sent = image(uncertainty=VarianceUncertainty(np.ones((10, 12))))
    assert isinstance(round_trip(sent, "ExposureF", tmp_path).uncertainty, VarianceUncertainty)


def test_a_component_of_an_image_is_read_through_the_whole(tmp_path: Path) -> None:
    storage.write(image(), "ExposureF", tmp_path / "a.fits")
    got = storage.read("Wcs", tmp_path / "a.fits", component="wcs")
    assert got.wcs.crval.tolist() == [150.1, 2.2]
    with pytest.raises(StageError, match="did you mean 'wcs'"):
        storage.read("Wcs", tmp_path / "a.fits", component="wsc")


def test_an_image_in_a_unit_that_nobody_knows_keeps_its_name(tmp_path: Path) -> None:
    hdu = fits.PrimaryHDU(np.zeros((3, 3), "i2"))
    hdu.header["BUNIT"] = "counts?"
    hdu.writeto(tmp_path / "raw.fits")
    assert str(storage.read("Exposure", tmp_path / "raw.fits").unit) == "counts?"


@pytest.mark.filterwarnings("ignore::astropy.wcs.FITSFixedWarning")
def test_real_frames_are_read_written_and_read_again(cases: Path, tmp_path: Path) -> None:
    frames = sorted((cases / "fits").rglob("*.fits.gz"))
    assert frames
    for i, path in enumerate(frames):
        raw = storage.read("Exposure", path)
        copy = tmp_path / f"{i}.fits"
        storage.write(raw, "ExposureF", copy)
        again = storage.read("ExposureF", copy)
        np.testing.assert_array_equal(again.data, raw.data)
        if raw.wcs is not None:
            apart = again.wcs.pixel_to_world(100, 200).separation(raw.wcs.pixel_to_world(100, 200))
            assert apart.arcsec < 1e-3, path.name


def test_a_table_comes_back_with_units_nan_masks_and_text(tmp_path: Path) -> None:
    sent = Table({"id": [1, 2], "flux": np.array([1.5, math.nan]) * u.Jy, "name": ["", "β"]})
    sent["name"] = ["", "b"]
    sent["flag"] = MaskedColumn([7, 8], mask=[True, False])
    got = round_trip(sent, "SourceCatalog", tmp_path)
    np.testing.assert_array_equal(got["flux"], sent["flux"])
    assert got["flux"].unit == u.Jy
    assert list(got["name"]) == ["", "b"]
    assert got["flag"].mask.tolist() == [True, False]


def test_every_kind_of_table_file_keeps_the_values(tmp_path: Path) -> None:
    sent = Table({"id": [1, 2], "flux": [1.5, 2.5], "name": ["a", "bb"]})
    for name in ("Catalog", "AstropyTable", "VOTable", "ArrowAstropy"):
        got = round_trip(sent, name, tmp_path)
        assert got.colnames == sent.colnames
        assert [list(map(str, row)) for row in got.iterrows()] == [
            list(map(str, row)) for row in sent.iterrows()
        ]


def test_nulls_of_a_parquet_file_become_masked_values(tmp_path: Path) -> None:
    frame = pl.DataFrame({"n": [1, None, 3], "x": [1.0, None, 3.0], "s": ["a", "b", "c"]})
    storage.write(frame, "DataFrame", tmp_path / "a.parq")
    table = storage.read("ArrowAstropy", tmp_path / "a.parq")
    assert table["n"].mask.tolist() == [False, True, False]
    assert math.isnan(table["x"][1])
    storage.write(table, "ArrowAstropy", tmp_path / "b.parq")
    assert storage.read("DataFrame", tmp_path / "b.parq")["n"].to_list() == [1, None, 3]


@given(json_values)
def test_plain_values_come_back_as_they_were_nan_and_infinity_included(value: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        assert same(round_trip(value, "Json", Path(folder)), value)


def same(a: Any, b: Any) -> bool:
    if isinstance(a, float) and isinstance(b, float):
        return a == b or (math.isnan(a) and math.isnan(b))
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    return type(a) is type(b) and bool(a == b)


def test_json_files_can_be_read_by_any_json_reader(tmp_path: Path) -> None:
    storage.write(
        {"x": math.nan, "n": np.int64(3), "a": np.array([1.5, math.inf])}, "Json", tmp_path / "a.json"
    )
    text = (tmp_path / "a.json").read_text()
    assert "NaN" not in text
    assert "Infinity" not in text
    got = storage.read("Json", tmp_path / "a.json")
    assert got["n"] == 3
    assert got["a"] == [1.5, math.inf]


@pytest.mark.parametrize("value", [{1: "a"}, {"a": {3, 4}}, {"a": object()}])
def test_what_json_would_change_is_refused(tmp_path: Path, value: Any) -> None:
    with pytest.raises(StageError, match="cannot be written"):
        storage.write(value, "Json", tmp_path / "a.json")
    assert not (tmp_path / "a.json").exists()


def test_arrays_text_bytes_and_figures_come_back(tmp_path: Path) -> None:
    array = np.arange(6).reshape(2, 3)
    np.testing.assert_array_equal(round_trip(array, "NumpyArray", tmp_path), array)
    assert round_trip("Zeile\r\nλ\n", "Text", tmp_path) == "Zeile\r\nλ\n"
    assert round_trip(b"\x00\xff", "Bytes", tmp_path) == b"\x00\xff"
    figure = Figure()
    figure.subplots().plot([1, 2])
    png = round_trip(figure, "Plot", tmp_path)
    assert png.startswith(b"\x89PNG")


def test_a_png_that_was_drawn_elsewhere_is_a_figure_too(tmp_path: Path) -> None:
    figure = Figure()
    storage.write(figure, "Plot", tmp_path / "a.png")
    storage.write(storage.read("Plot", tmp_path / "a.png"), "Plot", tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("ExposureF", np.zeros((2, 2))),
        ("SourceCatalog", {"a": [1]}),
        ("DataFrame", Table({"a": [1]})),
        ("ArrowAstropy", pl.DataFrame({"a": [1]})),
        ("NumpyArray", [1, 2]),
        ("NumpyArray", np.array([object()])),
        ("Text", b"a"),
        ("Bytes", "a"),
        ("Plot", b"no picture"),
        ("SkyMap", {"name": "x"}),
        ("Camera", {"name": "x"}),
    ],
)
def test_an_object_of_another_type_is_refused_and_leaves_no_file(
    tmp_path: Path, name: str, wrong: Any
) -> None:
    path = tmp_path / f"a{storage.extension_of(name)}"
    with pytest.raises(StageError, match="cannot be written here"):
        storage.write(wrong, name, path)
    assert not path.exists()


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("first")
    with pytest.raises(StageError, match=r"a\.txt is there already"):
        storage.write("second", "Text", path)
    assert path.read_text() == "first"


def test_a_file_that_is_not_what_it_should_be_says_so(tmp_path: Path) -> None:
    for name in ("ExposureF", "SourceCatalog", "DataFrame", "Json", "NumpyArray"):
        path = tmp_path / f"broken{storage.extension_of(name)}"
        path.write_bytes(b"\xff\xfe nonsense")
        with pytest.raises(StageError, match="cannot be read"):
            storage.read(name, path)


def test_a_table_is_no_image(tmp_path: Path) -> None:
    storage.write(Table({"a": [1]}), "Catalog", tmp_path / "a.fits")
    with pytest.raises(StageError, match="holds no image"):
        storage.read("ExposureF", tmp_path / "a.fits")


def test_a_misspelt_storage_class_is_suggested() -> None:
    with pytest.raises(ConfigError, match="did you mean 'ExposureF'"):
        storage.storage_class("ExposreF")


def test_files_of_a_storage_class_that_only_others_know_are_plain_data() -> None:
    assert storage.extension_of("TheirOwnThing") == ".dat"


def test_every_storage_class_has_a_format() -> None:
    for name, found in storage.storage_classes().items():
        assert found.name == name
        assert found.extension.startswith(".")
        assert (found.type, found.extension) in FORMATS or (found.type, "*") in FORMATS, name


@pytest.mark.parametrize(
    ("stored", "wanted", "is_possible"),
    [
        ("DataFrame", "ArrowAstropy", True),
        ("ExposureF", "Exposure", True),
        ("Camera", "Detector", True),
        ("StructuredDataDict", "ExposureF", False),
        ("Plot", "SourceCatalog", False),
    ],
)
def test_a_consumer_may_read_another_type_where_the_file_allows_it(
    stored: str, wanted: str, is_possible: bool
) -> None:
    classes = storage.storage_class(stored), storage.storage_class(wanted)
    assert storage.is_convertible(*classes) == is_possible
