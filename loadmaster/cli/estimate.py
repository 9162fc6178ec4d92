"""The command that says what a plan will cost."""

from pathlib import Path

import click
from click.core import ParameterSource
from loadmaster_planner.estimate import Estimate, Limits, refuse_over_limits
from loadmaster_planner.plan import Plan
from loadmaster_registry.errors import NotFound

from ..config import read_site
from ..estimate import estimate_facts, estimate_plan, estimate_tables
from ..repo import Repo
from .options import json_option, limit_options, repo_option
from .output import show, show_json, tell


@click.command("estimate")
@click.argument("plan", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--slots", type=click.IntRange(min=1), metavar="N", help="Jobs at once.  [default: cores here]")
@limit_options
@json_option
@repo_option
@click.pass_context
def estimate_command(
    context: click.Context,
    plan: Path,
    slots: int | None,
    max_core_hours: float | None,
    max_bytes: float | None,
    as_json: bool,
    repo: str,
) -> None:
    """Estimate what a plan costs: core hours, wall time, bytes, files, scratch.

    PLAN is a file that `plan --save` wrote. Figures are from earlier runs in the repository where there are
    any, else from what tasks declare. A plan over a limit is refused.
    """
    is_named = context.get_parameter_source("repo") is not ParameterSource.DEFAULT
    found = _estimate(Plan.open(plan), slots or read_site("local").jobs, repo, is_named)
    if as_json:
        show_json(estimate_facts(found))
    else:
        for table in estimate_tables(found):
            show(table, None, as_json=False)
    refuse_over_limits(found, Limits(max_core_hours, max_bytes))


def _estimate(plan: Plan, slots: int, repo: str, is_named: bool) -> Estimate:
    """Estimate from the repository's runs; one that nobody named need not be there."""
    try:
        opened = Repo(repo)
    except NotFound:
        if is_named:
            raise
        tell("there is no repository here to learn from; name one with --repo")
        return estimate_plan(plan, slots)
    with opened:
        return estimate_plan(plan, slots, opened.registry, opened.place.runs)
