"""Tables for people, for programs, for notebooks."""

import io
from uuid import UUID

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from loadmaster_registry.timespan import MAX_NS
from lsst.sphgeom import Circle, UnitVector3d
from rich.console import Console

from loadmaster.astropy_tables import astropy_table
from loadmaster.tables import Table, format_bytes, frame_rows, frame_table

ID = UUID("0190c0de-0000-4000-8000-000000000001")
CIRCLE = Circle(UnitVector3d(1, 0, 0))
FRAME = pl.DataFrame(
    {
        "visit": [7, None],
        "band": ["r", None],
        "id": [ID.bytes, None],
        "region": [CIRCLE.encode(), None],
        "timespan_begin": [86_400_000_000_000, None],
        "timespan_end": [MAX_NS, None],
        "children": [["a", "b"], []],
    },
    schema_overrides={"id": pl.Binary, "region": pl.Binary},
)


def printed(table: Table, width: int = 200) -> str:
    stream = io.StringIO()
    table.print(Console(file=stream, width=width))
    return stream.getvalue()


def test_a_frame_prints_ids_as_text_instants_as_iso_and_leaves_regions_out() -> None:
    text = printed(frame_table(FRAME))
    assert str(ID) in text
    assert "1970-01-02T00:00:00 TAI" in text
    assert "∞" in text
    assert "a, b" in text
    assert "region" not in text


def test_a_cell_is_never_read_as_markup() -> None:
    assert "[red]x[/red]" in printed(Table(("where",), (("[red]x[/red]",),)))
    assert "&lt;b&gt;" in Table(("where",), (("<b>",),)).html()


def test_nothing_of_a_cell_is_lost_in_a_narrow_terminal() -> None:
    text = printed(Table(("name", "n"), (("a" * 60, "1"),)), width=30)
    assert text.count("a") == 60 + 1  # and the one in the heading


def test_rows_for_programs_keep_every_value() -> None:
    first, second = frame_rows(FRAME)
    assert first["id"] == str(ID)
    assert first["region"] == CIRCLE.encode().hex()
    assert first["children"] == ["a", "b"]
    assert second["visit"] is None


def test_an_astropy_table_has_times_regions_and_masks() -> None:
    table = astropy_table(FRAME)
    assert table["timespan_begin"][0].isot == "1970-01-02T00:00:00.000"
    assert table["timespan_begin"].scale == "tai"
    assert table["region"][0] == CIRCLE
    assert table["id"][0] == str(ID)
    assert [bool(table[name].mask[1]) for name in ("visit", "band", "id", "region", "timespan_begin")] == [
        True
    ] * 5
    assert bool(table["timespan_end"].mask[0])  # for ever


def test_an_astropy_table_of_nothing_has_its_columns() -> None:
    assert astropy_table(FRAME.clear()).colnames == FRAME.columns


@pytest.mark.parametrize(
    ("size", "text"), [(-1, "–"), (0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (3 * 2**50, "3072.0 TiB")]
)
def test_sizes_read_as_people_write_them(size: int, text: str) -> None:
    assert format_bytes(size) == text


@given(st.integers(0, 2**60))
def test_a_size_is_shown_to_within_a_tenth(size: int) -> None:
    value, unit = format_bytes(size).split()
    scale = 1024 ** ["B", "KiB", "MiB", "GiB", "TiB"].index(unit)
    assert abs(float(value) * scale - size) <= 0.05 * scale + 1
