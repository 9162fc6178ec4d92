"""What a registry holds at one moment: all reads, by columns."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from hashlib import sha256
from typing import Any
from uuid import UUID

import polars as pl
import sqlalchemy as sa

from . import observation, provenance
from .catalog import Catalog
from .errors import NotFound, RegistryError, did_you_mean
from .frames import Keep, in_order, keep_in_sql, kept, long_lists, read, read_matching, with_constants
from .joins import located
from .records import Collection, CollectionType, DatasetRef, DatasetType
from .schema import FILE_COLUMNS, GroupTables, Schema, key_column
from .timespan import MAX_NS, MIN_NS
from .universe import Element, Universe

_IN_SQL = 1000  # collections named in one statement
_REMEMBERED_BYTES = 1 << 25  # of one frame
_DENSE = 4  # reading so many rows for one that is wanted costs as much as finding that one
_DATASET = ("id", "uuid", "dataset_type", "run")
RECORDS = "records"  # the area of change that all records are
DATASETS = "datasets"  # and the one whose number is that of the highest dataset ever removed, or below it
_PYTHON_TYPES: Mapping[str, type] = {"int": int, "str": str}
_FILE = tuple(column.name for column in FILE_COLUMNS)


@dataclass(frozen=True, slots=True)
class StoredType:
    """A dataset type with its row and the tables of its members."""

    id: int
    type: DatasetType
    tables: GroupTables

    @property
    def dims(self) -> tuple[str, ...]:
        """The dimensions that identify its datasets."""
        return self.type.dimensions.required


def members_of(collection: int) -> str:
    """Name the area of change that the members of a collection are."""
    return f"collection {collection}"


class Snapshot:
    """One consistent view of a registry: what it says does not change while it is open."""

    _changes = False  # whether two equal reads can differ

    def __init__(self, connection: sa.Connection, schema: Schema, place: str) -> None:
        self.place = place
        self._connection = connection
        self._schema = schema
        self._types: Mapping[str, StoredType] | None = None
        self._catalog: Catalog | None = None
        self._sole: dict[str, str | int | None] = {}  # governor → its value, if it has just one
        self._read_before: dict[tuple[Any, ...], pl.DataFrame] = {}

    @property
    def schema(self) -> Schema:
        """The tables, and the columns that are known of them by now."""
        return self._schema

    @property
    def universe(self) -> Universe:
        """The dimensions of this registry."""
        return self._schema.universe

    def dataset_types(self, glob: str = "*") -> list[DatasetType]:
        """Return the dataset types whose name matches, in order of name."""
        return [t.type for name, t in sorted(self.stored_types.items()) if fnmatchcase(name, glob)]

    def dataset_type(self, name: str) -> DatasetType:
        """Return one dataset type.

        Raises
        ------
        NotFound
        """
        return self._stored_type(name).type

    def collections(self, glob: str = "*") -> list[Collection]:
        """Return the collections whose name matches, in order of name."""
        return self.catalog.matching(glob)

    def collection(self, name: str) -> Collection:
        """Return one collection.

        Raises
        ------
        NotFound
        """
        return self.catalog[name]

    def flatten(self, names: Sequence[str]) -> list[Collection]:
        """Open all chains depth first; each collection stays where it appears first; no CHAINED is left.

        Raises
        ------
        NotFound
        """
        return self.catalog.flatten(names)

    def records(
        self, element: str, keep: Keep | None = None, columns: Sequence[str] | None = None
    ) -> pl.DataFrame:
        """Return an element's records in order of key, those only whose dimensions have a value kept.

        About 0.1 µs a value, 0.3 where there are floating-point numbers.

        Parameters
        ----------
        columns : sequence of str
            Read these beside the required dimensions; all without it. Regions are long: read them where needed.

        Returns
        -------
        records : DataFrame
            Required, then implied dimensions (named so: ``visit``, never ``id``), alternates, metadata,
            ``region`` (Binary), ``timespan_begin`` and ``timespan_end`` (TAI ns), as the element has them; then what
            was set as versioned metadata. Of values that have versions it is the newest.

        Raises
        ------
        ConfigError, RegistryError
            If there is no such element; if it is a sky pixelisation, which has no records.
        """
        definition = self.universe[element]
        if definition.is_skypix:
            raise RegistryError(
                what=f"{element!r} has no records",
                where=f"registry {self.place}",
                why="sky pixels are computed, not stored",
                todo="compute the pixels of a region",
            )
        table = self._schema.records[definition.values_of or element]
        names = definition.required if definition.values_of else tuple(c.name for c in table.columns)
        wanted = (
            names if columns is None else tuple(n for n in names if n in {*definition.required, *columns})
        )
        constant, rest = self._settled(names, keep)
        versioned = [
            c for c in self._schema.versioned.get(element, ()) if columns is None or c.column.name in columns
        ]
        wanted_now = (*wanted, *(c.column.name for c in versioned))
        key = (element, wanted_now, _hashable(rest))
        if (known := self._read_before.get(key)) is None:
            known = self._read_records(definition, table, wanted, constant, rest)
            known = observation.overlaid(self._connection, self._schema, known, versioned, keep)
            self._remember(key, known)
        return known

    def _remember(self, key: tuple[Any, ...], frame: pl.DataFrame) -> None:
        """Keep a frame for whoever asks for it again; what fills memory is read again instead."""
        if not self._changes and frame.estimated_size() <= _REMEMBERED_BYTES:
            self._read_before[key] = frame

    def _read_records(
        self,
        definition: Element,
        table: sa.Table,
        wanted: Sequence[str],
        constant: Mapping[str, int | str],
        keep: Keep,
    ) -> pl.DataFrame:
        late = long_lists(keep)
        read_here = [n for n in (*wanted, *late) if n not in constant] or [definition.required[-1]]
        read_here = list(dict.fromkeys(read_here))
        by_scan = all(self.universe[d].is_governor for d in keep)
        query = sa.select(*(table.c[n] for n in read_here)).where(*keep_in_sql(table, keep, by_scan=by_scan))
        found = kept(read(self._connection, query.distinct() if definition.values_of else query), late)
        found = in_order(found, [d for d in definition.required if d in read_here])
        return with_constants(found, {n: constant[n] for n in wanted if n not in read_here}, wanted)

    def _settled(self, names: Sequence[str], keep: Keep | None) -> tuple[dict[str, int | str], Keep]:
        """Return the values that are the same in all rows to read, and the conditions that rows must meet."""
        constant: dict[str, int | str] = {}
        conditions: dict[str, Sequence[int | str]] = {}
        for name in names:
            asked = (keep or {}).get(name)
            sole = self._sole_value(name)
            if sole is not None and (asked is None or sole in asked):
                constant[name] = sole
            elif asked is not None:
                conditions[name] = asked
                if len(asked) == 1 and type(asked[0]) is _PYTHON_TYPES[key_column(self.universe, name).type]:
                    constant[name] = asked[0]
        return constant, conditions

    def _sole_value(self, name: str) -> int | str | None:
        """Return the one value of a governor dimension: what refers to its records can have no other."""
        if self._changes or name not in self.universe or not self.universe[name].is_governor:
            return None
        if name not in self._sole:
            column = self._schema.records[name].c[name]
            values = self._connection.execute(sa.select(column).limit(2)).scalars().all()
            self._sole[name] = values[0] if len(values) == 1 else None
        return self._sole[name]

    def metadata_history(self, element: str, keep: Keep | None = None) -> pl.DataFrame:
        """Return every value that an element's records were ever given as metadata, in order of record and version.

        Returns
        -------
        history : DataFrame
            Required dimensions, ``column``, ``value`` (as text), ``version``, ``loaded``, ``source``,
            ``is_newest``.
        """
        return observation.history(self._connection, self._schema, element, keep)

    def flagged(self) -> Mapping[str, pl.DataFrame]:
        """Return, for each element of which something is flagged now, the required dimensions of what is."""
        return observation.flagged(self._connection, self._schema)

    def datasets(
        self,
        dataset_type: str,
        collections: Sequence[str],
        *,
        keep: Keep | None = None,
        find_first: bool = True,
    ) -> pl.DataFrame:
        """Return the datasets of one type in some collections, in order of data ID, then rank.

        A member of a CALIBRATION collection counts once, whatever its validity. About 0.3 µs a value.

        Returns
        -------
        datasets : DataFrame
            Required dimensions, ``dataset`` (Int64), ``rank`` (Int32): where `flatten(collections)` has the
            dataset's collection. With `find_first` only the row of lowest rank for each data ID.

        Raises
        ------
        NotFound
            If the dataset type or a collection does not exist.
        """
        stored = self._stored_type(dataset_type)
        constant, rest = self._settled(stored.dims, keep)
        same = {**rest, **{d: (value,) for d, value in constant.items()}}
        key = ("datasets of", dataset_type, tuple(collections), _hashable(same))
        if (found := self._read_before.get(key)) is None:
            found = self._members(stored, collections, keep, with_ranges=False)
            self._remember(key, found)
        return _first(found, stored.dims) if find_first and found["rank"].n_unique() > 1 else found

    def calibrations(
        self, dataset_type: str, collections: Sequence[str], *, keep: Keep | None = None
    ) -> pl.DataFrame:
        """Return the datasets of one type with the ranges in which they are valid.

        Members of RUN and TAGGED collections count as valid for all times. About 0.3 µs a value.

        Returns
        -------
        ranges : DataFrame
            Required dimensions, ``dataset``, ``rank``, ``begin`` and ``end`` (TAI ns; `MIN_NS`, `MAX_NS`
            where unbounded), in order of data ID, rank and begin.

        Raises
        ------
        NotFound
            If the dataset type or a collection does not exist.
        """
        return self._members(self._stored_type(dataset_type), collections, keep, with_ranges=True)

    def files(self, dataset: pl.Series) -> pl.DataFrame:
        """Return where the files of some datasets are, one row for each value of `dataset`, in its order.

        Datasets that were inserted together are read together: about 4 µs a row, else 10.

        Returns
        -------
        files : DataFrame
            ``dataset``, ``id`` (Binary, uuid bytes), ``run``, ``url`` (null without a file; a relative one is
            relative to the backbone's root), ``size_bytes``, ``checksum`` (null where unknown), ``content`` (the
            checksum without the keys of provenance; null where the file has no such keys).
        """
        given = pl.DataFrame({"dataset": dataset.cast(pl.Int64)})
        found = self._numbered(self._schema.dataset.c.id, ("id", "uuid", "run"), given)
        stored = self._numbered(self._schema.file.c.dataset, ("dataset", *_FILE), given)
        found = found.select(
            pl.col("id").alias("dataset"),
            pl.col("uuid").alias("id"),
            pl.col("run").replace_strict(self.run_names, return_dtype=pl.String),
        )
        return _with_rows_of(_with_rows_of(given, found), stored)

    def parts(self, dataset: pl.Series) -> pl.DataFrame:
        """Return the files of some datasets beside the first: ``dataset``, ``name``, then as `files`."""
        return self._files_in(self._schema.dataset_part, ("dataset", "name", *_FILE), dataset)

    def copies(self, dataset: pl.Series) -> pl.DataFrame:
        """Return where else some datasets are: ``dataset``, ``destination``, ``url``, ``until`` (null: for good)."""
        return self._files_in(self._schema.dataset_copy, ("dataset", "destination", "url", "until"), dataset)

    def find(self, id: UUID) -> DatasetRef:
        """Return the dataset with this uuid.

        Raises
        ------
        NotFound
        """
        row = self._rows(pl.DataFrame({"uuid": [id.bytes]}))
        if row.is_empty():
            raise self._nowhere(id)
        stored = self._type_of(row.item(0, "dataset_type"))
        file = self.files(row.get_column("id")).row(0, named=True)
        columns, member = ("dataset", *stored.dims), row.select(dataset="id")
        data_id = read_matching(self._connection, stored.tables.data_id, columns, member)
        return DatasetRef(
            id=id,
            type=stored.type.name,
            data_id=data_id.row(0)[1:],
            run=file["run"],
            size_bytes=-1 if file["size_bytes"] is None else file["size_bytes"],
            url=file["url"] or "",
            checksum=file["checksum"] or "",
        )

    def _nowhere(self, id: UUID) -> NotFound:
        """Say that there is no such dataset, and why there is none any more if that is known."""
        facts = ("dataset_type", "data_id", "run", "who", "deleted", "why")
        stones = read_matching(
            self._connection, self._schema.tombstone, facts, pl.DataFrame({"uuid": [id.bytes]})
        )
        why, todo = (
            "no dataset has this uuid",
            "check that it is the uuid of a dataset, and of this repository",
        )
        for type, data_id, run, who, deleted, reason in stones.iter_rows():
            why = f"it was {type} {data_id} of {run}, removed by {who}, {deleted}: {reason}"
            todo = "make it again, or ask who removed it"
        return NotFound(what=f"there is no dataset {id}", where=f"registry {self.place}", why=why, todo=todo)

    def known(self, ids: pl.Series) -> pl.DataFrame:
        """Return which of some uuids (Binary, 16 bytes) are datasets: ``id``, ``dataset``, ``dataset_type``."""
        types = {t.id: t.type.name for t in self.stored_types.values()}
        return self._rows(ids.rename("uuid").to_frame()).select(
            pl.col("uuid").alias("id"),
            pl.col("id").alias("dataset"),
            pl.col("dataset_type").replace_strict(types, return_dtype=pl.String),
        )

    def data_ids(self, dataset_type: str, dataset: pl.Series) -> pl.DataFrame:
        """Return the data IDs of some datasets of one type: required dimensions, ``dataset``."""
        stored = self._stored_type(dataset_type)
        wanted = dataset.rename("dataset").to_frame()
        columns = (*stored.dims, "dataset")
        return read_matching(self._connection, stored.tables.data_id, columns, wanted)

    def lineage(self, id: UUID, *, upstream: bool = True) -> pl.DataFrame:
        """Return all that a dataset was made from or, downstream, all that was made from it.

        Returns
        -------
        datasets : DataFrame
            ``id`` (Binary, uuid bytes), ``dataset``, ``dataset_type``, ``run``, ``quantum`` (Binary, what
            made it; null for what came from outside), ``task``; in order of type and row. An input that is no
            dataset of this registry has only its ``id``. The dataset itself is left out.
        """
        return provenance.lineage(self._connection, self._schema, id, upstream)

    def makers(
        self,
        dataset: pl.Series,
        task: str,
        digests: Mapping[str, str] | None = None,
        columns: Sequence[str] = (),
    ) -> pl.DataFrame:
        """Return what made some datasets, where a quantum of `task` did that has these `digests`.

        Parameters
        ----------
        digests : mapping, optional
            Of ``code_digest``, ``config_digest`` and ``environment_digest``, those that must have this value.
        columns : sequence of str
            Read these too; see `insert_quanta`.

        Returns
        -------
        makers : DataFrame
            ``dataset``, ``quantum`` (Binary, uuid bytes), and of its last attempt ``status`` and `columns`.
        """
        wanted = ("status", *columns)
        return provenance.makers(self._connection, self._schema, dataset, task, digests or {}, wanted)

    def idle_quanta(
        self,
        task: str,
        collections: Sequence[str],
        digests: Mapping[str, str] | None = None,
        columns: Sequence[str] = (),
    ) -> pl.DataFrame:
        """Return the quanta of `task` that found nothing to do in the RUNs among `collections`; see `makers`.

        Returns
        -------
        quanta : DataFrame
            ``quantum``, ``run`` (name), ``status``, ``data_id`` (JSON text) and `columns`.

        Raises
        ------
        NotFound
            If a collection does not exist.
        """
        ids = self.catalog.ids
        runs = [ids[c.name] for c in self.flatten(collections) if c.type is CollectionType.RUN]
        wanted = ("run", "status", "data_id", *columns)
        found = provenance.idle_quanta(self._connection, self._schema, task, runs, digests or {}, wanted)
        return found.with_columns(pl.col("run").replace_strict(self.run_names, return_dtype=pl.String))

    def state_of(self, collections: Sequence[str]) -> str:
        """Return a digest of the state of all records and of the members of some collections.

        It changes with every change of these, and costs the same however many there are.
        """
        ids = self.catalog.ids
        searched = [(c.name, c.type.value, ids[c.name]) for c in self.flatten(collections)]
        rows = self._connection.execute(sa.select(self._schema.change))
        changes = {str(area): int(n) for area, n in rows}
        numbers = [changes.get(area, 0) for area in (RECORDS, *(members_of(id) for _, _, id in searched))]
        return sha256(json.dumps([searched, numbers]).encode()).hexdigest()

    def planned_run(self, run: str, asked: str, state: str) -> str | None:
        """Return what was planned for a run, if just this was asked for and planned from the same state."""
        p = self._schema.planned_run
        query = sa.select(p.c.planned).where(p.c.run == self.catalog.ids[run])
        return self._connection.execute(query.where(p.c.asked == asked, p.c.state == state)).scalar()

    def n_well_ended(self, run: str) -> dict[str, int]:
        """Return for each task how many quanta of a run succeeded or had no work; each counts once."""
        q = self._schema.quantum
        query = sa.select(q.c.task, sa.func.count()).where(
            q.c.run == self.catalog.ids[run], q.c.status.in_(("succeeded", "no_work"))
        )
        return {str(task): int(n) for task, n in self._connection.execute(query.group_by(q.c.task))}

    def inputs_of(self, quantum: pl.Series) -> pl.DataFrame:
        """Return what some quanta (Binary, uuid bytes) read.

        Returns
        -------
        inputs : DataFrame
            ``quantum``, ``connection``, ``id`` (Binary), ``dataset`` and ``dataset_type`` (null for what this
            registry does not hold).
        """
        types = {t.id: t.type.name for t in self.stored_types.values()}
        found = provenance.inputs(self._connection, self._schema, quantum)
        return found.with_columns(pl.col("dataset_type").replace_strict(types, return_dtype=pl.String))

    def recorded_quanta(self, task: str = "", data_id: str = "", id: UUID | None = None) -> pl.DataFrame:
        """Return the quanta of a task, on one data ID (JSON text), or with one id; the newest first.

        Returns
        -------
        quanta : DataFrame
            Of the last attempt at each: what `makers` says of a quantum, ``task``, ``host``, ``started``, ``ended``.
        """
        found = provenance.recorded(self._connection, self._schema, task, data_id, id)
        return found.with_columns(pl.col("run").replace_strict(self.run_names, return_dtype=pl.String))

    def made(self, dataset: pl.Series) -> pl.Series:
        """Return those of some datasets that a quantum made, sorted; the others came from outside."""
        return provenance.made(self.connection, self.schema, dataset)

    def products(self, dataset: pl.Series) -> pl.DataFrame:
        """Return all that was made from some datasets, directly or not: ``dataset``, sorted.

        What is given is returned too where it was made from another of them.
        """
        return provenance.products(self._connection, self._schema, dataset)

    def quanta(self, run: str) -> pl.DataFrame:
        """Return the quanta of a run, in order of task, data ID and attempt; columns as in `insert_quanta`.

        Raises
        ------
        NotFound, RegistryError
            If there is no such collection; if it is no RUN.
        """
        self.catalog.of_type(run, CollectionType.RUN, "list the quanta of")
        number = self.catalog.ids[run]
        found = provenance.quanta(self._connection, self._schema, number)
        return found.with_columns(run=pl.lit(run)).sort("task", "data_id", "attempt")

    # What follows serves the transaction too.

    @property
    def connection(self) -> sa.Connection:
        """The database at this moment, for the modules that ask it more."""
        return self._connection

    @property
    def stored_types(self) -> Mapping[str, StoredType]:
        """All dataset types by name."""
        if self._types is None:
            self._types = self._read_types()
        return self._types

    def _stored_type(self, name: str) -> StoredType:
        if (found := self.stored_types.get(name)) is None:
            raise NotFound(
                what=f"there is no dataset type {name!r}",
                where=f"registry {self.place}",
                why="no dataset type has this name",
                todo=did_you_mean(name, self.stored_types),
            )
        return found

    def _type_of(self, number: int) -> StoredType:
        return next(t for t in self.stored_types.values() if t.id == number)

    def _read_types(self) -> dict[str, StoredType]:
        t, g = self._schema.dataset_type, self._schema.dimension_group
        query = sa.select(t, g.c.required).join(g, t.c.dimension_group == g.c.id)
        found = {}
        for row in self._connection.execute(query):
            group = self.universe.group(row.required.split(",") if row.required else ())
            type = DatasetType(row.name, group, row.storage_class, row.is_calibration)
            found[row.name] = StoredType(row.id, type, self._schema.group_tables(row.dimension_group, group))
        return found

    @property
    def catalog(self) -> Catalog:
        """All collections."""
        if self._catalog is None:
            self._catalog = self._read_catalog()
        return self._catalog

    def _read_catalog(self) -> Catalog:
        c, chain = self._schema.collection, self._schema.chain
        found = self._connection.execute(sa.select(c.c.id, c.c.name, c.c.type, c.c.doc, c.c.removed)).all()
        rows = [row[:4] for row in found if row.removed is None]
        names = {id: name for id, name, _, _ in rows}
        children: dict[int, list[str]] = {}
        for parent, child in self._connection.execute(
            sa.select(chain.c.parent, chain.c.child).order_by(chain.c.parent, chain.c.position)
        ):
            children.setdefault(parent, []).append(names[child])
        return Catalog(
            ids={name: id for id, name in names.items()},
            collections={
                name: Collection(name, CollectionType(type), doc, tuple(children.get(id, ())))
                for id, name, type, doc in rows
            },
            place=self.place,
            removed_runs={row.id: row.name for row in found if row.removed is not None},
        )

    @property
    def run_names(self) -> Mapping[int, str]:
        """The names of RUNs by row, removed ones too."""
        catalog = self.catalog
        runs = (name for name, c in catalog.collections.items() if c.type is CollectionType.RUN)
        return {**catalog.removed_runs, **{catalog.ids[name]: name for name in runs}}

    def _rows(self, keys: pl.DataFrame) -> pl.DataFrame:
        """Return the rows of `dataset` that agree with `keys`."""
        return read_matching(self._connection, self._schema.dataset, _DATASET, keys)

    def _numbered(self, column: sa.Column[int], columns: Sequence[str], given: pl.DataFrame) -> pl.DataFrame:
        """Return the rows whose `column` is in `given`, all between the first and the last if most are."""
        numbers = given.get_column("dataset").drop_nulls().unique()
        table = column.table
        low, high = numbers.min(), numbers.max()
        if isinstance(low, int) and isinstance(high, int) and high - low < _DENSE * numbers.len():
            between = sa.select(*(table.c[name] for name in columns)).where(column.between(low, high))
            return read(self._connection, between)
        return read_matching(self._connection, table, columns, numbers.rename(column.name).to_frame())

    def _files_in(self, table: sa.Table, columns: Sequence[str], dataset: pl.Series) -> pl.DataFrame:
        given = pl.DataFrame({"dataset": dataset.cast(pl.Int64)})
        return (
            self._numbered(table.c.dataset, columns, given)
            .join(given.unique(), on="dataset", how="semi")
            .sort(columns[:2])
        )

    def _members(
        self, stored: StoredType, collections: Sequence[str], keep: Keep | None, with_ranges: bool
    ) -> pl.DataFrame:
        """Return data IDs, dataset, rank and perhaps begin and end of all members of some collections."""
        searched = self.flatten(collections)
        ids = self.catalog.ids
        ranks = pl.DataFrame(
            {"collection": [ids[c.name] for c in searched], "rank": range(len(searched))},
            schema={"collection": pl.Int64, "rank": pl.Int32},
        )
        constant, rest = self._settled(stored.dims, keep)
        last = ("begin", "end") if with_ranges else ()
        parts = []
        for type, column in _places(stored.tables):
            numbers = [ids[c.name] for c in searched if c.type is type]
            if numbers or type is CollectionType.RUN:  # at least one, for the columns
                query = _members_query(stored, column, numbers, constant, rest, with_ranges)
                parts.append(read(self._connection, query))
        found = kept(pl.concat(parts), long_lists(rest)).join(ranks, on="collection", maintain_order="left")
        read_here = [d for d in stored.dims if d not in constant]
        found = in_order(found, [*read_here, "rank", *last, "dataset"])
        return with_constants(found, constant, [*stored.dims, "dataset", "rank", *last])


def _with_rows_of(given: pl.DataFrame, table: pl.DataFrame) -> pl.DataFrame:
    """Add to each row of `given` the row of `table` with the same ``dataset``, or nulls."""
    if given["dataset"].null_count():
        return given.join(table, on="dataset", how="left", maintain_order="left")
    rows = located(given["dataset"].to_numpy(), table["dataset"].to_numpy())
    if (rows < 0).any():
        return given.join(table, on="dataset", how="left", maintain_order="left")
    # the common case, in which every row is there: no hashing
    return pl.DataFrame(
        [*given.get_columns(), *(table[c].gather(rows) for c in table.columns if c != "dataset")]
    )


def _hashable(keep: Keep) -> tuple[tuple[str, tuple[int | str, ...]], ...]:
    return tuple((dimension, tuple(values)) for dimension, values in sorted(keep.items()))


def _places(tables: GroupTables) -> tuple[tuple[CollectionType, sa.Column[int]], ...]:
    """Return for each type of collection the column that names the collection of a member."""
    return (
        (CollectionType.RUN, tables.data_id.c.run),
        (CollectionType.TAGGED, tables.tag.c.collection),
        (CollectionType.CALIBRATION, tables.calib.c.collection),
    )


def _members_query(
    stored: StoredType,
    collection: sa.Column[int],
    numbers: Sequence[int],
    constant: Mapping[str, int | str],
    keep: Keep,
    with_ranges: bool,
) -> sa.Select[Any]:
    """Return the query for data ID, dataset, collection and perhaps begin and end of the members."""
    table = collection.table
    named = [table.c[name] for name in (*stored.dims, "dataset") if name not in constant]
    which = _constant(numbers[0], "collection") if len(numbers) == 1 else collection.label("collection")
    query = sa.select(*named, which).where(table.c.dataset_type == stored.id, *keep_in_sql(table, keep))
    if len(numbers) <= _IN_SQL:  # a longer list is cheaper to apply by the join with the ranks
        query = query.where(collection.in_(numbers))
    if with_ranges and "begin" in table.c:
        return query.add_columns(table.c.begin, table.c.end)
    if with_ranges:
        return query.add_columns(_constant(MIN_NS, "begin"), _constant(MAX_NS, "end"))
    return query.distinct() if "begin" in table.c else query


def _constant(value: int, name: str) -> sa.Label[int]:
    return sa.literal(value, sa.BigInteger()).label(name)


def _first(found: pl.DataFrame, dims: Sequence[str]) -> pl.DataFrame:
    return found.unique(dims, keep="first", maintain_order=True) if dims else found.head(1)
