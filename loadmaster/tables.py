"""Tables for people: one value that prints in a terminal and shows in a notebook."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from uuid import UUID

import polars as pl
import rich.table
from loadmaster_registry.timespan import format_ns
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.text import Text

_NS_COLUMNS = {"timespan_begin", "timespan_end", "begin", "end"}


@dataclass(frozen=True, slots=True)
class Table:
    """Headings, rows of text, and lines below them."""

    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    title: str = ""
    numeric: frozenset[str] = frozenset()  # headings of the columns that are set to the right
    notes: tuple[str, ...] = ()

    def print(self, console: Console) -> None:
        """Write the table to a terminal or a file."""
        table = rich.table.Table(box=SIMPLE_HEAD, pad_edge=False)
        for heading in self.headings:
            table.add_column(heading, justify="right" if heading in self.numeric else "left", overflow="fold")
        for row in self.rows:
            table.add_row(*map(Text, row))
        if self.title:
            console.print(Text(self.title, style="bold"), soft_wrap=True)
        console.print(table)
        for note in self.notes:
            console.print(Text(note), soft_wrap=True)

    def html(self) -> str:
        """Return the table for a notebook."""
        head = "".join(f"<th>{escape(heading)}</th>" for heading in self.headings)
        body = "".join(f"<tr>{self._cells(row)}</tr>" for row in self.rows)
        title = f"<caption>{escape(self.title)}</caption>" if self.title else ""
        notes = "".join(f'<p style="white-space: pre-wrap">{escape(note)}</p>' for note in self.notes)
        return f"<table>{title}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{notes}"

    def _cells(self, row: Sequence[str]) -> str:
        styles = (' style="text-align: right"' if h in self.numeric else "" for h in self.headings)
        return "".join(f"<td{style}>{escape(cell)}</td>" for style, cell in zip(styles, row, strict=True))


def frame_table(frame: pl.DataFrame, title: str = "", notes: Sequence[str] = ()) -> Table:
    """Make a table of a query's answer; sky regions are left out, instants are written as ISO text (TAI)."""
    shown = [name for name in frame.columns if name == "id" or frame.schema[name] != pl.Binary]
    columns = [_cells(name, frame[name]) for name in shown]
    numeric = frozenset(n for n in shown if frame.schema[n].is_numeric() and n not in _NS_COLUMNS)
    return Table(tuple(shown), tuple(zip(*columns, strict=True)), title, numeric, tuple(notes))


def frame_rows(frame: pl.DataFrame) -> list[dict[str, object]]:
    """Return a query's answer as plain values for JSON: UUIDs and bytes as text, instants in TAI ns."""
    columns = {name: list(map(_plain, frame[name].to_list())) for name in frame.columns}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def format_bytes(size: int) -> str:
    """Write a size as people read it: 3.2 GiB; an unknown one (negative) as a dash."""
    if size < 0:
        return "–"
    value = float(size)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024 or unit == "TiB":
            break
        value /= 1024
    return f"{value:.0f} B" if unit == "B" else f"{value:.1f} {unit}"


def _cells(name: str, column: pl.Series) -> Iterable[str]:
    if name in _NS_COLUMNS:
        return ("–" if value is None else format_ns(value) for value in column)
    if column.dtype == pl.Float64:
        return ("–" if value is None else f"{value:.6g}" for value in column)
    if isinstance(column.dtype, pl.List):
        return (", ".join(map(str, values)) for values in column.to_list())
    return ("–" if value is None else str(_plain(value)) for value in column)


def _plain(value: object) -> object:
    if not isinstance(value, bytes):
        return value
    return str(UUID(bytes=value)) if len(value) == 16 else value.hex()
