"""What is new among rows given, what is there already, and what contradicts it: on frames, in words."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

import polars as pl

from .errors import Conflict

_SHOWN = 3


def check_unique(rows: pl.DataFrame, key: Sequence[str], what: str, where: str) -> None:
    """Refuse rows that give one key twice; rows that are the same altogether have been made one before.

    Raises
    ------
    Conflict
        Showing the first such rows.
    """
    same = pl.struct(key).is_duplicated() if key else pl.lit(rows.height > 1)
    twice = rows.filter(same)
    if not twice.is_empty():
        raise Conflict(
            what=f"{what} given twice, differently",
            where=where,
            why="; ".join(described(row) for row in twice.head(_SHOWN).iter_rows(named=True)),
            todo="leave all but one of them out",
        )


def unknown(rows: pl.DataFrame, known: pl.DataFrame, key: Sequence[str]) -> pl.DataFrame:
    """Return the rows whose key is not among those of `known`."""
    if not key:  # there is one empty data ID
        return rows.head(0 if known.height else rows.height)
    return rows.join(known, on=key, how="anti", maintain_order="left")


def check_same(new: pl.DataFrame, old: pl.DataFrame, key: Sequence[str], what: str, where: str) -> None:
    """Refuse rows whose key is in `old` with other values in the columns that both have.

    Raises
    ------
    Conflict
        Showing for the first such rows what is there and what was given.
    """
    values = [c for c in new.columns if c in old.columns and c not in key]
    if old.is_empty() or not values:
        return
    both = paired(new, old.select(*key, *values), key)
    differ = both.filter(pl.any_horizontal(pl.col(c).ne_missing(pl.col(f"{c} there")) for c in values))
    if differ.is_empty():
        return
    shown = [_difference(row, key, values) for row in differ.head(_SHOWN).iter_rows(named=True)]
    more = f" (and {differ.height - _SHOWN} more)" if differ.height > _SHOWN else ""
    raise Conflict(
        what=f"{differ.height} of {what} exist with another definition",
        where=where,
        why="; ".join(shown) + more,
        todo="what is there cannot be redefined: give the same values, or another key",
    )


def paired(new: pl.DataFrame, old: pl.DataFrame, key: Sequence[str]) -> pl.DataFrame:
    """Join rows with those of the same key; columns that both have are named ``… there`` when they are old."""
    if not key:
        return new.join(old, how="cross", suffix=" there")
    return new.join(old, on=key, suffix=" there", maintain_order="left")


def described(row: Mapping[str, Any]) -> str:
    """Write a row for people: ``visit=5 detector=3``."""
    return " ".join(f"{name}={_written(value)}" for name, value in row.items())


def listed(rows: pl.DataFrame) -> str:
    """Write the first rows for people, and how many more there are."""
    shown = "; ".join(described(row) for row in rows.head(_SHOWN).iter_rows(named=True))
    return shown + (f"; and {rows.height - _SHOWN} more" if rows.height > _SHOWN else "")


def _difference(row: dict[str, Any], key: Sequence[str], values: Sequence[str]) -> str:
    changed = [c for c in values if row[c] != row[f"{c} there"]]
    there = described({c: row[f"{c} there"] for c in changed})
    given = described({c: row[c] for c in changed})
    return f"{described({c: row[c] for c in key})}: there {there}, given {given}".lstrip(": ")


def _written(value: Any) -> str:
    if isinstance(value, bytes):
        return str(UUID(bytes=value)) if len(value) == 16 else f"{value[:8].hex()}… ({len(value)} bytes)"
    return repr(value) if isinstance(value, str) else str(value)
