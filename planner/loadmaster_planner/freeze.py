"""Bring the parts of a graph and its prerequisites onto common axes, in their final order, with only what is used."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from loadmaster_registry.joins import CODE, Axes, located
from loadmaster_registry.snapshot import Snapshot
from numpy.typing import NDArray

from .graph import Datasets, Edges, Part, Quanta, positions
from .prerequisites import Prerequisites

_Found = Mapping[tuple[str, str], Prerequisites]  # by task label and connection


@dataclass(frozen=True)
class QuantumGraph:
    """The whole graph over one set of axes; the codes of quanta and datasets cover implied dimensions too."""

    axes: Axes
    quanta: Mapping[str, Quanta]  # by label
    datasets: Mapping[str, Datasets]  # by name


def freeze_graph(registry: Snapshot, parts: Sequence[Part], prerequisites: _Found) -> QuantumGraph:
    """Merge `parts` and the prerequisites of their quanta.

    Datasets that no quantum uses or makes are left out, and so are axis values that nothing refers to: the same
    request gives the same graph whatever else the registry holds.
    """
    shared = _shared(parts, prerequisites)
    stored = _stored(registry, parts, prerequisites, shared)
    axes = _common_axes(registry, parts, stored, {found.dataset_type for found in prerequisites.values()})
    datasets = {name: _stored_table(registry, name, frame, axes) for name, frame in stored.items()}
    quanta = {}
    for part in parts:
        moved = {
            name: _recoded(t.codes, t.count, t.dimensions, part.axes, axes)
            for name, t in part.datasets.items()
        }
        for name, table in part.datasets.items():
            if name not in datasets:
                datasets[name] = replace(table, codes=moved[name])
        new_rows = {
            name: _new_rows(part.datasets[name], moved[name], datasets[name], axes)
            for name in part.datasets
            if name in shared
        }
        for label, own in part.quanta.items():
            quanta[label] = _merged(own, part, axes, new_rows, datasets, prerequisites)
    return _only_used(_with_implied(registry, QuantumGraph(axes, quanta, datasets)))


def _stored(
    registry: Snapshot, parts: Sequence[Part], prerequisites: _Found, shared: set[str]
) -> dict[str, pl.DataFrame]:
    """Return, by type, the tables that hold stored datasets: data ID and `dataset` (−1: to be made), sorted.

    What one source alone touches, a part, stays as it is there, and is left out.
    """
    frames: dict[str, list[pl.DataFrame]] = {}
    for part in parts:
        for name, table in part.datasets.items():
            if name in shared and (table.existing >= 0).any():
                frames.setdefault(name, []).append(_values(part.axes, table))
    for found in prerequisites.values():
        if found.datasets.height:
            frames.setdefault(found.dataset_type, []).append(found.datasets)
    return {name: _ordered(registry, pl.concat(pieces).unique()) for name, pieces in frames.items()}


def _shared(parts: Sequence[Part], prerequisites: _Found) -> set[str]:
    """Return the types that several parts touch, or a part and prerequisites."""
    touched = [name for part in parts for name in part.datasets]
    touched += {found.dataset_type for found in prerequisites.values()}
    return {name for name, n in Counter(touched).items() if n > 1}


def _ordered(registry: Snapshot, datasets: pl.DataFrame) -> pl.DataFrame:
    """Sort by data ID, those of one data ID by their collection: row ids depend on which came first."""
    data_id = [c for c in datasets.columns if c != "dataset"]
    if datasets.height == (datasets.select(data_id).n_unique() if data_id else 1):
        return datasets.sort(data_id) if data_id else datasets
    run = registry.files(datasets["dataset"])["run"].fill_null("")
    return datasets.with_columns(run.alias("\x00run")).sort(*data_id, "\x00run").drop("\x00run")


def _values(axes: Axes, table: Datasets) -> pl.DataFrame:
    codes = pl.DataFrame([*table.codes.get_columns(), pl.Series("dataset", table.existing)])
    return pl.DataFrame([*axes.decode(codes, table.dimensions).get_columns(), codes["dataset"]])


def _common_axes(
    registry: Snapshot, parts: Sequence[Part], stored: Mapping[str, pl.DataFrame], prerequisites: set[str]
) -> Axes:
    """Return axes that hold every value of every part and stored dataset, and whatever these imply."""
    values: dict[str, list[pl.Series]] = {}
    for part in parts:
        for dimension, axis in part.axes.values.items():
            values.setdefault(dimension, []).append(axis)
    for name, frame in stored.items():
        for dimension in frame.columns[:-1]:
            values.setdefault(dimension, []).append(frame[dimension])
        for dimension in registry.universe.group(frame.columns[:-1]).implied if name in prerequisites else ():
            values.setdefault(dimension, []).append(registry.records(dimension, columns=())[dimension])
    return Axes({d: pl.concat(pieces).unique().sort() for d, pieces in values.items()})


def _stored_table(registry: Snapshot, name: str, frame: pl.DataFrame, axes: Axes) -> Datasets:
    dimensions = tuple(frame.columns[:-1])
    coded = axes.encode(frame)
    return Datasets(
        name, dimensions, coded.select(axes.varying(dimensions)), frame.height, coded["dataset"].to_numpy()
    )


def _recoded(
    codes: pl.DataFrame, count: int, dimensions: Iterable[str], old: Axes, new: Axes
) -> pl.DataFrame:
    """Move codes from one set of axes to another that holds all their values."""
    varying = new.varying(dimensions)
    columns = []
    for d in varying:
        if d in codes.columns and old.size(d) == new.size(d):
            columns.append(codes[d])  # equally many values, all of them held: they are the same
            continue
        place = np.searchsorted(new.values[d].to_numpy(), old.values[d].to_numpy()).astype(np.uint32)
        moved = (
            place[codes[d].to_numpy()]
            if d in codes.columns
            else np.full(count, place[0] if place.size else 0)
        )
        columns.append(pl.Series(d, moved, dtype=CODE))
    return pl.DataFrame(columns)


def _new_rows(old: Datasets, moved: pl.DataFrame, new: Datasets, axes: Axes) -> NDArray[np.int64]:
    """Return for each dataset of a part, `moved` onto the common `axes`, its row in the merged table.

    An overall input that does not exist may have none: −1, which no edge refers to.
    """
    rows = _rows_of(old.existing, new)
    absent, made = old.existing < 0, np.flatnonzero(new.existing < 0)
    if absent.any() and made.size:
        if not new.codes.width:
            rows[absent] = made[0]
        else:
            place = positions(moved.filter(pl.Series(absent)), new.codes[made], axes)
            rows[absent] = np.where(place >= 0, made[place], -1)
    return rows


def _rows_of(existing: NDArray[np.int64], table: Datasets) -> NDArray[np.int64]:
    """Return the row of each registry id in a table of stored datasets; −1 for an id of −1."""
    return np.where(existing >= 0, located(existing, table.existing), -1)


def _merged(
    table: Quanta,
    part: Part,
    axes: Axes,
    new_rows: Mapping[str, NDArray[np.int64]],
    datasets: Mapping[str, Datasets],
    prerequisites: _Found,
) -> Quanta:
    """Return a task's quanta on common axes, its edges moved to merged tables, its prerequisites among its inputs."""

    def moved(connection: str, edges: Edges) -> Edges:
        rows = new_rows.get(table.types[connection])
        return edges if rows is None else Edges(edges.quantum, rows[edges.dataset].astype(np.uint32))

    inputs = {c: moved(c, edges) for c, edges in table.inputs.items()}
    types = dict(table.types)
    for (label, connection), found in prerequisites.items():
        if label == table.label:
            types[connection] = found.dataset_type
            inputs[connection] = _prerequisite_edges(found, datasets)
    return replace(
        table,
        codes=_recoded(table.codes, table.count, table.dimensions, part.axes, axes),
        types=types,
        inputs=inputs,
        outputs={c: moved(c, edges) for c, edges in table.outputs.items()},
    )


