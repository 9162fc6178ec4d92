"""The command that compares registry and backbone."""

import click
from loadmaster_staging.fsck import GRACE_S, Findings

from ..repo import Repo
from ..tables import Table, format_bytes, frame_rows, frame_table
from .options import json_option, repo_option
from .outcome import DONE, FAILED
from .output import show, tell

_SHOWN = 50


@click.command("fsck")
@click.argument("place", required=False, metavar="[REPO]")
@click.option("--deep", is_flag=True, help="Read every file through, and compare checksums too.")
@click.option("--repair", "is_repaired", is_flag=True, help="Mend what can be mended without losing a byte.")
@click.option(
    "--grace",
    "grace_s",
    type=click.FloatRange(min=0),
    default=GRACE_S,
    show_default=True,
    metavar="SECONDS",
    help="A file without a row counts as an orphan once it is older: it may be on its way.",
)
@json_option
@repo_option
def fsck_command(
    place: str | None,
    deep: bool,
    is_repaired: bool,
    grace_s: float,
    as_json: bool,
    repo: str,
) -> int:
    """Compare the registry with the files: missing, orphaned, of wrong size or checksum.

    Nothing is changed without --repair, which never removes or overwrites a file: damaged and orphaned ones are
    moved to .aside below the backbone. Exit code 0 if all is well, 1 if something was found, even if mended.
    """
    with Repo(place or repo) as opened:
        findings = opened.house.check(deep=deep, grace_s=grace_s)
        if is_repaired:
            findings = opened.house.repair(findings)
    show(_table(findings, is_repaired), _facts(findings), as_json)
    if findings.problems.height and not is_repaired:
        tell("next: `loadmaster fsck --repair` mends what can be mended without losing a byte")
    return FAILED if findings.problems.height else DONE


def _table(findings: Findings, is_repaired: bool) -> Table:
    problems = findings.problems
    notes = [
        f"{findings.n_files} files are recorded, {format_bytes(findings.n_bytes)}; {findings.n_read} were read"
    ]
    if findings.n_young:
        notes.append(f"{findings.n_young} files have no row yet; they are young, and may be on their way")
    counts = problems.group_by("kind").len().sort("kind").iter_rows()
    notes.append(", ".join(f"{n} {kind}" for kind, n in counts) or "nothing is wrong")
    if problems.height > _SHOWN:
        notes.append(f"{problems.height - _SHOWN} more are in --json")
    columns = ["kind", "dataset_type", "id", "url", "found", *(["repair"] if is_repaired else [])]
    return frame_table(problems.select(columns).head(_SHOWN), notes=notes)


def _facts(findings: Findings) -> dict[str, object]:
    return {
        "n_files": findings.n_files,
        "n_bytes": findings.n_bytes,
        "n_read": findings.n_read,
        "n_young": findings.n_young,
        "problems": frame_rows(findings.problems),
    }
