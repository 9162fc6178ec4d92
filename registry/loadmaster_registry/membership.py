"""Members of one dataset type in one TAGGED or CALIBRATION collection, and how they change."""

from dataclasses import dataclass
from uuid import UUID

import polars as pl
import sqlalchemy as sa

from .comparison import check_same, check_unique, described, paired, unknown
from .errors import Conflict
from .frames import delete, insert, inserted, read, read_matching
from .snapshot import StoredType
from .timespan import Timespan
from .validity import overlapping, trimmed, widened


@dataclass(frozen=True)
class Members:
    """The datasets of one type in one collection.

    Rows of datasets are frames of the type's required dimensions, ``dataset`` and ``uuid``.
    """

    connection: sa.Connection
    datasets: sa.Table  # of all datasets
    stored: StoredType
    collection: int
    where: str  # the collection, for errors

    @property
    def what(self) -> str:
        """The datasets, for errors."""
        return f"datasets {self.stored.type.name!r}"

    def tag(self, rows: pl.DataFrame) -> int:
        """Make datasets members and return how many were not.

        Raises
        ------
        Conflict
            If another dataset with the same data ID is a member.
        """
        dims, table = self.stored.dims, self.stored.tables.tag
        check_unique(rows.drop("dataset"), dims, self.what, self.where)
        tags = self._keyed(rows)
        if inserted(self.connection, (table, tags)):
            return tags.height
        old = self._there(table, ("dataset", *dims), rows)
        check_same(rows.drop("dataset"), old.drop("dataset"), dims, self.what, self.where)
        new = unknown(tags, old, ("dataset",))
        insert(self.connection, table, new)
        return new.height

    def untag(self, rows: pl.DataFrame) -> int:
        """Make datasets members no more and return how many were."""
        return delete(self.connection, self.stored.tables.tag, self._keyed(rows.select("dataset")))

    def certify(self, rows: pl.DataFrame, timespan: Timespan) -> int:
        """Make datasets valid for a time span and return how many were not so already.

        Raises
        ------
        Conflict
            If another dataset with the same data ID is valid at some instant of it.
        """
        check_unique(rows.drop("dataset"), self.stored.dims, self.what, f"certified for {timespan}")
        there = self._overlapping(timespan, rows)
        self._check_free(rows, there, timespan)
        wide = widened(rows.drop("uuid"), there, timespan)
        new = unknown(wide, there, ("dataset", "begin", "end"))
        self._replace(there.join(new, on="dataset", how="semi"), new)
        return new.height

    def decertify(self, timespan: Timespan, data_ids: pl.DataFrame | None) -> int:
        """Let nothing (with one of `data_ids`) be valid in a time span; return how many ranges changed."""
        there = self._overlapping(timespan, data_ids)
        self._replace(there, trimmed(there, timespan).drop("id"))
        return there.height

    def _overlapping(self, timespan: Timespan, data_ids: pl.DataFrame | None) -> pl.DataFrame:
        """Return the ranges that overlap `timespan`, with ``id``, data ID, ``dataset`` and ``uuid``."""
        table = self.stored.tables.calib
        columns = ("id", *self.stored.dims, "dataset", "begin", "end")
        if data_ids is not None:
            return overlapping(self._there(table, columns, data_ids), timespan)
        query = sa.select(*(table.c[name] for name in columns)).where(
            table.c.dataset_type == self.stored.id,
            table.c.collection == self.collection,
            table.c.begin < timespan.end_ns,
            table.c.end > timespan.begin_ns,
        )
        return read(self.connection, query)

    def _check_free(self, rows: pl.DataFrame, there: pl.DataFrame, timespan: Timespan) -> None:
        dims = self.stored.dims
        pairs = paired(rows, there.select(*dims, "dataset", "uuid", "begin", "end"), dims)
        others = pairs.filter(pl.col("dataset") != pl.col("dataset there")).sort(*dims, "begin")
        if others.is_empty():
            return
        shown = [
            f"{described({d: row[d] for d in dims})}: {UUID(bytes=row['uuid there'])} is valid "
            f"{Timespan(row['begin'], row['end'])}, {UUID(bytes=row['uuid'])} was given for {timespan}"
            for row in others.head(3).iter_rows(named=True)
        ]
        raise Conflict(
            what=f"{others.height} validity ranges of {self.stored.type.name!r} overlap",
            where=self.where,
            why="; ".join(shown),
            todo="decertify that time first, or certify for a time that is free",
        )

    def _replace(self, old: pl.DataFrame, new: pl.DataFrame) -> None:
        delete(self.connection, self.stored.tables.calib, old.select("id"))
        insert(self.connection, self.stored.tables.calib, self._keyed(new))

    def _there(self, table: sa.Table, columns: tuple[str, ...], data_ids: pl.DataFrame) -> pl.DataFrame:
        """Return the members with one of some data IDs, with ``uuid``."""
        keys = self._keyed(data_ids.select(self.stored.dims))
        found = read_matching(self.connection, table, columns, keys)
        ids = read_matching(self.connection, self.datasets, ("id", "uuid"), found.select(id="dataset"))
        return found.join(ids.rename({"id": "dataset"}), on="dataset")

    def _keyed(self, rows: pl.DataFrame) -> pl.DataFrame:
        type, collection = pl.lit(self.stored.id), pl.lit(self.collection)
        return rows.with_columns(dataset_type=type, collection=collection)
