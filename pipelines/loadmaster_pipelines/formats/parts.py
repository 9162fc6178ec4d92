"""Parts of objects that a reader may be asked for: boxes of arrays, rows and columns of tables.

They mean what cutting the whole object would give: ``box`` is the index of an array (``np.s_[10:20, 0:5]``),
``rows`` a slice, ``columns`` a list of names or patterns (``*_flux``).
"""

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from loadmaster_registry.errors import StageError, did_you_mean

from . import Parameters

Box = tuple[slice, ...]


def box_of(parameters: Parameters, shape: Sequence[int], path: Path) -> Box | None:
    """Return the box that is wanted of an array of this shape, with its bounds inside it; None for all of it."""
    if "box" not in parameters:
        return None
    asked = parameters["box"]
    box = asked if isinstance(asked, tuple) else (asked,)
    if len(box) > len(shape) or not all(map(_is_range, box)):
        raise _refused("box", asked, path, f"the array has shape {tuple(shape)}", "np.s_[10:20, 0:5]")
    whole = (*box, *(slice(None) for _ in shape[len(box) :]))
    return tuple(_within(part, size) for part, size in zip(whole, shape, strict=True))


def rows_of(parameters: Parameters, n_rows: int, path: Path) -> slice:
    """Return the rows that are wanted of a table of so many, with bounds inside it."""
    asked = parameters.get("rows", slice(None))
    if not _is_range(asked):
        raise _refused("rows", asked, path, f"the table has {n_rows} rows", "slice(0, 1000)")
    return _within(asked, n_rows)


def columns_of(parameters: Parameters, known: Iterable[str], path: Path) -> list[str]:
    """Return the columns that are wanted of those there are, in the order in which they are asked for."""
    names = list(known)
    if "columns" not in parameters:
        return names
    asked = parameters["columns"]
    wanted: dict[str, None] = {}
    for pattern in [asked] if isinstance(asked, str) else asked:
        found = [pattern] if pattern in names else [name for name in names if fnmatchcase(name, pattern)]
        if not found:
            raise StageError(
                what=f"there is no column {pattern!r}",
                where=str(path),
                why=f"the table has {len(names)} columns, and none has this name or pattern",
                todo=did_you_mean(pattern, names),
            )
        wanted.update(dict.fromkeys(found))
    return list(wanted)


def _is_range(part: Any) -> bool:
    return isinstance(part, slice) and part.step in (None, 1)


def _within(part: slice, size: int) -> slice:
    begin, end, _ = part.indices(size)
    return slice(begin, max(begin, end))


def _refused(name: str, asked: Any, path: Path, why: str, example: str) -> StageError:
    return StageError(
        what=f"{asked!r} is no {name}",
        where=str(path),
        why=f"it takes slices without steps, one for each axis at most; {why}",
        todo=f"give it as the whole would be indexed: {example}",
    )
