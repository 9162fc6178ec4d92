"""The digest of a file's content: the checksum that it would have if it did not say what made it."""

import hashlib
import io
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.nddata import CCDData
from astropy.table import Table
from hypothesis import given, settings
from hypothesis import strategies as st
from loadmaster_pipelines import storage
from loadmaster_pipelines.file_provenance import MAX_INPUTS, FileProvenance, InputProvenance
from loadmaster_pipelines.formats import Recipe, parquet_content, write_label
from loadmaster_pipelines.formats.fits_headers import FitsContent, add_provenance
from loadmaster_pipelines.formats.parquet_content import ParquetContent

PIXELS = np.random.default_rng(7).normal(100, 5, (64, 48)).astype("f4")
TABLE = Table({"id": [1, 2], "flux": np.array([1.5, 2.5]) * u.Jy, "name": ["a", "bb"]}, meta={"seeing": 0.7})
SKY = Table({"where": SkyCoord([1.0, 2.0], [3.0, 4.0], unit="deg"), "odd": np.array([[1, 2], [3]], object)})
FRAME = pl.DataFrame({"n": [1, None, 3], "band": pl.Series(["g", "r", "g"], dtype=pl.Categorical)})


def image(value: float = 0.0, **cards: Any) -> CCDData:
    pixels = PIXELS.copy()
    pixels[3, 4] += value
    return CCDData(pixels, unit="adu", mask=pixels > 110, meta={"OBJECT": "M13", **cards})


WRITTEN: dict[str, tuple[Any, str, dict[str, Any]]] = {
    "image.fits": (image(), "ExposureF", {}),
    "compressed.fits": (image(), "ExposureF", {"compression": "RICE_1"}),
    "image.h5": (image(), "ExposureF", {"compression": "gzip"}),
    "table.fits": (TABLE, "SourceCatalog", {}),
    "table.h5": (TABLE, "AstropyTable", {}),
    "table.ecsv": (TABLE, "AstropyTable", {}),
    "bare.ecsv": (Table({"a": [1, 2]}), "AstropyTable", {}),
    "mixed.ecsv": (SKY, "AstropyTable", {}),
    "table.parq": (TABLE, "ArrowAstropy", {}),
    "frame.parq": (FRAME, "DataFrame", {}),
    "grouped.parq": (pl.DataFrame({"x": PIXELS.ravel()}), "DataFrame", {"rows_per_group": 100}),
}
OTHERWISE = {
    "image.fits": (image(1.0), image(SKY="dark")),
    "compressed.fits": (image(1.0), image(SKY="dark")),
    "image.h5": (image(1.0), image(SKY="dark")),
    "table.fits": (Table({"id": [1, 3]}), Table({"number": [1, 2]})),
    "table.h5": (Table({"id": [1, 3]}), Table({"number": [1, 2]})),
    "table.ecsv": (Table({"id": [1, 3]}), Table({"number": [1, 2]}), Table({"id": [1, 2] * u.m})),
    "table.parq": (Table({"id": [1, 3]}), Table({"number": [1, 2]}), Table({"id": [1, 2] * u.m})),
    "frame.parq": (pl.DataFrame({"id": [1, 3]}), pl.DataFrame({"number": [1, 2]})),
}


def provenance(run: str = "u/me/1", n_inputs: int = 2) -> FileProvenance:
    made_from = (InputProvenance(f"{run}-{n}", run, "raw", {"exposure": n}) for n in range(n_inputs))
    return FileProvenance(f"id of {run}", run, "x", {"exposure": 7}, "quantum", tuple(made_from), n_inputs)


LONG = provenance(f"u/me/{'a-long-name-' * 9}", 40)  # does not fit into the blocks and cards of the other


def content(obj: Any, name: str, path: Path, told: FileProvenance | None) -> str:
    _, storage_class, options = WRITTEN[name]
    return storage.write(obj, storage_class, path, recipe=Recipe(options, told))


def checksum(path: Path) -> str:
    return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


@pytest.mark.parametrize("name", WRITTEN)
@pytest.mark.parametrize("told", [provenance(), LONG], ids=["few", "many"])
def test_the_content_is_the_checksum_of_the_same_without_provenance(
    name: str, told: FileProvenance, tmp_path: Path
) -> None:
    if name.endswith(".h5"):
        pytest.importorskip("h5py")
    with_keys, without = tmp_path / name, tmp_path / f"without-{name}"
    assert content(WRITTEN[name][0], name, without, None) == ""
    assert content(WRITTEN[name][0], name, with_keys, told) == checksum(without)
    assert checksum(with_keys) != checksum(without)
    assert storage.read_provenance(with_keys) is not None


@pytest.mark.parametrize("name", OTHERWISE)
def test_one_pixel_one_card_one_name_or_one_unit_is_another_content(name: str, tmp_path: Path) -> None:
    if name.endswith(".h5"):
        pytest.importorskip("h5py")
    objects = [*OTHERWISE[name], WRITTEN[name][0], Table({"id": [1, 2]})]
    objects = objects[: -1 if "table" not in name else None]
    found = [content(obj, name, tmp_path / f"{n}-{name}", provenance()) for n, obj in enumerate(objects)]
    assert len(set(found)) == len(objects)


