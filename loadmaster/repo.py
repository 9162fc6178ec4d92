"""The repository as people hold it: what exists, what is asked of it, what is planned and run in it."""

import secrets
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self
from uuid import UUID, uuid4

import loadmaster_planner.plan as planner
import polars as pl
from loadmaster_pipelines import storage
from loadmaster_pipelines.loader import load_pipeline
from loadmaster_pipelines.pipeline import Pipeline
from loadmaster_planner.request import Request
from loadmaster_registry import queries
from loadmaster_registry.errors import NotFound, RegistryError
from loadmaster_registry.exchange import ImportCounts, import_export
from loadmaster_registry.names import dataset_path
from loadmaster_registry.records import Collection, CollectionType, DatasetType
from loadmaster_registry.skymap import SkyMap
from loadmaster_registry.store import Registry
from loadmaster_registry.timespan import Timespan
from loadmaster_registry.universe import load_universe
from loadmaster_staging.backbone import Backbone

from .config import REPOSITORY_FILE, read_repository, write_repository
from .plan import Plan
from .run import Run, runs_of

Collections = str | Sequence[str]


class Repo:
    """A repository, opened by its folder or its alias; a context manager that closes it.

    Parameters
    ----------
    name : str or Path
        The folder with ``loadmaster.yaml``, or an alias.
    """

    def __init__(self, name: str | Path = ".") -> None:
        self.place = read_repository(name)
        self.registry = Registry.open(self.place.registry_url)
        self.backbone = Backbone(self.place.backbone_url)

    @classmethod
    def init(cls, folder: str | Path, *, universe_extensions: Sequence[str | Path] = ()) -> Self:
        """Make a new repository in `folder`, which is created where it does not exist, and open it.

        Parameters
        ----------
        universe_extensions : sequence of paths
            YAML files with dimension elements beside Rubin's.

        Raises
        ------
        RegistryError
            If `folder` holds a repository already.
        """
        folder = Path(folder).expanduser()
        universe = load_universe(*universe_extensions)
        if (folder / REPOSITORY_FILE).exists() or (folder / "registry.sqlite3").exists():
            raise RegistryError(
                what=f"{str(folder)!r} holds a repository already",
                where=str(folder.resolve()),
                why=f"{REPOSITORY_FILE} or registry.sqlite3 stands there",
                todo="use it as it is, or choose another folder",
            )
        (folder / "files").mkdir(parents=True, exist_ok=True)
        Registry.create(f"sqlite:///{folder.resolve() / 'registry.sqlite3'}", universe).close()
        write_repository(folder, "sqlite:///registry.sqlite3", "files")  # last: it makes the folder a repository
        return cls(folder)

    def close(self) -> None:
        """Let go of the registry."""
        self.registry.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Repo({str(self.place.folder)!r})"
