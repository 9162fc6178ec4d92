"""The backbone: permanent storage of files below one root, where nothing is ever overwritten.

A file becomes visible by one act that fails if the name is taken: a hard link on a file system, a conditional
put on an object store.
"""

import ctypes
import errno
import os
import secrets
import shutil
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Protocol

from loadmaster_registry.errors import StageError

from .checksum import ALGORITHM, Measured, algorithm_of, copy, measure
from .location import as_folder_name, checked_path, is_relative, join, local_path, remote

STAGING_FOLDER = ".staging"  # below the root, so that publishing never crosses a file system

_NO_HARD_LINKS = {errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK}
_AT_FDCWD = -100
_RENAME_NOREPLACE = 1


class NameTaken(StageError):  # noqa: N818 (as the other errors: named for what is the case)
    """Another file stands where one was to be published; neither was touched."""


class Backbone:
    """Files below `root_url`, each published once and never changed."""

    def __init__(self, root_url: str) -> None:
        path = local_path(root_url)
        self.root_url = root_url.rstrip("/") if "://" in root_url else str(Path(root_url).absolute())
        self._store: _Store = _ObjectStore() if path is None else _FileStore()

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

    def is_taken(self, staged: str, path: str, *, resumed_checksum: str = "") -> bool:
        """Whether `publish`, called so, would find another file at `path`."""
        final = self.url(checked_path(path))
        return self._store.exists(final) and not self._store.is_same(staged, final, resumed_checksum)

    def withdraw(self, staged: str, path: str, *, checksum: str) -> None:
        """Take back what `publish(staged, path)` made visible; another file at `path` stays."""
        self._store.withdraw(staged, self.url(checked_path(path)), checksum)

    def exists(self, path: str) -> bool:
        """Whether a file is published at `path`."""
        return self._store.exists(self.url(path))

    def open(self, path: str) -> IO[bytes]:
        """Open a file for reading, at `path` below the root or at a URL of its own."""
        url = self.url(path)
        try:
            return self._store.open(url)
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
        """Return the names of what lies in a folder of the staging area; none if there is no such folder."""
        return self._store.names(url)

    def remove_staged(self, url: str) -> None:
        """Remove a file or folder of the staging area; a no-op where there is none."""
        if STAGING_FOLDER not in url.split("/"):
            raise StageError(
                what="only what is staged can be removed",
                where=url,
                why=f"it is not below the backbone's {STAGING_FOLDER!r} folder",
                todo="publish files by way of the staging area",
            )
        self._store.remove(url)


class _Store(Protocol):
    """What a kind of storage must be able to do; all places are URLs."""

    def create(self, staged: str, final: str, resumed_checksum: str) -> bool:
        """Make `staged` visible at `final`; False if another file is there. See `Backbone.publish`."""

    def is_same(self, staged: str, final: str, resumed_checksum: str) -> bool:
        """Whether `final`, which exists, is what `create(staged, final)` made."""

    def withdraw(self, staged: str, final: str, checksum: str) -> None:
        """Remove `final` if it is what `create(staged, final)` made."""

    def exists(self, url: str) -> bool:
        """Whether there is a file."""

    def open(self, url: str) -> IO[bytes]:
        """Open for reading."""

    def names(self, folder: str) -> list[str]:
        """Return what is in a folder."""

    def remove(self, url: str) -> None:
        """Remove a file or a whole folder, if it is there."""


class _FileStore:
    """A file system that is mounted here."""

    def create(self, staged: str, final: str, resumed_checksum: str) -> bool:
        source, target = _path(staged), _path(final)
        try:
            return _link(source, target)
        except FileNotFoundError:
            if not source.exists():
                return _is_published(source, final, resumed_checksum)
            target.parent.mkdir(parents=True, exist_ok=True)
            return _link(source, target)

    def is_same(self, staged: str, final: str, resumed_checksum: str) -> bool:
        source = _path(staged)
        return (
            _is_same_file(source, _path(final)) if source.exists() else _has_checksum(final, resumed_checksum)
        )

    def withdraw(self, staged: str, final: str, checksum: str) -> None:
        source, target = _path(staged), _path(final)
        if not target.exists() or not self.is_same(staged, final, checksum):
            return
        if source.exists():
            target.unlink()
        else:
            _rename_exclusively(target, source)  # published by renaming, taken back likewise

    def exists(self, url: str) -> bool:
        return os.path.lexists(_path(url))

    def open(self, url: str) -> IO[bytes]:
        return open(_path(url), "rb")

    def names(self, folder: str) -> list[str]:
        try:
            return sorted(path.name for path in _path(folder).iterdir())
        except FileNotFoundError:
            return []

    def remove(self, url: str) -> None:
        path = _path(url)
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _path(url: str) -> Path:
    path = local_path(url)
    if path is None:
        raise StageError(
            what="this backbone is a file system, and the file is elsewhere",
            where=url,
            why="publishing links files, which needs one file system",
            todo="copy the file to the backbone's staging folder first",
        )
    return path


