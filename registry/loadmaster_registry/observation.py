"""Values of records that change as an observation becomes better known: versioned, typed, each column apart.

A column has a table of its own, with a row for each value that a record ever had: from the version that brought it
(``since``) to the one that replaced it (``until``; null for the newest). So reading what is newest is one scan of
one index, an element without such columns costs nothing, and a value that is given again is no new version.
"""

import re
from collections.abc import Mapping, Sequence

import polars as pl
import sqlalchemy as sa

from .comparison import check_unique, described
from .errors import RegistryError
from .frames import DTYPES, Keep, fitted, insert, keep_in_sql, kept, read, read_matching
from .schema import Schema, VersionedColumn, key_column, record_columns
from .universe import Column, ColumnType, Element

FLAG, FLAG_REASON = "flagged", "flag_reason"
FLAG_COLUMNS: Mapping[str, ColumnType] = {FLAG: "bool", FLAG_REASON: "str"}
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SHOWN = 5


def n_columns(connection: sa.Connection) -> int:
    """Return how many versioned columns there are: none is ever taken away, so it tells whether any is new."""
    return int(connection.exec_driver_sql("SELECT COUNT(*) FROM metadata_column").scalar() or 0)


def with_columns(connection: sa.Connection, schema: Schema) -> Schema:
    """Return the schema with the versioned columns that are registered."""
    table = schema.metadata_column
    rows = connection.execute(sa.select(table).order_by(table.c.id)).all()
    return schema.with_versioned(
        VersionedColumn(row.id, row.element, Column(row.name, row.type), row.is_own) for row in rows
    )


def newest(
    connection: sa.Connection, schema: Schema, column: VersionedColumn, keep: Keep | None = None
) -> pl.DataFrame:
    """Return the newest value of each record that has one: required dimensions and the column, by its name."""
    table = schema.metadata_table(column)
    required = schema.universe[column.element].required
    value = table.c.value.label(column.column.name)
    query = sa.select(*(table.c[d] for d in required), value)
    query = query.where(table.c.until.is_(None), *keep_in_sql(table, keep))
    return kept(read(connection, query), keep)


def overlaid(
    connection: sa.Connection,
    schema: Schema,
    records: pl.DataFrame,
    columns: Sequence[VersionedColumn],
    keep: Keep | None,
) -> pl.DataFrame:
    """Put the newest values of some columns into records: in place of their own, or as new columns at the end."""
    for versioned in columns:
        name, keys = versioned.column.name, list(schema.universe[versioned.element].required)
        values = newest(connection, schema, versioned, keep)
        records = records.join(values, on=keys, how="left", suffix="\x00", maintain_order="left")
        if versioned.is_own:
            records = records.with_columns(pl.coalesce(f"{name}\x00", name).alias(name)).drop(f"{name}\x00")
        elif name == FLAG:
            records = records.with_columns(pl.col(FLAG).fill_null(False))
    return records


def store_versions(
    connection: sa.Connection,
    schema: Schema,
    place: str,
    element: str,
    rows: pl.DataFrame,
    loaded: str,
    source: str,
) -> tuple[Schema, int]:
    """Give records newer values; return the schema, which may have new columns, and how many values changed.

    Parameters
    ----------
    rows : DataFrame
        The element's required dimensions, and values; null leaves a value as it is.
    loaded, source : str
        When and from where, for people.

    Raises
    ------
    Conflict, RegistryError
        If a record does not exist or is given twice, or a column is wrong.
    """
    definition = schema.universe[element]
    what = f"metadata of {element!r}"
    columns = [_column(schema, definition, name, rows.schema[name], what) for name in rows.columns
               if name not in definition.required]  # fmt: skip
    if not definition.has_table or not columns:
        raise RegistryError(
            what=f"{what} cannot be stored", where=f"registry {place}",
            why="no values are given" if definition.has_table else "it has no records of its own",
            todo="give columns beside the dimensions, of an element that has records",
        )  # fmt: skip
    keys = [key_column(schema.universe, d) for d in definition.required]
    new = fitted(rows, [*keys, *(c.column for c in columns)], what)
    _check_known(connection, schema, definition, new, what, place)
    new = new.unique(maintain_order=True)
    check_unique(new, definition.required, what, f"registry {place}")
    changes = {c.column.name: _changed(connection, schema, c, new) for c in columns}
    changes = {name: rows for name, rows in changes.items() if rows.height}
    if not changes:
        return schema, 0
    version = _next(connection, schema.metadata_version)
    facts = {"id": version, "element": element, "loaded": loaded, "source": source}
    connection.execute(sa.insert(schema.metadata_version).values(facts))
    for column in columns:
        if column.column.name in changes:
            schema, registered = _registered(connection, schema, column)
            _replace(connection, schema, registered, changes[column.column.name], version)
    return schema, sum(rows.height for rows in changes.values())


