"""Commands about a site's cache."""

from pathlib import Path

import click
from loadmaster_registry.errors import NotFound, did_you_mean
from loadmaster_staging.manifest import InputFile

from ..cache import SiteCache, files_of_plan, files_of_query, refuse_failures
from ..config import SITE_VARIABLE, read_site
from ..repo import Repo
from ..tables import Table, format_bytes
from .options import bind_option, collections_option, json_option, repo_option, where_option
from .outcome import DONE, FAILED
from .output import show, tell

_site_option = click.option(
    "--site",
    default="local",
    envvar=SITE_VARIABLE,
    help=f"The site whose cache it is: its name, or its YAML file.  [default: ${SITE_VARIABLE}, or local]",
)


@click.group("cache")
def cache_command() -> None:
    """Fill a site's cache, look at it, verify it, clear it."""


@cache_command.command("pull")
@click.argument("what", metavar="PLAN|DATASET_TYPE")
@collections_option("Where the datasets are looked for.")
@where_option
@bind_option
@_site_option
@json_option
@repo_option
def pull_command(
    what: str,
    collections: tuple[str, ...],
    where: str,
    bind: dict[str, object],
    site: str,
    as_json: bool,
    repo: str,
) -> int:
    """Fetch what a plan reads, or what a query finds, so that it is there without a network.

    PLAN is a file that `plan --save` wrote, DATASET_TYPE one or more names with commas. What is there already, or
    on this machine anyway, is not fetched.
    """
    with Repo(repo) as opened:
        cache = SiteCache(read_site(site))
        if Path(what).is_file():
            files = files_of_plan(opened.open_plan(what).planned, opened.backbone)
        else:
            files = _found(opened, what, collections, where, bind)
        pulled = cache.pull(files, _tell_progress)
    show(pulled.table(), pulled.facts(), as_json)
    refuse_failures(pulled)
    return DONE


@cache_command.command("show")
@_site_option
@json_option
def show_command(site: str, as_json: bool) -> None:
    """Show what is in a site's cache, and what jobs hold."""
    cache = SiteCache(read_site(site))
    show(cache.table(), cache.facts(), as_json)


@cache_command.command("verify")
@_site_option
@json_option
def verify_command(site: str, as_json: bool) -> int:
    """Read a site's cache through and remove what is corrupt.

    It is fetched again when it is wanted. Exit code 1 says that there was something.
    """
    corrupt = SiteCache(read_site(site)).verify()
    rows = tuple((str(entry.path), format_bytes(entry.size_bytes)) for entry in corrupt)
    table = Table(("corrupt, removed", "size"), rows, notes=() if rows else ("all is as it should be",))
    show(table, [{"path": str(entry.path), "size_bytes": entry.size_bytes} for entry in corrupt], as_json)
    return FAILED if corrupt else DONE


@cache_command.command("clear")
@click.option(
    "--unused-for",
    type=click.FloatRange(min=0),
    default=0.0,
    metavar="DAYS",
    help="Only what nobody has used for so long.",
)
@_site_option
def clear_command(unused_for: float, site: str) -> None:
    """Empty a site's cache, but for what jobs hold."""
    freed = SiteCache(read_site(site)).clear(unused_days=unused_for)
    tell(f"{format_bytes(freed)} are free now")


def _found(
    opened: Repo, what: str, collections: tuple[str, ...], where: str, bind: dict[str, object]
) -> list[InputFile]:
    """Return the files of a query."""
    names = [name for name in what.split(",") if name]
    known = [dataset_type.name for dataset_type in opened.registry.dataset_types()]
    for name in names:
        if name not in known:
            raise NotFound(
                what=f"{name!r} is neither a plan's file nor a dataset type",
                where=str(opened.place.folder),
                why="there is no such file and no such type",
                todo=did_you_mean(name, known),
            )
    if not collections:
        raise click.UsageError("say in which collections the datasets are: -i COLLECTION")
    return files_of_query(opened.registry, opened.backbone, names, collections, where, bind)


def _tell_progress(n: int, n_all: int) -> None:
    if n % 1000 == 0 and n < n_all:
        tell(f"{n}/{n_all} files")
