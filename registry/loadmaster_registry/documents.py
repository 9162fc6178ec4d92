"""YAML documents that people write: read strictly, with file and line in every complaint."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from .errors import ConfigError, did_you_mean

_Model = TypeVar("_Model", bound=BaseModel)
_KeyPath = tuple[int | str, ...]


@dataclass(frozen=True)
class Document:
    """A YAML document together with where it came from."""

    origin: str
    content: Any
    root: yaml.Node | None

    def place(self, path: _KeyPath) -> str:
        """Return ``file:line: key.path`` of the deepest part of `path` that is in the document."""
        node, mark, found = self.root, self.root.start_mark if self.root else None, []
        for key in path:
            step = _child(node, key)
            if step is None:
                break
            mark, node = step
            found.append(str(key))
        line = f":{mark.line + 1}" if mark is not None else ""
        return f"{self.origin}{line}" + (f": {'.'.join(found)}" if found else "")

    def validated(self, model: type[_Model], kind: str) -> _Model:
        """Check the content against `model`.

        Raises
        ------
        ConfigError
            That tells of all that is wrong: where it stands, why, and for unknown keys the nearest known one.
        """
        try:
            return model.model_validate(self.content)
        except ValidationError as error:
            problems = error.errors(include_url=False)
            told = [self._told(problem) for problem in problems]
            unknown = next((p for p in problems if p["type"] == "extra_forbidden"), None)
            raise ConfigError(
                what=f"this is no {kind}" if len(told) > 1 else f"this is no {kind}: {told[0]}",
                where=self.place(tuple(problems[0]["loc"])),
                why="; ".join(told) if len(told) > 1 else "the document does not have the form it should",
                todo=self._advice(model, unknown) if unknown else "correct it there",
            ) from error

    def _told(self, problem: Any) -> str:
        path = tuple(problem["loc"])
        message = str(problem["msg"]).removeprefix("Value error, ")
        if not path:
            return message
        shown = ".".join(map(str, path))
        if problem["type"] == "extra_forbidden":
            return f"unknown key {shown!r} ({self.place(path)})"
        return f"{shown}: {message} ({self.place(path)})"

    def _advice(self, model: type[BaseModel], problem: Any) -> str:
        *inside, key = problem["loc"]
        known = _known_keys(model, inside)
        return did_you_mean(str(key), known) if known else "take it out"


def read_document(path: str | Path) -> Document:
    """Read one YAML file.

    Raises
    ------
    ConfigError
        If it cannot be read, is not YAML, or has the same key twice in a mapping.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            what="a file cannot be read",
            where=str(path),
            why=str(error),
            todo="check its name and permissions",
        ) from error
    return parse_document(text, str(path))


def parse_document(text: str, origin: str) -> Document:
    """Parse one YAML document; `origin` names it in errors."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        _refuse_repeated_keys(root, origin)
        return Document(origin, yaml.safe_load(text), root)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise ConfigError(
            what="a file is not valid YAML",
            where=f"{origin}:{mark.line + 1}:{mark.column + 1}" if mark else origin,
            why=str(getattr(error, "problem", None) or error),
            todo="correct the syntax there",
        ) from error


def _child(node: yaml.Node | None, key: int | str) -> tuple[yaml.Mark, yaml.Node] | None:
    if isinstance(node, yaml.MappingNode):
        for name, value in node.value:
            if name.value == str(key):
                return name.start_mark, value
    if isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
        return node.value[key].start_mark, node.value[key]
    return None


def _refuse_repeated_keys(node: yaml.Node | None, origin: str) -> None:
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _refuse_repeated_keys(item, origin)
    if not isinstance(node, yaml.MappingNode):
        return
    seen: dict[str, int] = {}
    for key, value in node.value:
        line = key.start_mark.line + 1
        if isinstance(key, yaml.ScalarNode) and key.value != "<<" and key.value in seen:
            raise ConfigError(
                what=f"the key {key.value!r} stands twice in one mapping",
                where=f"{origin}:{line}",
                why=f"its first value, on line {seen[key.value]}, would be lost",
                todo="keep one of them",
            )
        seen[str(key.value)] = line
        _refuse_repeated_keys(value, origin)


def _known_keys(model: Any, inside: list[int | str]) -> list[str]:
    """Return the keys that `model` knows at `inside`, as far as its types tell."""
    for part in inside:
        field = getattr(model, "model_fields", {}).get(part)
        if field is not None:
            model = _model_in(field.annotation)
    return list(getattr(model, "model_fields", ()))


def _model_in(annotation: Any) -> Any:
    """Return the first pydantic model within a type such as ``tuple[Model, ...] | None``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((m for arg in getattr(annotation, "__args__", ()) if (m := _model_in(arg)) is not None), None)
