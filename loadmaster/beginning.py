"""How a repository begins: a registry, a folder for files, and last the file that makes it one."""

from pathlib import Path

from loadmaster_registry.errors import RegistryError
from loadmaster_registry.store import Registry
from loadmaster_registry.universe import Universe

from .config import REPOSITORY_FILE, write_repository


def begin_repository(folder: Path, universe: Universe) -> None:
    """Make a repository in a folder; what an interrupted call left is taken up.

    Raises
    ------
    RegistryError
        If the folder holds a repository already.
    """
    if (folder / REPOSITORY_FILE).exists():
        raise RegistryError(
            what=f"{str(folder)!r} is a repository already",
            where=str(folder.resolve()),
            why=f"there is a {REPOSITORY_FILE}",
            todo="use it as it is, or choose another folder",
        )
    (folder / "files").mkdir(parents=True, exist_ok=True)
    _begin_registry(folder.resolve() / "registry.sqlite3", universe)
    write_repository(folder, "registry.sqlite3", "files")  # last: it makes the folder a repository


def _begin_registry(path: Path, universe: Universe) -> None:
    """Create the registry, or take the one that an interrupted call left."""
    try:
        Registry.create(str(path), universe).close()
    except RegistryError:
        with Registry.open(str(path)) as left:
            if left.universe != universe or left.collections() or left.dataset_types():
                raise
