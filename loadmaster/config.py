"""What a person writes for Loadmaster itself: the repository's file, aliases of repositories, sites."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self

from loadmaster_registry.documents import read_document
from loadmaster_registry.errors import NotFound, did_you_mean
from loadmaster_staging.destinations import Destination
from loadmaster_staging.manifest import SandboxMode, Staging, Transfer, Verify
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from .sizes import bytes_of

REPOSITORY_FILE = "loadmaster.yaml"
SITE_VARIABLE = "LOADMASTER_SITE"  # names the site at which a person works
_HERE = Path(__file__).parent
# Beside this file where Loadmaster was installed from a wheel, at the top of the checkout otherwise.
SITES = next((p for p in (_HERE / "site-configs", _HERE.parent / "site-configs") if p.is_dir()), _HERE)


@dataclass(frozen=True, slots=True)
class Repository:
    """Where the parts of a repository are."""

    folder: Path
    registry: str  # a path (SQLite) or a database URL
    backbone: str  # a path or an fsspec URL
    formats: tuple[Path, ...] = ()  # files that say in which formats datasets are written, none or one
    destinations: tuple[Destination, ...] = ()  # what else than the backbone gets copies

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


_Size = Annotated[int | None, BeforeValidator(lambda size: bytes_of(size) if isinstance(size, str) else size)]


class _DestinationFile(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str
    dataset_types: list[str]
    days: Annotated[int | None, Field(ge=1)] = None


class _RepositoryFile(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    registry: str
    backbone: str
    formats: str | None = None
    destinations: dict[str, _DestinationFile] = {}


class _SiteFile(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    executor: Literal["local"]
    jobs: Annotated[int, Field(ge=1)] | Literal["cores"] = "cores"
    transfer: Transfer = "direct"
    verify: Verify = "always"
    cache: str | None = None
    cache_bytes: _Size = None
    offline: bool = False
    mirrors: dict[str, list[str]] = {}
    streams: Annotated[int, Field(ge=1)] = 8
    patience_s: Annotated[float, Field(ge=0)] = 3600.0
    pause_s: Annotated[float, Field(gt=0)] = 30.0
    checksum: Literal["sha256", "sha512", "sha1", "md5", "blake2b", "blake2s", "sha3_256"] = "sha256"
    scratch: str | None = None
    scratch_bytes: _Size = None
    sandbox: SandboxMode = "enforce"
    software: list[str] = []

    @model_validator(mode="after")
    def _has_its_cache(self) -> Self:
        if self.transfer == "cache" and self.cache is None:
            raise ValueError("`transfer: cache` needs `cache:`, the folder of the site's cache")
        return self


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
    formats = () if file.formats is None else (folder / file.formats,)
    destinations = tuple(
        Destination(name, _place(one.url, folder), tuple(one.dataset_types), one.days)
        for name, one in file.destinations.items()
    )
    places = _place(file.registry, folder), _place(file.backbone, folder)
    return Repository(folder, *places, formats, destinations)


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
    scratch = None if file.scratch is None else _folder(file.scratch)
    return Site(path.stem, cores if file.jobs == "cores" else file.jobs, _staging_of(file), scratch)


def _staging_of(file: _SiteFile) -> Staging:
    return Staging(
        transfer=file.transfer,
        verify=file.verify,
        cache="" if file.cache is None else str(_folder(file.cache).absolute()),
        cache_bytes=-1 if file.cache_bytes is None else file.cache_bytes,
        is_offline=file.offline,
        mirrors=tuple((prefix, tuple(places)) for prefix, places in file.mirrors.items()),
        streams=file.streams,
        patience_s=file.patience_s,
        pause_s=file.pause_s,
        checksum=file.checksum,
        scratch_bytes=-1 if file.scratch_bytes is None else file.scratch_bytes,
        sandbox=file.sandbox,
        software=tuple(str(_folder(folder)) for folder in file.software),
    )


def _folder(text: str) -> Path:
    return Path(os.path.expandvars(text)).expanduser()


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
