"""The tables of a registry, made from its universe.

Fixed tables: `meta`, `collection`, `chain`, `dimension_group`, `dataset_type`, `dataset`, `file`, `dataset_part`,
`dataset_copy`, `quantum`, `quantum_input`, `planned_run`, `change`, `tombstone`, `trash`, `lease`, `leased`,
`metadata_version`, `metadata_column`. One `record_ELEMENT` for each stored element of the universe. Three for each
group of dimensions that some dataset type has, numbered by `dimension_group.id`: `data_id_N` (membership in RUNs),
`tag_N` and `calib_N`. One `metadata_N` for each versioned column, numbered by `metadata_column.id`. Data IDs are
typed columns everywhere, named like their dimension.
"""

from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import sqlalchemy as sa

from .errors import ConfigError
from .universe import Column, ColumnType, DimensionGroup, Element, Universe

SCHEMA_VERSION = 3  # what this code reads and writes; stored in `meta`

FILE_COLUMNS = (
    Column("url", "str"),
    Column("size_bytes", "int"),
    Column("checksum", "str"),
    Column("content", "str"),  # checksum without the keys of provenance; null: the same as `checksum`
)
_ID, _URL = Column("id", "bytes", nullable=False), Column("url", "str", nullable=False)
PART_COLUMNS = (_ID, Column("name", "str", nullable=False), _URL, *FILE_COLUMNS[1:])
COPY_COLUMNS = (_ID, Column("destination", "str", nullable=False), _URL, Column("until", "str"))

_COUNT, _TEXT, _BLOB = sa.BigInteger(), sa.Text(), sa.LargeBinary()
_SQL_TYPES: dict[ColumnType, sa.types.TypeEngine[Any]] = {
    "int": _COUNT,
    "float": sa.Double(),
    "str": _TEXT,
    "bool": sa.Boolean(),
    "bytes": _BLOB,
}
# Columns of the membership tables and of the frames read from them.
_RESERVED = {
    "dataset", "dataset_type", "run", "collection", "begin", "end", "id", "quantum", "rank", "url",
    "since", "until", "value",
}  # fmt: skip
# SQLite keeps a table sorted by its key only where the key's type is exactly INTEGER.
_ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


@dataclass(frozen=True)
class GroupTables:
    """Where the datasets of one group of dimensions are members."""

    group: DimensionGroup
    data_id: sa.Table  # dataset, dataset_type, run, dimensions: one row a dataset
    tag: sa.Table  # collection, dataset_type, dimensions, dataset
    calib: sa.Table  # id, collection, dataset_type, dimensions, dataset, begin, end

    def create(self, connection: sa.Connection) -> None:
        """Create the three tables; no-op where they exist."""
        self.data_id.metadata.create_all(connection)


@dataclass(frozen=True, slots=True)
class VersionedColumn:
    """A column of an element's records whose values have versions."""

    id: int  # 0 before it is registered
    element: str
    column: Column
    is_own: bool  # the records have it themselves: versions take its place


