"""Commands that make a repository and bring things into it."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import click
from loadmaster_registry.exchange import ImportCounts
from loadmaster_staging.ingest import IngestReport, Mode, OnError

from ..repo import Repo
from ..tables import Table, format_bytes
from .options import (
    at,
    bind_option,
    collections_option,
    json_option,
    repo_option,
    universe_option,
    where_option,
)
from .outcome import DONE, FAILED
from .output import show, tell

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command("init")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@universe_option
def init_command(folder: Path, extensions: tuple[Path, ...]) -> None:
    """Make a new repository in a folder."""
    with Repo.init(folder, universe_extensions=extensions) as made:
        tell(f"made the repository {made.place.folder}")
    tell(
        f"next: loadmaster import FILE…{at(str(folder))}, or loadmaster ingest INSTRUMENT FILE…{at(str(folder))}"
    )


@click.command("import")
@click.argument("files", nargs=-1, required=True, type=_FILE)
@click.option(
    "--file-root", metavar="URL", help="Where the datasets' files are.  [default: beside each export file]"
)
@json_option
@repo_option
def import_command(files: tuple[Path, ...], file_root: str | None, as_json: bool, repo: str) -> None:
    """Load Rubin export files: records, collections, datasets."""
    with Repo(repo) as opened:
        counts = opened.import_file(*files, file_root=file_root)
    data = [{"file": str(file), **asdict(count)} for file, count in zip(files, counts, strict=True)]
    show(_counts_table(files, counts), data, as_json)


@click.command("ingest")
@click.argument("instrument")
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--run", metavar="RUN", help="Collection for the frames.  [default: INSTRUMENT/raw/all]")
@click.option(
    "--mode",
    type=click.Choice(["copy", "link", "direct"]),
    default="copy",
    show_default=True,
    help="Copy the files, hard-link them, or leave them where they are.",
)
@click.option(
    "--on-error",
    type=click.Choice(["stop", "skip"]),
    default="stop",
    show_default=True,
    help="What to do about a file that cannot be taken: stop, or skip and name it.",
)
@json_option
@repo_option
def ingest_command(
    instrument: str,
    files: tuple[Path, ...],
    run: str | None,
    mode: Mode,
    on_error: OnError,
    as_json: bool,
    repo: str,
) -> int:
    """Take raw frames into the repository.

    INSTRUMENT is a YAML file that describes the camera, or the name of one that Loadmaster knows. FILES are frames,
    or folders with frames. The same frame again is a no-op.
    """
    with Repo(repo) as opened:
        report = opened.ingest(instrument, files, run=run, mode=mode, on_error=on_error)
    show(_ingest_table(report), _ingest_facts(report), as_json)
    for problem in report.problems:
        tell(f"skipped {problem.file}\n{problem.error}")
    return DONE if report.taken or report.known else FAILED


@click.command("register-skymap")
@click.argument("description")
@repo_option
def register_skymap_command(description: str, repo: str) -> None:
    """Register a sky map with its tracts and patches.

    DESCRIPTION is a YAML file, or the name of a sky map that Loadmaster ships.
    """
    with Repo(repo) as opened:
        stored = opened.register_skymap(description)
    tell(f"sky map {stored.data_id[0]}: tracts and patches registered, stored as skyMap in {stored.run!r}")


@click.command("certify")
@click.argument("collection")
@click.argument("dataset_type")
@collections_option("Where the datasets are.", required=True)
@where_option
@bind_option
@click.option("--begin", metavar="TIME", help="First instant, ISO in UTC: 2026-03-01.  [default: since ever]")
@click.option("--end", metavar="TIME", help="First instant after the range.  [default: for ever]")
@repo_option
def certify_command(
    collection: str,
    dataset_type: str,
    collections: tuple[str, ...],
    where: str,
    bind: Mapping[str, object],
    begin: str | None,
    end: str | None,
    repo: str,
) -> None:
    """Give calibrations a range of validity.

    The datasets of DATASET_TYPE that are found by -i and --where become valid in the CALIBRATION collection
    COLLECTION, which is made where it does not exist.
    """
    with Repo(repo) as opened:
        new = opened.certify(
            collection, dataset_type, inputs=collections, begin=begin, end=end, where=where, bind=bind
        )
    tell(f"{new} {dataset_type} newly certified in {collection}")


def _counts_table(files: tuple[Path, ...], counts: list[ImportCounts]) -> Table:
    headings = ("file", "records", "dataset types", "collections", "datasets", "tags", "ranges")
    rows = tuple(
        (
            str(file),
            *map(
                str, (sum(c.records.values()), c.dataset_types, c.collections, c.datasets, c.tags, c.ranges)
            ),
        )
        for file, c in zip(files, counts, strict=True)
    )
    return Table(headings, rows, "new in the registry", frozenset(headings[1:]))


def _ingest_table(report: IngestReport) -> Table:
    headings = ("new frames", "size", "known before", "skipped", "new exposures", "new visits")
    counts = (len(report.known), len(report.problems), report.exposures, report.visits)
    row = (str(len(report.taken)), format_bytes(report.size_bytes), *map(str, counts))
    return Table(headings, (row,), numeric=frozenset(headings))


def _ingest_facts(report: IngestReport) -> dict[str, object]:
    return {
        "taken": report.taken,
        "known": report.known,
        "problems": [{"file": p.file, "error": str(p.error)} for p in report.problems],
        "exposures": report.exposures,
        "visits": report.visits,
        "size_bytes": report.size_bytes,
    }
