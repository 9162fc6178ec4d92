"""Tables in Parquet files, as `polars.DataFrame` and as `astropy.table.Table`."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import polars as pl
from astropy.table import MaskedColumn, Table
from astropy.table.meta import get_header_from_yaml, get_yaml_from_table
from loadmaster_registry.errors import StageError

from . import Format, Parameters, Recipe, arrow_schema, not_a, unreadable
from .content import Tee
from .parquet_content import ParquetContent
from .parts import columns_of, rows_of
from .table_meta import with_keys, without_keys

_ASTROPY = "table_meta_yaml"  # key below which Astropy, and Rubin, keep units and metadata of tables


def _read_frame(path: Path, component: str | None, parameters: Parameters) -> Any:
    try:
        return _part(path, component, parameters)
    except StageError:
        raise
    except (
        BaseException
    ) as error:  # Polars panics at some broken files, and what it raises then is no Exception
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        raise unreadable(path, f"{type(error).__name__}: {error}") from error


def _part(path: Path, component: str | None, parameters: Parameters) -> Any:
    whole = pl.scan_parquet(path, glob=False)
    if component == "columns":
        return whole.collect_schema().names()
    if component == "rowcount":
        return whole.select(pl.len()).collect().item()
    columns = columns_of(parameters, whole.collect_schema().names(), path)
    if "rows" in parameters:
        rows = rows_of(parameters, whole.select(pl.len()).collect().item(), path)
        whole = whole.slice(rows.start, rows.stop - rows.start)
    return whole.select(columns).collect()


def _write_frame(obj: Any, stream: IO[bytes], recipe: Recipe) -> str | None:
    if not isinstance(obj, pl.DataFrame):
        raise not_a(obj, "a frame (polars.DataFrame)")
    return _write(obj, stream, recipe, recipe.provenance.keys(".") if recipe.provenance else {}, {})


def _write(
    frame: pl.DataFrame, stream: IO[bytes], recipe: Recipe, keys: Mapping[str, Any], bare: Mapping[str, Any]
) -> str | None:
    """Write a frame with metadata; `bare` are those that the file would have if it said nothing of itself."""
    if recipe.provenance is None:
        _write_parquet(frame, stream, recipe, _with_schema(frame, bare))
        return None
    metadata = _with_schema(frame, keys)
    content = ParquetContent(metadata, _with_schema(frame, bare))
    _write_parquet(frame, cast("IO[bytes]", Tee(stream, content)), recipe, metadata)
    return content.digest()


def _with_schema(frame: pl.DataFrame, metadata: Mapping[str, Any]) -> dict[str, str]:
    texts = {key: str(value) for key, value in metadata.items()}
    schema = _schema_of(frame)
    return {**texts, arrow_schema.KEY: arrow_schema.with_metadata(schema, texts) if texts else schema}


def _write_parquet(
    frame: pl.DataFrame, stream: IO[bytes], recipe: Recipe, metadata: Mapping[str, str]
) -> None:
    frame.write_parquet(
        stream,
        compression=recipe.options.get("compression", "zstd"),
        compression_level=recipe.options.get("level"),
        row_group_size=recipe.options.get("rows_per_group"),
        metadata=dict(metadata),
    )


def _schema_of(frame: pl.DataFrame) -> str:
    """Return the Arrow schema that Polars writes for a frame."""
    empty = io.BytesIO()
    frame.clear().write_parquet(empty)
    empty.seek(0)
    return pl.read_parquet_metadata(empty)[arrow_schema.KEY]


def _read_table(path: Path, component: str | None, parameters: Parameters) -> Any:
    found = _read_frame(path, component, parameters)
    if component is not None:
        return found
    table = Table(masked=False)
    for column in found:
        table[column.name] = _astropy_column(column)
    told = _astropy_header(pl.read_parquet_metadata(path))
    for column in told.get("datatype", ()):
        if column["name"] in table.colnames:
            for attribute in ("description", "format", "unit", "meta"):
                if attribute in column:
                    setattr(table[column["name"]], attribute, column[attribute])
    table.meta.update(without_keys(told.get("meta", {})))
    return table


def _astropy_column(column: pl.Series) -> Any:
    if not column.null_count() or column.dtype.is_float():
        return column.to_numpy()
    # A null needs some value under its mask; the type's own zero does.
    filled = column.fill_null(strategy="zero") if column.dtype.is_numeric() else column
    return MaskedColumn(filled.to_numpy(), mask=column.is_null().to_numpy())


def _write_table(obj: Any, stream: IO[bytes], recipe: Recipe) -> str | None:
    if not isinstance(obj, Table):
        raise not_a(obj, "a table (astropy.table.Table)")
    frame = pl.DataFrame({name: _parquet_column(obj[name]) for name in obj.colnames})
    keys, bare = (_astropy_text(with_keys(obj, told)) for told in (recipe.provenance, None))
    return _write(frame, stream, recipe, {_ASTROPY: keys}, {_ASTROPY: bare})


def _astropy_text(table: Any) -> str:
    return "\n".join(get_yaml_from_table(table))


def _parquet_column(column: Any) -> pl.Series:
    values = np.ascontiguousarray(np.asarray(column))
    values = values.astype(values.dtype.newbyteorder("="), copy=False)
    series = pl.Series(values=values.astype(str) if values.dtype.kind == "S" else values)
    mask = np.ma.getmaskarray(column) if np.ma.isMaskedArray(column) else None
    if mask is None or not mask.any():
        return series
    return pl.DataFrame({"v": series, "m": mask}).select(pl.when(~pl.col("m")).then(pl.col("v"))).to_series()


def _astropy_header(metadata: Mapping[str, str]) -> dict[str, Any]:
    """Return what Astropy keeps beside a table: ``datatype`` (of its columns) and ``meta``."""
    written = metadata.get(_ASTROPY)
    found: dict[str, Any] = get_header_from_yaml(written.split("\n")) if written else {}
    return found


def _header(path: Path) -> Mapping[str, Any]:
    """Return the metadata of the file, and what Astropy keeps in it."""
    metadata = pl.read_parquet_metadata(path)
    return {**metadata, **_astropy_header(metadata).get("meta", {})}


_READS: dict[str, Any] = {
    "components": ("columns", "rowcount"),
    "parameters": ("rows", "columns"),
    "header": _header,
}
FRAME = Format(_read_frame, _write_frame, **_READS)
TABLE = Format(_read_table, _write_table, **_READS)