def _prerequisite_edges(found: Prerequisites, datasets: Mapping[str, Datasets]) -> Edges:
    if not len(found.edges):
        return found.edges
    rows = _rows_of(found.datasets["dataset"].to_numpy(), datasets[found.dataset_type])
    return Edges(
        found.edges.quantum, rows[found.edges.dataset].astype(np.uint32)
    )  # both are in order of data ID


def _with_implied(registry: Snapshot, graph: QuantumGraph) -> QuantumGraph:
    """Add to every table the codes that its records imply."""
    records: dict[str, pl.DataFrame] = {}

    def completed(table: Quanta | Datasets) -> tuple[pl.DataFrame, tuple[str, ...]]:
        group = registry.universe.group(table.dimensions)
        codes = table.codes
        if not table.count:
            return pl.DataFrame(schema=dict.fromkeys(graph.axes.varying(group.names), CODE)), group.implied
        for element, new in registry.universe.implications(table.dimensions, group):
            if element.name not in records:
                records[element.name] = _coded_records(registry, element.name, graph.axes)
            codes = _looked_up(codes, table.count, records[element.name], element.required, new, graph.axes)
        return codes, group.implied

    quanta = {k: replace(q, codes=c, implied=i) for k, q in graph.quanta.items() for c, i in (completed(q),)}
    datasets = {
        k: replace(d, codes=c, implied=i) for k, d in graph.datasets.items() for c, i in (completed(d),)
    }
    return QuantumGraph(graph.axes, quanta, datasets)


