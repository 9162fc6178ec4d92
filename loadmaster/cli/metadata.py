"""Commands that set observation metadata and show what it was."""

from pathlib import Path

import click

from ..metadata import read_data_id
from ..repo import Repo
from ..tables import frame_rows, frame_table
from .options import json_option, repo_option
from .output import show, tell


@click.group("metadata")
def metadata_command() -> None:
    """Set values of observations that change, and see their history."""


@metadata_command.command("set")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("data_id", nargs=-1, metavar="[DIMENSION=VALUE]...")
@click.option(
    "--element", default="", metavar="ELEMENT", help="Whose values these are.  [default: by the dimensions]"
)
@repo_option
def set_command(file: Path, data_id: tuple[str, ...], element: str, repo: str) -> None:
    """Give observations newer values from a table: dimensions beside values, as visit, psf_size.

    FILE is CSV, Parquet, ECSV, FITS or VOTable. DIMENSION=VALUE holds for all its rows. The values can be used
    at once, as `visit.psf_size < 0.8`; older ones stay readable.
    """
    with Repo(repo) as opened:
        given = read_data_id(" ".join(data_id), opened.registry.universe)
        n_new = opened.set_metadata(file, element=element, data_id=given)
    tell(f"{n_new} new values" if n_new else "nothing new: these values hold already")


@metadata_command.command("history")
@click.argument("element")
@click.argument("data_id", nargs=-1, metavar="[DIMENSION=VALUE]...")
@json_option
@repo_option
def history_command(element: str, data_id: tuple[str, ...], as_json: bool, repo: str) -> None:
    """List every value that an element's records were given, version by version."""
    with Repo(repo) as opened:
        given = read_data_id(" ".join(data_id), opened.registry.universe)
        frame = opened.metadata_history(element, given)
    notes = (f"{frame.height} values",)
    show(frame_table(frame, notes=notes), frame_rows(frame) if as_json else [], as_json)
