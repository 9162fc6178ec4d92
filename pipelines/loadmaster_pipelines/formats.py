"""How each kind of file is read and written: pairs of functions by type in Python and extension.

The libraries (astropy, polars, numpy) are imported inside the functions that use them: this module is loaded
on the compute node, where most tasks need one of them or none, and each costs more than the whole job runner.
"""

import io
import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, Literal

from loadmaster_registry.errors import StageError

# Richest first: as which type a file is read when one of its components is asked for.
PythonType = Literal["image", "table", "frame", "skymap", "json", "array", "figure", "text", "bytes"]

_NOT_FINITE = "$float"  # JSON has no NaN and no infinity: they are written as {"$float": "nan"}
_PLATE_SOLUTION = re.compile(r"AMD[XY]\d+|PPO\d+|PLT(RA|DEC)\w*|CNPIX[12]|[XY]PIXELSZ")
_FLAGS = "FLAGS"  # FITS extension for CCDData.flags (bit planes); astropy itself does not write it


@dataclass(frozen=True, slots=True)
class Format:
    """A reader and a writer that undo each other."""

    read: Callable[[Path], Any]
    write: Callable[[Any, IO[bytes]], None]


def _read_image(path: Path) -> Any:
    from astropy.io import fits
    from astropy.nddata import CCDData

    with fits.open(path, memmap=False) as hdus:
        first = next((h for h in hdus if h.is_image and h.data is not None), None)
        if first is None:
            raise unreadable(path, "the file holds no image")
        image = CCDData.read(path, format="fits", unit=_unit(first.header))
        image.data = _native(image.data)
        if image.uncertainty is not None:
            image.uncertainty.array = _native(image.uncertainty.array)
        if _FLAGS in hdus:
            image.flags = _native(hdus[_FLAGS].data)
    return image


def _unit(header: Any) -> Any:
    """Return the unit to give to the reader: None where the header itself names one that astropy knows."""
    from astropy.units import Unit

    written = header.get("BUNIT")
    if written is None:
        return "adu"
    try:
        Unit(written)
    except ValueError:
        # Cameras write many words here (counts, e-, DN…); they come back as they are, in no system of units.
        return Unit(written, parse_strict="silent")
    return None


def _write_image(obj: Any, stream: IO[bytes]) -> None:
    from astropy.io import fits
    from astropy.nddata import CCDData

    if not isinstance(obj, CCDData):
        raise _not_a(obj, "an image (astropy.nddata.CCDData)")
    hdus = obj.to_hdu(wcs_relax=True)
    if obj.wcs is not None:
        _drop_plate_solution(hdus[0].header)
    if obj.flags is not None:
        hdus.append(fits.ImageHDU(obj.flags, name=_FLAGS))
    hdus.writeto(stream)


def _drop_plate_solution(header: Any) -> None:
    """Take the keywords of a scanned plate's own solution out; the WCS beside them says the same.

    On a header that has both, wcslib (8.x) overruns its memory and the process dies.
    """
    for keyword in list(header):
        if _PLATE_SOLUTION.fullmatch(keyword):
            del header[keyword]


def _native(array: Any) -> Any:
    """Return the array in the machine's byte order: FITS has the other, which compiled code often refuses."""
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _read_table(path: Path, *, kind: str) -> Any:
    from astropy.table import Table

    # Without `mask_invalid` a NaN stays a NaN and an empty text a text, as they were written.
    return Table.read(path, format=kind, **({"mask_invalid": False} if kind == "fits" else {}))


def _write_table(obj: Any, stream: IO[bytes], *, kind: str) -> None:
    from astropy.table import Table

    if not isinstance(obj, Table):
        raise _not_a(obj, "a table (astropy.table.Table)")
    if kind == "ascii.ecsv":
        text = io.StringIO()
        obj.write(text, format=kind)
        stream.write(text.getvalue().encode())
    else:
        obj.write(stream, format=kind)


def _read_frame(path: Path) -> Any:
    import polars

    return polars.read_parquet(path)


def _write_frame(obj: Any, stream: IO[bytes]) -> None:
    import polars

    if not isinstance(obj, polars.DataFrame):
        raise _not_a(obj, "a frame (polars.DataFrame)")
    obj.write_parquet(stream)


def _read_parquet_table(path: Path) -> Any:
    import polars
    from astropy.table import MaskedColumn, Table

    table = Table(masked=False)
    for column in polars.read_parquet(path):
        values = column.to_numpy()
        if column.null_count() and not column.dtype.is_float():
            # A null needs some value under its mask; the type's own zero does.
            values = column.fill_null(strategy="zero").to_numpy() if column.dtype.is_numeric() else values
            table[column.name] = MaskedColumn(values, mask=column.is_null().to_numpy())
        else:
            table[column.name] = values
    return table


def _write_parquet_table(obj: Any, stream: IO[bytes]) -> None:
    import polars
    from astropy.table import Table

    if not isinstance(obj, Table):
        raise _not_a(obj, "a table (astropy.table.Table)")
    polars.DataFrame({name: _parquet_column(obj[name]) for name in obj.colnames}).write_parquet(stream)


