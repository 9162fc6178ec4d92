"""Command templates: a command line whose words take paths, data ID values and settings. Light; no shell.

The text is split into words as a shell would do it, once; then each word is filled in by itself. So a value
can hold blanks, quotes or semicolons and stays what it is.

Fields, each with an optional format as in ``{data_id.visit:08d}``:

``{inputs.NAME.path}``, ``{outputs.NAME.path}``
    Where the file is, or belongs. Several files become several words where the field is the whole word, and
    are joined by blanks inside a longer one.
``{inputs.NAME.list}``
    The path of a text file that holds the paths, one a line.
``{config.KEY}``
    A setting; KEY may be dotted. A list behaves as several files do.
``{data_id.DIMENSION}``
    A value of the data ID, implied dimensions included.
"""

import shlex
import string
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loadmaster_registry.errors import PipelineError, did_you_mean

from .connections import Connection

_FORMS = "write {inputs.X.path}, {inputs.X.list}, {outputs.X.path}, {config.KEY} or {data_id.DIMENSION}"


@dataclass(frozen=True, slots=True)
class Field:
    """One ``{…}`` of a word."""

    path: tuple[str, ...]  # ("inputs", NAME, "path"), ("config", KEY, …), ("data_id", DIMENSION)
    format: str

    def __str__(self) -> str:
        return "{" + ".".join(self.path) + (f":{self.format}" if self.format else "") + "}"


Word = tuple[str | Field, ...]


@dataclass(frozen=True, slots=True)
class CommandLine:
    """The words to run, and the text files that must be there first."""

    argv: tuple[str, ...]
    lists: Mapping[Path, str]  # file → its text


def parse_command(command: str, where: str) -> tuple[Word, ...]:
    """Return the words of `command`.

    Raises
    ------
    PipelineError
        If quotes or braces do not close, or a field is none of those that there are.
    """
    try:
        words = shlex.split(command, comments=False, posix=True)
        parsed = tuple(_word(word, where) for word in words)
    except ValueError as error:
        raise _refused(
            command, where, str(error), "close each quote and brace; a plain brace is {{ or }}"
        ) from error
    if not parsed:
        raise _refused(command, where, "it is empty", "name the program to run")
    return parsed


def check_command(
    words: Iterable[Word],
    *,
    connections: Iterable[Connection],
    config: Mapping[str, Any],
    dimensions: Mapping[str, type],
    where: str,
) -> None:
    """Refuse fields that the task cannot fill in, and formats that do not suit their values.

    Parameters
    ----------
    dimensions : mapping
        Each dimension of the task's data IDs, implied ones included, with the type of its values.
    """
    connections = list(connections)
    known = {
        "inputs": {c.name for c in connections if c.is_read},
        "outputs": {c.name for c in connections if not c.is_read},
        "data_id": set(dimensions),
    }
    for found in (part for word in words for part in word if isinstance(part, Field)):
        root = found.path[0]
        if root == "config":
            sample = _setting(config, found, where)
        elif found.path[1] not in known[root]:
            why = f"the task has no such name among its {root}"
            raise _refused(str(found), where, why, did_you_mean(found.path[1], known[root]))
        else:
            sample = dimensions[found.path[1]]() if root == "data_id" else ""
        try:
            for value in _several(sample):
                format(value, found.format)
        except ValueError as error:
            raise _refused(str(found), where, str(error), "give a format that suits the value") from error


def fill(
    command: str,
    *,
    inputs: Mapping[str, Sequence[Path]],
    outputs: Mapping[str, Sequence[Path]],
    config: Mapping[str, Any],
    data_id: Mapping[str, int | str],
    folder: Path,
) -> CommandLine:
    """Return the command line of one quantum.

    Parameters
    ----------
    inputs, outputs : mapping
        Paths by connection name; none for an optional input that is absent.
    folder : Path
        Where the text files of ``{inputs.NAME.list}`` belong; they are returned, not written.
    """
    argv: list[str] = []
    lists: dict[Path, str] = {}

    def values(part: Field) -> list[str]:
        root, name, *rest = part.path
        if root == "data_id":
            found: list[Any] = [data_id[name]]
        elif root == "config":
            found = _several(_setting(config, part, command))
        elif rest == ["list"]:
            path = folder / f"{name}.list"
            lists[path] = "".join(f"{p}\n" for p in inputs[name])
            found = [path]
        else:
            found = list((inputs if root == "inputs" else outputs)[name])
        return [format(str(v) if isinstance(v, Path) else v, part.format) for v in found]

    for word in parse_command(command, command):
        if len(word) == 1 and isinstance(word[0], Field):
            argv += values(word[0])
        else:
            argv.append("".join(" ".join(values(p)) if isinstance(p, Field) else p for p in word))
    return CommandLine(tuple(argv), lists)


def _word(word: str, where: str) -> Word:
    parts: list[str | Field] = []
    for text, name, spec, conversion in string.Formatter().parse(word):
        if text:
            parts.append(text)
        if name is None:
            continue
        if conversion or "{" in (spec or ""):
            raise _refused(
                f"{{{name}}}", where, "conversions and nested fields are no part of this", "leave them out"
            )
        parts.append(Field(_path(name, where), spec or ""))
    return tuple(parts) or ("",)


def _path(name: str, where: str) -> tuple[str, ...]:
    path = tuple(name.split("."))
    shapes = {"inputs": 3, "outputs": 3, "data_id": 2}
    if path[0] not in (*shapes, "config"):
        raise _refused(f"{{{name}}}", where, f"there is no {path[0]!r}", _FORMS)
    if (
        not all(part.isidentifier() for part in path)
        or len(path) < 2
        or len(path) != shapes.get(path[0], len(path))
    ):
        raise _refused(f"{{{name}}}", where, "the field has another form", _FORMS)
    endings = {"inputs": ("path", "list"), "outputs": ("path",)}.get(path[0], (path[-1],))
    if path[-1] not in endings:
        raise _refused(
            f"{{{name}}}", where, f"{path[0]} have no {path[-1]!r}", did_you_mean(path[-1], endings)
        )
    return path


def _setting(config: Mapping[str, Any], found: Field, where: str) -> Any:
    value: Any = config
    for key in found.path[1:]:
        if not isinstance(value, Mapping) or key not in value:
            near = did_you_mean(key, value if isinstance(value, Mapping) else ())
            raise _refused(str(found), where, f"the task's `config` has no {key!r} there", near)
        value = value[key]
    if isinstance(value, Mapping):
        raise _refused(str(found), where, "it is a group of settings", did_you_mean("", value))
    return value


def _several(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _refused(what: str, where: str, why: str, todo: str) -> PipelineError:
    return PipelineError(what=f"the command cannot hold {what}", where=where, why=why, todo=todo)
