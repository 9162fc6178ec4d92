"""The search for the one dataset that is valid at some time."""

from collections.abc import Sequence
from uuid import UUID

import polars as pl

from .comparison import described
from .errors import RegistryError
from .records import DataId, DatasetRef
from .store import Registry
from .timespan import Timespan
from .validity import overlapping


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
    with registry.snapshot() as now:
        keep = {d: [data_id[d]] for d in now.dataset_type(dataset_type).dimensions.required}
        matches = overlapping(now.calibrations(dataset_type, collections, keep=keep), timespan)
        first = matches.filter(pl.col("rank") == pl.col("rank").min())
        if first.is_empty():
            return None
        files = now.files(first.get_column("dataset"))
        if first.get_column("dataset").n_unique() > 1:
            raise _ambiguous(dataset_type, data_id, timespan, first, files)
        return now.find(UUID(bytes=files.item(0, "id")))


def _ambiguous(
    dataset_type: str, data_id: DataId, timespan: Timespan, ranges: pl.DataFrame, files: pl.DataFrame
) -> RegistryError:
    rows = zip(files["id"], files["run"], ranges["begin"], ranges["end"], strict=True)
    shown = [f"{UUID(bytes=id)} from {run} in {Timespan(begin, end)}" for id, run, begin, end in rows]
    return RegistryError(
        what=f"{len(shown)} datasets {dataset_type!r} are valid at once",
        where=f"{described(data_id)} at {timespan}",
        why="; ".join(shown),
        todo="decertify all but one of them for this time",
    )
