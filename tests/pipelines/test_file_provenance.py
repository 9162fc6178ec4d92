"""A file alone says which dataset it is, what made it, and from what; Rubin's readers find the keys."""

import base64
import io
import json
import os
import subprocess
import warnings
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid5

import numpy as np
import polars as pl
import pytest
from astropy import units as u
from astropy.io import fits
from astropy.nddata import CCDData, StdDevUncertainty
from astropy.table import Table
from hypothesis import given, settings
from hypothesis import strategies as st
from loadmaster_pipelines import storage
from loadmaster_pipelines.file_provenance import MAX_INPUTS, FileProvenance, InputProvenance
from loadmaster_pipelines.formats import Recipe, arrow_schema

ROOT = Path(__file__).parents[2]
PEER = Path(os.environ.get("LOADMASTER_PEER", ROOT / ".venv-peer" / "bin" / "python"))
SPACE = UUID("12345678-1234-5678-1234-567812345678")
TABLE = Table({"id": [1, 2], "flux": np.array([1.5, 2.5]) * u.Jy, "name": ["a", "bb"]}, meta={"seeing": 0.7})
IMAGE = CCDData(
    np.arange(100, dtype="f4").reshape(10, 10),
    unit="adu",
    mask=np.zeros((10, 10), bool),
    uncertainty=StdDevUncertainty(np.ones((10, 10), "f4")),
    meta={"OBJECT": "M13"},
)
FRAME = pl.DataFrame({"n": [1, None, 3], "band": pl.Series(["g", "r", "g"], dtype=pl.Categorical)})
WRITTEN = {
    "image.fits": (IMAGE, "ExposureF", {}),
    "compressed.fits": (IMAGE, "ExposureF", {"compression": "RICE_1"}),
    "table.fits": (TABLE, "SourceCatalog", {}),
    "table.ecsv": (TABLE, "AstropyTable", {}),
    "table.parq": (TABLE, "ArrowAstropy", {}),
}
# Without what astropy itself does not read back from a card: a quote before a slash, an ampersand at the end.
texts = st.text(
    st.characters(min_codepoint=32, max_codepoint=126, exclude_characters="'&"), min_size=1, max_size=90
)
data_ids = st.dictionaries(
    st.from_regex("[a-z]{2,8}(_[a-z]{1,8})?", fullmatch=True), st.integers() | texts, max_size=4
)
ids = st.uuids().map(str)
inputs = st.builds(InputProvenance, ids, texts, texts, data_ids)
told = st.builds(
    FileProvenance, ids, texts, texts, data_ids, ids | st.just(""), st.lists(inputs, max_size=12).map(tuple)
).map(lambda p: replace(p, n_inputs=len(p.inputs)))


def provenance(n_inputs: int = 12) -> FileProvenance:
    def id_of(number: int) -> str:
        return str(uuid5(SPACE, str(number)))

    made_from = tuple(
        InputProvenance(
            id_of(n), "HSC/raw/all", "raw", {"instrument": "HSC", "exposure": 1228 + n, "detector": 4}
        )
        for n in range(n_inputs)
    )
    return FileProvenance(
        id=id_of(-1),
        run="u/someone/a-run-with-a-name-that-goes-on-and-on-until-no-card-holds-it/20261124T120000Z",
        dataset_type="calexp",
        data_id={"instrument": "HSC", "visit": 1228, "physical_filter": "g DECam SDSS c0001 4720.0 1520.0"},
        quantum=id_of(-2),
        inputs=made_from,
        n_inputs=n_inputs,
    )


def written(name: str, folder: Path, told: FileProvenance | None) -> Path:
    obj, storage_class, options = WRITTEN[name]
    storage.write(obj, storage_class, folder / name, recipe=Recipe(options, told))
    return folder / name


@settings(max_examples=40)
@given(told)
def test_keys_say_all_of_it(told: FileProvenance) -> None:
    for separator in (" ", "."):
        assert FileProvenance.from_keys(told.keys(separator)) == told


