"""From a task as it stands in a file to a node of the pipeline."""

import hashlib
import importlib
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from loadmaster_registry.errors import ConfigError, PipelineError, did_you_mean
from loadmaster_registry.universe import Universe

from .command import check_command, parse_command
from .connections import Connection
from .document import TaskEntry
from .format_file import FormatRules, check_holds
from .pipeline import TaskNode
from .resources import Resources
from .settings import Settings, collect, validated
from .storage import storage_classes
from .task import Task
from .yaml_source import refuse

SKYPIX = "skypix"  # stands for the sky pixels by which the registry shards the dataset type
_TYPES = {"int": int, "float": float, "str": str, "bool": bool, "bytes": bytes}
_TEMPLATE = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What resolving a task needs to know besides the task."""

    universe: Universe
    parameters: Mapping[str, Any] = field(default_factory=dict)
    trusted: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)  # names for locations that the process lacks
    formats: FormatRules = field(default_factory=FormatRules)


def task_node(entry: TaskEntry, overrides: Sequence[tuple[str, str]], around: Surroundings) -> TaskNode:
    """Return the node of `entry`, everything in it checked.

    Parameters
    ----------
    overrides : sequence of (field, text)
        From the command line, applied last.

    Raises
    ------
    PipelineError
        If the class does not import, a setting is refused, a name is unknown, or a command has an unknown
        field.
    """
    task = None if entry.is_declared else import_task(entry)
    settings = collect(
        entry,
        task.Config if task else None,
        parameters=around.parameters,
        overrides=overrides,
        trusted=around.trusted,
        environment=around.environment,
    )
    node = _of_class(entry, task, settings) if task else _declared(entry, settings)
    node = replace(node, connections=tuple(_stored(c, node, entry, around.formats) for c in node.connections))
    _check_dimensions(node, entry, around.universe)
    if node.command is not None:
        _check_command(node, entry.places.get("command", entry.where), around.universe)
    return node


def import_task(entry: TaskEntry) -> type[Task]:
    """Import the class of `entry` by its dotted path."""
    where, path = entry.places.get("class", entry.where), entry.class_name or ""
    module_name, _, name = path.rpartition(".")
    if not module_name or not all(part.isidentifier() for part in path.split(".")):
        refuse(
            where,
            f"{path!r} names no class",
            "a class is given as package.module.Class",
            "write the dotted path",
        )
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # whatever the module's own code raises
        refuse(
            where,
            f"the class of task {entry.label!r} cannot be imported",
            f"{type(error).__name__}: {error}",
            f"install the package of {module_name!r}, correct the name, or declare the connections here",
        )
    found = getattr(module, name, None)
    if not (isinstance(found, type) and issubclass(found, Task)):
        classes = [
            n
            for n, v in vars(module).items()
            if isinstance(v, type) and issubclass(v, Task) and v is not Task
        ]
        why = (
            "the module has no such name"
            if found is None
            else "it is no subclass of loadmaster_pipelines.task.Task"
        )
        refuse(where, f"{path!r} is no task", why, did_you_mean(name, classes))
    return found


def _of_class(entry: TaskEntry, task: type[Task], settings: Settings) -> TaskNode:
    dimensions = getattr(task, "dimensions", None)
    if dimensions is None:
        refuse(
            entry.where,
            f"task {entry.label!r} has no dimensions",
            f"{entry.class_name} sets none",
            "set them there",
        )
    return TaskNode(
        label=entry.label,
        dimensions=tuple(dimensions),
        connections=_named(entry, task.connections.values(), task.templates, settings),
        task_class=entry.class_name,
        config=validated(settings, task.Config, entry).model_dump(mode="json"),
        code_digest=_code_digest(task),
        resources=replace(task.resources, **entry.resources),
        environment={**task.environment, **entry.environment},
        network=task.network if entry.network is None else entry.network,
    )


def _declared(entry: TaskEntry, settings: Settings) -> TaskNode:
    digest = hashlib.sha256(entry.command.encode()).hexdigest() if entry.command is not None else ""
    return TaskNode(
        label=entry.label,
        dimensions=entry.dimensions or (),
        connections=_named(entry, entry.connections, {}, settings),
        command=entry.command,
        documented_class=entry.class_name,
        config=settings.values,
        code_digest=digest,
        resources=Resources(**entry.resources),
        spatial_bounds_from=entry.spatial_bounds_from,
        environment=dict(entry.environment),
        network=bool(entry.network),
    )


def code_now(task: TaskNode) -> str:
    """Return what the code digest of a task would be if the pipeline were loaded now; empty if it cannot be."""
    if task.task_class is None:
        return task.code_digest
    module_name, _, name = task.task_class.rpartition(".")
    try:
        return _code_digest(getattr(importlib.import_module(module_name), name))
    except Exception:  # whatever the module's own code raises
        return ""


def _code_digest(task: type[Task]) -> str:
    """Return the sha256 of the module's source and the version that the class declares."""
    source = Path(str(sys.modules[task.__module__].__file__)).read_bytes()
    return hashlib.sha256(source + b"\0" + task.version.encode()).hexdigest()


