"""Storage classes: which file a dataset is, and how Python reads and writes it.

How each kind of file is read and written is in `formats`.
"""

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, get_args

import yaml
from loadmaster_registry.errors import ConfigError, StageError, did_you_mean

from .formats import FORMATS, Format, PythonType, unreadable

_PACKAGED = Path(__file__).with_name("storage.yaml")
_HAS_MEMORY = hasattr(os, "memfd_create")


@dataclass(frozen=True, slots=True)
class StorageClass:
    """A name, the type in Python, and the extension (with its dot) of the file."""

    name: str
    type: PythonType
    extension: str


def storage_class(name: str) -> StorageClass:
    """Return the storage class `name`.

    Raises
    ------
    ConfigError
        If there is none, with what was perhaps meant.
    """
    known = storage_classes()
    if name not in known:
        raise ConfigError(
            what=f"there is no storage class {name!r}",
            where=_PACKAGED.name,
            why="the name is not listed there",
            todo=did_you_mean(name, known) + " A file of another kind is a 'File'",
        )
    return known[name]


def extension_of(name: str) -> str:
    """Return the extension, with its dot, of files of this storage class; ``.dat`` where only others know it."""
    known = storage_classes().get(name)
    return known.extension if known else ".dat"


def is_convertible(stored: str, wanted: str) -> bool:
    """Whether a task that declares `wanted` can be given a file written as `stored`.

    Where other software reads the file (type bytes, or a class that is not listed), only that software knows,
    and the answer is yes.
    """
    if not {stored, wanted} <= storage_classes().keys():
        return True
    written, asked = storage_class(stored), storage_class(wanted)
    if written.type == asked.type or "bytes" in (written.type, asked.type):
        return True
    return (asked.type, written.extension) in FORMATS


def read(name: str, path: Path, *, component: str | None = None) -> Any:
    """Read the file at `path` as storage class `name`.

    Parameters
    ----------
    component : str, optional
        Return this part only: an attribute of the object (``wcs``, ``mask``), or an entry of a mapping.

    Raises
    ------
    StageError
        If the file cannot be read as that.
    """
    wanted = storage_class(name)
    if component is not None:
        return _component(_read_file(_type_of_file(path), path), component, path)
    return _read_file(wanted.type, path)


def write(obj: Any, name: str, path: Path, *, memory: list[int] | None = None) -> None:
    """Write `obj` to a new file at `path` as storage class `name`; what stands there already stays.

    Parameters
    ----------
    memory : list of int, optional
        Make a file that is in memory only, sealed against changes, to which `path` leads as long as the descriptor
        that is added here stays open. Where the system has no such files, it is one on disk.

    Raises
    ------
    StageError
        If `path` is taken, or `obj` is not what the storage class holds. Nothing is left behind then.
    """
    wanted = storage_class(name)
    writer = _format(wanted.type, path, name).write
    new = _new_file(path) if memory is None or not _HAS_MEMORY else _new_memory(path, memory)
    with new as stream:
        writer(obj, stream)


@lru_cache(maxsize=1)
def storage_classes() -> Mapping[str, StorageClass]:
    """Return all storage classes by name."""
    with open(_PACKAGED) as stream:
        document = yaml.load(stream, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return {name: StorageClass(name, *body) for name, body in document["storage_classes"].items()}


@contextmanager
def _new_file(path: Path) -> Iterator[IO[bytes]]:
    """Open a file that is not there yet; it is gone again if its writing fails."""
    try:
        # Mode "xb" would say the same, but astropy refuses to write to a file of that mode.
        stream = open(path, "wb", opener=_exclusively)  # noqa: SIM115 (closed below)
    except FileExistsError:
        raise _is_taken(path) from None
    try:
        with stream:
            yield stream
    except BaseException:
        path.unlink()
        raise


@contextmanager
def _new_memory(path: Path, memory: list[int]) -> Iterator[IO[bytes]]:
    """Open a file in memory, to which `path` leads once it is written."""
    if os.path.lexists(path):
        raise _is_taken(path)
    number = os.memfd_create(path.name, os.MFD_ALLOW_SEALING | os.MFD_CLOEXEC)
    try:
        with open(number, "wb", closefd=False) as stream:
            yield stream
        os.fchmod(number, 0o444)
        fcntl.fcntl(number, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK)
        # By process, and not `self`: so that programs which a task starts can read it too.
        path.symlink_to(f"/proc/{os.getpid()}/fd/{number}")
        memory.append(number)
    except BaseException:
        os.close(number)
        raise


def _is_taken(path: Path) -> StageError:
    return StageError(
        what=f"{path.name} is there already",
        where=str(path),
        why="nothing that was written is ever overwritten",
        todo="put each output once",
    )


def _exclusively(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_EXCL, 0o666)


def _format(type_: PythonType, path: Path, name: str) -> Format:
    found = FORMATS.get((type_, _ending(path))) or FORMATS.get((type_, "*"))
    if found is None:
        endings = sorted(extension for kind, extension in FORMATS if kind == type_)
        raise StageError(
            what=f"{path.name} cannot be a {name}",
            where=str(path),
            why=f"as {type_} we read and write {', '.join(endings)}",
            todo="declare the storage class with which the file was written",
        )
    return found


def _read_file(type_: PythonType, path: Path) -> Any:
    reader = _format(type_, path, type_).read
    try:
        return reader(path)
    except StageError:
        raise
    except Exception as error:  # each library has its own
        raise unreadable(path, f"{type(error).__name__}: {error}") from error


def _ending(path: Path) -> str:
    """Return the extension, of which FITS has several: ``.fit``, ``.fts``, ``.fits.gz``, ``.fits.fz``."""
    ending = path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix
    return ".fits" if ending in (".fit", ".fts", ".fz") else ending


def _type_of_file(path: Path) -> PythonType:
    """Return the richest type that a file with this extension has (types are listed richest first)."""
    for type_ in get_args(PythonType):
        if (type_, _ending(path)) in FORMATS:
            return type_  # type: ignore[no-any-return]
    return "bytes"


def _component(whole: Any, component: str, path: Path) -> Any:
    if isinstance(whole, Mapping) and component in whole:
        return whole[component]
    if not component.startswith("_") and hasattr(whole, component):
        return getattr(whole, component)
    parts = whole if isinstance(whole, Mapping) else [n for n in dir(whole) if not n.startswith("_")]
    raise StageError(
        what=f"there is no component {component!r}",
        where=str(path),
        why=f"the file was read as {type(whole).__name__}",
        todo=did_you_mean(component, map(str, parts)),
    )
