"""Inputs into a job's own folder: linked, copied or through the site's cache, and verified.

Light: the job runner imports this.
"""

import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path

from loadmaster_registry.errors import StageError

from .batch import Batch, Wanted
from .cache import Cache, DoesNotFit
from .checksum import Measured, algorithm_of, measure
from .endpoints import Endpoints
from .links import Links
from .location import local_path
from .manifest import InputFile, Staging, local_names
from .mover import Mover, Part
from .shards import piece_of


def stage_in(
    files: Iterable[InputFile], folder: Path, staging: Staging, need_bytes: int = -1
) -> dict[str, Path]:
    """Bring each input into the new `folder`, verified, read only, and return the path of each dataset.

    A dataset that several quanta read comes once. Whatever is moved is verified on the way; what is linked is read
    through, if the site asks for it, or keeps at least to its size.

    Parameters
    ----------
    need_bytes : int
        What the job's folder will hold at most, if that is known.

    Raises
    ------
    StageError
        If an input is not there or not what was promised, or the job needs more than the site's scratch.
    """
    if 0 <= staging.scratch_bytes < need_bytes:
        raise _too_large(folder, need_bytes, staging.scratch_bytes)
    wanted = {file.dataset_id: file for file in files}
    names = local_names([_name_of(file) for file in wanted.values()])
    folder.mkdir(parents=True)
    paths = {file.dataset_id: folder / name for file, name in zip(wanted.values(), names, strict=True)}
    place = _Place(folder, staging)
    left = place.bring_together(wanted.values(), paths)
    _in_parallel(
        [lambda f=f: place.bring(f, paths[f.dataset_id]) for f in left],  # type: ignore[misc]
        staging.streams if place.is_slow(left) else 1,
    )
    folder.chmod(0o555)
    return paths


def open_cache(staging: Staging, endpoints: Path) -> Cache:
    """Return the cache of a site that has one."""
    mover = Mover(Endpoints(endpoints, staging.streams, staging.pause_s), staging.patience_s)
    return Cache(Path(staging.cache), staging.cache_bytes, mover, is_offline=staging.is_offline)


