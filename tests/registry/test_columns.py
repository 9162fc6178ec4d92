"""Whole columns out of SQLite hold what fetching rows gives."""

from pathlib import Path

import polars as pl
import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st
from loadmaster_registry import columns, frames
from polars.testing import assert_frame_equal

NUMBERS = st.integers(-(2**63), 2**63 - 1)
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=5)
TABLE = sa.Table(
    "t",
    sa.MetaData(),
    sa.Column("number", sa.BigInteger()),
    sa.Column("key", sa.BigInteger(), nullable=False),
    sa.Column("text", sa.Text()),
    sa.Column("flag", sa.Boolean()),
    sa.Column("bytes", sa.LargeBinary()),
    sa.Column("uuid", sa.LargeBinary()),
)
ROWS = st.lists(
    st.tuples(
        st.none() | NUMBERS,
        NUMBERS,
        st.none() | TEXTS | st.sampled_from(["\x1e", "\x1f", "a\x1fb", ""]),
        st.none() | st.booleans(),
        st.none() | st.binary(max_size=4) | st.just(b"\0\xff\0"),
        st.binary(min_size=16, max_size=16),
    ),
    max_size=12,
)


def both_ways(
    rows: list[tuple[object, ...]], monkeypatch: pytest.MonkeyPatch
) -> tuple[pl.DataFrame, pl.DataFrame]:
    engine = sa.create_engine("sqlite://")
    with engine.begin() as connection:
        TABLE.create(connection)
        for row in rows:
            connection.execute(sa.insert(TABLE).values(row))
        query = sa.select(TABLE).order_by(TABLE.c.key)
        monkeypatch.setattr(frames, "_FETCH_ROWS", 1 << 20)
        by_row = frames.read(connection, query)
        monkeypatch.setattr(frames, "_FETCH_ROWS", 1)
        return frames.read(connection, query), by_row


@given(rows=ROWS, chunk=st.sampled_from([1, 3, 100]))
@settings(deadline=None)
def test_whole_columns_are_what_rows_give(rows: list[tuple[object, ...]], chunk: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(columns, "_CHUNK_ROWS", chunk)
        by_column, by_row = both_ways(rows, patch)
    assert_frame_equal(by_column, by_row)


def test_a_separator_inside_a_text_sends_the_reader_back_to_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    given_up: list[bool] = []

    def watched(*arguments: object) -> pl.DataFrame | None:
        found = columns.aggregated(*arguments)  # type: ignore[arg-type]
        given_up.append(found is None)
        return found

    monkeypatch.setattr(frames, "aggregated", watched)
    rows = [(1, k, text, True, b"x", b"u" * 16) for k, text in enumerate(["a", "b\x1fc"])]
    by_column, by_row = both_ways(rows, monkeypatch)
    assert given_up == [True]
    assert_frame_equal(by_column, by_row)


def test_floating_point_numbers_are_left_to_rows() -> None:
    exact = columns.Values(pl.Int64(), nullable=False)
    with sa.create_engine("sqlite://").connect() as connection:
        assert columns.can_aggregate(connection, {"a": exact})
        assert not columns.can_aggregate(connection, {"a": exact, "b": columns.Values(pl.Float64(), True)})


def test_a_column_of_regions_keeps_every_byte(tmp_path: Path) -> None:
    regions = [bytes([k % 256]) + bytes(range(96)) for k in range(9000)]
    engine = sa.create_engine(f"sqlite:///{tmp_path}/t.sqlite3")
    with engine.begin() as connection:
        TABLE.create(connection)
        connection.execute(sa.insert(TABLE), [{"key": k, "bytes": r} for k, r in enumerate(regions)])
        found = frames.read(connection, sa.select(TABLE.c.key, TABLE.c.bytes))
    assert found.sort("key")["bytes"].to_list() == regions
