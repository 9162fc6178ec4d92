"""What FITS files say of themselves, in the header of their first HDU."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from astropy.io import fits

from ..file_provenance import FileProvenance, provenance_keys
from . import unreadable


def read_header(path: Path) -> Mapping[str, Any]:
    """Return the header of the first HDU; nothing else of the file is read."""
    header: Mapping[str, Any] = dict(fits.getheader(path, 0))
    return header


def add_provenance(header: Any, provenance: FileProvenance | None) -> None:
    """Write the keys into a header, in place of any that speak of another file."""
    drop_provenance(header)
    if provenance is None:
        return
    for key, value in provenance.keys(" ").items():
        header[f"HIERARCH {key}"] = _printable(value)


def label(path: Path, provenance: FileProvenance) -> None:
    """Write the keys into the first header of a file that is there."""
    try:
        with fits.open(path, mode="update", memmap=False) as hdus:
            add_provenance(hdus[0].header, provenance)
    except OSError as error:
        raise unreadable(path, f"it is no FITS file: {error}") from error


def drop_provenance(header: Any) -> None:
    """Take the keys out of a header: they speak of the file, not of the object that was in it."""
    for key in provenance_keys(header):
        del header[key]


def _printable(value: int | str) -> int | str:
    """Return the value as FITS can hold it: printable ASCII."""
    return value.encode("ascii", "backslashreplace").decode() if isinstance(value, str) else value
