"""A site's cache: each object once, named for its checksum, fetched once however many ask, shared by jobs and users.

Below the cache's folder:

``objects/ab/sha256-ab…``
    The entries, read only. Their time of change is set to a mark, so that one that was written to shows.
``parts/…``
    What is being fetched, each with a file that is locked by who fetches it. After a kill the next one goes on.
``used/…``
    For each entry a file that is touched when it is used, and says where it came from.
``urls/…``
    For objects of which no checksum is recorded: which version was at a URL, and which entry it is.
``ledger``
    How many bytes are in the cache or promised to it; counted anew when they are too many.

A job that reads an entry has a hard link of it or, by way of a symbolic one, holds a shared lock on it; such entries
are not evicted. Locks and links end with their holders: there is nothing to tidy up.

Light: the job runner imports this.
"""

import errno
import fcntl
import hashlib
import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from loadmaster_registry.errors import StageError

from .checksum import Measured, algorithm_of
from .location import local_path, remote
from .locks import is_free, is_named, locked, make_shared
from .manifest import InputFile
from .mover import Mover, Part

log = logging.getLogger(__name__)

_MARK_NS = 1_000_000_000 * 10**9  # 2001-09-09; nobody writes to a file at that time
_FULL = {errno.ENOSPC, errno.EDQUOT}
_LOW_WATER = 0.95  # of the budget is left after an eviction, so that not each new object needs one
_VERSION = ("size", "ETag", "etag", "mtime", "LastModified", "last_modified", "Last-Modified", "created")


@dataclass(frozen=True, slots=True)
class Entry:
    """One object in the cache."""

    key: str
    path: Path
    size_bytes: int
    used: float  # when it was used last; seconds since 1970
    is_held: bool  # by a job that has a hard link; locks are not seen here


class DoesNotFit(StageError):  # noqa: N818
    """The object is larger than what can be freed in the cache: it is to pass it by."""


