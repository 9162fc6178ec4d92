"""A pipeline for people: as text, as a Mermaid flow chart, as an SVG drawing, and as YAML again."""

import textwrap
from collections.abc import Iterable, Sequence
from itertools import zip_longest
from typing import Any

import yaml

from .connections import Connection
from .drawing import draw
from .pipeline import Pipeline, TaskNode
from .resources import Resources

WIDTH = 120
_LABEL_WIDTH, _DIMENSIONS_WIDTH = 30, 24
_MERMAID_EDGES = 500  # Mermaid refuses to draw more, and a page cannot change that
_TABLES = {
    "inputs": "input",
    "prerequisites": "prerequisite",
    "outputs": "output",
    "init_inputs": "init_input",
    "init_outputs": "init_output",
}


def as_text(pipeline: Pipeline) -> str:
    """Return a table of tasks in order: label, dimensions, inputs → outputs; no line exceeds 120 columns.

    Prerequisites stand in parentheses, datasets of which there is one a run in braces; ``×n`` marks
    connections that take any number.
    """
    flow_width = WIDTH - _LABEL_WIDTH - _DIMENSIONS_WIDTH - 4
    lines = textwrap.wrap(pipeline.description, WIDTH)
    if pipeline.instrument:
        lines.append(f"instrument: {pipeline.instrument}")
    lines += ["", _row("task", "dimensions", "inputs → outputs"), "─" * WIDTH]
    for task in pipeline.tasks.values():
        columns = [
            [task.label],
            textwrap.wrap(", ".join(task.dimensions) or "(one a run)", _DIMENSIONS_WIDTH),
            _wrapped(_flow(task), flow_width),
        ]
        if (
            len(task.label) > _LABEL_WIDTH
        ):  # a label is copied from here, so it stays whole, on a line of its own
            lines.append(task.label)
            columns[0] = []
        lines += [_row(*cells) for cells in zip_longest(*columns, fillvalue="")]
    for subset in pipeline.subsets.values():
        text = f"{subset.name}: {', '.join(subset.members)}"
        lines += textwrap.wrap(text, WIDTH, initial_indent="subset ", subsequent_indent="    ")
    for step in pipeline.steps:
        lines.append(f"step {step.label}: split by {', '.join(step.dimensions) or 'nothing'}")
    return "\n".join(lines) + "\n"


def as_mermaid(pipeline: Pipeline) -> str:
    """Return a Mermaid flow chart of tasks and dataset types; of tasks only if Mermaid allows no more."""
    lines = ["flowchart TD"]
    tasks = {label: f"t{i}" for i, label in enumerate(pipeline.tasks)}
    for label, node in tasks.items():
        dimensions = ", ".join(pipeline.tasks[label].dimensions)
        lines.append(f'    {node}["{_mermaid(label)}<br/><small>{_mermaid(dimensions)}</small>"]')
    if pipeline.graph().number_of_edges() <= _MERMAID_EDGES:
        lines += _mermaid_datasets(pipeline, tasks)
    else:
        lines += [f"    {tasks[a]} --> {tasks[b]}" for a, b in pipeline.task_graph().edges]
    return "\n".join(lines) + "\n"


def as_svg(pipeline: Pipeline) -> str:
    """Return an SVG drawing: dataset types are drawn for small pipelines, large ones show tasks only."""
    return draw(pipeline)


def as_yaml(pipeline: Pipeline) -> str:
    """Return a pipeline file that loads as an equal pipeline: imports, parameters, settings are resolved."""
    document: dict[str, Any] = {"description": pipeline.description}
    if pipeline.instrument:
        document["instrument"] = pipeline.instrument
    if pipeline.parameters:
        document["parameters"] = dict(pipeline.parameters)
    document["tasks"] = {label: _task(task) for label, task in pipeline.tasks.items()}
    if pipeline.contracts:
        ordered = sorted(pipeline.contracts, key=lambda c: c.expression)
        document["contracts"] = [
            {"contract": c.expression} | ({"msg": c.message} if c.message else {}) for c in ordered
        ]
    if pipeline.subsets:
        document["subsets"] = {
            s.name: {"subset": list(s.members)} | ({"description": s.description} if s.description else {})
            for s in pipeline.subsets.values()
        }
    if pipeline.steps:
        document["steps"] = [{"label": s.label, "dimensions": list(s.dimensions)} for s in pipeline.steps]
    return str(yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=WIDTH))


