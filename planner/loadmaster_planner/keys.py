"""What tells quanta of several tasks apart: the values of some dimensions, on axes that the tasks have in common."""

from collections.abc import Sequence

import numpy as np
import polars as pl
from loadmaster_registry.joins import CODE, Axes
from numpy.typing import NDArray

from .graph import Quanta, positions

Pairs = Sequence[tuple[str, str]]


def key_source(dimension: str, equal: Pairs, quanta: Quanta) -> str:
    """Return the dimension of a task that gives the value: the same, or one that counts as equal; "" for none."""
    if dimension in quanta.names:
        return dimension
    pairs = [*equal, *((b, a) for a, b in equal)]
    return next((b for a, b in pairs if a == dimension and b in quanta.names), "")


def quantum_keys(
    axes: Axes, dimensions: Sequence[str], equal: Pairs, quanta: Sequence[Quanta]
) -> tuple[pl.DataFrame, Axes]:
    """Return the codes of some dimensions, a row a quantum, one task after another, and the axes that they are on.

    Parameters
    ----------
    equal : sequence of pairs of str
        Dimensions of which the value of one stands for the other where that is absent.
    quanta : sequence of Quanta
        Each with a value of every dimension (`key_source`).
    """
    columns, common_axes = [], {}
    for d in dimensions:
        sources = [key_source(d, equal, q) for q in quanta]
        values = [axes.values[s] for s in dict.fromkeys(sources)]
        if len({v.dtype for v in values}) > 1:
            values = [v.cast(pl.String) for v in values]
        common = pl.concat(values).unique().sort() if len(values) > 1 else values[0]
        places = dict(zip(dict.fromkeys(sources), (_place_on(common, v) for v in values), strict=True))
        pieces = [
            places[s][q.codes[s].to_numpy()] if s in q.codes.columns else np.repeat(places[s][:1], q.count)
            for s, q in zip(sources, quanta, strict=True)
        ]
        columns.append(pl.Series(d, np.concatenate(pieces), dtype=CODE))
        common_axes[d] = common
    return pl.DataFrame(columns), Axes(common_axes)


def numbered(frame: pl.DataFrame, axes: Axes) -> tuple[NDArray[np.int64], pl.DataFrame]:
    """Return for each row the place of its values among the distinct ones, sorted, and these."""
    distinct = frame.unique().sort(frame.columns)
    return positions(frame, distinct, axes), distinct


def _place_on(common: pl.Series, values: pl.Series) -> NDArray[np.uint32]:
    return np.searchsorted(common.to_numpy(), values.to_numpy()).astype(np.uint32)