class Schema:
    """All tables for one universe.

    Raises
    ------
    ConfigError
        If an element of the universe has two columns of one name, or a name that the tables need themselves.
    """

    def __init__(self, universe: Universe) -> None:
        self.universe = universe
        _check_names(universe)
        self.metadata = sa.MetaData()
        self._collection_tables()
        self._dataset_tables()
        self._quantum_tables()
        self._house_tables()
        self._metadata_tables()
        self.versioned: Mapping[str, tuple[VersionedColumn, ...]] = {}
        self.records: dict[str, sa.Table] = {}
        for element in universe.elements.values():  # in order: each refers to earlier ones only
            if element.has_table:
                self.records[element.name] = self._record_table(element)
        self.group_tables = lru_cache(maxsize=None)(self._group_tables)
        self.metadata_table = lru_cache(maxsize=None)(self._metadata_table)

    def create(self, connection: sa.Connection) -> None:
        """Create the fixed tables and those of the elements."""
        self.metadata.create_all(connection)

    def with_versioned(self, columns: Iterable[VersionedColumn]) -> "Schema":
        """Return the same tables, with a universe that knows these columns too."""
        versioned: dict[str, tuple[VersionedColumn, ...]] = {}
        for column in columns:
            versioned[column.element] = (*versioned.get(column.element, ()), column)
        new = {
            name: replace(e, versioned=tuple(c.column for c in versioned.get(name, ()) if not c.is_own))
            for name, e in self.universe.elements.items()
        }
        schema = copy(self)
        schema.versioned, schema.universe = versioned, replace(self.universe, elements=new)
        return schema

    def _collection_tables(self) -> None:
        self.meta = sa.Table(
            "meta", self.metadata,
            sa.Column("key", _TEXT, primary_key=True),
            sa.Column("value", _TEXT, nullable=False),
        )  # fmt: skip
        self.collection = sa.Table(
            "collection", self.metadata,
            sa.Column("id", _ROW_ID, primary_key=True),
            sa.Column("name", _TEXT, nullable=False, unique=True),
            sa.Column("type", _TEXT, nullable=False),
            sa.Column("doc", _TEXT, nullable=False),
            sa.Column("owner", _TEXT),  # user name; null where nobody minds
            sa.Column("retention", _TEXT),  # null: kept until somebody removes it
            sa.Column("expires", _TEXT),  # ISO, UTC
            sa.Column("removed", _TEXT),  # ISO, UTC: nobody sees it any more; datasets that others use keep the row
        )  # fmt: skip
        self.chain = sa.Table(
            "chain", self.metadata,
            sa.Column("parent", _ROW_ID, sa.ForeignKey("collection.id"), primary_key=True),
            sa.Column("position", sa.Integer(), primary_key=True),
            sa.Column("child", _ROW_ID, sa.ForeignKey("collection.id"), nullable=False, index=True),
        )  # fmt: skip

    def _dataset_tables(self) -> None:
        self.dimension_group = sa.Table(
            "dimension_group", self.metadata,
            sa.Column("id", _ROW_ID, primary_key=True),
            sa.Column("required", _TEXT, nullable=False, unique=True),  # names, with commas between
        )  # fmt: skip
        self.dataset_type = sa.Table(
            "dataset_type", self.metadata,
            sa.Column("id", _ROW_ID, primary_key=True),
            sa.Column("name", _TEXT, nullable=False, unique=True),
            sa.Column("dimension_group", _ROW_ID, sa.ForeignKey("dimension_group.id"), nullable=False),
            sa.Column("storage_class", _TEXT, nullable=False),
            sa.Column("is_calibration", sa.Boolean(), nullable=False),
        )  # fmt: skip
        self.dataset = sa.Table(
            "dataset", self.metadata,
            sa.Column("id", _ROW_ID, primary_key=True),  # short, so that joins are cheap
            sa.Column("uuid", _BLOB, nullable=False, unique=True),
            sa.Column("dataset_type", _ROW_ID, sa.ForeignKey("dataset_type.id"), nullable=False),
            sa.Column("run", _ROW_ID, sa.ForeignKey("collection.id"), nullable=False),
            sa.Column("quantum", _BLOB),  # uuid of what made it; null where it came from outside
        )  # fmt: skip
        made = self.dataset.c.quantum.is_not(None)
        sa.Index("dataset_of_quantum", self.dataset.c.quantum, sqlite_where=made, postgresql_where=made)
        self.file = sa.Table(
            "file", self.metadata,
            sa.Column("dataset", _ROW_ID, sa.ForeignKey("dataset.id"), primary_key=True),
            sa.Column("url", _TEXT, nullable=False),
            sa.Column("size_bytes", _COUNT),
            sa.Column("checksum", _TEXT),
            sa.Column("content", _TEXT),  # what the checksum would be if the file did not say what made it
            sa.Column("created", _TEXT, nullable=False),  # ISO, UTC: when it was registered
        )  # fmt: skip
        # Files of one dataset beside the first: other formats, components. They come and go with it.
        self.dataset_part = sa.Table(
            "dataset_part", self.metadata,
            sa.Column("dataset", _ROW_ID, sa.ForeignKey("dataset.id"), primary_key=True),
            sa.Column("name", _TEXT, primary_key=True),
            sa.Column("url", _TEXT, nullable=False),
            sa.Column("size_bytes", _COUNT),
            sa.Column("checksum", _TEXT),
            sa.Column("content", _TEXT),
        )  # fmt: skip
        # The same bytes at another destination.
        self.dataset_copy = sa.Table(
            "dataset_copy", self.metadata,
            sa.Column("dataset", _ROW_ID, sa.ForeignKey("dataset.id"), primary_key=True),
            sa.Column("destination", _TEXT, primary_key=True),
            sa.Column("url", _TEXT, nullable=False),
            sa.Column("until", _TEXT),  # ISO, UTC; null: for good
        )  # fmt: skip

    def _house_tables(self) -> None:
        # What remains of a dataset that was removed: lineage passes through it.
        self.tombstone = sa.Table(
            "tombstone", self.metadata,
            sa.Column("uuid", _BLOB, primary_key=True),
            sa.Column("dataset_type", _TEXT, nullable=False),
            sa.Column("run", _TEXT, nullable=False),
            sa.Column("data_id", _TEXT, nullable=False),  # JSON, for people
            sa.Column("quantum", _BLOB),
            sa.Column("url", _TEXT),
            sa.Column("who", _TEXT, nullable=False),
            sa.Column("deleted", _TEXT, nullable=False),  # ISO, UTC
            sa.Column("why", _TEXT, nullable=False),
            sa.Index("tombstone_of_quantum", "quantum"),
        )  # fmt: skip
        # Files whose rows are gone and that are to go: written with the rows, emptied after.
        self.trash = sa.Table(
            "trash", self.metadata,
            sa.Column("url", _TEXT, primary_key=True),
            sa.Column("signature", _TEXT, nullable=False),  # of that file, no other one that is there by then
            sa.Column("since", _TEXT, nullable=False),  # ISO, UTC
        )  # fmt: skip
        # Who needs what, until when; a lease that nobody renews ends by itself.
        self.lease = sa.Table(
            "lease", self.metadata,
            sa.Column("id", _TEXT, primary_key=True),
            sa.Column("holder", _TEXT, nullable=False),  # for people
            sa.Column("what", _TEXT, nullable=False),  # for people
            sa.Column("run", _ROW_ID, sa.ForeignKey("collection.id")),  # all of this RUN
            sa.Column("heartbeat", _TEXT, nullable=False),  # ISO, UTC
            sa.Column("until", _TEXT, nullable=False),  # ISO, UTC
        )  # fmt: skip
        # And these datasets: ranges of their row numbers, which are mostly few.
        self.leased = sa.Table(
            "leased", self.metadata,
            sa.Column("lease", _TEXT, sa.ForeignKey("lease.id"), primary_key=True),
            sa.Column("first", _COUNT, primary_key=True, autoincrement=False),
            sa.Column("last", _COUNT, nullable=False),
        )  # fmt: skip

    def _quantum_tables(self) -> None:
        self.quantum = sa.Table(
            "quantum", self.metadata,
            sa.Column("id", _BLOB, primary_key=True),
            sa.Column("attempt", _COUNT, primary_key=True, autoincrement=False),
            sa.Column("run", _ROW_ID, sa.ForeignKey("collection.id"), nullable=False),
            sa.Column("task", _TEXT, nullable=False),
            sa.Column("data_id", _TEXT, nullable=False),  # JSON: only for people, no join is on it
            sa.Column("status", _TEXT, nullable=False),
            sa.Column("host", _TEXT),
            sa.Column("started", _TEXT),
            sa.Column("ended", _TEXT),
            sa.Column("code_digest", _TEXT),
            sa.Column("config_digest", _TEXT),
            sa.Column("environment_digest", _TEXT),
            sa.Column("sandbox", _TEXT),  # enforce, audit, off: how far reads and writes were held to what is declared
            sa.Column("software", _TEXT),  # digest of all that could be imported
            sa.Column("inputs_key", _BLOB),  # equal for the very same inputs; see `provenance.input_keys`
            sa.Index("quantum_of_run", "run", "task", "status"),
        )  # fmt: skip
        # An input is named by its uuid and needs no row in `dataset`: what never left a job has none.
        self.quantum_input = sa.Table(
            "quantum_input", self.metadata,
            sa.Column("quantum", _BLOB, primary_key=True),
            sa.Column("dataset_id", _BLOB, primary_key=True),
            sa.Column("connection", _TEXT, primary_key=True),
            sa.Index("quantum_of_input", "dataset_id"),
            sqlite_with_rowid=False,  # all of it is key
        )  # fmt: skip
        # What was planned for a run, and from what: as long as that is the same, planning again would find the same.
        self.planned_run = sa.Table(
            "planned_run", self.metadata,
            sa.Column("run", _ROW_ID, sa.ForeignKey("collection.id"), primary_key=True, autoincrement=False),
            sa.Column("asked", _TEXT, nullable=False),  # digest of pipeline and request
            sa.Column("state", _TEXT, nullable=False),  # of what they were planned from; see `Snapshot.state_of`
            sa.Column("planned", _TEXT, nullable=False),  # JSON: what came of it
        )  # fmt: skip
        # How often something changed: "records" (all elements and what is known of them), or a collection's members.
        self.change = sa.Table(
            "change", self.metadata,
            sa.Column("area", _TEXT, primary_key=True),
            sa.Column("number", _COUNT, nullable=False),
        )  # fmt: skip

    def _metadata_tables(self) -> None:
        self.metadata_version = sa.Table(
            "metadata_version", self.metadata,
            sa.Column("id", _ROW_ID, primary_key=True),
            sa.Column("element", _TEXT, nullable=False),
            sa.Column("loaded", _TEXT, nullable=False),  # ISO, for people
            sa.Column("source", _TEXT, nullable=False),
        )  # fmt: skip
        self.metadata_column = sa.Table(
            "metadata_column", self.metadata,
            sa.Column("id", _ROW_ID, primary_key=True),
            sa.Column("element", _TEXT, nullable=False),
            sa.Column("name", _TEXT, nullable=False),
            sa.Column("type", _TEXT, nullable=False),
            sa.Column("is_own", sa.Boolean(), nullable=False),
            sa.UniqueConstraint("element", "name"),
        )  # fmt: skip

    def _metadata_table(self, column: VersionedColumn) -> sa.Table:
        """Return the table of a versioned column: each value with the version that brought it, and that ended it."""
        required = self.universe[column.element].required
        table = sa.Table(
            f"metadata_{column.id}",
            sa.MetaData(),
            *(_column(key_column(self.universe, d), primary_key=True) for d in required),
            sa.Column("since", _ROW_ID, sa.ForeignKey(self.metadata_version.c.id), primary_key=True),
            sa.Column("until", _ROW_ID, sa.ForeignKey(self.metadata_version.c.id)),
            sa.Column("value", _SQL_TYPES[column.column.type], nullable=False),
            sa.ForeignKeyConstraint(required, [self.records[column.element].c[d] for d in required]),
        )
        is_newest = table.c.until.is_(None)
        named = [table.c[d] for d in required]
        sa.Index(
            f"metadata_{column.id}_newest", *named, unique=True,
            sqlite_where=is_newest, postgresql_where=is_newest,
        )  # fmt: skip
        return table

    def _record_table(self, element: Element) -> sa.Table:
        columns = record_columns(self.universe, element)
        names = [c.name for c in columns]
        if twice := sorted({n for n in names if names.count(n) > 1}):
            raise ConfigError(
                what=f"element {element.name!r} has two columns {twice[0]!r}",
                where=f"universe {self.universe.namespace} version {self.universe.version}",
                why="its keys, the dimensions it implies and its metadata share one table",
                todo="give the metadata column another name",
            )
        others = [d for d in element.required if d != element.name]
        return sa.Table(
            f"record_{element.name}",
            self.metadata,
            *(_column(c, primary_key=c.name in element.required) for c in columns),
            *(sa.UniqueConstraint(*others, c.name) for c in element.alternates),
            *self._references([*others, *element.implied]),
        )

    def _group_tables(self, number: int, group: DimensionGroup) -> GroupTables:
        """Return the tables of a group; `number` may be given to another one after a transaction failed."""
        metadata = sa.MetaData()
        dims = group.required

        def table(name: str, *columns: sa.Column[Any], constraint: sa.schema.SchemaItem) -> sa.Table:
            typed = (_column(key_column(self.universe, d)) for d in dims)
            references = self._references(dims)
            return sa.Table(f"{name}_{number}", metadata, *columns, *typed, constraint, *references)

        def reference(name: str, target: sa.Table, **options: Any) -> sa.Column[Any]:
            return sa.Column(name, _ROW_ID, sa.ForeignKey(target.c.id), nullable=False, **options)

        def of_type() -> sa.Column[Any]:
            return reference("dataset_type", self.dataset_type)

        return GroupTables(
            group,
            data_id=table(
                "data_id",
                reference("dataset", self.dataset, primary_key=True),
                of_type(),
                reference("run", self.collection),
                constraint=sa.UniqueConstraint("dataset_type", "run", *dims),
            ),
            tag=table(
                "tag",
                reference("collection", self.collection),
                of_type(),
                reference("dataset", self.dataset, index=True),
                constraint=sa.UniqueConstraint("dataset_type", "collection", *dims),
            ),
            calib=table(
                "calib",
                sa.Column("id", _ROW_ID, primary_key=True),
                reference("collection", self.collection),
                of_type(),
                reference("dataset", self.dataset, index=True),
                sa.Column("begin", _COUNT, nullable=False),  # MIN_NS, MAX_NS where unbounded
                sa.Column("end", _COUNT, nullable=False),
                constraint=sa.Index(f"calib_{number}_of", "dataset_type", "collection", *dims),
            ),
        )

    def _references(self, dimensions: Sequence[str]) -> list[sa.ForeignKeyConstraint]:
        """Return foreign keys to the records of `dimensions`, but for those that follow from another."""
        needed = {d for name in dimensions for d in self.universe[name].required if d != name}
        elements = [self.universe[name] for name in dimensions if name not in needed]
        return [
            sa.ForeignKeyConstraint(e.required, [self.records[e.name].c[d] for d in e.required])
            for e in elements
            if e.has_table and set(e.required) <= set(dimensions)  # else one of them follows from records
        ]