@settings(max_examples=25, deadline=None)
@given(told)
def test_a_fits_header_holds_any_provenance(told: FileProvenance) -> None:
    header = fits.Header()
    for key, value in told.keys(" ").items():
        header[f"HIERARCH {key}"] = value
    again = fits.Header.fromstring(header.tostring())
    got = FileProvenance.from_keys({key: again[key] for key in again})
    assert got is not None
    # FITS takes blanks at the end of a text away, and nothing else.
    stripped = {key: v.rstrip() if isinstance(v, str) else v for key, v in told.keys(" ").items()}
    assert {k: v for k, v in got.keys(" ").items() if "DATAID" not in k} == {
        k: v for k, v in stripped.items() if "DATAID" not in k
    }


@pytest.mark.parametrize("name", WRITTEN)
def test_a_file_says_what_made_it_and_from_what(name: str, tmp_path: Path) -> None:
    assert storage.read_provenance(written(name, tmp_path, provenance())) == provenance()


def test_a_frame_says_it_too_with_all_values_as_text(tmp_path: Path) -> None:
    storage.write(FRAME, "DataFrame", tmp_path / "a.parq", recipe=Recipe(provenance=provenance()))
    got = storage.read_provenance(tmp_path / "a.parq")
    texts = {name: str(value) for name, value in provenance().data_id.items()}
    assert got == replace(provenance(), data_id=texts)
    assert storage.read("DataFrame", tmp_path / "a.parq").equals(FRAME)


@pytest.mark.parametrize("name", WRITTEN)
def test_what_is_read_back_is_what_was_written_with_nothing_of_the_keys(name: str, tmp_path: Path) -> None:
    (tmp_path / "without").mkdir()
    storage_class = WRITTEN[name][1]
    with_keys = storage.read(storage_class, written(name, tmp_path, provenance()))
    without = storage.read(storage_class, written(name, tmp_path / "without", None))
    assert dict(with_keys.meta) == dict(without.meta)


@pytest.mark.parametrize("name", WRITTEN)
def test_a_file_made_from_another_speaks_of_itself_only(name: str, tmp_path: Path) -> None:
    storage_class = WRITTEN[name][1]
    first = written(name, tmp_path, provenance(12))
    obj = storage.read(storage_class, first)
    if name.endswith(".fits"):  # as a task would that reads files by itself
        begin = "HIERARCH LSST" if storage_class == "ExposureF" else "LSST"
        obj.meta.update({f"{begin} BUTLER INPUT {n} ID": "stale" for n in range(20)})
    second = replace(provenance(2), id=str(SPACE))
    again = tmp_path / f"again{first.suffix}"
    storage.write(obj, storage_class, again, recipe=Recipe(provenance=second))
    assert storage.read_provenance(again) == second
    assert b"stale" not in again.read_bytes()
    bare = tmp_path / f"bare{first.suffix}"
    storage.write(obj, storage_class, bare)
    assert storage.read_provenance(bare) is None


def test_a_file_from_very_many_says_how_many(tmp_path: Path) -> None:
    many = provenance(MAX_INPUTS + 1)
    got = storage.read_provenance(written("image.fits", tmp_path, many))
    assert got == replace(many, inputs=())


@pytest.mark.parametrize("name", [name for name in WRITTEN if name.endswith(".fits")])
def test_fits_files_with_keys_keep_to_the_standard(name: str, tmp_path: Path) -> None:
    path = written(name, tmp_path, provenance())
    with warnings.catch_warnings(), fits.open(path) as hdus:
        warnings.simplefilter("error")
        hdus.verify("exception")
    assert path.stat().st_size % 2880 == 0


def test_text_that_fits_cannot_hold_is_spelled_out(tmp_path: Path) -> None:
    greek = replace(provenance(), run="u/λ/run")
    got = storage.read_provenance(written("image.fits", tmp_path, greek))
    assert got is not None
    assert got.run == "u/\\u03bb/run"


def test_a_file_that_says_nothing_says_so(tmp_path: Path) -> None:
    assert storage.read_provenance(written("table.parq", tmp_path, None)) is None
    storage.write({"a": 1}, "Json", tmp_path / "a.json")
    assert storage.read_provenance(tmp_path / "a.json") is None


