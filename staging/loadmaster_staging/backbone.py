"""The backbone: permanent storage of files below one root, where nothing is ever overwritten.

A file becomes visible by one act that fails if the name is taken: a hard link on a file system, a conditional
put on an object store.
"""

import ctypes
import errno
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from typing import IO, Protocol, TypeVar

from loadmaster_registry.errors import StageError

from .checksum import ALGORITHM, Measured, Reader, algorithm_of, copy, measure
from .location import as_folder_name, as_os_errors, checked_path, is_relative, join, local_path, remote
from .object_store import ObjectStore
from .shards import SHARD_FOLDER, Shards, piece_of, read_piece

STAGING_FOLDER = ".staging"  # below the root, so that publishing never crosses a file system

_NO_HARD_LINKS = {errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK}
_AT_FDCWD = -100
_RENAME_NOREPLACE = 1
_WITHDRAWN = ".withdrawn"
_SLOW_S = 3e-3  # storage that takes longer for one thing is asked for many at once
_PATIENCE_S = 0.02  # until that is clear
_AT_ONCE = 16

_T = TypeVar("_T")
_R = TypeVar("_R")


class NameTaken(StageError):  # noqa: N818 (as the other errors: named for what is the case)
    """Another file stands where one was to be published; neither was touched."""


class Gone(StageError):  # noqa: N818
    """What was staged is not there any more, nor was it published."""


class Backbone:
    """Files below `root_url`, each published once and never changed."""

    def __init__(self, root_url: str) -> None:
        path = local_path(root_url)
        self.root_url = root_url.rstrip("/") if "://" in root_url else str(Path(root_url).absolute())
        self._store: _Store = ObjectStore(self.root_url) if path is None else _FileStore()
        self._shards: dict[tuple[str, str, str], Shards] = {}

    @property
    def modules(self) -> tuple[str, ...]:
        """What Python has to import to reach the files, which takes a while: once a process, not once a job."""
        return () if local_path(self.root_url) is not None else (type(remote(self.root_url)[0]).__module__,)

    def url(self, path: str) -> str:
        """Return where a file is: below the root, unless `path` is absolute or a URL of its own."""
        return join(self.root_url, path) if is_relative(path) else path

    def staging_url(self, run: str, token: str) -> str:
        """Return the folder in which the attempts of a run leave outputs and reports.

        Two run folders (`token`) that write the same run meet at publishing, and never before.
        """
        return join(self.root_url, STAGING_FOLDER, f"{as_folder_name(run)}.{token}")

    def publish(self, staged: str, path: str, *, resumed_checksum: str = "") -> None:
        """Make the file at URL `staged` visible at `path` below the root, complete or not at all.

        Where there are hard links, `staged` stays as a second name of the same bytes until `remove_staged`,
        and publishing it again is a no-op, by whichever process.

        Parameters
        ----------
        resumed_checksum : str
            Set when an interrupted call may have gone through already: a file at `path` with this checksum is
            taken for its work where the storage cannot tell (no hard links, object stores).

        Raises
        ------
        NameTaken
            If another file is there; it stays as it is.
        Gone
            If there is nothing at `staged`.
        StageError
            If the bytes cannot be brought there.
        """
        final = self.url(checked_path(path))
        try:
            if not self._store.create(staged, final, resumed_checksum):
                raise _taken(final)
        except FileNotFoundError:
            raise _gone(staged, final) from None
        except OSError as error:
            raise _failed(f"{path} could not be published", final, error) from error

    def withdraw(self, staged: str, path: str, *, checksum: str) -> None:
        """Take back what `publish(staged, path)` made visible; another file at `path` stays.

        `staged` gets another name first: whoever is about to publish it too will not find it.
        """
        final = self.url(checked_path(path))
        with _in_words(f"{path} could not be taken back", final):
            self._store.withdraw(staged, final, checksum)

    def pack(self, folder: str, owner: str, extension: str, contents: Sequence[bytes]) -> list[str]:
        """Keep small files in a shard of `owner` below `folder`, and return the path of each below the root.

        What nobody refers to is as good as not there.

        Raises
        ------
        StageError
            If they cannot be written.
        """
        place = join(checked_path(folder), SHARD_FOLDER)
        new = Shards(self.url(place), extension, f"{owner}-")
        shards = self._shards.setdefault((folder, owner, extension), new)
        try:
            return [join(place, name) for name in shards.append(contents)]
        except OSError as error:
            raise _failed(f"{len(contents)} small files could not be kept", self.url(place), error) from error

    def shards(self, folder: str, owner: str) -> list[str]:
        """Return the paths of all shards of `owner` below `folder`."""
        place = join(checked_path(folder), SHARD_FOLDER)
        return [join(place, f"{owner}-{name}") for name in self.names_staged_by(self.url(join(place, owner)))]

    def remove_shard(self, path: str) -> None:
        """Remove a shard that nobody refers to."""
        with _in_words("a shard could not be removed", self.url(path)):
            self._store.remove(self.url(path))

    def exists(self, path: str) -> bool:
        """Whether a file is published at `path`, or the shard that it is a piece of."""
        piece = piece_of(path)
        url = self.url(path if piece is None else piece.shard_url)
        with _in_words(f"it cannot be seen whether {path} is there", url):
            return self._store.exists(url)

    def open(self, path: str) -> IO[bytes]:
        """Open a file for reading, at `path` below the root or at a URL of its own."""
        url = self.url(path)
        try:
            piece = piece_of(url)
            return self._store.open(url) if piece is None else BytesIO(read_piece(piece))
        except OSError as error:
            raise _failed(f"{path} cannot be read", url, error) from error

    def measure(self, path: str, algorithm: str = ALGORITHM) -> Measured:
        """Read a file through and return its size and checksum."""
        url = self.url(path)
        try:
            return measure(url, algorithm)
        except OSError as error:
            raise _failed(f"{path} cannot be read", url, error) from error

    def staged_names(self, url: str) -> list[str]:
        """Return the names of all files below a folder of the staging area; none if there is no such folder."""
        with _in_words("what is staged cannot be listed", url):
            return self._store.names(url)

    def names_staged_by(self, staging_url: str) -> list[str]:
        """Return what an attempt has staged, by name; see `location.staged`."""
        with _in_words("what is staged cannot be listed", staging_url):
            return self._store.names_after(f"{staging_url}-")

    def stage(self, reader: Reader, url: str, algorithm: str = ALGORITHM) -> Measured:
        """Write what `reader` gives to a file of the staging area, and measure it on the way."""
        with (
            _in_words("it could not be brought to the staging area", url),
            self._store.create_staged(url) as writer,
        ):
            return copy(reader, writer, algorithm)

    def read_staged(self, url: str) -> bytes | None:
        """Return what a small staged file holds; None if there is none."""
        try:
            with as_os_errors(), self._store.open(url) as stream:
                return stream.read()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _failed("what was staged cannot be read", url, error) from error

    def remove_staged(self, *urls: str) -> None:
        """Remove files or folders of the staging area; a no-op where there are none."""
        for url in urls:
            if f"/{STAGING_FOLDER}/" not in url:
                raise StageError(
                    what="only what is staged can be removed",
                    where=url,
                    why=f"it is not below the backbone's {STAGING_FOLDER!r} folder",
                    todo="publish files by way of the staging area",
                )
        with _in_words("what is staged could not be removed", ", ".join(urls[:1])):
            for url in urls:
                self._store.remove(url)

    def each(self, act: Callable[[_T], _R], items: Sequence[_T]) -> list[_R]:
        """Return what `act`, which waits for the storage and for little else, makes of each of the items, in order.

        Where the storage answers slowly, as over a network, many are under way at once.
        """
        done: list[_R] = []
        started = time.monotonic()
        for item in items:
            done.append(act(item))
            spent_s = time.monotonic() - started
            if spent_s > _PATIENCE_S and spent_s > _SLOW_S * len(done):
                break
        rest = items[len(done) :]
        if not rest:
            return done
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            return done + list(pool.map(act, rest))


