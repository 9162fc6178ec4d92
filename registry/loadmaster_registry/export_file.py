"""Rubin's export files, plain or gzipped, read as a stream of blocks with their records by columns.

A survey's dump has millions of scalars: events of the C parser are turned into values at once, without a tree
of nodes between, and records into one list for each column, without a mapping for each row. Regions stay the
bytes they are, uuids become 16 bytes, times TAI nanoseconds. About 10 MB of text a second.
"""

import base64
import gzip
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn
from uuid import UUID

import numpy as np
import yaml

from .errors import ConfigError, QueryError
from .times import instant_ns, parsed_ns, written_ns
from .timespan import MAX_NS, MIN_NS, Timespan

_YAML = "tag:yaml.org,2002:"
_ENCODED_SIZE = {"b": 33, "c": 41, "e": 113}  # bytes; a polygon has 1 + 24 a vertex, compounds vary
REGION_CLASSES = {  # by the first byte of their encoding
    "p": "ConvexPolygon",
    "b": "Box",
    "c": "Circle",
    "e": "Ellipse",
    "u": "UnionRegion",
    "i": "IntersectionRegion",
}
_SHORT = 40  # characters; longer scalars hardly repeat


@dataclass(frozen=True)
class Table:
    """Records by columns; a key that a record does not have is None there."""

    height: int = 0
    columns: Mapping[str, list[Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Block:
    """One entry of `data`: its keys, with `records` as a table, and the line where it begins."""

    line: int
    content: Mapping[str, Any]


@dataclass(frozen=True)
class ExportFile:
    """A whole export file: what stands at the top, and the blocks in order."""

    path: Path
    header: Mapping[str, Any]
    blocks: tuple[Block, ...]


def read_export_file(path: str | Path) -> ExportFile:
    """Read one export file.

    Raises
    ------
    ConfigError
        If it cannot be read, is not YAML, or has a tag, region or time that is not understood; with the line.
    """
    path = Path(path)
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as stream:
            return _Reader(stream, path).document()
    except (OSError, EOFError) as error:
        raise ConfigError(
            what="an export file cannot be read",
            where=str(path),
            why=str(error),
            todo="check its name, permissions and completeness",
        ) from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise ConfigError(
            what="an export file is not valid YAML",
            where=f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path),
            why=str(getattr(error, "problem", None) or error),
            todo="correct the syntax there, or write the export again",
        ) from error


class _Reader:
    """Values from parser events."""

    def __init__(self, stream: Any, path: Path) -> None:
        self._loader = yaml.CSafeLoader(stream)
        self._next: Callable[[], Any] = self._loader.get_event
        self._resolve: Callable[..., str] = self._loader.resolve
        self._path = path
        self._plain: dict[str, Any] = {}  # values of short plain scalars: most of them repeat
        self._anchors: dict[str, Any] = {}

    def document(self) -> ExportFile:
        self._expect(self._next(), yaml.StreamStartEvent)
        self._expect(self._next(), yaml.DocumentStartEvent)
        self._expect(self._next(), yaml.MappingStartEvent)
        header: dict[str, Any] = {}
        blocks: tuple[Block, ...] = ()
        for key, event in self._keys():
            if key == "data":
                self._expect(event, yaml.SequenceStartEvent)
                blocks = tuple(self._blocks())
            else:
                header[key] = self._value(event)
        return ExportFile(self._path, header, blocks)

    def _blocks(self) -> Iterator[Block]:
        while not isinstance(event := self._next(), yaml.SequenceEndEvent):
            self._expect(event, yaml.MappingStartEvent)
            line = event.start_mark.line + 1
            content = {}
            for key, value in self._keys():
                is_table = key == "records" and isinstance(value, yaml.SequenceStartEvent)
                content[key] = self._table() if is_table else self._value(value)
            yield Block(line, content)

    def _table(self) -> Table:
        columns: dict[str, list[Any]] = {}
        height = 0
        while not isinstance(event := self._next(), yaml.SequenceEndEvent):
            self._expect(event, yaml.MappingStartEvent)
            for key, value in self._keys():
                column = columns.setdefault(key, [])
                if len(column) < height:
                    column.extend([None] * (height - len(column)))
                column.append(self._value(value))
            height += 1
        for column in columns.values():
            column.extend([None] * (height - len(column)))
        return Table(height, columns)

    def _keys(self) -> Iterator[tuple[str, Any]]:
        """Yield the keys of the mapping just begun, each with the first event of its value."""
        seen = set()
        while not isinstance(event := self._next(), yaml.MappingEndEvent):
            self._expect(event, yaml.ScalarEvent)
            if event.value in seen:
                self._refuse(event, f"the key {event.value!r} stands twice", "keep one of them")
            seen.add(event.value)
            yield event.value, self._next()

    def _value(self, event: Any) -> Any:
        kind = type(event)
        if kind is yaml.AliasEvent:
            return self._anchors[event.anchor]
        if kind is yaml.ScalarEvent:
            value = self._scalar(event)
        elif kind is yaml.SequenceStartEvent:
            value = []
            while type(item := self._next()) is not yaml.SequenceEndEvent:
                value.append(self._value(item))
        else:
            value = self._mapping(event)
        if event.anchor:
            self._anchors[event.anchor] = value
        return value

    def _mapping(self, event: Any) -> Any:
        if event.tag is None:
            return {key: self._value(value) for key, value in self._keys()}
        family, _, name = event.tag.removeprefix("!").rpartition(".")
        if family == "lsst.sphgeom" and name in REGION_CLASSES.values():
            # As text: hexadecimal digits can look like a number.
            content = {key: getattr(value, "value", "") for key, value in self._keys()}
            return self._region(event, name, content.get("encoded", ""))
        if family == "lsst.daf.butler" and name == "Timespan":
            return self._timespan(event, {key: self._value(value) for key, value in self._keys()})
        return self._refuse(event, f"the tag {event.tag!r} is not known", "write the export again")

    def _scalar(self, event: Any) -> Any:
        if event.tag is None or event.tag == "!":
            return self._plain_value(event.value) if event.implicit[0] else event.value
        try:
            return self._tagged(event)
        except (ValueError, OverflowError, QueryError) as error:
            why = f"{event.value[:_SHORT]!r} cannot be read as {event.tag!r}: {error.args[0]}"
            return self._refuse(event, why, "correct the value")

    def _tagged(self, event: Any) -> Any:
        tag, text = event.tag, event.value
        if tag == "!uuid":
            return UUID(text).bytes
        if tag.startswith("!butler_time/") and tag.count("/") == 2:
            _, scale, format_ = tag.split("/")
            return _time_ns(text, format_, scale)
        if tag == f"{_YAML}binary":
            return base64.b64decode("".join(text.split()), validate=True)
        if tag == "!lsst.daf.butler.Timespan" and text == "EMPTY":
            return Timespan(0, 0)
        if tag in yaml.SafeLoader.yaml_constructors:
            return self._of_tag(tag, text)
        return self._refuse(event, f"the tag {tag!r} is not known", "write the export again")

    def _plain_value(self, text: str) -> Any:
        """Read a scalar without quotes as YAML's rules say: a number, null, true, a date, else text."""
        if len(text) > _SHORT:
            return text
        try:
            return self._plain[text]
        except KeyError:
            tag = self._resolve(yaml.ScalarNode, text, (True, False))
            value = self._plain[text] = text if tag == f"{_YAML}str" else self._of_tag(tag, text)
            return value

    def _of_tag(self, tag: str, text: str) -> Any:
        return yaml.SafeLoader.yaml_constructors[tag](self._loader, yaml.ScalarNode(tag, text))

    def _region(self, event: Any, name: str, text: str) -> bytes:
        """Return a region's bytes after a look at kind and size; the rest is read when it is used."""
        try:
            encoded = bytes.fromhex(text)
        except ValueError:
            self._refuse(event, f"a {name} is not encoded in hexadecimal digits", "write the export again")
        letter, size = encoded[:1].decode("latin1"), len(encoded)
        fits = size == _ENCODED_SIZE.get(letter, size) and (letter != "p" or (size >= 73 and size % 24 == 1))
        if REGION_CLASSES.get(letter) != name or not fits:
            why = f"a {name} of {size} bytes that begins with {letter!r} is damaged"
            self._refuse(event, why, "write the export again")
        return encoded

    def _timespan(self, event: Any, content: Mapping[str, Any]) -> Timespan:
        if set(content) != {"begin", "end"}:
            self._refuse(event, "a time span has not just `begin` and `end`", "give both; null is unbounded")
        return timespan(content["begin"], content["end"])

    def _expect(self, event: Any, kind: type[Any]) -> None:
        if not isinstance(event, kind):
            wanted, found = (k.__name__.removesuffix("Event") for k in (kind, type(event)))
            self._refuse(event, f"a {found} stands where a {wanted} should", "check that this is an export")

    def _refuse(self, event: Any, why: str, todo: str) -> NoReturn:
        raise ConfigError(
            what="this is not an export file as Rubin writes them",
            where=f"{self._path}:{event.start_mark.line + 1}",
            why=why,
            todo=todo,
        )


def timespan(begin: Any, end: Any) -> Timespan:
    """Return the span between two instants; None is unbounded."""
    return Timespan(MIN_NS if begin is None else as_ns(begin), MAX_NS if end is None else as_ns(end))


def as_ns(instant: Any) -> int:
    """Return TAI nanoseconds; YAML's own dates and times, and times without a tag, are UTC."""
    if isinstance(instant, int):
        return instant
    return instant_ns(instant) if isinstance(instant, datetime) else written_ns(str(instant))


def _time_ns(text: str, format_: str, scale: str) -> int:
    """Return TAI nanoseconds; what is out of the reach of 64 bits is for ever, or since ever."""
    if (scale, format_) == ("tai", "iso") and "1678" <= text[:4] < "2262":  # as Rubin writes them
        return int(np.datetime64(text, "ns").astype(np.int64))
    return min(max(parsed_ns(text, format_, scale), MIN_NS), MAX_NS)
