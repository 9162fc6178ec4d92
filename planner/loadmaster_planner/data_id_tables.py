"""Tables of data IDs that a person gives: a plan keeps to their rows."""

from dataclasses import dataclass
from pathlib import Path

import polars as pl
from loadmaster_registry.errors import ConfigError, did_you_mean
from loadmaster_registry.schema import key_column
from loadmaster_registry.table_file import TableFile, read_table_file
from loadmaster_registry.universe import Universe


@dataclass(frozen=True)
class DataIdTable:
    """Data IDs of which each row of the graph must match one, in the dimensions that the table has."""

    name: str  # where it came from, for people
    frame: pl.DataFrame  # a column a dimension, in the universe's order; distinct rows, sorted


def read_data_id_table(path: str | Path, universe: Universe) -> DataIdTable:
    """Read data IDs from a file: CSV, TSV, Parquet, or anything that Astropy reads (ECSV, FITS, VOTable…).

    Parameters
    ----------
    path : str or Path
        A table whose columns are named like dimensions; the same data ID twice counts once.

    Raises
    ------
    ConfigError
        If the file is no table, a column is no dimension, or a value is missing or of another type than the
        dimension's; rows are counted from 1.
    """
    file = read_table_file(path)
    _check_columns(file, universe)
    columns = []
    for name in universe.ordered(file.frame.columns):
        values = file.column(name, key_column(universe, name).type)
        if values.null_count():
            raise ConfigError(
                what=f"column {name!r} has no value in row {int(values.is_null().arg_max() or 0) + 1}",
                where=str(file.path),
                why="each row is a data ID, and a data ID has a value for each of its dimensions",
                todo="give the value, leave the row out, or put rows with other dimensions into a table of their own",
            )
        columns.append(values)
    frame = pl.DataFrame(columns)
    return DataIdTable(str(path), frame.unique().sort(frame.columns))


def _check_columns(file: TableFile, universe: Universe) -> None:
    if not file.frame.width:
        raise ConfigError(
            what="the table has no column", where=str(file.path), why="each dimension is one",
            todo="write their names into the first line",
        )  # fmt: skip
    for name in file.frame.columns:
        if name not in universe or not universe[name].is_dimension:
            raise ConfigError(
                what=f"column {name!r} is no dimension",
                where=str(file.path),
                why="a table of data IDs holds nothing else",
                todo=did_you_mean(name, universe.dimensions),
            )
