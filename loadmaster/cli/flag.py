"""Commands that flag observations, take flags off, and list them."""

import click

from ..metadata import read_data_id
from ..repo import Repo
from ..tables import frame_rows, frame_table
from .options import json_option, repo_option
from .output import show, tell

_data_ids = click.argument("data_ids", nargs=-1, required=True, metavar="'DIMENSION=VALUE ...'...")


@click.command("flag")
@_data_ids
@click.option("--reason", required=True, metavar="TEXT", help="Why; others will read it.")
@repo_option
def flag_command(data_ids: tuple[str, ...], reason: str, repo: str) -> None:
    """Flag observations: plans leave them out unless told otherwise.

    Each argument is one data ID: 'visit=1228', 'visit=1228 detector=3', 'detector=9'.
    """
    with Repo(repo) as opened:
        given = [read_data_id(text, opened.registry.universe) for text in data_ids]
        n_new = opened.flag(*given, reason=reason)
    tell("flagged" if n_new else "nothing new: all of these were flagged for this reason already")


@click.command("unflag")
@_data_ids
@click.option("--reason", metavar="TEXT", help="Why the flag is taken off.")
@repo_option
def unflag_command(data_ids: tuple[str, ...], reason: str | None, repo: str) -> None:
    """Take flags off; the history keeps them."""
    with Repo(repo) as opened:
        given = [read_data_id(text, opened.registry.universe) for text in data_ids]
        opened.unflag(*given, reason=reason)
    tell("not flagged any more")


@click.command("query-flags")
@json_option
@repo_option
def query_flags_command(as_json: bool, repo: str) -> None:
    """List what is flagged, since when, and why."""
    with Repo(repo) as opened:
        frame = opened.query_flags()
    show(frame_table(frame, notes=(f"{frame.height} flags",)), frame_rows(frame) if as_json else [], as_json)