def _coded_records(registry: Snapshot, element: str, axes: Axes) -> pl.DataFrame:
    columns = registry.universe[element].required + registry.universe[element].implied
    coded = axes.encode(registry.records(element, columns=columns).select(columns))
    return coded.sort(axes.varying(registry.universe[element].required) or columns[0])


def _looked_up(
    codes: pl.DataFrame,
    count: int,
    records: pl.DataFrame,
    required: Sequence[str],
    implied: Sequence[str],
    axes: Axes,
) -> pl.DataFrame:
    keys = axes.varying(required)
    place = positions(codes, records.select(keys), axes) if keys else np.zeros(count, dtype=np.int64)
    new = [pl.Series(d, records[d].to_numpy()[place], dtype=CODE) for d in axes.varying(implied)]
    return pl.DataFrame([*codes.get_columns(), *new])


def _only_used(graph: QuantumGraph) -> QuantumGraph:
    """Leave out datasets without an edge, then axis values that nothing refers to."""
    used = {name: np.zeros(table.count, dtype=bool) for name, table in graph.datasets.items()}
    for task in graph.quanta.values():
        for connection, edges in (*task.inputs.items(), *task.outputs.items()):
            if len(edges):
                used[task.types[connection]][edges.dataset] = True
    rows = {name: (np.cumsum(mask) - 1).astype(np.uint32) for name, mask in used.items() if not mask.all()}

    def moved(quanta: Quanta, edges: Mapping[str, Edges]) -> dict[str, Edges]:
        return {
            c: Edges(e.quantum, rows[quanta.types[c]][e.dataset]) if quanta.types[c] in rows else e
            for c, e in edges.items()
        }

    datasets = {name: _rows_kept(t, used[name]) for name, t in graph.datasets.items() if used[name].any()}
    quanta = {
        q.label: replace(q, inputs=moved(q, q.inputs), outputs=moved(q, q.outputs))
        for q in graph.quanta.values()
    }
    axes = _used_axes(graph.axes, [*quanta.values(), *datasets.values()])
    return QuantumGraph(
        axes,
        {
            k: replace(q, codes=_recoded(q.codes, q.count, q.names, graph.axes, axes))
            for k, q in quanta.items()
        },
        {
            k: replace(d, codes=_recoded(d.codes, d.count, d.names, graph.axes, axes))
            for k, d in datasets.items()
        },
    )


def _rows_kept(table: Datasets, kept: NDArray[np.bool_]) -> Datasets:
    if kept.all():
        return table
    codes = table.codes.filter(pl.Series(kept)) if table.codes.width else table.codes
    return replace(table, codes=codes, count=int(kept.sum()), existing=table.existing[kept])


def _used_axes(axes: Axes, tables: Sequence[Quanta | Datasets]) -> Axes:
    """Return axes with only those values that some table uses."""
    used = {d: np.zeros(axes.size(d), dtype=bool) for d in axes.values}
    for table in tables:
        for d in table.names if table.count else ():
            if d in table.codes.columns:
                used[d][table.codes[d].to_numpy()] = True
            else:
                used[d][0] = True
    return Axes({d: axis.filter(pl.Series(used[d])) for d, axis in axes.values.items()})
