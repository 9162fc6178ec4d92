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
from types import MappingProxyType
from typing import IO, Any, get_args

from loadmaster_registry.errors import ConfigError, StageError, did_you_mean

from .connections import Connection
from .file_provenance import FileProvenance
from .formats import FORMATS, Parameters, PythonType, Recipe, ending, format_of, unreadable

_PACKAGED = Path(__file__).with_name("storage.yaml")
_HAS_MEMORY = hasattr(os, "memfd_create")
_PLAIN = Recipe()


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


def is_convertible(stored: StorageClass | None, wanted: StorageClass | None) -> bool:
    """Whether a task that declares `wanted` can be given a file written as `stored`.

    Where other software reads the file (type bytes, or a class that is not listed: None), only that software knows,
    and the answer is yes.
    """
    if stored is None or wanted is None:
        return True
    if stored.type == wanted.type or "bytes" in (stored.type, wanted.type):
        return True
    return (wanted.type, stored.extension) in FORMATS


def as_stored(connection: Connection) -> StorageClass | None:
    """Return the storage class of a connection as its file is to be; None where only other software knows it."""
    known = storage_classes().get(connection.storage_class)
    type_ = known.type if known else connection.python_type
    if not type_:
        return None
    extension = known.extension if known else ""
    if connection.formats:
        extension = connection.formats[0].extension
    return StorageClass(connection.storage_class, type_, extension)  # type: ignore[arg-type]  # see `_type`


def read(
    name: str,
    path: Path,
    *,
    type_: str = "",
    component: str | None = None,
    parameters: Parameters = MappingProxyType({}),
) -> Any:
    """Read the file at `path`, or a part of it, as storage class `name`.

    Parameters
    ----------
    type_ : str
        What the storage class is in Python, if it is none of ours.
    component : str, optional
        Return this part only: an attribute of the object (``wcs``, ``mask``), or an entry of a mapping.
    parameters : mapping
        ``box`` (of images and arrays: the index with which one would cut the whole, ``np.s_[10:20, 0:5]``),
        ``rows`` (of tables: a slice), ``columns`` (a list of names, and of patterns such as ``*_flux``).

    Raises
    ------
    StageError
        If the file cannot be read as that, or has no such part.
    """
    kind = _type(name, type_)
    if component is not None and (kind, ending(path)) not in FORMATS:
        kind = _type_of_file(path)  # the class is the component's
    found = format_of(kind, path, name)
    for parameter in parameters:
        if parameter not in found.parameters:
            raise StageError(
                what=f"there is no parameter {parameter!r}",
                where=str(path),
                why=f"of a {ending(path)} file that is read as {kind}",
                todo=did_you_mean(parameter, found.parameters),
            )
    inside = component if component in found.components else None
    try:
        whole = found.read(path, inside, parameters)
    except StageError:
        raise
    except Exception as error:  # each library has its own
        raise unreadable(path, f"{type(error).__name__}: {error}") from error
    return whole if component is None or inside else _component(whole, component, path)


def write(
    obj: Any,
    name: str,
    path: Path,
    *,
    type_: str = "",
    memory: list[int] | None = None,
    recipe: Recipe = _PLAIN,
) -> str:
    """Write `obj` to a new file at `path` as storage class `name`; what stands there already stays.

    Parameters
    ----------
    type_ : str
        What the storage class is in Python, if it is none of ours.
    memory : list of int, optional
        Make a file that is in memory only, sealed against changes, to which `path` leads as long as the descriptor
        that is added here stays open. Where the system has no such files, it is one on disk.
    recipe : Recipe
        Compression, and what the file is to say of itself.

    Returns
    -------
    content : str
        The checksum that the file would have if it said nothing of itself; "" where it says nothing.

    Raises
    ------
    StageError
        If `path` is taken, or `obj` is not what the storage class holds. Nothing is left behind then.
    """
    writer = format_of(_type(name, type_), path, name).write
    new = _new_file(path) if memory is None or not _HAS_MEMORY else _new_memory(path, memory)
    with new as stream:
        return writer(obj, stream, recipe) or ""


def read_provenance(path: Path) -> FileProvenance | None:
    """Return what a file says of itself, from its header alone; None where it says nothing.

    Raises
    ------
    StageError
        If it cannot be read.
    """
    try:
        found = format_of(_type_of_file(path), path, "file that says what made it")
        return None if found.header is None else FileProvenance.from_keys(found.header(path))
    except StageError:
        raise
    except Exception as error:  # each library has its own
        raise unreadable(path, f"{type(error).__name__}: {error}") from error


@lru_cache(maxsize=1)
def storage_classes() -> Mapping[str, StorageClass]:
    """Return all storage classes by name."""
    import yaml  # here: a job is told the types of its files, and does not wait for this

    with open(_PACKAGED) as stream:
        document = yaml.load(stream, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return {name: StorageClass(name, *body) for name, body in document["storage_classes"].items()}


def _type(name: str, type_: str) -> PythonType:
    return type_ or storage_class(name).type  # type: ignore[return-value]  # a formats file names our types only


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


def _type_of_file(path: Path) -> PythonType:
    """Return the richest type that a file with this extension has (types are listed richest first)."""
    for type_ in get_args(PythonType):
        if (type_, ending(path)) in FORMATS:
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
