"""The registry: what exists, in one database; each read sees one snapshot, writes go through transactions."""

import getpass
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Self
from uuid import UUID

import polars as pl
import sqlalchemy as sa

from . import observation
from .database import create_database, normal_url, open_database, reading, shown, words, writing
from .errors import RegistryError
from .frames import Keep as Keep  # callers of the reads name it
from .records import Collection, DatasetRef, DatasetType
from .schema import Schema
from .snapshot import Snapshot
from .transaction import Transaction
from .universe import Universe, load_universe


class Registry:
    """Everything that a survey's processing knows to exist.

    Each read sees what was true at one moment, and waits for no writer. Several reads that must agree with
    each other go through `snapshot`. Writes go through `transaction`: all together or not at all.
    """

    def __init__(self, url: str, engine: sa.Engine, universe: Universe) -> None:
        self.url = url
        self._engine = engine
        self._place = shown(url)
        self._schema = Schema(universe)
        self._writer = threading.local()  # says whether this thread is inside a transaction

    @classmethod
    def create(cls, url: str, universe: Universe | None = None) -> Self:
        """Create an empty registry: `url` is a path (SQLite) or a database URL.

        Raises
        ------
        RegistryError
            If the database holds something already.
        """
        url = normal_url(url)
        universe = universe or load_universe()
        return cls(url, create_database(url, universe), universe)

    @classmethod
    def open(cls, url: str) -> Self:
        """Open a registry that exists: `url` is a path (SQLite) or a database URL.

        Raises
        ------
        NotFound
            If there is none.
        RegistryError
            If it is something else, or was written by a newer Loadmaster.
        """
        url = normal_url(url)
        opened = cls(url, *open_database(url))
        with opened.snapshot():
            pass  # now its universe has the columns that were set as metadata
        return opened

    @property
    def universe(self) -> Universe:
        """The dimensions, with the columns of their records, as last seen."""
        return self._schema.universe

    def close(self) -> None:
        """Let go of all connections."""
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextmanager
    def snapshot(self) -> Iterator[Snapshot]:
        """Open one consistent view for several reads."""
        with words(self.url), reading(self._engine) as connection:
            yield Snapshot(connection, self._seen(connection), self._place)

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """Write: when the block ends all of it is there; when it raises, nothing is.

        One transaction at a time: others wait up to 30 s for this one. Keep it short.

        Raises
        ------
        RegistryError
            If this thread is in a transaction already, or the database refuses.
        """
        if getattr(self._writer, "busy", False):
            raise RegistryError(
                what="a transaction inside a transaction",
                where=f"registry {self._place}",
                why="the inner one would wait for the outer one for ever",
                todo="pass the outer transaction on",
            )
        self._writer.busy = True
        try:
            with words(self.url), writing(self._engine) as connection:
                seen = self._seen(connection)
                transaction = Transaction(connection, seen, self._place, who=user_name(), now=utc_now())
                yield transaction
            self._schema = transaction.schema
        finally:
            self._writer.busy = False

    def _seen(self, connection: sa.Connection) -> Schema:
        """Return the schema with all columns that are registered; somebody may have set new ones."""
        known = sum(map(len, self._schema.versioned.values()))
        if observation.n_columns(connection) != known:
            self._schema = observation.with_columns(connection, self._schema)
        return self._schema

    def dataset_types(self, glob: str = "*") -> list[DatasetType]:
        """See `Snapshot.dataset_types`."""
        with self.snapshot() as now:
            return now.dataset_types(glob)

    def dataset_type(self, name: str) -> DatasetType:
        """See `Snapshot.dataset_type`."""
        with self.snapshot() as now:
            return now.dataset_type(name)

    def collections(self, glob: str = "*") -> list[Collection]:
        """See `Snapshot.collections`."""
        with self.snapshot() as now:
            return now.collections(glob)

    def collection(self, name: str) -> Collection:
        """See `Snapshot.collection`."""
        with self.snapshot() as now:
            return now.collection(name)

    def flatten(self, names: Sequence[str]) -> list[Collection]:
        """See `Snapshot.flatten`."""
        with self.snapshot() as now:
            return now.flatten(names)

    def records(
        self, element: str, keep: Keep | None = None, columns: Sequence[str] | None = None
    ) -> pl.DataFrame:
        """See `Snapshot.records`."""
        with self.snapshot() as now:
            return now.records(element, keep, columns)

    def datasets(
        self,
        dataset_type: str,
        collections: Sequence[str],
        *,
        keep: Keep | None = None,
        find_first: bool = True,
    ) -> pl.DataFrame:
        """See `Snapshot.datasets`."""
        with self.snapshot() as now:
            return now.datasets(dataset_type, collections, keep=keep, find_first=find_first)

    def calibrations(
        self, dataset_type: str, collections: Sequence[str], *, keep: Keep | None = None
    ) -> pl.DataFrame:
        """See `Snapshot.calibrations`."""
        with self.snapshot() as now:
            return now.calibrations(dataset_type, collections, keep=keep)

    def files(self, dataset: pl.Series) -> pl.DataFrame:
        """See `Snapshot.files`."""
        with self.snapshot() as now:
            return now.files(dataset)

    def find(self, id: UUID) -> DatasetRef:
        """See `Snapshot.find`."""
        with self.snapshot() as now:
            return now.find(id)

    def lineage(self, id: UUID, *, upstream: bool = True) -> pl.DataFrame:
        """See `Snapshot.lineage`."""
        with self.snapshot() as now:
            return now.lineage(id, upstream=upstream)

    def quanta(self, run: str) -> pl.DataFrame:
        """See `Snapshot.quanta`."""
        with self.snapshot() as now:
            return now.quanta(run)


def user_name() -> str:
    """Return who is at work: the login name, or the number of a user who has none."""
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # a container may know no names
        return f"uid{os.getuid()}"


def utc_now(after_s: float = 0.0) -> str:
    """Return the time so many seconds from now as the registry writes it: ISO, UTC, which sorts as text."""
    return f"{datetime.now(UTC) + timedelta(seconds=after_s):%Y-%m-%dT%H:%M:%SZ}"
