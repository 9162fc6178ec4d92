"""What a plan will cost, before it starts: core hours, wall time, bytes, files, scratch; and where each figure is from.

Run times and sizes come from earlier runs where there are any, else from what tasks declare; what neither says is
unknown, is counted, and is never taken for nothing.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import polars as pl
from loadmaster_registry.errors import PlanError
from numpy.typing import NDArray

from .header import TaskFacts, TypeFacts
from .plan import Plan

Source = Literal["history", "declared", "limit", "unknown"]  # "limit": a declared longest time stands in
_SHOWN = 5
_USAGE = {"task": pl.String, "wall_s": pl.Float64, "peak_memory_mib": pl.Float64}
_SIZES = {"dataset_type": pl.String, "size_bytes": pl.Int64}


@dataclass(frozen=True)
class History:
    """What earlier runs of the same tasks used, and how large what they made is.

    Parameters
    ----------
    usage : DataFrame
        ``task``, ``wall_s`` (of its job, staging included), ``peak_memory_mib``; a row a quantum.
    sizes : DataFrame
        ``dataset_type``, ``size_bytes``; a row a dataset.
    runs : tuple of str
        The runs that `usage` is of.
    """

    usage: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=_USAGE))
    sizes: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=_SIZES))
    runs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Spread:
    """How the values of many quanta or datasets are spread; declared ones all are the same."""

    mean: float
    p50: float
    p95: float
    n: int  # how many there were; 0 for what is declared


@dataclass(frozen=True, slots=True)
class Figure:
    """A sum of which some parts may be unknown."""

    value: float  # of the parts that are known
    unknown: int  # how many parts are not
    parts: int

    @property
    def is_complete(self) -> bool:
        """Whether every part is known."""
        return not self.unknown

    @property
    def is_unknown(self) -> bool:
        """Whether no part is known, although there are some."""
        return self.parts > 0 and self.unknown == self.parts


@dataclass(frozen=True, slots=True)
class TaskEstimate:
    """What all quanta of a task need together; run time and memory of one of them."""

    label: str
    quanta: int
    cpus: float  # of a quantum, as its job asks for them; the mean where jobs differ
    run_time_s: Spread | None
    run_time_source: Source
    core_hours: Figure
    core_hours_p95: Figure
    memory_mib: float  # 95 % of earlier quanta needed at most this; or what is declared
    memory_source: Source
    bytes_in: Figure  # of distinct existing datasets that they read
    bytes_out: Figure


@dataclass(frozen=True, slots=True)
class TypeEstimate:
    """How large the datasets of a type are that a plan makes."""

    name: str
    count: int
    size_bytes: Spread | None
    source: Source


@dataclass(frozen=True)
class Estimate:
    """What a plan will cost."""

    output_run: str
    slots: int  # jobs at once
    n_jobs: int
    core_hours: Figure  # processors asked for × mean run time
    core_hours_p95: Figure  # if every quantum took as long as the slowest twentieth
    wall_s: Figure  # on `slots` slots, each taking the job that has been ready longest
    wall_p95_s: Figure
    critical_path_s: Figure  # the longest chain of jobs: no number of slots is quicker
    bytes_in: Figure  # distinct existing datasets
    bytes_out: Figure
    bytes_staged: Figure  # inputs of all jobs, as often as they are read
    files_in: int
    files_out: int
    scratch_job_bytes: Figure  # inputs and outputs of the job that has most
    scratch_bytes: (
        Figure  # of as many of the largest jobs as there are slots: a bound, whatever runs together
    )
    tasks: tuple[TaskEstimate, ...]
    types: tuple[TypeEstimate, ...]
    runs: tuple[str, ...]  # that history is from


@dataclass(frozen=True, slots=True)
class Limits:
    """What a plan may cost at most; None where there is no limit."""

    core_hours: float | None = None
    bytes: float | None = None  # read from and added to the backbone, each dataset once


def estimate(plan: Plan, history: History | None = None, slots: int = 1) -> Estimate:
    """Estimate what a plan costs on `slots` slots; seconds for a million quanta.

    A job runs its quanta one after the other. All quanta of a task count alike, with the mean of earlier ones.
    """
    past = History() if history is None else history
    times = _run_times(plan, past.usage)
    data = _data(plan, past.sizes)
    jobs = {task.label: plan.jobs_of(task.label) for task in plan.header.tasks}
    moved = _moved(plan, jobs, data)
    walls = _walls(plan, jobs, times, slots)
    asked = plan.job_table()
    cpus = {label: int(asked["cpus"].to_numpy()[job].sum()) for label, job in jobs.items()}
    tasks = tuple(
        _task_estimate(plan, task, cpus[task.label], times[task.label], past.usage, data)
        for task in plan.header.tasks
    )
    scratch = _scratch(asked["disk_mib"], moved, slots)
    return Estimate(
        output_run=plan.output_run,
        slots=slots,
        n_jobs=plan.n_jobs,
        core_hours=_total([task.core_hours for task in tasks]),
        core_hours_p95=_total([task.core_hours_p95 for task in tasks]),
        wall_s=walls[0],
        wall_p95_s=walls[1],
        critical_path_s=walls[2],
        bytes_in=_total([_size(d, d.exists) for d in data.values()]),
        bytes_out=_total([_size(d, ~d.exists) for d in data.values()]),
        bytes_staged=moved.staged,
        files_in=sum(d.facts.existing for d in data.values()),
        files_out=sum(d.facts.count - d.facts.existing for d in data.values()),
        scratch_job_bytes=scratch[0],
        scratch_bytes=scratch[1],
        tasks=tasks,
        types=tuple(
            TypeEstimate(d.facts.name, n_made, d.spread, d.source)
            for d in data.values()
            if (n_made := d.facts.count - d.facts.existing)
        ),
        runs=past.runs,
    )


def refuse_over_limits(found: Estimate, limits: Limits) -> None:
    """Raise if a plan costs more than it may, or if nobody can know.

    Raises
    ------
    PlanError
        With the figures, and what they are made of.
    """
    size = _total([found.bytes_in, found.bytes_out])
    hours_of = {task.label: task.core_hours for task in found.tasks}
    bytes_of = {
        f"{task.label} ({side})": figure
        for task in found.tasks
        for side, figure in (("reads", task.bytes_in), ("makes", task.bytes_out))
    }
    broken = [
        *_broken("--max-core-hours", "core hours", limits.core_hours, found.core_hours, hours_of),
        *_broken("--max-bytes", "bytes", limits.bytes, size, bytes_of),
    ]
    if broken:
        raise PlanError(
            what="the plan is over its limits",
            where=f"plan of {found.output_run}: {found.n_jobs} jobs",
            why="\n    ".join(broken),
            todo="plan less (--where, --target, fewer tasks), or raise the limit; where something is unknown, "
            "declare `run_time_s` and `output_mib` in the task's `resources`, or run a small part to learn from",
        )


def _broken(
    option: str, unit: str, limit: float | None, figure: Figure, by_task: Mapping[str, Figure]
) -> list[str]:
    """Return the sentence that says how a limit is exceeded, or why nobody knows; none where it holds."""
    if limit is None or (figure.is_complete and figure.value <= limit):
        return []
    if figure.value > limit:
        most = sorted(by_task.items(), key=lambda item: -item[1].value)[:_SHOWN]
        shares = ", ".join(f"{label} {f.value:,.6g}" for label, f in most if f.value)
        at_least = "" if figure.is_complete else "at least "
        return [f"{at_least}{figure.value:,.6g} {unit}, and {option} is {limit:,.6g}: {shares}"]
    unknown = [label for label, f in by_task.items() if not f.is_complete]
    more = f" and {len(unknown) - _SHOWN} more" if len(unknown) > _SHOWN else ""
    return [f"{option} is {limit:,.6g}, but the {unit} of {', '.join(unknown[:_SHOWN])}{more} are unknown"]


@dataclass(frozen=True)
class _RunTime:
    spread: Spread | None
    source: Source


def _run_times(plan: Plan, usage: pl.DataFrame) -> dict[str, _RunTime]:
    known = _spreads(usage, "task", "wall_s")
    found = {}
    for task in plan.header.tasks:
        asked = plan.pipeline.tasks[task.label].resources
        if task.label in known:
            found[task.label] = _RunTime(known[task.label], "history")
        elif asked.run_time_s is not None:
            found[task.label] = _RunTime(_declared(asked.run_time_s), "declared")
        elif asked.walltime_s is not None:
            found[task.label] = _RunTime(_declared(asked.walltime_s), "limit")
        else:
            found[task.label] = _RunTime(None, "unknown")
    return found


def _spreads(frame: pl.DataFrame, key: str, value: str) -> dict[str, Spread]:
    column = pl.col(value)
    found = (
        frame.drop_nulls(value)
        .group_by(key)
        .agg(
            column.mean().alias("mean"),
            column.quantile(0.5, "linear").alias("p50"),
            column.quantile(0.95, "linear").alias("p95"),
            column.len().alias("n"),
        )
    )
    return {name: Spread(*values) for name, *values in found.iter_rows()}


def _declared(value: float) -> Spread:
    return Spread(value, value, value, 0)


@dataclass(frozen=True)
class _Data:
    """The datasets of a type: which exist, how large each is or will be (NaN: unknown)."""

    facts: TypeFacts
    exists: NDArray[np.bool_]
    size_bytes: NDArray[np.float64]
    spread: Spread | None  # of those to be made
    source: Source


def _data(plan: Plan, sizes: pl.DataFrame) -> dict[str, _Data]:
    """Return the datasets by type; those that are handed on in memory are no files."""
    known = _spreads(sizes, "dataset_type", "size_bytes")
    declared = _declared_sizes(plan, set(known))
    found = {}
    for facts in plan.header.types:
        if facts.name in plan.header.jobs.elided:
            continue
        spread = known.get(facts.name, declared.get(facts.name))
        source: Source = "history" if facts.name in known else "declared" if spread else "unknown"
        exists = np.zeros(facts.count, dtype=bool)
        size = np.full(facts.count, spread.mean if spread else np.nan)
        if facts.existing:
            rows = plan.rows(f"datasets/{facts.name}", 0, facts.count)
            exists = rows["run"].is_not_null().to_numpy()
            recorded = rows["size_bytes"].cast(pl.Float64).fill_null(np.nan).to_numpy()
            size = np.where(exists, recorded, size)
        found[facts.name] = _Data(facts, exists, size, spread, source)
    return found


def _declared_sizes(plan: Plan, known: set[str]) -> dict[str, Spread]:
    """Return the sizes of what tasks make that declare how much: shared alike by what no history tells of."""
    found: dict[str, Spread] = {}
    for task in plan.header.tasks:
        output_mib = plan.pipeline.tasks[task.label].resources.output_mib
        made = [c for c in task.connections if c.is_output and c.edges and c.dataset_type not in known]
        if output_mib is not None and made:
            each = output_mib * 2**20 * task.quanta / sum(c.edges for c in made)
            found |= {c.dataset_type: _declared(each) for c in made}
    return found


def _size(data: _Data, chosen: NDArray[np.bool_]) -> Figure:
    return _known(data.size_bytes[chosen])


def _known(size_bytes: NDArray[np.float64]) -> Figure:
    unknown = np.isnan(size_bytes)
    return Figure(float(size_bytes[~unknown].sum()), int(unknown.sum()), size_bytes.size)


def _total(figures: list[Figure]) -> Figure:
    return Figure(
        sum(f.value for f in figures), sum(f.unknown for f in figures), sum(f.parts for f in figures)
    )


def _core_hours(quanta: int, cpus: int, run_time_s: float | None) -> Figure:
    """Return what the quanta of a task come to, whose jobs ask for `cpus` processors in all."""
    if run_time_s is None:
        return Figure(0.0, quanta, quanta)
    return Figure(cpus * run_time_s / 3600, 0, quanta)


def _task_estimate(
    plan: Plan, task: TaskFacts, cpus: int, time: _RunTime, usage: pl.DataFrame, data: Mapping[str, _Data]
) -> TaskEstimate:
    memory = usage.filter(task=task.label)["peak_memory_mib"].quantile(0.95, "linear")
    spread = time.spread
    return TaskEstimate(
        label=task.label,
        quanta=task.quanta,
        cpus=cpus / max(task.quanta, 1),
        run_time_s=spread,
        run_time_source=time.source,
        core_hours=_core_hours(task.quanta, cpus, spread.mean if spread else None),
        core_hours_p95=_core_hours(task.quanta, cpus, spread.p95 if spread else None),
        memory_mib=plan.pipeline.tasks[task.label].resources.memory_mib if memory is None else memory,
        memory_source="declared" if memory is None else "history",
        bytes_in=_total([_size(d, used & d.exists) for d, used in _used(plan, task, data, is_output=False)]),
        bytes_out=_total([_size(d, used) for d, used in _used(plan, task, data, is_output=True)]),
    )


def _used(
    plan: Plan, task: TaskFacts, data: Mapping[str, _Data], *, is_output: bool
) -> Iterator[tuple[_Data, NDArray[np.bool_]]]:
    """Go through the dataset types that a task reads (or makes), with which of each it does."""
    connections = [c for c in task.connections if c.is_output == is_output and c.edges]
    for name in dict.fromkeys(c.dataset_type for c in connections if c.dataset_type in data):
        used = np.zeros(data[name].facts.count, dtype=bool)
        for c in connections:
            if c.dataset_type == name:
                used[_datasets(plan, task.label, c.name, c.edges)] = True
        yield data[name], used


def _datasets(plan: Plan, label: str, connection: str, edges: int) -> NDArray[np.int64]:
    return plan.rows(f"edges/{label}/{connection}", 0, edges)["dataset"].cast(pl.Int64).to_numpy()


@dataclass(frozen=True)
class _Moved:
    """What the files of each job come to, shape (n_jobs,), and the inputs of all jobs together."""

    scratch_bytes: NDArray[np.float64]
    n_unknown: NDArray[np.int64]
    staged: Figure


def _moved(plan: Plan, jobs: Mapping[str, NDArray[np.int64]], data: Mapping[str, _Data]) -> _Moved:
    """Add up the distinct files of each job; one that a job makes and reads is staged neither in nor twice."""
    scratch, n_unknown = np.zeros(plan.n_jobs), np.zeros(plan.n_jobs, dtype=np.int64)
    staged = []
    for name, here in data.items():
        made = _keys(plan, jobs, name, here.facts.count, is_output=True)
        read = _keys(plan, jobs, name, here.facts.count, is_output=False)
        brought = read[~_among(read, made)]
        for keys in (made, brought):
            job, dataset = np.divmod(keys, here.facts.count)
            size = here.size_bytes[dataset]
            scratch += np.bincount(job, weights=np.nan_to_num(size), minlength=plan.n_jobs)
            n_unknown += np.bincount(job[np.isnan(size)], minlength=plan.n_jobs)
        staged.append(_known(here.size_bytes[brought % here.facts.count]))
    return _Moved(scratch, n_unknown, _total(staged))


def _keys(
    plan: Plan, jobs: Mapping[str, NDArray[np.int64]], dataset_type: str, count: int, *, is_output: bool
) -> NDArray[np.int64]:
    """Return the distinct pairs of a job and a dataset that it reads (or makes), as job × count + dataset."""
    keys = [np.zeros(0, dtype=np.int64)]
    for task in plan.header.tasks:
        for c in task.connections:
            if c.edges and c.dataset_type == dataset_type and c.is_output == is_output:
                edges = plan.edges(task.label, c.name)
                job = jobs[task.label][edges["quantum"].to_numpy()]
                keys.append(job * count + edges["dataset"].to_numpy())
    ordered = np.sort(np.concatenate(keys), kind="stable")  # quick, for each connection's keys are in order
    return ordered[np.diff(ordered, prepend=-1) > 0]


def _among(values: NDArray[np.int64], ordered: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which values are in `ordered`."""
    if not ordered.size:
        return np.zeros(values.size, dtype=bool)
    return np.asarray(ordered[np.searchsorted(ordered, values).clip(max=ordered.size - 1)] == values)


