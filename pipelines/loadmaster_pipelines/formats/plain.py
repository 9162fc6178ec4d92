"""Plain values, text, bytes, pictures: files for which Python's own library does. They are read whole."""

import json
import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import IO, Any

from . import Format, Parameters, Recipe, not_a

_NOT_FINITE = "$float"  # JSON has no NaN and no infinity: they are written as {"$float": "nan"}
_BEGINS = {"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<"}


def _read_json(path: Path, component: str | None, parameters: Parameters) -> Any:
    return json.loads(path.read_text(encoding="utf-8"), object_hook=_restore)


def _write_json(obj: Any, stream: IO[bytes], recipe: Recipe) -> None:
    stream.write(json.dumps(plain(obj), indent=1, allow_nan=False, ensure_ascii=False).encode())


def plain(obj: Any, *, is_finite_only: bool = True) -> Any:
    """Return `obj` as JSON or YAML can hold it: numpy's numbers and arrays become Python's, NaN is spelled out."""
    if obj is None or isinstance(obj, (bool, int)):
        return obj
    if isinstance(obj, str):
        return str(obj)  # numpy's texts are Python's too, but YAML does not know them
    again = partial(plain, is_finite_only=is_finite_only)
    if isinstance(obj, float):
        return float(obj) if math.isfinite(obj) or not is_finite_only else {_NOT_FINITE: repr(float(obj))}
    if isinstance(obj, Mapping):
        if not all(isinstance(key, str) for key in obj):
            raise not_a(obj, "mappings whose keys are text")
        return {str(key): again(value) for key, value in obj.items()}
    if isinstance(obj, (list, tuple)):
        return [again(value) for value in obj]
    if hasattr(obj, "tolist"):  # numpy's arrays and numbers, without importing numpy
        return again(obj.tolist())
    raise not_a(obj, "numbers, text, true and false, null, lists and mappings of them")


def _restore(mapping: dict[str, Any]) -> Any:
    return float(mapping[_NOT_FINITE]) if mapping.keys() == {_NOT_FINITE} else mapping


def _read_text(path: Path, component: str | None, parameters: Parameters) -> str:
    return path.read_bytes().decode()


def _write_text(obj: Any, stream: IO[bytes], recipe: Recipe) -> None:
    if not isinstance(obj, str):
        raise not_a(obj, "text (str)")
    stream.write(obj.encode())


def _read_bytes(path: Path, component: str | None, parameters: Parameters) -> bytes:
    return path.read_bytes()


def _write_bytes(obj: Any, stream: IO[bytes], recipe: Recipe) -> None:
    if not isinstance(obj, (bytes, bytearray, memoryview)):
        raise not_a(obj, "bytes, as some other software made them")
    stream.write(obj)


def _write_figure(obj: Any, stream: IO[bytes], recipe: Recipe, *, kind: str) -> None:
    if hasattr(obj, "savefig"):
        obj.savefig(stream, format=kind)
    elif isinstance(obj, bytes) and obj.startswith(_BEGINS[kind]):
        stream.write(obj)
    else:
        raise not_a(obj, f"a matplotlib figure, or the bytes of a {kind.upper()}")


JSON = Format(_read_json, _write_json)
TEXT = Format(_read_text, _write_text)
BYTES = Format(_read_bytes, _write_bytes)
PNG, PDF, SVG = (Format(_read_bytes, partial(_write_figure, kind=kind)) for kind in _BEGINS)