def flagged(connection: sa.Connection, schema: Schema) -> dict[str, pl.DataFrame]:
    """Return, for each element of which something is flagged now, the required dimensions of what is."""
    found = {}
    for name in schema.universe.ordered(schema.versioned):
        for column in schema.versioned[name]:
            if column.column.name == FLAG:
                keys = newest(connection, schema, column).filter(FLAG).drop(FLAG)
                if keys.height:
                    found[name] = keys.sort(keys.columns)
    return found


def history(
    connection: sa.Connection, schema: Schema, element: str, keep: Keep | None = None
) -> pl.DataFrame:
    """Return every value that an element's records were ever given, as text, in order of record and version.

    Returns
    -------
    history : DataFrame
        Required dimensions, ``column``, ``value``, ``version``, ``loaded``, ``source``, ``is_newest``.
    """
    required = schema.universe[element].required
    v = schema.metadata_version
    types = {d: DTYPES[key_column(schema.universe, d).type] for d in required}
    texts = {
        "column": pl.String,
        "value": pl.String,
        "version": pl.Int64,
        "loaded": pl.String,
        "source": pl.String,
    }
    pieces = [pl.DataFrame(schema={**types, **texts, "is_newest": pl.Boolean})]
    for versioned in schema.versioned.get(element, ()):
        table = schema.metadata_table(versioned)
        dims = [table.c[d] for d in required]
        query = sa.select(
            *dims, table.c.value, table.c.since.label("version"), v.c.loaded, v.c.source, table.c.until
        )
        query = query.join_from(table, v, table.c.since == v.c.id).where(*keep_in_sql(table, keep))
        found = kept(read(connection, query), keep)
        written = (
            pl.col("value").bin.encode("hex")
            if versioned.column.type == "bytes"
            else pl.col("value").cast(pl.String)
        )
        found = found.with_columns(
            written, column=pl.lit(versioned.column.name), is_newest=pl.col("until").is_null()
        )
        pieces.append(found.select(pieces[0].columns))
    return pl.concat(pieces).sort(*required, "column", "version")


def _column(schema: Schema, element: Element, name: str, dtype: pl.DataType, what: str) -> VersionedColumn:
    """Return the column that `name` means for an element: one that exists, or a new one of the type given."""
    for known in schema.versioned.get(element.name, ()):
        if known.column.name == name:
            return known
    fixed = {*element.required, *element.implied, *(c.name for c in element.alternates)}
    for own in record_columns(schema.universe, element):
        if own.name == name and name not in fixed:
            return VersionedColumn(0, element.name, Column(name, own.type), True)
    type: ColumnType | None = FLAG_COLUMNS.get(name) or next(
        (t for t, d in DTYPES.items() if d == dtype), None
    )
    if type is None and dtype.is_numeric():
        type = "int" if dtype.is_integer() else "float"
    if (
        name in fixed
        or name in schema.universe
        or name in ("region", "timespan")
        or not _NAME.fullmatch(name)
    ):
        why = (
            "it identifies the record"
            if name in fixed
            else "the name means something else, or is no plain word"
        )
    elif type is None:
        why = f"it holds {dtype}, which no record can hold"
    else:
        return VersionedColumn(0, element.name, Column(name, type), False)
    raise RegistryError(
        what=f"column {name!r} cannot be metadata of {element.name!r}", where=what, why=why,
        todo="leave it out, or give it another name",
    )  # fmt: skip