class _Place:
    """A job's folder for inputs, and the site's ways to fill it."""

    def __init__(self, folder: Path, staging: Staging) -> None:
        endpoints = Path(staging.endpoints) if staging.endpoints else folder.with_name("endpoints")
        self._staging = staging
        self._links = Links(folder, endpoints)
        known = Endpoints(endpoints, staging.streams, staging.pause_s)
        self._mover = Mover(known, staging.patience_s)
        self._batch = Batch(known)
        self._cache = open_cache(staging, endpoints) if staging.transfer == "cache" else None

    def is_slow(self, files: Iterable[InputFile]) -> bool:
        """Whether there is more to do than to link small files, so that threads help."""
        return any(f.size_bytes > _LARGE_BYTES or self._is_moved(f) for f in files)

    def bring_together(self, files: Collection[InputFile], paths: Mapping[str, Path]) -> list[InputFile]:
        """Bring small files many at once; return those that are to be brought one by one."""
        if self._cache is not None:
            return list(files)
        wanted = {
            file.dataset_id: Wanted(
                file.url, Measured(file.size_bytes, file.checksum), paths[file.dataset_id]
            )
            for file in files
            if self._is_moved(file) and not self._is_out_of_reach(file)
        }
        came = self._batch.brought([file for file in wanted.values() if file.is_small])
        return [file for file in files if paths[file.dataset_id] not in came]

    def bring(self, file: InputFile, target: Path) -> None:
        """Make `target` of a file."""
        try:
            self._brought(file, target)
        except StageError as error:
            _, where, why, todo = error.args
            raise _not_staged(file, where, why, todo) from error
        except OSError as error:
            raise _not_staged(file, file.url, str(error)) from error

    def _brought(self, file: InputFile, target: Path) -> None:
        if piece_of(file.url) is not None:
            self._copy((file.url, *file.replicas), file, target)
            return
        if self._is_out_of_reach(file):
            raise _offline(file)
        if self._is_moved(file):
            if self._cache is None or not self._is_cached(file, target, self._cache):
                self._copy((file.url, *file.replicas), file, target)
            return
        source = local_path(file.url)
        assert source is not None
        try:
            if not self._is_linked(source, file, target):
                self._copy((file.url, *file.replicas), file, target)
        except (OSError, StageError) as error:
            if not file.replicas:
                raise
            self._replaced(file, target, error)

    def _replaced(self, file: InputFile, target: Path, cause: OSError | StageError) -> None:
        """Bring one of the replicas of a file that is not what it should be."""
        target.unlink(missing_ok=True)
        try:
            self._copy(file.replicas, file, target)
        except StageError as error:
            what, where, why, todo = error.args
            first = cause.args[2] if isinstance(cause, StageError) else str(cause)
            raise StageError(what, where, f"{file.url}: {first}; {why}", todo) from cause

    def _is_out_of_reach(self, file: InputFile) -> bool:
        return self._staging.is_offline and self._cache is None and local_path(file.url) is None

    def _is_moved(self, file: InputFile) -> bool:
        if self._staging.transfer == "copy" or local_path(file.url) is None:
            return True
        return self._cache is not None and self._cache.is_for(file.url)

    def _is_cached(self, file: InputFile, target: Path, cache: Cache) -> bool:
        """Bring a file by way of the cache; False if it does not fit in there."""
        try:
            entry, descriptor = cache.hold(file)
        except DoesNotFit:
            return False
        means = self._links.link(entry, target)
        if means is None:
            self._copy((str(entry),), file, target)
        if means != "symbolic link":
            os.close(descriptor)  # else it stays open until the job ends, so that the entry is not evicted
        return True

    def _is_linked(self, source: Path, file: InputFile, target: Path) -> bool:
        if self._links.link(source, target) is None:
            return False
        if file.checksum and self._staging.verify == "always":
            found = measure(file.url, algorithm_of(file.checksum))
        else:
            found = Measured(source.stat().st_size, file.checksum)
        if wrong := found.differs_from(file.size_bytes, file.checksum):
            raise _not_staged(file, file.url, wrong)
        return True

    def _copy(self, urls: Sequence[str], file: InputFile, target: Path) -> None:
        descriptor = os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o444)
        try:
            part = Part(descriptor, algorithm_of(file.checksum))
            self._mover.fetch(urls, Measured(file.size_bytes, file.checksum), part)
        finally:
            os.close(descriptor)


def _name_of(file: InputFile) -> str:
    piece = piece_of(file.url)
    return file.url if piece is None else f"{file.dataset_type}{piece.extension}"


_LARGE_BYTES = 4 << 20  # from here on threads read faster than one does


def _in_parallel(acts: Sequence[Callable[[], None]], n_threads: int) -> None:
    """Do all, several at once; after a failure begin no more, and raise it."""
    if min(n_threads, len(acts)) < 2:
        for act in acts:
            act()
        return
    from concurrent.futures import ThreadPoolExecutor  # here: a job with a few small files need not pay

    with ThreadPoolExecutor(n_threads) as pool:
        done = [pool.submit(act) for act in acts]
        try:
            for future in done:
                future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _not_staged(file: InputFile, where: str, why: str, todo: str = "") -> StageError:
    return StageError(
        what=f"the input {file.dataset_type} {dict(file.data_id)} could not be brought to the job",
        where=where,
        why=why,
        todo=todo or "see that the file is there and whole, then run the same command again",
    )


def _offline(file: InputFile) -> StageError:
    return StageError(
        what="the file is elsewhere, and the site is offline",
        where=file.url,
        why="the site's file says `offline: true` and has no cache from which it could come",
        todo="let the site have a cache (`transfer: cache`) and, while there is a network: loadmaster cache pull PLAN",
    )


def _too_large(folder: Path, need_bytes: int, budget_bytes: int) -> StageError:
    return StageError(
        what="the job needs more scratch than the site has in all",
        where=str(folder.parent),
        why=f"its inputs and outputs come to {need_bytes} bytes, scratch_bytes in the site's file is {budget_bytes}",
        todo="run it at a site with a larger disk, or let its inputs come by links or a cache (`transfer`)",
    )