def run_token(staging_url: str) -> str:
    """Return the token of the run folder one of whose attempts stages there; see `Backbone.staging_url`."""
    return staging_url.partition(f"/{STAGING_FOLDER}/")[2].partition("/")[0].rpartition(".")[2]


class _Store(Protocol):
    """What a kind of storage must be able to do; all places are URLs."""

    def create(self, staged: str, final: str, resumed_checksum: str) -> bool:
        """Make `staged` visible at `final`; False if another file is there. See `Backbone.publish`."""

    def withdraw(self, staged: str, final: str, checksum: str) -> None:
        """Remove `final` if it is what `create(staged, final)` made."""

    def exists(self, url: str) -> bool:
        """Whether there is a file."""

    def open(self, url: str) -> IO[bytes]:
        """Open for reading."""

    def create_staged(self, url: str) -> IO[bytes]:
        """Open a new file of the staging area for writing."""

    def names(self, folder: str) -> list[str]:
        """Return the files below a folder, by their paths below it."""

    def names_after(self, prefix: str) -> list[str]:
        """Return how the names of those files go on whose URL begins with `prefix`, in the same folder."""

    def remove(self, url: str) -> None:
        """Remove a file or a whole folder, if it is there."""


class _FileStore:
    """A file system that is mounted here."""

    def create(self, staged: str, final: str, resumed_checksum: str) -> bool:
        source, target = _path(staged), _path(final)
        try:
            return _link(source, target)
        except FileNotFoundError:
            if not os.path.exists(source):
                return _is_published(source, final, resumed_checksum)
            os.makedirs(os.path.dirname(target), exist_ok=True)
            return _link(source, target)

    def withdraw(self, staged: str, final: str, checksum: str) -> None:
        source, target = _path(staged), _path(final)
        aside = f"{source}{_WITHDRAWN}"
        with suppress(FileNotFoundError):
            os.rename(source, aside)
        if not os.path.exists(target):
            return
        if not os.path.exists(aside):
            if _has_checksum(final, checksum):
                _rename_exclusively(target, aside)  # published by renaming, taken back likewise
        elif _is_same_file(aside, target):
            os.unlink(target)

    def exists(self, url: str) -> bool:
        return os.path.lexists(_path(url))

    def open(self, url: str) -> IO[bytes]:
        return open(_path(url), "rb")

    def create_staged(self, url: str) -> IO[bytes]:
        path = _path(url)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        return open(path, "wb")

    def names(self, folder: str) -> list[str]:
        root = _path(folder)
        found = (os.path.join(parent, name) for parent, _, names in os.walk(root) for name in names)
        return sorted(os.path.relpath(path, root) for path in found)

    def names_after(self, prefix: str) -> list[str]:
        folder, begin = os.path.split(_path(prefix))
        try:
            return sorted(name[len(begin) :] for name in os.listdir(folder) if name.startswith(begin))
        except FileNotFoundError:
            return []

    def remove(self, url: str) -> None:
        path = _path(url)
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass
        except OSError:
            if os.path.isdir(path):
                shutil.rmtree(path)
            elif os.path.lexists(path):  # where nothing can be written, what is not there is refused as well
                raise