@pytest.mark.parametrize("name", ["compressed.fits", "image.h5", "frame.parq"])
def test_the_same_is_the_same_at_any_time(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if name.endswith(".h5"):
        pytest.importorskip("h5py")
    first = content(WRITTEN[name][0], name, tmp_path / name, provenance())
    monkeypatch.setattr(time, "time", lambda: 1.0)
    assert content(WRITTEN[name][0], name, tmp_path / f"later-{name}", provenance()) == first


def test_files_that_say_nothing_have_their_checksum_only(tmp_path: Path) -> None:
    told = Recipe(provenance=provenance())
    assert storage.write({"a": 1}, "Json", tmp_path / "a.json", recipe=told) == ""
    assert storage.write(TABLE, "AstropyTable", tmp_path / "a.vot", recipe=told) == ""


cards = st.sampled_from(["", "COMMENT", "HISTORY", "OBJECT", "HIERARCH LSST X", "LONG"])


@settings(max_examples=60, deadline=None)
@given(st.lists(cards, max_size=50), st.integers(0, 40), st.data())
def test_fits_headers_lose_the_keys_and_nothing_else_however_they_come(
    names: list[str], n_inputs: int, data: st.DataObject
) -> None:
    bare = fits.PrimaryHDU(np.arange(10.0))
    for n, name in enumerate(names):
        if name in ("", "COMMENT", "HISTORY"):
            bare.header[name] = f"{n}"
        else:
            bare.header[name if name != "OBJECT" else f"OBJ{n}"] = f"{n}" * (50 if name == "LONG" else 1)
    files = [io.BytesIO(), io.BytesIO()]
    bare.writeto(files[0])
    with fits.open(io.BytesIO(files[0].getvalue())) as keyed:
        add_provenance(keyed[0].header, provenance(f"u/{'x' * 70}", n_inputs))
        keyed.writeto(files[1])
    digests = [digest_in_pieces(FitsContent(), file.getvalue(), data) for file in files]
    assert digests == [f"sha256:{hashlib.sha256(files[0].getvalue()).hexdigest()}"] * 2


def digest_in_pieces(content: Any, whole: bytes, data: st.DataObject) -> str:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=6)))
    for begin, end in zip([0, *cuts], [*cuts, len(whole)], strict=True):
        content.update(memoryview(whole)[begin:end])
    return str(content.digest())


@given(st.binary(max_size=9000), st.data())
def test_what_is_no_fits_file_is_hashed_as_it_is(whole: bytes, data: st.DataObject) -> None:
    assert digest_in_pieces(FitsContent(), whole, data) == f"sha256:{hashlib.sha256(whole).hexdigest()}"


texts = st.dictionaries(st.text(max_size=20), st.text(max_size=200), min_size=1, max_size=20)


@settings(max_examples=40, deadline=None)
@given(texts, texts, st.data())
def test_parquet_metadata_are_exchanged_however_the_file_comes(
    told: dict[str, str], bare: dict[str, str], data: st.DataObject
) -> None:
    files = {}
    for name, metadata in (("told", told), ("bare", bare)):
        written = io.BytesIO()
        FRAME.write_parquet(written, metadata=metadata | {"ARROW:schema": "x"})
        files[name] = written.getvalue()
    taken = ParquetContent(told | {"ARROW:schema": "x"}, bare | {"ARROW:schema": "x"})
    expected = f"sha256:{hashlib.sha256(files['bare']).hexdigest()}"
    assert digest_in_pieces(taken, files["told"], data) == expected


def test_of_a_long_parquet_file_only_the_end_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = pl.DataFrame({"x": np.random.default_rng(1).normal(size=200_000)})
    monkeypatch.setattr(parquet_content, "_FOOTER_BYTES", 20_000)
    with_keys = storage.write(frame, "DataFrame", tmp_path / "a.parq", recipe=Recipe(provenance=provenance()))
    storage.write(frame, "DataFrame", tmp_path / "b.parq")
    assert with_keys == checksum(tmp_path / "b.parq")


def test_what_a_command_wrote_has_the_content_that_it_wrote(tmp_path: Path) -> None:
    path, copy = tmp_path / "a.fits", tmp_path / "b.fits"
    fits.PrimaryHDU(PIXELS, fits.Header({"OBJECT": "M13"})).writeto(path)
    copy.write_bytes(path.read_bytes())
    before = checksum(path)
    assert write_label(path, LONG) == before
    assert storage.read_provenance(path) == LONG
    # A command may copy the header of its input, which speaks of another file: that is no content either.
    assert write_label(path, provenance()) == write_label(copy, provenance("u/me/2")) == before


def test_very_many_inputs_change_nothing(tmp_path: Path) -> None:
    told = provenance(n_inputs=MAX_INPUTS)
    for name in ("image.fits", "frame.parq"):
        obj = WRITTEN[name][0]
        found = content(obj, name, tmp_path / name, told)
        assert found == content(obj, name, tmp_path / f"few-{name}", provenance())