def _link(source: Path, target: Path) -> bool:
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


def _is_same_file(source: Path, target: Path) -> bool:
    try:
        return os.path.samestat(source.lstat(), target.lstat())
    except FileNotFoundError:
        return False


def _is_published(source: Path, final: str, checksum: str) -> bool:
    """Whether a staged file that is gone was published by moving it, or freed after it was published."""
    if not checksum:
        raise FileNotFoundError(errno.ENOENT, "the staged file is gone", str(source))
    return _has_checksum(final, checksum)


def _copy_exclusively(source: Path, target: Path) -> bool:
    """Bring bytes from another file system: copied under a name of their own, then made visible at once."""
    beside = target.with_name(f"{target.name}.{secrets.token_hex(4)}.part")
    try:
        with open(source, "rb", buffering=0) as reader, open(beside, "xb") as writer:
            copy(reader, writer)
        shutil.copymode(source, beside)
        return _link(beside, target)
    finally:
        beside.unlink(missing_ok=True)


def _rename_exclusively(source: Path, target: Path) -> bool:
    """Rename, and never over another file (Linux renameat2), for file systems without hard links."""
    libc = ctypes.CDLL(None, use_errno=True)
    flags = ctypes.c_uint(_RENAME_NOREPLACE)
    if libc.renameat2(_AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(target), flags) == 0:
        return True
    if (code := ctypes.get_errno()) == errno.EEXIST:
        return False
    raise OSError(code, os.strerror(code), str(source), None, str(target))


class _ObjectStore:
    """Anything that fsspec opens: a conditional put where the store has it, else a look, then a copy."""

    def create(self, staged: str, final: str, resumed_checksum: str) -> bool:
        fs, target = remote(final)
        if fs.exists(target):
            return _has_checksum(final, resumed_checksum)
        _, source = remote(staged)
        try:
            writer = fs.open(target, "xb")
        except FileExistsError:
            return _has_checksum(final, resumed_checksum)
        except (NotImplementedError, ValueError):  # the store knows no exclusive mode
            fs.cp_file(source, target)
            return True
        return _write_all(fs, source, writer) or _has_checksum(final, resumed_checksum)

    def is_same(self, staged: str, final: str, resumed_checksum: str) -> bool:
        return _has_checksum(final, resumed_checksum)

    def withdraw(self, staged: str, final: str, checksum: str) -> None:
        fs, target = remote(final)
        if fs.exists(target) and _has_checksum(final, checksum):
            fs.rm_file(target)

    def exists(self, url: str) -> bool:
        fs, path = remote(url)
        return bool(fs.exists(path))

    def open(self, url: str) -> IO[bytes]:
        fs, path = remote(url)
        stream: IO[bytes] = fs.open(path, "rb")
        return stream

    def names(self, folder: str) -> list[str]:
        fs, path = remote(folder)
        try:
            return sorted(entry.rstrip("/").rsplit("/", 1)[-1] for entry in fs.ls(path, detail=False))
        except FileNotFoundError:
            return []

    def remove(self, url: str) -> None:
        fs, path = remote(url)
        if fs.exists(path):
            fs.rm(path, recursive=True)


def _has_checksum(url: str, checksum: str) -> bool:
    return bool(checksum) and measure(url, algorithm_of(checksum)).checksum == checksum


def _write_all(fs: Any, source: str, writer: Any) -> bool:
    """Stream `source` into `writer`; closing makes it visible, so a broken transfer never closes it."""
    try:
        with fs.open(source, "rb") as reader:
            copy(reader, writer)
    except BaseException:
        writer.discard()
        with suppress(AttributeError):  # in-memory files have no such switch, and nothing to flush
            writer.closed = True
        raise
    try:
        writer.close()
    except FileExistsError:
        return False
    return True


def _taken(final: str) -> NameTaken:
    return NameTaken(
        what=f"there is a file at {final} already",
        where=final,
        why="someone put it there after planning; what is published is never overwritten",
        todo="look whose it is; plan again into a new run, or move the file away",
    )


def _gone(staged: str, final: str) -> StageError:
    return StageError(
        what=f"{final} cannot be published",
        where=staged,
        why="the staged file is gone",
        todo="run the job again",
    )


def _failed(what: str, where: str, error: OSError) -> StageError:
    return StageError(
        what=what,
        where=where,
        why=str(error),
        todo="see that the storage is there, writable and not full, then run the same command again",
    )
