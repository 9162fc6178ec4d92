"""Formats files: strict, with the place of what is wrong; a dataset type's word comes before its class's."""

import builtins
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from astropy.nddata import CCDData
from loadmaster_pipelines import storage
from loadmaster_pipelines.format_file import EXTENSIONS, FormatRules, read_format_rules
from loadmaster_pipelines.formats import FORMATS, Recipe
from loadmaster_pipelines.loader import load_pipeline
from loadmaster_registry.errors import ConfigError, PipelineError, StageError
from loadmaster_registry.universe import load_universe
from matplotlib.figure import Figure

FILE = """\
storage_classes:
  ExposureF: {formats: [hdf5]}
  PeakTable: {type: table, formats: {parquet: {compression: zstd, level: 9}}}
dataset_types:
  calexp: {formats: {fits: {compression: RICE_1, quantize: 16, tile: [100, 100]}, hdf5: {}}}
  "*_catalog": {formats: [parquet]}
  "big_*": {formats: [ecsv]}
  swarped: {provenance: true}
  flat: {provenance: false}
"""
PIPELINE = """\
description: peaks
tasks:
  find:
    dimensions: [visit, detector]
    command: "find {inputs.image.path} {outputs.peaks.path}"
    inputs: {image: {dataset_type: image, storage_class: ExposureF, dimensions: [visit, detector]}}
    outputs: {peaks: {dataset_type: peaks, storage_class: PeakTable, dimensions: [visit, detector]}}
  count:
    dimensions: [visit]
    command: "count {inputs.peaks.path}"
    inputs: {peaks: {dataset_type: peaks, storage_class: WANTED, dimensions: [visit, detector], multiple: true}}
    outputs: {n: {dataset_type: n, storage_class: Json, dimensions: [visit]}}
"""


def rules(text: str, folder: Path, name: str = "formats.yaml") -> FormatRules:
    (folder / name).write_text(text)
    return read_format_rules([folder / name])


def test_a_dataset_type_comes_before_a_pattern_and_that_before_the_storage_class(tmp_path: Path) -> None:
    found = rules(FILE, tmp_path)

    def names(dataset_type: str, storage_class: str) -> list[str]:
        return [one.name for one in found.formats(dataset_type, storage_class)]

    assert names("calexp", "ExposureF") == ["fits", "hdf5"]
    assert names("raw", "ExposureF") == ["hdf5"]
    assert names("big_catalog", "SourceCatalog") == ["parquet"]  # of two patterns the first
    assert names("big_table", "SourceCatalog") == ["ecsv"]
    assert names("other", "SourceCatalog") == []
    assert found.formats("calexp", "ExposureF")[0].options == {
        "compression": "RICE_1",
        "quantize": 16,
        "tile": [100, 100],
    }
    assert found.is_labelled("swarped", False)
    assert not found.is_labelled("flat", True)
    assert [found.is_labelled("calexp", otherwise) for otherwise in (True, False)] == [True, False]