def _check_known(
    connection: sa.Connection, schema: Schema, element: Element, rows: pl.DataFrame, what: str, place: str
) -> None:
    """Refuse rows about records that do not exist, by their numbers."""
    required = list(element.required)
    known = read_matching(connection, schema.records[element.name], required, rows.select(required))
    numbered = rows.select(required).with_row_index("\x00row", offset=1)
    absent = numbered.join(known, on=required, how="anti", maintain_order="left")
    if absent.height:
        shown = [
            f"row {row.pop(chr(0) + 'row')}: {described(row)}"
            for row in absent.head(_SHOWN).iter_rows(named=True)
        ]
        more = f"; and {absent.height - _SHOWN} more" if absent.height > _SHOWN else ""
        raise RegistryError(
            what=f"{absent.height} of {rows.height} rows are {what} that does not exist",
            where=f"registry {place}",
            why="; ".join(shown) + more,
            todo="correct the dimensions, or ingest these observations first",
        )


def _changed(
    connection: sa.Connection, schema: Schema, column: VersionedColumn, rows: pl.DataFrame
) -> pl.DataFrame:
    """Return keys and ``value`` of the rows whose value is not the newest already."""
    name, keys = column.column.name, list(schema.universe[column.element].required)
    given = rows.select(*keys, pl.col(name).alias("value")).drop_nulls("value")
    known = _known_values(connection, schema, column, given.select(keys))
    both = given.join(known, on=keys, how="left", suffix=" there", maintain_order="left")
    return both.filter(pl.col("value").ne_missing(pl.col("value there"))).select(*keys, "value")


def _known_values(
    connection: sa.Connection, schema: Schema, column: VersionedColumn, keys: pl.DataFrame
) -> pl.DataFrame:
    """Return keys and ``value`` of what holds now: the newest version, or the record's own where there is none."""
    name = column.column.name
    values = pl.DataFrame(schema={**keys.schema, "value": DTYPES[column.column.type]})
    if column.id:
        values = newest(connection, schema, column).rename({name: "value"})
    if column.is_own:
        table = schema.records[column.element]
        own = read_matching(connection, table, [*keys.columns, name], keys).rename({name: "value"})
        values = pl.concat([values, own.join(values, on=keys.columns, how="anti").select(values.columns)])
    return values


def _registered(
    connection: sa.Connection, schema: Schema, column: VersionedColumn
) -> tuple[Schema, VersionedColumn]:
    """Make a column and its table known, where it is new."""
    if column.id:
        return schema, column
    number = _next(connection, schema.metadata_column)
    facts = {"id": number, "element": column.element, "name": column.column.name, "type": column.column.type}
    connection.execute(sa.insert(schema.metadata_column).values(**facts, is_own=column.is_own))
    registered = VersionedColumn(number, column.element, column.column, column.is_own)
    schema = schema.with_versioned([*(c for cs in schema.versioned.values() for c in cs), registered])
    schema.metadata_table(registered).metadata.create_all(connection)
    return schema, registered


def _replace(
    connection: sa.Connection, schema: Schema, column: VersionedColumn, rows: pl.DataFrame, version: int
) -> None:
    """End what held so far, and add what holds from now on."""
    table = schema.metadata_table(column)
    keys = schema.universe[column.element].required
    ended = sa.update(table).where(
        table.c.until.is_(None), *(table.c[d] == sa.bindparam(f"{d}_") for d in keys)
    )
    bound = rows.select(pl.col(d).alias(f"{d}_") for d in keys).to_dicts()
    connection.execute(ended.values(until=version), bound)
    insert(connection, table, rows.with_columns(since=pl.lit(version, dtype=pl.Int64)))


def _next(connection: sa.Connection, table: sa.Table) -> int:
    return 1 + int(connection.execute(sa.select(sa.func.max(table.c.id))).scalar() or 0)
