"""Pipeline files, found, read, merged, selected from and checked: `load_pipeline`."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote

from loadmaster_registry.errors import PipelineError, did_you_mean
from loadmaster_registry.universe import Universe

from .contracts import check_contract
from .document import Document, Import, parse_document
from .format_file import read_format_rules
from .imports import resolve, restrict
from .pipeline import Pipeline, TaskNode, in_order, with_automatic
from .resolve import Surroundings, task_node
from .rules import check_graph, check_steps
from .selection import labels_of_list, labels_of_range, select
from .settings import literal
from .yaml_source import expand, read_yaml, refuse

SHIPPED = Path(__file__).with_name("shipped")
# What `$NAME` in a location means where the environment does not say otherwise.
GIVEN = {"LOADMASTER_PIPELINES_DIR": str(SHIPPED)}


def load_pipeline(
    location: str | Path,
    *,
    universe: Universe,
    config: Sequence[str] = (),
    select: str | None = None,
    trusted: bool = False,
    formats: Sequence[str | Path] = (),
) -> Pipeline:
    """Return the pipeline at `location`, complete and checked.

    Parameters
    ----------
    location : str or Path
        Path or URL of a YAML file, ``$NAME`` expanded; may end in ``#a,b`` (labels or subsets) or
        ``#begin..end``.
        ``$LOADMASTER_PIPELINES_DIR`` is where the shipped pipelines are.
    universe : Universe
        What dimensions there are.
    config : sequence of str
        ``LABEL:FIELD=VALUE`` or ``parameters:NAME=VALUE``, applied last, in order.
    select : str, optional
        Expression of the set language (see `selection`), applied after the fragment of `location`.
    trusted : bool
        Let ``python:`` and ``file:`` blocks run: for files whose authors you trust as you trust a program.
    formats : sequence of paths
        Files that say in which formats outputs are written (see `format_file`); the last counts first.

    Raises
    ------
    PipelineError, ConfigError
        With file, line and column, the reason, and what to do; the second of what formats files say.
    """
    path, fragment = split_fragment(str(location))
    path = expand(path, str(location), GIVEN)
    document = _read(path, ())
    document, overrides = _overridden(document, config)
    around = Surroundings(universe, document.parameters, trusted, GIVEN, read_format_rules(formats))
    nodes, failed = _nodes(document, overrides, around)
    labels = _selected(fragment, select, document, nodes, failed)
    for label in labels:
        if label in failed:
            raise failed[label]
    check_graph(
        (nodes[label] for label in labels), universe, lambda label, name: _place(document, label, name)
    )
    pipeline = _assemble(document, labels, nodes, path)
    check_steps(pipeline, universe, document.at("steps"))
    _check_contracts(pipeline, document)
    return pipeline


def split_fragment(location: str) -> tuple[str, str]:
    """Split ``file.yaml#fragment``; the older ``file.yaml:label`` is refused."""
    path, _, fragment = location.partition("#")
    if "#" in fragment:
        refuse(location, "two `#`", "one begins the selection", "join labels by commas: #a,b")
    if old := re.search(r":(?!//)([^/]*)$", path):
        refuse(
            location,
            "`:` selects nothing",
            "labels stand behind `#`",
            f"write {path[: old.start()]}#{old[1]}",
        )
    fragment = unquote(fragment)
    if ".." in fragment and "," in fragment:
        refuse(
            location, "a list and a range together", "it is either `#a,b` or `#a..b`", "use --select-tasks"
        )
    return path, fragment


def _read(path: str, above: tuple[str, ...]) -> Document:
    """Read the file at `path` with its imports merged; `above` are the files that import it."""
    here = path if "://" in path else os.path.normpath(path)
    if here in above:
        circle = (*above[above.index(here) :], here)
        refuse(path, "pipeline files import each other", " → ".join(circle), "take one import out")
    folder = here.rpartition("/")[0] or ("." if not here.startswith("/") else "/")
    document = parse_document(read_yaml(here), folder)

    def imported(order: Import) -> Document:
        location = expand(order.location, order.where, GIVEN)
        target, fragment = split_fragment(location)
        if fragment:
            refuse(
                order.where, "an import cannot hold `#`", "it names what it takes by keys", "use `include`"
            )
        absolute = "://" in target or target.startswith("/")
        return _read(target if absolute else f"{folder}/{target}", (*above, here))

    return resolve(document, imported)


