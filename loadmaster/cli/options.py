"""Options that several commands share: the same word means the same everywhere."""

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from ..sizes import bytes_of

_Command = TypeVar("_Command", bound=Callable[..., Any])


def at(repo: str) -> str:
    """Return what a command that is suggested must end with to be about the same repository."""
    return "" if repo == "." else f" --repo {shlex.quote(repo)}"


def _bound(context: click.Context, parameter: click.Parameter, pairs: tuple[str, ...]) -> dict[str, object]:
    """Turn NAME=VALUE pairs into values: what reads as JSON is that (7, [1, 2], "7"), all else is text."""
    bound: dict[str, object] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name.isidentifier():
            raise click.BadParameter(f"{pair!r} is not NAME=VALUE", context, parameter)
        try:
            bound[name] = json.loads(text)
        except json.JSONDecodeError:
            bound[name] = text
    return bound


repo_option = click.option(
    "--repo",
    default=".",
    envvar="LOADMASTER_REPO",
    metavar="REPO",
    help="The repository: its folder or an alias.  [default: $LOADMASTER_REPO, or the current folder]",
)
universe_option = click.option(
    "--universe",
    "extensions",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A YAML file with dimension elements beside Rubin's.  [any number of times]",
)
json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON document instead of a table."
)
where_option = click.option(
    "--where", default="", metavar="EXPRESSION", help='Which data IDs: "visit IN (1..9)".'
)
bind_option = click.option(
    "--bind",
    multiple=True,
    callback=_bound,
    metavar="NAME=VALUE",
    help="A value for :NAME in --where: a number, a text or a JSON list.  [any number of times]",
)
limit_option = click.option("--limit", type=click.IntRange(min=1), metavar="N", help="At most so many rows.")


def collections_option(
    help_text: str, name: str = "collections", *, required: bool = False
) -> Callable[[_Command], _Command]:
    """Make the option that names input collections, in search order."""
    return click.option(
        "-i",
        "--input",
        name,
        multiple=True,
        required=required,
        callback=split_names,
        metavar="COLLECTION",
        help=f"{help_text}  [any number of times, or with commas; the first is searched first]",
    )


def split_names(
    context: click.Context, parameter: click.Parameter, texts: tuple[str, ...]
) -> tuple[str, ...]:
    """Split each text at its commas."""
    return tuple(name for text in texts for name in text.split(",") if name)


def config_options(command: _Command) -> _Command:
    """Add the options that say how a pipeline file is read."""
    for option in (
        click.option(
            "--trusted", is_flag=True, help="Let Python code in the pipeline's files configure tasks."
        ),
        click.option(
            "--formats",
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            metavar="FILE",
            help="In which formats, and how compressed, outputs are written.  [default: the repository's]",
        ),
        click.option("--select", metavar="SET", help="Only these tasks: 'a|b', '<=coadd', '~plots', …"),
        click.option(
            "-c",
            "--config",
            multiple=True,
            metavar="LABEL:KEY=VALUE",
            help="Set a task's configuration; parameters:NAME=VALUE a parameter.  [any number of times]",
        ),
    ):
        command = option(command)
    return command


def limit_options(command: _Command) -> _Command:
    """Add the options that say what a plan may cost at most: `max_core_hours`, `max_bytes`."""
    for option in (
        click.option(
            "--max-bytes",
            callback=size_value,
            metavar="SIZE",
            help="Refuse a plan that reads and makes more: 500GB, 2TiB.",
        ),
        click.option(
            "--max-core-hours",
            type=click.FloatRange(min=0),
            metavar="N",
            help="Refuse a plan that takes more, as far as is known.",
        ),
    ):
        command = option(command)
    return command


def size_value(context: click.Context, parameter: click.Parameter, text: str | None) -> float | None:
    """Read a size."""
    try:
        return None if text is None else float(bytes_of(text))
    except ValueError as error:
        raise click.BadParameter(str(error), context, parameter) from None
