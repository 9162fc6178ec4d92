"""Commands that remove: datasets, collections, and what nobody needs any more."""

from collections.abc import Sequence
from uuid import UUID

import click
from loadmaster_registry.removal import Removed
from loadmaster_registry.retention import RETENTION
from loadmaster_staging.removal import Collected, Emptied

from ..repo import Repo
from ..tables import format_bytes, frame_rows, frame_table
from .options import collections_option, json_option, repo_option, where_option
from .outcome import DONE, FAILED
from .output import show, show_json, tell

_force = click.option("--force", is_flag=True, help="Even what somebody needs.")
_dry_run = click.option("--dry-run", is_flag=True, help="Only say what would go, and how many bytes.")


@click.command("delete")
@click.argument("ids", nargs=-1, type=click.UUID, metavar="[UUID]...")
@click.option("--type", "dataset_type", metavar="TYPE", help="All datasets of this type (needs -i).")
@collections_option("Where --type is looked for.")
@where_option
@_force
@click.option("--reason", default="", metavar="TEXT", help="Why; with --force it stays on record.")
@_dry_run
@json_option
@repo_option
def delete_command(
    ids: tuple[UUID, ...],
    dataset_type: str | None,
    collections: tuple[str, ...],
    where: str,
    force: bool,
    reason: str,
    dry_run: bool,
    as_json: bool,
    repo: str,
) -> int:
    """Remove datasets with their files.

    What a tag, a calibration collection, a running plan, or another user needs is refused, and it is said who that is.
    With --force it goes all the same, and what was removed, by whom, when and why stays on record.
    """
    _check_usage(ids, dataset_type, collections, where)
    if force and not reason:
        raise click.UsageError("--force needs --reason TEXT: it stays on record")
    with Repo(repo) as opened:
        if dataset_type is not None:
            found = opened.query_datasets(dataset_type, collections, where=where, find_first=False)
            ids = tuple(UUID(bytes=id) for id in found["id"])
        removed, emptied = opened.house.delete(ids, force=force, reason=reason, dry_run=dry_run)
    facts = {"dry_run": dry_run, **_removed_facts(removed), **_trash_facts(emptied)}
    return _told([_went(removed, dry_run)], facts, emptied, as_json)


@click.command("gc")
@_dry_run
@json_option
@repo_option
def gc_command(dry_run: bool, as_json: bool, repo: str) -> int:
    """Remove what nobody needs any more: expired collections, datasets of removed runs, the trash.

    A dataset goes when its run was removed or has expired, and no tag, calibration collection or running plan uses it.
    """
    with Repo(repo) as opened:
        found = opened.house.collect(dry_run=dry_run)
    return _told(_collected_lines(found, dry_run), _collected_facts(found, dry_run), found.emptied, as_json)


@click.group("collection")
def collection_command() -> None:
    """Say how long collections stay and whose they are; remove them."""


@collection_command.command("set-policy")
@click.argument("name")
@click.option(
    "--retention",
    type=click.Choice(list(RETENTION)),
    help="; ".join(f"{k}: {v}" for k, v in RETENTION.items()),
)
@click.option("--expires", metavar="WHEN", help="30d from now, a date (UTC), or never.")
@click.option("--owner", metavar="USER", help="Whose it is; '' for nobody's.")
@repo_option
def set_policy_command(
    name: str, retention: str | None, expires: str | None, owner: str | None, repo: str
) -> None:
    """Say how long a collection stays, and whose it is."""
    if retention is expires is owner is None:
        raise click.UsageError("give --retention, --expires or --owner")
    with Repo(repo) as opened:
        opened.house.set_policy(name, retention_class=retention, expires=expires, owner=owner)
        policy = opened.house.policies(name).row(0, named=True)
    tell(
        f"{name}: {policy['retention']}, expires {policy['expires'] or 'never'}, of {policy['owner'] or 'nobody'}"
    )


@collection_command.command("policies")
@click.argument("glob", default="*")
@json_option
@repo_option
def policies_command(glob: str, as_json: bool, repo: str) -> None:
    """List whose collections are, and how long they stay."""
    with Repo(repo) as opened:
        frame = opened.house.policies(glob)
    notes = (f"{frame.height} collections",)
    show(frame_table(frame, notes=notes), frame_rows(frame) if as_json else [], as_json)


@collection_command.command("remove")
@click.argument("names", nargs=-1, required=True, metavar="COLLECTION...")
@click.option("--unlink", is_flag=True, help="Take them out of your own chains.")
@_force
@repo_option
def remove_command(names: tuple[str, ...], unlink: bool, force: bool, repo: str) -> None:
    """Remove collections; the files of runs go with the next `loadmaster gc`.

    What others use stays: datasets of a removed run that are tagged or certified elsewhere are still found there.
    """
    with Repo(repo) as opened:
        opened.house.remove(names, unlink=unlink, force=force)
    tell(f"removed {', '.join(names)}\nnext: `loadmaster gc` takes away the files that nobody uses any more")


def _check_usage(
    ids: Sequence[UUID], dataset_type: str | None, collections: Sequence[str], where: str
) -> None:
    if bool(ids) == (dataset_type is not None):
        raise click.UsageError("give UUIDs, or --type TYPE with -i COLLECTION")
    if dataset_type is not None and not collections:
        raise click.UsageError("--type needs -i COLLECTION: where the datasets are looked for")
    if where and dataset_type is None:
        raise click.UsageError("--where goes with --type")


def _collected_facts(found: Collected, dry_run: bool) -> dict[str, object]:
    return {
        "dry_run": dry_run,
        "collections": list(found.collections),
        "kept": found.kept,
        **_removed_facts(found.removed),
        "n_copies": found.n_copies,
        **_trash_facts(found.emptied),
    }


def _collected_lines(found: Collected, dry_run: bool) -> list[str]:
    verb = "would go" if dry_run else "removed"
    lines = [f"{_went(found.removed, dry_run)}; {found.n_copies} copies"]
    lines += [f"{verb}: collection {name}, which has expired" for name in found.collections]
    lines += [f"kept: collection {name}, though expired: {'; '.join(by)}" for name, by in found.kept.items()]
    return [*lines, f"trash: {found.emptied.n_files} files {'wait' if dry_run else 'taken away'}"]


def _went(removed: Removed, dry_run: bool) -> str:
    verb = "would go" if dry_run else "removed"
    return f"{verb}: {removed.n_datasets} datasets, {removed.n_files} files, {format_bytes(removed.n_bytes)}"


def _removed_facts(removed: Removed) -> dict[str, object]:
    return {
        "n_datasets": removed.n_datasets,
        "n_files": removed.n_files,
        "n_bytes": removed.n_bytes,
        "n_tombstones": removed.n_tombstones,
    }


def _trash_facts(emptied: Emptied) -> dict[str, object]:
    return {
        "n_taken_away": emptied.n_files,
        "left_in_trash": [{"url": url, "why": why} for url, why in emptied.left],
    }


def _told(lines: Sequence[str], facts: dict[str, object], emptied: Emptied, as_json: bool) -> int:
    """Print what went; what could not be taken away makes the command fail."""
    if as_json:
        show_json(facts)
    else:
        click.echo("\n".join(lines))
    for url, why in emptied.left:
        tell(f"still in the trash: {url}: {why}")
    if emptied.left:
        tell("next: see to the storage, then `loadmaster gc` tries again")
    return FAILED if emptied.left else DONE