def _overridden(
    document: Document, config: Sequence[str]
) -> tuple[Document, Mapping[str, list[tuple[str, str]]]]:
    """Return the document with parameters of the command line, and its other settings by label."""
    parameters = dict(document.parameters)
    overrides: dict[str, list[tuple[str, str]]] = {}
    for text in config:
        match = re.fullmatch(r"([^:=]+):([^=]+)=(.*)", text, re.DOTALL)
        if match is None:
            refuse(
                f"command line: {text}",
                "the setting cannot be read",
                "it has another form",
                "write LABEL:FIELD=VALUE",
            )
        label, name, value = match[1].strip(), match[2].strip(), match[3]
        if label == "parameters":
            if name not in parameters:
                near = did_you_mean(name, parameters)
                refuse(
                    f"command line: {text}",
                    f"there is no parameter {name!r}",
                    "the pipeline has no use for it",
                    near,
                )
            parameters[name] = literal(value)
        elif label in document.tasks:
            overrides.setdefault(label, []).append((name, value))
        else:
            near = did_you_mean(label, document.tasks)
            refuse(f"command line: {text}", f"there is no task {label!r}", "no task has this label", near)
    return replace(document, parameters=parameters), overrides


def _nodes(
    document: Document, overrides: Mapping[str, list[tuple[str, str]]], around: Surroundings
) -> tuple[dict[str, TaskNode], dict[str, PipelineError]]:
    """Resolve all tasks; errors are kept, because the task may not be selected."""
    nodes: dict[str, TaskNode] = {}
    failed: dict[str, PipelineError] = {}
    for label, entry in document.tasks.items():
        try:
            nodes[label] = task_node(entry, overrides.get(label, ()), around)
        except PipelineError as error:
            failed[label] = error
    return {node.label: node for node in with_automatic(nodes.values())}, failed


def _selected(
    fragment: str,
    expression: str | None,
    document: Document,
    nodes: Mapping[str, TaskNode],
    failed: Mapping[str, PipelineError],
) -> list[str]:
    """Return the labels asked for; what needs the graph needs every task to be resolved."""
    needs_graph = ".." in fragment or expression is not None
    if failed and needs_graph:
        raise next(iter(failed.values()))
    labels = list(document.tasks)
    if ".." in fragment:
        labels = labels_of_range(fragment, nodes)
    elif fragment:
        labels = labels_of_list(fragment, labels, document.subsets)
    if expression is not None:
        wanted = set(select(expression, nodes, document.subsets))
        labels = [label for label in labels if label in wanted]
    if not labels:
        where = " ".join(filter(None, (fragment and f"#{fragment}", expression)))
        refuse(where or document.at("tasks"), "no task is left", "the selection is empty", "select wider")
    return labels


def _assemble(
    document: Document, labels: Sequence[str], nodes: Mapping[str, TaskNode], where: str
) -> Pipeline:
    chosen = restrict(document, labels, edit=True)
    tasks = in_order([nodes[label] for label in labels], where)
    subsets = {name: s for name, s in chosen.subsets.items() if s.members}
    return Pipeline(
        description=document.description,
        instrument=document.instrument,
        tasks=tasks,
        subsets=subsets,
        steps=tuple(step for step in chosen.steps if step.label in subsets),
        contracts=chosen.contracts,
        parameters=dict(document.parameters),
        left_out=frozenset(document.tasks) - set(labels),
    )


def _check_contracts(pipeline: Pipeline, document: Document) -> None:
    configs = {
        label: {**task.config, "connections": {c.name: c.dataset_type for c in task.connections}}
        for label, task in pipeline.tasks.items()
    }
    for contract in pipeline.contracts:
        check_contract(contract, configs, document.at(f"contracts.{contract.expression}"))


def _place(document: Document, label: str, connection: str) -> str:
    entry = document.tasks[label]
    return entry.places.get(connection, entry.where)
