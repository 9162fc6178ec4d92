"""Arrays in numpy's own files."""

from pathlib import Path
from typing import IO, Any

import numpy as np

from . import Format, Parameters, Recipe, not_a
from .parts import box_of


def _read(path: Path, component: str | None, parameters: Parameters) -> Any:
    if not parameters:
        return np.load(path, allow_pickle=False)
    array = np.load(path, allow_pickle=False, mmap_mode="r")
    return np.array(array[box_of(parameters, array.shape, path)])


def _write(obj: Any, stream: IO[bytes], recipe: Recipe) -> None:
    if not isinstance(obj, np.ndarray) or obj.dtype.hasobject:
        raise not_a(obj, "a numpy array without Python objects in it")
    np.save(stream, obj, allow_pickle=False)


ARRAY = Format(_read, _write, parameters=("box",))
