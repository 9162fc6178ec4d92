"""Earlier quanta: what the registry records of those that made the outputs which a plan would make."""

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl
from loadmaster_pipelines.pipeline import TaskNode
from loadmaster_registry.errors import NotFound
from loadmaster_registry.frames import replaced
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
    registry: Snapshot, task: TaskNode, part: Part, collections: Sequence[str], digests: Mapping[str, str]
) -> pl.DataFrame:
    """Find the quanta of `task`, with these digests, that made in `collections` what those of `part` would make.

    A quantum counts for one with the same data ID only. Cost: linear in the datasets that the collections hold of
    the task's output types.

    Returns
    -------
    outputs : DataFrame
        A row an output: ``row`` (of the planned quantum), ``connection``, ``place`` (row in the table of datasets),
        ``dataset``, ``rank``, and of the earlier quantum ``quantum``, ``status``, ``inputs_key``.
    """
    quanta = part.quanta[task.label]
    is_fine = any(
        set(quanta.dimensions) <= set(part.datasets[c.dataset_type].dimensions) for c in task.outputs
    )
    columns = ["inputs_key"] if is_fine else ["inputs_key", "data_id"]
    found = [pl.DataFrame(schema=_OUTPUT)]
    for c in task.outputs if quanta.count else ():
        datasets = held(registry, c.dataset_type, collections, find_first=False)
        if datasets is None or not datasets.height:
            continue
        coded = part.axes.encode(datasets)
        place = positions(coded, part.datasets[c.dataset_type].codes, part.axes)
        there = coded.select("dataset", "rank").with_columns(pl.Series("place", place)).filter(place >= 0)
        edges = quanta.outputs[c.name]
        rows = pl.DataFrame({"row": edges.quantum, "place": edges.dataset.astype(np.int64)})
        makers = registry.makers(there["dataset"], task.label, digests, columns)
        made = there.join(rows, on="place").join(makers, on="dataset")
        if not is_fine:  # the outputs do not tell the data ID
            ids = quantum_rows(registry.universe, quanta, part.axes, made["data_id"])
            made = made.filter(pl.Series(ids) == made["row"])
        found.append(made.with_columns(connection=pl.lit(c.name)).select(list(_OUTPUT)))
    return pl.concat(found)


_OUTPUT = {
    "row": pl.UInt32,
    "connection": pl.String,
    "place": pl.Int64,
    "dataset": pl.Int64,
    "rank": pl.Int32,
    "quantum": pl.Binary,
    "status": pl.String,
    "inputs_key": pl.Binary,
}


def earlier_idle(
    registry: Snapshot, task: TaskNode, part: Part, collections: Sequence[str], digests: Mapping[str, str]
) -> pl.DataFrame:
    """Find the quanta of `task` in the runs among `collections` that had no work; columns as `earlier_outputs`."""
    quanta = part.quanta[task.label]
    idle = registry.idle_quanta(task.label, collections, digests, ["inputs_key"])
    place = quantum_rows(registry.universe, quanta, part.axes, idle["data_id"])
    ranks = {c.name: rank for rank, c in enumerate(registry.flatten(collections))}
    found = idle.with_columns(
        pl.Series("row", place),
        pl.lit(None, pl.String).alias("connection"),
        pl.lit(-1, pl.Int64).alias("place"),
        pl.lit(-1, pl.Int64).alias("dataset"),
        replaced("run", ranks, pl.Int32).alias("rank"),
    ).filter(place >= 0)
    return found.with_columns(pl.col("row").cast(pl.UInt32)).select(list(_OUTPUT))


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
