"""A task's configuration: from the blocks of pipeline files to checked values.

Order: defaults of the class, then each block in turn (its files, its Python, its fields), then what the
command line says. Python runs only where the source is trusted.
"""

import ast
import copy
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import UnionType
from typing import Any, Union, get_args, get_origin

from loadmaster_registry.errors import PipelineError, did_you_mean
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import PydanticUndefined

from .document import ConfigBlock, TaskEntry
from .task import TaskConfig
from .yaml_source import expand, read_text, refuse

_UNSET = object()  # stands in the tree that Python code sees for a field without a default


@dataclass
class Settings:
    """What pipeline files set for one task, collected in order."""

    values: dict[str, Any] = field(default_factory=dict)  # nested
    places: dict[tuple[str, ...], str] = field(default_factory=dict)  # path of a field → where it was set
    connections: dict[str, tuple[str, str]] = field(default_factory=dict)  # name → (new name, where)

    def put(self, path: tuple[str, ...], value: Any, where: str) -> None:
        """Set the field at `path`; whatever was set below it before is forgotten."""
        holder = self.values
        for key in path[:-1]:
            inner = holder.get(key)
            holder[key] = inner = dict(inner) if isinstance(inner, Mapping) else {}
            holder = inner
        holder[path[-1]] = value
        self.places = {p: w for p, w in self.places.items() if p[: len(path)] != path}
        self.places[path] = where

    def place(self, path: tuple[Any, ...], default: str) -> str:
        """Return where the field at `path`, or the nearest one around it, was set."""
        for length in range(len(path), 0, -1):
            inside = [w for p, w in self.places.items() if p[:length] == path[:length]]
            if inside:
                return inside[0]
        return default


def collect(
    entry: TaskEntry,
    model: type[TaskConfig] | None,
    *,
    parameters: Mapping[str, Any],
    overrides: Sequence[tuple[str, str]],
    trusted: bool,
    environment: Mapping[str, str],
) -> Settings:
    """Return what the blocks of `entry`, then the command line's `overrides`, set.

    Parameters
    ----------
    model : type, optional
        The class of the configuration; None for a task declared in YAML, whose settings are plain values.
    overrides : sequence of (field, text)
    """
    settings = Settings()
    # What a Python block defines stays visible for later ones; the module of the class is visible from the start.
    names = dict(vars(sys.modules[model.__module__])) if model else {}
    for block in entry.blocks:
        _refuse_python(block, trusted)
        for location in block.files:
            path = expand(location, block.places["file"], environment)
            _run(read_text(path), path, settings, model, parameters, {}, path)
        if block.python is not None:
            where = block.places["python"]
            _run(block.python, f"<python of {entry.label}>", settings, model, parameters, names, where)
        for key, value in block.fields.items():
            where = block.places.get(key, entry.where)
            _set(settings, key, substitute(value, parameters, where), where)
    for key, text in overrides:
        where = f"command line: {entry.label}:{key}"
        if model is None and not key.startswith("connections."):
            _refuse_unknown_setting(settings, key, where)
        value = substitute(text, parameters, where)
        _set(settings, key, literal(value) if model is None else value, where)
    return settings


def substitute(value: Any, parameters: Mapping[str, Any], where: str) -> Any:
    """Replace ``parameters.NAME`` by its value, in lists and mappings too; an unknown one is refused."""
    if isinstance(value, Mapping):
        return {key: substitute(item, parameters, where) for key, item in value.items()}
    if isinstance(value, list):
        return [substitute(item, parameters, where) for item in value]
    if not isinstance(value, str) or not value.startswith("parameters."):
        return value
    name = value.removeprefix("parameters.")
    if name not in parameters:
        refuse(
            where,
            f"there is no parameter {name!r}",
            "`parameters` does not define it",
            did_you_mean(name, parameters),
        )
    return parameters[name]


def validated(settings: Settings, model: type[TaskConfig], entry: TaskEntry) -> TaskConfig:
    """Return the checked configuration.

    Raises
    ------
    PipelineError
        With every field that is wrong, and file, line and column of each.
    """
    values = _suited(settings.values, model)
    try:
        return model.model_validate(values)
    except ValidationError as error:
        problems = [_problem(detail, settings, model, entry) for detail in error.errors()]
        raise PipelineError(
            what=f"the configuration of task {entry.label!r} is refused",
            where=", ".join(dict.fromkeys(where for where, _, _ in problems)),
            why="; ".join(why for _, why, _ in problems),
            todo="; ".join(dict.fromkeys(todo for _, _, todo in problems if todo)) or "correct the values",
        ) from error


