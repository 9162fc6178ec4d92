"""Explain a plan or a query: what took data IDs away, and why nothing is left.

Cost: one join for each restriction, made only when somebody asks.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from loadmaster_pipelines.pipeline import Pipeline
from loadmaster_registry.errors import PlanError
from loadmaster_registry.records import CollectionType
from loadmaster_registry.relations import Constraint
from loadmaster_registry.snapshot import Snapshot
from loadmaster_registry.store import Registry
from loadmaster_registry.universe import DimensionGroup
from loadmaster_registry.where import parse

from ..candidates import group_of
from ..graph import Dropped, counts
from ..request import Request
from ..target import check_target
from .funnel import Funnel, Outcome, available_datasets, count_steps, funnels_of
from .hints import Hint, unmatched_conditions
from .relaxation import smallest_relaxations
from .restrictions import (
    Component,
    Problem,
    Restriction,
    components_of,
    done_name,
    existence,
    joined,
    of_predicates,
    overlap_of,
    quanta_without,
)

_COLLECTIONS_TOLD = 3


@dataclass(frozen=True)
class Relaxation:
    """A smallest set of restrictions without which something is left."""

    removed: tuple[Restriction, ...]

    def __str__(self) -> str:
        if not self.removed:
            return "nothing needs to be left out"
        return "without " + " and ".join(r.name for r in self.removed)

    def to_json(self) -> list[dict[str, str]]:
        """Return kind and name of each restriction."""
        return [{"kind": r.kind, "name": r.name} for r in self.removed]


@dataclass(frozen=True)
class Explanation:
    """What took data IDs away, task by task; and where nothing is left, what would help."""

    funnels: tuple[Funnel, ...]
    relaxations: tuple[Relaxation, ...]  # all of the smallest size; only where nothing is left
    hints: tuple[Hint, ...]
    is_empty: bool

    def answer(self) -> list[str]:
        """Return what a person reads first: what would help where nothing is left, and hints."""
        told = ["nothing is left"] if self.is_empty else []
        if self.is_empty and not self.relaxations:
            told.append("  leaving out restrictions would not help")
        told += [f"  there would be something {relaxation}" for relaxation in self.relaxations]
        return told + [f"  {hint.text}" if self.is_empty else hint.text for hint in self.hints]

    def lines(self) -> list[str]:
        """Return all that a person reads: the answer, then each task's funnel."""
        told = self.answer()
        alike: dict[tuple[str, ...], list[Funnel]] = {}
        for funnel in self.funnels:
            alike.setdefault((str(funnel.quanta), *funnel.dimensions, *funnel.lines()), []).append(funnel)
        for funnels in alike.values():
            names, first = ", ".join(f.task for f in funnels), funnels[0]
            each = " each" if len(funnels) > 1 else ""
            told.append(f"{names} {{{', '.join(first.dimensions)}}}: {first.quanta}{each}")
            told += [f"  {line}" for line in first.lines()]
        return told

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "is_empty": self.is_empty,
            "funnels": [funnel.to_json() for funnel in self.funnels],
            "relaxations": [relaxation.to_json() for relaxation in self.relaxations],
            "hints": [hint.to_json() for hint in self.hints],
        }


def explain(registry: Registry, pipeline: Pipeline, request: Request) -> Explanation:
    """Say for each task how many data IDs are left after each thing that restricts them, and why none is.

    What refuses a plan later (outputs that exist, gathers that are cut) is no matter of this.

    Raises
    ------
    PlanError
        If the target is impossible, or an overall input's dataset type is unknown or another one.
    NotFound
        If there is no such collection.
    QueryError
        If `where` or `target` cannot be understood.
    """
    with registry.snapshot() as now:
        check_target(now.universe, pipeline, request)
        components = components_of(now, pipeline, request)
        funnels: list[Funnel] = []
        hints: list[Hint] = []
        for component in components:
            found, outcome, refused = funnels_of(now, component)
            funnels += found
            hints += [*_dropped_hints(component, outcome), *_unmet_hints(found), *map(_refusal_hint, refused)]
        is_empty = not any(funnel.quanta for funnel in funnels)
        relaxations: tuple[Relaxation, ...] = ()
        if is_empty:
            problems = [problem for component in components for problem in component.problems]
            relaxations = _plan_relaxations(now, problems)
            hints = [*_plan_hints(now, components, request), *hints]
        return Explanation(tuple(funnels), relaxations, _distinct(hints), is_empty)


