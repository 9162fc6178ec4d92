"""What exists of the outputs already: quanta that are done leave the graph, anything else in the way is an error."""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from functools import cache

import numpy as np
import polars as pl
from loadmaster_pipelines.pipeline import Pipeline, TaskNode
from loadmaster_registry.errors import NotFound, PlanError
from loadmaster_registry.snapshot import Snapshot
from numpy.typing import NDArray

from .earlier import WELL_ENDED, held, quantum_rows, rows_held
from .graph import Part, keep_quanta, positions
from .request import Request

_CLASHES_SHOWN = 50
_MARKER = "_metadata"  # a quantum of LABEL is done where LABEL_metadata exists
_AUTOMATIC = (_MARKER, "_log")  # what the framework writes beside a quantum's own outputs

Held = Callable[
    [str], NDArray[np.int64]
]  # dataset type → the registry's row ids by row of its table; −1 for none


def without_the_done(
    registry: Snapshot, pipeline: Pipeline, part: Part, request: Request, elide: Collection[str] = ()
) -> Part:
    """Take out the quanta that count as done; what exists of their outputs serves others as input.

    Done is a quantum whose marker (``LABEL_metadata``) exists, of which a quantum of the same task made an output
    and ended well, or which found nothing to do. An output of it that does not exist is missing: nobody will make it.

    Datasets of types in `elide` are never stored. Whoever makes one that a quantum reads that is not done runs, too;
    a quantum that makes nothing else, and of which nobody reads anything, is done.
    """
    collections = request.skip_existing_in
    there: Held = cache(lambda name: rows_held(registry, name, collections, part))
    done = {task.label: is_done(registry, task, part, collections, there) for task in pipeline.tasks.values()}
    _settle_elided(pipeline, part, done, there, elide)
    return take_out(pipeline, part, done, there)


def _settle_elided(
    pipeline: Pipeline, part: Part, done: dict[str, NDArray[np.bool_]], there: Held, elide: Collection[str]
) -> None:
    """Go upstream, and change which quanta are `done` of the tasks that hand something on in memory."""
    for task in reversed(list(pipeline.tasks.values())):
        handed_on = [c for c in task.outputs if c.dataset_type in elide]
        if not handed_on:
            continue
        quanta = part.quanta[task.label]
        is_wanted = np.zeros(quanta.count, dtype=bool)
        for c in handed_on:
            lacking = _read_anew(pipeline, part, done, c.dataset_type) & (there(c.dataset_type) < 0)
            edges = quanta.outputs[c.name]
            is_wanted[edges.quantum[lacking[edges.dataset]]] = True
        makes_nothing_else = len(handed_on) == len(task.outputs)
        done[task.label] = (done[task.label] | makes_nothing_else) & ~is_wanted


def _read_anew(
    pipeline: Pipeline, part: Part, done: dict[str, NDArray[np.bool_]], dataset_type: str
) -> NDArray[np.bool_]:
    """Say which datasets of a type quanta read that are not done."""
    is_read = np.zeros(part.datasets[dataset_type].count, dtype=bool)
    for task in pipeline.tasks.values():
        for c in task.inputs:
            if c.dataset_type == dataset_type:
                edges = part.quanta[task.label].inputs[c.name]
                is_read[edges.dataset[~done[task.label][edges.quantum]]] = True
    return is_read


def take_out(
    pipeline: Pipeline,
    part: Part,
    done: dict[str, NDArray[np.bool_]],
    there: Held,
    left_out: dict[str, NDArray[np.bool_]] | None = None,
) -> Part:
    """Take out quanta that are done, whose outputs serve the others as far as they exist, and quanta `left_out`."""
    others = left_out or {label: np.zeros(rows.size, dtype=bool) for label, rows in done.items()}
    quanta = {label: keep_quanta(part.quanta[label], ~(rows | others[label])) for label, rows in done.items()}
    datasets = dict(part.datasets)
    remaining = [task for task in pipeline.tasks.values() if quanta[task.label].count]
    read = {c.dataset_type for task in remaining for c in task.inputs}
    for task in pipeline.tasks.values():
        for c in task.outputs if done[task.label].any() else ():
            if c.dataset_type in read:
                edges = part.quanta[task.label].outputs[c.name]
                rows = edges.dataset[done[task.label][edges.quantum]]
                existing = part.datasets[c.dataset_type].existing.copy()
                existing[rows] = there(c.dataset_type)[rows]
                datasets[c.dataset_type] = replace(part.datasets[c.dataset_type], existing=existing)
    counts = {label: int(rows.sum()) for label, rows in done.items() if rows.any()}
    return replace(part, quanta=quanta, datasets=datasets, done=counts)


