"""What lies on a backbone: one listing of all of it; single files looked at, moved aside, or taken away for good."""

import errno
import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import polars as pl

from .backbone import STAGING_FOLDER
from .location import as_os_errors, join, local_path, remote

ASIDE_FOLDER = ".aside"  # below the root: what nobody knows, or is damaged, and may still be somebody's
_AT_ONCE = 16
_LISTED = {"path": pl.String, "size_bytes": pl.Int64, "changed_s": pl.Float64}
_TAGS = ("ETag", "etag", "LastModified", "last_modified", "updated", "created", "mtime")

_T = TypeVar("_T")
_R = TypeVar("_R")


@as_os_errors()
def listing(root_url: str) -> pl.DataFrame:
    """List all files below the root, but for what is staged or was moved aside.

    Returns
    -------
    files : DataFrame
        ``path`` (below the root), ``size_bytes``, ``changed_s`` (seconds since 1970: when it got its name there).
    """
    folder = local_path(root_url)
    found = _in_folder(folder) if folder is not None else _in_store(root_url)
    columns = list(zip(*found, strict=True)) or [()] * len(_LISTED)
    data = dict(zip(_LISTED, columns, strict=True))
    return pl.DataFrame(data, schema=_LISTED).sort("path")


@as_os_errors()
def signature(url: str) -> str:
    """Return what tells a file from any other that may stand at its place later; "" where there is none."""
    path = local_path(url)
    try:
        if path is not None:
            found = path.stat()
            return f"{found.st_size} {found.st_mtime_ns} {found.st_ino}"
        with as_os_errors():
            fs, inner = remote(url)
            fs.invalidate_cache(inner)
            info = fs.info(inner)
    except (FileNotFoundError, NotADirectoryError):
        return ""
    return " ".join(str(info[key]) for key in ("size", *_TAGS) if info.get(key) is not None)


@as_os_errors()
def size_of(url: str) -> int | None:
    """Return the size of a file, wherever it is; -1 where there is none, None where nobody says how large it is.

    Raises
    ------
    OSError
        If its place cannot be reached.
    """
    path = local_path(url)
    try:
        if path is not None:
            return path.stat().st_size
        with as_os_errors():
            fs, inner = remote(url)
            size = fs.info(inner)["size"]
    except (FileNotFoundError, NotADirectoryError) as error:
        if _is_no_connection(error.__cause__):
            raise OSError(errno.EHOSTUNREACH, str(error.__cause__), url) from error
        return -1
    return None if size is None else int(size)


def _is_no_connection(cause: BaseException | None) -> bool:
    """Whether a store could not be asked at all, for which fsspec's http says that the file is not there."""
    return isinstance(cause, OSError) and not isinstance(cause, FileNotFoundError)


@as_os_errors()
def remove(url: str, signed: str) -> bool:
    """Take a file away for good; False where another one, or none, is there."""
    if not signed or signature(url) != signed:
        return False
    path = local_path(url)
    if path is not None:
        path.unlink(missing_ok=True)
    else:
        with as_os_errors():
            fs, inner = remote(url)
            fs.rm_file(inner)
    return True


@as_os_errors()
def move_aside(root_url: str, path: str) -> str:
    """Move a file out of the way, to a name of its own below `ASIDE_FOLDER`, and return its new URL."""
    source = join(root_url, path)
    target = join(root_url, ASIDE_FOLDER, f"{path}.{secrets.token_hex(4)}")
    here, there = local_path(source), local_path(target)
    if here is not None and there is not None:
        there.parent.mkdir(parents=True, exist_ok=True)
        here.rename(there)
    else:
        with as_os_errors():
            fs, inner = remote(source)
            fs.mv(inner, remote(target)[1])
    return target


def remove_empty_folders(root_url: str, path: str) -> None:
    """Remove the folder at `path` with what is below, as far as nothing is in it; stores have no folders."""
    top = local_path(join(root_url, path))
    if top is not None:
        for folder, _, _ in os.walk(top, topdown=False):
            with suppress(OSError):  # there is something in it
                Path(folder).rmdir()


def each(root_url: str, act: Callable[[_T], _R], items: Sequence[_T]) -> list[_R]:
    """Return what `act`, which waits for the storage, makes of each item; many at once over a network."""
    if local_path(root_url) is not None or len(items) < 2:
        return [act(item) for item in items]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(act, items))


def _in_folder(root: Path) -> Iterator[tuple[str, int, float]]:
    hidden = {STAGING_FOLDER, ASIDE_FOLDER}
    begin = len(f"{root}/")
    open_folders = [os.fspath(root)] if root.is_dir() else []
    while open_folders:
        with os.scandir(open_folders.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    if entry.path[begin:] not in hidden:
                        open_folders.append(entry.path)
                    continue
                with suppress(FileNotFoundError):  # gone, or a link to nothing
                    found = entry.stat()
                    yield entry.path[begin:], found.st_size, max(found.st_ctime, found.st_mtime)


def _in_store(root_url: str) -> Iterator[tuple[str, int, float]]:
    fs, root = remote(root_url)
    fs.invalidate_cache(root)
    begin = len(root.rstrip("/")) + 1
    hidden = (f"{STAGING_FOLDER}/", f"{ASIDE_FOLDER}/")
    for path, info in fs.find(root, detail=True).items():
        if not (name := path[begin:]).startswith(hidden):
            yield name, int(info["size"]), _changed_s(info)


def _changed_s(info: dict[str, Any]) -> float:
    times = [info[key] for key in _TAGS if key in info]
    seconds = [time.timestamp() if isinstance(time, datetime) else time for time in times]
    return max((float(time) for time in seconds if isinstance(time, float | int)), default=0.0)
