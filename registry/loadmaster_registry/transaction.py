"""The one way to write to a registry: all or nothing, in bulk, and the same again changes nothing.

Rows are inserted at once; only when the database says that some are there already, or refer to something that
is not, are they compared with what is there, by sets. So new data never waits for a question, and old data
never becomes a query a row. About 50 000 datasets a second.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from uuid import UUID

import polars as pl
import sqlalchemy as sa

from . import observation
from .catalog import check_name
from .comparison import check_same, check_unique, listed, unknown
from .errors import Conflict, NotFound, RegistryError, did_you_mean
from .frames import check_uuids, delete, fitted, insert, inserted, read_matching, update
from .membership import Members
from .provenance import NO_INPUTS, QUANTUM_DIGESTS, input_keys
from .records import Collection, CollectionType, DatasetType
from .schema import COPY_COLUMNS, FILE_COLUMNS, PART_COLUMNS, Schema, key_column, record_columns
from .snapshot import DATASETS, RECORDS, Snapshot, StoredType, members_of
from .timespan import Timespan
from .universe import Column, Element

_QUANTUM_STATUS = ("succeeded", "no_work", "partial", "failed")
_QUANTUM_COLUMNS = (
    Column("id", "bytes", nullable=False),
    Column("run", "str", nullable=False),
    Column("task", "str", nullable=False),
    Column("data_id", "str", nullable=False),
    Column("attempt", "int", nullable=False),
    Column("status", "str", nullable=False),
    *(Column(name, "str") for name in ("host", "started", "ended", *QUANTUM_DIGESTS, "sandbox", "software")),
)
_INPUT_COLUMNS = (
    Column("quantum", "bytes", nullable=False),
    Column("dataset_id", "bytes", nullable=False),
    Column("connection", "str", nullable=False),
)


class Transaction(Snapshot):
    """A snapshot that one can write to, and that sees its own writes; it ends with its `with` block."""

    _changes = True

    def __init__(self, connection: sa.Connection, schema: Schema, place: str, *, who: str, now: str) -> None:
        super().__init__(connection, schema, place)
        self.who = who
        self.now = now  # ISO, UTC
        self._next_dataset: int | None = None
        self._touched: set[str] = set()

    def insert_records(self, element: str, rows: pl.DataFrame) -> int:
        """Add records of an element and return how many are new.

        Parameters
        ----------
        rows : DataFrame
            Columns as `records` returns them. A column left out is null in new records, and is not compared
            with those that exist. For an element whose values are another's (``band``) nothing happens.

        Raises
        ------
        Conflict
            If a record exists with other values, or an alternate key is another record's.
        RegistryError
            If a column is wrong, or a dimension that a record refers to does not exist.
        """
        definition = self.universe[element]
        if definition.values_of:
            return 0
        if definition.is_skypix:
            raise RegistryError(
                what=f"{element!r} takes no records", where=f"registry {self.place}",
                why="sky pixels are computed, not stored", todo="leave them out",
            )  # fmt: skip
        self.touch(RECORDS)
        columns = record_columns(self.universe, definition)
        new = fitted(rows, columns, f"records of {element!r}")
        table = self._schema.records[element]
        if not inserted(self._connection, (table, new)):
            new = self._new_records(definition, new)
            insert(self._connection, table, new)
        return new.height

    def replace_records(self, element: str, rows: pl.DataFrame) -> int:
        """Give records that exist other values, and return how many there were; columns left out stay.

        Parameters
        ----------
        rows : DataFrame
            The element's required dimensions, and the metadata, region or time span that change.

        Raises
        ------
        RegistryError
            If a record does not exist, or a column is wrong.
        """
        definition = self.universe[element]
        self.touch(RECORDS)
        columns = record_columns(self.universe, definition)
        what = f"records of {element!r}"
        new = fitted(rows, [c for c in columns if c.name not in definition.implied], what)
        with self._connection.begin_nested():
            changed = update(self._connection, self._schema.records[element], new, definition.required)
            if changed != new.height:
                raise RegistryError(
                    what=f"{new.height - changed} of {new.height} {what} do not exist",
                    where=f"registry {self.place}",
                    why="only what exists can change",
                    todo="insert them first",
                )
        return changed

    def set_metadata(self, element: str, rows: pl.DataFrame, *, loaded: str, source: str) -> int:
        """Give records that exist newer values, and return how many values are new; older ones stay readable.

        Parameters
        ----------
        rows : DataFrame
            The element's required dimensions, and values: columns that its records have (metadata, region), or
            others, which are known from then on. Null leaves a value as it is.
        loaded, source : str
            When and from where, for people.

        Raises
        ------
        Conflict, RegistryError
            If a record does not exist or is given twice, or a column is wrong.
        """
        self.touch(RECORDS)
        self._schema, n_new = observation.store_versions(
            self._connection, self._schema, self.place, element, rows, loaded, source
        )
        return n_new

    def register_dataset_type(self, type: DatasetType) -> bool:
        """Make a dataset type known; False where the same is known already.

        Raises
        ------
        Conflict
            If it is known with another definition.
        """
        if known := self.stored_types.get(type.name):
            if known.type == type:
                return False
            raise Conflict(
                what=f"dataset type {type.name!r} exists with another definition",
                where=f"registry {self.place}",
                why=f"there: {known.type}; given: {type}",
                todo="give the new one another name",
            )
        _check_type_name(type.name)
        group = self._group(type)
        number = self._added(
            self._schema.dataset_type,
            name=type.name,
            dimension_group=group,
            storage_class=type.storage_class,
            is_calibration=type.is_calibration,
        )
        new = StoredType(number, type, self._schema.group_tables(group, type.dimensions))
        self._types = {**self.stored_types, type.name: new}
        return True

    def register_collection(self, collection: Collection) -> bool:
        """Make a collection known; False where the same is known already.

        Raises
        ------
        Conflict
            If it is known with another type, other children or another doc.
        NotFound, RegistryError
            If a chain's child does not exist; if the chain would hold itself.
        """
        catalog = self.catalog
        if collection.name in catalog.collections:
            catalog.check_same(collection)
            return False
        check_name(collection)
        catalog.check_children(collection.name, collection.children)
        row = {
            "name": collection.name,
            "type": collection.type.value,
            "doc": collection.doc,
            "owner": self.who,
        }
        number = self._added(self._schema.collection, **row)
        self._link(number, collection.children)
        self._catalog = catalog.added(collection, number)
        return True

    def set_chain(self, name: str, children: Sequence[str]) -> None:
        """Give a chain other children; whoever searches it sees the old ones or the new ones.

        Raises
        ------
        NotFound, RegistryError
            If it or a child does not exist; if it is no chain; if it would hold itself.
        """
        catalog = self.catalog
        old = catalog.of_type(name, CollectionType.CHAINED, "set the children of")
        catalog.check_children(name, children)
        number = catalog.ids[name]
        delete(self._connection, self._schema.chain, pl.DataFrame({"parent": [number]}))
        self._link(number, children)
        self._catalog = catalog.added(replace(old, children=tuple(children)), number)

    def insert_datasets(
        self, dataset_type: str, run: str, rows: pl.DataFrame, parts: pl.DataFrame | None = None
    ) -> int:
        """Add datasets to a RUN and return how many are new.

        Parameters
        ----------
        rows : DataFrame
            Required dimensions, ``id`` (Binary, uuid bytes), and where known ``url``, ``size_bytes``,
            ``checksum``, ``content`` (the checksum without the keys of provenance, where the file has such keys),
            ``quantum`` (Binary, what made it).
        parts : DataFrame, optional
            More files of these datasets: ``id``, ``name``, ``url``, ``size_bytes``, ``checksum``, ``content``.

        Raises
        ------
        Conflict
            If the run has another dataset with the same data ID, or the id is another dataset's.
        NotFound, RegistryError
            If type or run do not exist, a column is wrong, or a data ID has no dimension records.
        """
        stored = self._stored_type(dataset_type)
        self.catalog.of_type(run, CollectionType.RUN, f"put {dataset_type!r} datasets into")
        self.touch(members_of(self.catalog.ids[run]))
        key = (key_column(self.universe, d) for d in stored.dims)
        columns = (*key, Column("id", "bytes", nullable=False), *FILE_COLUMNS, Column("quantum", "bytes"))
        what = f"datasets {dataset_type!r} for {run!r}"
        new = fitted(rows, columns, what)
        check_uuids(new, ("id", "quantum"), what)
        if not inserted(self._connection, *self._dataset_rows(stored, run, new)):
            new = self._new_datasets(stored, run, new)
            for table, part in self._dataset_rows(stored, run, new):
                insert(self._connection, table, part)
        if parts is not None:
            given = rows.select("id")
            self._insert_files(self._schema.dataset_part, ("dataset", "name"), PART_COLUMNS, parts, given)
        return new.height

    def insert_copies(self, rows: pl.DataFrame) -> int:
        """Record where else the bytes of datasets are, and return how many places are new.

        Parameters
        ----------
        rows : DataFrame
            ``id`` (Binary, uuid bytes), ``destination``, ``url``, ``until`` (ISO, UTC; null: for good).

        Raises
        ------
        Conflict
            If a dataset has another place at the same destination.
        RegistryError
            If a dataset does not exist, or a column is wrong.
        """
        return self._insert_files(
            self._schema.dataset_copy, ("dataset", "destination"), COPY_COLUMNS, rows, rows.select("id")
        )

    def _insert_files(
        self,
        table: sa.Table,
        key: Sequence[str],
        columns: Sequence[Column],
        rows: pl.DataFrame,
        known: pl.DataFrame,
    ) -> int:
        """Insert files of datasets that are named by their uuid, and that are among `known`."""
        what = f"rows of {table.name!r}"
        new = fitted(rows, columns, what)
        numbers = self._rows(known.select(uuid="id").unique()).select("uuid", dataset="id")
        numbered = new.join(numbers, left_on="id", right_on="uuid", maintain_order="left").drop("id")
        if numbered.height < new.height:
            raise RegistryError(
                what=f"{new.height - numbered.height} {what} belong to no dataset",
                where=f"registry {self.place}",
                why="a file is recorded with its dataset or after it",
                todo="give the datasets too, or leave these files out",
            )
        if inserted(self._connection, (table, numbered)):
            return numbered.height
        numbered = self._new_rows(table, numbered, key, what)
        insert(self._connection, table, numbered)
        return numbered.height

    def associate(self, collection: str, ids: Sequence[UUID]) -> int:
        """Tag datasets and return how many were not tagged yet.

        Raises
        ------
        Conflict
            If the collection has another dataset of the same type and data ID.
        NotFound, RegistryError
            If a dataset or the collection does not exist; if it is not TAGGED.
        """
        self.catalog.of_type(collection, CollectionType.TAGGED, "associate datasets with")
        with self._connection.begin_nested():
            return sum(self._members_of(collection, type).tag(rows) for type, rows in self._by_type(ids))

    def disassociate(self, collection: str, ids: Sequence[UUID]) -> int:
        """Take tags off and return how many there were; a dataset without the tag is passed over.

        Raises
        ------
        NotFound, RegistryError
            If a dataset or the collection does not exist; if it is not TAGGED.
        """
        self.catalog.of_type(collection, CollectionType.TAGGED, "disassociate datasets from")
        return sum(self._members_of(collection, type).untag(rows) for type, rows in self._by_type(ids))

    def certify(self, collection: str, dataset_type: str, ids: Sequence[UUID], timespan: Timespan) -> int:
        """Declare datasets valid for a time span; return how many were not so already.

        A range that overlaps with one of the same dataset is made one with it.

        Raises
        ------
        Conflict
            If another dataset with the same data ID is valid at some instant of it; both ranges are shown.
        NotFound, RegistryError
            If something does not exist, the collection is not CALIBRATION, the type is no calibration, or the
            time span is empty.
        """
        stored = self._calibration_type(collection, dataset_type, timespan)
        rows = self._of_one_type(stored, ids)
        return self._members_of(collection, stored).certify(rows, timespan) if ids else 0

    def decertify(
        self, collection: str, dataset_type: str, timespan: Timespan, data_ids: pl.DataFrame | None = None
    ) -> int:
        """Let nothing be valid in a time span: ranges are trimmed, split or removed; return how many.

        Parameters
        ----------
        data_ids : DataFrame, optional
            Required dimensions of the type: only these; all without it.

        Raises
        ------
        NotFound, RegistryError
            As `certify`.
        """
        stored = self._calibration_type(collection, dataset_type, timespan)
        if data_ids is not None:
            key = [key_column(self.universe, d) for d in stored.dims]
            data_ids = fitted(data_ids, key, f"data IDs of {dataset_type!r}")
        return self._members_of(collection, stored).decertify(timespan, data_ids)

    def insert_quanta(self, rows: pl.DataFrame, inputs: pl.DataFrame) -> int:
        """Record what ran and what it read; return how many quanta are new.

        Parameters
        ----------
        rows : DataFrame
            ``id`` (Binary, uuid bytes), ``run``, ``task``, ``data_id`` (JSON text), ``attempt``, ``status``
            (succeeded, no_work, partial, failed) and where known ``host``, ``started``, ``ended`` (ISO text),
            ``code_digest``, ``config_digest``, ``environment_digest``, ``sandbox``, ``software``. Each attempt at a
            quantum is a row of its own.
        inputs : DataFrame
            ``quantum`` (one of `rows`), ``dataset_id`` (both Binary, uuid bytes), ``connection``.

        Raises
        ------
        Conflict
            If the same attempt at the same quantum is recorded with other facts.
        NotFound, RegistryError
            If a run does not exist, a column is wrong, or an input is of a quantum that is not in `rows`.
        """
        new = self._with_run_ids(fitted(rows, _QUANTUM_COLUMNS, "quanta"))
        read_by = fitted(inputs, _INPUT_COLUMNS, "inputs of quanta")
        check_uuids(new, ("id",), "quanta")
        check_uuids(read_by, ("quantum", "dataset_id"), "inputs of quanta")
        _check_quanta(new, read_by)
        keyed = _with_input_keys(new, read_by)
        quantum, quantum_input = self._schema.quantum, self._schema.quantum_input
        if not inserted(self._connection, (quantum, keyed), (quantum_input, read_by)):
            new = self._new_rows(quantum, new, ("id", "attempt"), "quanta")
            more = self._new_rows(quantum_input, read_by, ("quantum", "dataset_id", "connection"), "inputs")
            insert(self._connection, quantum, _with_input_keys(new, read_by))
            insert(self._connection, quantum_input, more)
            self._rekey(more.select(id="quantum").unique())
        return new.height

    def _rekey(self, quanta: pl.DataFrame) -> None:
        """Digest anew what some quanta read, which others may have recorded in part before."""
        columns = ("quantum", "dataset_id", "connection")
        read_by = read_matching(
            self._connection, self._schema.quantum_input, columns, quanta.select(quantum="id")
        )
        update(self._connection, self._schema.quantum, _with_input_keys(quanta, read_by), ("id",))

    def record_plan(self, run: str, asked: str, state: str, planned: str) -> None:
        """Record what was planned for a run; a later plan for it takes its place.

        Parameters
        ----------
        asked, state : str
            Digests of what was asked for, and of what that was planned from (`Snapshot.state_of`).
        planned : str
            JSON: what came of it.
        """
        self.catalog.of_type(run, CollectionType.RUN, "plan for")
        number = self.catalog.ids[run]
        delete(self._connection, self._schema.planned_run, pl.DataFrame({"run": [number]}))
        row = {"run": number, "asked": asked, "state": state, "planned": planned}
        self._connection.execute(sa.insert(self._schema.planned_run).values(row))

    def forget_catalog(self) -> None:
        """Read the collections again when they are next needed: their rows were changed."""
        self._catalog = None

    def touch(self, area: str) -> None:
        """Note once that this transaction changes something; see `Schema.change`."""
        if area in self._touched:
            return
        table = self._schema.change
        again = sa.update(table).where(table.c.area == area).values(number=table.c.number + 1)
        if not self._connection.execute(again).rowcount:
            self._connection.execute(sa.insert(table).values(area=area, number=1))
        self._touched.add(area)

    def _new_rows(self, table: sa.Table, rows: pl.DataFrame, key: Sequence[str], what: str) -> pl.DataFrame:
        """Return the rows that are not in `table`; refuse those that are, but with other values."""
        where = f"registry {self.place}"
        rows = rows.unique(maintain_order=True)
        check_unique(rows, key, what, where)
        old = read_matching(self._connection, table, rows.columns, rows.select(key))
        check_same(rows, old, key, what, where)
        return unknown(rows, old, key)

    def _new_records(self, element: Element, rows: pl.DataFrame) -> pl.DataFrame:
        what = f"records of {element.name!r}"
        new = self._new_rows(self._schema.records[element.name], rows, element.required, what)
        others = [d for d in element.required if d != element.name]
        self._check_references((*others, *element.implied), new, what)
        for alternate in element.alternates:
            if alternate.name in new.columns:
                self._check_alternate(element, (*others, alternate.name), new.drop_nulls(alternate.name))
        return new

    def _check_alternate(self, element: Element, key: Sequence[str], rows: pl.DataFrame) -> None:
        """Refuse records whose alternate key is that of another record."""
        rows = rows.select(*dict.fromkeys((*element.required, *key)))
        what, where = f"records of {element.name!r} with one {key[-1]!r}", f"registry {self.place}"
        check_unique(rows, key, what, where)
        table = self._schema.records[element.name]
        there = read_matching(self._connection, table, rows.columns, rows.select(key))
        check_same(rows, there, key, what, where)

    def _check_references(self, dimensions: Sequence[str], rows: pl.DataFrame, what: str) -> None:
        """Refuse rows that name dimension values without a record, all of them in one error."""
        missing = []
        for element in (self.universe[d] for d in dimensions):
            if element.has_table:
                wanted = rows.select(element.required).unique(maintain_order=True)
                table = self._schema.records[element.name]
                known = read_matching(self._connection, table, element.required, wanted)
                if not (absent := unknown(wanted, known, element.required)).is_empty():
                    missing.append(f"no {element.name} {listed(absent)}")
        if missing:
            raise RegistryError(
                what=f"{what} refer to dimensions that do not exist",
                where=f"registry {self.place}",
                why="; ".join(missing),
                todo="insert these records first",
            )

    def _group(self, type: DatasetType) -> int:
        """Return the number of the type's dimension group; make its tables where it is the first."""
        table, required = self._schema.dimension_group, ",".join(type.dimensions.required)
        found = sa.select(table.c.id).where(table.c.required == required)
        number = self._connection.execute(found).scalar()
        if number is None:
            number = self._added(table, required=required)
            self._schema.group_tables(number, type.dimensions).create(self._connection)
        return int(number)

    def _added(self, table: sa.Table, **row: str | int) -> int:
        """Insert one row and return its number."""
        key = self._connection.execute(sa.insert(table).values(row)).inserted_primary_key
        assert key is not None  # one row gives one key
        return int(key[0])

    def _link(self, parent: int, children: Sequence[str]) -> None:
        ids = self.catalog.ids
        rows = {"parent": parent, "position": range(len(children)), "child": [ids[c] for c in children]}
        insert(self._connection, self._schema.chain, pl.DataFrame(rows))

    def _dataset_rows(
        self, stored: StoredType, run: str, rows: pl.DataFrame
    ) -> tuple[tuple[sa.Table, pl.DataFrame], ...]:
        """Number new datasets and return the rows of each table that hold them."""
        numbered = rows.rename({"id": "uuid"}).with_columns(
            dataset=pl.int_range(rows.height, dtype=pl.Int64) + self._numbers(rows.height),
            dataset_type=pl.lit(stored.id),
            run=pl.lit(self.catalog.ids[run]),
            created=pl.lit(self.now),
        )
        files = numbered if "url" in numbered.columns else numbered.clear()
        return (
            (self._schema.dataset, numbered.drop(stored.dims).rename({"dataset": "id"})),
            (stored.tables.data_id, numbered),
            (self._schema.file, files.drop_nulls("url") if files.height else files),
        )

    def _numbers(self, n: int) -> int:
        """Take the next `n` row numbers of datasets and return the first: nobody else writes meanwhile."""
        if self._next_dataset is None:
            change = self._schema.change
            there = sa.select(sa.func.max(self._schema.dataset.c.id))
            removed = sa.select(change.c.number).where(change.c.area == DATASETS)
            numbers = (self._connection.execute(query).scalar() or 0 for query in (there, removed))
            self._next_dataset = 1 + max(numbers)
        self._next_dataset += n
        return self._next_dataset - n

    def _new_datasets(self, stored: StoredType, run: str, rows: pl.DataFrame) -> pl.DataFrame:
        """Return the datasets that are not there; refuse those that contradict what is."""
        what, where = f"datasets {stored.type.name!r}", f"run {run!r} of registry {self.place}"
        rows = rows.unique(maintain_order=True)
        named = rows.select(*stored.dims, "id")
        check_unique(named, ("id",), what, where)
        check_unique(named, stored.dims, what, where)
        known = self._rows(rows.select(uuid="id"))
        self._check_same_datasets(stored, run, named, known, what, where)
        new = unknown(rows, known.select(id="uuid"), ("id",))
        taken = self._in_run(stored, run, new)
        check_same(named, taken, stored.dims, what, where)
        self._check_references(stored.dims, new, what)
        return new

    def _check_same_datasets(
        self, stored: StoredType, run: str, rows: pl.DataFrame, known: pl.DataFrame, what: str, where: str
    ) -> None:
        """Refuse ids that are those of datasets of another type, run or data ID."""
        types = {t.id: t.type.name for t in self.stored_types.values()}
        there = known.select(
            pl.col("uuid").alias("id"),
            pl.col("dataset_type").replace_strict(types, return_dtype=pl.String),
            pl.col("run").replace_strict(self.run_names, return_dtype=pl.String),
        )
        given = rows.with_columns(dataset_type=pl.lit(stored.type.name), run=pl.lit(run))
        check_same(given, there, ("id",), what, where)
        table, columns = stored.tables.data_id, ("dataset", *stored.dims)
        data_ids = read_matching(self._connection, table, columns, known.select(dataset="id"))
        there = data_ids.join(known.select(dataset="id", id="uuid"), on="dataset")
        check_same(rows, there, ("id",), what, where)

    def _in_run(self, stored: StoredType, run: str, rows: pl.DataFrame) -> pl.DataFrame:
        """Return data ID and id of the datasets that a run has for the data IDs of `rows`."""
        number = self.catalog.ids[run]
        keys = rows.select(*stored.dims, dataset_type=pl.lit(stored.id), run=pl.lit(number))
        found = read_matching(self._connection, stored.tables.data_id, ("dataset", *stored.dims), keys)
        ids = self._rows(found.select(id="dataset")).select(dataset="id", id="uuid")
        return found.join(ids, on="dataset").drop("dataset")

    def _by_type(self, ids: Sequence[UUID]) -> list[tuple[StoredType, pl.DataFrame]]:
        """Return for each dataset type among `ids` its data IDs, with ``dataset`` and ``uuid``.

        Raises
        ------
        NotFound
            If there is no such dataset.
        """
        wanted = pl.DataFrame({"uuid": [id.bytes for id in ids]}, schema={"uuid": pl.Binary}).unique()
        known = self._rows(wanted)
        if not (absent := unknown(wanted, known, ("uuid",))).is_empty():
            raise NotFound(
                what=f"{absent.height} of {wanted.height} datasets do not exist",
                where=f"registry {self.place}",
                why=f"no dataset has {listed(absent)}",
                todo="insert them first, or leave them out",
            )
        found = []
        for number, rows in sorted(known.partition_by("dataset_type", as_dict=True).items()):
            stored = self._type_of(int(str(number[0])))
            members = rows.select(pl.col("id").alias("dataset"), "uuid")
            columns = ("dataset", *stored.dims)
            data_ids = read_matching(
                self._connection, stored.tables.data_id, columns, members.select("dataset")
            )
            found.append((stored, data_ids.join(members, on="dataset")))
        return found

    def _of_one_type(self, stored: StoredType, ids: Sequence[UUID]) -> pl.DataFrame:
        """Return the data IDs of `ids`, with ``dataset`` and ``uuid``; refuse other types."""
        found = {type.id: rows for type, rows in self._by_type(ids)}
        for number, rows in found.items():
            if number != stored.id:
                raise RegistryError(
                    what=f"{rows.height} of the datasets are not of type {stored.type.name!r}",
                    where=f"registry {self.place}",
                    why=f"they are {self._type_of(number).type.name!r}: {listed(rows.select('uuid'))}",
                    todo="give datasets of one type",
                )
        return found.get(stored.id, pl.DataFrame())

    def _calibration_type(self, collection: str, dataset_type: str, timespan: Timespan) -> StoredType:
        """Return the type, once all is there to certify or decertify it."""
        self.catalog.of_type(collection, CollectionType.CALIBRATION, "change validity ranges in")
        stored = self._stored_type(dataset_type)
        if not stored.type.is_calibration:
            raise RegistryError(
                what=f"datasets {dataset_type!r} have no validity ranges",
                where=f"registry {self.place}",
                why="their type is not registered as a calibration",
                todo="tag them, or register another type with is_calibration",
            )
        if timespan.begin_ns >= timespan.end_ns:
            raise RegistryError(
                what=f"the time span {timespan} is empty",
                where=f"collection {collection!r}",
                why="its begin is not before its end",
                todo="give a begin before the end",
            )
        return stored

    def _members_of(self, collection: str, stored: StoredType) -> Members:
        number = self.catalog.ids[collection]
        self.touch(members_of(number))
        where = f"collection {collection!r} of registry {self.place}"
        return Members(self._connection, self._schema.dataset, stored, number, where)

    def _with_run_ids(self, quanta: pl.DataFrame) -> pl.DataFrame:
        catalog = self.catalog
        for run in quanta.get_column("run").unique():
            catalog.of_type(run, CollectionType.RUN, "record quanta of")
        return quanta.with_columns(pl.col("run").replace_strict(catalog.ids, return_dtype=pl.Int64))


