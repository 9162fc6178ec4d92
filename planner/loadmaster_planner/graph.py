"""The quantum graph as columns: a table of quanta a task, of datasets a type, of edges a connection.

Rows are referred to by their position. Nothing here is an object a quantum.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod

import numpy as np
import polars as pl
from loadmaster_pipelines.connections import Connection
from loadmaster_pipelines.pipeline import TaskNode
from loadmaster_registry.errors import PlanError
from loadmaster_registry.joins import Axes, pieces
from numpy.typing import NDArray

Positions = NDArray[np.uint32]


@dataclass(frozen=True)
class Edges:
    """Which quanta use (or make) which datasets by one connection; sorted by quantum, then dataset."""

    quantum: Positions  # shape (n_edges,)
    dataset: Positions  # shape (n_edges,)

    def __len__(self) -> int:
        return len(self.quantum)

    def where(self, kept: NDArray[np.bool_]) -> "Edges":
        """Return the edges for which `kept`, shape (n_edges,), is true."""
        return Edges(self.quantum[kept], self.dataset[kept])


@dataclass(frozen=True)
class Quanta:
    """All quanta of one task, sorted by data ID, with their edges by connection."""

    label: str
    dimensions: tuple[str, ...]  # required ones, in the universe's order
    codes: pl.DataFrame  # UInt32, a column for each of `dimensions` that varies
    count: int
    types: Mapping[str, str]  # connection → dataset type
    inputs: Mapping[str, Edges]
    outputs: Mapping[str, Edges]
    implied: tuple[str, ...] = ()  # dimensions of `codes` that follow from the required ones

    @property
    def names(self) -> tuple[str, ...]:
        """Required, then implied dimensions."""
        return self.dimensions + self.implied


@dataclass(frozen=True)
class Datasets:
    """All datasets of one type that the graph touches, sorted by data ID."""

    name: str
    dimensions: tuple[str, ...]  # required ones, in the universe's order
    codes: pl.DataFrame
    count: int
    existing: NDArray[np.int64]  # the registry's row id of each; −1 for those that quanta will make
    implied: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Required, then implied dimensions."""
        return self.dimensions + self.implied


@dataclass(frozen=True)
class Dropped:
    """Quanta that cannot run, and the input whose absence says so."""

    task: str
    connection: str
    dataset_type: str
    count: int
    minimum: int
    example: Mapping[str, int | str]

    def __str__(self) -> str:
        return (
            f"{self.count} quanta of {self.task}: fewer than {self.minimum} {self.dataset_type!r} "
            f"({self.connection}), for instance {dict(self.example)}"
        )


@dataclass(frozen=True)
class PartialGather:
    """Quanta that gather less than they would without the restriction."""

    task: str
    connection: str
    dataset_type: str
    quanta: int  # of the task, that lack something
    planned: int  # inputs that they have
    complete: int  # inputs that they would have
    example: Mapping[str, int | str]

    def __str__(self) -> str:
        return (
            f"{self.quanta} quanta of {self.task} get {self.planned} of {self.complete} {self.dataset_type!r} "
            f"({self.connection}), for instance {dict(self.example)}"
        )


@dataclass(frozen=True)
class Part:
    """The graph of tasks that regular inputs and outputs connect, over axes of its own."""

    axes: Axes
    quanta: Mapping[str, Quanta]
    datasets: Mapping[str, Datasets]
    dropped: Sequence[Dropped] = ()
    missing: Mapping[str, int] = field(default_factory=dict)  # task → input edges without a dataset
    why_empty: str = ""
    done: Mapping[str, int] = field(default_factory=dict)  # task → quanta that are done already
    partial: Sequence[PartialGather] = ()
    reused: Mapping[str, NDArray[np.int64]] = field(
        default_factory=dict
    )  # type → datasets that stand for outputs


def positions(rows: pl.DataFrame, table: pl.DataFrame, axes: Axes) -> NDArray[np.int64]:
    """Return for each row of codes where the table, sorted and distinct, has the same; −1 where it has not.

    Parameters
    ----------
    rows : DataFrame, shape (n, …)
        Holds at least the columns of `table`.
    table : DataFrame, shape (m, k)
        With no column it stands for the one data ID that has no varying dimension.
    """
    columns = table.columns
    if not columns:
        return np.zeros(rows.height, dtype=np.int64)
    given = rows.select(columns)
    if (known := axes.packed(table)) is None:
        numbered = table.with_row_index("\x00row")
        found = given.join(numbered, on=columns, how="left", maintain_order="left")
        return np.asarray(found["\x00row"].cast(pl.Int64).fill_null(-1))
    at = np.full(given.height, -1, dtype=np.int64)
    if not known.size:
        return at
    place = None
    space = prod(axes.size(c) for c in columns)
    if space <= 8 * (known.size + given.height) + 1024:
        place = np.full(space, -1, dtype=np.int32)
        place[known] = np.arange(known.size, dtype=np.int32)
    for part in pieces(given.height):
        keys = np.asarray(axes.packed(given[part]))
        near = np.searchsorted(known, keys).clip(max=known.size - 1) if place is None else place[keys]
        at[part] = near if place is not None else np.where(known[near] == keys, near, -1)
    return at


def counts(edges: Edges, n_quanta: int) -> NDArray[np.int64]:
    """Return how many edges each quantum has, shape (n_quanta,)."""
    return np.bincount(edges.quantum, minlength=n_quanta)


def quantum_data_id(quanta: Quanta, axes: Axes, row: int) -> dict[str, int | str]:
    """Return the required data ID of one quantum."""
    return {
        d: axes.values[d][int(quanta.codes[d][row]) if d in quanta.codes.columns else 0]
        for d in quanta.dimensions
    }


def refuse_several(
    task: TaskNode, connection: Connection, quanta: Quanta, axes: Axes, several: NDArray[np.bool_]
) -> None:
    """Raise if a quantum has more than one dataset for a connection that takes one."""
    if several.any():
        raise PlanError(
            what=f"{int(several.sum())} quanta of {task.label} have more than one {connection.dataset_type!r}",
            where=f"connection {connection.name}, for instance {quantum_data_id(quanta, axes, int(several.argmax()))}",
            why="the connection takes exactly one dataset",
            todo="declare it `multiple: true`, or make the task's dimensions finer",
        )


def keep_quanta(quanta: Quanta, alive: NDArray[np.bool_]) -> Quanta:
    """Return only the quanta that are `alive`, with their edges."""
    if alive.all():
        return quanta
    new = np.cumsum(alive, dtype=np.int64) - 1

    def kept(edges: Edges) -> Edges:
        held = edges.where(alive[edges.quantum])
        return Edges(new[held.quantum].astype(np.uint32), held.dataset)

    return replace(
        quanta,
        codes=quanta.codes.filter(pl.Series(alive)) if quanta.codes.width else quanta.codes,
        count=int(alive.sum()),
        inputs={name: kept(edges) for name, edges in quanta.inputs.items()},
        outputs={name: kept(edges) for name, edges in quanta.outputs.items()},
    )
