"""A command about archives of undeclared files."""

from pathlib import Path

import click
from loadmaster_staging.junk import unpack

from .output import tell


@click.command("unpack")
@click.argument("archive", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("folder", type=click.Path(exists=False, path_type=Path))
def unpack_command(archive: Path, folder: Path) -> None:
    """Unpack undeclared files that `--junk keep` brought home into a new folder.

    ARCHIVE is the file of a dataset of type TASK_junk. Where one of its names leads out of FOLDER, or is no plain
    file, nothing is unpacked.
    """
    for path in unpack(archive, folder):
        click.echo(str(path))
    tell(f"what was left out, and why, is in {folder / 'LISTING.json'}")
