"""Polars frames in and out of SQL: by columns, in bulk, never an object for a row."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np
import polars as pl
import sqlalchemy as sa

from .columns import Values, aggregated, can_aggregate
from .errors import RegistryError, did_you_mean
from .universe import Column, ColumnType

Keep = Mapping[str, Sequence[int | str]]  # dimension → the only values that matter

DTYPES: dict[ColumnType, pl.DataType] = {
    "int": pl.Int64(),
    "float": pl.Float64(),
    "str": pl.String(),
    "bool": pl.Boolean(),
    "bytes": pl.Binary(),
}
_FETCH_ROWS = 1 << 12  # more at a time makes Python's garbage collector look through them all again and again
_PARAMETERS = 30_000  # in one statement; SQLite takes 32 766, PostgreSQL 65 535
_KEEP_IN_SQL = 1000  # longer lists are cheaper to apply here


def read(connection: sa.Connection, statement: sa.Select[Any] | sa.CompoundSelect[Any]) -> pl.DataFrame:
    """Run a query without LIMIT and return its result by columns.

    Rows go from the driver's cursor straight into columns, 4096 at a time: about 0.3 µs a value, and memory
    for the result and one batch. What is longer comes out of SQLite by whole columns: about 0.1 µs a value.
    """
    result = connection.execute(statement)
    schema = {c.name: _dtype_of(c.type) for c in statement.selected_columns}
    cursor = result.cursor
    assert cursor is not None  # a SELECT has one until it is closed
    batches = [_frame((), schema)]
    with _driver_errors(connection):
        while rows := cursor.fetchmany(_FETCH_ROWS):
            batches.append(_frame(rows, schema))
            if len(batches) == 2 and len(rows) == _FETCH_ROWS:
                whole = _by_column(connection, statement, result, schema)
                if whole is not None:
                    result.close()
                    return whole
    result.close()
    return pl.concat(batches, rechunk=True)


def read_matching(
    connection: sa.Connection, table: sa.Table, columns: Sequence[str], keys: pl.DataFrame
) -> pl.DataFrame:
    """Return `columns` of the rows of `table` that agree with some row of `keys` in all columns of `keys`.

    One query for every few thousand keys, each key found by index: about 8 µs a key of three columns.
    """
    wanted = keys.unique()
    quote = connection.dialect.identifier_preparer.quote
    named = [quote(name) for name in wanted.columns]
    target = quote(table.name)
    agree = " AND ".join(f"t.{name} = wanted.{name}" for name in named)
    picked = ", ".join(f"t.{quote(name)}" for name in columns)
    mark = "?" if connection.dialect.paramstyle == "qmark" else "%s"
    row = f"({', '.join([mark] * wanted.width)})"
    schema = {name: _dtype_of(table.c[name].type) for name in columns}
    batches = [_frame((), schema)]
    for part in wanted.iter_slices(max(1, _PARAMETERS // max(1, wanted.width))):
        values = ", ".join([row] * part.height)
        text = (
            f"WITH wanted ({', '.join(named)}) AS (VALUES {values}) "
            f"SELECT {picked} FROM wanted JOIN {target} AS t ON {agree}"
        )
        flat = tuple(value for values in part.iter_rows() for value in values)
        cursor = connection.exec_driver_sql(text, flat).cursor
        assert cursor is not None
        with _driver_errors(connection):
            batches.append(_frame(cursor.fetchall(), schema))
    return pl.concat(batches, rechunk=True)


def insert(connection: sa.Connection, table: sa.Table, rows: pl.DataFrame) -> None:
    """Add `rows`, of which the columns that `table` has are taken, by one bulk statement."""
    if rows.is_empty():
        return
    names = tuple(c.name for c in table.columns if c.name in rows.columns)
    text, is_positional = _insert_text(table, names, connection.dialect)
    part = pl.DataFrame([rows.get_column(name) for name in names])
    connection.exec_driver_sql(text, part.rows() if is_positional else part.rows(named=True))


def inserted(connection: sa.Connection, *parts: tuple[sa.Table, pl.DataFrame]) -> bool:
    """Insert all `parts`; or nothing, and return False, where some constraint forbids it."""
    try:
        with connection.begin_nested():
            for table, rows in parts:
                insert(connection, table, rows)
    except sa.exc.IntegrityError:
        return False
    return True


def update(connection: sa.Connection, table: sa.Table, rows: pl.DataFrame, key: Sequence[str]) -> int:
    """Change the rows that agree with some row of `rows` in `key`; return how many there were."""
    names = [name for name in rows.columns if name not in key]
    if rows.is_empty() or not names:
        return 0
    wanted = [table.c[name] == _bound(table, name) for name in key]
    statement = sa.update(table).where(*wanted).values({name: _bound(table, name) for name in names})
    return connection.execute(statement, _bound_rows(rows)).rowcount


def delete(connection: sa.Connection, table: sa.Table, keys: pl.DataFrame) -> int:
    """Remove the rows that agree with some row of `keys` in all its columns; return how many there were."""
    if keys.is_empty():
        return 0
    wanted = [table.c[name] == _bound(table, name) for name in keys.columns]
    return connection.execute(sa.delete(table).where(*wanted), _bound_rows(keys)).rowcount


def kept(frame: pl.DataFrame, keep: Keep | None) -> pl.DataFrame:
    """Return the rows whose dimensions all have one of the values kept."""
    for name, values in (keep or {}).items():
        if name in frame.columns:
            wanted = pl.DataFrame({name: pl.Series(list(values), dtype=frame.schema[name])}).unique()
            frame = frame.join(wanted, on=name, how="semi", maintain_order="left")
    return frame


def keep_in_sql(table: sa.Table, keep: Keep | None, *, by_scan: bool = False) -> list[sa.ColumnElement[bool]]:
    """Return conditions for the lists that are short enough; `kept` does the rest.

    With `by_scan` no index is used: where much of a table is wanted, reading it in order is quicker.
    """
    short = {name: values for name, values in (keep or {}).items() if len(values) <= _KEEP_IN_SQL}
    columns = {name: table.c[name] for name in short if name in table.c}
    return [(sa.func.coalesce(c, c) if by_scan else c).in_(short[name]) for name, c in columns.items()]


def long_lists(keep: Keep) -> Keep:
    """Return what `keep_in_sql` leaves to `kept`."""
    return {name: values for name, values in keep.items() if len(values) > _KEEP_IN_SQL}


def in_order(frame: pl.DataFrame, by: Sequence[str]) -> pl.DataFrame:
    """Sort by some columns, of which no value is null; what is in order already is only looked at."""
    equal = np.ones(max(frame.height - 1, 0), dtype=bool)
    for name in by:
        values = frame[name] if frame.schema[name] == pl.String else frame[name].to_numpy()
        before, after = values[:-1], values[1:]
        if (np.asarray(before > after) & equal).any():
            return _sorted(frame, by)
        equal &= np.asarray(before == after)
    return frame


def _sorted(frame: pl.DataFrame, by: Sequence[str]) -> pl.DataFrame:
    if not all(frame.schema[name] == pl.Int64 for name in by):
        return frame.sort(by)
    columns = [frame[name].to_numpy() for name in by]
    sizes = [int(values.max()) - int(values.min()) + 1 for values in columns]
    if prod(sizes) >= 2**63:
        return frame.sort(by)
    key = np.zeros(frame.height, dtype=np.int64)  # one number that is ordered as the columns are
    for values, size in zip(columns, sizes, strict=True):
        key = key * size + (values - values.min())
    return frame[np.argsort(key, kind="stable")]


def with_constants(frame: pl.DataFrame, values: Mapping[str, Any], order: Sequence[str]) -> pl.DataFrame:
    """Add columns that have one value, and put all columns into an order."""
    literals = {n: pl.lit(v, dtype=pl.Int64 if isinstance(v, int) else pl.String) for n, v in values.items()}
    return frame.with_columns(**literals).select(order)


def replaced(name: str, values: Mapping[Any, Any], dtype: pl.DataType | type[pl.DataType]) -> pl.Expr:
    """Return a column with each value replaced by what stands for it; `values` has all that occur.

    Where nothing can occur Polars would leave the type as it was.
    """
    if not values:
        return pl.lit(None, dtype=dtype).alias(name)
    return pl.col(name).replace_strict(dict(values), return_dtype=dtype)


def fitted(rows: pl.DataFrame, columns: Sequence[Column], what: str) -> pl.DataFrame:
    """Return `rows` with its columns in the order and type of `columns`; a nullable one may be absent.

    Raises
    ------
    RegistryError
        If a column is missing, unknown, of another type, or null where it must not be.
    """
    _check_names(rows, columns, what)
    given = (c for c in columns if c.name in rows.columns)
    return pl.DataFrame([_fitted(rows.get_column(c.name), c, what) for c in given])


def check_uuids(rows: pl.DataFrame, columns: Sequence[str], what: str) -> None:
    """Refuse values that are not the 16 bytes of a uuid.

    Raises
    ------
    RegistryError
    """
    for name in columns:
        if name in rows.columns and not (rows.get_column(name).bin.size() == 16).all():
            raise RegistryError(
                what=f"column {name!r} holds values that are no uuid", where=what,
                why="a uuid has 16 bytes", todo="give `uuid.UUID.bytes`",
            )  # fmt: skip


def _by_column(
    connection: sa.Connection,
    statement: sa.Select[Any] | sa.CompoundSelect[Any],
    result: sa.CursorResult[Any],
    schema: Mapping[str, pl.DataType],
) -> pl.DataFrame | None:
    """Run the query of `result` once more, for whole columns; None where they cannot be had."""
    types = {c.name: Values(schema[c.name], getattr(c, "nullable", True)) for c in statement.selected_columns}
    if not can_aggregate(connection, types):
        return None
    asked: Any = result.context
    return aggregated(connection, asked.statement, asked.parameters[0], types)


@contextmanager
def _driver_errors(connection: sa.Connection) -> Iterator[None]:
    """Raise the driver's errors as SQLAlchemy does: whoever reads a cursor directly goes past its wrapping."""
    try:
        yield
    except connection.dialect.loaded_dbapi.Error as error:
        raise sa.exc.DBAPIError(None, None, error) from error


