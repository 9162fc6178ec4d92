"""What a plan will cost, as people see it; what is known of earlier runs of a repository."""

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import polars as pl
from loadmaster_executors.history import usage
from loadmaster_executors.run import RunFolder
from loadmaster_planner.estimate import Estimate, Figure, History, Spread, TaskEstimate, estimate
from loadmaster_planner.plan import Plan
from loadmaster_registry.errors import Error
from loadmaster_registry.records import CollectionType
from loadmaster_registry.store import Registry

from .submit import run_folders
from .tables import Table, format_bytes

log = logging.getLogger(__name__)

_RUNS = 10  # the newest ones with tasks of the plan: older ones say less of what is now
_DATASETS = 10_000  # of a type, the newest ones


def estimate_plan(
    plan: Plan, slots: int, registry: Registry | None = None, runs: Path | None = None
) -> Estimate:
    """Estimate what a plan costs on `slots` slots, from the runs of a repository where one is given."""
    history = None if registry is None or runs is None else read_history(registry, runs, plan)
    return estimate(plan, history, slots)


def read_history(registry: Registry, runs: Path, plan: Plan) -> History:
    """Return what the newest runs below `runs` used for the tasks of a plan, and how large their outputs are.

    A run that cannot be read is passed over, with a warning.
    """
    labels = [task.label for task in plan.header.tasks]
    names, frames = [], []
    for run in _readable(reversed(run_folders(runs))):
        frame = usage(run).filter(pl.col("task").is_in(labels))
        if frame.height:
            names.append(run.run)
            frames.append(frame)
        if len(names) == _RUNS:
            break
    made = [t.name for t in plan.header.types if t.count > t.existing]
    none = History()
    return History(
        pl.concat([none.usage, *frames]), pl.concat([none.sizes, *_sizes(registry, made)]), tuple(names)
    )


def _readable(folders: Iterable[Path]) -> Iterator[RunFolder]:
    """Open runs one after the other; each is closed when the next one is asked for."""
    for folder in folders:
        try:
            run = RunFolder.open(folder)
        except Error as error:
            log.warning("run is passed over folder=%s why=%s", folder, error.args[0])
            continue
        try:
            run.plan  # noqa: B018 (it is read here, so that what cannot be read is told here)
        except Error as error:
            log.warning("run is passed over folder=%s why=%s", folder, error.args[0])
        else:
            yield run
        finally:
            run.close()


def _sizes(registry: Registry, dataset_types: Iterable[str]) -> Iterator[pl.DataFrame]:
    with registry.snapshot() as now:
        known = {t.name for t in now.dataset_types()}
        runs = [c.name for c in now.collections() if c.type is CollectionType.RUN]
        for name in known.intersection(dataset_types):
            rows = now.datasets(name, runs, find_first=False)["dataset"].sort().tail(_DATASETS)
            sizes = now.files(rows)["size_bytes"].drop_nulls().cast(pl.Int64)
            yield pl.DataFrame(
                {"dataset_type": pl.Series([name]).new_from_index(0, sizes.len()), "size_bytes": sizes}
            )


def estimate_tables(found: Estimate) -> tuple[Table, ...]:
    """Make the tables of an estimate: the whole, tasks, what they make."""
    return _whole(found), _tasks(found), _types(found)


def estimate_facts(found: Estimate) -> dict[str, Any]:
    """Return an estimate as plain values; what is wholly unknown is null."""
    facts = asdict(found)
    for name, value in vars(found).items():
        if isinstance(value, Figure):
            facts[name] = _figure_facts(value)
    facts["tasks"] = [_task_facts(task) for task in found.tasks]
    return facts


def _task_facts(task: TaskEstimate) -> dict[str, Any]:
    figures = {
        n: _figure_facts(getattr(task, n)) for n in ("core_hours", "core_hours_p95", "bytes_in", "bytes_out")
    }
    return {**asdict(task), **figures}


def _figure_facts(figure: Figure) -> dict[str, Any]:
    value = None if figure.is_unknown else figure.value
    return {"value": value, "unknown": figure.unknown, "parts": figure.parts}


