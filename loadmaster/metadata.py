"""Observation metadata and flags as people give them: files of values, data IDs as text."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import polars as pl
from loadmaster_registry.errors import ConfigError, NotFound, QueryError, did_you_mean
from loadmaster_registry.observation import FLAG, FLAG_COLUMNS, FLAG_REASON
from loadmaster_registry.records import DataId
from loadmaster_registry.schema import key_column, record_columns
from loadmaster_registry.snapshot import Snapshot
from loadmaster_registry.table_file import TableFile, read_table_file
from loadmaster_registry.universe import ColumnType, Element, Universe


def read_data_id(text: str, universe: Universe) -> dict[str, int | str]:
    """Read ``visit=1228 detector=3`` (blanks or commas between) as values of dimensions.

    Raises
    ------
    QueryError
        If it is written otherwise, a name is no dimension, or a value is of another type than the dimension's.
    """
    data_id: dict[str, int | str] = {}
    for pair in text.replace(",", " ").split():
        name, equals, value = pair.partition("=")
        if not equals or name not in universe or not universe[name].is_dimension:
            raise QueryError(
                what=f"{pair!r} is no DIMENSION=VALUE",
                where=f"the data ID {text!r}",
                why=f"there is no dimension {name!r}" if equals else "there is no equals sign",
                todo=did_you_mean(name, universe.dimensions) if equals else "write 'visit=1228 detector=3'",
            )
        value = value.strip("'\"")
        is_int = key_column(universe, name).type == "int"
        if is_int and not value.lstrip("-").isdigit():
            raise QueryError(
                what=f"{value!r} is no value of {name}",
                where=f"the data ID {text!r}",
                why=f"{name} is a whole number",
                todo="write it in digits",
            )
        data_id[name] = int(value) if is_int else value
    return data_id


def metadata_rows(
    registry: Snapshot, table: str | Path | pl.DataFrame, element: str = "", data_id: DataId | None = None
) -> tuple[str, pl.DataFrame]:
    """Read values, mostly from a file, and return the element that they are about with typed rows.

    Parameters
    ----------
    element : str
        Whose records get the values; by default the one that has just the file's dimensions.
    data_id : mapping, optional
        Values of dimensions that hold for all rows. What belongs to the only instrument or sky map need not name it.

    Raises
    ------
    ConfigError
        If the file is no table, a value is missing or of another type, or no element has these dimensions.
    """
    if isinstance(table, pl.DataFrame):
        file = TableFile(Path("a data frame"), table, is_text=False)
    else:
        file = read_table_file(table)
    universe = registry.universe
    data_id = dict(data_id or {})
    named = [c for c in file.frame.columns if c in universe and universe[c].is_dimension]
    about = universe[element] if element else _element_of(universe, {*named, *data_id}, str(file.path))
    columns = []
    for d in about.required:
        if d in file.frame.columns:
            columns.append(_keys(file, d, universe))
        else:
            value = data_id.get(d, _sole(registry, d))
            if value is None:
                raise _lacking(about, d, str(file.path))
            columns.append(pl.Series(d, [value] * file.frame.height, dtype=_dtype(universe, d)))
    types = _value_types(universe, about)
    for name in file.frame.columns:
        if name not in about.required:
            columns.append(file.column(name, types.get(name) or file.guessed_type(name)))
    return about.name, pl.DataFrame(columns)


def keys_of(registry: Snapshot, data_ids: Iterable[DataId]) -> dict[str, pl.DataFrame]:
    """Return, by element, the required dimensions of the records that data IDs name.

    Raises
    ------
    ConfigError
        If no element has these dimensions, or a value is missing.
    """
    universe = registry.universe
    rows: dict[str, list[dict[str, int | str]]] = {}
    for data_id in data_ids:
        told = " ".join(f"{k}={v}" for k, v in data_id.items())
        about = _element_of(universe, data_id, f"data ID {told!r}")
        row = {}
        for d in about.required:
            value = data_id.get(d, _sole(registry, d))
            if value is None:
                raise _lacking(about, d, f"data ID {told!r}")
            row[d] = value
        rows.setdefault(about.name, []).append(row)
    return {
        name: pl.DataFrame(found, schema={d: _dtype(universe, d) for d in universe[name].required}).unique()
        for name, found in rows.items()
    }


def flag_table(registry: Snapshot) -> pl.DataFrame:
    """List what is flagged: ``element``, ``data_id`` (text), ``reason``, ``since``."""
    pieces = [pl.DataFrame(schema=dict.fromkeys(("element", "data_id", "reason", "since"), pl.String))]
    for name, keys in registry.flagged().items():
        required = keys.columns
        history = (
            registry.metadata_history(name).filter("is_newest").select(*required, "column", "value", "loaded")
        )
        reasons = history.filter(column=FLAG_REASON).select(*required, reason="value")
        since = history.filter(column=FLAG).select(*required, since="loaded")
        found = (
            keys.join(reasons, on=required, how="left").join(since, on=required, how="left").sort(required)
        )
        told = pl.concat_str([pl.format(f"{d}={{}}", pl.col(d)) for d in required], separator=" ")
        pieces.append(found.select(pl.lit(name).alias("element"), told.alias("data_id"), "reason", "since"))
    return pl.concat(pieces)


def check_flagged(registry: Snapshot, element: str, keys: pl.DataFrame) -> None:
    """Refuse to take a flag off what has none.

    Raises
    ------
    NotFound
    """
    now = registry.flagged().get(element, keys.clear())
    free = keys.join(now, on=keys.columns, how="anti")
    if free.height:
        told = " ".join(f"{k}={v}" for k, v in free.row(0, named=True).items())
        raise NotFound(
            what=f"{free.height} of {keys.height} data IDs have no flag",
            where=f"{element} {told}",
            why="nobody flagged it, or the flag was taken off already",
            todo="see what is flagged: loadmaster query-flags",
        )


def _element_of(universe: Universe, dimensions: Iterable[str], where: str) -> Element:
    """Return the element whose records have just these dimensions as their identity."""
    required = universe.group(dimensions).required
    found = [e for e in universe.elements.values() if e.has_table and e.required == required]
    if len(found) == 1:
        return found[0]
    owners = [e.name for e in universe.elements.values() if e.has_table]
    raise ConfigError(
        what=f"no element has records over {', '.join(required) or 'no dimension at all'}",
        where=where,
        why="values and flags belong to records: of a visit, an exposure, a detector, a visit_detector_region…",
        todo=f"name the dimensions of one of {', '.join(owners)}",
    )


def _keys(file: TableFile, dimension: str, universe: Universe) -> pl.Series:
    values = file.column(dimension, key_column(universe, dimension).type)
    if values.null_count():
        raise ConfigError(
            what=f"column {dimension!r} has no value in row {int(values.is_null().arg_max() or 0) + 1}",
            where=str(file.path),
            why="it says whose the values are",
            todo="give the value, or leave the row out",
        )
    return values


def _sole(registry: Snapshot, dimension: str) -> int | str | None:
    """Return the only instrument or sky map that there is."""
    if not registry.universe[dimension].is_governor:
        return None
    values: Sequence[int | str] = registry.records(dimension, columns=())[dimension].to_list()
    return values[0] if len(values) == 1 else None


def _value_types(universe: Universe, element: Element) -> Mapping[str, ColumnType]:
    known = {c.name: c.type for c in (*record_columns(universe, element), *element.versioned)}
    return {**FLAG_COLUMNS, **known}


def _dtype(universe: Universe, dimension: str) -> pl.DataType:
    return pl.Int64() if key_column(universe, dimension).type == "int" else pl.String()


def _lacking(element: Element, dimension: str, where: str) -> ConfigError:
    return ConfigError(
        what=f"nothing says of which {dimension}",
        where=where,
        why=f"a {element.name} is known by {', '.join(element.required)}",
        todo=f"add {dimension}=…, or a column {dimension!r}",
    )
