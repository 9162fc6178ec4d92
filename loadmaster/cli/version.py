"""The command that says which version this is."""

from importlib.metadata import version

import click


@click.command("version")
def version_command() -> None:
    """Say which version this is."""
    click.echo(f"loadmaster {version('loadmaster')}")
