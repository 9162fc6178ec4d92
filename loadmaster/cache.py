"""A site's cache in the hands of a person: filled before a journey, looked at, cleared, read from."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import polars as pl
from loadmaster_executors.prepare import replicas_of
from loadmaster_planner.plan import Plan
from loadmaster_registry import queries
from loadmaster_registry.errors import ConfigError, Error, StageError
from loadmaster_registry.records import DatasetRef
from loadmaster_registry.store import Registry
from loadmaster_staging.backbone import Backbone
from loadmaster_staging.cache import Cache, Entry
from loadmaster_staging.inputs import open_cache
from loadmaster_staging.manifest import InputFile
from loadmaster_staging.shards import piece_of

from .config import SITE_VARIABLE, Site, read_site
from .tables import Table, format_bytes


@dataclass(frozen=True, slots=True)
class Pulled:
    """What became of files that were to be in the cache."""

    n_files: int  # distinct ones
    n_new: int  # that were fetched; the others were there, or are on this machine anyway
    bytes_new: int
    failures: tuple[Error, ...]

    def facts(self) -> dict[str, int]:
        """Return the numbers as plain values."""
        n_failed = len(self.failures)
        n_there = self.n_files - self.n_new - n_failed
        return {
            "n_files": self.n_files,
            "n_new": self.n_new,
            "bytes_new": self.bytes_new,
            "n_there": n_there,
            "n_failed": n_failed,
        }

    def table(self) -> Table:
        """Return them as people see them."""
        facts = self.facts()
        row = (self.n_files, self.n_new, format_bytes(self.bytes_new), facts["n_there"], facts["n_failed"])
        headings = ("files", "fetched", "bytes", "there already", "failed")
        return Table(headings, (tuple(map(str, row)),), numeric=frozenset(headings))


class SiteCache:
    """The cache of a site.

    Raises
    ------
    ConfigError
        If the site has none.
    """

    def __init__(self, site: Site) -> None:
        staging = site.staging
        if not staging.cache:
            raise ConfigError(
                what=f"the site {site.name!r} has no cache",
                where=f"site {site.name}",
                why="its file does not say `cache:`",
                todo="name another site with --site, or write `cache: FOLDER` and `transfer: cache` into its file",
            )
        self._site = site
        self._cache: Cache = open_cache(staging, Path(staging.endpoints or f"{staging.cache}/endpoints"))

    def pull(self, files: Sequence[InputFile], progress: Callable[[int, int], None] | None = None) -> Pulled:
        """Fetch what is not there yet, several files at once; what fails is told at the end.

        Parameters
        ----------
        progress : callable, optional
            Is told how many of how many are done.
        """
        wanted = {(file.url, file.checksum): self._placed(file) for file in files}
        n_new = bytes_new = 0
        failures = []
        with ThreadPoolExecutor(self._site.staging.streams) as pool:
            done = [pool.submit(self._pulled, file) for file in wanted.values()]
            for n, future in enumerate(as_completed(done), start=1):
                try:
                    size_bytes = future.result()
                except Error as error:
                    failures.append(error)
                else:
                    n_new += size_bytes >= 0
                    bytes_new += max(size_bytes, 0)
                if progress is not None:
                    progress(n, len(done))
        return Pulled(len(wanted), n_new, bytes_new, tuple(failures))

    def path(self, file: InputFile) -> Path | None:
        """Return where the bytes of a file are in the cache, fetched if need be; None if it does not go there."""
        placed = self._placed(file)
        if not self._goes_through(placed):
            return None
        path, descriptor = self._cache.hold(placed)
        os.close(descriptor)
        return path

    def table(self) -> Table:
        """Return what is in the cache, used last first."""
        entries = sorted(self._cache.entries(), key=lambda entry: -entry.used)
        rows = [(*_cells(entry), self._cache.source(entry)) for entry in entries]
        facts = self.facts()
        limit = f" of {format_bytes(self._cache.budget_bytes)}" if self._cache.budget_bytes >= 0 else ""
        return Table(
            headings=("size", "used", "held", "from"),
            rows=tuple(rows),
            title=f"cache {self._cache.folder}",
            numeric=frozenset(["size"]),
            notes=(
                f"{facts['n_entries']} objects, {format_bytes(sum(e.size_bytes for e in entries))}{limit}",
            ),
        )

    def facts(self) -> dict[str, object]:
        """Return the same as plain values."""
        entries = list(self._cache.entries())
        return {
            "cache": str(self._cache.folder),
            "budget_bytes": self._cache.budget_bytes,
            "n_entries": len(entries),
            "size_bytes": sum(entry.size_bytes for entry in entries),
            "held_bytes": sum(entry.size_bytes for entry in entries if entry.is_held),
        }

    def verify(self) -> list[Entry]:
        """Read all through, remove what is corrupt, and return it; it is fetched again when it is wanted."""
        return self._cache.verify()

    def clear(self, *, unused_days: float = 0.0) -> int:
        """Remove what no job holds and nobody has used for so long; return the bytes that are free now."""
        unused_since = time.time() - unused_days * 86400 if unused_days else float("inf")
        return self._cache.clear(unused_since=unused_since)

    def _pulled(self, file: InputFile) -> int:
        """Return the size of a file that was fetched, -1 if it was not necessary."""
        if not self._goes_through(file) or self._cache.has(file):
            return -1
        path, descriptor = self._cache.hold(file)
        os.close(descriptor)
        return path.stat().st_size

    def _goes_through(self, file: InputFile) -> bool:
        return piece_of(file.url) is None and self._cache.is_for(file.url)

    def _placed(self, file: InputFile) -> InputFile:
        """Return a file with the mirrors of the site."""
        first, *others = replicas_of(file.url, self._site.staging.mirrors)
        return InputFile(
            file.connection,
            file.dataset_id,
            file.dataset_type,
            file.data_id,
            first,
            file.size_bytes,
            file.checksum,
            tuple(others),
        )


def site_cache() -> SiteCache | None:
    """Return the cache of the site at which a person works (`LOADMASTER_SITE`), if there is one."""
    name = os.environ.get(SITE_VARIABLE)
    site = read_site(name) if name else None
    return SiteCache(site) if site is not None and site.staging.cache else None


def files_of_plan(plan: Plan, backbone: Backbone) -> list[InputFile]:
    """Return all files that exist and that the plan's jobs read."""
    read = {c.dataset_type for task in plan.header.tasks for c in task.connections if not c.is_output}
    files: list[InputFile] = []
    for name in sorted(read):
        found = plan.datasets(name)
        if "url" in found.columns:
            files += _files(name, found.filter("exists"), backbone)
    return files