def is_done(
    registry: Snapshot, task: TaskNode, part: Part, collections: Sequence[str], there: Held
) -> NDArray[np.bool_]:
    """Say which quanta of a task count as done."""
    quanta = part.quanta[task.label]
    found = np.zeros(quanta.count, dtype=bool)
    if not quanta.count:
        return found
    marked = held(registry, f"{task.label}{_MARKER}", collections)
    if marked is not None:
        place = positions(part.axes.encode(marked), quanta.codes, part.axes)
        found[place[place >= 0]] = True
    for c in task.outputs:
        if not found.all():
            edges = quanta.outputs[c.name]
            found[edges.quantum[_well_made(registry, task, there(c.dataset_type))[edges.dataset]]] = True
    if not found.all():
        idle = registry.idle_quanta(task.label, collections)["data_id"]
        rows = quantum_rows(registry.universe, quanta, part.axes, idle)
        found[rows[rows >= 0]] = True
    return found


def _well_made(registry: Snapshot, task: TaskNode, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Say which stored datasets a quantum of the task made that ended well."""
    makers = registry.makers(pl.Series("dataset", rows[rows >= 0]), task.label)
    return np.isin(rows, makers.filter(pl.col("status").is_in(WELL_ENDED))["dataset"].to_numpy())


def refuse_clashes(registry: Snapshot, pipeline: Pipeline, part: Part, request: Request) -> None:
    """Raise if an output of a quantum that is not done is in the output run already, listing all such.

    Quanta that will be dropped for want of an input count too: an output of theirs that lay in the run would
    look like a result of this plan.
    """
    try:
        registry.collection(request.output_run)
    except NotFound:
        return
    if request.clobber:
        return
    clashes = [clash for task in pipeline.tasks.values() for clash in _clashes(registry, task, part, request)]
    if clashes:
        shown = "\n    ".join(clashes[:_CLASHES_SHOWN])
        more = f"\n    … and {len(clashes) - _CLASHES_SHOWN} more" if len(clashes) > _CLASHES_SHOWN else ""
        raise PlanError(
            what=f"{len(clashes)} outputs exist already",
            where=f"run {request.output_run}:\n    {shown}{more}",
            why="nothing is ever overwritten",
            todo="choose another output run (a new one is made when you give just an output collection), or skip "
            f"what is done: --skip-existing exists --skip-existing-in {request.output_run}",
        )


def _clashes(registry: Snapshot, task: TaskNode, part: Part, request: Request) -> Iterator[str]:
    quanta = part.quanta[task.label]
    if not quanta.count:
        return
    tables = {}
    for c in task.outputs:
        table = part.datasets[c.dataset_type]
        made = np.zeros(table.count, dtype=bool)
        made[quanta.outputs[c.name].dataset] = True
        codes = table.codes.filter(pl.Series(made)) if table.codes.width else table.codes
        tables[c.dataset_type] = (codes, int(made.sum()), table.dimensions)
    for suffix in _AUTOMATIC:
        tables.setdefault(f"{task.label}{suffix}", (quanta.codes, quanta.count, quanta.dimensions))
    for name, (codes, count, dimensions) in tables.items():
        found = held(registry, name, [request.output_run])
        if found is None or not found.height or not count or not set(dimensions) <= set(found.columns):
            continue
        if not dimensions:
            yield f"{name} {{}}"
            continue
        planned = part.axes.decode(codes if codes.width else pl.DataFrame({"": np.zeros(count)}), dimensions)
        both = planned.join(found, on=list(dimensions), how="semi")
        yield from (f"{name} {row}" for row in both.select(dimensions).iter_rows(named=True))
