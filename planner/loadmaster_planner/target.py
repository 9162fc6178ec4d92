"""From end products upstream: everything that they need, complete, and nothing else.

Task by task against the flow, the needed outputs say which quanta are needed, and these which inputs. What a quantum
needs is what planning its task and those upstream of it gives: no task downstream, and no sky that these are about,
takes anything away. Cost: for each task one reduced join, narrowed to what is needed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import networkx as nx
import numpy as np
import polars as pl
from loadmaster_pipelines.connections import Connection
from loadmaster_pipelines.pipeline import Pipeline, TaskNode
from loadmaster_registry.errors import PlanError
from loadmaster_registry.frames import DTYPES
from loadmaster_registry.joins import Axes
from loadmaster_registry.relations import Constrained, Constraint, constrain
from loadmaster_registry.schema import key_column
from loadmaster_registry.snapshot import Snapshot
from loadmaster_registry.universe import Universe
from loadmaster_registry.where import Predicate, parse

from .candidates import (
    Found,
    Projections,
    Selection,
    branches,
    existing_constraints,
    group_of,
    listed_group,
    mark_existing,
    overall_inputs,
    regular_types,
)
from .gather import upstream
from .graph import Datasets, Edges, Part, Quanta, positions
from .request import Request

_Ids = pl.DataFrame  # values of required dimensions, distinct


@dataclass
class _Needed:
    """What has been found to be needed so far, as values."""

    quanta: dict[str, tuple[_Ids, int]] = field(default_factory=dict)
    edges: dict[tuple[str, str], tuple[_Ids, int]] = field(default_factory=dict)
    datasets: dict[str, list[_Ids]] = field(default_factory=dict)
    why_empty: list[str] = field(default_factory=list)


def check_target(universe: Universe, pipeline: Pipeline, request: Request) -> None:
    """Refuse a target that no task can produce.

    Raises
    ------
    PlanError
    """
    if not request.target:
        if request.target_type:
            raise PlanError(
                what=f"nothing says which {request.target_type!r} are wanted",
                where="target",
                why="a dataset type is named, but no data IDs",
                todo='add the target\'s expression, such as "tract=9813 AND patch IN (1,2)"',
            )
        return
    predicates = target_predicates(universe, pipeline, request)
    if not last_tasks(universe, pipeline, predicates, request):
        named = sorted({d for p in predicates for d in p.dimensions})
        raise PlanError(
            what="no task makes what the target asks for",
            where=f"target `{request.target}`",
            why=f"no task's data IDs have all of {', '.join(named)}"
            + (f", or none of them makes {request.target_type!r}" if request.target_type else ""),
            todo="name fewer dimensions, or another dataset type; see what there is: loadmaster pipeline show",
        )


def closed(registry: Snapshot, pipeline: Pipeline, request: Request, selection: Selection) -> Part:
    """Return the candidates that the target needs.

    Parameters
    ----------
    selection : Selection
        Its predicates and tables hold for each task whose dimensions, or those of the tasks upstream, they name.
    """
    universe = registry.universe
    predicates = target_predicates(universe, pipeline, request)
    last = last_tasks(universe, pipeline, predicates, request)
    needed = _Needed()
    for task in reversed(list(pipeline.tasks.values())):
        if task.label in last:
            joined = _join(registry, pipeline, task, request, selection, predicates)
            if joined.rows.is_empty:
                needed.why_empty.append(joined.why_empty())
        elif ids := _wanted(registry, pipeline, task, request, selection, needed):
            joined = _join(registry, pipeline, task, request, selection, (), ids)
        else:
            continue
        _note(registry, pipeline, task, joined, needed)
    found = overall_inputs(registry, pipeline, request.inputs, {})
    why = "\n".join(needed.why_empty) if not any(n for _, n in needed.quanta.values()) else ""
    return _assembled(registry, pipeline, needed, found, why)


def target_predicates(universe: Universe, pipeline: Pipeline, request: Request) -> tuple[Predicate, ...]:
    """Read the target's expression."""
    group = group_of(universe, pipeline)
    return parse(
        f"{request.target}", universe=universe, bind=request.bind, dimensions=group, given=_given(request)
    )


