"""Tables of data IDs from files of every kind that astronomers keep them in."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from astropy.table import MaskedColumn, Table
from loadmaster_planner.data_id_tables import read_data_id_table
from loadmaster_registry.errors import ConfigError
from loadmaster_registry.universe import Universe, load_universe

ROWS = {"instrument": ["Cam", "Cam", "Cam"], "visit": [12, 7, 12], "detector": [3, 0, 3]}
WANTED = [("Cam", 0, 7), ("Cam", 3, 12)]  # instrument, detector, visit: the universe's order


@pytest.fixture(scope="module")
def universe() -> Universe:
    return load_universe()


def _csv(path: Path) -> None:
    path.write_text("instrument, visit ,detector\nCam,12,3\nCam, 7,0\n# a remark\nCam,12,3\n")


def _text_like(path: Path) -> None:
    Table(ROWS).write(path, format="ascii.ecsv")


WRITERS: dict[str, Callable[[Path], None]] = {
    "plain.csv": _csv,
    "tabs.tsv": lambda path: pl.DataFrame(ROWS).write_csv(path, separator="\t") and None,
    "binary.parquet": lambda path: pl.DataFrame(ROWS).write_parquet(path),
    "small_integers.parquet": lambda path: (
        pl.DataFrame(ROWS)
        .cast({"visit": pl.UInt16, "detector": pl.Int8, "instrument": pl.Categorical})
        .write_parquet(path)
    ),
    "whole_floats.parquet": lambda path: pl.DataFrame(ROWS).cast({"visit": pl.Float64}).write_parquet(path),
    "described.ecsv": _text_like,
    "described.csv": _text_like,
    "table.fits": lambda path: Table(ROWS).write(path),
    "table.vot": lambda path: Table(ROWS).write(path, format="votable"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRITERS)
def test_each_format_gives_the_same_distinct_rows_in_the_universes_order(
    name: str, tmp_path: Path, universe: Universe
) -> None:
    WRITERS[name](tmp_path / name)
    table = read_data_id_table(tmp_path / name, universe)
    assert table.frame.columns == ["instrument", "detector", "visit"]
    assert table.frame.rows() == WANTED
    assert dict(table.frame.schema) == {"instrument": pl.String, "detector": pl.Int64, "visit": pl.Int64}
    assert table.name == str(tmp_path / name)


def test_texts_that_fits_pads_with_blanks_are_what_was_meant(tmp_path: Path, universe: Universe) -> None:
    Table({"band": np.array([b"r   ", b"i"], dtype="S4")}).write(tmp_path / "t.fits")
    assert read_data_id_table(tmp_path / "t.fits", universe).frame["band"].to_list() == ["i", "r"]


def test_a_text_that_looks_like_a_number_stays_a_text(tmp_path: Path, universe: Universe) -> None:
    (tmp_path / "t.csv").write_text("group\n007\n")
    assert read_data_id_table(tmp_path / "t.csv", universe).frame["group"].to_list() == ["007"]


def test_sky_pixels_and_implied_dimensions_are_dimensions_too(tmp_path: Path, universe: Universe) -> None:
    (tmp_path / "t.csv").write_text("htm7,band\n131072,r\n")
    assert read_data_id_table(tmp_path / "t.csv", universe).frame.columns == ["band", "htm7"]


def test_a_column_that_is_no_dimension_is_refused_with_the_nearest_names(
    tmp_path: Path, universe: Universe
) -> None:
    for column, near in (("vist", "did you mean 'visit'"), ("visit_definition", "known: band, ")):
        (tmp_path / "t.csv").write_text(f"instrument,{column}\nCam,7\n")
        with pytest.raises(ConfigError, match=f"{column!r} is no dimension(?s:.*){near}"):
            read_data_id_table(tmp_path / "t.csv", universe)


def test_a_missing_value_is_refused_by_its_row(tmp_path: Path, universe: Universe) -> None:
    (tmp_path / "t.csv").write_text("instrument,visit\nCam,7\nCam,\n")
    Table({"visit": MaskedColumn([7, 8], mask=[False, True])}).write(tmp_path / "t.ecsv")
    pl.DataFrame({"visit": [7.0, float("nan")]}).write_parquet(tmp_path / "t.parquet")
    for name in ("t.csv", "t.ecsv", "t.parquet"):
        with pytest.raises(ConfigError, match="'visit' has no value in row 2"):
            read_data_id_table(tmp_path / name, universe)


def test_a_value_of_another_type_is_refused_by_column_and_first_bad_row(
    tmp_path: Path, universe: Universe
) -> None:
    (tmp_path / "t.csv").write_text("visit\n7\neight\nnine\n")
    with pytest.raises(ConfigError, match=r"'visit' does not hold a whole number in row 2(?s:.*)'eight'"):
        read_data_id_table(tmp_path / "t.csv", universe)
    pl.DataFrame({"visit": [7.0, 8.5]}).write_parquet(tmp_path / "t.parquet")
    with pytest.raises(ConfigError, match=r"a whole number in row 2(?s:.*)8\.5"):
        read_data_id_table(tmp_path / "t.parquet", universe)
    pl.DataFrame({"band": [1, 2]}).write_parquet(tmp_path / "t.parquet")
    with pytest.raises(ConfigError, match=r"'band' does not hold a text in row 1(?s:.*)Int64"):
        read_data_id_table(tmp_path / "t.parquet", universe)


def test_what_is_no_table_or_has_no_rows_or_columns_is_said(tmp_path: Path, universe: Universe) -> None:
    with pytest.raises(ConfigError, match="no such table"):
        read_data_id_table(tmp_path / "absent.fits", universe)
    (tmp_path / "t.parquet").write_bytes(b"no Parquet at all")
    (tmp_path / "t.fits").write_bytes(b"no FITS either")
    (tmp_path / "t.unknown").write_bytes(b"\0\1")
    (tmp_path / "empty.csv").write_text("")
    Table({"visit": [[1, 2], [3, 4]]}).write(tmp_path / "arrays.fits")
    for name in ("t.parquet", "t.fits", "t.unknown", "empty.csv", "arrays.fits"):
        with pytest.raises(ConfigError, match="cannot be read as a table"):
            read_data_id_table(tmp_path / name, universe)
    (tmp_path / "header.csv").write_text("visit\n")
    assert read_data_id_table(tmp_path / "header.csv", universe).frame.shape == (0, 1)
