"""One quantum as a person writes it: ``LABEL key=value …``, checked against the pipeline and the universe."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from loadmaster_pipelines.pipeline import Pipeline, TaskNode
from loadmaster_registry.errors import PlanError, QueryError, did_you_mean
from loadmaster_registry.expression import Span, refusal
from loadmaster_registry.snapshot import Snapshot
from loadmaster_registry.universe import Universe
from loadmaster_registry.where import contradiction, parse

from ..request import Request

_WORD = re.compile(r"""\s*(?:(?P<key>\w+)\s*=\s*)?(?P<value>'[^']*'|"[^"]*"|[^\s='"]+)(?=\s|$)""")
_FORM = "write LABEL key=value …, as: warp visit=1228 tract=9813 patch=40 skymap='hsc_rings_v1'"

Value = int | str


@dataclass(frozen=True)
class WantedQuantum:
    """One task on one data ID, whether it is planned or not."""

    task: TaskNode
    data_id: Mapping[str, Value]  # required dimensions of the task, in the universe's order
    implied: Mapping[str, Value]  # what was said of others, which must follow from these

    def __str__(self) -> str:
        return " ".join([self.task.label, *(f"{d}={value}" for d, value in self.data_id.items())])


def read_quantum(text: str, registry: Snapshot, pipeline: Pipeline, request: Request) -> WantedQuantum:
    """Read ``LABEL key=value …``; texts with blanks stand in quotes.

    An instrument or sky map may be left out where `where` names one, or only one is registered.

    Raises
    ------
    PlanError
        If there is no such task.
    QueryError
        If the text has another form, or a dimension is missing, unknown or of another type.
    """
    label, words = _words(text)
    task = _task(label, pipeline)
    group = registry.universe.group(task.dimensions)
    given = {}
    for key, (value, at) in words.items():
        _check_dimension(text, key, at, task, registry.universe)
        given[key] = _value(text, key, value, at, registry.universe)
    for d in group.required:
        if d not in given and registry.universe[d].is_governor:
            known = _only(registry, d, request)
            given |= {d: known} if known is not None else {}
    if missing := [d for d in group.required if d not in given]:
        raise QueryError(
            what=f"the data ID lacks {', '.join(missing)}",
            where=text,
            why=f"a quantum of {task.label} has {', '.join(group.required)}",
            todo="add " + " ".join(f"{d}=…" for d in missing),
        )
    return WantedQuantum(
        task,
        {d: given[d] for d in group.required},
        {d: given[d] for d in group.implied if d in given},
    )


def _words(text: str) -> tuple[str, dict[str, tuple[str, Span]]]:
    label, words, at = "", {}, 0
    whole = text.rstrip()
    while at < len(whole):
        match = _WORD.match(whole, at)
        if match is None or (match["key"] is None) != (not label):
            begin = at + len(whole[at:]) - len(whole[at:].lstrip())
            what = "a task's label is wanted here" if not label else "key=value is wanted here"
            raise refusal(text, (begin, len(whole)), what, "this is something else", _FORM)
        place = match.span("value")
        if match["key"] is None:
            label = match["value"]
        elif match["key"] in words:
            raise refusal(
                text, match.span("key"), f"{match['key']} is given twice", "it has one value", _FORM
            )
        else:
            words[match["key"]] = (match["value"], place)
        at = match.end()
    if not label:
        raise QueryError("no quantum is named", repr(text), "the text is blank", _FORM)
    return label, words


def _task(label: str, pipeline: Pipeline) -> TaskNode:
    if label in pipeline.tasks:
        return pipeline.tasks[label]
    left_out = label in pipeline.left_out
    raise PlanError(
        what=f"there is no task {label!r}",
        where=f"pipeline {pipeline.description!r}",
        why="it was left out when the tasks were selected" if left_out else "no task has this label",
        todo="select it too" if left_out else did_you_mean(label, pipeline.tasks),
    )


def _check_dimension(text: str, key: str, at: Span, task: TaskNode, universe: Universe) -> None:
    group = universe.group(task.dimensions)
    if key not in group:
        begin = text.rfind(key, 0, at[0])
        raise refusal(
            text,
            (begin, begin + len(key)),
            f"a quantum of {task.label} has no {key!r}",
            f"its data ID is made of {', '.join(group.required)}"
            + (f", from which {', '.join(group.implied)} follow" if group.implied else ""),
            did_you_mean(key, group.names),
        )


def _value(text: str, key: str, value: str, at: Span, universe: Universe) -> Value:
    column = universe[key].key
    assert column is not None  # a dimension has one
    if column.type == "str":
        return value[1:-1] if value[0] in "'\"" else value
    if not re.fullmatch(r"[-+]?\d{1,18}", value):
        raise refusal(text, at, f"{value} is no whole number", f"{key} is one", f"write {key}=1")
    return int(value)


def _only(registry: Snapshot, dimension: str, request: Request) -> Value | None:
    """Return the one instrument or sky map that can be meant."""
    governors = {d: "" for d in registry.universe.dimensions if registry.universe[d].is_governor}
    predicates = parse(request.where, universe=registry.universe, bind=request.bind, given=governors)
    said = {v for p in predicates for v in p.equal.get(dimension, ())}
    if len(said) == 1 and contradiction(predicates) is None:
        return said.pop()
    known = registry.records(dimension, columns=[])[dimension]
    return known[0] if known.len() == 1 else None
