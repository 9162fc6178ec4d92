"""An empty registry to test with."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from uuid import uuid4

import pytest
import sqlalchemy as sa
from loadmaster_registry.store import Registry


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    """Return an empty registry: a file, or a database on the server that the environment names.

    Run the suite with ``LOADMASTER_TEST_SERVER=postgresql+psycopg://user:password@host/database`` too.
    """
    server = os.environ.get("LOADMASTER_TEST_SERVER")
    with ExitStack() as cleanup:
        url = cleanup.enter_context(database(server)) if server else str(tmp_path / "registry.sqlite3")
        yield cleanup.enter_context(Registry.create(url))


@contextmanager
def database(server: str) -> Iterator[str]:
    """Create a database on a server, for as long as it is needed."""
    name = f"loadmaster_{uuid4().hex}"
    engine = sa.create_engine(server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
        yield sa.make_url(server).set(database=name).render_as_string(hide_password=False)
        connection.exec_driver_sql(f"DROP DATABASE {name}")
    engine.dispose()
