"""Validity ranges of calibrations: their algebra, on frames with `begin` and `end`. No database here.

A range is [begin, end) in TAI ns. Within a calibration collection the ranges of one dataset type and data ID
never overlap; what would overlap with another range of the same dataset is made one with it.
"""

import polars as pl

from .timespan import Timespan


def overlapping(ranges: pl.DataFrame, timespan: Timespan) -> pl.DataFrame:
    """Return the ranges that share an instant with `timespan`."""
    return ranges.filter(pl.col("begin") < timespan.end_ns, pl.col("end") > timespan.begin_ns)


def widened(new: pl.DataFrame, old: pl.DataFrame, timespan: Timespan) -> pl.DataFrame:
    """Return `new` with `begin` and `end`: `timespan`, together with the ranges of `old` of the same dataset.

    Parameters
    ----------
    new : DataFrame
        With a column ``dataset``.
    old : DataFrame
        ``dataset``, ``begin``, ``end``: ranges that overlap `timespan`.
    """
    bounds = old.group_by("dataset").agg(pl.col("begin").min(), pl.col("end").max())
    return new.join(bounds, on="dataset", how="left", maintain_order="left").with_columns(
        pl.min_horizontal(pl.col("begin"), pl.lit(timespan.begin_ns)).alias("begin"),
        pl.max_horizontal(pl.col("end"), pl.lit(timespan.end_ns)).alias("end"),
    )


def trimmed(ranges: pl.DataFrame, timespan: Timespan) -> pl.DataFrame:
    """Return what is left of `ranges` outside `timespan`: nothing, one piece or two of each."""
    before = ranges.with_columns(end=pl.min_horizontal(pl.col("end"), pl.lit(timespan.begin_ns)))
    after = ranges.with_columns(begin=pl.max_horizontal(pl.col("begin"), pl.lit(timespan.end_ns)))
    return pl.concat([before, after]).filter(pl.col("begin") < pl.col("end"))
