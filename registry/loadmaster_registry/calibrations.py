"""Validity ranges: their algebra on frames, and the search for the one dataset that is valid at some time.

A range is [begin, end) in TAI ns. Within a calibration collection the ranges of one dataset type and data ID
never overlap unless they are of the same dataset; those are kept as one.
"""

from collections.abc import Sequence
from uuid import UUID

import polars as pl

from .errors import RegistryError
from .records import DataId, DatasetRef
from .store import Registry
from .timespan import Timespan


def find_calibration(
    registry: Registry, dataset_type: str, collections: Sequence[str], data_id: DataId, timespan: Timespan
) -> DatasetRef | None:
    """Return the dataset that is valid at some instant of `timespan`, or None.

    Chains are searched child by child, depth first; the first collection in which any range overlaps decides.

    Raises
    ------
    RegistryError
        If that collection has several such datasets; it shows their ranges.
    """
    group = registry.dataset_type(dataset_type).dimensions
    keep = {d: [data_id[d]] for d in group.required}
    ranges = registry.calibrations(dataset_type, collections, keep=keep)
    matches = ranges.filter(pl.col("begin") < timespan.end_ns, pl.col("end") > timespan.begin_ns)
    first = matches.filter(pl.col("rank") == pl.col("rank").min())
    if first.is_empty():
        return None
    files = registry.files(first.get_column("dataset"))
    if first.get_column("dataset").n_unique() > 1:
        shown = [
            f"{UUID(bytes=id)} from {run} valid {Timespan(begin, end)}"
            for id, run, begin, end in zip(
                files["id"], files["run"], first["begin"], first["end"], strict=True
            )
        ]
        raise RegistryError(
            what=f"{len(shown)} datasets {dataset_type!r} are valid at once",
            where=f"{dict(data_id)} at {timespan}",
            why="; ".join(shown),
            todo="decertify all but one of them for this time",
        )
    return registry.find(UUID(bytes=files["id"][0]))
