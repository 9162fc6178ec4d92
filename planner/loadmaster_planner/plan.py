"""The plan: an immutable quantum graph with ids, names and locations; opened lazily from one file."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import polars as pl
from loadmaster_pipelines.pipeline import Pipeline
from loadmaster_pipelines.storage import extension_of
from loadmaster_registry.errors import PlanError
from loadmaster_registry.joins import Axes
from loadmaster_registry.names import dataset_path
from loadmaster_registry.records import DatasetType
from loadmaster_registry.universe import DimensionGroup
from numpy.typing import NDArray

from .graph import Dropped, Positions
from .tables import FileTables, Tables, write_tables

FORMAT = 1  # of the plan file; a reader refuses a higher one


@dataclass(frozen=True)
class ConnectionFacts:
    """What a plan says of one connection of one task."""

    name: str
    dataset_type: str
    is_output: bool
    edges: int


@dataclass(frozen=True)
class TaskFacts:
    """What a plan says of one task."""

    label: str
    quanta: int
    dimensions: tuple[str, ...]
    implied: tuple[str, ...]
    connections: tuple[ConnectionFacts, ...]


@dataclass(frozen=True)
class TypeFacts:
    """What a plan says of one dataset type that it touches."""

    name: str
    count: int
    existing: int
    dimensions: tuple[str, ...]
    implied: tuple[str, ...]
    storage_class: str
    is_calibration: bool


@dataclass(frozen=True)
class TaskSummary:
    """One line of the plan's table."""

    label: str
    quanta: int
    inputs_found: int  # distinct existing datasets that its quanta read
    inputs_missing: int  # uses of regular inputs that neither exist nor will be made
    dropped: int  # quanta that would lack an input
    bytes_in: int  # of the existing datasets whose size is known
    outputs: int


@dataclass(frozen=True)
class PlannedDataset:
    """A dataset that exists, or that the plan will make."""

    id: UUID
    dataset_type: str
    data_id: dict[str, int | str]  # required, then implied dimensions
    run: str
    storage_class: str
    path: str  # below the backbone's root, for a dataset to be made
    url: str  # where an existing one is; empty otherwise
    size_bytes: int  # −1 where unknown
    checksum: str  # empty where unknown
    exists: bool


@dataclass(frozen=True)
class PlannedQuantum:
    """One task on one data ID, with all that it reads and makes."""

    id: UUID
    task: str
    data_id: dict[str, int | str]  # required, then implied dimensions
    inputs: dict[str, tuple[PlannedDataset, ...]]  # by connection
    outputs: dict[str, tuple[PlannedDataset, ...]]


@dataclass(frozen=True)
class PlannedJob:
    """The quanta that run together on a node."""

    index: int
    quanta: tuple[PlannedQuantum, ...]


@dataclass(frozen=True)
class PlanHeader:
    """All of a plan that is small."""

    digest: str
    created: str
    inputs: tuple[str, ...]
    output: str
    output_run: str
    where: str
    pipeline: Mapping[str, Any]
    tasks: tuple[TaskFacts, ...]
    types: tuple[TypeFacts, ...]
    summary: tuple[TaskSummary, ...]
    dropped: tuple[Dropped, ...]
    why_empty: str
    axes: Mapping[str, int]  # how many values each dimension has

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {"format": FORMAT, **asdict(self)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any], origin: str) -> "PlanHeader":
        """Read what `to_json` wrote; a newer format is refused."""
        rest = dict(values)
        if (version := rest.pop("format", 0)) > FORMAT:
            raise PlanError(
                what=f"the plan has format {version}, and this Loadmaster reads up to {FORMAT}",
                where=origin,
                why="a newer Loadmaster wrote it",
                todo="upgrade with: pip install --upgrade loadmaster",
            )
        tasks = tuple(
            TaskFacts(**{**_tuples(t), "connections": tuple(ConnectionFacts(**c) for c in t["connections"])})
            for t in rest.pop("tasks")
        )
        types = tuple(TypeFacts(**_tuples(t)) for t in rest.pop("types"))
        summary = tuple(TaskSummary(**t) for t in rest.pop("summary"))
        dropped = tuple(Dropped(**d) for d in rest.pop("dropped"))
        return cls(**_tuples(rest), tasks=tasks, types=types, summary=summary, dropped=dropped)


def _tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}


