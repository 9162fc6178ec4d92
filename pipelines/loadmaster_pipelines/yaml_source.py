"""YAML that knows where each thing stands: files, lines and columns for errors, no key twice."""

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import fsspec
import yaml
from loadmaster_registry.errors import PipelineError, did_you_mean

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Block(dict[Any, Any]):
    """A mapping that remembers where it and each of its keys stand, as ``file:line:column``."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self.where = where
        self.where_of: dict[Any, str] = {}

    def at(self, key: Any) -> str:
        """Return where `key` stands, or the block itself without it."""
        return self.where_of.get(key, self.where)


class Items(list[Any]):
    """A list that remembers where it and each of its items stand."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self.where = where
        self.where_of: list[str] = []


def read_text(location: str) -> str:
    """Return the text at a path or URL.

    Raises
    ------
    PipelineError
        If there is none.
    """
    try:
        if "://" in location:
            with fsspec.open(location, "rt", encoding="utf-8") as stream:
                return str(stream.read())
        return Path(location).read_text(encoding="utf-8")
    except (OSError, ValueError, ImportError) as error:  # the last two: no such protocol, not UTF-8
        raise PipelineError(
            what="a file of the pipeline cannot be read",
            where=location,
            why=str(error) or type(error).__name__,
            todo="give a path relative to the current folder, or to the file that imports it",
        ) from error


def read_yaml(location: str) -> Block:
    """Read one YAML document, which must be a mapping."""
    return parse_yaml(read_text(location), location)


def parse_yaml(text: str, name: str) -> Block:
    """Parse YAML `text`; `name` is what errors call the file."""
    loader = _MarkingLoader(text)
    loader.origin = name
    try:
        document = loader.get_single_data()
    except yaml.YAMLError as error:
        raise _syntax_error(error, name) from error
    finally:
        loader.dispose()
    if not isinstance(document, Block):
        refuse(f"{name}:1:1", "the file holds no mapping", "a pipeline is one", "begin with `description: …`")
    return document


def refuse(where: str, what: str, why: str, todo: str) -> NoReturn:
    """Raise the `PipelineError` that says so."""
    raise PipelineError(what=what, where=where, why=why, todo=todo)


def check_keys(block: Mapping[Any, Any], known: Iterable[str], what: str) -> None:
    """Refuse any key of `block` that is not among `known`; `what` names the block."""
    known = list(known)
    for key in block:
        if key not in known:
            where = block.at(key) if isinstance(block, Block) else what
            refuse(
                where, f"unknown key {key!r}", f"it means nothing in {what}", did_you_mean(str(key), known)
            )


def mapping_in(block: Block, key: Any) -> Block:
    """Return the mapping below `key`, empty where there is none; refuse what is no mapping."""
    value = block.get(key)
    if value is None:
        return Block(block.at(key))
    if not isinstance(value, Block):
        refuse(block.at(key), f"`{key}` is no mapping", f"it is {value!r}", "write NAME: … below it")
    return value


def expand(text: str, where: str, given: Mapping[str, str]) -> str:
    """Replace ``$NAME`` and ``${NAME}`` from the environment or else `given`; refuse an unknown name."""

    def value(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        found = os.environ.get(name, given.get(name))
        if found is None:
            refuse(
                where,
                f"the environment variable {name!r} is not set",
                f"the location {text!r} needs it",
                did_you_mean(name, {*given, *os.environ}),
            )
        return found

    return re.sub(r"\$(?:(\w+)|\{(\w+)\})", value, text)


class _MarkingLoader(_Loader):  # type: ignore[misc]
    origin = ""

    def place(self, node: Any) -> str:
        return f"{self.origin}:{node.start_mark.line + 1}:{node.start_mark.column + 1}"


def _construct_block(loader: Any, node: Any) -> Block:
    block = Block(loader.place(node))
    seen: dict[Any, str] = {}
    for key_node, _ in node.value:
        if key_node.tag == "tag:yaml.org,2002:merge":
            continue
        key = _key(loader, key_node)
        if key in seen:
            refuse(
                loader.place(key_node),
                f"the key {key!r} stands twice",
                f"it stands at {seen[key]} already",
                "keep one",
            )
        seen[key] = loader.place(key_node)
    loader.flatten_mapping(node)  # `<<`
    for key_node, value_node in node.value:
        key = _key(loader, key_node)
        block[key] = loader.construct_object(value_node, deep=True)
        block.where_of[key] = loader.place(key_node)
    return block


def _key(loader: Any, node: Any) -> Any:
    if not isinstance(node, yaml.ScalarNode):
        refuse(
            loader.place(node),
            "a key is not plain text",
            "lists and mappings cannot be keys",
            "quote the key",
        )
    return loader.construct_object(node, deep=True)


def _construct_items(loader: Any, node: Any) -> Items:
    items = Items(loader.place(node))
    for item in node.value:
        items.append(loader.construct_object(item, deep=True))
        items.where_of.append(loader.place(item))
    return items


def _construct_date(loader: Any, node: Any) -> str:
    return str(loader.construct_scalar(node))  # as text: settings must survive as JSON


_MarkingLoader.add_constructor("tag:yaml.org,2002:timestamp", _construct_date)
_MarkingLoader.add_constructor("tag:yaml.org,2002:map", _construct_block)
_MarkingLoader.add_constructor("tag:yaml.org,2002:seq", _construct_items)


def _syntax_error(error: yaml.YAMLError, name: str) -> PipelineError:
    mark = getattr(error, "problem_mark", None)
    where = f"{name}:{mark.line + 1}:{mark.column + 1}" if mark else name
    why = " ".join(
        str(part) for part in (getattr(error, "context", ""), getattr(error, "problem", "")) if part
    )
    return PipelineError(
        what="this is not YAML",
        where=where,
        why=why or str(error),
        todo="look for a bracket, a quote or an indentation that is off",
    )
