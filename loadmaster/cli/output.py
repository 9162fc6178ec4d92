"""What commands print: tables for people, one JSON document for programs, both on stdout; talk on stderr."""

import json
import sys

import click
from rich.console import Console

from ..tables import Table


def show(table: Table, data: object, as_json: bool) -> None:
    """Print the table, or with `as_json` the data behind it."""
    if as_json:
        show_json(data)
    else:
        # A pipe or a file has no width: no column is cut short there.
        table.print(Console(width=None if sys.stdout.isatty() else 10_000))


def show_json(data: object) -> None:
    """Print one JSON document."""
    click.echo(json.dumps(data, indent=1, ensure_ascii=False, default=str))


def tell(text: str) -> None:
    """Say something to the person who waits."""
    click.echo(text, err=True)