def record_columns(universe: Universe, element: Element) -> tuple[Column, ...]:
    """Return the columns of an element's records, in order; keys are named like their dimension."""
    keys = (key_column(universe, d) for d in (*element.required, *element.implied))
    region = (Column("region", "bytes"),) if element.has_region else ()
    times = (Column("timespan_begin", "int"), Column("timespan_end", "int")) if element.has_timespan else ()
    return (*keys, *element.alternates, *element.metadata, *region, *times)


def key_column(universe: Universe, dimension: str) -> Column:
    """Return the column that holds a dimension's values wherever there are data IDs."""
    key = universe.dimension(dimension).key
    assert key is not None  # `dimension` has refused the others
    return Column(dimension, key.type, nullable=False)


def _check_names(universe: Universe) -> None:
    if taken := sorted(_RESERVED & set(universe.dimensions)):
        raise ConfigError(
            what=f"no dimension can be named {taken[0]!r}",
            where=f"universe {universe.namespace} version {universe.version}",
            why="the registry's tables have a column of this name",
            todo="give the dimension another name",
        )


def _column(column: Column, primary_key: bool = False) -> sa.Column[Any]:
    return sa.Column(
        column.name,
        _SQL_TYPES[column.type],
        primary_key=primary_key,
        nullable=column.nullable and not primary_key,
    )
