"""The rules that a whole pipeline keeps: one producer, agreeing definitions, steps that run one by one."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from loadmaster_registry.errors import PipelineError
from loadmaster_registry.universe import DimensionGroup, Universe

from .connections import Connection
from .pipeline import Pipeline, Step, TaskNode
from .resolve import SKYPIX
from .storage import as_stored, is_convertible

Edge = tuple[str, Connection]  # label, connection


def check_graph(tasks: Iterable[TaskNode], universe: Universe, place: Callable[[str, str], str]) -> None:
    """Refuse tasks that contradict each other; all contradictions are told together.

    Parameters
    ----------
    place : callable (label, connection name) → str
        Where a connection stands in a file, for the error.

    Raises
    ------
    PipelineError
    """
    problems = list(_graph_problems(tasks, universe))
    if problems:
        raise PipelineError(
            what="the pipeline contradicts itself"
            if len(problems) == 1
            else f"the pipeline contradicts itself in {len(problems)} places",
            where="; ".join(
                dict.fromkeys(place(label, c.name) for _, edges in problems for label, c in edges)
            ),
            why="; ".join(text for text, _ in problems),
            todo="give dataset types one producer and one definition; rename by `connections.NAME: other`",
        )


def check_steps(pipeline: Pipeline, universe: Universe, where: str) -> None:
    """Refuse steps that do not part the tasks, run backwards, or cannot be split as they say."""
    if not pipeline.steps:
        return
    problems = [
        *_not_a_partition(pipeline),
        *_backward(pipeline),
        *(text for step in pipeline.steps for text in _not_splittable(step, pipeline, universe)),
    ]
    if problems:
        raise PipelineError(
            what="the steps of the pipeline cannot be run one by one",
            where=where,
            why="; ".join(problems),
            todo="correct `steps` or the subsets that they name, or import with `importSteps: false`",
        )


def _graph_problems(tasks: Iterable[TaskNode], universe: Universe) -> Iterator[tuple[str, list[Edge]]]:
    touching: dict[str, list[Edge]] = {}
    for task in tasks:
        for connection in task.connections:
            touching.setdefault(connection.dataset_type, []).append((task.label, connection))
    for name, edges in touching.items():
        makers = [e for e in edges if not e[1].is_read]
        readers = [e for e in edges if e[1].is_read]
        yield from _maker_problems(name, makers, readers)
        first = (makers or readers)[0]
        for other in (*makers[1:], *readers):
            yield from _definition_problems(name, first, other, universe)


def _maker_problems(name: str, makers: list[Edge], readers: list[Edge]) -> Iterator[tuple[str, list[Edge]]]:
    if len(makers) > 1:
        labels = " and ".join(label for label, _ in makers)
        yield f"{name!r} is made by {labels}", makers
    for maker, _ in makers:
        for reader in readers:
            if reader[0] == maker:
                yield f"task {maker} reads and writes {name!r}", [reader]
            elif reader[1].kind == "prerequisite":
                yield (
                    f"{name!r} is a prerequisite of {reader[0]}, and {maker} of the same pipeline makes it",
                    [reader],
                )


def _definition_problems(name: str, a: Edge, b: Edge, universe: Universe) -> Iterator[tuple[str, list[Edge]]]:
    (label_a, one), (label_b, two) = a, b
    if one.is_init != two.is_init:
        yield (
            f"{name!r} is there once a run for one of {label_a} and {label_b}, once a data ID for the other",
            [a, b],
        )
    elif _identity(one, universe) != _identity(two, universe):
        shown = [f"{{{', '.join(c.dimensions)}}} in {label}" for label, c in (a, b)]
        yield f"{name!r} has the dimensions {' and '.join(shown)}", [a, b]
    whole = one.component is None and two.component is None
    if whole and not is_convertible(as_stored(one), as_stored(two)):
        yield (
            f"{name!r} is {one.storage_class} in {label_a}, which cannot be read as the "
            f"{two.storage_class} of {label_b}",
            [a, b],
        )


def _identity(connection: Connection, universe: Universe) -> tuple[str, ...]:
    plain = universe.group(d for d in connection.dimensions if d != SKYPIX).required
    return plain + ((SKYPIX,) if SKYPIX in connection.dimensions else ())


def _not_a_partition(pipeline: Pipeline) -> Iterator[str]:
    homes: dict[str, list[str]] = {label: [] for label in pipeline.tasks}
    for step in pipeline.steps:
        for member in pipeline.subsets[step.label].members:
            homes[member].append(step.label)
    for label, steps in homes.items():
        if not steps:
            yield f"task {label} is in no step"
        elif len(steps) > 1:
            yield f"task {label} is in the steps {' and '.join(steps)}"


def _backward(pipeline: Pipeline) -> Iterator[str]:
    position = {m: i for i, step in enumerate(pipeline.steps) for m in pipeline.subsets[step.label].members}
    for maker, reader in pipeline.task_graph().edges:
        if maker in position and reader in position and position[maker] > position[reader]:
            later, earlier = pipeline.steps[position[maker]], pipeline.steps[position[reader]]
            yield f"{reader} of step {earlier.label} needs what {maker} of the later step {later.label} makes"


def _not_splittable(step: Step, pipeline: Pipeline, universe: Universe) -> Iterator[str]:
    if unknown := [d for d in step.dimensions if d not in universe]:
        yield f"step {step.label} is split by {unknown[0]!r}, which is no dimension"
        return
    for label in pipeline.subsets[step.label].members:
        task = pipeline.tasks[label]
        groups: Mapping[str, Sequence[str]] = {
            f"task {label}": task.dimensions,
            **{f"{c.dataset_type!r} of task {label}": c.dimensions for c in task.outputs},
        }
        for what, dimensions in groups.items():
            group = universe.group(d for d in dimensions if d != SKYPIX)
            for dimension in step.dimensions:
                if not _follows(dimension, group, universe):
                    yield f"step {step.label} is split by {dimension}, which {what} does not have"


def _follows(dimension: str, group: DimensionGroup, universe: Universe) -> bool:
    """Whether `group` has `dimension`, or is related to it by a join, as a visit is to its exposures."""
    if dimension in group:
        return True
    joins = (e for e in universe.elements.values() if not e.is_dimension and dimension in e.required)
    return any(e.always_join and set(e.required) - {dimension} <= set(group) for e in joins)
