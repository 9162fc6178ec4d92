"""Build the graph of connected tasks: candidates, less what is done, less what cannot run."""

from collections.abc import Collection
from dataclasses import replace

import numpy as np
from loadmaster_pipelines.pipeline import Pipeline, TaskNode
from loadmaster_registry.joins import Axes
from loadmaster_registry.snapshot import Snapshot
from numpy.typing import NDArray

from .candidates import candidates, group_of, select
from .content import without_the_same
from .existing import refuse_clashes, without_the_done
from .gather import partial_gathers
from .graph import Dropped, Part, Quanta, counts, keep_quanta, quantum_data_id, refuse_several
from .repair import without_the_sound
from .request import Request
from .target import closed


def build_part(registry: Snapshot, pipeline: Pipeline, request: Request, elide: Collection[str] = ()) -> Part:
    """Plan a pipeline whose tasks are all connected by regular inputs and outputs; prerequisites come later.

    Parameters
    ----------
    elide : collection of str
        Dataset types that are handed on in memory and never stored.

    Raises
    ------
    PlanError
        If an overall input's dataset type is unknown or has other dimensions than the registry says, or if an
        output of a quantum that is not done exists already.
    QueryError
        If `where` or `target` cannot be understood.
    """
    selection = select(registry, group_of(registry.universe, pipeline), request)
    if request.target:
        part = closed(registry, pipeline, request, selection)
    else:
        part = candidates(registry, pipeline, request, selection)
    remaining = without_the_existing(registry, pipeline, part, request, elide)
    refuse_clashes(registry, pipeline, remaining, request)
    finished = without_the_impossible(pipeline, remaining)
    trimmed = (
        () if request.target else partial_gathers(registry, pipeline, part, finished, request, selection)
    )
    return replace(finished, partial=trimmed)


def without_the_existing(
    registry: Snapshot, pipeline: Pipeline, part: Part, request: Request, elide: Collection[str] = ()
) -> Part:
    """Take out what need not run because its outputs exist."""
    if request.repair:
        return without_the_sound(registry, pipeline, part, request)
    if request.skip_existing == "exists":
        return without_the_done(registry, pipeline, part, request, elide)
    if request.skip_existing is not None:
        return without_the_same(registry, pipeline, without_the_impossible(pipeline, part), request)
    return part


def without_the_impossible(pipeline: Pipeline, part: Part) -> Part:
    """Drop, task by task downstream, inputs that nobody makes and quanta with too few inputs."""
    available = {name: table.existing >= 0 for name, table in part.datasets.items()}
    quanta: dict[str, Quanta] = {}
    dropped = list(part.dropped)
    missing = dict(part.missing)
    for task in pipeline.tasks.values():
        before = part.quanta[task.label]
        inputs = {}
        for c in task.inputs:
            edges = before.inputs[c.name]
            inputs[c.name] = edges.where(available[c.dataset_type][edges.dataset])
            missing[task.label] = missing.get(task.label, 0) + len(edges) - len(inputs[c.name])
        alive, why = _enough(task, replace(before, inputs=inputs), part.axes)
        dropped += why
        quanta[task.label] = keep_quanta(replace(before, inputs=inputs), alive)
        for c in task.outputs:
            available[c.dataset_type][quanta[task.label].outputs[c.name].dataset] = True
    return replace(part, quanta=quanta, dropped=dropped, missing=missing)


def _enough(task: TaskNode, quanta: Quanta, axes: Axes) -> tuple[NDArray[np.bool_], list[Dropped]]:
    """Say which quanta have as many of each regular input as they need."""
    alive = np.ones(quanta.count, dtype=bool)
    dropped = []
    for c in task.inputs:
        n = counts(quanta.inputs[c.name], quanta.count)
        short = alive & (n < c.minimum)
        if short.any():
            example = quantum_data_id(quanta, axes, int(short.argmax()))
            dropped.append(Dropped(task.label, c.name, c.dataset_type, int(short.sum()), c.minimum, example))
            alive &= ~short
    for c in task.inputs:  # only now: what falls away need not be right
        if not c.multiple:
            refuse_several(task, c, quanta, axes, alive & (counts(quanta.inputs[c.name], quanta.count) > 1))
    return alive, dropped
