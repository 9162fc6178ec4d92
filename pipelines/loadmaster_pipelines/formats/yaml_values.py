"""Plain values in YAML files."""

from pathlib import Path
from typing import IO, Any

import yaml

from . import Format, Parameters, Recipe
from .plain import plain

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_DUMPER: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


def _read(path: Path, component: str | None, parameters: Parameters) -> Any:
    return yaml.load(path.read_text(encoding="utf-8"), _LOADER)


def _write(obj: Any, stream: IO[bytes], recipe: Recipe) -> None:
    text = yaml.dump(plain(obj, is_finite_only=False), None, _DUMPER, sort_keys=False, allow_unicode=True)
    stream.write(text.encode())


YAML = Format(_read, _write)
