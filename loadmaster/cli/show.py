"""The command that shows a plan; it needs no repository."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from loadmaster_planner import diagram
from loadmaster_planner.export import write_parquet
from loadmaster_planner.plan import Plan
from loadmaster_planner.show import (
    find_quantum,
    job_facts,
    job_of,
    places_of,
    plan_facts,
    quanta_page,
    quantum_facts,
    shards,
    verify,
)

from ..show import job_tables, plan_tables, quantum_table, step_table, task_table
from ..tables import Table, frame_rows
from .output import show, show_json, tell

_DIAGRAMS = {"mermaid": diagram.as_mermaid, "dot": diagram.as_dot, "graphml": diagram.as_graphml}
_PAGE = 50


@click.command("show")
@click.argument("plan", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--task", "tasks", multiple=True, metavar="LABEL", help="The quanta of a task.  [any number of times]"
)
@click.option("--step", metavar="STEP", help="What a step of the pipeline may be split into: its shards.")
@click.option(
    "--quantum", metavar="QUANTUM", help="One quantum: 'isr exposure=1228 detector=41', its uuid, or its job."
)
@click.option("--job", type=click.IntRange(min=0), metavar="N", help="One job with all its quanta.")
@click.option(
    "--limit", type=click.IntRange(min=1), default=_PAGE, show_default=True, help="Quanta, or shards."
)
@click.option(
    "--offset", type=click.IntRange(min=0), default=0, help="How many quanta, or shards, to pass over."
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json", *_DIAGRAMS, "parquet"]),
    default="text",
    show_default=True,
)
@click.option("--json", "form", flag_value="json", help="The same as --format json.")
@click.option(
    "--level",
    type=click.Choice(["task", "quantum"]),
    help="What a graph is of.  [default: quanta if they are few, and in GraphML]",
)
@click.option("--folder", type=click.Path(path_type=Path), help="The new folder for Parquet tables.")
@click.option(
    "--verify", "is_verified", is_flag=True, help="Read all of the file first, and compute its digest again."
)
def show_command(plan: Path, form: str, folder: Path | None, is_verified: bool, **asked: Any) -> None:
    """Show a plan: its tasks and dataset types, some quanta, shards, one quantum or job.

    PLAN is a file that `plan --save` wrote, or the file `plan` in a run's folder.
    """
    _check_usage(form, folder, asked)
    opened = Plan.open(plan)
    if is_verified:
        verify(opened)
        tell(f"the plan is as it was written: its content has the digest {opened.digest}")
    if form == "text":
        for table in _tables(opened, **asked):
            show(table, None, as_json=False)
    elif form == "json":
        show_json(_facts(opened, **asked))
    elif folder is not None:
        write_parquet(opened, folder)
        tell(f"next: polars.read_parquet('{folder}/quanta/TASK'), or any program that reads Parquet")
    else:
        click.echo(_DIAGRAMS[form](_diagram(opened, form, **asked)), nl=False)


def _check_usage(form: str, folder: Path | None, asked: dict[str, Any]) -> None:
    chosen = [name for name in ("tasks", "step", "quantum", "job") if asked[name] not in (None, ())]
    if len(chosen) > 1:
        raise click.UsageError("give one of --task, --step, --quantum and --job")
    if asked["step"] and form in _DIAGRAMS:
        raise click.UsageError("--step is for --format text and json: a table")
    if asked["level"] and form not in _DIAGRAMS:
        raise click.UsageError(f"--level is for --format {', '.join(_DIAGRAMS)}")
    if (form == "parquet") != (folder is not None):
        raise click.UsageError("--format parquet and --folder go together: the tables are written there")
    if form == "parquet" and chosen:
        raise click.UsageError(
            "--format parquet writes all of a plan: leave --task, --step, --quantum and --job out"
        )


def _tables(
    plan: Plan,
    tasks: tuple[str, ...],
    step: str | None,
    quantum: str | None,
    job: int | None,
    limit: int,
    offset: int,
    **_: Any,
) -> Iterator[Table]:
    if job is not None:
        yield from job_tables(plan, job)
    elif quantum is not None:
        place = find_quantum(plan, quantum)
        yield quantum_table(plan, plan.quantum(place.task, place.row), job_of(plan, place))
    elif tasks:
        yield from (task_table(plan, label, offset, limit) for label in tasks)
    elif step is not None:
        yield step_table(plan, step, offset, limit)
    else:
        yield from plan_tables(plan)


def _facts(
    plan: Plan,
    tasks: tuple[str, ...],
    step: str | None,
    quantum: str | None,
    job: int | None,
    limit: int,
    offset: int,
    **_: Any,
) -> object:
    if job is not None:
        return job_facts(plan, job)
    if quantum is not None:
        place = find_quantum(plan, quantum)
        return {"job": job_of(plan, place), **quantum_facts(plan.quantum(place.task, place.row))}
    if tasks:
        return {label: frame_rows(quanta_page(plan, label, offset, offset + limit)) for label in tasks}
    if step is not None:
        found = shards(plan, step)
        return {"step": step, "n_shards": found.height, "shards": frame_rows(found[offset : offset + limit])}
    return plan_facts(plan)


def _diagram(
    plan: Plan,
    form: str,
    tasks: tuple[str, ...],
    quantum: str | None,
    job: int | None,
    level: str | None,
    **_: Any,
) -> diagram.Diagram:
    if job is not None:
        return diagram.quantum_diagram(plan, diagram.some_quanta(places_of(plan, job)))
    if quantum is not None:
        return diagram.quantum_diagram(plan, diagram.some_quanta([find_quantum(plan, quantum)]))
    is_to_look_at = form != "graphml" and not tasks
    if level == "task" or (level is None and is_to_look_at and not diagram.is_drawable(plan)):
        return diagram.task_diagram(plan, tasks)
    return diagram.quantum_diagram(plan, diagram.all_quanta(plan, tasks))