class Cache:
    """The cache of a site.

    Parameters
    ----------
    budget_bytes : int
        What it may hold; -1 for no limit.
    is_offline : bool
        Nothing is fetched.
    """

    def __init__(self, folder: Path, budget_bytes: int, mover: Mover, *, is_offline: bool = False) -> None:
        self.folder = folder
        self.budget_bytes = budget_bytes
        self._mover = mover
        self._is_offline = is_offline

    def hold(self, file: InputFile) -> tuple[Path, int]:
        """Return the entry of a file, fetched if it is not there, and a descriptor: while it is open the entry stays.

        Raises
        ------
        DoesNotFit
            If there is no room for it.
        StageError
            If it cannot be had.
        OSError
            If the cache cannot be written.
        """
        while True:
            key = _key(file.checksum) if file.checksum else self._key_of_url(file)
            if (descriptor := self._held(key, file)) is not None:
                return self._entry(key), descriptor
            if self._is_offline:
                raise _not_cached(file, self.folder)
            self._fetch(key, file)

    def is_for(self, url: str) -> bool:
        """Whether a file goes through the cache: not if it is on the file system of the cache itself."""
        path = local_path(url)
        if path is None:
            return True
        make_shared(self.folder)
        with suppress(FileNotFoundError):
            return path.stat().st_dev != self.folder.stat().st_dev
        return True

    def has(self, file: InputFile) -> bool:
        """Whether a file of which a checksum is recorded is there already, to all appearances."""
        return bool(file.checksum) and self._entry(_key(file.checksum)).exists()

    def entries(self) -> Iterator[Entry]:
        """Go through all that is there."""
        for path in (self.folder / "objects").glob("??/*"):
            with suppress(FileNotFoundError):  # evicted meanwhile
                yield self._described(path)

    def clear(self, *, unused_since: float = float("inf")) -> int:
        """Remove what no job holds and nobody has used since then; return the bytes that are free now."""
        freed = sum(e.size_bytes for e in self.entries() if e.used < unused_since and self._is_evicted(e))
        with self._ledger() as ledger:
            ledger.write(self._counted())
        return freed

    def verify(self) -> list[Entry]:
        """Read all entries through, remove those that are not what their names say, and return them."""
        return [entry for entry in self.entries() if not self._is_whole(entry.key, entry.path)]

    def source(self, entry: Entry) -> str:
        """Return where an entry came from; "" if nobody knows."""
        with suppress(OSError, ValueError, KeyError):
            return str(json.loads(self._used(entry.key).read_bytes())["url"])
        return ""

    def _key_of_url(self, file: InputFile) -> str:
        """Return which entry is what is at a URL now, fetched if it is new; one process at a time finds out."""
        with locked(self.folder / "urls" / f"{_digest(file.url)}.json") as descriptor:
            known = _alias(os.pread(descriptor, 1 << 16, 0))
            if self._is_offline:
                return known.get("key", "sha256-")
            version = _version_of(file.url)
            if known.get("version") == version and self._entry(known["key"]).exists():
                return known["key"]
            key = self._fetch("", file)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps({"url": file.url, "version": version, "key": key}).encode(), 0)
            return key

    def _held(self, key: str, file: InputFile) -> int | None:
        """Return a descriptor that keeps an entry, if it is there and sound."""
        path = self._entry(key)
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            return None
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        status = os.fstat(descriptor)
        is_sound = is_named(descriptor, path) and (
            (status.st_mtime_ns == _MARK_NS and file.size_bytes in (-1, status.st_size))
            or self._is_whole(key, path)
        )
        if not is_sound:
            os.close(descriptor)
            return None
        with suppress(OSError):
            os.utime(self._used(key))
        return descriptor

    def _is_whole(self, key: str, path: Path) -> bool:
        """Read an entry through; remove it if it is not what its name says."""
        algorithm = key.partition("-")[0]
        with open(path, "rb", buffering=0) as stream:
            if hashlib.file_digest(stream, algorithm).hexdigest() == key.partition("-")[2]:
                with suppress(PermissionError):  # another user's: it is read through each time
                    os.utime(path, ns=(_MARK_NS, _MARK_NS))
                return True
            log.warning("a corrupt entry is removed from the cache entry=%s", path)
            if is_named(stream.fileno(), path):  # and no new one, which somebody just fetched
                path.unlink(missing_ok=True)
            return False

    def _fetch(self, key: str, file: InputFile) -> str:
        """Fetch what is not there, unless somebody else does; return the name of the entry."""
        part_path = self.folder / "parts" / f"{key or 'url-' + _digest(file.url)}.{file.size_bytes}.part"
        lock_path = part_path.with_suffix(".lock")
        with locked(lock_path) as lock:
            if not is_named(lock, lock_path) or (key and self._entry(key).exists()):
                return key  # somebody else is done with it
            try:
                descriptor = _own_part(part_path, is_resumed=bool(key))
                try:
                    self._make_room(max(file.size_bytes, 0), part_path)
                    return self._keep(self._received(file, descriptor), file, part_path, descriptor)
                finally:
                    os.close(descriptor)
            finally:
                with suppress(FileNotFoundError):
                    if not part_path.stat().st_size:
                        part_path.unlink()
                lock_path.unlink()

    def _received(self, file: InputFile, descriptor: int) -> Measured:
        """Fetch into an open part; where the disk is full, make room and try once more."""
        promised = Measured(file.size_bytes, file.checksum)
        part = Part(descriptor, algorithm_of(file.checksum))
        urls = (file.url, *file.replicas)
        try:
            return self._mover.fetch(urls, promised, part)
        except OSError as error:
            needed, why = max(file.size_bytes, part.offset), str(error)
            part.restart()
            if error.errno not in _FULL:
                raise
        log.warning("the cache's disk is full, what was used least lately goes cache=%s", self.folder)
        self._evict(needed)
        try:
            return self._mover.fetch(urls, promised, part)
        except OSError:
            part.restart()
            raise _full(self.folder, why) from None

    def _keep(self, measured: Measured, file: InputFile, part_path: Path, descriptor: int) -> str:
        """Make a whole part an entry: by its name alone it becomes visible."""
        key = _key(measured.checksum)
        if file.size_bytes < 0:
            self._make_room(measured.size_bytes, part_path)
        make_shared(self._used(key).parent)
        with locked(self._used(key)) as used:
            os.ftruncate(used, 0)
            os.pwrite(used, json.dumps({"url": file.url}).encode(), 0)
        os.fchmod(descriptor, 0o444)
        os.utime(descriptor, ns=(_MARK_NS, _MARK_NS))
        make_shared(self._entry(key).parent)
        part_path.rename(self._entry(key))
        return key

    def _make_room(self, size_bytes: int, part_path: Path) -> None:
        """Take note that so many bytes come; evict what was used least lately if they are too many.

        Bytes are counted before they come: a kill leaves too many in the books, never too few.
        """
        if self.budget_bytes < 0:
            return
        if size_bytes > self.budget_bytes:
            raise _full(self.folder, f"it has {size_bytes} bytes, the cache may hold {self.budget_bytes}")
        with self._ledger() as ledger:
            total = ledger.total + size_bytes
            if total > self.budget_bytes:
                total = self._counted(but=part_path) + size_bytes
            if total > self.budget_bytes:
                total -= self._evict(total - max(int(self.budget_bytes * _LOW_WATER), size_bytes))
            ledger.write(total if total <= self.budget_bytes else total - size_bytes)
            if total > self.budget_bytes:
                raise _full(self.folder, "jobs hold so much of it that nothing more fits in")

    def _counted(self, but: Path | None = None) -> int:
        """Count the bytes of entries and of what is being fetched; clear what nobody fetches any more."""
        total = 0
        for path in (self.folder / "parts").glob("*.part"):
            if path == but:
                continue
            with suppress(FileNotFoundError), open(path.with_suffix(".lock"), "rb") as lock:
                if is_free(lock.fileno()):
                    path.unlink()
                else:
                    total += max(path.stat().st_size, int(path.name.split(".")[-2]))
        # Afterwards: what becomes an entry meanwhile is counted twice rather than not at all.
        return total + sum(entry.size_bytes for entry in self.entries())

    def _evict(self, size_bytes: int) -> int:
        """Remove what was used least lately, until so many bytes are free; return how many are."""
        freed = 0
        for entry in sorted(self.entries(), key=lambda entry: entry.used):
            if freed >= size_bytes:
                break
            if self._is_evicted(entry):
                freed += entry.size_bytes
        return freed

    def _is_evicted(self, entry: Entry) -> bool:
        """Remove an entry that nobody holds."""
        with suppress(FileNotFoundError), open(entry.path, "rb") as stream:
            if not is_free(stream.fileno()) or os.fstat(stream.fileno()).st_nlink > 1:
                return False
            entry.path.unlink()
            self._used(entry.key).unlink(missing_ok=True)
            return True
        return False

    def _described(self, path: Path) -> Entry:
        status = path.stat()
        try:
            used = self._used(path.name).stat().st_mtime
        except FileNotFoundError:
            used = status.st_ctime
        return Entry(path.name, path, status.st_size, used, is_held=status.st_nlink > 1)

    def _entry(self, key: str) -> Path:
        return self.folder / "objects" / key.partition("-")[2][:2] / key

    def _used(self, key: str) -> Path:
        return self.folder / "used" / key

    @contextmanager
    def _ledger(self) -> Iterator["_Ledger"]:
        with locked(self.folder / "ledger") as descriptor:
            yield _Ledger(descriptor)