def explain_query(
    registry: Registry,
    dimensions: Sequence[str],
    *,
    where: str = "",
    bind: Mapping[str, object] | None = None,
    datasets: Sequence[str] = (),
    collections: Sequence[str] = (),
) -> Explanation:
    """Say how many data IDs over `dimensions` are left after each condition, and why none is.

    Parameters as in `loadmaster_registry.queries.query_data_ids`; a query for datasets is one for the data IDs of
    their type, for which one exists.
    """
    with registry.snapshot() as now:
        group = now.universe.group(dimensions)
        predicates = parse(where, universe=now.universe, bind=bind, dimensions=group)
        existing = [_existing(now, name, collections) for name in datasets]
        restrictions = (
            *of_predicates("where", predicates),
            *overlap_of(now, group, predicates, [c for r in existing for c in r.constraints]),
            *existing,
        )
        told, _ = count_steps(now, group, restrictions, [group.required])
        steps = told[group.required]
        funnel = Funnel("data IDs", group.required, steps[-1].after, tuple(steps))
        if funnel.quanta:
            return Explanation((funnel,), (), (), False)
        sets = smallest_relaxations(
            tuple(dict.fromkeys(restrictions)),
            lambda removed: (
                not joined(now, group, [r for r in restrictions if r not in removed]).rows.is_empty
            ),
        )
        hints = unmatched_conditions(now, where, bind or {}, group)
        hints += [h for r in existing for h in _nothing_there(now, r, collections)]
        return Explanation((funnel,), _relaxations(restrictions, sets), _distinct(hints), True)


def _relaxations(
    restrictions: Iterable[Restriction], sets: Iterable[frozenset[Restriction]]
) -> tuple[Relaxation, ...]:
    order = list(dict.fromkeys(restrictions))
    return tuple(Relaxation(tuple(r for r in order if r in removed)) for removed in sets if removed)


def _plan_relaxations(registry: Snapshot, problems: Sequence[Problem]) -> tuple[Relaxation, ...]:
    """Return the smallest of all parts' sets: one quantum in one part is enough."""
    found: list[Relaxation] = []
    for problem in problems:
        restrictions = tuple(dict.fromkeys(problem.restrictions))
        sets = smallest_relaxations(restrictions, partial(quanta_without, registry, problem))
        found += _relaxations(restrictions, sets)
    least = min((len(r.removed) for r in found), default=0)
    return tuple(dict.fromkeys(r for r in found if len(r.removed) == least))


def _plan_hints(registry: Snapshot, components: Sequence[Component], request: Request) -> Iterator[Hint]:
    for component in components:
        group = group_of(registry.universe, component.pipeline)
        for text in (request.where, request.target):
            yield from unmatched_conditions(registry, text, request.bind, group)
        for problem in component.problems:
            for restriction in problem.of_kind("existing"):
                yield from _nothing_there(registry, restriction, request.inputs)
            yield from _without_records(registry, problem.group)


def _without_records(registry: Snapshot, group: DimensionGroup) -> Iterator[Hint]:
    universe = registry.universe
    elements = [universe[d] for d in group.names if not universe[d].is_skypix]
    for element in (*elements, *universe.joins_of(group)):
        if not registry.records(element.name, columns=[]).height:
            yield Hint(element.name, f"there are no {element.name} records in the registry")


