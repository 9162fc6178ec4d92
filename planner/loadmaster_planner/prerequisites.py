"""Look up what exists before a run: calibrations by time, reference data by sky pixel, the rest by data ID.

Set-based: all quanta of a task at once. Cost: linear in the quanta, in the registered datasets of the type, and in
the pairs of time spans and distinct validity ranges that overlap.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from loadmaster_pipelines.connections import Connection
from loadmaster_pipelines.pipeline import TaskNode
from loadmaster_registry.errors import NotFound, PlanError
from loadmaster_registry.joins import Axes
from loadmaster_registry.records import DatasetType
from loadmaster_registry.sky import envelope_pixels
from loadmaster_registry.snapshot import Snapshot
from loadmaster_registry.timespan import MAX_NS, MIN_NS, Timespan
from loadmaster_registry.universe import DimensionGroup
from numpy.typing import NDArray

from .build import refuse_several
from .graph import Edges, Quanta, counts, quantum_data_id

_QUANTUM = "\x00quantum"
_SPAN = "\x00span"


@dataclass(frozen=True)
class Prerequisites:
    """What one connection found: for each edge the quantum, and the registry's row id and data ID of the dataset."""

    dataset_type: str
    edges: pl.DataFrame  # "quantum" UInt32, the required dimensions of the type, "dataset" Int64


def find_prerequisites(
    registry: Snapshot,
    task: TaskNode,
    connection: Connection,
    quanta: Quanta,
    axes: Axes,
    collections: Sequence[str],
) -> Prerequisites:
    """Search `collections` for the datasets that each quantum needs by one prerequisite connection.

    Raises
    ------
    PlanError
        If a quantum has fewer datasets than the connection's minimum, more than one where it takes one, or if
        several calibrations of one collection are valid at its time.
    """
    try:
        dataset_type = registry.dataset_type(connection.dataset_type)
    except NotFound as error:
        if connection.minimum and quanta.count:
            raise _missing(
                task, connection, quanta, axes, np.ones(quanta.count, dtype=bool), str(error.args[0])
            ) from None
        return Prerequisites(
            connection.dataset_type, pl.DataFrame(schema={"quantum": pl.UInt32, "dataset": pl.Int64})
        )
    ids = _data_ids(registry, quanta, axes)
    if _is_skypix(registry, dataset_type):
        ids = _with_pixels(registry, quanta, ids, dataset_type)
    shared = [d for d in dataset_type.dimensions.required if d in ids.columns]
    if connection.calibration:
        edges = _by_validity(registry, task, dataset_type, quanta, ids, shared, collections)
    else:
        found = registry.datasets(dataset_type.name, collections).drop("rank")
        edges = _joined(ids.select(_QUANTUM, *shared), found, shared)
    edges = edges.rename({_QUANTUM: "quantum"}).select(
        "quantum", *dataset_type.dimensions.required, "dataset"
    )
    edges = edges.unique(subset=["quantum", "dataset"]).sort("quantum", *dataset_type.dimensions.required)
    _check_counts(task, connection, quanta, axes, edges, collections)
    return Prerequisites(connection.dataset_type, edges)


def _is_skypix(registry: Snapshot, dataset_type: DatasetType) -> bool:
    return any(registry.universe[d].is_skypix for d in dataset_type.dimensions.required)


def _data_ids(registry: Snapshot, quanta: Quanta, axes: Axes) -> pl.DataFrame:
    """Return the data ID of each quantum, completed with what its records imply."""
    codes = quanta.codes if quanta.codes.width else pl.DataFrame({"": np.zeros(quanta.count)})
    ids = axes.decode(codes, quanta.dimensions) if quanta.dimensions else pl.DataFrame()
    numbers = pl.Series(_QUANTUM, np.arange(quanta.count, dtype=np.uint32))
    ids = pl.DataFrame([numbers, *ids.get_columns()])
    group = registry.universe.group(quanta.dimensions)
    return with_implied(registry, ids, group)


def with_implied(registry: Snapshot, ids: pl.DataFrame, group: DimensionGroup) -> pl.DataFrame:
    """Add to data IDs the dimensions that their records imply."""
    for element in reversed([registry.universe[d] for d in registry.universe.ordered(group.names)]):
        new = [d for d in element.implied if d not in ids.columns]
        if new and set(element.required) <= set(ids.columns):
            keys = list(element.required)
            ids = ids.join(
                registry.records(element.name).select(*keys, *new), on=keys, how="left", maintain_order="left"
            )
    return ids


def _with_pixels(
    registry: Snapshot, quanta: Quanta, ids: pl.DataFrame, dataset_type: DatasetType
) -> pl.DataFrame:
    """Repeat each quantum for every sky pixel that the envelope of its region touches."""
    universe = registry.universe
    pixels = [d for d in dataset_type.dimensions.required if universe[d].is_skypix and d not in ids.columns]
    element = universe.region_of(universe.group(quanta.dimensions))
    if not pixels or element is None:
        return ids
    keys = list(universe[element].required)
    regions = (
        registry.records(element).select(*keys, "region").drop_nulls("region").join(ids, on=keys, how="semi")
    )
    row, pixel = envelope_pixels(regions["region"], pixels[0])
    touched = regions.select(keys)[row].with_columns(pl.Series(pixels[0], pixel).cast(pl.Int64))
    return ids.join(touched, on=keys, how="inner")


