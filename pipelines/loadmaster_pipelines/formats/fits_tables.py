"""Tables in FITS files, as `astropy.table.Table`."""

import io
from pathlib import Path
from typing import IO, Any

from astropy.io import fits
from astropy.table import Table

from . import Format, Parameters, Recipe, not_a, unreadable
from .fits_headers import read_header, write_told
from .parts import columns_of, rows_of
from .table_meta import with_keys


def _read(path: Path, component: str | None, parameters: Parameters) -> Any:
    # With memory mapping only the rows that are asked for are read; their columns lie side by side.
    with fits.open(path, memmap=True) as hdus:
        found = next((h for h in hdus if isinstance(h, fits.BinTableHDU | fits.TableHDU)), None)
        if found is None:
            raise unreadable(path, "the file holds no table")
        n_rows = int(found.header["NAXIS2"])
        if component == "rowcount":
            return n_rows
        if component == "columns":
            return list(found.columns.names)
        part = found
        if "rows" in parameters:
            part = type(found)(found.data[rows_of(parameters, n_rows, path)], header=found.header)
        # Without `mask_invalid` a NaN stays a NaN and an empty text a text, as they were written.
        table = Table.read(part, mask_invalid=False)
        return table[columns_of(parameters, table.colnames, path)].copy()


def _write(obj: Any, stream: IO[bytes], recipe: Recipe) -> str | None:
    if not isinstance(obj, Table):
        raise not_a(obj, "a table (astropy.table.Table)")
    written = io.BytesIO()
    with_keys(obj, None).write(written, format="fits")
    written.seek(0)
    with fits.open(written) as hdus:
        return write_told(hdus, stream, recipe)


TABLE = Format(
    _read, _write, components=("rowcount", "columns"), parameters=("rows", "columns"), header=read_header
)