def literal(text: Any) -> Any:
    """Read text as a Python literal (number, list, True, None…); what is none stays text."""
    if isinstance(text, Mapping):
        return {key: literal(item) for key, item in text.items()}
    if isinstance(text, list):
        return [literal(item) for item in text]
    if not isinstance(text, str):
        return text
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text


def _set(settings: Settings, key: str, value: Any, where: str) -> None:
    path = tuple(key.split("."))
    if not all(part.isidentifier() for part in path):
        refuse(where, f"{key!r} cannot name a field", "a field is NAME or GROUP.NAME", "correct the name")
    if path[0] == "connections":
        if len(path) != 2 or not isinstance(value, str):
            refuse(
                where,
                f"{key}: {value!r} renames nothing",
                "a dataset type is text",
                "write connections.NAME: type",
            )
        settings.connections[path[1]] = (value, where)
    else:
        settings.put(path, value, where)


def _refuse_unknown_setting(settings: Settings, key: str, where: str) -> None:
    value: Any = settings.values
    for part in key.split("."):
        if not isinstance(value, Mapping) or part not in value:
            known = value if isinstance(value, Mapping) else ()
            refuse(
                where,
                f"there is no setting {key!r}",
                "the task's `config` does not have it",
                did_you_mean(part, known),
            )
        value = value[part]


def _refuse_python(block: ConfigBlock, trusted: bool) -> None:
    for key, is_there in (("python", block.python is not None), ("file", bool(block.files))):
        if is_there and not trusted:
            refuse(
                block.places[key],
                f"`{key}` would run Python code",
                "code in pipelines runs only where its source is trusted, and this one is not said to be",
                "read it, then load with trusted=True (command line: --trusted), or set fields instead",
            )


def _run(
    code: str,
    name: str,
    settings: Settings,
    model: type[TaskConfig] | None,
    parameters: Mapping[str, Any],
    names: dict[str, Any],
    where: str,
) -> None:
    """Execute `code` with ``config`` and ``parameters``, and take over every field that it changed."""
    _refuse_constant_conditions(code, where)
    before = _defaults(model)
    _overlay(before, _typed(settings.values, model) if model else settings.values)
    tree = _copied(before)
    names |= {
        "config": _Node(tree, strict=model is not None),
        "parameters": _Node(dict(parameters), frozen=True),
    }
    try:
        exec(compile(code, name, "exec"), names)
    except PipelineError:
        raise
    except Exception as error:
        refuse(
            where,
            "Python in the configuration failed",
            f"{type(error).__name__}: {error}",
            "correct the code",
        )
    for path, value in _changes(before, tree):
        _set(settings, ".".join(path), value, where)


def _refuse_constant_conditions(code: str, where: str) -> None:
    """Refuse ``if {parameters.x}:``, which looks like a substitution and is a set with one member: always true."""
    try:
        tree = ast.parse(code)
    except SyntaxError:
        return  # told when it is run
    for node in ast.walk(tree):
        test = node.test if isinstance(node, (ast.If, ast.IfExp, ast.While)) else None
        if isinstance(test, (ast.Set, ast.List, ast.Tuple, ast.Dict)):
            refuse(
                where,
                f"the condition {ast.unparse(test)} never changes",
                "braces and brackets make a set, a dict or a list, which is true unless it is empty",
                "leave them out",
            )


def _defaults(model: type[TaskConfig] | None) -> dict[str, Any]:
    return {**(_tree(model) if model else {}), "connections": {}}


def _tree(model: type[BaseModel]) -> dict[str, Any]:
    """Return the defaults of `model` as nested mappings; a field without one holds `_UNSET`."""
    tree: dict[str, Any] = {}
    for name, info in model.model_fields.items():
        value = info.get_default(call_default_factory=True, validated_data={})
        inner = _model_in(info.annotation)
        if value is PydanticUndefined:
            tree[name] = _tree(inner) if inner else _UNSET
        else:
            tree[name] = value.model_dump() if isinstance(value, BaseModel) else copy.deepcopy(value)
    return tree


