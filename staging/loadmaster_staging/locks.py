"""Files that processes, also of several users, lock: the kernel unlocks them when their holders end.

Light: the job runner imports this.
"""

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def open_shared(path: Path) -> int:
    """Open a file for locking and writing, made where it is not; whoever may use its folder may use it."""
    while True:
        try:
            return os.open(path, os.O_RDWR)
        except FileNotFoundError:
            make_shared(path.parent)
        fresh = path.with_name(f".{secrets.token_hex(8)}")
        descriptor = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.fchmod(descriptor, path.parent.stat().st_mode & 0o666)
            os.link(fresh, path)  # so that nobody finds it before it is for all
        except FileExistsError:
            os.close(descriptor)
        else:
            return descriptor
        finally:
            fresh.unlink()


def make_shared(folder: Path) -> None:
    """Make a folder, and those above it that are not, for the users that may use the one above."""
    if folder.exists():
        return
    make_shared(folder.parent)
    fresh = folder.with_name(f".{secrets.token_hex(8)}")
    fresh.mkdir()
    fresh.chmod(folder.parent.stat().st_mode & 0o7777)
    try:
        fresh.rename(folder)  # so that nobody finds it before it is for all
    except OSError:  # somebody else's is there
        fresh.rmdir()


@contextmanager
def locked(path: Path, *, how: int = fcntl.LOCK_EX) -> Iterator[int]:
    """Hold the lock on a file, which is made where it is not, and yield its descriptor.

    The file under that name may be another one when the lock comes; see `is_named`.
    """
    descriptor = open_shared(path)
    try:
        fcntl.flock(descriptor, how)
        yield descriptor
    finally:
        os.close(descriptor)


def is_free(descriptor: int) -> bool:
    """Lock an open file for oneself, if nobody else has; it stays locked until it is closed."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_named(descriptor: int, path: Path) -> bool:
    """Whether an open file is what has this name now."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