def _given(request: Request) -> Mapping[str, int | str]:
    """What belongs to an instrument or sky map may be named in a target without naming that: the rows tell."""
    return {"instrument": "", "skymap": ""} if request.target else {}


def last_tasks(
    universe: Universe, pipeline: Pipeline, predicates: Sequence[Predicate], request: Request
) -> set[str]:
    """Return the tasks that the target is about: with all its dimensions, and none such downstream."""
    named = {d for p in predicates for d in p.dimensions}
    able = {
        task.label
        for task in pipeline.tasks.values()
        if named <= set(universe.group(task.dimensions).names)
        and (not request.target_type or request.target_type in {c.dataset_type for c in task.outputs})
    }
    graph = pipeline.task_graph()
    return {label for label in able if not able & nx.descendants(graph, label)}


def _wanted(
    registry: Snapshot,
    pipeline: Pipeline,
    task: TaskNode,
    request: Request,
    selection: Selection,
    needed: _Needed,
) -> list[Constraint]:
    """Return what says which quanta of a task are needed: the outputs of it that are."""
    universe = registry.universe
    own = universe.group(task.dimensions).required
    pieces = []
    for c in task.outputs:
        frames = needed.datasets.get(c.dataset_type, [])
        if not frames:
            continue
        outputs = pl.concat(frames).unique()
        if set(outputs.columns) != set(own):
            these = Constraint(f"needed {c.dataset_type}", outputs, narrows=True)
            joined = _join(registry, pipeline, task, request, selection, (), [these] if own else [])
            outputs = joined.rows.data_ids(own)
        pieces.append(outputs.select(own))
    if not pieces:
        return []
    return [Constraint(f"needed quanta of {task.label}", pl.concat(pieces).unique(), narrows=True)]


def _join(
    registry: Snapshot,
    pipeline: Pipeline,
    task: TaskNode,
    request: Request,
    selection: Selection,
    predicates: Sequence[Predicate],
    constraints: Sequence[Constraint] = (),
) -> Constrained:
    """Join all that concerns a task and those upstream of it."""
    above = upstream(pipeline, task.label)
    usable = [c for c in constraints if c.frame.width]
    names = set(group_of(registry.universe, above).names)
    own = [p for p in selection.predicates if p.dimensions <= names]
    tables = [t for t in selection.constraints if set(t.frame.columns) <= names]
    keep = {d: c.frame[d].unique().to_list() for c in constraints for d in c.frame.columns}
    found = overall_inputs(registry, above, request.inputs, keep)
    admitting = [*usable, *existing_constraints(found, request.inputs, {}), *tables]
    group = listed_group(registry.universe, above, admitting)
    return constrain(registry, group, [*own, *predicates], admitting, selection.exclusions)


def _note(
    registry: Snapshot, pipeline: Pipeline, task: TaskNode, joined: Constrained, needed: _Needed
) -> None:
    """Keep a task's quanta and edges, and that their inputs are needed."""
    universe = registry.universe
    required = universe.group(task.dimensions).required
    projections = Projections(registry, joined.rows, branches(universe, pipeline.subset([task.label])))
    needed.quanta[task.label] = projections.ids(required)
    for c in (*task.inputs, *task.outputs):
        own = universe.group(c.dimensions).required
        pairs = projections.ids((*required, *(d for d in own if d not in required)))
        needed.edges[task.label, c.name] = pairs
        if c.kind == "input" and pairs[1]:
            needed.datasets.setdefault(c.dataset_type, []).append(pairs[0].select(own).unique())


