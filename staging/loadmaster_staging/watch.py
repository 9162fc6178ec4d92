"""Who tries what in a sandbox: each file that is asked for by name is looked at before the kernel decides.

Nothing is refused here but sockets; files are Landlock's matter, or nobody's where only watched. So a program
that changes a name behind our back changes what is told of it, and not what it may do.
Light: the job runner imports this.
"""

import errno
import os
import socket
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Literal, TypeGuard

from . import kernel
from .seccomp import Listener, Notice
from .software import READ, Software

Kind = Literal["read", "overwrite", "create", "network"]
_AT_FDCWD = -100
_CREATED = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
_PAGE = 4096
_HOPS = 40  # symbolic links in one name; the kernel gives up there too
_KEPT = 20  # attempts that are remembered for each quantum
_INTERNET = {socket.AF_INET, socket.AF_INET6}
_CONNECTED = {socket.SOCK_STREAM, socket.SOCK_SEQPACKET}


@dataclass(frozen=True, slots=True)
class Attempt:
    """Something that a process tried and may not do."""

    kind: Kind
    path: str  # "" for the network

    def __str__(self) -> str:
        return f"{_WORDS[self.kind]} {self.path}".rstrip()


_WORDS = {
    "read": "read",
    "overwrite": "write or remove",
    "create": "make",
    "network": "use the network",
}