def _nothing_there(
    registry: Snapshot, restriction: Restriction, collections: Sequence[str]
) -> Iterator[Hint]:
    """Say of an input that no collection searched holds at all, where there is some."""
    if not restriction.constraints or any(c.frame.height for c in restriction.constraints):
        return
    name, searched = restriction.dataset_type, ", ".join(collections)
    runs = [c.name for c in registry.collections() if c.type is CollectionType.RUN]
    ranks = registry.datasets(name, runs, find_first=False)["rank"].value_counts(sort=True)
    if not ranks.height:
        yield Hint(restriction.name, f"no collection at all holds any {name!r}")
        return
    held = [(runs[rank], n) for rank, n in ranks.iter_rows()]
    told = ", ".join(f"{run} ({n})" for run, n in held[:_COLLECTIONS_TOLD])
    more = f" and {len(held) - _COLLECTIONS_TOLD} more runs" if len(held) > _COLLECTIONS_TOLD else ""
    nearest = tuple(run for run, _ in held[:_COLLECTIONS_TOLD])
    yield Hint(
        restriction.name, f"there is no {name!r} in {searched}; there is some in {told}{more}", nearest
    )


def _dropped_hints(component: Component, outcome: Outcome) -> Iterator[Hint]:
    """Say which inputs those quanta lack that fell away, and that all are done where they are."""
    total = sum(quanta.count for quanta in outcome.candidates.quanta.values())
    if total and not any(quanta.count for quanta in outcome.remaining.quanta.values()):
        tasks = ", ".join(component.pipeline.tasks)
        yield Hint(
            "what exists",
            f"{done_name(component.request)} leaves none of the {total} quanta of {tasks}",
        )
    available = available_datasets(component.pipeline, outcome.finished)
    for dropped in outcome.finished.dropped:
        quanta = outcome.candidates.quanta[dropped.task]
        edges = quanta.inputs[dropped.connection]
        n = counts(edges.where(available[dropped.dataset_type][edges.dataset]), quanta.count)
        most = int(n[n < dropped.minimum].max(initial=0))
        yield Hint(dropped.dataset_type, _dropped_text(component, outcome, dropped, most))


def _dropped_text(component: Component, outcome: Outcome, dropped: Dropped, most: int) -> str:
    source = f"looked for in {', '.join(component.request.inputs)}"
    for task in component.pipeline.tasks.values():
        if dropped.dataset_type in {c.dataset_type for c in task.outputs}:
            n = outcome.finished.quanta[task.label].count
            source = f"made by {task.label}, of which {n} quanta are planned"
    enough = f"none has more than {most}, for which `minimum: {most}` would do" if most else "they have none"
    return (
        f"{dropped.count} quanta of {dropped.task} need at least {dropped.minimum} {dropped.dataset_type!r} "
        f"({dropped.connection}), {source}; {enough}; for instance {dict(dropped.example)}"
    )


def _unmet_hints(funnels: Iterable[Funnel]) -> Iterator[Hint]:
    """Say which prerequisites are missing: planning refuses then."""
    lacking: dict[str, list[str]] = {}
    for funnel in funnels:
        for step in funnel.steps:
            if step.kind == "prerequisite" and step.after < step.before:
                told = f"{step.before - step.after} of {step.before} quanta of {funnel.task}"
                lacking.setdefault(step.name.removeprefix("needing "), []).append(told)
    for name, told_all in lacking.items():
        yield Hint(name, f"planning refuses: {name} is missing for {', '.join(told_all)}")


def _refusal_hint(error: PlanError) -> Hint:
    return Hint("prerequisites", " ".join(str(error).split()))


def _existing(registry: Snapshot, name: str, collections: Sequence[str]) -> Restriction:
    required = registry.dataset_type(name).dimensions.required
    frame = registry.datasets(name, collections).select(required)
    return existence(name, collections, [Constraint(f"existing {name}", frame)])


def _distinct(hints: Iterable[Hint]) -> tuple[Hint, ...]:
    return tuple(dict.fromkeys(hints))
