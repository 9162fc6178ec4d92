"""What a registry holds at one moment: all reads, by columns."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any
from uuid import UUID

import polars as pl
import sqlalchemy as sa

from . import provenance
from .catalog import Catalog
from .errors import NotFound, RegistryError, did_you_mean
from .frames import Keep, keep_in_sql, kept, read, read_matching
from .records import Collection, CollectionType, DatasetRef, DatasetType
from .schema import FILE_COLUMNS, GroupTables, Schema
from .timespan import MAX_NS, MIN_NS
from .universe import Universe

_IN_SQL = 1000  # collections named in one statement
_DENSE = 4  # reading so many rows for one that is wanted costs as much as finding that one
_DATASET = ("id", "uuid", "dataset_type", "run")
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


class Snapshot:
    """One consistent view of a registry: what it says does not change while it is open."""

    def __init__(self, connection: sa.Connection, schema: Schema, place: str) -> None:
        self.place = place
        self._connection = connection
        self._schema = schema
        self._types: Mapping[str, StoredType] | None = None
        self._catalog: Catalog | None = None

    @property
    def universe(self) -> Universe:
        """The dimensions of this registry."""
        return self._schema.universe

    def dataset_types(self, glob: str = "*") -> list[DatasetType]:
        """Return the dataset types whose name matches, in order of name."""
        return [t.type for name, t in sorted(self._stored_types().items()) if fnmatchcase(name, glob)]

    def dataset_type(self, name: str) -> DatasetType:
        """Return one dataset type.

        Raises
        ------
        NotFound
        """
        return self._stored_type(name).type

    def collections(self, glob: str = "*") -> list[Collection]:
        """Return the collections whose name matches, in order of name."""
        return self._collections().matching(glob)

    def collection(self, name: str) -> Collection:
        """Return one collection.

        Raises
        ------
        NotFound
        """
        return self._collections()[name]

    def flatten(self, names: Sequence[str]) -> list[Collection]:
        """Open all chains depth first; each collection stays where it appears first; no CHAINED is left.

        Raises
        ------
        NotFound
        """
        return self._collections().flatten(names)

    def records(self, element: str, keep: Keep | None = None) -> pl.DataFrame:
        """Return an element's records in order of key, those only whose dimensions have a value kept.

        About 0.3 µs a value: 10⁵ visits of 15 columns in half a second.

        Returns
        -------
        records : DataFrame
            Required, then implied dimensions (named so: ``visit``, never ``id``), alternates, metadata,
            ``region`` (Binary), ``timespan_begin`` and ``timespan_end`` (TAI ns), as the element has them.

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
        names = definition.required if definition.values_of else [c.name for c in table.columns]
        query = sa.select(*(table.c[n] for n in names)).where(*keep_in_sql(table, keep))
        found = read(self._connection, query.distinct() if definition.values_of else query)
        return kept(found, keep).sort(definition.required)

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
        found = self._members(stored, collections, keep, with_ranges=False)
        return _first(found, stored.dims) if find_first else found

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
            relative to the backbone's root), ``size_bytes``, ``checksum`` (null where unknown).
        """
        given = pl.DataFrame({"dataset": dataset.cast(pl.Int64)})
        found = self._numbered(self._schema.dataset.c.id, _DATASET, given)
        stored = self._numbered(self._schema.file.c.dataset, ("dataset", *_FILE), given)
        found = found.select(
            pl.col("id").alias("dataset"),
            pl.col("uuid").alias("id"),
            pl.col("run").replace_strict(self._run_names(), return_dtype=pl.String),
        )
        return given.join(found, on="dataset", how="left", maintain_order="left").join(
            stored, on="dataset", how="left", maintain_order="left"
        )

    def find(self, id: UUID) -> DatasetRef:
        """Return the dataset with this uuid.

        Raises
        ------
        NotFound
        """
        row = self._rows(pl.DataFrame({"uuid": [id.bytes]}))
        if row.is_empty():
            raise NotFound(
                what=f"there is no dataset {id}",
                where=f"registry {self.place}",
                why="no dataset has this uuid",
                todo="check that it is the uuid of a dataset and that its run is here, not elsewhere",
            )
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

    def quanta(self, run: str) -> pl.DataFrame:
        """Return the quanta of a run, in order of task, data ID and attempt; columns as in `insert_quanta`.

        Raises
        ------
        NotFound, RegistryError
            If there is no such collection; if it is no RUN.
        """
        self._collections().of_type(run, CollectionType.RUN, "list the quanta of")
        number = self._collections().ids[run]
        found = provenance.quanta(self._connection, self._schema, number)
        return found.with_columns(run=pl.lit(run)).sort("task", "data_id", "attempt")

    # What follows serves the transaction too.

    def _stored_types(self) -> Mapping[str, StoredType]:
        if self._types is None:
            self._types = self._read_types()
        return self._types

    def _stored_type(self, name: str) -> StoredType:
        if (found := self._stored_types().get(name)) is None:
            raise NotFound(
                what=f"there is no dataset type {name!r}",
                where=f"registry {self.place}",
                why="no dataset type has this name",
                todo=did_you_mean(name, self._stored_types()),
            )
        return found

    def _type_of(self, number: int) -> StoredType:
        return next(t for t in self._stored_types().values() if t.id == number)

    def _read_types(self) -> dict[str, StoredType]:
        t, g = self._schema.dataset_type, self._schema.dimension_group
        query = sa.select(t, g.c.required).join(g, t.c.dimension_group == g.c.id)
        found = {}
        for row in self._connection.execute(query):
            group = self.universe.group(row.required.split(",") if row.required else ())
            type = DatasetType(row.name, group, row.storage_class, row.is_calibration)
            found[row.name] = StoredType(row.id, type, self._schema.group_tables(row.dimension_group, group))
        return found

    def _collections(self) -> Catalog:
        if self._catalog is None:
            self._catalog = self._read_catalog()
        return self._catalog

    def _read_catalog(self) -> Catalog:
        c, chain = self._schema.collection, self._schema.chain
        rows = self._connection.execute(sa.select(c.c.id, c.c.name, c.c.type, c.c.doc)).all()
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
        )

    def _run_names(self) -> dict[int, str]:
        catalog = self._collections()
        return {
            catalog.ids[name]: name for name, c in catalog.collections.items() if c.type is CollectionType.RUN
        }

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

    def _members(
        self, stored: StoredType, collections: Sequence[str], keep: Keep | None, with_ranges: bool
    ) -> pl.DataFrame:
        """Return data IDs, dataset, rank and perhaps begin and end of all members of some collections."""
        searched = self.flatten(collections)
        ids = self._collections().ids
        ranks = pl.DataFrame(
            {"collection": [ids[c.name] for c in searched], "rank": range(len(searched))},
            schema={"collection": pl.Int64, "rank": pl.Int32},
        )
        parts = []
        for type, column in _places(stored.tables):
            numbers = [ids[c.name] for c in searched if c.type is type]
            query = _members_query(stored, column, keep, with_ranges)
            # A long list is cheaper to apply by the join with the ranks.
            query = query if len(numbers) > _IN_SQL else query.where(column.in_(numbers))
            parts.append(read(self._connection, query))
        last = ("begin", "end") if with_ranges else ()
        return (
            kept(pl.concat(parts), keep)
            .join(ranks, on="collection")
            .select(*stored.dims, "dataset", "rank", *last)
            .sort(*stored.dims, "rank", *last, "dataset")
        )


def _places(tables: GroupTables) -> tuple[tuple[CollectionType, sa.Column[int]], ...]:
    """Return for each type of collection the column that names the collection of a member."""
    return (
        (CollectionType.RUN, tables.data_id.c.run),
        (CollectionType.TAGGED, tables.tag.c.collection),
        (CollectionType.CALIBRATION, tables.calib.c.collection),
    )


def _members_query(
    stored: StoredType, collection: sa.Column[int], keep: Keep | None, with_ranges: bool
) -> sa.Select[Any]:
    """Return the query for data ID, dataset, collection and perhaps begin and end of the members."""
    table = collection.table
    named = [table.c[name] for name in (*stored.dims, "dataset")]
    query = sa.select(*named, collection.label("collection"))
    query = query.where(table.c.dataset_type == stored.id, *keep_in_sql(table, keep))
    if with_ranges and "begin" in table.c:
        return query.add_columns(table.c.begin, table.c.end)
    if with_ranges:
        return query.add_columns(_constant(MIN_NS, "begin"), _constant(MAX_NS, "end"))
    return query.distinct() if "begin" in table.c else query


def _constant(value: int, name: str) -> sa.Label[int]:
    return sa.literal(value, sa.BigInteger()).label(name)


def _first(found: pl.DataFrame, dims: Sequence[str]) -> pl.DataFrame:
    return found.unique(dims, keep="first", maintain_order=True) if dims else found.head(1)
