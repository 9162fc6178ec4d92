"""Gathers that a restriction leaves with a part of their inputs.

A task gathers where an input's dimensions go beyond its own. What a quantum would gather without the restriction is
what planning the task and those upstream of it, for that quantum alone, gives: the tasks downstream, and the sky
they they are about, restrict nothing then.

Often that need not be planned. Let K be the relations of the plan's join that lead, by dimensions which are not the
task's own, to those that an input has beyond them. If the task and those upstream of it have all of K, a quantum
gathers the same with all other relations as without: these have only the task's own dimensions in common with K, so
they take it whole or not at all.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import networkx as nx
import numpy as np
import polars as pl
from loadmaster_pipelines.connections import Connection
from loadmaster_pipelines.pipeline import Pipeline, TaskNode
from loadmaster_registry.relations import Constrained, Constraint, Exclusion, constrain, joined_dimensions
from loadmaster_registry.snapshot import Snapshot
from loadmaster_registry.universe import DimensionGroup, Universe
from loadmaster_registry.where import Predicate

from .candidates import Selection, existing_constraints, group_of, listed_group, overall_inputs
from .graph import Part, PartialGather, Quanta, counts, positions, quantum_data_id
from .lookups import region_elements
from .request import Request


@dataclass(frozen=True)
class _Join:
    """What `constrain` joins."""

    group: DimensionGroup
    predicates: tuple[Predicate, ...]
    constraints: tuple[Constraint, ...]
    exclusions: tuple[Exclusion, ...]

    def dimensions(self, universe: Universe) -> Mapping[object, frozenset[str]]:
        """Return the dimensions of each relation."""
        return joined_dimensions(universe, self.group, self.predicates, self.constraints, self.exclusions)


def partial_gathers(
    registry: Snapshot, pipeline: Pipeline, part: Part, finished: Part, request: Request, selection: Selection
) -> tuple[PartialGather, ...]:
    """Find the quanta of `finished` that gather less than they would without `where` and data-ID tables.

    Parameters
    ----------
    part : Part
        All candidates: what fell away since for want of an input is no matter of the restriction.
    """
    universe = registry.universe
    restrictions = [p.dimensions for p in selection.predicates if not _is_context(universe, p)]
    restrictions += [frozenset(table.frame.columns) for table in selection.tables]
    everything: Mapping[object, frozenset[str]] | None = None
    found = []
    for task in pipeline.tasks.values():
        gathers = [c for c in task.inputs if _gathers(universe, task, c)]
        own = set(universe.group(task.dimensions).names)
        if not gathers or not finished.quanta[task.label].count or all(r <= own for r in restrictions):
            continue
        everything = everything or _restricted(registry, pipeline, request, selection).dimensions(universe)
        unrestricted = _unrestricted(registry, pipeline, task, request, selection)
        above = unrestricted.dimensions(universe)
        if trimmed := [c for c in gathers if not _takes_whole(universe, own, c, above, everything)]:
            found += _partial(registry, task, trimmed, part, finished, unrestricted)
    return tuple(found)


def upstream(pipeline: Pipeline, label: str) -> Pipeline:
    """Return the pipeline of one task and all whose outputs it needs, directly or not."""
    return pipeline.subset(nx.ancestors(pipeline.task_graph(), label) | {label})


def context(universe: Universe, predicates: Iterable[Predicate]) -> tuple[Predicate, ...]:
    """Return the predicates that only say which instrument or sky map is meant."""
    return tuple(p for p in predicates if _is_context(universe, p))


def _is_context(universe: Universe, predicate: Predicate) -> bool:
    return all(universe[d].is_governor for d in predicate.dimensions)


def _gathers(universe: Universe, task: TaskNode, connection: Connection) -> bool:
    own, gathered = universe.group(task.dimensions).names, universe.group(connection.dimensions).required
    if any(universe[d].is_skypix for d in (*own, *gathered)):
        return False  # which pixels there are follows from regions, whatever is selected
    return connection.multiple and not set(gathered) <= set(own)


def _restricted(registry: Snapshot, pipeline: Pipeline, request: Request, selection: Selection) -> _Join:
    """Return what the candidates are read off."""
    found = overall_inputs(registry, pipeline, request.inputs, selection.keep)
    constraints = (*existing_constraints(found, request.inputs, {}), *selection.constraints)
    group = listed_group(registry.universe, pipeline, constraints)
    return _Join(group, selection.predicates, constraints, selection.exclusions)


def _unrestricted(
    registry: Snapshot, pipeline: Pipeline, task: TaskNode, request: Request, selection: Selection
) -> _Join:
    """Return all that concerns a task and those above it, without the restriction.

    What says which regions belong together, about these tasks, is no restriction.
    """
    universe = registry.universe
    above = upstream(pipeline, task.label)
    own = universe.group(task.dimensions).required
    # Reading what the plan's own join has read costs nothing; what it has not restricted is not narrow here either.
    keep = {d: values for d, values in selection.keep.items() if d in own}
    found = overall_inputs(registry, above, request.inputs, keep)
    whole = group_of(universe, above)
    joins = [p for p in selection.predicates if p.joined and _is_about(universe, p, whole)]
    related = [
        c for c in selection.constraints if _relates(universe, c) and set(c.frame.columns) <= set(whole)
    ]
    constraints = (*related, *existing_constraints(found, request.inputs, {}))
    predicates = (*context(universe, selection.predicates), *joins)
    return _Join(listed_group(universe, above, constraints), predicates, constraints, selection.exclusions)


def _takes_whole(
    universe: Universe,
    own: set[str],
    gathered: Connection,
    above: Mapping[object, frozenset[str]],
    everything: Mapping[object, frozenset[str]],
) -> bool:
    """Whether those of `everything` that are not `above` take a quantum with all that it gathers, or not at all.

    Parameters
    ----------
    own : set of str
        The dimensions of the quantum.
    """
    beyond = set(universe.group(gathered.dimensions).required) - own
    leading: set[object] = set()
    while more := {name for name, names in everything.items() if names & beyond} - leading:
        leading |= more
        beyond = beyond.union(*(everything[name] for name in more)) - own
    return leading <= above.keys() <= everything.keys()


def _partial(
    registry: Snapshot,
    task: TaskNode,
    gathers: Sequence[Connection],
    part: Part,
    finished: Part,
    unrestricted: _Join,
) -> list[PartialGather]:
    kept = finished.quanta[task.label]
    planned = part.quanta[task.label]
    rows = positions(kept.codes, planned.codes, part.axes) if kept.codes.width else np.zeros(1, np.int64)
    ids = _values(kept, part)
    these = [Constraint("the quanta", ids, narrows=True)] if ids.width else []
    constraints = (*these, *unrestricted.constraints)
    joined = constrain(
        registry, unrestricted.group, unrestricted.predicates, constraints, unrestricted.exclusions
    )
    found = []
    for c in gathers:
        now = counts(planned.inputs[c.name], planned.count)[rows]
        whole = _complete(registry, joined, kept, ids, c)
        short = whole > now
        if short.any():
            example = quantum_data_id(kept, part.axes, int(short.argmax()))
            sums = int(now[short].sum()), int(whole[short].sum())
            found.append(PartialGather(task.label, c.name, c.dataset_type, int(short.sum()), *sums, example))
    return found


def _is_about(universe: Universe, join: Predicate, group: DimensionGroup) -> bool:
    """Whether both families of regions that a predicate joins take part in a set of dimensions."""
    family = {e: f for f, elements in universe.spatial_families.items() for e in elements}
    there = {*universe.finest(universe.spatial_families, group), *group.names}
    return all(family.get(e, e) in there for e in join.joined)


def _relates(universe: Universe, table: Constraint) -> bool:
    """Whether a table says which regions belong together, as it holds data IDs of two families of regions."""
    return len(region_elements(universe, universe.group(table.frame.columns))) > 1


def _values(quanta: Quanta, part: Part) -> pl.DataFrame:
    codes = quanta.codes if quanta.codes.width else pl.DataFrame({"": np.zeros(quanta.count)})
    return part.axes.decode(codes, quanta.dimensions)


def _complete(
    registry: Snapshot, unrestricted: Constrained, quanta: Quanta, ids: pl.DataFrame, connection: Connection
) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Count for each quantum the datasets that it would gather."""
    required = registry.universe.group(connection.dimensions).required
    if not quanta.dimensions:
        return np.array([unrestricted.rows.data_ids(required).height])
    both = (*quanta.dimensions, *(d for d in required if d not in quanta.dimensions))
    pairs = unrestricted.rows.data_ids(both).group_by(quanta.dimensions).len()
    found = ids.join(pairs, on=list(quanta.dimensions), how="left", maintain_order="left")
    return found["len"].fill_null(0).cast(pl.Int64).to_numpy()
