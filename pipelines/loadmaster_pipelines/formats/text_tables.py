"""Tables in text files that people read: ECSV and VOTable, as `astropy.table.Table`. They are read whole."""

import io
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import IO, Any

from astropy.table import Table

from . import Format, Parameters, Recipe, not_a
from .parts import columns_of, rows_of
from .table_meta import with_keys, without_keys


def _read(path: Path, component: str | None, parameters: Parameters, *, kind: str) -> Any:
    table = Table.read(path, format=kind)
    table.meta = without_keys(table.meta)
    part = table[columns_of(parameters, table.colnames, path)]
    return part[rows_of(parameters, len(table), path)] if "rows" in parameters else part


def _write(obj: Any, stream: IO[bytes], recipe: Recipe, *, kind: str) -> None:
    if not isinstance(obj, Table):
        raise not_a(obj, "a table (astropy.table.Table)")
    if kind == "votable":
        obj.write(stream, format=kind)
        return
    text = io.StringIO()
    with_keys(obj, recipe.provenance).write(text, format=kind)
    stream.write(text.getvalue().encode())


def _header(path: Path) -> Mapping[str, Any]:
    meta: Mapping[str, Any] = Table.read(path, format="ascii.ecsv").meta
    return meta


def _format(kind: str, **more: Any) -> Format:
    return Format(partial(_read, kind=kind), partial(_write, kind=kind), (), ("rows", "columns"), **more)


ECSV = _format("ascii.ecsv", header=_header)
VOTABLE = _format("votable")
