"""The command that says why a quantum is run."""

from pathlib import Path

import click
from loadmaster_planner.plan import Plan

from ..repo import Repo
from ..why import explained, setting_changes, why_table
from .options import collections_option, json_option, repo_option
from .output import show


@click.command("why")
@click.argument("quantum")
@click.option(
    "--plan",
    "plan_path",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A plan that has the quantum, run or not; without it, one that was run is meant.",
)
@collections_option("Compare with quanta of these runs only.")
@json_option
@repo_option
def why_command(
    quantum: str, plan_path: Path | None, collections: tuple[str, ...], as_json: bool, repo: str
) -> None:
    """Say why a quantum is run: what differs from the nearest earlier one.

    QUANTUM is 'isr exposure=1228 detector=41', or its uuid. The nearest earlier quantum is that of the same task and
    data ID with the fewest differences in code, configuration, environment and inputs.
    """
    with Repo(repo) as opened:
        plan = Plan.open(plan_path) if plan_path else None
        found = explained(opened, quantum, plan, collections)
        settings = setting_changes(opened, found, plan)
    show(why_table(found, settings), {**found.to_json(), "settings": settings}, as_json)
