"""The command that checks an expression without running it."""

from collections.abc import Mapping
from pathlib import Path

import click
from loadmaster_registry.errors import ConfigError, QueryError
from loadmaster_registry.universe import Universe, load_universe
from loadmaster_registry.where import check_where

from ..repo import Repo
from .options import bind_option, json_option, universe_option
from .outcome import DONE, USAGE
from .output import show_json, tell


@click.command("check-where")
@click.argument("expression")
@click.option(
    "-d",
    "--dimensions",
    multiple=True,
    metavar="DIMENSION",
    help="Of the query: where a name that stands alone is looked for.  [any number of times, or with commas]",
)
@bind_option
@universe_option
@click.option(
    "--repo",
    metavar="REPO",
    envvar="LOADMASTER_REPO",
    help="Its dimensions and metadata are known too.  [default: $LOADMASTER_REPO, or Rubin's dimensions alone]",
)
@json_option
def check_where_command(
    expression: str,
    dimensions: tuple[str, ...],
    bind: Mapping[str, object],
    extensions: tuple[Path, ...],
    repo: str | None,
    as_json: bool,
) -> int:
    """Check an expression without running it.

    Exit code 0 where it is right, 2 where it is not; then it says where, why, and what was perhaps meant.
    """
    names = [name for text in dimensions for name in text.split(",") if name]
    universe = _universe(extensions, repo)
    try:
        found = check_where(universe, expression, bind=bind, dimensions=names)
    except (QueryError, ConfigError) as error:
        if as_json:
            keys = ("what", "where", "why", "do")
            show_json({"right": False, **dict(zip(keys, error.args, strict=True))})
        else:
            tell(str(error))
        return USAGE
    conditions = [(p.text, universe.ordered(p.dimensions)) for p in found]
    if as_json:
        show_json({"right": True, "conditions": [{"text": t, "dimensions": list(d)} for t, d in conditions]})
    else:
        for text, about in conditions:
            click.echo(f"{text}  ({', '.join(about) or 'about nothing'})")
    return DONE


def _universe(extensions: tuple[Path, ...], repo: str | None) -> Universe:
    if repo is None:
        return load_universe(*extensions)
    with Repo(repo) as opened:
        return opened.registry.universe
