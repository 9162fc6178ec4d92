"""Sky maps, as JSON."""

from pathlib import Path
from typing import IO, Any

from loadmaster_registry.skymap import SkyMap

from . import Format, Parameters, Recipe, not_a


def _read(path: Path, component: str | None, parameters: Parameters) -> Any:
    return SkyMap.from_json(path.read_text(encoding="utf-8"))


def _write(obj: Any, stream: IO[bytes], recipe: Recipe) -> None:
    if not isinstance(obj, SkyMap):
        raise not_a(obj, "a SkyMap")
    stream.write(obj.to_json().encode())


SKYMAP = Format(_read, _write)
