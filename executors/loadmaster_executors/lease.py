"""Leases: the right to act on a run, or to run its jobs, which ends with the process that holds it.

The kernel drops a lock on a file when its last holder dies, however it dies. So there is nothing to unlock.
Light: the job runner imports this.
"""

import fcntl
import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Self

_POLL_S = 0.02


class Lease:
    """A locked file whose text says who holds it. Children that inherit it hold it too."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @classmethod
    def take(cls, path: Path, *, wait: bool = False) -> Self | None:
        """Take the lease; None if another has it. With `wait` it comes when the other ends."""
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            os.close(descriptor)
            return None
        return cls(descriptor)

    def fileno(self) -> int:
        """Return the descriptor that holds it."""
        return self._descriptor

    def say(self, text: str) -> None:
        """Write down who holds it."""
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, text.encode(), 0)

    def share(self) -> None:
        """Let programs that this process starts hold it too."""
        os.set_inheritable(self._descriptor, True)

    def give_back(self) -> None:
        """End it, unless a child holds it still."""
        os.close(self._descriptor)


def is_held(path: Path) -> bool:
    """Whether some process has the lease; to ask needs no right to write."""
    try:
        with open(path) as stream:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def holder(path: Path) -> str:
    """Return what the holder said; "" if nothing."""
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""


def end_holders(path: Path, wait_s: float) -> bool:
    """Kill the process group that a worker's lease names until nobody holds it; False if somebody does."""
    deadline = time.monotonic() + wait_s
    while (lease := Lease.take(path)) is None:
        if time.monotonic() > deadline:
            return False
        named = holder(path)
        if named.isdecimal() and _may_hold(int(named), path):
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(int(named), signal.SIGKILL)
        time.sleep(_POLL_S)
    lease.give_back()
    return True


def _may_hold(process: int, path: Path) -> bool:
    """Whether a process has the file open, or is gone (its group may outlive it), as far as the system tells.

    A number that was given to another process in the meantime is so not taken for ours.
    """
    try:
        return any(link.readlink() == path.absolute() for link in Path(f"/proc/{process}/fd").iterdir())
    except FileNotFoundError:
        return True
    except PermissionError:
        return False
