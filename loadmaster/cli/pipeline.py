"""Commands that look at pipelines; they need no repository."""

from typing import Literal

import click
from loadmaster_pipelines.loader import load_pipeline
from loadmaster_pipelines.show import mermaid, svg, text
from loadmaster_registry.universe import load_universe

from .options import config_options
from .output import show_json

_SHOWN = {"text": text, "mermaid": mermaid, "svg": svg}


@click.group("pipeline")
def pipeline_command() -> None:
    """Look at pipelines."""


@pipeline_command.command("show")
@click.argument("pipeline")
@click.option("--as", "form", type=click.Choice(["text", "mermaid", "svg", "json"]), default="text", show_default=True)
@config_options
def show_command(
    pipeline: str,
    form: Literal["text", "mermaid", "svg", "json"],
    config: tuple[str, ...],
    select: str | None,
    trusted: bool,
) -> None:
    """Print a pipeline's tasks and dataset types: PIPELINE is a YAML file, FILE#LABEL,… for a part of it."""
    loaded = load_pipeline(pipeline, universe=load_universe(), config=config, select=select, trusted=trusted)
    if form == "json":
        show_json(loaded.to_json())
    else:
        click.echo(_SHOWN[form](loaded))