def _scratch(disk_mib: pl.Series, moved: _Moved, slots: int) -> tuple[Figure, Figure]:
    """Return the scratch of the largest job, and of the largest as many as there are slots.

    A job with files of unknown size counts with the disk that it asks for, where it does.
    """
    asked = disk_mib.cast(pl.Float64).fill_null(np.nan).to_numpy() * 2**20
    is_open = (moved.n_unknown > 0) & np.isnan(asked)
    size = np.where(moved.n_unknown > 0, np.fmax(moved.scratch_bytes, asked), moved.scratch_bytes)
    largest = np.sort(size)[::-1][:slots]
    n_open = int(is_open.sum())
    return (
        Figure(float(largest[:1].sum()), n_open, size.size),
        Figure(float(largest.sum()), n_open, size.size),
    )


def _walls(
    plan: Plan, jobs: Mapping[str, NDArray[np.int64]], times: Mapping[str, _RunTime], slots: int
) -> tuple[Figure, Figure, Figure]:
    """Return the wall time with mean and with slow run times, and the critical path."""
    graph = plan.job_graph()
    mean_s, p95_s = np.zeros(graph.n_jobs), np.zeros(graph.n_jobs)  # a barrier takes no time
    is_open = np.zeros(plan.n_jobs, dtype=bool)
    for label, job in jobs.items():
        if (spread := times[label].spread) is None:
            is_open[job] = True
            continue
        count = np.bincount(job, minlength=graph.n_jobs)
        mean_s += count * spread.mean
        p95_s += count * spread.p95
    unknown = int(is_open.sum())
    wall_s = graph.simulate(mean_s, slots)
    slow_s = wall_s if np.array_equal(mean_s, p95_s) else graph.simulate(p95_s, slots)
    known = (wall_s, slow_s, graph.critical_path(mean_s))
    wall, slow, longest = (Figure(value, unknown, plan.n_jobs) for value in known)
    return wall, slow, longest
