"""Answers as Astropy tables; apart from the rest because Astropy's tables take time to load."""

from collections.abc import Callable, Mapping
from uuid import UUID

import numpy as np
import polars as pl
from astropy.table import MaskedColumn, Table
from astropy.time import Time
from loadmaster_registry.timespan import MAX_NS, MIN_NS
from lsst.sphgeom import Region

_NS_A_DAY = 86_400_000_000_000
_EPOCH_JD = 2440587.5  # 1970-01-01 00:00:00 TAI


def astropy_table(frame: pl.DataFrame) -> Table:
    """Turn a query's answer into an Astropy table.

    Instants become `Time` on the TAI scale, sky regions `lsst.sphgeom` regions, ids text; what is null is
    masked, and so are open ends of time spans.
    """
    return Table({name: _column(name, frame[name]) for name in frame.columns})


def _column(name: str, column: pl.Series) -> object:
    if name in ("timespan_begin", "timespan_end"):
        return _times(column)
    if column.dtype == pl.Binary:
        return _objects(column, _OBJECTS.get(name, bytes))
    missing = column.is_null().to_numpy()
    filled = column.fill_null(_filling(column.dtype)).to_numpy() if missing.any() else column.to_numpy()
    values = filled.astype(str) if column.dtype == pl.String else filled
    return MaskedColumn(values, mask=missing) if missing.any() else values


def _times(column: pl.Series) -> Time:
    ns = column.fill_null(MIN_NS).to_numpy()
    unknown = (ns <= MIN_NS) | (ns >= MAX_NS)
    days, rest = np.divmod(np.where(unknown, 0, ns), _NS_A_DAY)
    times = Time(days + _EPOCH_JD, rest / _NS_A_DAY, format="jd", scale="tai")
    times.format = "isot"
    if unknown.any():
        times[unknown] = np.ma.masked
    return times


def _objects(column: pl.Series, decode: Callable[[bytes], object]) -> object:
    values = np.empty(len(column), dtype=object)
    values[:] = [None if value is None else decode(value) for value in column]
    return MaskedColumn(values, mask=column.is_null().to_numpy(), dtype=object)


_OBJECTS: Mapping[str, Callable[[bytes], object]] = {
    "id": lambda value: str(UUID(bytes=value)),
    "region": Region.decode,
}


def _filling(dtype: pl.DataType) -> object:
    if dtype == pl.String:
        return ""
    return False if dtype == pl.Boolean else 0
