"""Registries to test with: an empty one, and the real ones of the cases."""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from loadmaster_registry.exchange import import_export
from loadmaster_registry.store import Registry


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    """Return an empty registry of Rubin's universe."""
    with Registry.create(str(tmp_path / "registry.sqlite3")) as made:
        yield made


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
