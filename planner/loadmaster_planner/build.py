"""Build the quantum graph: data IDs by reduced joins, edges by projection, then what cannot run falls away.

The rules are those of Rubin's builder (all dimensions of the connected tasks at once; regular overall inputs
constrain, prerequisites do not). Cost: linear in the rows of the reduced relations and in the edges.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from loadmaster_pipelines.connections import Connection
from loadmaster_pipelines.pipeline import Pipeline, TaskNode
from loadmaster_registry.errors import NotFound, PlanError
from loadmaster_registry.frames import Keep
from loadmaster_registry.joins import Axes, Reduced
from loadmaster_registry.relations import Constrained, Constraint, constrain, kept_values
from loadmaster_registry.snapshot import Snapshot
from loadmaster_registry.where import parse
from numpy.typing import NDArray

from .graph import Datasets, Dropped, Edges, Part, Quanta, counts, positions
from .request import Request

_VALUES_TOLD = 5


@dataclass(frozen=True)
class Found:
    """What the input collections hold of an overall input: its first-found datasets."""

    name: str
    frame: pl.DataFrame  # required dimensions, `dataset`
    constrains: bool


def build_part(registry: Snapshot, pipeline: Pipeline, request: Request) -> Part:
    """Plan a pipeline whose tasks are all connected by regular inputs and outputs; prerequisites come later.

    Raises
    ------
    PlanError
        If an overall input's dataset type is unknown, or has other dimensions than the registry says.
    QueryError
        If `where` cannot be understood.
    """
    universe = registry.universe
    group = universe.group(_dimensions(pipeline))
    predicates = parse(request.where, universe=universe, bind=request.bind, dimensions=group)
    keep = kept_values(predicates)
    found = _overall_inputs(registry, pipeline, request.inputs, keep)
    constrained = constrain(registry, group, predicates, _constraints(found, request.inputs, keep))
    part = _candidates(registry, pipeline, constrained, found)
    return _without_the_impossible(pipeline, part)


def _unknown_input(name: str, consumers: Sequence[str], error: NotFound) -> PlanError:
    """Say that nobody ever registered an overall input."""
    return PlanError(
        what=f"nothing is known of the overall input {name!r}",
        where=f"task {', '.join(consumers)}",
        why=str(error.args[0]),
        todo=str(error.args[3]),
    )


def _dimensions(pipeline: Pipeline) -> set[str]:
    """Return the dimensions of all tasks and of all their regular inputs and outputs."""
    names: set[str] = set()
    for task in pipeline.tasks.values():
        names.update(task.dimensions)
        for connection in (*task.inputs, *task.outputs):
            names.update(connection.dimensions)
    return names


def _overall_inputs(
    registry: Snapshot, pipeline: Pipeline, collections: Sequence[str], keep: Keep
) -> Mapping[str, Found]:
    """Search the regular overall inputs: all consumers together decide whether a type constrains."""
    produced = {c.dataset_type for task in pipeline.tasks.values() for c in task.outputs}
    consumers: dict[str, list[tuple[str, Connection]]] = {}
    for task in pipeline.tasks.values():
        for connection in task.inputs:
            if connection.dataset_type not in produced:
                consumers.setdefault(connection.dataset_type, []).append((task.label, connection))
    found = {}
    for name, uses in consumers.items():
        constrains = not any(c.no_graph_constraint for _, c in uses)
        required = registry.universe.group(uses[0][1].dimensions).required
        try:
            known = registry.dataset_type(name)
        except NotFound as error:
            if constrains:
                raise _unknown_input(name, [label for label, _ in uses], error) from None
            found[name] = Found(name, _nothing(registry, required), False)
            continue
        if known.dimensions.required != required:
            raise PlanError(
                what=f"dataset type {name!r} has dimensions {known.dimensions} in the registry",
                where=f"task {uses[0][0]}, connection {uses[0][1].name}",
                why=f"the pipeline says {{{', '.join(required)}}}",
                todo="give the connection the registered dimensions, or another dataset type",
            )
        frame = registry.datasets(name, collections, keep=keep).select(*required, "dataset")
        found[name] = Found(name, frame, constrains and bool(required))
    return found


def _nothing(registry: Snapshot, required: Sequence[str]) -> pl.DataFrame:
    types = {d: pl.String if registry.universe[d].key.type == "str" else pl.Int64 for d in required}  # type: ignore[union-attr]
    return pl.DataFrame(schema={**types, "dataset": pl.Int64})


def _constraints(found: Mapping[str, Found], collections: Sequence[str], keep: Keep) -> list[Constraint]:
    where = ", ".join(collections)
    return [
        Constraint(f"existing {f.name} in {where}{_told(keep, f.frame.columns)}", f.frame.drop("dataset"))
        for f in found.values()
        if f.constrains
    ]


def _told(keep: Keep, dimensions: Sequence[str]) -> str:
    """Say which values of some dimensions were looked for, a few at most."""
    told = []
    for d in dimensions:
        if values := keep.get(d):
            more = ", …" if len(values) > _VALUES_TOLD else ""
            told.append(f"{d} {', '.join(map(str, values[:_VALUES_TOLD]))}{more}")
    return f" with {'; '.join(told)}" if told else ""


def _candidates(
    registry: Snapshot, pipeline: Pipeline, constrained: Constrained, found: Mapping[str, Found]
) -> Part:
    """Read quanta, datasets and edges off the reduced join."""
    projections = _Projections(constrained.rows)
    datasets = {}
    for name, dimensions in _regular_types(pipeline).items():
        required = registry.universe.group(dimensions).required
        codes, count = projections.table(required)
        existing = np.full(count, -1, dtype=np.int64)
        if name in found:
            coded = constrained.rows.axes.encode(found[name].frame)
            place = positions(coded, codes, constrained.rows.axes)
            taking_part = (place >= 0) & (place < count)
            existing[place[taking_part]] = coded["dataset"].to_numpy()[taking_part]
        datasets[name] = Datasets(name, required, codes, count, existing)
    quanta = {}
    for task in pipeline.tasks.values():
        required = registry.universe.group(task.dimensions).required
        codes, count = projections.table(required)
        edges = {
            c.name: projections.edges(required, datasets[c.dataset_type])
            for c in (*task.inputs, *task.outputs)
        }
        quanta[task.label] = Quanta(
            task.label,
            required,
            codes,
            count,
            types={c.name: c.dataset_type for c in (*task.inputs, *task.outputs)},
            inputs={c.name: edges[c.name] for c in task.inputs},
            outputs={c.name: edges[c.name] for c in task.outputs},
        )
    why = constrained.why_empty() if constrained.rows.is_empty else ""
    return Part(constrained.rows.axes, quanta, datasets, why_empty=why)


def _regular_types(pipeline: Pipeline) -> Mapping[str, tuple[str, ...]]:
    return {
        c.dataset_type: c.dimensions
        for task in pipeline.tasks.values()
        for c in (*task.inputs, *task.outputs)
    }


class _Projections:
    """Projections of a reduced join, each made once."""

    def __init__(self, rows: Reduced) -> None:
        self._rows = rows
        self._made: dict[tuple[str, ...], pl.DataFrame] = {}

    def table(self, dimensions: Sequence[str]) -> tuple[pl.DataFrame, int]:
        """Return the distinct codes over `dimensions`, and how many there are (one, where nothing varies)."""
        varying = self._rows.axes.varying(dimensions)
        if varying not in self._made:
            self._made[varying] = self._rows.rows(varying)
        codes = self._made[varying]
        return codes, codes.height if varying else int(not self._rows.is_empty)

    def edges(self, quantum: Sequence[str], datasets: Datasets) -> Edges:
        """Link a quantum to a dataset where some row of the join has both."""
        axes = self._rows.axes
        quanta, n_quanta = self.table(quantum)
        both, count = self.table((*quantum, *(d for d in datasets.dimensions if d not in quantum)))
        if not both.width:
            return Edges(np.zeros(count, np.uint32), np.zeros(count, np.uint32))
        same = both.width == quanta.width
        q = np.arange(n_quanta) if same else positions(both, quanta, axes)
        return Edges(q.astype(np.uint32), positions(both, datasets.codes, axes).astype(np.uint32))


def _without_the_impossible(pipeline: Pipeline, part: Part) -> Part:
    """Drop, task by task downstream, inputs that nobody makes and quanta with too few inputs."""
    available = {name: table.existing >= 0 for name, table in part.datasets.items()}
    quanta: dict[str, Quanta] = {}
    dropped: list[Dropped] = []
    missing: dict[str, int] = {}
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
        if not c.multiple:
            refuse_several(task, c, quanta, axes, alive & (n > 1))
    return alive, dropped


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


def quantum_data_id(quanta: Quanta, axes: Axes, row: int) -> dict[str, int | str]:
    """Return the required data ID of one quantum."""
    return {
        d: axes.values[d][int(quanta.codes[d][row]) if d in quanta.codes.columns else 0]
        for d in quanta.dimensions
    }


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
