"""What a person writes for Loadmaster itself: the repository's file, aliases of repositories, sites."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from loadmaster_registry.documents import read_document
from loadmaster_registry.errors import NotFound, did_you_mean
from loadmaster_staging.manifest import Staging, Transfer
from pydantic import BaseModel, ConfigDict, Field

REPOSITORY_FILE = "loadmaster.yaml"
_HERE = Path(__file__).parent
# Beside this file where Loadmaster was installed from a wheel, at the top of the checkout otherwise.
SITES = next((p for p in (_HERE / "site-configs", _HERE.parent / "site-configs") if p.is_dir()), _HERE)


@dataclass(frozen=True, slots=True)
class Repository:
    """Where the parts of a repository are."""

    folder: Path
    registry: str  # a path (SQLite) or a database URL
    backbone: str  # a path or an fsspec URL

    @property
    def runs(self) -> Path:
        """The folder with one folder a run."""
        return self.folder / "runs"

    @property
    def plans(self) -> Path:
        """The folder of plans that nobody asked to be written elsewhere."""
        return self.folder / "plans"


@dataclass(frozen=True, slots=True)
class Site:
    """Where and how jobs run."""

    name: str
    jobs: int
    staging: Staging
    scratch: Path | None


class _RepositoryFile(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    registry: str
    backbone: str


class _SiteFile(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    executor: Literal["local"]
    jobs: Annotated[int, Field(ge=1)] | Literal["cores"] = "cores"
    transfer: Transfer = "direct"
    scratch: str | None = None


class _AliasFile(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    repositories: dict[str, str]


def write_repository(folder: Path, registry: str, backbone: str) -> None:
    """Write the repository's file; what is relative in it is relative to the file."""
    text = (
        "# A Loadmaster repository. What is relative here is relative to this file.\n"
        f"registry: {registry}  # what exists: dimension records, datasets, collections, provenance\n"
        f"backbone: {backbone}  # where the files are\n"
    )
    (folder / REPOSITORY_FILE).write_text(text)


def read_repository(name: str | Path) -> Repository:
    """Find a repository by folder or alias, and read its file.

    Raises
    ------
    NotFound
        If neither a repository's folder nor an alias has that name.
    ConfigError
        If the file is not what it should be.
    """
    folder = _folder_of(name)
    file = read_document(folder / REPOSITORY_FILE).validated(_RepositoryFile, "repository file")
    return Repository(folder, _place(file.registry, folder), _place(file.backbone, folder))


def read_site(name: str) -> Site:
    """Read a site: one that Loadmaster ships, by name, or a file of one's own, by path."""
    path = Path(name) if name.endswith((".yaml", ".yml")) else SITES / f"{name}.yaml"
    if not path.is_file():
        raise NotFound(
            what=f"there is no site {name!r}",
            where=str(path),
            why="a site is the name of a shipped one or the path of a YAML file",
            todo=did_you_mean(name, (p.stem for p in SITES.glob("*.yaml"))),
        )
    file = read_document(path).validated(_SiteFile, "site file")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    scratch = None if file.scratch is None else Path(os.path.expandvars(file.scratch)).expanduser()
    return Site(path.stem, cores if file.jobs == "cores" else file.jobs, Staging(file.transfer), scratch)


def _folder_of(name: str | Path) -> Path:
    folder = Path(name).expanduser()
    if (folder / REPOSITORY_FILE).is_file():
        return folder.resolve()
    aliases = _aliases()
    if str(name) in aliases:
        return Path(aliases[str(name)]).expanduser().resolve()
    known = f"; of the aliases, {did_you_mean(str(name), aliases)}" if aliases else ""
    raise NotFound(
        what=f"{str(name)!r} is no repository",
        where=str(folder.resolve()),
        why=f"there is no {REPOSITORY_FILE}, and no such alias in {_alias_file()}",
        todo=f"name another one with --repo, or make this one: loadmaster init {name}{known}",
    )


def _alias_file() -> Path:
    home = Path(os.environ.get("XDG_CONFIG_HOME", "~/.config")).expanduser()
    return Path(os.environ.get("LOADMASTER_REPOSITORIES", home / "loadmaster" / "repositories.yaml"))


def _aliases() -> dict[str, str]:
    path = _alias_file()
    if not path.is_file():
        return {}
    return read_document(path).validated(_AliasFile, "file of repository aliases").repositories


def _place(text: str, folder: Path) -> str:
    return text if "://" in text else str(folder / text)