class Watch:
    """Hears what processes of a sandbox ask for, and remembers what they may not do.

    Parameters
    ----------
    own : mapping
        Rights beside those on software, by real path, of a file or of a folder and all below, as Landlock has them.
    root : str
        The job's own folder, a real path.
    is_enforced : bool
        Whether what is refused is refused, rather than only remembered.
    """

    def __init__(
        self, listener: Listener, software: Software, own: Mapping[str, int], root: str, *, is_enforced: bool
    ) -> None:
        self._listener = listener
        self._software = software
        self._own = own
        self._root = root
        self._given = (f"{root}/in/", f"{root}/made/")
        self._is_enforced = is_enforced
        self._home = f"{os.path.realpath(os.path.expanduser('~'))}/."
        self._found: dict[Attempt, None] = {}
        self.network = False  # whether the quantum at work may use it

    def fileno(self) -> int:
        """Return the descriptor to wait on."""
        return self._listener.fileno()

    def close(self) -> None:
        """Hear no more."""
        self._listener.close()

    def hear(self) -> None:
        """Answer one call that waits."""
        notice = self._listener.receive()
        if notice is None:
            return
        refused = 0
        with suppress(OSError):  # it ended, or hides its memory: nothing can be said of what it tried
            if notice.call == "socket":
                refused = self._made_socket(notice)
            elif notice.call == "connect":
                if self._connects(notice):
                    return
            else:
                self._tried(notice)
        if refused and self._is_enforced:
            self._listener.refuse(notice, refused)
        else:
            self._listener.let_go_on(notice)

    def take(self) -> list[Attempt]:
        """Return what was tried since the last call, in order."""
        found, self._found = list(self._found), {}
        return found

    def _tried(self, notice: Notice) -> None:
        """Look at a call that names files."""
        first, second, third, fourth, *_ = notice.arguments
        match notice.call:
            case "openat":
                self._opened(notice, _signed(first), second, third)
            case "open":
                self._opened(notice, _AT_FDCWD, first, second)
            case "openat2":
                flags = int.from_bytes(kernel.memory_of(notice.process, third, 8), "little")
                self._opened(notice, _signed(first), second, flags)
            case "creat" | "truncate":
                self._opened(notice, _AT_FDCWD, first, _CREATED if notice.call == "creat" else os.O_WRONLY)
            case "execve":
                self._started(notice, _AT_FDCWD, first)
            case "execveat":
                self._started(notice, _signed(first), second)
            case "unlink":
                self._removed(notice, _AT_FDCWD, first)
            case "unlinkat":
                self._removed(notice, _signed(first), second)
            case "rename":
                self._removed(notice, _AT_FDCWD, first)
                self._removed(notice, _AT_FDCWD, second)
            case "renameat" | "renameat2":
                self._removed(notice, _signed(first), second)
                self._removed(notice, _signed(third), fourth)
            case "link":
                self._linked(notice, _AT_FDCWD, first)
            case "linkat":
                self._linked(notice, _signed(first), second)

    def _opened(self, notice: Notice, folder: int, address: int, flags: int) -> None:
        if flags & os.O_PATH == os.O_PATH:
            return
        is_written = bool(flags & os.O_ACCMODE)
        text = _text(notice.process, address)
        if not is_written and self._is_plain(text):
            return
        if is_written and self._is_given(name := self._resolved(notice.process, folder, text, follow=False)):
            self._remember(notice, "overwrite", name)
            return
        path = self._resolved(notice.process, folder, text)
        if path is None:
            return
        if is_written:
            self._write(notice, path, flags)
        if flags & os.O_ACCMODE != os.O_WRONLY:
            self._read(notice, path, READ)

    def _is_plain(self, text: str) -> bool:
        """Whether a name may be read whatever it leads to: no process can make links where it is."""
        return "/.." not in text and (
            text.startswith(self._software.folders) or text.startswith(self._given[0])
        )

    def _started(self, notice: Notice, folder: int, address: int) -> None:
        path = self._resolved(notice.process, folder, _text(notice.process, address))
        if path is not None and os.access(path, os.X_OK):
            self._read(notice, path, kernel.EXECUTE)

    def _removed(self, notice: Notice, folder: int, address: int) -> None:
        path = self._resolved(notice.process, folder, _text(notice.process, address), follow=False)
        if path is not None and os.path.lexists(path) and not self._granted(path) & kernel.REMOVE_FILE:
            self._remember(notice, "overwrite", path)

    def _linked(self, notice: Notice, folder: int, address: int) -> None:
        path = self._resolved(notice.process, folder, _text(notice.process, address), follow=False)
        if path is not None:
            self._read(notice, path, READ)

    def _read(self, notice: Notice, path: str, wanted: int) -> None:
        allowed = self._granted(path)
        if allowed & wanted == wanted:
            return
        try:
            is_folder = stat.S_ISDIR(os.stat(path).st_mode)
        except OSError:  # what is not there, or what nobody may see, is no loss to whoever looks for it
            return
        needed = kernel.READ_DIR if is_folder else wanted & ~kernel.READ_DIR
        if allowed & needed == needed or path.startswith(self._home):
            return
        below = f"{path.rstrip('/')}/"
        if is_folder and any(known.startswith(below) for known in (*self._own, *self._software.rights)):
            return  # on the way to what it may read
        self._remember(notice, "read", path)

    def _write(self, notice: Notice, path: str, flags: int) -> None:
        if self._granted(path) & kernel.WRITE_FILE or path.startswith(self._home):
            return
        is_there = os.path.lexists(path) and flags & os.O_TMPFILE != os.O_TMPFILE
        if is_there and flags & os.O_EXCL:
            return  # it only asks whether the name is free
        if is_there or flags & os.O_CREAT:
            self._remember(notice, "overwrite" if is_there else "create", path)

    def _is_given(self, name: str | None) -> TypeGuard[str]:
        """Whether a name is that of an input, wherever it leads to, which may be to memory."""
        return name is not None and name.startswith(self._given) and os.path.lexists(name)

    def _made_socket(self, notice: Notice) -> int:
        """Return the error with which a call that makes a socket is refused; 0 if it is not."""
        family, type = notice.arguments[0] & 0xFFFFFFFF, notice.arguments[1] & 0xF
        if family == socket.AF_UNIX:
            return 0 if type in _CONNECTED else errno.EACCES
        if self.network:
            return 0
        if family in _INTERNET:
            self._remember(notice, "network", "")
        return errno.EACCES

    def _connects(self, notice: Notice) -> bool:
        """Connect a socket of this machine for the process that asks; False if it is another kind of socket.

        Were it to do it itself, it could give one address to us and another to the kernel.
        """
        process, address, size = _leader(notice.process), notice.arguments[1], notice.arguments[2]
        with socket.socket(fileno=kernel.descriptor_of(process, _signed(notice.arguments[0]))) as its:
            if its.family != socket.AF_UNIX or not self._is_enforced:
                return False
            name = kernel.memory_of(notice.process, address, min(size, 128))[2:].split(b"\0")[0].decode()
            self._listener.refuse(notice, self._connected(its, notice, name) if name else errno.EACCES)
        return True

    def _connected(self, its: socket.socket, notice: Notice, name: str) -> int:
        """Connect to a socket in the job's own folder and return the error, 0 for none."""
        try:
            place = os.open(os.path.join(f"/proc/{notice.process}/cwd", name), os.O_PATH)
        except OSError as error:
            return error.errno or errno.EACCES
        try:
            path = os.readlink(link := f"/proc/self/fd/{place}")
            if not self._granted(path) & kernel.WRITE_FILE:
                self._remember(notice, "read", path)
                return errno.EACCES
            with _without_waiting(its):
                return its.connect_ex(link)
        finally:
            os.close(place)

    def _granted(self, path: str) -> int:
        return granted(self._own, path) | granted(self._software.rights, path)

    def _remember(self, notice: Notice, kind: Kind, path: str) -> None:
        if len(self._found) < _KEPT and self._listener.is_waiting(notice):
            self._found[Attempt(kind, path)] = None

    def _resolved(self, process: int, folder: int, text: str, *, follow: bool = True) -> str | None:
        """Return the real path of a name as a process means it; None if it leads to no file."""
        if not text:
            return None
        if not text.startswith("/"):
            place = "cwd" if folder == _AT_FDCWD else f"fd/{folder}"
            start = os.readlink(f"/proc/{process}/{place}")
            if not start.startswith("/"):
                return None
            text = f"{start}/{text}"
        if text.startswith(prefix := f"{self._root}/"):
            return _walked(self._root, text[len(prefix) :], process, follow)
        return _walked("", text, process, follow)


