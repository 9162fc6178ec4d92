"""The command that plans again, and says what is different."""

from pathlib import Path
from typing import Any

import click
from loadmaster_planner.difference import difference
from loadmaster_planner.plan import Plan

from ..replan import planned_again
from ..repo import Repo
from ..why import difference_table
from .options import at, json_option, repo_option
from .output import show, tell

_PLAN = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command("replan")
@click.argument("plan", type=_PLAN)
@click.option(
    "--save", type=click.Path(dir_okay=False, path_type=Path), help="Write the new plan, for `submit`."
)
@click.option("--against", type=_PLAN, help="Plan nothing: compare with this plan.")
@click.option(
    "--skip-existing",
    type=click.Choice(["exists", "provenance", "content"]),
    help="Leave out what is done by now, whatever the plan said.",
)
@click.option(
    "--skip-existing-in",
    multiple=True,
    metavar="COLLECTION",
    help="Where that may be.  [default: what the plan said, or its output]",
)
@json_option
@repo_option
def replan_command(
    plan: Path, save: Path | None, against: Path | None, as_json: bool, repo: str, **asked: Any
) -> None:
    """Plan again what a plan asked for, and show what is different.

    PLAN is a file that `plan --save` wrote, or the file `plan` in a run's folder. The new plan is the one that the
    same request gives with what the repository holds now: new data, new calibrations, flags.
    """
    if against is not None and (save is not None or any(asked.values())):
        raise click.UsageError("--against compares two plans: nothing is planned, saved or skipped")
    old = Plan.open(plan)
    new = Plan.open(against) if against is not None else _planned_again(repo, old, asked)
    found = difference(old, new)
    show(difference_table(found), {"n_jobs": new.n_jobs, **found.to_json()}, as_json)
    if save is not None:
        new.write(save)
        tell(f"next: loadmaster submit {save}{at(repo)}")


def _planned_again(repo: str, old: Plan, asked: dict[str, Any]) -> Plan:
    with Repo(repo) as opened:
        return planned_again(opened, old, **asked).planned