def _named(
    entry: TaskEntry, connections: Any, templates: Mapping[str, str], settings: Settings
) -> tuple[Connection, ...]:
    """Return the connections with the dataset type names that templates and settings give them."""
    by_name = {c.name: c for c in connections}
    filled = dict(templates)
    for name, (value, where) in settings.connections.items():
        if name in templates:
            filled[name] = value
        elif name not in by_name:
            known = {*templates, *by_name}
            refuse(
                where,
                f"there is no connection {name!r}",
                f"of task {entry.label!r}",
                did_you_mean(name, known),
            )
    return tuple(_renamed(c, filled, settings.connections.get(c.name), entry) for c in by_name.values())


def _renamed(
    connection: Connection, templates: Mapping[str, str], override: tuple[str, str] | None, entry: TaskEntry
) -> Connection:
    where = override[1] if override else entry.places.get(connection.name, entry.where)
    written = override[0] if override else connection.dataset_type

    def fill(match: re.Match[str]) -> str:
        if match[1] not in templates:
            near = did_you_mean(match[1], templates)
            refuse(
                where, f"there is no template {match[1]!r}", f"connection {connection.name!r} uses it", near
            )
        return templates[match[1]]

    name, _, component = _TEMPLATE.sub(fill, written).partition(".")
    if not name.isidentifier() or (component and not connection.is_read):
        refuse(
            where, f"{written!r} cannot name a dataset type", f"it becomes {name!r}", "choose another name"
        )
    kept = connection.component if override is None else None
    return replace(connection, dataset_type=name, component=component or kept)


def _stored(connection: Connection, node: TaskNode, entry: TaskEntry, rules: FormatRules) -> Connection:
    """Return the connection with what formats files say of it."""
    name, where = connection.storage_class, entry.places.get(connection.name, entry.where)
    type_ = rules.python_type(name)
    if type_ is None and node.runnable:  # else other software knows it
        near = did_you_mean(name, {*storage_classes(), *rules.classes})
        refuse(where, f"there is no storage class {name!r}", f"of {connection.name!r}", near)
    found = replace(connection, python_type=type_ or "")
    if connection.kind != "output" or not node.runnable:
        return found
    if node.command is not None:
        return _written_by_command(found, node, rules)
    formats = rules.formats(connection.dataset_type, name)
    rule = rules.rule(connection.dataset_type)
    if rule and type_:
        check_holds(type_, formats, f"dataset type {connection.dataset_type!r}", rules.places[rule])
    return replace(found, formats=formats, is_labelled=rules.is_labelled(connection.dataset_type, True))


def _written_by_command(connection: Connection, node: TaskNode, rules: FormatRules) -> Connection:
    """Return an output of a command, which chooses the format itself; what made it can be added to FITS files."""
    dataset_type, known = connection.dataset_type, storage_classes().get(connection.storage_class)
    if rule := rules.rule(dataset_type):
        raise ConfigError(
            what=f"the format of {dataset_type!r} is not ours to choose",
            where=rules.places[rule],
            why=f"the command of task {node.label!r} writes the file itself",
            todo="take it out, and choose the format in the command",
        )
    own = () if known else rules.of_class[connection.storage_class][:1]
    extension = known.extension if known else own[0].extension
    if rules.labelled.get(dataset_type) and extension != ".fits":
        raise ConfigError(
            what=f"{dataset_type!r} cannot say what made it",
            where=rules.places[dataset_type],
            why=f"it is a {extension} file of a command, and more can be written into FITS files only",
            todo="take `provenance: true` out for it",
        )
    is_labelled = extension == ".fits" and rules.is_labelled(dataset_type, False)
    return replace(connection, formats=own, is_labelled=is_labelled)


def _check_dimensions(node: TaskNode, entry: TaskEntry, universe: Universe) -> None:
    _group(node.dimensions, entry.places.get("dimensions", entry.where), universe)
    for connection in node.connections:
        plain = [d for d in connection.dimensions if d != SKYPIX]
        _group(plain, entry.places.get(connection.name, entry.where), universe)


def _group(names: Sequence[str], where: str, universe: Universe) -> tuple[str, ...]:
    try:
        return universe.group(names).names
    except ConfigError as error:
        what, _, why, todo = error.args
        raise PipelineError(what=what, where=where, why=why, todo=todo) from None


def _check_command(node: TaskNode, where: str, universe: Universe) -> None:
    group = universe.group(node.dimensions).names
    keys = {name: universe[name].key for name in group}
    check_command(
        parse_command(node.command or "", where),
        connections=node.connections,
        config=node.config,
        dimensions={name: _TYPES[key.type] for name, key in keys.items() if key is not None},
        where=where,
    )
