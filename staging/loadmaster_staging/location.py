"""Where bytes are: fsspec URLs, with a short way for files of this machine.

Light: the job runner imports this.
"""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from loadmaster_registry.errors import Error, StageError

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem


def local_path(url: str) -> Path | None:
    """Return the path of a file of this machine, None for a URL that only fsspec can open.

    As in fsspec, percent signs in a `file://` URL are part of the name.
    """
    if url.startswith("file://"):
        return Path(url[len("file://") :])
    return None if "://" in url else Path(url)


def remote(url: str) -> tuple["AbstractFileSystem", str]:
    """Return the file system of a URL and the path in it."""
    from fsspec.core import url_to_fs  # here: 0.1 s of imports that a job with local files need not pay

    fs, path = url_to_fs(url)
    fs.invalidate_cache()  # what it was told of folders earlier is no answer now: others write there too
    return fs, path


@contextmanager
def as_os_errors() -> Iterator[None]:
    """Raise as OSError what the library of a protocol raises: each has its own errors, and few keep to Python's."""
    try:
        yield
    except (OSError, Error):
        raise
    except Exception as error:
        raise OSError(errno.EIO, f"{type(error).__name__}: {error}") from error


def join(root: str, *parts: str) -> str:
    """Return the URL of something below the folder `root`."""
    return "/".join((root.rstrip("/"), *parts))


def staged(staging_url: str, name: str) -> str:
    """Return the URL of what an attempt staged as `name`: all that is staged lies beside each other.

    A folder for each attempt would cost as much as its files: on many file systems the making and removing of
    folders waits for the disk.
    """
    return f"{staging_url}-{name}"


def is_relative(url: str) -> bool:
    """Whether a URL needs a root to be found."""
    return "://" not in url and not url.startswith("/")


def checked_path(path: str) -> str:
    """Return `path` if it stays below the folder that it will be joined to.

    Raises
    ------
    StageError
        For an absolute path, an empty one, and one with `..` in it.
    """
    if not path or not is_relative(path) or (".." in path and ".." in path.split("/")):
        raise StageError(
            what=f"{path!r} is no path below a folder",
            where="the name of a file on the backbone",
            why="it is empty, absolute or climbs out of its folder",
            todo="give a relative path without '..'",
        )
    return path


def as_folder_name(name: str) -> str:
    """Return the name of one visible folder for any `name`, different ones for different names."""
    quoted = quote(name, safe="+-.,=@_~")
    return f"%2E{quoted[1:]}" if quoted.startswith(".") else quoted
