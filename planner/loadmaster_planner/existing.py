"""What exists of the outputs already: quanta that are done leave the graph, anything else in the way is an error."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import polars as pl
from loadmaster_pipelines.pipeline import Pipeline, TaskNode
from loadmaster_registry.errors import NotFound, PlanError
from loadmaster_registry.joins import Axes
from loadmaster_registry.snapshot import Snapshot
from numpy.typing import NDArray

from .graph import Part, Quanta, keep_quanta, positions
from .request import Request

_CLASHES_SHOWN = 50
_MARKER = "_metadata"  # a quantum of LABEL is done where LABEL_metadata exists
_AUTOMATIC = (_MARKER, "_log")  # what the framework writes beside a quantum's own outputs


def without_the_done(registry: Snapshot, pipeline: Pipeline, part: Part, request: Request) -> Part:
    """Take out the quanta that count as done; what exists of their outputs serves others as input.

    An output of such a quantum that does not exist is missing: nobody will make it.
    """
    if request.skip_existing is None:
        return part
    quanta, done = {}, {}
    existing = {name: table.existing.copy() for name, table in part.datasets.items()}
    for task in pipeline.tasks.values():
        before = part.quanta[task.label]
        is_done = _marked(registry, task, before, part.axes, request.skip_existing_in)
        for c in task.outputs:
            rows = before.outputs[c.name].where(is_done[before.outputs[c.name].quantum]).dataset
            table = part.datasets[c.dataset_type]
            held = _rows_held(registry, c.dataset_type, request.skip_existing_in, part, table.codes)
            existing[c.dataset_type][rows] = held[rows]
        quanta[task.label] = keep_quanta(before, ~is_done)
        done[task.label] = int(is_done.sum())
    datasets = {name: replace(table, existing=existing[name]) for name, table in part.datasets.items()}
    return replace(part, quanta=quanta, datasets=datasets, done={k: n for k, n in done.items() if n})


def _marked(
    registry: Snapshot, task: TaskNode, quanta: Quanta, axes: Axes, collections: Sequence[str]
) -> NDArray[np.bool_]:
    """Say for which quanta the success marker exists."""
    is_done = np.zeros(quanta.count, dtype=bool)
    marked = _held(registry, f"{task.label}{_MARKER}", collections)
    if marked is not None and quanta.count:
        place = positions(axes.encode(marked), quanta.codes, axes)
        is_done[place[place >= 0]] = True
    return is_done


def _held(registry: Snapshot, dataset_type: str, collections: Sequence[str]) -> pl.DataFrame | None:
    """Return the datasets of a type in some collections; None where nobody ever registered the type."""
    try:
        return registry.datasets(dataset_type, collections).drop("rank")
    except NotFound:
        registry.flatten(collections)  # a collection that does not exist is an error of its own
        return None


def _rows_held(
    registry: Snapshot, dataset_type: str, collections: Sequence[str], part: Part, codes: pl.DataFrame
) -> NDArray[np.int64]:
    """Return for each row of a table of datasets the registry's row id; −1 where it holds none."""
    table = part.datasets[dataset_type]
    rows = np.full(table.count, -1, dtype=np.int64)
    held = _held(registry, dataset_type, collections)
    if held is not None and table.count:
        coded = part.axes.encode(held)
        place = positions(coded, codes, part.axes)
        rows[place[place >= 0]] = coded["dataset"].to_numpy()[place >= 0]
    return rows


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
        held = _held(registry, name, [request.output_run])
        if held is None or not held.height or not count or not set(dimensions) <= set(held.columns):
            continue
        planned = part.axes.decode(codes if codes.width else pl.DataFrame({"": np.zeros(count)}), dimensions)
        both = planned.join(held, on=list(dimensions), how="semi") if dimensions else held
        yield from (f"{name} {row}" for row in both.select(dimensions).iter_rows(named=True))
