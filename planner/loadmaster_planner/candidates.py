"""Candidate quanta: data IDs, datasets and edges as the reduced join of all dimensions of connected tasks gives them.

The rules are those of Rubin's builder (all dimensions of the connected tasks at once; regular overall inputs
constrain, prerequisites do not). Cost: linear in the rows of the reduced relations and in the edges.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from loadmaster_pipelines.connections import Connection
from loadmaster_pipelines.pipeline import Pipeline
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
        group_of(registry.universe, pipeline),
        selection.predicates,
        constraints,
        selection.exclusions,
    )
    return _projected(registry, pipeline, constrained, found)


def group_of(universe: Universe, pipeline: Pipeline) -> DimensionGroup:
    """Return the dimensions of all tasks and of all their regular inputs and outputs."""
    names: set[str] = set()
    for task in pipeline.tasks.values():
        names.update(task.dimensions)
        for connection in (*task.inputs, *task.outputs):
            names.update(connection.dimensions)
    return universe.group(names)


def overall_inputs(
    registry: Snapshot, pipeline: Pipeline, collections: Sequence[str], keep: Keep
) -> Mapping[str, Found]:
    """Search the regular overall inputs: all consumers together decide whether a type constrains."""
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


def _projected(
    registry: Snapshot, pipeline: Pipeline, constrained: Constrained, found: Mapping[str, Found]
) -> Part:
    """Read quanta, datasets and edges off the reduced join."""
    projections = Projections(constrained.rows)
    datasets = {}
    for name, dimensions in regular_types(pipeline).items():
        required = registry.universe.group(dimensions).required
        codes, count = projections.table(required)
        datasets[name] = Datasets(name, required, codes, count, np.full(count, -1, dtype=np.int64))
    part = Part(
        constrained.rows.axes,
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


class Projections:
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