class _Ledger:
    """How many bytes are in the cache, written in a locked file."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        text = os.pread(descriptor, 32, 0)
        self.total = int(text) if text.strip().isdigit() else 0

    def write(self, total: int) -> None:
        """Write down another number."""
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, str(total).encode(), 0)


def _own_part(path: Path, *, is_resumed: bool) -> int:
    """Open a part that nobody else writes; what another user left, or is not to be gone on with, goes."""
    with suppress(FileNotFoundError):
        if not is_resumed or path.stat().st_uid != os.geteuid():
            path.unlink()
    return os.open(path, os.O_RDWR | os.O_CREAT, 0o644)


def _key(checksum: str) -> str:
    return checksum.replace(":", "-", 1)


def _digest(url: str) -> str:
    return hashlib.sha256(url.encode()).hexdigest()


def _alias(text: bytes) -> dict[str, str]:
    try:
        return dict(json.loads(text))
    except (ValueError, TypeError):  # new, or a kill left half of it
        return {}


def _version_of(url: str) -> str:
    """Return what tells the versions of a file apart without reading it; "" where nobody answers.

    Without an answer it is fetched: then it is waited for, and what is wrong is told.
    """
    try:
        if (path := local_path(url)) is not None:
            status = path.stat()
            return f"size={status.st_size} mtime={status.st_mtime_ns}"
        fs, inner = remote(url)
        info = fs.info(inner)
    except Exception:  # whatever a protocol's library raises
        return ""
    return " ".join(f"{name}={info[name]}" for name in _VERSION if info.get(name) is not None)


def _full(folder: Path, why: str) -> DoesNotFit:
    return DoesNotFit(
        what="an object does not fit into the site's cache",
        where=str(folder),
        why=why,
        todo="give the cache more room: cache_bytes in the site's file",
    )


def _not_cached(file: InputFile, folder: Path) -> StageError:
    return StageError(
        what=f"the cache has no {file.dataset_type} {dict(file.data_id)}, and the site is offline",
        where=f"{file.url} (cache {folder})",
        why="it is not in the cache, and the site is offline (`offline: true`): nothing is fetched from elsewhere",
        todo="while there is a network, fill it: loadmaster cache pull PLAN, or take `offline` out of the site's file",
    )
