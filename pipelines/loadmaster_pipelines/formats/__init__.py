"""How each kind of file is read and written, by type in Python and extension.

Each library (astropy, polars, h5py) is imported by the module that uses it, and that module when a file of its
kind is read or written: most tasks need one of them or none, and each costs more than the whole job runner.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import IO, Any, Literal

from loadmaster_registry.errors import StageError

from ..file_provenance import FileProvenance

# Richest first: as which type a file is read when one of its components is asked for.
PythonType = Literal["image", "table", "frame", "skymap", "json", "array", "figure", "text", "bytes"]
Parameters = Mapping[str, Any]  # which part of a dataset is wanted


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a file is to be written, beyond what is in it."""

    options: Mapping[str, Any] = field(default_factory=dict)  # of its format, as in a formats file
    provenance: FileProvenance | None = None


@dataclass(frozen=True, slots=True)
class Format:
    """A reader and a writer that undo each other.

    The reader is given the component that is wanted, if it is one of `components`, and parameters that are among
    `parameters`; what it is not asked for, it does not read.
    """

    read: Callable[[Path, str | None, Parameters], Any]
    # It returns the digest of what the file would be without the keys of its provenance, if it has any.
    write: Callable[[Any, IO[bytes], Recipe], str | None]
    components: tuple[str, ...] = ()
    parameters: tuple[str, ...] = ()
    header: Callable[[Path], Mapping[str, Any]] | None = None  # the keys in which it says what it is
    # Writes them into what other software wrote, and returns the digest of that.
    label: Callable[[Path, FileProvenance], str] | None = None


# By type and extension; "*" stands for every extension. A file may be read as several types: that is how the
# storage class of a consumer may differ from its producer's. The value is the module here, and its `Format`.
FORMATS: Mapping[tuple[PythonType, str], str] = {
    ("image", ".fits"): "fits_images.IMAGE_FORMAT",
    ("table", ".fits"): "fits_tables.TABLE",
    ("table", ".ecsv"): "text_tables.ECSV",
    ("table", ".vot"): "text_tables.VOTABLE",
    ("table", ".parq"): "parquet.TABLE",
    ("frame", ".parq"): "parquet.FRAME",
    ("image", ".h5"): "hdf5.IMAGE_FORMAT",
    ("table", ".h5"): "hdf5.TABLE_FORMAT",
    ("array", ".h5"): "hdf5.ARRAY_FORMAT",
    ("skymap", ".json"): "skymaps.SKYMAP",
    ("json", ".json"): "plain.JSON",
    ("json", ".yaml"): "yaml_values.YAML",
    ("array", ".npy"): "arrays.ARRAY",
    ("figure", ".png"): "plain.PNG",
    ("figure", ".pdf"): "plain.PDF",
    ("figure", ".svg"): "plain.SVG",
    ("text", "*"): "plain.TEXT",
    ("bytes", "*"): "plain.BYTES",
}


def has_format(type_: PythonType, path: Path) -> bool:
    """Whether a file of this name can hold this type."""
    return (type_, ending(path)) in FORMATS or (type_, "*") in FORMATS


def format_of(type_: PythonType, path: Path, name: str) -> Format:
    """Return how a file of this name holds this type.

    Raises
    ------
    StageError
        If it cannot; `name` is what the error calls what was wanted.
    """
    found = FORMATS.get((type_, ending(path))) or FORMATS.get((type_, "*"))
    if found is None:
        endings = sorted(extension for kind, extension in FORMATS if kind == type_)
        raise StageError(
            what=f"{path.name} cannot be a {name}",
            where=str(path),
            why=f"as {type_} we read and write {', '.join(endings)}",
            todo="declare the storage class with which the file was written",
        )
    module, _, attribute = found.partition(".")
    format_: Format = getattr(import_module(f"{__name__}.{module}"), attribute)
    return format_


def write_label(path: Path, provenance: FileProvenance) -> str:
    """Write what it is into the header of a file that other software wrote; nothing else in it changes.

    Returns
    -------
    content : str
        The digest of the file as it would be without such keys.

    Raises
    ------
    StageError
        If it is no FITS file.
    """
    label = format_of("image", path, "file with a header").label
    if label is None:
        raise unreadable(path, "only into the headers of FITS files can more be written")
    return label(path, provenance)


def ending(path: Path) -> str:
    """Return the extension, of which FITS has several: ``.fit``, ``.fts``, ``.fits.gz``, ``.fits.fz``."""
    found = path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix
    return _SAME.get(found, found)


def unreadable(path: Path, why: str) -> StageError:
    """Return the error for a file that is not what its storage class says."""
    return StageError(
        what=f"{path.name} cannot be read",
        where=str(path),
        why=why,
        todo="declare the storage class with which the file was written",
    )


def not_a(obj: Any, wanted: str) -> StageError:
    """Return the error for an object that a storage class does not hold."""
    return StageError(
        what=f"a {type(obj).__module__}.{type(obj).__qualname__} cannot be written here",
        where="OutputHandle.put",
        why=f"the storage class holds {wanted}",
        todo="convert the object first, or declare another storage class",
    )


_SAME = {
    ".fit": ".fits",
    ".fts": ".fits",
    ".fz": ".fits",
    ".parquet": ".parq",
    ".hdf5": ".h5",
    ".yml": ".yaml",
}
