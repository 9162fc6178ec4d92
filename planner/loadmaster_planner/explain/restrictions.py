"""What restricts a plan, piece by piece: each piece can be left out, and the join be made with the rest."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from loadmaster_pipelines.pipeline import Pipeline
from loadmaster_registry.errors import PlanError
from loadmaster_registry.frames import Keep
from loadmaster_registry.relations import Constrained, Constraint, Exclusion, constrain, overlaps
from loadmaster_registry.snapshot import Snapshot
from loadmaster_registry.universe import DimensionGroup
from loadmaster_registry.where import Predicate

from ..build import without_the_existing, without_the_impossible
from ..candidates import (
    Found,
    Selection,
    connected_parts,
    existing_constraints,
    group_of,
    listed_group,
    overall_inputs,
    projected,
    select,
)
from ..gather import upstream
from ..graph import Part
from ..request import Request
from ..target import last_tasks, target_predicates

Kind = Literal["records", "links", "where", "target", "table", "flags", "overlap", "existing", "done"]


@dataclass(frozen=True)
class Restriction:
    """One thing that restricts data IDs, or that a quantum counts as done; it could be left out."""

    kind: Kind
    name: str  # in the user's words, as a thing that is left out or fulfilled
    predicates: tuple[Predicate, ...] = field(default=(), compare=False)
    constraints: tuple[Constraint, ...] = field(default=(), compare=False)
    exclusions: tuple[Exclusion, ...] = field(default=(), compare=False)
    dataset_type: str = ""  # of an existing input

    @property
    def dimensions(self) -> frozenset[str]:
        """All that it is about."""
        named = {d for p in self.predicates for d in p.dimensions}
        return frozenset(named.union(*(c.frame.columns for c in self.constraints)))

    @property
    def columns(self) -> tuple[str, ...]:
        """The dimensions of the data IDs that it admits, where it lists them."""
        return tuple(self.constraints[0].frame.columns) if self.constraints else ()


@dataclass(frozen=True)
class Problem:
    """Tasks that hold together, and everything that restricts them, in the order in which it is told."""

    pipeline: Pipeline
    group: DimensionGroup
    restrictions: tuple[Restriction, ...]
    found: Mapping[str, Found]  # overall inputs by dataset type
    request: Request
    last: str = ""  # the task that a target is about

    def of_kind(self, *kinds: Kind) -> tuple[Restriction, ...]:
        """Return the restrictions of some kinds."""
        return tuple(r for r in self.restrictions if r.kind in kinds)


@dataclass(frozen=True)
class Component:
    """Tasks that regular inputs and outputs connect, and what is to be solved for them."""

    pipeline: Pipeline
    request: Request
    selection: Selection
    problems: tuple[Problem, ...]  # one; or with a target, one for each task that it is about


def components_of(registry: Snapshot, pipeline: Pipeline, request: Request) -> list[Component]:
    """Take a request apart."""
    return [_component(registry, part, request, {}) for part in connected_parts(pipeline)]


def component_of(
    registry: Snapshot, pipeline: Pipeline, request: Request, label: str, keep: Keep
) -> Component:
    """Return the component of one task; existing inputs are only looked for where dimensions have values of `keep`."""
    part = next(part for part in connected_parts(pipeline) if label in part.tasks)
    return _component(registry, part, request, keep)


def _component(registry: Snapshot, pipeline: Pipeline, request: Request, keep: Keep) -> Component:
    universe = registry.universe
    selection = select(registry, group_of(universe, pipeline), request)
    if not request.target:
        problem = _problem(registry, pipeline, request, selection, keep)
        return Component(pipeline, request, selection, (problem,))
    target = target_predicates(universe, pipeline, request)
    problems = [
        replace(_problem(registry, upstream(pipeline, label), request, selection, keep, target), last=label)
        for label in sorted(last_tasks(universe, pipeline, target, request))
    ]
    return Component(pipeline, request, selection, tuple(problems))


def upstream_problem(registry: Snapshot, component: Component, label: str, keep: Keep) -> Problem:
    """Return what restricts a task that a target may need, without the target."""
    above = upstream(component.pipeline, label)
    return _problem(registry, above, component.request, component.selection, keep)


def _problem(
    registry: Snapshot,
    pipeline: Pipeline,
    request: Request,
    selection: Selection,
    keep: Keep,
    target: Sequence[Predicate] = (),
) -> Problem:
    universe = registry.universe
    whole = group_of(universe, pipeline)
    own = [p for p in selection.predicates if not request.target or p.dimensions <= set(whole.names)]
    tables = [
        t for t in selection.constraints if not request.target or set(t.frame.columns) <= set(whole.names)
    ]
    found = overall_inputs(registry, pipeline, request.inputs, keep)
    existing = list(_existing(found.values(), pipeline, request))
    listed = [*tables, *(c for r in existing for c in r.constraints)]
    group = listed_group(universe, pipeline, listed)
    restrictions = [
        *of_predicates("where", own),
        *of_predicates("target", target),
        *_tables(registry, group, tables),
        *_flags(selection.exclusions),
        *overlap_of(registry, group, [*own, *target], listed),
        *existing,
    ]
    if request.skip_existing is not None or request.repair:
        restrictions.append(Restriction("done", done_name(request)))
    return Problem(pipeline, group, tuple(restrictions), found, request)


def of_predicates(kind: Kind, predicates: Iterable[Predicate]) -> Iterator[Restriction]:
    """Return each condition as a restriction.

    One that says which regions overlap stands for the overlap that would hold without it: both go together.
    """
    for predicate in predicates:
        text = f"`{predicate.text}`"
        if predicate.joined:
            yield Restriction("overlap", f"the overlap on the sky by {text}", (predicate,))
        else:
            yield Restriction(kind, text if kind == "where" else f"{text} of the target", (predicate,))


def _tables(registry: Snapshot, group: DimensionGroup, tables: Sequence[Constraint]) -> Iterator[Restriction]:
    for table in tables:
        name = table.name.replace("data IDs of", "the table", 1)
        whole = registry.universe.group({*group.names, *table.frame.columns})
        if any(overlap_of(registry, whole, ())) and not any(overlap_of(registry, whole, (), [table])):
            name += " and the overlap on the sky that it stands for"
        yield Restriction("table", name, constraints=(table,))


def _flags(exclusions: Sequence[Exclusion]) -> Iterator[Restriction]:
    used = tuple(e for e in exclusions if e.frame.height)
    if used:
        yield Restriction("flags", "the observation flags", exclusions=used)


def done_name(request: Request) -> str:
    """Say that what is done already is left out."""
    if request.repair:
        return f"repairing only what is contaminated in {', '.join(request.repair)}"
    return f"leaving out what is done already in {', '.join(request.skip_existing_in)}"


def overlap_of(
    registry: Snapshot,
    group: DimensionGroup,
    predicates: Sequence[Predicate],
    constraints: Sequence[Constraint] = (),
) -> Iterator[Restriction]:
    """Return the overlap on the sky as a restriction, where no predicate or list of data IDs stands for it.

    What stands for it is left out together with it.
    """
    universe = registry.universe
    named = {d for p in predicates for d in p.dimensions} | {d for c in constraints for d in c.frame.columns}
    whole = universe.group({*group.names, *named})
    if not any(p.joined for p in predicates):
        for a, b in overlaps(universe, whole, (), constraints=constraints):
            yield Restriction("overlap", f"the overlap on the sky of {a} and {b} regions")


def existence(
    dataset_type: str, collections: Sequence[str], constraints: Iterable[Constraint] = ()
) -> Restriction:
    """Return as a restriction that datasets of a type must exist."""
    name = f"{dataset_type!r} having to exist in {', '.join(collections)}"
    return Restriction("existing", name, constraints=tuple(constraints), dataset_type=dataset_type)


def _existing(found: Iterable[Found], pipeline: Pipeline, request: Request) -> Iterator[Restriction]:
    """Return that each overall input must exist which some task cannot do without."""
    needed = {c.dataset_type for task in pipeline.tasks.values() for c in task.inputs if c.minimum}
    for one in found:
        if one.name in needed:
            constraints = existing_constraints({one.name: one}, request.inputs, {})
            yield existence(one.name, request.inputs, constraints)


def joined(
    registry: Snapshot,
    group: DimensionGroup,
    restrictions: Iterable[Restriction],
    extra: Sequence[Constraint] = (),
    *,
    links: bool = True,
) -> Constrained:
    """Join records and links over `group` with some restrictions, and nothing else."""
    held = list(restrictions)
    return constrain(
        registry,
        group,
        [p for r in held for p in r.predicates],
        [*extra, *(c for r in held for c in r.constraints)],
        [e for r in held for e in r.exclusions],
        links=links,
        overlap=any(r.kind == "overlap" and not r.predicates for r in held),
    )


def quanta_without(registry: Snapshot, problem: Problem, removed: frozenset[Restriction]) -> bool:
    """Say whether any quantum is left to do if some restrictions are left out.

    To leave out that an input exists means to take it as if it did wherever it is wanted.
    """
    kept = [r for r in problem.restrictions if r not in removed]
    constrained = joined(registry, problem.group, kept)
    if constrained.rows.is_empty:
        return False
    if problem.last or _first_task_runs(problem, kept):
        return True
    part = assumed(projected(registry, problem.pipeline, constrained, problem.found), removed)
    if any(r.kind == "done" for r in kept):
        part = without_the_existing(registry, problem.pipeline, part, problem.request)
    try:
        finished = without_the_impossible(problem.pipeline, part)
    except PlanError:  # too many inputs for one that takes a single dataset: a quantum it is
        return True
    return any(quanta.count for quanta in finished.quanta.values())


def assumed(part: Part, removed: Iterable[Restriction]) -> Part:
    """Return `part` as if the inputs whose existence is left out were all there."""
    there = {r.dataset_type for r in removed if r.kind == "existing"}
    datasets = {
        name: replace(table, existing=np.zeros(table.count, np.int64)) if name in there else table
        for name, table in part.datasets.items()
    }
    return replace(part, datasets=datasets)


def _first_task_runs(problem: Problem, kept: Sequence[Restriction]) -> bool:
    """Whether a row of the join is enough: some task needs no more than one of each overall input, which a row has."""
    if any(r.kind == "done" for r in kept):
        return False
    restricting = {f.name for f in problem.found.values() if f.constrains}
    return any(
        all(c.minimum == 0 or (c.minimum == 1 and c.dataset_type in restricting) for c in task.inputs)
        for task in problem.pipeline.tasks.values()
    )
