"""What of a machine is software, which jobs may read and run: the system's, Python's, and what a site adds.

Light: the job runner imports this.
"""

import hashlib
import os
import platform
import re
import shlex
import stat
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from . import kernel

READ = kernel.READ_FILE | kernel.READ_DIR
USE = READ | kernel.EXECUTE
CHANGE = kernel.READ_FILE | kernel.WRITE_FILE | kernel.TRUNCATE
OWN = (
    USE | kernel.WRITE_FILE | kernel.TRUNCATE | kernel.REMOVE_DIR | kernel.REMOVE_FILE | kernel.MAKE_DIR
    | kernel.MAKE_REG | kernel.MAKE_SOCK | kernel.MAKE_FIFO | kernel.MAKE_SYM | kernel.REFER
)  # fmt: skip

_SYSTEM = (
    "/usr", "/lib", "/lib32", "/lib64", "/libx32", "/bin", "/sbin", "/opt", "/etc", "/proc", "/sys",
    "/run/systemd/resolve", "/var/cache/fontconfig", "/var/lib/texmf",
)  # fmt: skip
_SEARCHED = ("PATH", "LD_LIBRARY_PATH")  # lists of folders in the environment
_DEVICES = ("null", "zero", "full", "random", "urandom", "tty", "ptmx", "pts")
_ACCELERATORS = ("nvidia", "dri", "kfd")  # how names of devices begin that programs drive by ioctl
_INTERPRETER = re.compile(r"(python|perl|ruby|julia|node|lua|tclsh|Rscript|bash|dash|ksh|sh|zsh)[\d.]*")
_MODULES = (".py", ".pyc", ".so", ".zip", ".egg")


@dataclass(frozen=True)
class Software:
    """Rights that all jobs of a worker have in common."""

    rights: Mapping[str, int]  # by real path, of a file or of a folder and all below
    rules: tuple[bytes, ...]  # the same for the kernel, with descriptors that stay open
    folders: tuple[
        str, ...
    ]  # with a slash at the end: what is in them can be used, and nothing in them changed


@lru_cache(maxsize=4)
def software(added: tuple[str, ...], hidden: tuple[str, ...]) -> Software:
    """Find the software; it is looked for once in a process.

    Parameters
    ----------
    added : tuple of str
        Folders that the site names.
    hidden : tuple of str
        Folders that hold data. Where software is found around one, as a repository inside a folder of Python
        modules, what leads to it is left out.
    """
    data = {os.path.realpath(path) for path in hidden}
    rights: dict[str, int] = {}
    for path in (*_SYSTEM, *_python_folders(), *added):
        _add(rights, path, data, modules_only=False)
    data.add(os.path.realpath(os.path.expanduser("~")))
    for path in (*sys.path, *_searched_folders()):
        _add(rights, path, data, modules_only=True)
    rights.update(_devices())
    rules = []
    for path, granted in rights.items():
        if (descriptor := opened(path)) is not None:
            rules.append(kernel.rule(descriptor, granted))
    folders = tuple(f"{path}/" for path, granted in rights.items() if granted == USE and path != "/proc")
    return Software(rights, tuple(rules), folders)


@lru_cache(maxsize=64)
def program_rights(command: str) -> Mapping[str, int]:
    """Return the rights on what a command itself names: its program, or an interpreter's script with its modules."""
    program, *words = shlex.split(command)
    rights: dict[str, int] = {}
    named = [program]
    if _INTERPRETER.fullmatch(os.path.basename(program)):
        script = next((word for word in words if not word.startswith("-")), "")
        named.append(script)
        if os.path.isfile(script):
            folder = os.path.dirname(os.path.realpath(script))
            _add(rights, folder, {folder}, modules_only=True)
    for path in named:
        if os.path.isabs(path) and os.path.isfile(path):
            rights[os.path.realpath(path)] = kernel.READ_FILE | kernel.EXECUTE
    return rights


def opened(path: str) -> int | None:
    """Return a descriptor that only stands for a path; None if it cannot be had."""
    try:
        return os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return None


@lru_cache(maxsize=1)
def software_digest() -> str:
    """Return a digest of Python's version and of the names and versions of all packages that it can import.

    Packages are known by the folders that installers leave beside them (``numpy-2.1.0.dist-info``).
    """
    packages: set[str] = set()
    for folder in {os.path.realpath(entry) for entry in sys.path if entry}:
        try:
            names = os.listdir(folder)
        except OSError:
            continue
        packages.update(name for name in names if name.endswith((".dist-info", ".egg-info")))
    text = "\n".join([platform.python_implementation(), sys.version, platform.machine(), *sorted(packages)])
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def _add(rights: dict[str, int], path: str, data: set[str], *, modules_only: bool) -> None:
    """Give the right to use a folder, or, of one that holds data as well, what in it is software."""
    real = os.path.realpath(path)
    if not os.path.isabs(path) or rights.get(real) == USE or not os.path.exists(real):
        return
    if not _leads_to(real, data) and not (real == "/etc" and os.geteuid() == 0):
        rights[real] = USE
        return
    rights.setdefault(real, kernel.READ_DIR)
    for child in _children(real):
        if child.is_symlink() or (modules_only and not _is_module(child)):
            continue
        if modules_only and _leads_to(child.path, data):
            continue
        if (
            real == "/etc" and not child.stat().st_mode & stat.S_IROTH
        ):  # root may not be more here than others
            continue
        if child.path in data:
            continue
        if child.is_dir():
            _add(rights, child.path, data, modules_only=modules_only)
        else:
            rights[child.path] = kernel.READ_FILE | kernel.EXECUTE


def _leads_to(folder: str, data: Iterable[str]) -> bool:
    prefix = folder.rstrip("/") + "/"
    return any(path == folder or path.startswith(prefix) for path in data)


def _children(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError:
        return []


def _is_module(entry: os.DirEntry[str]) -> bool:
    if entry.is_dir():
        return entry.name.endswith((".dist-info", ".egg-info")) or os.path.exists(f"{entry.path}/__init__.py")
    return entry.name.endswith(_MODULES)


def _python_folders() -> Iterator[str]:
    yield from dict.fromkeys((sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix))
    yield str(Path(sys.executable).resolve().parent)


def _searched_folders() -> Iterator[str]:
    for name in _SEARCHED:
        yield from filter(None, os.environ.get(name, "").split(os.pathsep))


def _devices() -> Iterator[tuple[str, int]]:
    for name in _DEVICES:
        if os.path.exists(path := f"/dev/{name}"):
            is_folder = os.path.isdir(path)
            yield path, CHANGE | kernel.IOCTL_DEV | (kernel.READ_DIR if is_folder else 0)
    if os.path.isdir("/dev/shm"):
        yield os.path.realpath("/dev/shm"), OWN & ~kernel.EXECUTE
    for entry in _children("/dev"):
        if entry.name.startswith(_ACCELERATORS):
            folder = kernel.READ_DIR if entry.is_dir() else 0
            yield entry.path, CHANGE | kernel.IOCTL_DEV | folder