def _with_input_keys(quanta: pl.DataFrame, inputs: pl.DataFrame) -> pl.DataFrame:
    """Add to quanta the key of what they read, `inputs`."""
    keys = input_keys(inputs.rename({"dataset_id": "id"}).unique(), "quantum").rename({"quantum": "id"})
    found = quanta.join(keys, on="id", how="left", maintain_order="left")
    return found.with_columns(pl.col("inputs_key").fill_null(NO_INPUTS))


def _check_quanta(rows: pl.DataFrame, inputs: pl.DataFrame) -> None:
    strange = rows.filter(~pl.col("status").is_in(_QUANTUM_STATUS))
    if not strange.is_empty():
        raise RegistryError(
            what=f"unknown status {strange.item(0, 'status')!r}",
            where=f"quantum {UUID(bytes=strange.item(0, 'id'))}",
            why=f"a quantum {', '.join(_QUANTUM_STATUS)}",
            todo=did_you_mean(strange.item(0, "status"), _QUANTUM_STATUS),
        )
    lost = inputs.filter(~pl.col("quantum").is_in(rows.get_column("id").implode()))
    if not lost.is_empty():
        raise RegistryError(
            what=f"{lost.height} inputs are of quanta that are not recorded",
            where="inputs of quanta",
            why=f"their quantum is none of the rows: {listed(lost)}",
            todo="record a quantum and its inputs together",
        )


def _check_type_name(name: str) -> None:
    if not re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII):
        parent, dot, component = name.partition(".")
        raise RegistryError(
            what=f"{name!r} cannot be the name of a dataset type",
            where="registering it",
            why=f"{component!r} names a component of {parent!r}" if dot else "it holds other characters",
            todo=f"register {parent!r}" if dot else "use letters, digits and _",
        )
