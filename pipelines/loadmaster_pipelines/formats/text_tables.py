"""Tables in text files that people read: ECSV and VOTable, as `astropy.table.Table`. They are read whole."""

import io
from collections import OrderedDict
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import IO, Any

from astropy.table import Table
from astropy.table.meta import get_yaml_from_header

from . import Format, Parameters, Recipe, not_a
from .content import digest_of
from .parts import columns_of, rows_of
from .table_meta import with_keys, without_keys

_META = "meta: !!omap"


def _read(path: Path, component: str | None, parameters: Parameters, *, kind: str) -> Any:
    table = Table.read(path, format=kind)
    table.meta = without_keys(table.meta)
    part = table[columns_of(parameters, table.colnames, path)]
    return part[rows_of(parameters, len(table), path)] if "rows" in parameters else part


def _write(obj: Any, stream: IO[bytes], recipe: Recipe, *, kind: str) -> str | None:
    if not isinstance(obj, Table):
        raise not_a(obj, "a table (astropy.table.Table)")
    if kind == "votable":
        obj.write(stream, format=kind)
        return None
    text = io.StringIO()
    with_keys(obj, None).write(text, format=kind)
    bare = text.getvalue()
    if recipe.provenance is None:
        stream.write(bare.encode())
        return None
    stream.write(_with_meta(bare, recipe.provenance.keys(".")).encode())
    return digest_of(bare.encode())


def _with_meta(text: str, keys: Mapping[str, Any]) -> str:
    """Return an ECSV file with more in its metadata, which end where its `schema` is named."""
    lines = get_yaml_from_header({"cols": (), "meta": OrderedDict(keys)})
    more = [f"# {line}\n" for line in lines[lines.index(_META) :]]
    before, schema, after = text.partition("\n# schema: ")
    if f"\n# {_META}\n" in before:
        del more[0]
    return f"{before}\n{''.join(more)}{schema.removeprefix(chr(10))}{after}"


def _header(path: Path) -> Mapping[str, Any]:
    meta: Mapping[str, Any] = Table.read(path, format="ascii.ecsv").meta
    return meta


def _format(kind: str, **more: Any) -> Format:
    return Format(partial(_read, kind=kind), partial(_write, kind=kind), (), ("rows", "columns"), **more)


ECSV = _format("ascii.ecsv", header=_header)
VOTABLE = _format("votable")