def _bound(table: sa.Table, name: str) -> sa.BindParameter[Any]:
    # A name of its own: in UPDATE a column's name is taken.
    return sa.bindparam(f"{name}_", type_=table.c[name].type)


def _bound_rows(rows: pl.DataFrame) -> list[dict[str, Any]]:
    return rows.rename({name: f"{name}_" for name in rows.columns}).to_dicts()


@lru_cache(maxsize=1024)  # compiling costs more than inserting a few rows
def _insert_text(table: sa.Table, names: tuple[str, ...], dialect: sa.Dialect) -> tuple[str, bool]:
    compiled = sa.insert(table).compile(dialect=dialect, column_keys=names)
    return str(compiled), compiled.positional


def _check_names(rows: pl.DataFrame, columns: Sequence[Column], what: str) -> None:
    known = {c.name for c in columns}
    for name in rows.columns:
        if name not in known:
            raise RegistryError(
                what=f"unknown column {name!r}", where=what, why="nothing is stored under this name",
                todo=did_you_mean(name, known),
            )  # fmt: skip
    if missing := [c.name for c in columns if not c.nullable and c.name not in rows.columns]:
        raise RegistryError(
            what=f"missing column{'s' * (len(missing) > 1)} {', '.join(missing)}", where=what,
            why="these are never null", todo="add them",
        )  # fmt: skip


