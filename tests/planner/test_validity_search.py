"""The search for valid calibrations against a slow and obvious one: each range looked at, one by one."""

from collections.abc import Mapping
from itertools import pairwise

import numpy as np
import polars as pl
from hypothesis import given
from hypothesis import strategies as st
from loadmaster_planner.lookups import DATASET
from loadmaster_planner.validity_search import times_between, valid_rows

Ranges = list[tuple[int, int, int, int, int]]  # data ID, rank, dataset, begin, end


@st.composite
def apart(draw: st.DrawFn) -> Ranges:
    """Draw ranges that are apart within each data ID and collection, but may touch."""
    found: Ranges = []
    for rank in range(draw(st.integers(0, 3))):
        for data_id in range(3):
            bounds = sorted(draw(st.sets(st.integers(0, 12), max_size=6)))
            for begin, end in pairwise(bounds):
                if draw(st.booleans()):
                    found.append((data_id, rank, draw(st.integers(0, 4)), begin, end))
    return draw(st.permutations(found))


SPANS = st.tuples(st.integers(-1, 12), st.integers(1, 5)).map(lambda span: (span[0], span[0] + span[1]))


def one_by_one(ranges: Ranges, data_id: int, span: tuple[int, int] | None) -> set[int]:
    """Return the datasets that the first collection with any range over the time has."""
    by_rank: Mapping[int, set[int]] = {}
    for owner, rank, dataset, begin, end in ranges:
        if span is not None and owner == data_id and begin < span[1] and span[0] < end:
            by_rank = {**by_rank, rank: by_rank.get(rank, set()) | {dataset}}
    return by_rank[min(by_rank)] if by_rank else set()


@given(
    apart(),
    st.lists(SPANS, max_size=5),
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 5)), max_size=12),
)
def test_what_is_valid_is_what_looking_at_each_range_gives(
    ranges: Ranges, spans: list[tuple[int, int]], asked: list[tuple[int, int]]
) -> None:
    columns = list(zip(*ranges, strict=True)) if ranges else [()] * 5
    names = (DATASET, "rank", "dataset", "begin", "end")
    frame = pl.DataFrame(dict(zip(names, columns, strict=True)), schema=dict.fromkeys(names, pl.Int64))
    bounds = np.unique(np.concatenate([frame["begin"].to_numpy(), frame["end"].to_numpy()]))
    begin, end = (np.array([span[i] for span in spans], dtype=np.int64) for i in (0, 1))
    place = np.array([i if i < len(spans) else -1 for _, i in asked], dtype=np.int64)  # some have no time
    times = times_between(bounds, begin, end, place)
    data_id = np.array([owner for owner, _ in asked], dtype=np.int64)
    row, several = valid_rows(frame, times, data_id, times.of_quantum)
    for i, (owner, _) in enumerate(asked):
        wanted = one_by_one(ranges, owner, spans[place[i]] if place[i] >= 0 else None)
        assert (i in several) == (len(wanted) > 1)
        assert ({ranges[row[i]][2]} if row[i] >= 0 else set()) <= wanted
        assert (row[i] >= 0) == bool(wanted)