class Plan:
    """What will run, on what, and what it will make. Nothing in it changes any more.

    Opening costs the same at any size; a quantum costs the chunks of the tables that hold it.
    """

    def __init__(self, header: PlanHeader, tables: Tables) -> None:
        self.header = header
        self._tables = tables
        self._tasks = {task.label: task for task in header.tasks}
        self._types = {t.name: t for t in header.types}
        self._first_job = np.cumsum([0, *(task.quanta for task in header.tasks)])

    @classmethod
    def open(cls, path: str | Path) -> "Plan":
        """Open a plan file without reading its tables.

        Raises
        ------
        PlanError
            If there is none, it is damaged, or a newer Loadmaster wrote it.
        """
        tables = FileTables(Path(path))
        return cls(PlanHeader.from_json(tables.header, str(path)), tables)

    def write(self, path: str | Path) -> None:
        """Write the plan to one file, which appears complete or not at all."""
        frames = {name: self._tables.rows(name, 0, rows) for name, rows in self._table_sizes()}
        write_tables(Path(path), self.header.to_json(), frames)

    @property
    def digest(self) -> str:
        """What two sites can compare: the same request on the same data gives the same."""
        return self.header.digest

    @property
    def output_run(self) -> str:
        """The RUN that will hold every output."""
        return self.header.output_run

    @property
    def summary(self) -> tuple[TaskSummary, ...]:
        """One line a task, in order of execution."""
        return self.header.summary

    @property
    def n_jobs(self) -> int:
        """How many jobs there are: one a quantum."""
        return int(self._first_job[-1])

    @cached_property
    def pipeline(self) -> Pipeline:
        """The pipeline with all configuration resolved."""
        return Pipeline.from_json(self.header.pipeline)

    @property
    def dataset_types(self) -> tuple[DatasetType, ...]:
        """The types of all outputs."""
        made = {c.dataset_type for task in self.header.tasks for c in task.connections if c.is_output}
        return tuple(
            DatasetType(t.name, DimensionGroup(t.dimensions, t.implied), t.storage_class, t.is_calibration)
            for t in self.header.types
            if t.name in made
        )

    def task_of(self, job: int) -> str:
        """Return the label of the task of a job."""
        return self.header.tasks[self._place(job)[0]].label

    def job(self, index: int) -> PlannedJob:
        """Return one job with everything it needs to know."""
        place, row = self._place(index)
        return PlannedJob(index, (self.quantum(self.header.tasks[place].label, row),))

    def jobs(self) -> Iterator[PlannedJob]:
        """Go through all jobs in order of execution."""
        return map(self.job, range(self.n_jobs))

    def quantum(self, label: str, row: int) -> PlannedQuantum:
        """Return the quantum in one row of a task's table."""
        task = self._tasks[label]
        record = self._tables.rows(f"quanta/{label}", row, row + 1).row(0, named=True)
        after = self._starts_after(task, row)
        datasets = {
            c.name: self._datasets(f"edges/{label}/{c.name}", c, record[f"start:{c.name}"], after[c.name])
            for c in task.connections
        }
        outputs = {c.name for c in task.connections if c.is_output}
        return PlannedQuantum(
            id=_uuid(record),
            task=label,
            data_id=self._data_id(record, task.dimensions + task.implied),
            inputs={name: found for name, found in datasets.items() if name not in outputs},
            outputs={name: found for name, found in datasets.items() if name in outputs},
        )

    def quanta(self, label: str) -> pl.DataFrame:
        """Return the data IDs of all quanta of a task: required, then implied dimensions."""
        task = self._tasks[label]
        codes = self._tables.rows(f"quanta/{label}", 0, task.quanta)
        return self._axes.decode(codes, task.dimensions + task.implied)

    def datasets(self, dataset_type: str) -> pl.DataFrame:
        """Return the data IDs of all datasets of a type, and `exists`, `run`, `url`, `size_bytes`, `checksum`."""
        facts = self._types[dataset_type]
        table = self._tables.rows(f"datasets/{dataset_type}", 0, facts.count)
        ids = self._axes.decode(table, facts.dimensions + facts.implied)
        if not facts.existing:
            return ids.with_columns(pl.lit(False).alias("exists"), pl.lit(self.output_run).alias("run"))
        return ids.with_columns(
            table["url"].is_not_null().alias("exists"),
            table["run"].fill_null(self.output_run),
            *(table[c] for c in ("url", "size_bytes", "checksum")),
        )

    def edges(self, label: str, connection: str) -> pl.DataFrame:
        """Return the edges of a connection as rows of the quanta's and the datasets' table."""
        facts = next(c for c in self._tasks[label].connections if c.name == connection)
        starts = self._starts(label, facts)
        quantum = np.repeat(np.arange(len(starts) - 1, dtype=np.uint32), np.diff(starts))
        dataset = self._tables.rows(f"edges/{label}/{connection}", 0, facts.edges)["dataset"]
        return pl.DataFrame({"quantum": quantum, "dataset": dataset})

    def dependencies(self) -> pl.DataFrame:
        """Return which job (`job`) reads what which other (`needs`) makes: distinct pairs, sorted.

        Cost: linear in the edges of datasets that the plan makes.
        """
        maker = {name: self._makers(name) for name in self._types}
        pairs = []
        for first, task in zip(self._first_job, self.header.tasks, strict=False):
            for c in task.connections:
                if not c.is_output and c.edges and (maker[c.dataset_type] >= 0).any():
                    edges = self.edges(task.label, c.name)
                    needs = maker[c.dataset_type][edges["dataset"].to_numpy()]
                    job = edges["quantum"].to_numpy().astype(np.int64) + first
                    pairs.append(pl.DataFrame({"job": job, "needs": needs}).filter(pl.col("needs") >= 0))
        if not pairs:
            return pl.DataFrame(schema={"job": pl.Int64, "needs": pl.Int64})
        return pl.concat(pairs).unique().sort("job", "needs")

    def _makers(self, dataset_type: str) -> NDArray[np.int64]:
        """Return for each dataset of a type the job that makes it; −1 for none."""
        maker = np.full(self._types[dataset_type].count, -1, dtype=np.int64)
        for first, task in zip(self._first_job, self.header.tasks, strict=False):
            for c in task.connections:
                if c.is_output and c.dataset_type == dataset_type:
                    edges = self.edges(task.label, c.name)
                    maker[edges["dataset"].to_numpy()] = edges["quantum"].to_numpy().astype(np.int64) + first
        return maker

    def _place(self, job: int) -> tuple[int, int]:
        if not 0 <= job < self.n_jobs:
            raise PlanError(
                what=f"there is no job {job}",
                where=f"plan of {self.output_run}",
                why=f"it has {self.n_jobs} jobs, counted from 0",
                todo="see the jobs: loadmaster status",
            )
        place = int(np.searchsorted(self._first_job, job, side="right")) - 1
        return place, job - int(self._first_job[place])

    def _starts(self, label: str, connection: ConnectionFacts) -> NDArray[np.int64]:
        table = self._tables.rows(f"quanta/{label}", 0, self._tasks[label].quanta)
        return np.append(table[f"start:{connection.name}"].to_numpy().astype(np.int64), connection.edges)

    def _starts_after(self, task: TaskFacts, row: int) -> dict[str, int]:
        """Return where the edges of the next quantum begin."""
        if row + 1 == task.quanta:
            return {c.name: c.edges for c in task.connections}
        following = self._tables.rows(f"quanta/{task.label}", row + 1, row + 2).row(0, named=True)
        return {c.name: following[f"start:{c.name}"] for c in task.connections}

    def _datasets(
        self, edges: str, connection: ConnectionFacts, start: int, stop: int
    ) -> tuple[PlannedDataset, ...]:
        if start == stop:
            return ()
        rows = self._tables.rows(edges, start, stop)["dataset"]
        return tuple(self._dataset(self._types[connection.dataset_type], row) for row in rows)

    def _dataset(self, facts: TypeFacts, row: int) -> PlannedDataset:
        record = self._tables.rows(f"datasets/{facts.name}", row, row + 1).row(0, named=True)
        data_id = self._data_id(record, facts.dimensions + facts.implied)
        exists = record.get("url") is not None
        required = {d: data_id[d] for d in facts.dimensions}
        return PlannedDataset(
            id=_uuid(record),
            dataset_type=facts.name,
            data_id=data_id,
            run=record["run"] if exists else self.output_run,
            storage_class=facts.storage_class,
            path=""
            if exists
            else dataset_path(self.output_run, facts.name, required, extension_of(facts.storage_class)),
            url=record["url"] if exists else "",
            size_bytes=_or(record.get("size_bytes"), -1),
            checksum=_or(record.get("checksum"), ""),
            exists=exists,
        )

    def _data_id(self, record: Mapping[str, Any], dimensions: Sequence[str]) -> dict[str, int | str]:
        return {d: self._axis_values[d][record.get(d, 0)] for d in dimensions}

    @cached_property
    def _axes(self) -> Axes:
        return Axes({d: self._tables.rows(f"axes/{d}", 0, n)["value"] for d, n in self.header.axes.items()})

    @cached_property
    def _axis_values(self) -> dict[str, list[int | str]]:
        return {d: axis.to_list() for d, axis in self._axes.values.items()}

    def _table_sizes(self) -> Iterator[tuple[str, int]]:
        for dimension, count in self.header.axes.items():
            yield f"axes/{dimension}", count
        for task in self.header.tasks:
            yield f"quanta/{task.label}", task.quanta
            for c in task.connections:
                yield f"edges/{task.label}/{c.name}", c.edges
        for t in self.header.types:
            yield f"datasets/{t.name}", t.count


def starts(quantum: Positions, n_quanta: int) -> NDArray[np.uint32]:
    """Return where the edges of each quantum begin, shape (n_quanta,); `quantum`, shape (n_edges,), is sorted."""
    return np.searchsorted(quantum, np.arange(n_quanta, dtype=np.uint32)).astype(np.uint32)


def tables_digest(facts: Mapping[str, Any], frames: Mapping[str, pl.DataFrame]) -> str:
    """Digest what does not depend on chance: all but ids and the name of the run."""
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for name in sorted(frames):
        for column in frames[name].get_columns():
            if column.name in ("id_hi", "id_lo", "url"):
                continue
            digest.update(f"\x00{name}\x00{column.name}\x00".encode())
            if column.dtype == pl.String:
                digest.update("\x00".join(value or "" for value in column.to_list()).encode())
            else:
                digest.update(np.ascontiguousarray(column.fill_null(-1).to_numpy()).tobytes())
    return digest.hexdigest()


def _uuid(record: Mapping[str, Any]) -> UUID:
    return UUID(int=(record["id_hi"] << 64) | record["id_lo"])


def _or(value: Any, otherwise: Any) -> Any:
    return otherwise if value is None else value
