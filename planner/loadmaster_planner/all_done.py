"""Planning again when all is done: seen from what was recorded when the run began, without looking at the data.

A run remembers what was asked for, and the state of all that its plan was made from. As long as the same is asked for
and that state is the same, planning would find the same quanta; and once as many of each task have ended well in that
run, none is left. Cost: one look at an index, whatever the size of records and collections.
"""

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import polars as pl
from loadmaster_pipelines.pipeline import Pipeline
from loadmaster_registry.joins import CODE, Axes
from loadmaster_registry.records import CollectionType
from loadmaster_registry.schema import key_column
from loadmaster_registry.snapshot import Snapshot
from loadmaster_registry.universe import Universe

from .candidates import connected_parts, group_of, regular_types
from .graph import Datasets, Dropped, Edges, Part, Quanta
from .header import PlanHeader
from .request import Request

# What does not decide which quanta there are before anything counts as done.
_ELSEWHERE = ("output_run", "output", "skip_existing", "skip_existing_in", "allow_partial_gather", "clobber")


def planned_record(header: PlanHeader) -> str:
    """Return as JSON what a run is to remember of its plan."""
    quanta = {task.label: task.quanta for task in header.tasks if task.quanta}
    return json.dumps({"quanta": quanta, "dropped": [asdict(d) for d in header.dropped]})


def basis_of(
    registry: Snapshot, pipeline: Pipeline, request: Request, elide: Collection[str] = ()
) -> Mapping[str, str]:
    """Return digests of what is asked for, ``asked``, and of what that is planned from, ``state``.

    Nothing for a plan that leaves out what is done: that is planned from more.
    """
    if request.skip_existing is not None or request.repair:
        return {}
    return {"asked": _asked(pipeline, request, elide), "state": registry.state_of(request.inputs)}


def parts_if_all_done(
    registry: Snapshot, pipeline: Pipeline, request: Request, elide: Collection[str] = ()
) -> list[Part] | None:
    """Return the empty parts of a plan of which a run did everything; None where that is not certain.

    Only the RUN that is searched first is looked at: what others hold cannot be in the way of its outputs.
    """
    if request.skip_existing is None or request.repair:
        return None
    searched = registry.flatten(request.skip_existing_in)
    if not searched or searched[0].type is not CollectionType.RUN:
        return None
    run = searched[0].name
    found = registry.planned_run(run, _asked(pipeline, request, elide), registry.state_of(request.inputs))
    if found is None:
        return None
    planned = json.loads(found)
    done = registry.n_well_ended(run)
    if any(done.get(label, 0) != n for label, n in planned["quanta"].items()):
        return None
    return [_empty_part(registry, part, planned, request, run) for part in connected_parts(pipeline)]


def _asked(pipeline: Pipeline, request: Request, elide: Collection[str]) -> str:
    values = {name: value for name, value in request.to_json().items() if name not in _ELSEWHERE}
    text = json.dumps([pipeline.to_json(), values, sorted(elide)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _empty_part(
    registry: Snapshot, pipeline: Pipeline, planned: Mapping[str, Any], request: Request, run: str
) -> Part:
    universe = registry.universe
    types = {name: universe.group(d).required for name, d in regular_types(pipeline).items()}
    return Part(
        Axes({d: pl.Series(d, [], dtype=_dtype(universe, d)) for d in group_of(universe, pipeline).names}),
        {label: _no_quanta(universe, pipeline, label) for label in pipeline.tasks},
        {
            name: Datasets(name, required, _no_codes(required), 0, np.zeros(0, np.int64))
            for name, required in types.items()
        },
        dropped=[Dropped(**d) for d in planned["dropped"] if d["task"] in pipeline.tasks],
        done={label: n for label, n in planned["quanta"].items() if label in pipeline.tasks},
        reused=_made(registry, pipeline, run) if request.skip_existing != "exists" else {},
    )


def _dtype(universe: Universe, dimension: str) -> type[pl.DataType]:
    return pl.String if key_column(universe, dimension).type == "str" else pl.Int64


def _no_quanta(universe: Universe, pipeline: Pipeline, label: str) -> Quanta:
    task = pipeline.tasks[label]
    required = universe.group(task.dimensions).required
    nothing = Edges(np.zeros(0, np.uint32), np.zeros(0, np.uint32))
    return Quanta(
        label,
        required,
        _no_codes(required),
        0,
        types={c.name: c.dataset_type for c in (*task.inputs, *task.outputs)},
        inputs={c.name: nothing for c in task.inputs},
        outputs={c.name: nothing for c in task.outputs},
    )


def _no_codes(required: tuple[str, ...]) -> pl.DataFrame:
    return pl.DataFrame(schema=dict.fromkeys(required, CODE))


def _made(registry: Snapshot, pipeline: Pipeline, run: str) -> dict[str, np.ndarray[Any, np.dtype[np.int64]]]:
    """Return what a run made of each type, in order of data ID."""
    made = {c.dataset_type for task in pipeline.tasks.values() for c in task.outputs}
    found = {
        t.name: registry.datasets(t.name, [run])["dataset"]
        for t in registry.dataset_types()
        if t.name in made
    }
    return {name: rows.to_numpy() for name, rows in found.items() if rows.len()}