def test_what_a_later_file_says_counts_before_what_an_earlier_one_says(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(FILE)
    (tmp_path / "b.yaml").write_text("dataset_types: {calexp: {formats: [hdf5]}}")
    found = read_format_rules([tmp_path / "a.yaml", tmp_path / "b.yaml"])
    assert [one.name for one in found.formats("calexp", "ExposureF")] == ["hdf5"]
    assert [one.name for one in found.formats("x_catalog", "SourceCatalog")] == ["parquet"]


@pytest.mark.parametrize(
    ("text", "place", "told"),
    [
        ("dataset_typs: {}", ":1", "did you mean 'dataset_types'"),
        ("dataset_types:\n  a: {format: [fits]}", ":2", "did you mean 'formats'"),
        ("dataset_types:\n  a: {formats: {parqet: {}}}", ":2", "did you mean 'parquet'"),
        ("dataset_types:\n  a:\n    formats: [parqet]", ":3", "did you mean 'parquet'"),
        ("dataset_types:\n  a:\n    formats:\n      fits: {compresion: RICE_1}", ":4", "'compression'"),
        ("dataset_types:\n  a: {formats: {fits: {compression: ZIP}}}", ":2", "RICE_1"),
        ("dataset_types:\n  a: {formats: {fits: {quantize: 16}}}", ":2", "without `compression`"),
        ("dataset_types:\n  a: {formats: {parquet: {compression: zstd, level: 50}}}", ":2", "1 to 22"),
        ("dataset_types:\n  a: {formats: {parquet: {compression: snappy, level: 1}}}", ":2", "none"),
        ("dataset_types:\n  a: {formats: []}", ":2", "one format at least"),
        ("storage_classes:\n  Exposuref: {formats: [fits]}", ":2", "did you mean 'Exposure"),
        ("storage_classes:\n  ExposureF: {type: table, formats: [fits]}", ":2", "an? image already"),
        ("storage_classes:\n  ExposureF: {formats: [parquet]}", ":2", "choose of fits, hdf5"),
        ("storage_classes:\n  X: {type: tabel, formats: [fits]}", ":2", "'table'"),
        ("storage_classes:\n  Catalog: {formats: {fits: {compression: RICE_1}}}", ":2", "only images"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(text: str, place: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=told) as error:
        rules(text, tmp_path)
    assert f"formats.yaml{place}" in str(error.value)


def test_a_class_that_only_the_file_knows_is_read_where_the_format_allows_it(tmp_path: Path) -> None:
    (tmp_path / "formats.yaml").write_text(FILE)

    def load(wanted: str, *formats: Path) -> Any:
        (tmp_path / "p.yaml").write_text(PIPELINE.replace("WANTED", wanted))
        return load_pipeline(tmp_path / "p.yaml", universe=load_universe(), formats=formats)

    loaded = load("DataFrame", tmp_path / "formats.yaml")
    made = loaded.tasks["find"].connection("peaks")
    assert (made.python_type, made.formats[0].extension) == ("table", ".parq")
    assert type(loaded).from_json(loaded.to_json()) == loaded
    with pytest.raises(PipelineError, match="cannot be read as the ExposureF"):
        load("ExposureF", tmp_path / "formats.yaml")
    with pytest.raises(PipelineError, match="there is no storage class 'PeakTable'"):
        load("DataFrame")


def test_only_fits_files_of_commands_can_be_told_what_made_them(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(PIPELINE.replace("WANTED", "DataFrame").replace("PeakTable", "Catalog"))

    def labelled(name: str) -> bool:
        (tmp_path / "formats.yaml").write_text(f"dataset_types:\n  '{name}': {{provenance: true}}")
        loaded = load_pipeline(
            tmp_path / "p.yaml#find", universe=load_universe(), formats=[tmp_path / "formats.yaml"]
        )
        return loaded.tasks["find"].connection("peaks").is_labelled

    assert labelled("p*")
    assert not labelled("x*")
    (tmp_path / "p.yaml").write_text(PIPELINE.replace("WANTED", "Json").replace("PeakTable", "Json"))
    assert not labelled("p*")
    with pytest.raises(ConfigError, match="FITS files only") as error:
        labelled("peaks")
    assert "formats.yaml:2" in str(error.value)


def test_every_named_format_can_hold_something() -> None:
    held = {extension for _, extension in FORMATS}
    assert set(EXTENSIONS.values()) <= held


def test_compression_keeps_every_bit_unless_quantize_says_otherwise(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).normal(1000, 5, (200, 200)).astype("f4")
    image = CCDData(pixels, unit="adu", mask=pixels > 1005)
    sizes = {}
    for name, options in {
        "plain": {},
        "rice": {"compression": "RICE_1"},
        "gzip": {"compression": "GZIP_1"},
        "hcompress": {"compression": "HCOMPRESS_1"},
        "quantized": {"compression": "RICE_1", "quantize": 16.0},
    }.items():
        path = tmp_path / f"{name}.fits"
        storage.write(image, "ExposureF", path, recipe=Recipe(options))
        sizes[name] = path.stat().st_size
        got = storage.read("ExposureF", path)
        np.testing.assert_array_equal(got.mask, image.mask)
        if name == "quantized":
            assert 0 < np.abs(got.data - pixels).max() < 5 / 16
        else:
            np.testing.assert_array_equal(got.data, pixels)
    assert sizes["quantized"] < sizes["rice"] < sizes["plain"] / 1.2
    with fits.open(tmp_path / "rice.fits") as hdus:
        assert [hdu.compression_type for hdu in hdus[1:]] == ["GZIP_2", "RICE_1"]  # pixels, mask


def test_the_same_image_is_the_same_file(tmp_path: Path) -> None:
    image = CCDData(np.random.default_rng(0).normal(1000, 5, (50, 50)), unit="adu")
    for name in ("a.fits", "b.fits"):
        recipe = Recipe({"compression": "RICE_1", "quantize": 8.0})
        storage.write(image, "ExposureF", tmp_path / name, recipe=recipe)
    assert (tmp_path / "a.fits").read_bytes() == (tmp_path / "b.fits").read_bytes()


def test_without_h5py_its_files_are_refused_with_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def without_h5py(name: str, *rest: Any) -> Any:
        if name == "h5py":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without_h5py)
    with pytest.raises(StageError, match=r"pip install 'loadmaster\[hdf5\]'"):
        storage.write(np.zeros(3), "NumpyArray", tmp_path / "a.h5")
    assert not (tmp_path / "a.h5").exists()


@pytest.mark.parametrize(("ending", "begin"), [("png", b"\x89PNG"), ("pdf", b"%PDF"), ("svg", b"<?xml")])
def test_a_figure_is_the_picture_that_its_file_is_called(ending: str, begin: bytes, tmp_path: Path) -> None:
    figure = Figure()
    figure.subplots().plot([1, 2])
    path = tmp_path / f"a.{ending}"
    storage.write(figure, "Plot", path)
    drawn = storage.read("Plot", path)
    assert drawn.startswith(begin)
    storage.write(drawn, "Plot", tmp_path / f"b.{ending}")
    with pytest.raises(StageError, match="cannot be written here"):
        storage.write(b"no picture", "Plot", tmp_path / f"c.{ending}")


@pytest.mark.parametrize("name", ["a.json", "a.yaml"])
def test_plain_values_come_back_from_json_and_yaml(name: str, tmp_path: Path) -> None:
    sent = {"x": 1.5, "n": [1, None, True], "text": "λ: 'quoted'\n", "inf": float("inf"), "s": np.str_("a")}
    storage.write(sent, "StructuredDataDict", tmp_path / name)
    assert storage.read("StructuredDataDict", tmp_path / name) == sent
    assert storage.read("StructuredDataDict", tmp_path / name, component="x") == 1.5
