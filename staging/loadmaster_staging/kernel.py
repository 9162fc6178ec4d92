"""What the sandbox asks of Linux and Python has no function for: Landlock, prctl, capabilities, sockets of others.

Light: the job runner imports this. Numbers and structures are those of the kernel's own headers (linux/landlock.h,
linux/prctl.h, linux/capability.h), the same on all architectures but where said.
"""

import ctypes
import os
import struct
from collections.abc import Iterable
from functools import lru_cache

# Rights on files, by the first version of Landlock's interface (ABI) that knows them.
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
REMOVE_DIR, REMOVE_FILE, MAKE_DIR, MAKE_REG = 1 << 4, 1 << 5, 1 << 7, 1 << 8
MAKE_SOCK, MAKE_FIFO, MAKE_SYM = 1 << 9, 1 << 10, 1 << 12
REFER = 1 << 13  # 2: move and link between folders
TRUNCATE = 1 << 14  # 3
IOCTL_DEV = 1 << 15  # 5
_KNOWN_FS = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 4: (1 << 15) - 1, 5: (1 << 16) - 1}
_OF_FILES = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV  # what a rule about no folder may hold
_TCP = 3  # 4: bind and connect
_SCOPES = 3  # 6: abstract sockets and signals stay inside

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_ASK_VERSION = 1
_PATH_BENEATH = 1
_PIDFD_GETFD = 438
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER, _PR_SET_NO_NEW_PRIVS = 1, 36, 38
_CAPABILITY_VERSION_3 = 0x20080522


@lru_cache(maxsize=1)
def landlock_abi() -> int:
    """Return the version of Landlock that the running kernel has; 0 for none."""
    try:
        return max(0, int(_libc().syscall(_CREATE_RULESET, None, 0, _ASK_VERSION)))
    except (OSError, AttributeError):  # no Linux
        return 0


def rule(descriptor: int, rights: int) -> bytes:
    """Return the rule that gives rights on a file, or on a folder and all below; opened in any mode."""
    return struct.pack("=Qi", rights & _known_rights(), descriptor)


def restrict_files(rules: Iterable[bytes], *, tcp: bool) -> None:
    """Take from this process, and all that it starts, every right on files that no rule gives.

    Signals and abstract sockets reach only what it starts, where the kernel can do that.

    Parameters
    ----------
    rules : iterable of bytes
        Made by `rule`; the descriptors in them are open.
    tcp : bool
        Whether it may bind and connect TCP sockets.
    """
    abi = landlock_abi()
    handled = struct.pack("QQQ", _known_rights(), 0 if tcp else _TCP, _SCOPES)
    size = 8 if abi < 4 else 16 if abi < 6 else 24
    ruleset = _called(_CREATE_RULESET, handled, size, 0)
    try:
        call = _libc().syscall
        for each in rules:
            if call(_ADD_RULE, ruleset, _PATH_BENEATH, each, 0):
                raise _failed("landlock_add_rule")
        allow_no_new_privileges()
        _called(_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)


@lru_cache(maxsize=1)
def _known_rights() -> int:
    return _KNOWN_FS[max(1, min(landlock_abi(), max(_KNOWN_FS)))]


def rights_of_file(rights: int) -> int:
    """Return those of some rights that can be given on what is no folder."""
    return rights & _OF_FILES


def allow_no_new_privileges() -> None:
    """See to it that no program that this process starts has more privileges than it (set-user-ID and so on)."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def die_with_parent(signal: int) -> None:
    """Get `signal` when the parent ends, however it ends."""
    _prctl(_PR_SET_PDEATHSIG, signal)


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent ends."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def drop_capabilities() -> None:
    """Give up what root may beside the owner of files; with no new privileges, no program gets it back."""
    header = struct.pack("Ii", _CAPABILITY_VERSION_3, 0)
    if _libc().capset(header, bytes(24)):
        raise _failed("capset")


def descriptor_of(process: int, number: int) -> int:
    """Return a descriptor of our own for what another process has open as `number`."""
    pidfd = os.pidfd_open(process)
    try:
        return _called(_PIDFD_GETFD, pidfd, number, 0)
    finally:
        os.close(pidfd)


def memory_of(process: int, address: int, size: int) -> bytes:
    """Return `size` bytes of another process's memory, fewer where it ends."""
    buffer = ctypes.create_string_buffer(size)
    ours, theirs = _Piece(ctypes.addressof(buffer), size), _Piece(address, size)
    n = _libc().process_vm_readv(process, ctypes.byref(ours), 1, ctypes.byref(theirs), 1, 0)
    if n < 0:
        raise _failed("process_vm_readv")
    return buffer.raw[:n]


def _prctl(option: int, value: int) -> None:
    if _libc().prctl(option, value, 0, 0, 0):
        raise _failed("prctl")


def system_call(number: int, *arguments: object) -> int:
    """Call the kernel by number and return what it returns; -1 becomes OSError."""
    return _called(number, *arguments)


def _called(number: int, *arguments: object) -> int:
    result = int(_libc().syscall(number, *arguments))
    if result < 0:
        raise _failed(f"system call {number}")
    return result


def _failed(what: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"{what}: {os.strerror(number)}")


@lru_cache(maxsize=1)
def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    libc.prctl.argtypes = [ctypes.c_int] + [ctypes.c_ulong] * 4
    libc.process_vm_readv.restype = ctypes.c_ssize_t
    libc.process_vm_readv.argtypes = [
        ctypes.c_int,
        ctypes.c_void_p,
        ctypes.c_ulong,
        ctypes.c_void_p,
        ctypes.c_ulong,
        ctypes.c_ulong,
    ]
    return libc


class _Piece(ctypes.Structure):
    """The kernel's iovec."""

    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))
