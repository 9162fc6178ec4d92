"""Earlier quanta: what the registry records of those that made the outputs which a plan would make."""

from collections.abc import Sequence

import numpy as np
import polars as pl
from loadmaster_pipelines.pipeline import TaskNode
from loadmaster_registry.errors import NotFound
from loadmaster_registry.joins import Axes
from loadmaster_registry.schema import key_column
from loadmaster_registry.snapshot import Snapshot
from loadmaster_registry.universe import Universe
from numpy.typing import NDArray

from .graph import Part, Quanta, positions

WELL_ENDED = ("succeeded", "no_work")


def held(
    registry: Snapshot, dataset_type: str, collections: Sequence[str], *, find_first: bool = True
) -> pl.DataFrame | None:
    """Return the datasets of a type in some collections; None where nobody ever registered the type."""
    try:
        return registry.datasets(dataset_type, collections, find_first=find_first)
    except NotFound:
        registry.flatten(collections)  # a collection that does not exist is an error of its own
        return None


def rows_held(
    registry: Snapshot, dataset_type: str, collections: Sequence[str], part: Part
) -> NDArray[np.int64]:
    """Return for each row of a table of datasets the registry's row id of the first found; −1 where there is none."""
    table = part.datasets[dataset_type]
    rows = np.full(table.count, -1, dtype=np.int64)
    found = held(registry, dataset_type, collections)
    if found is not None and table.count:
        coded = part.axes.encode(found)
        place = positions(coded, table.codes, part.axes)
        rows[place[place >= 0]] = coded["dataset"].to_numpy()[place >= 0]
    return rows


def earlier_outputs(
    registry: Snapshot, task: TaskNode, part: Part, collections: Sequence[str], *, find_first: bool
) -> pl.DataFrame:
    """Find the quanta of `task` that made in `collections` what the quanta of `part` would make.

    A quantum counts for one with the same data ID only. Cost: linear in the datasets that the collections hold of
    the task's output types.

    Returns
    -------
    outputs : DataFrame
        A row an output: ``row`` (of the planned quantum), ``connection``, ``place`` (row in the table of datasets),
        ``dataset``, ``rank``, and what `Snapshot.makers` says of the earlier quantum.
    """
    quanta = part.quanta[task.label]
    found = []
    for c in task.outputs if quanta.count else ():
        datasets = held(registry, c.dataset_type, collections, find_first=find_first)
        if datasets is None or not datasets.height:
            continue
        coded = part.axes.encode(datasets)
        place = positions(coded, part.datasets[c.dataset_type].codes, part.axes)
        there = coded.select("dataset", "rank").with_columns(pl.Series("place", place)).filter(place >= 0)
        edges = quanta.outputs[c.name]
        rows = pl.DataFrame({"row": edges.quantum, "place": edges.dataset.astype(np.int64)})
        made = there.join(rows, on="place").join(registry.makers(there["dataset"], task.label), on="dataset")
        found.append(made.with_columns(connection=pl.lit(c.name)))
    if not found:
        return pl.DataFrame(schema=_NOTHING)
    whole = pl.concat(found).select(list(_NOTHING))
    if any(set(quanta.dimensions) <= set(part.datasets[c.dataset_type].dimensions) for c in task.outputs):
        return whole
    ids = quantum_rows(registry.universe, quanta, part.axes, whole["data_id"])
    return whole.filter(pl.Series(ids) == whole["row"])


_NOTHING = {
    "row": pl.UInt32,
    "connection": pl.String,
    "place": pl.Int64,
    "dataset": pl.Int64,
    "rank": pl.Int32,
    "quantum": pl.Binary,
    "run": pl.String,
    "status": pl.String,
    "data_id": pl.String,
    "code_digest": pl.String,
    "config_digest": pl.String,
    "environment_digest": pl.String,
}


def earlier_idle(registry: Snapshot, task: TaskNode, part: Part, collections: Sequence[str]) -> pl.DataFrame:
    """Find the quanta of `task` in the runs among `collections` that had no work; columns as `earlier_outputs`."""
    quanta = part.quanta[task.label]
    idle = registry.idle_quanta(task.label, collections)
    place = quantum_rows(registry.universe, quanta, part.axes, idle["data_id"])
    ranks = {c.name: rank for rank, c in enumerate(registry.flatten(collections))}
    found = idle.with_columns(
        pl.Series("row", place),
        pl.lit(None, pl.String).alias("connection"),
        pl.lit(-1, pl.Int64).alias("place"),
        pl.lit(-1, pl.Int64).alias("dataset"),
        pl.col("run").replace_strict(ranks, return_dtype=pl.Int32).alias("rank"),
    ).filter(place >= 0)
    return found.with_columns(pl.col("row").cast(pl.UInt32)).select(list(_NOTHING))


def quantum_rows(universe: Universe, quanta: Quanta, axes: Axes, data_ids: pl.Series) -> NDArray[np.int64]:
    """Return where in a table of quanta each data ID (JSON text) stands; −1 where it does not."""
    types = {"int": pl.Int64, "str": pl.String}
    fields = {d: types[key_column(universe, d).type] for d in quanta.dimensions}
    if not fields or not data_ids.len():
        return np.zeros(data_ids.len(), dtype=np.int64) if quanta.count else np.full(data_ids.len(), -1)
    ids = data_ids.str.json_decode(pl.Struct(fields)).struct.unnest().with_row_index("\x00given")
    coded = axes.encode(ids)
    rows = np.full(data_ids.len(), -1, dtype=np.int64)
    rows[coded["\x00given"].to_numpy()] = positions(coded, quanta.codes, axes)
    return rows