def _path(url: str) -> str:
    if "://" not in url:
        return url
    if url.startswith("file://"):
        return url[len("file://") :]
    raise StageError(
        what="this backbone is a file system, and the file is elsewhere",
        where=url,
        why="publishing links files, which needs one file system",
        todo="copy the file to the backbone's staging folder first",
    )


def _link(source: str, target: str) -> bool:
    """Give the file a second name; False if another file has it."""
    try:
        os.link(source, target, follow_symlinks=False)
    except FileExistsError:
        return _is_same_file(source, target)
    except OSError as error:
        if error.errno == errno.EXDEV:
            return _copy_exclusively(source, target)
        if error.errno not in _NO_HARD_LINKS:
            raise
        return _rename_exclusively(source, target)
    return True


def _is_same_file(source: str, target: str) -> bool:
    try:
        return os.path.samestat(os.lstat(source), os.lstat(target))
    except FileNotFoundError:
        return False


def _is_published(source: str, final: str, checksum: str) -> bool:
    """Whether a staged file that is gone was published by moving it, or freed after it was published."""
    if not checksum:
        raise FileNotFoundError(errno.ENOENT, "the staged file is gone", source)
    return _has_checksum(final, checksum)


def _copy_exclusively(source: str, target: str) -> bool:
    """Bring bytes from another file system: copied under a name of their own, then made visible at once."""
    beside = f"{target}.{secrets.token_hex(4)}.part"
    try:
        with open(source, "rb", buffering=0) as reader, open(beside, "xb") as writer:
            copy(reader, writer)
        shutil.copymode(source, beside)
        return _link(beside, target)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(beside)


def _rename_exclusively(source: str, target: str) -> bool:
    """Rename, and never over another file (Linux renameat2), for file systems without hard links."""
    libc = ctypes.CDLL(None, use_errno=True)
    flags = ctypes.c_uint(_RENAME_NOREPLACE)
    if libc.renameat2(_AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(target), flags) == 0:
        return True
    if (code := ctypes.get_errno()) == errno.EEXIST:
        return False
    raise OSError(code, os.strerror(code), source, None, target)


def _has_checksum(url: str, checksum: str) -> bool:
    return bool(checksum) and measure(url, algorithm_of(checksum)).checksum == checksum


def _taken(final: str) -> NameTaken:
    return NameTaken(
        what=f"there is a file at {final} already",
        where=final,
        why="someone put it there after planning; what is published is never overwritten",
        todo="look whose it is; plan again into a new run, or move the file away",
    )


def _gone(staged: str, final: str) -> Gone:
    return Gone(
        what=f"{final} cannot be published",
        where=staged,
        why="the staged file is gone",
        todo="run the job again",
    )


@contextmanager
def _in_words(what: str, where: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _failed(what, where, error) from error


def _failed(what: str, where: str, error: OSError) -> StageError:
    return StageError(
        what=what,
        where=where,
        why=str(error),
        todo="see that the storage is there, writable and not full, then run the same command again",
    )
