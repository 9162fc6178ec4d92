"""Which calibration is valid when: for all searches of a task at once, without a row for each range that might be.

Times become places among the sorted begins and ends of all ranges, so that exposures between the same two of them
are one; a search then is two binary searches in each collection. Cost: n log m.
"""

from dataclasses import dataclass

import numpy as np
import polars as pl
from loadmaster_registry.snapshot import Snapshot

from .lookups import DATASET, Integers, QuantumCodes


@dataclass(frozen=True)
class Times:
    """The times of quanta, told apart only as far as some range begins or ends between them."""

    of_quantum: Integers  # number of its time, shape (n_quanta,)
    first_end: Integers  # shape (n_times,): how many bounds are not after its begin
    last_begin: (
        Integers  # how many bounds are before its end; 0 where there is no time: nothing is valid then
    )
    bounds: Integers  # begins and ends of all ranges, sorted


def quantum_times(registry: Snapshot, codes: QuantumCodes, ranges: pl.DataFrame) -> Times:
    """Number the times of quanta; a task without a temporal dimension is about all times."""
    bounds = np.unique(np.concatenate([ranges["begin"].to_numpy(), ranges["end"].to_numpy()]))
    element = registry.universe.timespan_of(codes.group)
    if element is None:
        everything = np.array([0]), np.array([bounds.size])
        return Times(np.zeros(codes.count, dtype=np.int64), *everything, bounds)
    keys = registry.universe[element].required
    columns = ["timespan_begin", "timespan_end"]
    records = registry.records(element, columns=columns).select(*keys, *columns).drop_nulls()
    coded, place = codes.rows_in(records, keys)
    return times_between(bounds, coded["timespan_begin"].to_numpy(), coded["timespan_end"].to_numpy(), place)


def times_between(bounds: Integers, begin: Integers, end: Integers, place: Integers) -> Times:
    """Number the time spans `begin` to `end` by the bounds that they lie between.

    Parameters
    ----------
    place : ndarray of int64, shape (n_quanta,)
        Which of the spans is that of each quantum; −1 for those without a time.
    """
    first_end = np.searchsorted(bounds, begin, side="right")
    last_begin = np.searchsorted(bounds, end, side="left")
    # One more, for quanta without a time.
    packed = np.append(first_end * (bounds.size + 1) + last_begin, 0)
    kinds, number = np.unique(packed, return_inverse=True)
    return Times(number[place], *np.divmod(kinds, bounds.size + 1), bounds)


def valid_rows(
    ranges: pl.DataFrame, times: Times, data_id: Integers, time: Integers
) -> tuple[Integers, Integers]:
    """Find for pairs of data ID and time the range that is valid, in the first collection that has any.

    Within one collection the ranges of a data ID are apart (`certify` sees to that), so those that overlap a time
    stand side by side.

    Parameters
    ----------
    ranges : DataFrame
        `DATASET` (the number of its data ID), ``dataset``, ``rank``, ``begin``, ``end``.

    Returns
    -------
    row : ndarray of int64
        In `ranges`; −1 for pairs that nothing is valid for.
    several : ndarray of int64
        The pairs that more than one dataset of that collection is valid for.
    """
    row = np.full(data_id.size, -1, dtype=np.int64)
    several = [np.empty(0, np.int64)]
    step = times.bounds.size + 1
    left = np.arange(data_id.size)
    for _, part in sorted(ranges.with_row_index("row").partition_by("rank", as_dict=True).items(), key=_rank):
        part = part.sort(DATASET, "begin")
        base = part[DATASET].to_numpy().astype(np.int64) * step
        begins = base + np.searchsorted(times.bounds, part["begin"].to_numpy())
        ends = base + np.searchsorted(times.bounds, part["end"].to_numpy())
        wanted = data_id[left] * step
        low = np.searchsorted(ends, wanted + times.first_end[time[left]])
        high = np.searchsorted(begins, wanted + times.last_begin[time[left]])
        found = high > low
        row[left[found]] = part["row"].to_numpy()[low[found]]
        another = np.concatenate([[0], np.cumsum(np.diff(part["dataset"].to_numpy()) != 0)])
        several.append(left[found][another[high[found] - 1] != another[low[found]]])
        left = left[~found]
    return row, np.concatenate(several)


def _rank(item: tuple[tuple[object, ...], pl.DataFrame]) -> int:
    return int(str(item[0][0]))