def _row(label: str, dimensions: str, flow: str) -> str:
    return f"{label:<{_LABEL_WIDTH}}  {dimensions:<{_DIMENSIONS_WIDTH}}  {flow}".rstrip()


def _flow(task: TaskNode) -> list[str]:
    reads = dict.fromkeys(_shown(c) for c in (*task.inputs, *task.prerequisites, *task.init_inputs))
    writes = dict.fromkeys(_shown(c) for c in (*task.outputs, *task.init_outputs))
    return [*_listed(reads), "→", *_listed(writes)]


def _listed(names: Iterable[str]) -> list[str]:
    names = list(names)
    return [f"{name}," for name in names[:-1]] + names[-1:] if names else ["·"]


def _wrapped(words: Iterable[str], width: int) -> list[str]:
    """Fill lines with `words`; a word is broken only where it is longer than a line."""
    lines = [""]
    for word in words:
        if lines[-1] and len(lines[-1]) + 1 + len(word) > width:
            lines.append("")
        lines[-1] += f" {word}" if lines[-1] else word
        while len(lines[-1]) > width:
            lines[-1:] = [lines[-1][:width], lines[-1][width:]]
    return lines


def _shown(connection: Connection) -> str:
    name = connection.dataset_type + (f".{connection.component}" if connection.component else "")
    name += " ×n" if connection.multiple else ""
    if connection.kind == "prerequisite":
        return f"({name})"
    return f"{{{name}}}" if connection.is_init else name


def _mermaid_datasets(pipeline: Pipeline, tasks: dict[str, str]) -> Iterable[str]:
    names = {name: f"d{i}" for i, name in enumerate(pipeline.dataset_types())}
    for name, node in names.items():
        yield f'    {node}(["{_mermaid(name)}"])'
    for label, task in pipeline.tasks.items():
        for connection in task.connections:
            ends = (names[connection.dataset_type], tasks[label])
            arrow = "-.->" if connection.kind == "prerequisite" else "-->"
            a, b = ends if connection.is_read else ends[::-1]
            yield f"    {a} {arrow} {b}"


def _mermaid(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")


def _task(task: TaskNode) -> dict[str, Any]:
    body: dict[str, Any] = {}
    if task.task_class or task.documented_class:
        body["class"] = task.task_class or task.documented_class
    config = dict(task.config)
    if task.task_class:
        config |= {f"connections.{c.name}": _written(c) for c in task.connections if not c.automatic}
    else:
        body["dimensions"] = list(task.dimensions)
        for table, kind in _TABLES.items():
            connections = [c for c in task.connections if c.kind == kind and not c.automatic]
            if connections:
                body[table] = {c.name: _connection(c) for c in connections}
    if config:
        body["config"] = config
    if task.command is not None:
        body["command"] = task.command
    if task.resources != Resources():
        names = Resources.__dataclass_fields__
        body["resources"] = {n: v for n in names if (v := getattr(task.resources, n)) is not None}
    if task.environment:
        body["environment"] = dict(task.environment)
    if task.network:
        body["network"] = True
    if task.spatial_bounds_from:
        body["spatial_bounds_from"] = list(task.spatial_bounds_from)
    return body


def _written(connection: Connection) -> str:
    return connection.dataset_type + (f".{connection.component}" if connection.component else "")


def _connection(connection: Connection) -> dict[str, Any]:
    body: dict[str, Any] = {
        "dataset_type": connection.dataset_type,
        "storage_class": connection.storage_class,
    }
    if not connection.is_init:
        body["dimensions"] = list(connection.dimensions)
    for name in ("multiple", "deferred", "calibration", "no_graph_constraint", "component", "custom_lookup"):
        if value := getattr(connection, name):
            body[name] = value
    if connection.minimum != 1:
        body["minimum"] = connection.minimum
    return body


class _Dumper(yaml.SafeDumper):
    """Writes text of several lines as a block, and lists of plain values on one line."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


def _represent_list(dumper: yaml.SafeDumper, items: Sequence[Any]) -> yaml.Node:
    flat = all(not isinstance(item, (list, dict)) for item in items)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", items, flow_style=flat)


_Dumper.add_representer(str, _represent_text)
_Dumper.add_representer(list, _represent_list)
_Dumper.add_representer(tuple, _represent_list)