def _assembled(
    registry: Snapshot, pipeline: Pipeline, needed: _Needed, found: Mapping[str, Found], why_empty: str
) -> Part:
    """Put what is needed onto axes."""
    universe = registry.universe
    frames = [f for f, _ in (*needed.quanta.values(), *needed.edges.values())]
    group = group_of(universe, pipeline)
    values: dict[str, list[pl.Series]] = {d: [] for d in group.names}
    for implied in {i for d in group.names for i in universe[d].implied}:
        values[implied].append(registry.records(implied)[implied])
    for frame in frames:
        for d in frame.columns:
            values[d].append(frame[d])
    axes = Axes({d: _axis(universe, d, pieces) for d, pieces in values.items()})
    datasets = {}
    for name, dimensions in regular_types(pipeline).items():
        required = universe.group(dimensions).required
        pieces = [needed.edges[key] for key in _uses(pipeline, name) if key in needed.edges]
        datasets[name] = _datasets(axes, name, required, pieces)
    quanta = {task.label: _quanta(axes, universe, task, needed, datasets) for task in pipeline.tasks.values()}
    part = Part(axes, quanta, datasets, why_empty=why_empty)
    mark_existing(part, [f for f in found.values() if f.name in datasets])
    return part


def _axis(universe: Universe, dimension: str, pieces: Sequence[pl.Series]) -> pl.Series:
    dtype = DTYPES[key_column(universe, dimension).type]
    return pl.concat([pl.Series(dimension, [], dtype=dtype), *pieces]).unique().sort()


def _uses(pipeline: Pipeline, dataset_type: str) -> list[tuple[str, str]]:
    return [
        (task.label, c.name)
        for task in pipeline.tasks.values()
        for c in (*task.inputs, *task.outputs)
        if c.dataset_type == dataset_type
    ]


def _coded(axes: Axes, ids: _Ids, dimensions: Sequence[str]) -> pl.DataFrame:
    varying = axes.varying(dimensions)
    return (
        axes.encode(ids.select(dimensions)).select(varying).unique().sort(varying)
        if varying
        else pl.DataFrame()
    )


def _datasets(
    axes: Axes, name: str, required: tuple[str, ...], pieces: Sequence[tuple[_Ids, int]]
) -> Datasets:
    used = [frame.select(required) for frame, n in pieces if n]
    codes = _coded(axes, pl.concat(used), required) if used and required else pl.DataFrame()
    count = codes.height if codes.width else int(bool(used))
    return Datasets(name, required, codes, count, np.full(count, -1, dtype=np.int64))


def _quanta(
    axes: Axes, universe: Universe, task: TaskNode, needed: _Needed, datasets: Mapping[str, Datasets]
) -> Quanta:
    required = universe.group(task.dimensions).required
    ids, n = needed.quanta.get(task.label, (pl.DataFrame(), 0))
    codes = _coded(axes, ids, required) if n and required else _no_codes(axes, required)
    count = codes.height if codes.width else int(bool(n))

    def edges(c: Connection) -> Edges:
        pairs, m = needed.edges.get((task.label, c.name), (pl.DataFrame(), 0))
        if not m:
            return Edges(np.zeros(0, np.uint32), np.zeros(0, np.uint32))
        coded = axes.encode(pairs) if pairs.width else pl.DataFrame({"": [0]})
        q, d = positions(coded, codes, axes), positions(coded, datasets[c.dataset_type].codes, axes)
        order = np.lexsort((d, q))
        return Edges(q[order].astype(np.uint32), d[order].astype(np.uint32))

    return Quanta(
        task.label,
        required,
        codes,
        count,
        types={c.name: c.dataset_type for c in (*task.inputs, *task.outputs)},
        inputs={c.name: edges(c) for c in task.inputs},
        outputs={c.name: edges(c) for c in task.outputs},
    )


def _no_codes(axes: Axes, required: Sequence[str]) -> pl.DataFrame:
    return pl.DataFrame(schema=dict.fromkeys(axes.varying(required), pl.UInt32))