def granted(rights: Mapping[str, int], path: str) -> int:
    """Return the rights on a real path: those of itself and of all folders that it is in."""
    found = rights.get(path, 0)
    while len(path) > 1:
        path = path[: path.rfind("/")] or "/"
        found |= rights.get(path, 0)
    return found


def _walked(real: str, rest: str, process: int, follow: bool) -> str | None:
    """Go down from a real path by names, through symbolic links; a process's own links in /proc are its own."""
    names = rest.split("/")[::-1]
    hops = 0
    while names:
        name = names.pop()
        if name in ("", "."):
            continue
        if name == "..":
            real = real[: real.rfind("/")] if real else ""
            continue
        here = f"{real}/{name}"
        if here == "/proc/self":
            here = f"/proc/{_leader(process)}"
        elif here == "/proc/thread-self":
            here = f"/proc/{_leader(process)}/task/{process}"
        elif names or follow:
            try:
                target = os.readlink(here)
            except OSError:  # no link, or not there
                target = ""
            if target:
                hops += 1
                if hops > _HOPS or (here.startswith("/proc/") and not target.startswith("/")):
                    return None  # a pipe, a socket
                names += target.split("/")[::-1]
                real = "" if target.startswith("/") else real
                continue
        real = here
    return real or "/"


def _leader(process: int) -> int:
    """Return the process that a thread is of."""
    with open(f"/proc/{process}/status") as stream:
        for line in stream:
            if line.startswith("Tgid:"):
                return int(line[5:])
    return process


def _text(process: int, address: int) -> str:
    """Return the text that ends with a zero in another process's memory."""
    found = b""
    while b"\0" not in found and len(found) < _PAGE:
        found += kernel.memory_of(
            process, address + len(found), min(256, _PAGE - (address + len(found)) % _PAGE)
        )
    return os.fsdecode(found.partition(b"\0")[0])


def _signed(value: int) -> int:
    """Return an argument that is an int in C."""
    low = value & 0xFFFFFFFF
    return low - (1 << 32) if low & 0x80000000 else low


@contextmanager
def _without_waiting(its: socket.socket) -> Iterator[None]:
    """Let a socket not wait while it is connected: whoever accepts may wait for an answer of ours."""
    waits = os.get_blocking(its.fileno())
    os.set_blocking(its.fileno(), False)
    try:
        yield
    finally:
        os.set_blocking(its.fileno(), waits)
