"""A command about files that lie anywhere."""

from pathlib import Path

import click

from ..what_is import file_facts, file_table, what_is
from .options import json_option
from .output import show


@click.command("what-is")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@json_option
def what_is_command(file: Path, as_json: bool) -> None:
    """Say what a file is, what made it, and from what, by its header alone.

    FITS, Parquet, HDF5 and ECSV files that Python tasks wrote say so, and those of Rubin's tasks.
    """
    told = what_is(file)
    show(file_table(told, file), file_facts(told), as_json)
