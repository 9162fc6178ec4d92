"""The plan: an immutable quantum graph with ids, names and locations; opened lazily from one file."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import polars as pl
from loadmaster_pipelines.pipeline import Pipeline, Step
from loadmaster_pipelines.resources import ResourceRequest, Resources, together
from loadmaster_registry.errors import PlanError
from loadmaster_registry.joins import Axes
from loadmaster_registry.names import dataset_path
from loadmaster_registry.records import DatasetType
from loadmaster_registry.universe import DimensionGroup
from numpy.typing import NDArray

from .graph import Positions
from .header import ClusterFacts, ConnectionFacts, OrderFacts, PlanHeader, TaskFacts, TaskSummary, TypeFacts
from .jobgraph import JobGraph
from .orders import Barriers, JobGroup, stored_group, stored_order
from .tables import FileTables, Tables, write_tables

_RESOURCE_COLUMNS = dict.fromkeys(ResourceRequest.__dataclass_fields__, pl.Int64)
_JOB_TABLE = {
    "job": pl.Int64,
    "cluster": pl.String,
    "step": pl.String,
    "quanta": pl.Int64,
    **_RESOURCE_COLUMNS,
}


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
    is_elided: bool = False  # handed on in memory inside its job, never stored
    parts: Mapping[str, str] = field(
        default_factory=dict
    )  # the same in other formats: name of each → its path


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
    """The quanta that run together on a node, in this order."""

    index: int
    name: str  # its cluster's (or task's) with the values that tell it from others
    cluster: str
    quanta: tuple[PlannedQuantum, ...]
    resources: Resources
    step: str  # of the pipeline; empty where it has none
    shard: Mapping[
        str, int | str
    ]  # the values by which the step may be split, where the job has just one of each


class Plan:
    """What will run, on what, and what it will make. Nothing in it changes any more.

    Opening costs the same at any size; a quantum costs the chunks of the tables that hold it.
    """

    def __init__(self, header: PlanHeader, tables: Tables) -> None:
        self.header = header
        self._tables = tables
        self._tasks = {task.label: task for task in header.tasks}
        self._types = {t.name: t for t in header.types}
        self._first_job = np.cumsum([0, *(cluster.jobs for cluster in header.jobs.clusters)])
        self._cluster_of = {t: i for i, cluster in enumerate(header.jobs.clusters) for t in cluster.tasks}

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
        frames = {name: self._tables.rows(name, 0, rows) for name, rows in self.table_sizes()}
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
        """How many jobs there are."""
        return int(self._first_job[-1])

    @cached_property
    def pipeline(self) -> Pipeline:
        """The pipeline with all configuration resolved."""
        return Pipeline.from_json(self.header.pipeline)

    @property
    def dataset_types(self) -> tuple[DatasetType, ...]:
        """The types of all outputs that are stored."""
        made = {c.dataset_type for task in self.header.tasks for c in task.connections if c.is_output}
        return tuple(
            DatasetType(t.name, DimensionGroup(t.dimensions, t.implied), t.storage_class, t.is_calibration)
            for t in self.header.types
            if t.name in made and t.name not in self.header.jobs.elided
        )

    def task_of(self, job: int) -> str:
        """Return the name of a job's cluster: the label of its task, where it has one quantum."""
        return self.header.jobs.clusters[self._place(job)[0]].name

    def job(self, index: int, site: str = "") -> PlannedJob:
        """Return one job with everything it needs to know, and what it asks for at a site or wherever it runs."""
        cluster = self.header.jobs.clusters[self._place(index)[0]]
        quanta = tuple(self.quantum(label, row) for label, row in self.members(index))
        step = self._step_of.get(cluster.tasks[0])
        values = {
            d: {q.data_id[d] for q in quanta if d in q.data_id} for d in (step.dimensions if step else ())
        }
        return PlannedJob(
            index=index,
            name=self._name(cluster, index, quanta),
            cluster=cluster.name,
            quanta=quanta,
            resources=self.resources(index, site),
            step=step.label if step else "",
            shard={d: next(iter(found)) for d, found in values.items() if len(found) == 1},
        )

    def jobs(self) -> Iterator[PlannedJob]:
        """Go through all jobs by number: clusters in order of execution, in one by the values of its dimensions."""
        return map(self.job, range(self.n_jobs))

    def members(self, job: int) -> tuple[tuple[str, int], ...]:
        """Return the quanta of a job, in order: the label of each and its row in the task's table."""
        place, number = self._place(job)
        cluster = self.header.jobs.clusters[place]
        if not cluster.members:
            return ((cluster.tasks[0], number),)
        start, stop = self._bounds(cluster, number)
        rows = self._tables.rows(f"members/{cluster.name}", start, stop)
        return tuple((cluster.tasks[task], row) for task, row in rows.select("task", "row").iter_rows())

    def jobs_of(self, label: str, start: int = 0, stop: int | None = None) -> NDArray[np.int64]:
        """Return the jobs of the quanta in rows `start` to `stop` of a task's table."""
        stop = self._tasks[label].quanta if stop is None else stop
        first = int(self._first_job[self._cluster_of[label]])
        if not self.header.jobs.clusters[self._cluster_of[label]].members:
            return np.arange(first + start, first + stop)
        rows = self._tables.rows(f"quanta/{label}", start, stop)
        return np.asarray(rows["job"].to_numpy().astype(np.int64) + first)

    def resources(self, job: int, site: str = "") -> Resources:
        """Return what a job asks for, at a site of which the plan knows more, or wherever it runs."""
        cluster = self.header.jobs.clusters[self._place(job)[0]]
        labels = [label for label, _ in self.members(job)]
        each = self._task_resources(site)
        return cluster.resources.filled(
            together([(each[label], labels.count(label)) for label in dict.fromkeys(labels)])
        )

    def job_table(self, site: str = "") -> pl.DataFrame:
        """Return a row for each job.

        Returns
        -------
        jobs : DataFrame
            ``job``, ``cluster``, ``step``, ``quanta`` (how many), ``cpus``, ``memory_mib``, ``walltime_s``,
            ``disk_mib``, ``priority``, ``run_time_s`` and ``output_mib``, as `resources` has them.
        """
        each = self._task_resources(site)
        pieces = [self._cluster_table(place, each) for place in range(len(self.header.jobs.clusters))]
        empty = pl.DataFrame(schema=_JOB_TABLE)
        return pl.concat([empty, *pieces])

    def priorities(self, site: str = "") -> NDArray[np.int64] | None:
        """Return the priority of each job at a site, shape (n_jobs,); None where they are all alike."""
        asked = {resources.priority for resources in self._task_resources(site).values()}
        asked |= {cluster.resources.priority or 0 for cluster in self.header.jobs.clusters}
        return None if len(asked) < 2 else self.job_table(site)["priority"].to_numpy()

    def shards(self, step: str) -> pl.DataFrame:
        """Return for each job of a step the values by which the step may be split; null where it has not just one.

        Returns
        -------
        shards : DataFrame
            ``job`` and the step's dimensions.
        """
        dimensions = next(s.dimensions for s in self.pipeline.steps if s.label == step)
        axes = {d: self._axes.values[d].dtype for d in dimensions if d in self._axes.values}
        pieces = [pl.DataFrame(schema={"job": pl.Int64, **axes})]
        for label, home in self._step_of.items():
            if home.label == step and label in self._tasks:
                ids = self.quanta(label).select([d for d in axes if d in self._names(label)])
                pieces.append(ids.insert_column(0, pl.Series("job", self.jobs_of(label))))
        whole = pl.concat(pieces, how="diagonal")
        one = [pl.when(pl.col(d).min() == pl.col(d).max()).then(pl.col(d).min()).alias(d) for d in axes]
        return whole.group_by("job").agg(one).sort("job")

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
        if facts.existing:
            found = table["run"].is_not_null().alias("exists"), table["run"].fill_null(self.output_run)
            columns = [*found, *(table[c] for c in ("url", "size_bytes", "checksum"))]
        else:
            columns = [
                pl.repeat(False, facts.count, eager=True).alias("exists"),
                pl.repeat(self.output_run, facts.count, eager=True).alias("run"),
            ]
        return pl.DataFrame([*ids.get_columns(), *columns])

    def edges(self, label: str, connection: str) -> pl.DataFrame:
        """Return the edges of a connection as rows of the quanta's and the datasets' table."""
        facts = next(c for c in self._tasks[label].connections if c.name == connection)
        starts = self._starts(label, facts)
        quantum = np.repeat(np.arange(len(starts) - 1, dtype=np.uint32), np.diff(starts))
        dataset = self._tables.rows(f"edges/{label}/{connection}", 0, facts.edges)["dataset"]
        return pl.DataFrame({"quantum": quantum, "dataset": dataset})

    def rows(self, table: str, start: int, stop: int) -> pl.DataFrame:
        """Return rows of a table as the file holds them: codes on `axes`, ids by their halves."""
        return self._tables.rows(table, start, stop)

    @property
    def axes(self) -> Axes:
        """The dimension values that the codes in the tables stand for."""
        return self._axes

    def dependencies(self) -> pl.DataFrame:
        """Return which job (`job`) reads what which other (`needs`) makes: distinct pairs, sorted.

        Cost: linear in the edges of datasets that the plan makes.
        """
        maker = {name: self._makers(name) for name in self._types}
        pairs = [pl.DataFrame(schema={"job": pl.Int64, "needs": pl.Int64})]
        for task in self.header.tasks:
            jobs = self.jobs_of(task.label)
            for c in task.connections:
                if not c.is_output and c.edges and (maker[c.dataset_type] >= 0).any():
                    edges = self.edges(task.label, c.name)
                    needs = maker[c.dataset_type][edges["dataset"].to_numpy()]
                    pair = pl.DataFrame({"job": jobs[edges["quantum"].to_numpy()], "needs": needs})
                    pairs.append(pair.filter((pl.col("needs") >= 0) & (pl.col("needs") != pl.col("job"))))
        return pl.concat(pairs).unique().sort("job", "needs")

    def barriers(self) -> Barriers:
        """Return what jobs wait for beside what they read: the jobs of earlier groups of their orders."""
        stored = [(stored_order(*self._order_tables(o)), o.is_blocking) for o in self.header.jobs.orders]
        return Barriers.between(self.n_jobs, ((*columns, blocks) for columns, blocks in stored))

    def job_graph(self) -> JobGraph:
        """Return what waits for what: all jobs, then the barriers among them."""
        needs = self.dependencies()
        return self.barriers().graph(self.n_jobs, needs["job"].to_numpy(), needs["needs"].to_numpy())

    def groups_of(self, job: int) -> tuple[JobGroup, ...]:
        """Return the groups that a job is in, one of each order that has it."""
        name = self.task_of(job)
        found = (
            stored_group(order, *self._order_tables(order), job)
            for order in self.header.jobs.orders
            if name in order.labels
        )
        return tuple(group for group in found if group is not None)

    def reused_ids(self) -> list[UUID]:
        """Return the ids of earlier datasets that stand for outputs: the run will show them as its own."""
        tables = (self._tables.rows(f"reused/{name}", 0, n) for name, n in self.header.reused.items())
        return [_uuid(row) for table in tables for row in table.iter_rows(named=True)]

    def _order_tables(self, order: OrderFacts) -> tuple[pl.DataFrame, pl.DataFrame]:
        groups = self._tables.rows(f"groups/{order.name}", 0, order.groups)
        return groups, self._tables.rows(f"ordered/{order.name}", 0, order.jobs)

    def _makers(self, dataset_type: str) -> NDArray[np.int64]:
        """Return for each dataset of a type the job that makes it; −1 for none."""
        maker = np.full(self._types[dataset_type].count, -1, dtype=np.int64)
        for task in self.header.tasks:
            for c in task.connections:
                if c.is_output and c.dataset_type == dataset_type:
                    edges = self.edges(task.label, c.name)
                    maker[edges["dataset"].to_numpy()] = self.jobs_of(task.label)[edges["quantum"].to_numpy()]
        return maker

    def _place(self, job: int) -> tuple[int, int]:
        """Return the cluster of a job, and its number in it."""
        if not 0 <= job < self.n_jobs:
            raise PlanError(
                what=f"there is no job {job}",
                where=f"plan of {self.output_run}",
                why=f"it has {self.n_jobs} jobs, counted from 0",
                todo="see the jobs: loadmaster status",
            )
        place = int(np.searchsorted(self._first_job, job, side="right")) - 1
        return place, job - int(self._first_job[place])

    def _bounds(self, cluster: ClusterFacts, number: int) -> tuple[int, int]:
        """Return where the members of a job begin and end."""
        begins = self._tables.rows(f"jobs/{cluster.name}", number, min(number + 2, cluster.jobs))["start"]
        return begins[0], begins[1] if len(begins) > 1 else cluster.members

    def _name(self, cluster: ClusterFacts, job: int, quanta: Sequence[PlannedQuantum]) -> str:
        """Return the name of a job: its cluster's, the values of its dimensions, the number of its part."""
        dimensions = cluster.dimensions if cluster.members else self._tasks[cluster.tasks[0]].dimensions
        equal = {a: b for pair in cluster.equal_dimensions for a, b in (pair, pair[::-1])}
        known = {d: value for q in reversed(quanta) for d, value in q.data_id.items()}
        values = [known[d] if d in known else known.get(equal.get(d, ""), "") for d in dimensions]
        number = job - int(self._first_job[self._cluster_of[cluster.tasks[0]]])
        part = (
            self._tables.rows(f"jobs/{cluster.name}", number, number + 1)["part"] if cluster.is_split else ()
        )
        return "_".join([cluster.name, *map(str, values), *(f"{p:03}" for p in part)]).replace("/", "_")

    @cached_property
    def _step_of(self) -> dict[str, Step]:
        subsets = self.pipeline.subsets
        return {label: step for step in self.pipeline.steps for label in subsets[step.label].members}

    def _names(self, label: str) -> tuple[str, ...]:
        return self._tasks[label].dimensions + self._tasks[label].implied

    def _task_resources(self, site: str) -> Mapping[str, Resources]:
        usual = {label: node.resources for label, node in self.pipeline.tasks.items()}
        return self.header.jobs.sites.get(site, usual)

    def _cluster_table(self, place: int, each: Mapping[str, Resources]) -> pl.DataFrame:
        """Return the rows of `job_table` for one cluster: jobs with the same counts of quanta are alike."""
        facts = self.header.jobs.clusters[place]
        counts = np.ones((facts.jobs, 1), dtype=np.int64)
        if facts.members:
            members = self._tables.rows(f"members/{facts.name}", 0, facts.members)
            begins = (
                self._tables.rows(f"jobs/{facts.name}", 0, facts.jobs)["start"].to_numpy().astype(np.int64)
            )
            job = np.repeat(np.arange(facts.jobs), np.diff(begins, append=facts.members))
            cell = job * len(facts.tasks) + members["task"].to_numpy()
            counts = np.bincount(cell, minlength=facts.jobs * len(facts.tasks)).reshape(facts.jobs, -1)
        kinds, kind = np.unique(counts, axis=0, return_inverse=True)
        asked = [
            facts.resources.filled(
                together([(each[t], int(n)) for t, n in zip(facts.tasks, row, strict=True) if n])
            )
            for row in kinds
        ]
        step = self._step_of.get(facts.tasks[0])
        rows = pl.DataFrame([asdict(r) for r in asked], schema=_RESOURCE_COLUMNS)[kind.ravel()]
        first = int(self._first_job[place])
        return rows.with_columns(
            pl.Series("job", np.arange(first, first + facts.jobs)),
            pl.lit(facts.name).alias("cluster"),
            pl.lit(step.label if step else "").alias("step"),
            pl.Series("quanta", counts.sum(axis=1)),
        ).select(_JOB_TABLE.keys())

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
        exists = record.get("run") is not None
        required = {d: data_id[d] for d in facts.dimensions}
        is_elided = not exists and facts.name in self.header.jobs.elided
        extensions = {} if exists or is_elided else facts.parts
        return PlannedDataset(
            id=_uuid(record),
            dataset_type=facts.name,
            data_id=data_id,
            run=record["run"] if exists else self.output_run,
            storage_class=facts.storage_class,
            path="" if exists else dataset_path(self.output_run, facts.name, required, facts.extension),
            url=_or(record.get("url"), ""),
            size_bytes=_or(record.get("size_bytes"), -1),
            checksum=_or(record.get("checksum"), ""),
            exists=exists,
            is_elided=is_elided,
            parts={
                name: dataset_path(self.output_run, facts.name, required, extension)
                for name, extension in extensions.items()
            },
        )

    def _data_id(self, record: Mapping[str, Any], dimensions: Sequence[str]) -> dict[str, int | str]:
        return {d: self._axis_values[d][record.get(d, 0)] for d in dimensions}

    @cached_property
    def _axes(self) -> Axes:
        return Axes({d: self._tables.rows(f"axes/{d}", 0, n)["value"] for d, n in self.header.axes.items()})

    @cached_property
    def _axis_values(self) -> dict[str, list[int | str]]:
        return {d: axis.to_list() for d, axis in self._axes.values.items()}

    def table_sizes(self) -> Iterator[tuple[str, int]]:
        """Go through the tables of the file: the name of each, and how many rows it has."""
        for dimension, count in self.header.axes.items():
            yield f"axes/{dimension}", count
        for task in self.header.tasks:
            yield f"quanta/{task.label}", task.quanta
            for c in task.connections:
                yield f"edges/{task.label}/{c.name}", c.edges
        for t in self.header.types:
            yield f"datasets/{t.name}", t.count
        for name, count in self.header.reused.items():
            yield f"reused/{name}", count
        for cluster in self.header.jobs.clusters:
            if cluster.members:
                yield f"jobs/{cluster.name}", cluster.jobs
                yield f"members/{cluster.name}", cluster.members
        for order in self.header.jobs.orders:
            yield f"groups/{order.name}", order.groups
            yield f"ordered/{order.name}", order.jobs


def starts(quantum: Positions, n_quanta: int) -> NDArray[np.uint32]:
    """Return where the edges of each quantum begin, shape (n_quanta,); `quantum`, shape (n_edges,), is sorted."""
    n_edges = np.bincount(quantum, minlength=n_quanta)
    return (np.cumsum(n_edges) - n_edges).astype(np.uint32)


def tables_digest(facts: Mapping[str, Any], frames: Mapping[str, pl.DataFrame]) -> str:
    """Digest what does not depend on chance: all but ids and the name of the run."""
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for name in sorted(frames):
        for column in frames[name].get_columns():
            if column.name in ("id_hi", "id_lo", "url"):
                continue
            digest.update(f"\x00{name}\x00{column.name}\x00".encode())
            if column.dtype == pl.String:
                digest.update((column.fill_null("").str.join("\x00").item() or "").encode())
            else:
                values = column.fill_null(-1) if column.null_count() else column
                digest.update(np.ascontiguousarray(values.to_numpy()).data)
    return digest.hexdigest()


def _uuid(record: Mapping[str, Any]) -> UUID:
    return UUID(int=(record["id_hi"] << 64) | record["id_lo"])


def _or(value: Any, otherwise: Any) -> Any:
    return otherwise if value is None else value
