"""The funnel of each task: how many of its data IDs are left after each thing that takes some away."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
import polars as pl
from loadmaster_pipelines.pipeline import Pipeline, TaskNode
from loadmaster_registry.errors import PlanError
from loadmaster_registry.joins import Reduced
from loadmaster_registry.relations import Constrained, Constraint
from loadmaster_registry.snapshot import Snapshot
from loadmaster_registry.universe import DimensionGroup
from numpy.typing import NDArray

from ..build import without_the_existing, without_the_impossible
from ..candidates import candidates, projected
from ..graph import Part, counts
from ..prerequisites import find_prerequisites
from ..request import Request
from ..target import closed
from .restrictions import Component, Restriction, done_name, joined

_N = "\x00n"
_MANY = 10_000_000  # combinations that are not made just to tell how many of them a condition keeps


@dataclass(frozen=True)
class Step:
    """What one thing leaves of a task's data IDs."""

    kind: str  # "records", "links", that of a restriction, "missing", or "prerequisite"
    name: str  # in the user's words
    before: int
    after: int


@dataclass(frozen=True)
class Funnel:
    """From all records of a task's dimensions to its quanta."""

    task: str
    dimensions: tuple[str, ...]
    quanta: int  # what is planned
    steps: tuple[Step, ...]

    def lines(self) -> list[str]:
        """Return a line for each step that takes something away, after one for the records."""
        told = []
        for i, step in enumerate(self.steps):
            if i == 0 and step.kind == "records":
                told.append(f"{step.after} by the records")
            elif i == 0 or step.after != step.before:
                told.append(f"{step.after} after {step.name} ({step.before} before)")
        return told

    def to_json(self) -> dict[str, Any]:
        """Return plain values; every step, also those that take nothing away."""
        return {
            "task": self.task,
            "dimensions": list(self.dimensions),
            "quanta": self.quanta,
            "steps": [
                {"kind": s.kind, "name": s.name, "before": s.before, "after": s.after} for s in self.steps
            ],
        }


@dataclass(frozen=True)
class Outcome:
    """What became of the quanta of a problem: all candidates, what is left to do, what can be done."""

    candidates: Part
    remaining: Part  # without the done
    finished: Part  # without those that lack an input


def outcome_of(registry: Snapshot, component: Component, constrained: Constrained | None = None) -> Outcome:
    """Take a component's candidates all the way, as planning does.

    Parameters
    ----------
    constrained : Constrained, optional
        The join with all restrictions, where it is there already.
    """
    pipeline, request = component.pipeline, component.request
    if request.target:
        part = closed(registry, pipeline, request, component.selection)
    elif constrained is None:
        part = candidates(registry, pipeline, request, component.selection)
    else:
        part = projected(registry, pipeline, constrained, component.problems[0].found)
    remaining = without_the_existing(registry, pipeline, part, request)
    return Outcome(part, remaining, without_the_impossible(pipeline, remaining))


def available_datasets(pipeline: Pipeline, part: Part) -> dict[str, NDArray[np.bool_]]:
    """Say which datasets exist or will be made by a quantum of `part`, by dataset type."""
    available = {name: table.existing >= 0 for name, table in part.datasets.items()}
    for task in pipeline.tasks.values():
        quanta = part.quanta[task.label]
        for c in task.outputs:
            available[c.dataset_type][quanta.outputs[c.name].dataset] = True
    return available


def joins_by_step(
    registry: Snapshot,
    group: DimensionGroup,
    restrictions: Iterable[Restriction],
    extra: Sequence[Constraint] = (),
) -> Iterator[tuple[Restriction, Constrained]]:
    """Make the join with one restriction more at a time: what came, and what is then left.

    A condition whose combinations are too many to be made comes after the others, when fewer are left.

    Parameters
    ----------
    extra : sequence of Constraint
        Hold from the beginning.
    """
    links = [e.name for e in registry.universe.joins_of(group)]
    constrained = joined(registry, group, (), extra, links=False)
    yield Restriction("records", f"the records of {', '.join(group.names) or 'no dimension'}"), constrained
    if links:
        constrained = joined(registry, group, (), extra)
        yield Restriction("links", f"links ({', '.join(links)})"), constrained
    held: list[Restriction] = []
    waiting = [r for r in restrictions if r.kind != "done"]
    postponed: list[Restriction] = []
    while waiting or postponed:
        restriction = waiting.pop(0) if waiting else postponed.pop(0)
        if waiting and _makes_many(registry, restriction, constrained):
            postponed.append(restriction)
            continue
        held.append(restriction)
        if not constrained.rows.is_empty:
            constrained = joined(registry, group, held, extra)
        yield restriction, constrained


def _makes_many(registry: Snapshot, restriction: Restriction, before: Constrained) -> bool:
    """Whether applying a restriction would make too many combinations of what is left before it."""
    needed = [
        registry.universe.group(p.dimensions).names for p in restriction.predicates if _spans(p.columns)
    ]
    needed += [tuple(e.frame.columns) for e in restriction.exclusions]
    rows = before.rows
    return any(
        set(dimensions) <= set(rows.axes.values) and count_rows(rows, dimensions) > _MANY
        for dimensions in needed
    )


def _spans(columns: Iterable[str]) -> bool:
    return len({column.split(".")[0] for column in columns}) > 1


def count_rows(reduced: Reduced, dimensions: Sequence[str]) -> int:
    """Count the distinct combinations of values of `dimensions` in a join, where possible without making them."""
    if reduced.is_empty:
        return 0
    wanted = frozenset(reduced.axes.varying(dimensions))
    return prod(_count_at(reduced, root, wanted) for root, p in enumerate(reduced.parent) if p < 0)


