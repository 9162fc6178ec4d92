"""The database behind a registry: engine, snapshots, the one writer.

All that differs between SQLite and PostgreSQL is here.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from .errors import ConfigError, NotFound, RegistryError
from .schema import SCHEMA_VERSION, Schema
from .universe import Universe, build_universe

_BUSY_TIMEOUT_S = 30
_WRITER_LOCK = 0x10AD  # PostgreSQL's advisory lock of whoever writes


def shown(url: str) -> str:
    """Return a URL as errors may show it, without a password."""
    try:
        return sa.make_url(url).render_as_string(hide_password=True)
    except sa.exc.ArgumentError:
        return url


def normal_url(url: str) -> str:
    """Return a database URL; a plain path means an SQLite file."""
    if "://" in url:
        return url
    return sa.URL.create("sqlite", database=str(Path(url).absolute())).render_as_string(hide_password=False)


def create_database(url: str, universe: Universe) -> sa.Engine:
    """Create all tables of a new registry in one transaction.

    Raises
    ------
    RegistryError
        If the database holds tables already.
    """
    engine = _engine(url)
    with words(url), writing(engine) as connection:
        if sa.inspect(connection).get_table_names():
            raise RegistryError(
                what="the database is not empty",
                where=shown(url),
                why="a registry is created in an empty database only",
                todo="open it, or give another place",
            )
        schema = Schema(universe)
        schema.create(connection)
        documents = json.dumps(universe.source)
        rows = {"schema_version": str(SCHEMA_VERSION), "universe": documents}
        connection.execute(sa.insert(schema.meta), [{"key": k, "value": v} for k, v in rows.items()])
    return engine


def open_database(url: str) -> tuple[sa.Engine, Universe]:
    """Connect to a registry and return the universe that it was created with.

    Raises
    ------
    NotFound
        If there is no such file.
    RegistryError
        If the database is no Loadmaster registry, or was written by another version of Loadmaster.
    """
    path = _file_of(url)
    if path is not None and not path.is_file():
        raise NotFound(
            what="there is no registry",
            where=shown(url),
            why=f"the file {path} does not exist",
            todo="run `loadmaster init` to create one, or correct the place",
        )
    engine = _engine(url)
    with words(url), reading(engine) as connection:
        meta = _meta(connection, url)
    _check_version(int(meta["schema_version"]), url)
    return engine, build_universe([(f"registry {shown(url)}", d) for d in json.loads(meta["universe"])])


@contextmanager
def reading(engine: sa.Engine) -> Iterator[sa.Connection]:
    """Open one snapshot: whatever is read through the connection was true at one moment."""
    with engine.connect() as connection, connection.begin():
        yield connection


@contextmanager
def writing(engine: sa.Engine) -> Iterator[sa.Connection]:
    """Open the one transaction that writes; others that want to write wait for its end.

    What has been compared with the tables before it was written can so not have changed in between.
    """
    with engine.connect() as connection:
        if engine.dialect.name == "postgresql":
            # What is read after the lock must be younger than the lock: one snapshot a statement, not one for all.
            connection = connection.execution_options(isolation_level="READ COMMITTED")
        else:
            connection = connection.execution_options(loadmaster_writes=True)
        with connection.begin():
            if engine.dialect.name == "postgresql":
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_WRITER_LOCK)))
            yield connection


@contextmanager
def words(url: str) -> Iterator[None]:
    """Say in words what the driver has to say: locked, full, unreachable, damaged."""
    try:
        yield
    except sa.exc.DBAPIError as error:
        said = str(error.orig).strip()
        raise RegistryError(
            what="the database refused", where=shown(url), why=said, todo=_advice(said)
        ) from error


def _advice(said: str) -> str:
    if "locked" in said:
        return f"another process writes for over {_BUSY_TIMEOUT_S} s: wait for it, or look why it hangs"
    if "readonly" in said or "unable to open" in said:
        return "check that the folder exists, and the permissions of both"
    if "full" in said:
        return "make room on the disk, then run the same command again"
    if "not a database" in said or "malformed" in said:
        return "give the path of a registry, or restore it from a back-up"
    return "nothing was written; correct the cause and run the same command again"


def _engine(url: str) -> sa.Engine:
    try:
        parsed = sa.make_url(url)
        dialect = parsed.get_backend_name()
        engine = _sqlite_engine(parsed) if dialect == "sqlite" else _server_engine(parsed)
    except (sa.exc.ArgumentError, ImportError) as error:
        raise ConfigError(
            what="no database can be reached by this URL",
            where=shown(url),
            why=str(error),
            todo="give a path, sqlite:///PATH or postgresql+psycopg://USER@HOST/DATABASE",
        ) from error
    return engine


def _server_engine(url: sa.URL) -> sa.Engine:
    return sa.create_engine(url, isolation_level="REPEATABLE READ", pool_pre_ping=True)


def _sqlite_engine(url: sa.URL) -> sa.Engine:
    if not url.database or url.database == ":memory:":
        raise sa.exc.ArgumentError("a registry in memory would be another one for each connection")
    engine = sa.create_engine(url, connect_args={"timeout": _BUSY_TIMEOUT_S})

    @sa.event.listens_for(engine, "connect")
    def _connected(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # the driver begins and ends nothing by itself
        for pragma in (
            "journal_mode=WAL",
            "synchronous=NORMAL",
            "foreign_keys=ON",
            "temp_store=MEMORY",
            "cache_size=-65536",
            "wal_autocheckpoint=8000",
        ):
            connection.execute(f"PRAGMA {pragma}")

    @sa.event.listens_for(engine, "begin")
    def _begun(connection: sa.Connection) -> None:
        # Taking the lock at the start makes writers queue; taken late, two of them would dead-lock.
        writes = connection.get_execution_options().get("loadmaster_writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _file_of(url: str) -> Path | None:
    try:
        parsed = sa.make_url(url)
    except sa.exc.ArgumentError:
        return None  # `_engine` says it better
    return Path(parsed.database) if parsed.get_backend_name() == "sqlite" and parsed.database else None


def _meta(connection: sa.Connection, url: str) -> dict[str, str]:
    tables = set(sa.inspect(connection).get_table_names())
    if {"meta", "dataset_type", "chain"} <= tables:
        return {row.key: row.value for row in connection.execute(sa.text("SELECT key, value FROM meta"))}
    rubin = "butler_attributes" in tables
    raise RegistryError(
        what="this is not a Loadmaster registry",
        where=shown(url),
        why="it is a Rubin Butler registry" if rubin else "its tables are missing",
        todo=(
            "export what you need with Rubin's tools and import that file: `loadmaster import`"
            if rubin
            else "run `loadmaster init` to create one, or correct the place"
        ),
    )


def _check_version(version: int, url: str) -> None:
    if version > SCHEMA_VERSION:
        raise RegistryError(
            what=f"the registry has schema version {version}",
            where=shown(url),
            why=f"a newer Loadmaster wrote it; this one knows versions up to {SCHEMA_VERSION}",
            todo="upgrade Loadmaster",
        )
    if version < SCHEMA_VERSION:
        raise RegistryError(
            what=f"the registry has schema version {version}",
            where=shown(url),
            why=f"an unreleased Loadmaster wrote it; this one reads version {SCHEMA_VERSION} only",
            todo="make a new repository with `loadmaster init`, and import or ingest into it again",
        )