def test_a_parquet_table_keeps_units_descriptions_and_metadata(tmp_path: Path) -> None:
    sent = TABLE.copy()
    sent["flux"].description = "of the whole"
    storage.write(sent, "ArrowAstropy", tmp_path / "a.parq", recipe=Recipe(provenance=provenance()))
    got = storage.read("ArrowAstropy", tmp_path / "a.parq")
    assert (got["flux"].unit, got["flux"].description, got.meta) == (u.Jy, "of the whole", {"seeing": 0.7})


def test_frames_of_every_type_come_back_beside_the_keys(tmp_path: Path) -> None:
    day = datetime(2026, 11, 24, tzinfo=UTC)
    frame = pl.DataFrame(
        {
            "enum": pl.Series(["a", "b"], dtype=pl.Enum(["a", "b"])),
            "category": pl.Series(["x", None], dtype=pl.Categorical),
            "time": pl.Series([day, None]),
            "span": pl.Series([timedelta(seconds=1), None]),
            "list": [[1, 2], []],
            "struct": [{"a": 1, "b": "x"}, {"a": 2, "b": None}],
            "array": pl.Series([[1.0, 2.0], [3.0, 4.0]], dtype=pl.Array(pl.Float32, 2)),
            "small": pl.Series([1, 2], dtype=pl.UInt8),
            "bytes": [b"\x00", b""],
        }
    )
    storage.write(frame, "DataFrame", tmp_path / "a.parq", recipe=Recipe(provenance=provenance()))
    got = storage.read("DataFrame", tmp_path / "a.parq")
    assert got.equals(frame)
    assert got.schema == frame.schema


@given(st.dictionaries(st.text(min_size=1), st.text(), min_size=1, max_size=5))
def test_the_schema_with_metadata_is_one_that_arrow_reads(metadata: dict[str, str]) -> None:
    arrow = pytest.importorskip("pyarrow")
    written = io.BytesIO()
    FRAME.write_parquet(written)
    written.seek(0)
    schema = pl.read_parquet_metadata(written)[arrow_schema.KEY]

    def read(text: str) -> Any:
        return arrow.ipc.read_schema(arrow.py_buffer(base64.b64decode(text)))

    found = read(arrow_schema.with_metadata(schema, metadata))
    assert {k.decode(): v.decode() for k, v in found.metadata.items()} == metadata
    assert found.remove_metadata() == read(schema)


ASK_RUBIN = """
import json, sys, warnings
from astropy.io import fits
from lsst.daf.butler import DatasetProvenance
from lsst.daf.butler.formatters.parquet import arrow_to_astropy
import pyarrow.parquet as pq
def header(path):
    if path.endswith(".fits"):
        return dict(fits.getheader(path))
    table = pq.read_table(path)
    if path.endswith("table.parq"):
        return arrow_to_astropy(table).meta
    return {k.decode(): v.decode() for k, v in table.schema.metadata.items()}
found = {}
for path in sys.argv[1:]:
    keys = header(path)
    mapped = DatasetProvenance._find_provenance_keys_in_flat_dict(keys)
    DatasetProvenance.strip_provenance_from_flat_dict(keys)
    left = [k for k in keys if "BUTLER" in k]
    found[path.rsplit("/")[-1]] = [sorted(mapped.values()), left]
print(json.dumps(found))
"""


@pytest.mark.integration
@pytest.mark.skipif(not PEER.exists(), reason="no Rubin to ask: make one with tests/services/peer-up")
def test_rubins_own_reader_finds_every_key_and_takes_every_one_away(tmp_path: Path) -> None:
    paths = [written(name, tmp_path, provenance()) for name in WRITTEN if not name.endswith(".ecsv")]
    storage.write(FRAME, "DataFrame", tmp_path / "frame.parq", recipe=Recipe(provenance=provenance()))
    line = [str(PEER), "-c", ASK_RUBIN, *map(str, paths), str(tmp_path / "frame.parq")]
    told: dict[str, Any] = json.loads(subprocess.run(line, capture_output=True, check=True).stdout)
    expected = sorted(key.removeprefix("LSST.BUTLER.").lower() for key in provenance().keys("."))
    assert told == {name: [expected, []] for name in told}
    assert len(told) == len(WRITTEN)