def _whole(found: Estimate) -> Table:
    slots = f"{found.slots} slots" if found.slots > 1 else "1 slot"
    rows = (
        ("core hours", _hours(found.core_hours), f"{_hours(found.core_hours_p95)} if all are slow"),
        (f"wall time, {slots}", _time(found.wall_s), f"{_time(found.wall_p95_s)} if all are slow"),
        ("wall time, no limit", _time(found.critical_path_s), "the longest chain of jobs"),
        ("bytes in", _bytes(found.bytes_in), f"{found.files_in} files that exist"),
        ("bytes out", _bytes(found.bytes_out), f"{found.files_out} files"),
        ("bytes staged", _bytes(found.bytes_staged), "inputs of all jobs, as often as they are read"),
        ("scratch of a job", _bytes(found.scratch_job_bytes), "inputs and outputs of the largest"),
        (f"scratch, {slots}", _bytes(found.scratch_bytes), "if the largest jobs run together"),
    )
    return Table(
        ("", "estimate", ""),
        rows,
        f"estimate of {found.output_run}: {found.n_jobs} jobs",
        notes=_notes(found),
    )


def _notes(found: Estimate) -> tuple[str, ...]:
    runs = (
        f"history: {', '.join(found.runs)}"
        if found.runs
        else "there are no earlier runs of these tasks to learn from"
    )
    open_tasks = [task.label for task in found.tasks if task.run_time_s is None and task.quanta]
    limits = [task.label for task in found.tasks if task.run_time_source == "limit" and task.quanta]
    return (
        runs,
        *((f"run time unknown, and not in the figures: {', '.join(open_tasks)}",) if open_tasks else ()),
        *((f"the longest time allowed stands for the run time: {', '.join(limits)}",) if limits else ()),
    )


def _tasks(found: Estimate) -> Table:
    rows = tuple(
        (
            task.label,
            str(task.quanta),
            f"{task.cpus:g}",
            *_spread(task.run_time_s, _seconds),
            _source(task.run_time_source, task.run_time_s),
            _hours(task.core_hours),
            f"{task.memory_mib:,.0f} MiB",
            task.memory_source,
            _bytes(task.bytes_in),
            _bytes(task.bytes_out),
        )
        for task in found.tasks
    )
    headings = ("task", "quanta", "cpus", "mean", "p50", "p95", "run time from", "core hours")
    more = ("memory", "memory from", "bytes in", "bytes out")
    numeric = frozenset({*headings, *more} - {"task", "run time from", "memory from"})
    return Table((*headings, *more), rows, numeric=numeric)


def _types(found: Estimate) -> Table:
    rows = tuple(
        (
            t.name,
            str(t.count),
            *_spread(t.size_bytes, lambda v: format_bytes(round(v))),
            _source(t.source, t.size_bytes),
        )
        for t in found.types
    )
    headings = ("makes", "files", "mean", "p50", "p95", "size from")
    return Table(headings, rows, numeric=frozenset(headings[1:-1]))


def _spread(spread: Spread | None, written: Callable[[float], str]) -> tuple[str, str, str]:
    if spread is None:
        return "–", "–", "–"
    return written(spread.mean), written(spread.p50), written(spread.p95)


def _source(source: str, spread: Spread | None) -> str:
    return f"history of {spread.n}" if source == "history" and spread else source


def _hours(figure: Figure) -> str:
    return _figure(figure, f"{figure.value:,.2f}")


def _time(figure: Figure) -> str:
    return _figure(figure, _seconds(figure.value))


def _bytes(figure: Figure) -> str:
    return _figure(figure, format_bytes(round(figure.value)))


def _figure(figure: Figure, text: str) -> str:
    if figure.is_unknown:
        return "unknown"
    return text if figure.is_complete else f"at least {text}"


def _seconds(value: float) -> str:
    """Write a time as people read it: 0.42 s, 12 s, 3 min 5 s, 27 h 30 min."""
    if value < 100:
        return f"{value:.2g} s" if value < 10 else f"{value:.0f} s"
    minutes, seconds = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s"