def _count_at(reduced: Reduced, root: int, wanted: frozenset[str]) -> int:
    own = wanted & _columns_below(reduced, root)
    if not own:
        return 1
    weights = _weights(reduced, root, own, frozenset())
    return reduced.rows(sorted(own)).height if weights is None else int(weights[_N].sum())


def _weights(
    reduced: Reduced, node: int, wanted: frozenset[str], link: frozenset[str]
) -> pl.DataFrame | None:
    """Count for each combination of `link` the combinations of `wanted` at and below a node.

    None where a dimension that is not wanted links the relations: then different rows may be one combination.
    """
    own = reduced.relations[node]
    children = {
        child: reduced.relations[child].columns & own.columns
        for child, p in enumerate(reduced.parent)
        if p == node and (_columns_below(reduced, child) & wanted) - own.columns
    }
    if any(not shared <= wanted | link for shared in children.values()):
        return None
    frame = own.frame.select(sorted(own.columns & (wanted | link))).unique().with_columns(pl.lit(1).alias(_N))
    for child, shared in children.items():
        below = _weights(reduced, child, wanted, shared)
        if below is None:
            return None
        on = sorted(shared)
        frame = (
            frame.join(below.rename({_N: "\x00m"}), on=on)
            if on
            else frame.join(below.rename({_N: "\x00m"}), how="cross")
        )
        frame = frame.with_columns((pl.col(_N) * pl.col("\x00m")).alias(_N)).drop("\x00m")
    if not link:
        return frame.select(pl.col(_N).sum())
    return frame.group_by(sorted(link)).agg(pl.col(_N).sum())


def _columns_below(reduced: Reduced, node: int) -> frozenset[str]:
    below = (_columns_below(reduced, child) for child, p in enumerate(reduced.parent) if p == node)
    return reduced.relations[node].columns.union(*below)


def funnels_of(registry: Snapshot, component: Component) -> tuple[list[Funnel], Outcome, list[PlanError]]:
    """Return the funnel of each task, what became of its quanta, and what its prerequisites refuse."""
    required = {
        task.label: registry.universe.group(task.dimensions).required
        for task in component.pipeline.tasks.values()
    }
    steps: dict[str, list[Step]] = {}
    constrained = None
    for problem in component.problems:
        labels = [problem.last] if problem.last else list(required)
        dimensions = {required[label] for label in labels}
        told, constrained = count_steps(registry, problem.group, problem.restrictions, dimensions)
        steps |= {label: told[required[label]] for label in labels}
    outcome = outcome_of(registry, component, constrained)
    funnels, refused = [], []
    for label, names in required.items():
        more, errors = _later_steps(registry, component, label, outcome)
        refused += errors
        n = outcome.candidates.quanta[label].count
        above = steps.get(label, [Step("target", "what the target needs", n, n)])
        if above[-1].after != n:  # sky pixels that nothing lists
            above.append(Step("pixels", "a quantum for each sky pixel that it touches", above[-1].after, n))
        quanta = outcome.finished.quanta[label].count
        funnels.append(Funnel(label, names, quanta, (*above, *more)))
    return funnels, outcome, refused


def count_steps(
    registry: Snapshot,
    group: DimensionGroup,
    restrictions: Iterable[Restriction],
    dimensions: Iterable[tuple[str, ...]],
) -> tuple[dict[tuple[str, ...], list[Step]], Constrained]:
    """Tell for some sets of dimensions what each restriction leaves; return the join with all of them, too."""
    told: dict[tuple[str, ...], list[Step]] = {d: [] for d in dimensions}
    constrained = None
    for came, constrained in joins_by_step(registry, group, restrictions):
        for d, steps in told.items():
            n = count_rows(constrained.rows, [name for name in d if name in group])
            steps.append(Step(came.kind, came.name, steps[-1].after if steps else n, n))
    assert constrained is not None  # the records always come
    return told, constrained


def _later_steps(
    registry: Snapshot, component: Component, label: str, outcome: Outcome
) -> tuple[list[Step], list[PlanError]]:
    """Tell what happens to a task's candidates."""
    n = outcome.candidates.quanta[label].count
    steps = []
    if component.request.skip_existing is not None or component.request.repair:
        left = outcome.remaining.quanta[label].count
        steps.append(Step("done", done_name(component.request), n, left))
        n = left
    for dropped in outcome.finished.dropped:
        if dropped.task == label:
            name = f"needing at least {dropped.minimum} {dropped.dataset_type!r} ({dropped.connection})"
            steps.append(Step("missing", name, n, n - dropped.count))
            n -= dropped.count
    task = component.pipeline.tasks[label]
    try:
        return [*steps, *_prerequisite_steps(registry, component.request, task, outcome.finished)], []
    except PlanError as error:
        return steps, [error]


def _prerequisite_steps(registry: Snapshot, request: Request, task: TaskNode, part: Part) -> Iterator[Step]:
    """Count what has its prerequisites; a plan is refused where one is missing, and this says for how many."""
    quanta = part.quanta[task.label]
    if not quanta.count or not task.prerequisites:
        return
    whatever = replace(
        task,
        connections=tuple(
            replace(c, minimum=0, multiple=True) if c.kind == "prerequisite" else c for c in task.connections
        ),
    )
    found = find_prerequisites(registry, whatever, part, request.inputs, request.overrides)
    enough = np.ones(quanta.count, dtype=bool)
    for c in task.prerequisites:
        before = int(enough.sum())
        enough &= counts(found[c.name].edges, quanta.count) >= c.minimum
        name = f"needing the prerequisite {c.dataset_type!r} ({c.name})"
        yield Step("prerequisite", name, before, int(enough.sum()))