def _typed(values: Mapping[str, Any], model: type[BaseModel]) -> dict[str, Any]:
    """Return `values` as the model will hold them, as far as each is valid."""
    typed: dict[str, Any] = {}
    for key, value in _suited(values, model).items():
        info = model.model_fields.get(key)
        inner = _model_in(info.annotation) if info else None
        if inner is not None and isinstance(value, Mapping):
            typed[key] = _typed(value, inner)
        else:
            annotation: Any = info.annotation if info else Any
            adapter: TypeAdapter[Any] = TypeAdapter(annotation)
            typed[key] = adapter.validate_python(value) if _accepts(adapter, value) else value
    return typed


def _copied(tree: Mapping[str, Any]) -> dict[str, Any]:
    return {
        k: v if v is _UNSET else _copied(v) if isinstance(v, dict) else copy.deepcopy(v)
        for k, v in tree.items()
    }


def _overlay(tree: dict[str, Any], values: Mapping[str, Any]) -> None:
    for key, value in values.items():
        if isinstance(value, Mapping) and isinstance(tree.get(key), dict):
            _overlay(tree[key], value)
        else:
            tree[key] = copy.deepcopy(value)


def _changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], Any]]:
    for key, value in after.items():
        old = before.get(key)
        if isinstance(value, Mapping) and isinstance(old, Mapping):
            yield from (((key, *path), inner) for path, inner in _changes(old, value))
        elif key not in before or type(value) is not type(old) or value != old:
            yield (key,), value


class _Node:
    """The settings below one name, for Python code: reads and writes attributes."""

    def __init__(self, tree: dict[str, Any], *, strict: bool = False, frozen: bool = False) -> None:
        vars(self).update(_tree=tree, _strict=strict, _frozen=frozen)

    def __getattr__(self, name: str) -> Any:
        tree: dict[str, Any] = vars(self)["_tree"]
        if name not in tree:
            raise AttributeError(f"there is no {name!r}; {did_you_mean(name, tree)}")
        value = tree[name]
        if value is _UNSET:
            raise AttributeError(f"{name!r} has no default and is not set yet")
        if not isinstance(value, dict):
            return value
        return _Node(value, strict=self._strict and name != "connections", frozen=self._frozen)

    def __setattr__(self, name: str, value: Any) -> None:
        if self._frozen:
            raise AttributeError(f"{name!r} cannot be set: parameters are fixed")
        if self._strict and name not in self._tree:
            raise AttributeError(f"there is no field {name!r}; {did_you_mean(name, self._tree)}")
        self._tree[name] = value


def _suited(values: Mapping[str, Any], model: type[BaseModel]) -> dict[str, Any]:
    """Return `values` with text read as Python literals wherever the field takes no text."""
    suited = {}
    for key, value in values.items():
        info = model.model_fields.get(key)
        inner = _model_in(info.annotation) if info else None
        if info is None:
            suited[key] = value
        elif inner is not None and isinstance(value, Mapping):
            suited[key] = _suited(value, inner)
        else:
            suited[key] = _suited_value(value, info.annotation)
    return suited


def _suited_value(value: Any, annotation: Any) -> Any:
    adapter: TypeAdapter[Any] = TypeAdapter(annotation)
    read = literal(value)
    if value == "None" and _accepts(adapter, None):
        return None
    return value if _accepts(adapter, value) or not _accepts(adapter, read) else read


def _accepts(adapter: TypeAdapter[Any], value: Any) -> bool:
    try:
        adapter.validate_python(value)
    except ValidationError:
        return False
    return True


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in (Union, UnionType):
        models = [m for m in map(_model_in, get_args(annotation)) if m]
        return models[0] if len(models) == 1 else None
    return None


def _problem(
    detail: Mapping[str, Any], settings: Settings, model: type[TaskConfig], entry: TaskEntry
) -> tuple[str, str, str]:
    """Return where, why and what to do for one of pydantic's complaints."""
    path = tuple(detail["loc"])
    name = ".".join(map(str, path))
    where = settings.place(path, entry.where)
    if detail["type"] != "extra_forbidden":
        given = f" (given: {detail['input']!r})" if detail["type"] != "missing" else ""
        return where, f"{name}: {detail['msg'][:1].lower()}{detail['msg'][1:]}{given}", ""
    holder: Any = model
    for key in path[:-1]:
        info = holder.model_fields.get(key) if holder else None
        holder = _model_in(info.annotation) if info else None
    near = did_you_mean(str(path[-1]), holder.model_fields if holder else ())
    return where, f"{name}: there is no such field", f"{path[-1]}: {near}"
