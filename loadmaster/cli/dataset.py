"""Commands about single datasets."""

from uuid import UUID

import click

from ..dataset import dataset_facts, dataset_table
from ..repo import Repo
from .options import json_option, repo_option
from .output import show


@click.group("dataset")
def dataset_command() -> None:
    """Look at single datasets."""


@dataset_command.command("show")
@click.argument("id", type=click.UUID, metavar="UUID")
@json_option
@repo_option
def show_command(id: UUID, as_json: bool, repo: str) -> None:
    """Show one dataset: file, checksum, what made it and from what, and who shows it."""
    with Repo(repo) as opened, opened.registry.snapshot() as now:
        facts = dataset_facts(now, opened.backbone, id)
    show(dataset_table(facts), facts, as_json)
