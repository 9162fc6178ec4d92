"""Commands that look at pipelines; they need no repository."""

from pathlib import Path

import click
from loadmaster_pipelines.loader import load_pipeline
from loadmaster_pipelines.show import as_mermaid, as_svg, as_text, as_yaml
from loadmaster_registry.universe import load_universe

from .options import config_options, universe_option
from .output import show_json

_FORMS = {"text": as_text, "mermaid": as_mermaid, "svg": as_svg, "yaml": as_yaml}


@click.group("pipeline")
def pipeline_command() -> None:
    """Look at pipelines."""


@pipeline_command.command("show")
@click.argument("pipeline")
@click.option("--format", "form", type=click.Choice([*_FORMS, "json"]), default="text", show_default=True)
@config_options
@universe_option
def show_command(
    pipeline: str,
    form: str,
    config: tuple[str, ...],
    select: str | None,
    trusted: bool,
    formats: Path | None,
    extensions: tuple[Path, ...],
) -> None:
    """Print a pipeline's tasks and dataset types: PIPELINE is a YAML file, FILE#LABEL,… for a part of it."""
    loaded = load_pipeline(
        pipeline,
        universe=load_universe(*extensions),
        config=config,
        select=select,
        trusted=trusted,
        formats=[formats] if formats else [],
    )
    if form == "json":
        show_json(loaded.to_json())
    else:
        click.echo(_FORMS[form](loaded))
