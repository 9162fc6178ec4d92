"""Images, tables and arrays in HDF5 files; needs h5py, which Loadmaster without its extra `hdf5` does not bring.

Every plane of an image and every column of a table is a dataset of its own, in chunks, so that parts are read
without the rest. Images keep their headers as FITS text, tables theirs as Astropy's YAML.
"""

import io
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from astropy.io import fits
from astropy.table import MaskedColumn, Table
from astropy.table.meta import get_header_from_yaml, get_yaml_from_table
from loadmaster_registry.errors import StageError

from . import Format, Parameters, Recipe, not_a, unreadable
from .content import digest_of
from .images import COMPONENTS, IMAGE, Plane, image_of, planes_of
from .parts import Box, box_of, columns_of, rows_of
from .table_meta import with_keys

_PROVENANCE, _HEADER, _COLUMNS, _MASKS, _ARRAY = "provenance", "header", "columns", "masks", "array"


def _read_image(path: Path, component: str | None, parameters: Parameters) -> Any:
    with _opened(path) as file:
        if IMAGE not in file:
            raise unreadable(path, "the file holds no image")
        planes = {name: _plane(file[name]) for name in file if name != _PROVENANCE}
        return image_of(planes, component, parameters, path)


def _plane(dataset: Any) -> Plane:
    def cut(box: Box | None) -> Any:
        return dataset[() if box is None else box]

    return Plane(fits.Header.fromstring(dataset.attrs[_HEADER], sep="\n"), dataset.shape, cut)


def _write_image(obj: Any, stream: IO[bytes], recipe: Recipe) -> str | None:
    planes = planes_of(obj)

    def fill(file: Any) -> None:
        for name, hdu in planes.items():
            dataset = _add(file, name, hdu.data, recipe)
            dataset.attrs[_HEADER] = hdu.header.tostring(sep="\n", padding=False)

    return _written(fill, stream, recipe)


def _read_table(path: Path, component: str | None, parameters: Parameters) -> Any:
    with _opened(path) as file:
        if _COLUMNS not in file:
            raise unreadable(path, "the file holds no table")
        told = get_header_from_yaml(file[_HEADER][()].decode().split("\n"))
        names = [column["name"] for column in told["datatype"]]
        n_rows = int(file[_COLUMNS].attrs["rows"])
        if component is not None:
            return {"columns": names, "rowcount": n_rows}[component]
        rows = rows_of(parameters, n_rows, path)
        table = Table(masked=False)
        for name in columns_of(parameters, names, path):
            table[name] = _column(file, names.index(name), rows)
        for column in told["datatype"]:
            if column["name"] in table.colnames:
                for attribute in ("description", "format", "unit", "meta"):
                    if attribute in column:
                        setattr(table[column["name"]], attribute, column[attribute])
        table.meta.update(told.get("meta", {}))
        return table


def _column(file: Any, number: int, rows: slice) -> Any:
    dataset = file[_COLUMNS][str(number)]
    values = dataset[rows]
    if dataset.attrs.get("is_text", False):
        values = np.char.decode(values, "utf-8")
    mask = file[_MASKS].get(str(number)) if _MASKS in file else None
    return values if mask is None else MaskedColumn(values, mask=mask[rows])


def _write_table(obj: Any, stream: IO[bytes], recipe: Recipe) -> str | None:
    if not isinstance(obj, Table):
        raise not_a(obj, "a table (astropy.table.Table)")
    told = with_keys(obj, None)

    def fill(file: Any) -> None:
        file[_HEADER] = "\n".join(get_yaml_from_table(told))
        file.create_group(_COLUMNS).attrs["rows"] = len(obj)
        for number, name in enumerate(obj.colnames):
            values = np.asarray(obj[name])
            if values.dtype.hasobject:
                raise not_a(obj, f"columns of numbers and texts; column {name!r} holds Python objects")
            is_text = values.dtype.kind == "U"
            values = np.char.encode(values, "utf-8") if is_text else values
            dataset = _add(file, f"{_COLUMNS}/{number}", values, recipe)
            dataset.attrs["is_text"] = is_text
            if np.ma.isMaskedArray(obj[name]) and np.ma.getmaskarray(obj[name]).any():
                _add(file, f"{_MASKS}/{number}", np.ma.getmaskarray(obj[name]), recipe)

    return _written(fill, stream, recipe)


def _read_array(path: Path, component: str | None, parameters: Parameters) -> Any:
    with _opened(path) as file:
        if _ARRAY not in file:
            raise unreadable(path, "the file holds no array")
        box = box_of(parameters, file[_ARRAY].shape, path)
        return file[_ARRAY][() if box is None else box]


def _write_array(obj: Any, stream: IO[bytes], recipe: Recipe) -> str | None:
    if not isinstance(obj, np.ndarray) or obj.dtype.hasobject or obj.dtype.kind == "U":
        raise not_a(obj, "a numpy array of numbers")
    return _written(lambda file: _add(file, _ARRAY, obj, recipe), stream, recipe)


def _add(file: Any, name: str, values: Any, recipe: Recipe) -> Any:
    """Add an array, in chunks if it is compressed."""
    kind = recipe.options.get("compression")
    if kind is None or not np.size(values) or not np.ndim(values):
        return file.create_dataset(name, data=values)
    level = recipe.options.get("level") if kind == "gzip" else None
    return file.create_dataset(
        name,
        data=values,
        compression=kind,
        compression_opts=level,
        chunks=tuple(recipe.options["tile"])
        if len(recipe.options.get("tile", ())) == np.ndim(values)
        else True,
        shuffle=True,
    )


def _header(path: Path) -> Mapping[str, Any]:
    with _opened(path) as file:
        found: dict[str, Any] = json.loads(file[_PROVENANCE][()]) if _PROVENANCE in file else {}
    return found


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    with _h5py().File(path, "r") as file:
        yield file


def _written(fill: Callable[[Any], object], stream: IO[bytes], recipe: Recipe) -> str | None:
    """Write a new file to `stream` when it is complete: HDF5 writes to and fro, and reads again.

    Return the digest of its content, if it says more of itself than what `fill` puts into it.
    """
    whole, content, libver = io.BytesIO(), None, ("v108", "v110")
    with _h5py().File(whole, "w", libver=libver) as file:
        fill(file)
    if recipe.provenance is not None:
        with whole.getbuffer() as data:
            content = digest_of(data)
        with _h5py().File(whole, "r+", libver=libver) as file:
            # As one text: some thousands of attributes take seconds.
            file[_PROVENANCE] = json.dumps(recipe.provenance.keys("."), indent=1)
    stream.write(whole.getbuffer())
    return content


def _h5py() -> Any:
    try:
        import h5py
    except ImportError as error:
        raise StageError(
            what="HDF5 files can be neither read nor written here",
            where="h5py",
            why="the Python package h5py is not installed",
            todo="install it (pip install 'loadmaster[hdf5]'), or choose another format",
        ) from error
    return h5py


IMAGE_FORMAT = Format(_read_image, _write_image, components=COMPONENTS, parameters=("box",), header=_header)
TABLE_FORMAT = Format(
    _read_table,
    _write_table,
    components=("rowcount", "columns"),
    parameters=("rows", "columns"),
    header=_header,
)
ARRAY_FORMAT = Format(_read_array, _write_array, parameters=("box",), header=_header)
