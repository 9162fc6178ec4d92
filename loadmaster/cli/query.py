"""Commands that ask the registry."""

from collections.abc import Mapping

import click
import polars as pl

from ..repo import Repo
from ..tables import frame_rows, frame_table
from .options import bind_option, collections_option, json_option, limit_option, repo_option, where_option
from .output import show, tell


@click.command("query-data-ids")
@click.argument("dimensions", nargs=-1, required=True)
@where_option
@bind_option
@click.option(
    "--datasets", multiple=True, metavar="TYPE", help="Only where a dataset of TYPE exists (needs -i)."
)
@collections_option("Where --datasets are looked for.")
@click.option("--order-by", multiple=True, metavar="COLUMN", help="visit.exposure_time; -COLUMN to descend.")
@limit_option
@json_option
@repo_option
def query_data_ids_command(
    dimensions: tuple[str, ...],
    where: str,
    bind: Mapping[str, object],
    datasets: tuple[str, ...],
    collections: tuple[str, ...],
    order_by: tuple[str, ...],
    limit: int | None,
    as_json: bool,
    repo: str,
) -> None:
    """List the data IDs over some dimensions."""
    with Repo(repo) as opened:
        frame = opened.query_data_ids(
            dimensions,
            where=where,
            bind=bind,
            datasets=datasets,
            collections=collections,
            order_by=order_by,
            limit=limit,
        )
        if frame.is_empty():
            why = opened.explain_query(
                dimensions, where=where, bind=bind, datasets=datasets, collections=collections
            )
            tell("\n".join(why.answer()))
    _show(frame, as_json, "data IDs")


@click.command("query-datasets")
@click.argument("dataset_type")
@collections_option("Where to look.", required=True)
@where_option
@bind_option
@click.option(
    "--all", "every", is_flag=True, help="What later collections hold too, not only the first found."
)
@limit_option
@json_option
@repo_option
def query_datasets_command(
    dataset_type: str,
    collections: tuple[str, ...],
    where: str,
    bind: Mapping[str, object],
    every: bool,
    limit: int | None,
    as_json: bool,
    repo: str,
) -> None:
    """List the datasets of one type."""
    with Repo(repo) as opened:
        frame = opened.query_datasets(
            dataset_type, collections, where=where, bind=bind, find_first=not every, limit=limit
        )
        if frame.is_empty():
            dimensions = opened.registry.dataset_type(dataset_type).dimensions.required
            why = opened.explain_query(
                dimensions, where=where, bind=bind, datasets=dataset_type, collections=collections
            )
            tell("\n".join(why.answer()))
    _show(frame, as_json, "datasets")


@click.command("query-collections")
@click.argument("glob", default="*")
@json_option
@repo_option
def query_collections_command(glob: str, as_json: bool, repo: str) -> None:
    """List collections and what chains hold.

    GLOB limits them by name: 'HSC/*'.
    """
    with Repo(repo) as opened:
        frame = opened.query_collections(glob)
    _show(frame, as_json, "collections")


@click.command("query-dimension-records")
@click.argument("element")
@where_option
@bind_option
@limit_option
@json_option
@repo_option
def query_dimension_records_command(
    element: str, where: str, bind: Mapping[str, object], limit: int | None, as_json: bool, repo: str
) -> None:
    """List the records of one dimension element."""
    with Repo(repo) as opened:
        frame = opened.query_dimension_records(element, where=where, bind=bind, limit=limit)
    _show(frame, as_json, "records")


def _show(frame: pl.DataFrame, as_json: bool, what: str) -> None:
    rows = frame_rows(frame) if as_json else []
    show(frame_table(frame, notes=(f"{frame.height} {what}",)), rows, as_json)
