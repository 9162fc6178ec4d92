"""Which tasks: lists and ranges of labels behind ``#``, and the set language of ``--select-tasks``.

The set language, loosest binding first::

    expr := expr '|' expr | expr '&' expr | '~' expr | '(' expr ')' | direction name | name
    direction := '<' | '<=' | '>' | '>='      what comes before, after; '=' includes the name itself
    name := [T: D: or S:] NAME                task, dataset type, subset

A dataset type stands for the task that makes it, and for none where no task does. After ``>`` it stands for
the tasks that read it, with all that follows.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

import networkx as nx
from loadmaster_registry.errors import PipelineError, did_you_mean

from .connections import Connection
from .pipeline import Subset, TaskNode, task_graph_of

_TOKEN = re.compile(r"\s*(?:(?P<op><=|>=|[<>|&~()])|(?P<name>(?:[TDS]:)?[A-Za-z0-9_-]+))")
_OPERATORS = ("<=", ">=", "<", ">", "|", "&", "~", "(", ")")


def labels_of_list(text: str, tasks: Sequence[str], subsets: Mapping[str, Subset]) -> list[str]:
    """Return the labels that ``a,b`` names, subsets opened, in the order of `tasks`."""
    wanted: set[str] = set()
    for name in (part.strip() for part in text.split(",")):
        if name in subsets:
            wanted.update(subsets[name].members)
        elif name in tasks:
            wanted.add(name)
        else:
            _refuse(text, f"there is no task and no subset {name!r}", did_you_mean(name, {*tasks, *subsets}))
    return [label for label in tasks if label in wanted]


def labels_of_range(text: str, tasks: Mapping[str, TaskNode]) -> list[str]:
    """Return the labels of ``begin..end``: what follows `begin` and leads to `end`; either may be empty."""
    begin, end = (part.strip() for part in text.split("..", 1))
    graph = task_graph_of(tasks.values())
    for name in (begin, end):
        if name and name not in tasks:
            _refuse(text, f"there is no task {name!r}", did_you_mean(name, tasks))
    after = {begin, *nx.descendants(graph, begin)} if begin else set(tasks)
    before = {end, *nx.ancestors(graph, end)} if end else set(tasks)
    return [label for label in tasks if label in after & before]


def select(text: str, tasks: Mapping[str, TaskNode], subsets: Mapping[str, Subset]) -> list[str]:
    """Return the labels that the set expression `text` selects, in the order of `tasks`.

    Raises
    ------
    PipelineError
        If the expression cannot be read, or a name in it means nothing or two things.
    """
    wanted = _Parser(text, _Names(text, tasks, subsets)).selected()
    return [label for label in tasks if label in wanted]


@dataclass(frozen=True, slots=True)
class _Meaning:
    """What one name stands for: tasks, and what `>` selects from there."""

    tasks: frozenset[str]
    after: frozenset[str]
    is_init_output: bool = False


class _Names:
    """Tasks, dataset types and subsets by name."""

    def __init__(self, text: str, tasks: Mapping[str, TaskNode], subsets: Mapping[str, Subset]) -> None:
        self.text = text
        self.graph = task_graph_of(tasks.values())
        self.everything = frozenset(tasks)
        self._subsets = subsets
        self._edges: dict[str, list[tuple[str, Connection]]] = {}
        for task in tasks.values():
            for connection in task.connections:
                self._edges.setdefault(connection.dataset_type, []).append((task.label, connection))

    def after(self, labels: frozenset[str]) -> frozenset[str]:
        return frozenset().union(*(nx.descendants(self.graph, label) for label in labels))

    def before(self, labels: frozenset[str]) -> frozenset[str]:
        return frozenset().union(*(nx.ancestors(self.graph, label) for label in labels))

    def find(self, written: str, direction: str) -> _Meaning:
        kind, name = written.split(":") if ":" in written else ("", written)
        known = {"T": set(self.everything), "D": set(self._edges), "S": set(self._subsets)}
        kinds = [k for k, names in known.items() if name in names and kind in ("", k)]
        if not kinds:
            pool = known[kind] if kind else set[str]().union(*known.values())
            _refuse(self.text, f"{written!r} names nothing here", did_you_mean(name, pool))
        meanings = [self._meaning(k, name) for k in kinds]
        if len({m.after if direction.startswith(">") else m.tasks for m in meanings}) > 1:
            options = " or ".join(f"{k}:{name}" for k in kinds)
            _refuse(self.text, f"{name!r} has several meanings", f"write {options}")
        if meanings[0].is_init_output and direction != ">":
            _refuse(
                self.text,
                f"{name!r} is written once a run, not by a quantum",
                f"only '>{written}' selects by it",
            )
        return meanings[0]

    def _meaning(self, kind: str, name: str) -> _Meaning:
        if kind != "D":
            labels = frozenset({name} if kind == "T" else self._subsets[name].members)
            return _Meaning(labels, self.after(labels))
        makers = frozenset(label for label, c in self._edges[name] if not c.is_read)
        readers = frozenset(label for label, c in self._edges[name] if c.is_read)
        is_init_output = any(c.kind == "init_output" for _, c in self._edges[name])
        return _Meaning(makers, readers | self.after(readers), is_init_output)


class _Parser:
    """Recursive descent, one method a level of binding."""

    def __init__(self, text: str, names: _Names) -> None:
        self._text = text
        self._names = names
        self._tokens = _tokens(text)

    def selected(self) -> frozenset[str]:
        found = self._union()
        if self._tokens:
            _refuse(self._text, f"{self._tokens[0]!r} is not expected there", "join names by | or &")
        return found

    def _union(self) -> frozenset[str]:
        found = self._intersection()
        while self._took("|"):
            found |= self._intersection()
        return found

    def _intersection(self) -> frozenset[str]:
        found = self._single()
        while self._took("&"):
            found &= self._single()
        return found

    def _single(self) -> frozenset[str]:
        if self._took("~"):
            return self._names.everything - self._single()
        if self._took("("):
            found = self._union()
            if not self._took(")"):
                _refuse(self._text, "a bracket is not closed", "add )")
            return found
        direction = self._tokens.pop(0) if self._tokens and self._tokens[0][0] in "<>" else ""
        if not self._tokens or self._tokens[0] in _OPERATORS:
            _refuse(self._text, "a name is missing", "name a task, a dataset type or a subset")
        meaning = self._names.find(self._tokens.pop(0), direction)
        if not direction:
            return meaning.tasks
        reached = self._names.before(meaning.tasks) if direction[0] == "<" else meaning.after
        return reached | meaning.tasks if direction.endswith("=") else reached

    def _took(self, token: str) -> bool:
        if self._tokens and self._tokens[0] == token:
            del self._tokens[0]
            return True
        return False


def _tokens(text: str) -> list[str]:
    tokens, position = [], 0
    while position < len(text.rstrip()):
        match = _TOKEN.match(text, position)
        if match is None:
            _refuse(
                text,
                f"{text[position:].strip()[0]!r} means nothing here",
                "use | & ~ ( ) < <= > >= and names",
            )
        tokens.append(match["op"] or match["name"])
        position = match.end()
    return tokens


def _refuse(text: str, why: str, todo: str) -> NoReturn:
    raise PipelineError(what="the selection of tasks cannot be followed", where=text, why=why, todo=todo)
