"""Commands that make a repository and bring things into it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import click

from ..repo import Repo
from .options import bind_option, collections_option, json_option, repo_option, where_option
from .output import show_json, tell

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command("init")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--universe",
    "extensions",
    multiple=True,
    type=_FILE,
    help="A YAML file with dimension elements beside Rubin's.  [any number of times]",
)
def init_command(folder: Path, extensions: tuple[Path, ...]) -> None:
    """Make a new repository in a folder."""
    with Repo.init(folder, universe_extensions=extensions) as made:
        tell(f"made the repository {made.place.folder}")
    tell(f"next: loadmaster import FILE… --repo {folder}, or loadmaster ingest INSTRUMENT FILE… --repo {folder}")


@click.command("import")
@click.argument("files", nargs=-1, required=True, type=_FILE)
@click.option("--file-root", metavar="URL", help="Where the datasets' files are.  [default: beside each export file]")
@json_option
@repo_option
def import_command(files: tuple[Path, ...], file_root: str | None, as_json: bool, repo: str) -> None:
    """Load Rubin export files: records, collections, datasets."""
    with Repo(repo) as opened:
        counts = opened.import_file(*files, file_root=file_root)
    if as_json:
        show_json({str(file): count.as_dict() for file, count in zip(files, counts, strict=True)})
    else:
        for file, count in zip(files, counts, strict=True):
            tell(f"{file}: {count}")
