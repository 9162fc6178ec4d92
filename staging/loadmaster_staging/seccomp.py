"""A filter on the system calls that name files or make sockets (seccomp): another process is told of each and answers.

Light: the job runner imports this. The structures are those of linux/seccomp.h, linux/filter.h and linux/audit.h.
"""

import ctypes
import errno
import os
import platform
import struct
import sys
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache

from . import kernel

if sys.platform == "linux":
    import fcntl

# System calls by machine: its number in linux/audit.h, then the numbers of what is told of.
_CALLS = {
    "x86_64": (
        0xC000003E,
        {
            "open": 2, "creat": 85, "openat": 257, "openat2": 437, "execve": 59, "execveat": 322, "truncate": 76,
            "unlink": 87, "unlinkat": 263, "rename": 82, "renameat": 264, "renameat2": 316, "link": 86,
            "linkat": 265, "socket": 41, "connect": 42,
        },
    ),
    "aarch64": (
        0xC00000B7,
        {
            "openat": 56, "openat2": 437, "execve": 221, "execveat": 281, "truncate": 45, "unlinkat": 35,
            "renameat": 38, "renameat2": 276, "linkat": 37, "socket": 198, "connect": 203,
        },
    ),
}  # fmt: skip
_IO_URING_SETUP = (
    425  # opens files and sockets by a way that no filter sees; programs do without where it is not
)
_SECCOMP = {"x86_64": 317, "aarch64": 277}
_SET_MODE_FILTER, _NEW_LISTENER = 1, 1 << 3
_ALLOW, _ERRNO, _TELL = 0x7FFF0000, 0x00050000, 0x7FC00000
_LOAD, _IS, _IS_AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_NUMBER_AT, _MACHINE_AT = 0, 4  # in struct seccomp_data
_FIRST_X32 = 0x40000000  # a second way to call the kernel of x86_64, which nothing uses

_NOTICE = struct.Struct("=QIIiIQ6Q")  # struct seccomp_notif
_ANSWER = struct.Struct("=QqiI")
_RECEIVE, _SEND, _IS_VALID, _SET_FLAGS = 0xC0502100, 0xC0182101, 0x40082102, 0x40082104
_CONTINUE = 1
_WAKE_ON_SAME_CPU = 1


@dataclass(frozen=True, slots=True)
class Notice:
    """One system call that waits for an answer."""

    id: int
    process: int  # or the thread
    call: str
    arguments: tuple[int, ...]


class Listener:
    """The end of a filter at which its notices come out."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        with suppress(OSError):  # Linux before 6.6: only slower
            fcntl.ioctl(descriptor, _SET_FLAGS, _WAKE_ON_SAME_CPU)

    def fileno(self) -> int:
        """Return the descriptor to wait on."""
        return self._descriptor

    def close(self) -> None:
        """Hear no more; calls that would be told of fail from now on."""
        os.close(self._descriptor)

    def receive(self) -> Notice | None:
        """Return the notice that has come; None if its process ended in the meantime."""
        buffer = bytearray(_NOTICE.size)
        try:
            fcntl.ioctl(self._descriptor, _RECEIVE, buffer)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EINTR):
                return None
            raise
        id, process, _, number, _, _, *arguments = _NOTICE.unpack(buffer)
        return Notice(id, process, _names()[number], tuple(arguments))

    def is_waiting(self, notice: Notice) -> bool:
        """Whether the process that a notice is of is still the one it was, and waits."""
        try:
            fcntl.ioctl(self._descriptor, _IS_VALID, struct.pack("Q", notice.id))
        except OSError:
            return False
        return True

    def let_go_on(self, notice: Notice) -> None:
        """Let the kernel do what was asked, and decide about it."""
        self._answer(_ANSWER.pack(notice.id, 0, 0, _CONTINUE))

    def refuse(self, notice: Notice, error: int) -> None:
        """Let the call fail; 0 lets it seem to be done."""
        self._answer(_ANSWER.pack(notice.id, 0, -error, 0))

    def _answer(self, answer: bytes) -> None:
        try:
            fcntl.ioctl(self._descriptor, _SEND, answer)
        except OSError as error:
            if error.errno != errno.ENOENT:  # it ended, or a signal took it out of the call
                raise


def is_known_machine() -> bool:
    """Whether filters can be made for this processor."""
    return platform.machine() in _CALLS and sys.byteorder == "little"


def tell_of_calls() -> int:
    """Filter the calls of this process and all that it starts, and return the descriptor of the listener.

    Raises
    ------
    OSError
        If the kernel, or a container's own listener, does not allow it.
    """
    return _install(_program(_TELL), _NEW_LISTENER)


def refuse_sockets() -> None:
    """Let no process from here on make sockets, but pairs of them; nobody is told of anything."""
    _install(_program(_ERRNO | errno.EACCES, ("socket",)), 0)


def _install(program: bytes, flags: int) -> int:
    buffer = ctypes.create_string_buffer(program)
    header = struct.pack("HxxxxxxQ", len(program) // 8, ctypes.addressof(buffer))
    kernel.allow_no_new_privileges()
    return kernel.system_call(_SECCOMP[platform.machine()], _SET_MODE_FILTER, flags, header)


@lru_cache(maxsize=2)
def _program(verdict: int, names: tuple[str, ...] = ()) -> bytes:
    """Return a filter with `verdict` on the calls `names` (all that we know without), in the kernel's code."""
    machine, calls = _CALLS[platform.machine()]
    numbers = [calls[name] for name in names or calls]
    is_absent = _instruction(_RETURN, _ERRNO | errno.ENOSYS)
    body = [
        _instruction(_LOAD, _MACHINE_AT),
        _instruction(_IS, machine, 1, 0),
        is_absent,
        _instruction(_LOAD, _NUMBER_AT),
        _instruction(_IS_AT_LEAST, _FIRST_X32, 0, 1),
        is_absent,
        _instruction(_IS, _IO_URING_SETUP, 0, 1),
        is_absent,
        *(_instruction(_IS, number, len(numbers) - i, 0) for i, number in enumerate(numbers)),
        _instruction(_RETURN, _ALLOW),
        _instruction(_RETURN, verdict),
    ]
    return b"".join(body)


def _instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("HBBI", code, if_true, if_false, value)


@lru_cache(maxsize=1)
def _names() -> dict[int, str]:
    return {number: name for name, number in _CALLS[platform.machine()][1].items()}