def _parquet_column(column: Any) -> Any:
    import numpy as np
    import polars

    values = np.ascontiguousarray(_native(np.asarray(column)))
    series = polars.Series(values=values.astype(str) if values.dtype.kind == "S" else values)
    mask = np.ma.getmaskarray(column) if np.ma.isMaskedArray(column) else None
    if mask is None or not mask.any():
        return series
    return (
        polars.DataFrame({"v": series, "m": mask})
        .select(polars.when(~polars.col("m")).then(polars.col("v")))
        .to_series()
    )


def _read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"), object_hook=_restore)


def _write_json(obj: Any, stream: IO[bytes]) -> None:
    stream.write(json.dumps(_plain(obj), indent=1, allow_nan=False, ensure_ascii=False).encode())


def _plain(obj: Any) -> Any:
    """Return `obj` as JSON can hold it: numpy's numbers and arrays become Python's, NaN is spelled out."""
    if obj is None or isinstance(obj, (str, bool, int)):
        return obj
    if isinstance(obj, float):
        return float(obj) if math.isfinite(obj) else {_NOT_FINITE: repr(float(obj))}
    if isinstance(obj, Mapping):
        if not all(isinstance(key, str) for key in obj):
            raise _not_a(obj, "mappings whose keys are text")
        return {str(key): _plain(value) for key, value in obj.items()}
    if isinstance(obj, (list, tuple)):
        return [_plain(value) for value in obj]
    if hasattr(obj, "tolist"):  # numpy's arrays and numbers, without importing numpy
        return _plain(obj.tolist())
    raise _not_a(obj, "numbers, text, true and false, null, lists and mappings of them")


def _restore(mapping: dict[str, Any]) -> Any:
    return float(mapping[_NOT_FINITE]) if mapping.keys() == {_NOT_FINITE} else mapping


def _read_array(path: Path) -> Any:
    import numpy as np

    return np.load(path, allow_pickle=False)


def _write_array(obj: Any, stream: IO[bytes]) -> None:
    import numpy as np

    if not isinstance(obj, np.ndarray) or obj.dtype.hasobject:
        raise _not_a(obj, "a numpy array without Python objects in it")
    np.save(stream, obj, allow_pickle=False)


def _read_text(path: Path) -> str:
    return path.read_bytes().decode()


def _write_text(obj: Any, stream: IO[bytes]) -> None:
    if not isinstance(obj, str):
        raise _not_a(obj, "text (str)")
    stream.write(obj.encode())


def _read_bytes(path: Path) -> bytes:
    return path.read_bytes()


def _write_bytes(obj: Any, stream: IO[bytes]) -> None:
    if not isinstance(obj, (bytes, bytearray, memoryview)):
        raise _not_a(obj, "bytes, as some other software made them")
    stream.write(obj)


def _write_figure(obj: Any, stream: IO[bytes]) -> None:
    if hasattr(obj, "savefig"):
        obj.savefig(stream, format="png")
    elif isinstance(obj, bytes) and obj.startswith(b"\x89PNG"):
        stream.write(obj)
    else:
        raise _not_a(obj, "a matplotlib figure, or the bytes of a PNG")


def _read_skymap(path: Path) -> Any:
    from loadmaster_registry.skymap import SkyMap

    return SkyMap.from_json(path.read_text(encoding="utf-8"))


def _write_skymap(obj: Any, stream: IO[bytes]) -> None:
    from loadmaster_registry.skymap import SkyMap

    if not isinstance(obj, SkyMap):
        raise _not_a(obj, "a SkyMap")
    stream.write(obj.to_json().encode())


def unreadable(path: Path, why: str) -> StageError:
    """Return the error for a file that is not what its storage class says."""
    return StageError(
        what=f"{path.name} cannot be read",
        where=str(path),
        why=why,
        todo="declare the storage class with which the file was written",
    )


def _not_a(obj: Any, wanted: str) -> StageError:
    return StageError(
        what=f"a {type(obj).__module__}.{type(obj).__qualname__} cannot be written here",
        where="OutputHandle.put",
        why=f"the storage class holds {wanted}",
        todo="convert the object first, or declare another storage class",
    )


def _tables(kind: str) -> Format:
    return Format(partial(_read_table, kind=kind), partial(_write_table, kind=kind))


# By type and extension; "*" stands for every extension. A file may be read as several types: that is how the
# storage class of a consumer may differ from its producer's.
FORMATS: Mapping[tuple[PythonType, str], Format] = {
    ("image", ".fits"): Format(_read_image, _write_image),
    ("table", ".fits"): _tables("fits"),
    ("table", ".ecsv"): _tables("ascii.ecsv"),
    ("table", ".vot"): _tables("votable"),
    ("table", ".parq"): Format(_read_parquet_table, _write_parquet_table),
    ("frame", ".parq"): Format(_read_frame, _write_frame),
    ("skymap", ".json"): Format(_read_skymap, _write_skymap),
    ("json", ".json"): Format(_read_json, _write_json),
    ("array", ".npy"): Format(_read_array, _write_array),
    ("figure", ".png"): Format(_read_bytes, _write_figure),
    ("text", "*"): Format(_read_text, _write_text),
    ("bytes", "*"): Format(_read_bytes, _write_bytes),
}
