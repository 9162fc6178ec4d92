"""Candidate quanta: data IDs, datasets and edges as the reduced join of all dimensions of connected tasks gives them.

The rules are those of Rubin's builder (all dimensions of the connected tasks at once; regular overall inputs
constrain, prerequisites do not). Cost: linear in the rows of the reduced relations and in the edges.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from loadmaster_pipelines.connections import Connection
from loadmaster_pipelines.pipeline import Pipeline, TaskNode
from loadmaster_registry.errors import NotFound, PlanError
from loadmaster_registry.frames import Keep
from loadmaster_registry.joins import Reduced
from loadmaster_registry.relations import Constrained, Constraint, Exclusion, constrain, kept_values
from loadmaster_registry.snapshot import Snapshot
from loadmaster_registry.universe import DimensionGroup, Universe
from loadmaster_registry.where import Predicate, parse

from .data_id_tables import DataIdTable
from .flags import flagged
from .graph import Datasets, Edges, Part, Quanta, positions
from .lookups import with_implied
from .pixels import generated_pixels, pixel_tables, with_pixels
from .request import Request

_VALUES_TOLD = 5


@dataclass(frozen=True)
class Selection:
    """What restricts the data IDs of some connected tasks, besides what exists."""

    predicates: tuple[Predicate, ...]
    tables: tuple[DataIdTable, ...]
    exclusions: tuple[Exclusion, ...]

    @property
    def keep(self) -> Keep:
        """The only values that matter, for dimensions that the predicates fix."""
        return kept_values(self.predicates)

    @property
    def constraints(self) -> list[Constraint]:
        """What the tables admit."""
        return [Constraint(f"data IDs of {table.name}", table.frame) for table in self.tables]


@dataclass(frozen=True)
class Found:
    """What the input collections hold of an overall input: its first-found datasets."""

    name: str
    frame: pl.DataFrame  # required dimensions, `dataset`
    constrains: bool


def connected_parts(pipeline: Pipeline) -> list[Pipeline]:
    """Split a pipeline into parts that do not constrain each other's data IDs.

    An overall input that one task can do without, in whatever part, constrains no part.
    """
    inputs = [c for task in pipeline.tasks.values() for c in task.inputs]
    free = {c.dataset_type for c in inputs if c.no_graph_constraint or c.minimum == 0}

    def freed(task: TaskNode) -> TaskNode:
        connections = tuple(
            replace(c, no_graph_constraint=True) if c.kind == "input" and c.dataset_type in free else c
            for c in task.connections
        )
        return replace(task, connections=connections)

    whole = replace(pipeline, tasks={label: freed(task) for label, task in pipeline.tasks.items()})
    return [whole.subset(labels) for labels in pipeline.components()]


def select(registry: Snapshot, group: DimensionGroup, request: Request) -> Selection:
    """Read what a request says about the data IDs over `group`.

    Raises
    ------
    QueryError
        If `where` cannot be understood.
    """
    universe = registry.universe
    predicates = parse(request.where, universe=universe, bind=request.bind, dimensions=group)
    exclusions = () if request.include_flagged else flagged(registry, group)
    return Selection(predicates, request.tables, exclusions)


def candidates(registry: Snapshot, pipeline: Pipeline, request: Request, selection: Selection) -> Part:
    """Return all quanta that `selection` and the existing overall inputs admit.

    Raises
    ------
    PlanError
        If an overall input's dataset type is unknown, or has other dimensions than the registry says.
    """
    found = overall_inputs(registry, pipeline, request.inputs, selection.keep)
    constraints = [
        *existing_constraints(found, request.inputs, selection.keep),
        *selection.constraints,
    ]
    constrained = constrain(
        registry,
        listed_group(registry.universe, pipeline, constraints),
        selection.predicates,
        constraints,
        selection.exclusions,
    )
    return projected(registry, pipeline, constrained, found)


def group_of(universe: Universe, pipeline: Pipeline) -> DimensionGroup:
    """Return the dimensions of all tasks and of all their regular inputs and outputs."""
    names: set[str] = set()
    for task in pipeline.tasks.values():
        names.update(task.dimensions)
        for connection in (*task.inputs, *task.outputs):
            names.update(connection.dimensions)
    return universe.group(names)


def listed_group(universe: Universe, pipeline: Pipeline, constraints: Iterable[Constraint]) -> DimensionGroup:
    """Return the dimensions of `group_of` without sky pixels that nothing lists."""
    names = group_of(universe, pipeline).names
    generated = generated_pixels(universe, names, {d for c in constraints for d in c.frame.columns})
    return universe.group(d for d in names if d not in generated)


def overall_inputs(
    registry: Snapshot, pipeline: Pipeline, collections: Sequence[str], keep: Keep
) -> Mapping[str, Found]:
    """Search the regular overall inputs; what one consumer can do without does not constrain."""
    produced = {c.dataset_type for task in pipeline.tasks.values() for c in task.outputs}
    consumers: dict[str, list[tuple[str, Connection]]] = {}
    for task in pipeline.tasks.values():
        for connection in task.inputs:
            if connection.dataset_type not in produced:
                consumers.setdefault(connection.dataset_type, []).append((task.label, connection))
    return {name: _found(registry, name, uses, collections, keep) for name, uses in consumers.items()}


def _found(
    registry: Snapshot,
    name: str,
    uses: Sequence[tuple[str, Connection]],
    collections: Sequence[str],
    keep: Keep,
) -> Found:
    constrains = not any(c.no_graph_constraint for _, c in uses)
    required = registry.universe.group(uses[0][1].dimensions).required
    try:
        known = registry.dataset_type(name)
    except NotFound as error:
        if constrains:
            raise _unknown_input(name, [label for label, _ in uses], error) from None
        return Found(name, _nothing(registry, required), False)
    if known.dimensions.required != required:
        raise PlanError(
            what=f"dataset type {name!r} has dimensions {known.dimensions} in the registry",
            where=f"task {uses[0][0]}, connection {uses[0][1].name}",
            why=f"the pipeline says {{{', '.join(required)}}}",
            todo="give the connection the registered dimensions, or another dataset type",
        )
    frame = registry.datasets(name, collections, keep=keep).select(*required, "dataset")
    return Found(name, frame, constrains and bool(required))


def _unknown_input(name: str, consumers: Sequence[str], error: NotFound) -> PlanError:
    """Say that nobody ever registered an overall input."""
    return PlanError(
        what=f"nothing is known of the overall input {name!r}",
        where=f"task {', '.join(consumers)}",
        why=str(error.args[0]),
        todo=str(error.args[3]),
    )


def _nothing(registry: Snapshot, required: Sequence[str]) -> pl.DataFrame:
    types = {d: pl.String if registry.universe[d].key.type == "str" else pl.Int64 for d in required}  # type: ignore[union-attr]
    return pl.DataFrame(schema={**types, "dataset": pl.Int64})


def existing_constraints(
    found: Mapping[str, Found], collections: Sequence[str], keep: Keep
) -> list[Constraint]:
    """Return the constraints that follow from overall inputs having to exist."""
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


def projected(
    registry: Snapshot, pipeline: Pipeline, constrained: Constrained, found: Mapping[str, Found]
) -> Part:
    """Read quanta, datasets and edges off a reduced join, and note which datasets exist."""
    projections = Projections(registry, constrained.rows, branches(registry.universe, pipeline))
    datasets = {}
    for name, dimensions in regular_types(pipeline).items():
        required = registry.universe.group(dimensions).required
        codes, count = projections.table(required)
        datasets[name] = Datasets(name, required, codes, count, np.full(count, -1, dtype=np.int64))
    part = Part(
        projections.axes,
        {
            task.label: quanta_of(registry, pipeline, task.label, projections, datasets)
            for task in pipeline.tasks.values()
        },
        datasets,
        why_empty=constrained.why_empty() if constrained.rows.is_empty else "",
    )
    mark_existing(part, found.values())
    return part


def quanta_of(
    registry: Snapshot,
    pipeline: Pipeline,
    label: str,
    projections: "Projections",
    datasets: Mapping[str, Datasets],
) -> Quanta:
    """Return one task's quanta with all their edges."""
    task = pipeline.tasks[label]
    required = registry.universe.group(task.dimensions).required
    codes, count = projections.table(required)
    edges = {
        c.name: projections.edges(required, datasets[c.dataset_type]) for c in (*task.inputs, *task.outputs)
    }
    return Quanta(
        label,
        required,
        codes,
        count,
        types={c.name: c.dataset_type for c in (*task.inputs, *task.outputs)},
        inputs={c.name: edges[c.name] for c in task.inputs},
        outputs={c.name: edges[c.name] for c in task.outputs},
    )