def files_of_query(
    registry: Registry,
    backbone: Backbone,
    dataset_types: Sequence[str],
    collections: Sequence[str],
    where: str,
    bind: dict[str, object],
) -> list[InputFile]:
    """Return the files of all datasets of some types that a query finds."""
    files: list[InputFile] = []
    for name in dataset_types:
        found = queries.query_datasets(registry, name, collections, where=where, bind=bind)
        files += _files(name, found, backbone)
    return files


def file_of(found: DatasetRef, url: str) -> InputFile:
    """Return a dataset as what is brought to a site."""
    return InputFile("", str(found.id), found.type, {}, url, found.size_bytes, found.checksum)


def refuse_failures(pulled: Pulled) -> None:
    """Raise what went wrong, if anything did.

    Raises
    ------
    ExceptionGroup
        Of one StageError that counts them, and the first of them.
    """
    if not pulled.failures:
        return
    n = len(pulled.failures)
    summary = StageError(
        what=f"{n} of {pulled.n_files} files are not in the cache",
        where="the site's cache",
        why="they could not be had; the first of them below" if n > 1 else "it could not be had",
        todo="see to it, then give the same command again: what is there is not fetched again",
    )
    raise ExceptionGroup("not all is in the cache", [summary, *pulled.failures[:5]])


def _files(name: str, found: pl.DataFrame, backbone: Backbone) -> Iterator[InputFile]:
    facts = {"exists", "id", "run", "url", "size_bytes", "checksum"}
    dimensions = [column for column in found.columns if column not in facts]
    for row in found.iter_rows(named=True):
        if row["url"] is not None:
            yield InputFile(
                connection="",
                dataset_id=str(UUID(bytes=row["id"])) if "id" in row else row["url"],
                dataset_type=name,
                data_id={dimension: row[dimension] for dimension in dimensions},
                url=backbone.url(row["url"]),
                size_bytes=-1 if row["size_bytes"] is None else row["size_bytes"],
                checksum=row["checksum"] or "",
            )


def _cells(entry: Entry) -> tuple[str, str, str]:
    used = time.strftime("%Y-%m-%d %H:%M", time.gmtime(entry.used))
    return format_bytes(entry.size_bytes), used, "yes" if entry.is_held else ""
