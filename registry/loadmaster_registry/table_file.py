"""Tables that people keep in files (CSV, Parquet, whatever Astropy reads), with the types that are wanted."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from .errors import ConfigError
from .frames import DTYPES
from .universe import ColumnType

_POLARS_TEXT = {".csv": ",", ".tsv": "\t"}
_PARQUET = {".parquet", ".parq", ".pq"}
_ECSV = b"# %ECSV"
_BOOLS = {
    "true": True,
    "t": True,
    "yes": True,
    "1": True,
    "false": False,
    "f": False,
    "no": False,
    "0": False,
}
_WORDS: dict[ColumnType, str] = {
    "int": "a whole number", "float": "a number", "str": "a text", "bool": "true or false",
    "bytes": "bytes (hexadecimal where they are written)",
}  # fmt: skip


@dataclass(frozen=True)
class TableFile:
    """What a file holds: columns as they were stored, or as texts where the format writes all values as text."""

    path: Path
    frame: pl.DataFrame
    is_text: bool

    def column(self, name: str, type: ColumnType) -> pl.Series:
        """Return one column as `type`; null where the file has no value.

        Raises
        ------
        ConfigError
            If a value is of another type; it names the first row that holds one, counted from 1.
        """
        given = self.frame.get_column(name)
        found = _written(given, type) if given.dtype == pl.String and self.is_text else _stored(given, type)
        if found is None:
            raise self._wrong(name, type, 0, f"the column holds {given.dtype}")
        bad = found.is_null() & given.is_not_null() & ~_is_nan(given)
        if bad.any():
            row = int(bad.arg_max() or 0)
            raise self._wrong(name, type, row, f"it is {given[row]!r}")
        return found

    def guessed_type(self, name: str) -> ColumnType:
        """Return the narrowest type that holds all values of a column.

        Raises
        ------
        ConfigError
            If it holds something else altogether, as lists or dates.
        """
        given = self.frame.get_column(name)
        if given.dtype == pl.String and self.is_text:
            narrow: tuple[ColumnType, ...] = ("int", "float", "bool")
            fits = [t for t in narrow if _written(given, t).null_count() == given.null_count()]
            return fits[0] if fits else "str"
        for type, dtype in DTYPES.items():
            if given.dtype == dtype:
                return type
        if given.dtype.is_numeric():
            return "int" if given.dtype.is_integer() else "float"
        if isinstance(given.dtype, pl.Categorical | pl.Enum):
            return "str"
        raise self._wrong(name, "str", 0, f"the column holds {given.dtype}, which no record can hold")

    def _wrong(self, name: str, type: ColumnType, row: int, why: str) -> ConfigError:
        return ConfigError(
            what=f"column {name!r} does not hold {_WORDS[type]} in row {row + 1}",
            where=str(self.path),
            why=why,
            todo="correct the value, or leave the column out",
        )


def read_table_file(path: str | Path) -> TableFile:
    """Read a table: CSV and TSV, Parquet, and anything that Astropy knows (ECSV, FITS, VOTable…).

    Texts that a FITS file holds as bytes become texts; what is masked becomes null.

    Raises
    ------
    ConfigError
        If there is no such file, or it cannot be read as a table.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    try:
        if suffix in _PARQUET:
            return TableFile(path, pl.read_parquet(path), is_text=False)
        if suffix in _POLARS_TEXT and not path.read_bytes().startswith(_ECSV):
            frame = pl.read_csv(path, separator=_POLARS_TEXT[suffix], infer_schema=False, comment_prefix="#")
            return TableFile(path, frame.rename(str.strip).with_columns(_stripped()), is_text=True)
        return TableFile(path, _from_astropy(path), is_text=False)
    except FileNotFoundError:
        raise ConfigError(
            "there is no such table", str(path), "the file does not exist", "check the path"
        ) from None
    except Exception as error:  # each reader has its own kinds
        raise ConfigError(
            what="this file cannot be read as a table",
            where=str(path),
            why=str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__,
            todo="give a CSV, TSV, Parquet, ECSV, FITS or VOTable file whose name ends so",
        ) from error


def _stripped() -> pl.Expr:
    text = pl.all().str.strip_chars()
    return pl.when(text != "").then(text)


def _from_astropy(path: Path) -> pl.DataFrame:
    from astropy.table import Table  # slow to import, and most tables are CSV

    options = {"format": "ascii.ecsv"} if path.read_bytes()[: len(_ECSV)] == _ECSV else {}
    table = Table.read(path, **options)
    return pl.DataFrame([_series(name, table[name]) for name in table.colnames])


def _series(name: str, column: Any) -> pl.Series:
    mask = np.ma.getmaskarray(column) if hasattr(column, "mask") else np.zeros(len(column), dtype=bool)
    values = np.asarray(getattr(column, "filled", lambda: column)() if mask.any() else column)
    if values.ndim != 1:
        raise ValueError(f"column {name!r} holds arrays, and a table of values is wanted")
    if values.dtype.kind == "S":
        values = np.char.decode(values, "utf-8")
    if values.dtype.kind == "U":
        return pl.Series(name, [None if m else str(v).strip() for v, m in zip(values, mask, strict=True)])
    if values.dtype.kind == "O":
        return pl.Series(name, [None if m else v for v, m in zip(values.tolist(), mask, strict=True)])
    native = values.astype(values.dtype.newbyteorder("="))  # FITS is big-endian
    series = pl.Series(name, native)
    return series.set(pl.Series(mask), None) if mask.any() else series


def _written(given: pl.Series, type: ColumnType) -> pl.Series:
    """Read texts as a type; null where one is no such value."""
    if type in ("int", "float"):
        return given.cast(DTYPES[type], strict=False)
    if type == "bool":
        return given.str.to_lowercase().replace_strict(_BOOLS, default=None, return_dtype=pl.Boolean)
    return given if type == "str" else given.str.decode("hex", strict=False)


def _stored(given: pl.Series, type: ColumnType) -> pl.Series | None:
    """Convert without loss; null where a value would lose something, None where the column is of another kind."""
    if given.dtype == pl.Null:
        return given.cast(DTYPES[type])
    convert: Callable[[pl.Series], pl.Series | None] = _CONVERSIONS[type]
    return convert(given)


def _whole(given: pl.Series) -> pl.Series | None:
    if given.dtype.is_float():  # what pandas makes of whole numbers among which one is missing
        given = given.set(given != given.floor(), None)
    return given.cast(pl.Int64, strict=False) if given.dtype.is_numeric() else None


def _number(given: pl.Series) -> pl.Series | None:
    return given.cast(pl.Float64) if given.dtype.is_numeric() else None


def _text(given: pl.Series) -> pl.Series | None:
    if given.dtype == pl.Binary:
        return given.cast(pl.String, strict=False)
    is_text = given.dtype == pl.String or isinstance(given.dtype, pl.Categorical | pl.Enum)
    return given.cast(pl.String) if is_text else None


def _bool(given: pl.Series) -> pl.Series | None:
    return given if given.dtype == pl.Boolean else None


def _bytes(given: pl.Series) -> pl.Series | None:
    if given.dtype == pl.String:
        return given.str.decode("hex", strict=False)
    return given if given.dtype == pl.Binary else None


_CONVERSIONS: dict[ColumnType, Callable[[pl.Series], pl.Series | None]] = {
    "int": _whole, "float": _number, "str": _text, "bool": _bool, "bytes": _bytes,
}  # fmt: skip


def _is_nan(given: pl.Series) -> pl.Series:
    return given.is_nan().fill_null(False) if given.dtype.is_float() else given.is_null()