def mark_existing(part: Part, found: Iterable[Found]) -> None:
    """Note in the tables of datasets which of them the registry holds."""
    for held in found:
        table = part.datasets[held.name]
        coded = part.axes.encode(held.frame)
        place = positions(coded, table.codes, part.axes)
        taking_part = (place >= 0) & (place < table.count)
        table.existing[place[taking_part]] = coded["dataset"].to_numpy()[taking_part]


def regular_types(pipeline: Pipeline) -> Mapping[str, tuple[str, ...]]:
    """Return the dimensions, as written, of all regular inputs and outputs by dataset type."""
    return {
        c.dataset_type: c.dimensions
        for task in pipeline.tasks.values()
        for c in (*task.inputs, *task.outputs)
    }


def branches(universe: Universe, pipeline: Pipeline) -> list[DimensionGroup]:
    """Return the dimensions of tasks, of regular inputs and outputs, and of each pair of them that an edge links."""
    found = {}
    for task in pipeline.tasks.values():
        for c in (*task.inputs, *task.outputs):
            for names in (task.dimensions, c.dimensions, (*task.dimensions, *c.dimensions)):
                group = universe.group(names)
                found[group.required] = group
    return list(found.values())


class Projections:
    """Projections of a reduced join, each made once; sky pixels that nothing lists come from regions."""

    def __init__(self, registry: Snapshot, rows: Reduced, branches: Iterable[DimensionGroup] = ()) -> None:
        self._registry = registry
        self._rows = rows
        self._made: dict[tuple[str, ...], pl.DataFrame] = {}
        branches = list(branches)
        self._generated = frozenset(d for b in branches for d in b.required) - set(rows.axes.values)
        self._pixels = pixel_tables(registry, rows, branches, self._generated) if self._generated else {}
        self.axes = with_pixels(rows.axes, self._pixels, self._generated) if self._generated else rows.axes

    def table(self, dimensions: Sequence[str]) -> tuple[pl.DataFrame, int]:
        """Return the distinct codes over `dimensions`, and how many there are (one, where nothing varies)."""
        if self._generated.intersection(dimensions):
            return self._pixel_table(dimensions)
        varying = self.axes.varying(dimensions)
        if varying not in self._made:
            self._made[varying] = self._rows.rows(varying)
        codes = self._made[varying]
        return codes, codes.height if varying else int(not self._rows.is_empty)

    def _pixel_table(self, dimensions: Sequence[str]) -> tuple[pl.DataFrame, int]:
        group = self._registry.universe.group(dimensions)
        ids = with_implied(self._registry, self._pixels[group.required], group).select(dimensions)
        varying = self.axes.varying(dimensions)
        codes = self.axes.encode(ids).select(varying).unique().sort(varying) if varying else pl.DataFrame()
        return codes, codes.height if varying else int(ids.height > 0)

    def ids(self, dimensions: Sequence[str]) -> tuple[pl.DataFrame, int]:
        """Return the distinct values of `dimensions`, and how many there are."""
        codes, count = self.table(dimensions)
        return self.axes.decode(
            codes if codes.width else pl.DataFrame({"": np.zeros(count)}), dimensions
        ), count

    def edges(self, quantum: Sequence[str], datasets: Datasets) -> Edges:
        """Link a quantum to a dataset where some row of the join has both."""
        quanta, n_quanta = self.table(quantum)
        both, count = self.table((*quantum, *(d for d in datasets.dimensions if d not in quantum)))
        if not both.width:
            return Edges(np.zeros(count, np.uint32), np.zeros(count, np.uint32))
        same = both.width == quanta.width and not self._generated
        q = np.arange(n_quanta) if same else positions(both, quanta, self.axes)
        return Edges(q.astype(np.uint32), positions(both, datasets.codes, self.axes).astype(np.uint32))
