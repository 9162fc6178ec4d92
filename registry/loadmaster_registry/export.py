"""What an export file means: blocks checked, brought to today's universe, made nouns and frames."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn
from uuid import UUID, uuid3

import polars as pl

from .errors import ConfigError, QueryError, did_you_mean
from .export_file import Block, ExportFile, Table, as_ns, read_export_file, timespan
from .frames import DTYPES
from .records import Collection, CollectionType, DatasetType
from .schema import FILE_COLUMNS, key_column, record_columns
from .timespan import Timespan
from .universe import Column, Element, Universe, load_universe

log = logging.getLogger(__name__)

_FORMAT = (1, 0)  # major, minor
_OLD_IDS = UUID("4d4851f4-2890-4d41-8779-5f38a3f5062b")  # name space of dataset ids that were integers
_DROPPED = {  # columns that Rubin has given up
    "visit": {"seeing", "visit_system"},
    "visit_definition": {"visit_system"},
    "exposure": {"group_id"},
}
_RENAMED = {"exposure": {"group_name": "group"}}
_RECORD = (
    "dataset_id",
    "data_id",
    "path",
    "size_bytes",
    "checksum",
    "content",
)  # the last three only we write
_KEYS_ONLY = ("day_obs", "group")  # once plain columns: their records are made where only others name them


@dataclass(frozen=True)
class RunDatasets:
    """Datasets of one type in one run."""

    dataset_type: str
    run: str
    rows: (
        pl.DataFrame
    )  # required dimensions, id (Binary), url (as in the file), size_bytes, checksum, content


@dataclass(frozen=True)
class Export:
    """The content of an export file."""

    path: Path
    records: Mapping[str, pl.DataFrame]  # by element, in the universe's order; columns as `Registry.records`
    dataset_types: tuple[DatasetType, ...]
    collections: tuple[Collection, ...]  # each after its children
    datasets: tuple[RunDatasets, ...]
    tags: tuple[tuple[str, tuple[UUID, ...]], ...]  # TAGGED collection, datasets
    ranges: tuple[tuple[str, Timespan, tuple[UUID, ...]], ...]  # CALIBRATION collection, validity, datasets


def read_export(
    path: str | Path, universe: Universe | None = None, known: Sequence[DatasetType] = ()
) -> Export:
    """Read an export file, plain or gzipped, of any of Rubin's universes up to `universe`.

    Parameters
    ----------
    universe : Universe, optional
        Rubin's own without it.
    known : sequence of DatasetType
        What the file may speak of without defining it.

    Raises
    ------
    ConfigError
        If it cannot be read, is of a newer format, or names what the universe does not have; with the line.
    """
    file = read_export_file(path)
    universe = universe or load_universe()
    _check_header(file, universe)
    draft = _Draft(file, universe, known)
    for block in file.blocks:
        draft.add(block)
    return draft.finished()


def _check_header(file: ExportFile, universe: Universe) -> None:
    version = str(file.header.get("version", 0))
    major, minor = ([int(p) if p.isdigit() else -1 for p in version.split(".")] + [0])[:2]
    namespace = file.header.get("universe_namespace", "daf_butler")
    number = file.header.get("universe_version", 0)
    if version != "0" and (major != _FORMAT[0] or minor > _FORMAT[1]):
        why = f"its format has version {version}; known are 0 and 1.0"
    elif namespace not in ("daf_butler", universe.namespace):
        why = f"its dimensions are those of {namespace!r}; the registry has {universe.namespace!r}"
    elif namespace == universe.namespace and number > universe.version:
        why = f"its universe has version {number}; the registry has {universe.version}"
    else:
        return
    raise ConfigError(
        what="this export cannot be read",
        where=str(file.path),
        why=why,
        todo="write it with a program of the same age, or use a registry with these dimensions",
    )


class _Draft:
    """An export while its blocks are added."""

    def __init__(self, file: ExportFile, universe: Universe, known: Sequence[DatasetType]) -> None:
        self._path = file.path
        self._universe = universe
        self._block = Block(0, {})
        self._records: dict[str, list[pl.DataFrame]] = {}
        self._known = {t.name: t for t in known}
        self._types: dict[str, DatasetType] = {}
        self._collections: dict[str, Collection] = {}
        self._datasets: list[RunDatasets] = []
        self._tags: list[tuple[str, tuple[UUID, ...]]] = []
        self._ranges: list[tuple[str, Timespan, tuple[UUID, ...]]] = []

    def add(self, block: Block) -> None:
        """Check one block and take it in."""
        kinds: dict[str, Callable[[], None]] = {
            "dimension": self._add_records,
            "collection": self._add_collection,
            "run": self._add_run,
            "dataset_type": self._add_dataset_type,
            "dataset": self._add_datasets,
            "associations": self._add_associations,
        }
        self._block = block
        kind = block.content.get("type")
        if kind not in kinds:
            self._refuse(f"the block has the unknown type {kind!r}", did_you_mean(str(kind), kinds))
        kinds[kind]()

    def finished(self) -> Export:
        """Return the export; records that only others name are made, chains stand after their children."""
        self._complete_visits()
        for name in _KEYS_ONLY:
            if name in self._universe.elements:
                self._add_named_keys(name)
        return Export(
            path=self._path,
            records={
                name: pl.concat(self._records[name], how="diagonal").unique(maintain_order=True)
                for name in self._universe.elements
                if name in self._records
            },
            dataset_types=tuple(self._types.values()),
            collections=tuple(self._sorted_collections()),
            datasets=tuple(self._datasets),
            tags=tuple(self._tags),
            ranges=tuple(self._ranges),
        )

    def _add_records(self) -> None:
        name, table = self._take("element", str), self._take("records", Table, Table())
        if name not in self._universe.elements:
            self._refuse(
                f"there is no dimension element {name!r}", did_you_mean(name, self._universe.elements)
            )
        element = self._universe.elements[name]
        if element.values_of or not table.height:
            return
        columns = self._renamed(element, table)
        if name == "visit" and "visit_system" in table.columns:
            self._add_memberships(columns, table.columns["visit_system"])
        self._records.setdefault(name, []).append(self._frame(element, columns))

    def _renamed(self, element: Element, table: Table) -> dict[str, list[Any]]:
        """Return the columns under our names: keys by dimension, times as two columns."""
        names = {element.key.name: element.name} if element.key else {}
        names |= {"datetime_begin": "timespan_begin", "datetime_end": "timespan_end"}
        names |= _RENAMED.get(element.name, {})
        dropped = _DROPPED.get(element.name, set())
        columns = {names.get(n, n): values for n, values in table.columns.items() if n not in dropped}
        if (spans := columns.pop("timespan", None)) is not None:
            columns["timespan_begin"] = [s and s.begin_ns for s in spans]
            columns["timespan_end"] = [s and s.end_ns for s in spans]
        return columns

    def _frame(self, element: Element, columns: Mapping[str, list[Any]]) -> pl.DataFrame:
        known = {c.name: c for c in record_columns(self._universe, element)}
        for name in columns:
            if name not in known:
                self._refuse(f"{element.name!r} has no column {name!r}", did_you_mean(name, known))
        return pl.DataFrame([self._series(known[name], values) for name, values in columns.items()])

    def _series(self, column: Column, values: list[Any]) -> pl.Series:
        """Make a column; text may have come as a number, because YAML cannot know."""
        converters: dict[str, Callable[[Any], Any]] = {"float": float, "str": str}
        convert = as_ns if column.name.startswith("timespan_") else converters.get(column.type)
        try:
            if convert is not None:
                values = [None if v is None else convert(v) for v in values]
            return pl.Series(column.name, values, dtype=DTYPES[column.type], strict=True)
        except (TypeError, ValueError, QueryError, pl.exceptions.PolarsError) as error:
            why = f"column {column.name!r} is not all {column.type}: {error.args[0]}"
            self._refuse(why, "correct the values")

    def _add_memberships(self, visits: Mapping[str, list[Any]], systems: list[Any]) -> None:
        """Old visits name their visit system themselves."""
        element = self._universe.elements["visit_system_membership"]
        columns = {"instrument": visits["instrument"], "visit": visits["visit"], "visit_system": systems}
        rows = self._frame(element, columns).drop_nulls()
        self._records.setdefault(element.name, []).append(rows)

    def _complete_visits(self) -> None:
        """Give visits that are older than `visit.day_obs` the night of their exposures."""
        frames = {name: self._records.get(name, []) for name in ("visit", "visit_definition", "exposure")}
        if not all(frames.values()) or all("day_obs" in frame.columns for frame in frames["visit"]):
            return
        exposures = pl.concat(frames["exposure"], how="diagonal").select("instrument", "exposure", "day_obs")
        defined = pl.concat(frames["visit_definition"]).join(exposures, on=["instrument", "exposure"])
        nights = defined.group_by("instrument", "visit").agg(pl.col("day_obs").min())
        self._records["visit"] = [
            frame
            if "day_obs" in frame.columns
            else frame.join(nights, on=["instrument", "visit"], how="left", maintain_order="left")
            for frame in frames["visit"]
        ]

    def _add_named_keys(self, name: str) -> None:
        """Make records of `name` where others imply values that have none."""
        required = self._universe.elements[name].required
        named = [
            frame.select(required).drop_nulls()
            for other, frames in self._records.items()
            for frame in frames
            if other != name and name in self._universe.elements[other].implied and name in frame.columns
        ]
        if named:
            there = self._records.setdefault(name, [])
            new = pl.concat(named).unique(maintain_order=True)
            for frame in there:
                new = new.join(frame, on=required, how="anti", maintain_order="left")
            there.append(new)

    def _add_dataset_type(self) -> None:
        name = self._take("name", str)
        dimensions = self._take("dimensions", list)
        for d in dimensions:
            if d not in self._universe:
                self._refuse(f"there is no dimension {d!r}", did_you_mean(str(d), self._universe.dimensions))
        new = DatasetType(
            name,
            self._universe.group(dimensions),
            self._take("storage_class", str),
            self._take("is_calibration", bool, False),
        )
        old = self._types.setdefault(name, new)
        if old != new:
            self._refuse(f"dataset type {name!r} is defined twice: {old}; {new}", "keep one of them")

    def _add_run(self) -> None:
        self._keep(Collection(self._take("name", str), CollectionType.RUN))

    def _add_collection(self) -> None:
        name, kind = self._take("name", str), self._take("collection_type", str)
        if kind not in CollectionType.__members__:
            self._refuse(f"unknown collection type {kind!r}", did_you_mean(kind, CollectionType.__members__))
        children = self._take("children", list, [])
        if any(not isinstance(child, str) for child in children):
            log.warning("restrictions of a chain's children are ignored: path=%s chain=%s", self._path, name)
            children = [child if isinstance(child, str) else child[0] for child in children]
        self._keep(Collection(name, CollectionType[kind], self._take("doc", str, "") or "", tuple(children)))

    def _keep(self, new: Collection) -> None:
        old = self._collections.setdefault(new.name, new)
        if old != new:
            self._refuse(f"collection {new.name!r} is defined twice, differently", "keep one of them")

    def _sorted_collections(self) -> list[Collection]:
        """Return what is no chain, then chains, each after its children."""
        done = {name: c for name, c in self._collections.items() if c.type is not CollectionType.CHAINED}
        waiting = [c for c in self._collections.values() if c.type is CollectionType.CHAINED]
        while waiting:
            names = {c.name for c in waiting}
            ready = {c.name: c for c in waiting if names.isdisjoint(c.children)}
            if not ready:
                self._refuse(f"chains hold each other: {', '.join(sorted(names))}", "break the circle")
            done |= ready
            waiting = [c for c in waiting if c.name not in ready]
        return list(done.values())

    def _add_datasets(self) -> None:
        name, run = self._take("dataset_type", str), self._take("run", str)
        table = self._take("records", Table, Table())
        type = self._types.get(name) or self._known.get(name)
        if type is None:
            known = {*self._known, *self._types}
            self._refuse(f"dataset type {name!r} is not defined", did_you_mean(name, known))
        empty: list[Any] = [None] * table.height
        records = zip(*(table.columns.get(c, empty) for c in _RECORD), strict=True)
        ids, data_ids, facts = [], [], []
        for id, data_id, *rest in records:
            some = id if isinstance(id, list) else [id]
            theirs = data_id if isinstance(data_id, list) else [data_id]
            if len(some) != len(theirs) or not all(isinstance(d, dict) for d in theirs):
                self._refuse("`dataset_id` and `data_id` are not as many", "give a data ID for each dataset")
            ids += some
            data_ids += theirs
            facts += [rest] * len(some)
        columns = self._data_id_columns(type, data_ids)
        columns.append(pl.Series("id", self._uuids(ids), dtype=pl.Binary))
        columns += [self._series(c, [fact[i] for fact in facts]) for i, c in enumerate(FILE_COLUMNS)]
        self._datasets.append(RunDatasets(name, run, pl.DataFrame(columns)))

    def _data_id_columns(self, type: DatasetType, data_ids: Sequence[Mapping[str, Any]]) -> list[pl.Series]:
        for name in {name for data_id in data_ids for name in data_id}:
            if name not in type.dimensions:
                self._refuse(f"{type.name!r} has no dimension {name!r}", did_you_mean(name, type.dimensions))
        found = []
        for d in type.dimensions.required:
            key = key_column(self._universe, d)
            column = self._series(key, [data_id.get(d) for data_id in data_ids])
            if column.null_count():
                self._refuse(f"{column.null_count()} data IDs of {type.name!r} have no {d!r}", "add it")
            found.append(column)
        return found

    def _add_associations(self) -> None:
        name = self._take("collection", str)
        for span in self._take("validity_ranges", list, []):
            if not isinstance(span, dict):
                self._refuse("a validity range is a mapping", "write it so")
            valid = span["timespan"] if "timespan" in span else timespan(span.get("begin"), span.get("end"))
            if not isinstance(valid, Timespan):
                self._refuse(f"a validity range has the timespan {valid!r}", "give begin and end")
            self._ranges.append((name, valid, self._ids(span.get("dataset_ids", []))))
        if ids := self._take("dataset_ids", list, []):
            self._tags.append((name, self._ids(ids)))

    def _ids(self, ids: Sequence[Any]) -> tuple[UUID, ...]:
        return tuple(UUID(bytes=id) for id in self._uuids(ids))

    def _uuids(self, ids: Sequence[Any]) -> list[bytes]:
        """Return uuid bytes; integers of old files become the uuids that Rubin gives them."""
        found = []
        for id in ids:
            if isinstance(id, int):
                id = uuid3(_OLD_IDS, str(id)).bytes
            if not isinstance(id, bytes):
                self._refuse(f"a dataset has the id {id!r}", "give a !uuid")
            found.append(id)
        return found

    def _take(self, key: str, kind: type[Any], default: Any = None) -> Any:
        """Return a key of the block; without a default it must be there."""
        value = self._block.content.get(key)
        if value is None and default is not None:
            return default
        if not isinstance(value, kind):
            found = "missing" if value is None else repr(value)
            self._refuse(f"{key!r} is {found}", f"give a {kind.__name__}")
        return value

    def _refuse(self, why: str, todo: str) -> NoReturn:
        content = self._block.content
        name = content.get("name") or content.get("element") or content.get("dataset_type") or ""
        raise ConfigError(
            what="this export cannot be imported",
            where=f"{self._path}:{self._block.line}: {content.get('type')} {name}".rstrip(),
            why=why,
            todo=todo,
        )