def _fitted(values: pl.Series, column: Column, what: str) -> pl.Series:
    dtype = DTYPES[column.type]
    if not (values.dtype == dtype or _widens(values.dtype, dtype)):
        raise RegistryError(
            what=f"column {column.name!r} holds {values.dtype}", where=what,
            why=f"{dtype} is wanted", todo="convert it before",
        )  # fmt: skip
    values = values if values.dtype == dtype else values.cast(dtype)
    if column.type == "float":
        values = values.fill_nan(None)  # SQLite would do it unasked
    if not column.nullable and values.null_count():
        raise RegistryError(
            what=f"column {column.name!r} is null in {values.null_count()} of {values.len()} rows",
            where=what, why="it is never null", todo="give the values, or leave these rows out",
        )  # fmt: skip
    return values


def _widens(given: pl.DataType, wanted: pl.DataType) -> bool:
    if given == pl.Null:
        return True
    if wanted == pl.String:
        return isinstance(given, pl.Categorical | pl.Enum)
    return given.is_integer() if wanted == pl.Int64 else wanted == pl.Float64 and given.is_numeric()


def _frame(rows: Sequence[Sequence[Any]], schema: Mapping[str, pl.DataType]) -> pl.DataFrame:
    columns = zip(*rows, strict=True) if rows else (() for _ in schema)
    return pl.DataFrame(
        [_series(name, values, dtype) for (name, dtype), values in zip(schema.items(), columns, strict=True)]
    )


def _series(name: str, values: Sequence[Any], dtype: pl.DataType) -> pl.Series:
    if dtype == pl.Boolean:  # SQLite has 0 and 1
        values = [None if v is None else bool(v) for v in values]
    return pl.Series(name, values, dtype=dtype)


def _dtype_of(sql_type: sa.types.TypeEngine[Any]) -> pl.DataType:
    for kind, dtype in (
        (sa.Integer, pl.Int64()),  # BigInteger is one
        (sa.Float, pl.Float64()),  # Double is one
        (sa.Boolean, pl.Boolean()),
        (sa.LargeBinary, pl.Binary()),
    ):
        if isinstance(sql_type, kind):
            return dtype
    return pl.String()
