"""Registries to test with: an empty one, and the real ones of the cases."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from uuid import uuid4

import pytest
import sqlalchemy as sa
from loadmaster_registry.exchange import import_export
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


@pytest.fixture(scope="session")
def originals(cases: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return where the registry file of a case is, imported once."""
    folder = tmp_path_factory.mktemp("originals")
    files = json.loads((cases / "registry" / "registries.json").read_text())

    def original(name: str) -> Path:
        path = folder / f"{name}.sqlite3"
        if not path.exists():
            with Registry.create(str(path)) as made:
                for file in files[name]:
                    import_export(made, cases / "registry" / file)
        return path

    return original


@pytest.fixture
def imported(originals: Callable[[str], Path], tmp_path: Path) -> Iterator[Callable[[str], Registry]]:
    """Return a function that gives a copy of a case's registry, to do with as one likes."""
    with ExitStack() as opened:

        def copy(name: str) -> Registry:
            path = shutil.copy(originals(name), tmp_path / f"{name}.sqlite3")
            return opened.enter_context(Registry.open(str(path)))

        yield copy