def _joined(ids: pl.DataFrame, found: pl.DataFrame, shared: Sequence[str]) -> pl.DataFrame:
    return ids.join(found, on=list(shared), how="inner") if shared else ids.join(found, how="cross")


def _by_validity(
    registry: Snapshot,
    task: TaskNode,
    dataset_type: DatasetType,
    quanta: Quanta,
    ids: pl.DataFrame,
    shared: Sequence[str],
    collections: Sequence[str],
) -> pl.DataFrame:
    """Find what is valid at each quantum's time: in the first collection that has anything, and there just one."""
    ranges = registry.calibrations(dataset_type.name, collections)
    spans = ranges.select("rank", "begin", "end").unique().sort("rank", "begin", "end").with_row_index(_SPAN)
    ranges = ranges.join(spans, on=["rank", "begin", "end"])
    timed = _overlapping_spans(registry, quanta, ids, spans)
    found = timed.join(ranges.drop("rank", "begin", "end"), on=[*shared, _SPAN], how="inner")
    found = found.join(spans, on=_SPAN)
    one = [_QUANTUM, *dataset_type.dimensions.required]
    found = found.filter(pl.col("rank") == pl.col("rank").min().over(one))
    found = found.unique(subset=[*one, "dataset", "begin", "end"])
    rivals = found.filter(pl.col("dataset").n_unique().over(one) > 1)
    if rivals.height:
        raise _ambiguous(registry, task, dataset_type, rivals.sort(*one, "begin"), one, collections)
    return found


def _overlapping_spans(
    registry: Snapshot, quanta: Quanta, ids: pl.DataFrame, spans: pl.DataFrame
) -> pl.DataFrame:
    """Pair each quantum with the distinct validity ranges that overlap its time span."""
    universe = registry.universe
    element = universe.timespan_of(universe.group(quanta.dimensions))
    if element is None:
        return ids.join(spans.select(_SPAN), how="cross")
    keys = list(universe[element].required)
    times = (
        registry.records(element)
        .select(*keys, "timespan_begin", "timespan_end")
        .join(ids, on=keys, how="semi")
    )
    pairs = times.join(spans.select(_SPAN, "begin", "end"), how="cross").filter(
        (pl.col("timespan_begin") < pl.col("end")) & (pl.col("begin") < pl.col("timespan_end"))
    )
    return ids.join(pairs.select(*keys, _SPAN), on=keys, how="inner")


def _ambiguous(
    registry: Snapshot,
    task: TaskNode,
    dataset_type: DatasetType,
    rivals: pl.DataFrame,
    one: Sequence[str],
    collections: Sequence[str],
) -> PlanError:
    first = rivals.join(rivals.head(1).select(one), on=list(one), how="semi")
    searched = registry.flatten(collections)
    ranges = "; ".join(
        f"{Timespan(max(b, MIN_NS), min(e, MAX_NS))} in {run}"
        for b, e, run in zip(
            first["begin"], first["end"], registry.files(first["dataset"])["run"], strict=True
        )
    )
    data_id = {d: first[d][0] for d in one[1:]}
    return PlanError(
        what=f"several {dataset_type.name!r} are valid at once for task {task.label}",
        where=f"collection {searched[first['rank'][0]].name}, {data_id}",
        why=f"their ranges overlap the time of the quantum: {ranges}",
        todo="decertify one of them, or search a collection that holds only one",
    )


def _check_counts(
    task: TaskNode,
    connection: Connection,
    quanta: Quanta,
    axes: Axes,
    edges: pl.DataFrame,
    collections: Sequence[str],
) -> None:
    pairs = Edges(edges["quantum"].to_numpy(), np.zeros(edges.height, np.uint32))
    n = counts(pairs, quanta.count)
    if (short := n < connection.minimum).any():
        raise _missing(task, connection, quanta, axes, short, f"nothing in {', '.join(collections)} matches")
    if not connection.multiple:
        refuse_several(task, connection, quanta, axes, n > 1)


def _missing(
    task: TaskNode, connection: Connection, quanta: Quanta, axes: Axes, short: NDArray[np.bool_], why: str
) -> PlanError:
    examples = [quantum_data_id(quanta, axes, int(row)) for row in np.flatnonzero(short)[:3]]
    return PlanError(
        what=f"{int(short.sum())} quanta of {task.label} lack the prerequisite {connection.dataset_type!r}",
        where=f"connection {connection.name}; for instance {'; '.join(map(str, examples))}",
        why=why,
        todo="add the collection that holds it to the inputs, leave these data IDs out by `where`, or make the input "
        "optional with `minimum: 0`",
    )
