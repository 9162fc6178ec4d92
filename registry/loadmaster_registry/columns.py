"""Whole columns out of SQLite: one aggregate a column, so that no row becomes Python objects.

SQLite itself concatenates the values of a column; numbers and texts are then parsed, and bytes cut, all at once.
That costs a third of fetching rows, needs no other driver, and sees the snapshot of the connection that asks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import sqlalchemy as sa

# At a time: SQLite's strings end at 10⁹ bytes, and LIMIT costs as much as half of the rest.
_CHUNK_ROWS = 1 << 22
_SEPARATOR = "\x1f"  # ASCII's unit separator
_NULL_TEXT = "\x1e"
_NULL_NUMBER = -(2**63)
_NULL_SIZE = -1


@dataclass(frozen=True)
class Values:
    """What a column can hold."""

    dtype: pl.DataType
    nullable: bool


_Types = Mapping[str, Values]  # by name, in order


def can_aggregate(connection: sa.Connection, types: _Types) -> bool:
    """Whether `aggregated` reads columns of these types: a text does not hold every floating-point number."""
    return connection.dialect.name == "sqlite" and all(t.dtype != pl.Float64 for t in types.values())


def aggregated(
    connection: sa.Connection, text: str, parameters: Sequence[Any], types: _Types
) -> pl.DataFrame | None:
    """Return the columns of a SELECT without LIMIT; None if a text holds what separates texts here.

    About 0.06 µs a number or text, 0.2 µs a region.
    """
    n = connection.exec_driver_sql(f"SELECT count(*) FROM ({text})", tuple(parameters)).scalar_one()
    if n <= _CHUNK_ROWS:
        return _chunk(connection, text, parameters, types)
    chunks = []
    for first in range(0, n, _CHUNK_ROWS):
        chunk = _chunk(connection, f"{text} LIMIT ? OFFSET ?", (*parameters, _CHUNK_ROWS, first), types)
        if chunk is None:
            return None
        chunks.append(chunk)
    return pl.concat(chunks, rechunk=True)


def _chunk(
    connection: sa.Connection, text: str, parameters: Sequence[Any], types: _Types
) -> pl.DataFrame | None:
    try:
        found = _uniform(connection, text, parameters, types)
        return _mixed(connection, text, parameters, types) if found is None else found
    except sa.exc.DBAPIError:  # a string became too long
        return None


def _uniform(
    connection: sa.Connection, text: str, parameters: Sequence[Any], types: _Types
) -> pl.DataFrame | None:
    """Read columns that are null everywhere or nowhere, and bytes all of one size; None if one is not so."""

    def wanted(column: str, type: Values) -> str:
        known = f"count({column if type.nullable else '*'})"
        size = f"min(length({column})), max(length({column}))" if type.dtype == pl.Binary else "0, 0"
        return f"{known}, {size}, {_concatenated(column, type.dtype)}"

    row = _row(connection, text, parameters, [wanted(f"c{i}", type) for i, type in enumerate(types.values())])
    columns = []
    for i, (name, type) in enumerate(types.items()):
        known, least, most, values = row[4 * i + 1 : 4 * i + 5]
        if known == 0:
            columns.append(pl.Series(name, [None], dtype=type.dtype).new_from_index(0, row[0]))
            continue
        if known < row[0] or least != most:
            return None
        parsed = _cut(known, most, values) if type.dtype == pl.Binary else _split(known, values, type.dtype)
        if parsed is None:
            return None
        columns.append(parsed.alias(name).cast(type.dtype))
    return pl.DataFrame(columns)


def _mixed(
    connection: sa.Connection, text: str, parameters: Sequence[Any], types: _Types
) -> pl.DataFrame | None:
    """Read any columns, with nulls written out; None if a value looks like what stands for null here."""

    def wanted(column: str, dtype: pl.DataType) -> str:
        if dtype == pl.Binary:
            size = f"coalesce(length({column}), {_NULL_SIZE})"
            return f"0, {_concatenated(size, pl.Int64())}, {_concatenated(column, dtype)}"
        null = f"'{_NULL_TEXT}'" if dtype == pl.String else str(_NULL_NUMBER)
        return f"count({column}), 0, {_concatenated(f'coalesce({column}, {null})', dtype)}"

    row = _row(
        connection, text, parameters, [wanted(f"c{i}", type.dtype) for i, type in enumerate(types.values())]
    )
    columns = []
    for i, (name, type) in enumerate(types.items()):
        known, sizes, values = row[3 * i + 1 : 3 * i + 4]
        if type.dtype == pl.Binary:
            parsed = _cut_by_size(row[0], sizes, values or b"")
        elif (parsed := _split(row[0], values, type.dtype)) is not None:
            null = parsed == (_NULL_TEXT if type.dtype == pl.String else _NULL_NUMBER)
            parsed = parsed.set(null, None) if null.sum() == row[0] - known else None
        if parsed is None:
            return None
        columns.append(parsed.alias(name).cast(type.dtype))
    return pl.DataFrame(columns)


def _concatenated(expression: str, dtype: pl.DataType) -> str:
    if dtype == pl.Binary:
        return f"CAST(group_concat({expression}, '') AS BLOB)"
    return (
        f"group_concat({expression}, '{_SEPARATOR}')" if dtype == pl.String else f"group_concat({expression})"
    )


def _row(
    connection: sa.Connection, text: str, parameters: Sequence[Any], wanted: Sequence[str]
) -> Sequence[Any]:
    names = ", ".join(f"c{i}" for i in range(len(wanted)))
    query = f"WITH q ({names}) AS ({text}) SELECT count(*), {', '.join(wanted)} FROM q"
    return connection.exec_driver_sql(query, tuple(parameters)).one()


def _split(n: int, text: str, dtype: pl.DataType) -> pl.Series | None:
    """Return the `n` values that `text` holds; None if they are not so many."""
    if dtype == pl.String:
        values = pl.Series([text]).str.split(_SEPARATOR).explode()
    else:
        values = pl.Series(np.fromstring(text, dtype=np.int64, sep=","))
    return values if values.len() == n else None


def _cut(n: int, size: int, whole: bytes) -> pl.Series | None:
    if n * size != len(whole) or not size:
        return None
    cells = np.frombuffer(whole, dtype=np.uint8).reshape(n, size)
    return pl.Series(cells).cast(pl.List(pl.UInt8)).cast(pl.Binary)


def _cut_by_size(n: int, sizes_text: str, whole: bytes) -> pl.Series | None:
    sizes = np.fromstring(sizes_text, dtype=np.int64, sep=",")
    ends = np.cumsum(sizes.clip(min=0))
    if sizes.size != n or ends[-1] != len(whole):
        return None
    cuts = zip(ends.tolist(), sizes.tolist(), strict=True)
    return pl.Series([None if size < 0 else whole[end - size : end] for end, size in cuts], dtype=pl.Binary)
