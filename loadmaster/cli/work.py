"""Commands that plan and run."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import click
from loadmaster_executors.report import RunReport
from loadmaster_planner.estimate import Limits, refuse_over_limits
from loadmaster_planner.explain.absence import WhyNot
from loadmaster_planner.explain.explanation import Explanation
from loadmaster_registry.errors import RegistryError
from rich.console import Console

from ..config import SITE_VARIABLE
from ..endpoints import endpoint_facts, endpoint_notes
from ..plan import plan_table
from ..repo import Repo
from ..run import Run, report_facts, report_table, status_table
from .options import (
    at,
    bind_option,
    collections_option,
    config_options,
    json_option,
    limit_options,
    repo_option,
    size_value,
    split_names,
    where_option,
)
from .outcome import DONE, FAILED, REFUSED, tell_error
from .output import show, show_json, tell

_Command = TypeVar("_Command", bound=Callable[..., Any])
_Option = Callable[[Callable[..., Any]], Callable[..., Any]]
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


def request_options(command: _Command) -> _Command:
    """Add the options that say what is asked to be planned."""
    output_help = "The chain of collections that will show what is made, before the inputs."
    for option in (
        *_job_options(),
        *_done_options(),
        *_choice_options(),
        config_options,
        click.option("--output-run", metavar="RUN", help="Name of the run.  [default: OUTPUT/<time>]"),
        bind_option,
        where_option,
        click.option("-o", "--output", required=True, metavar="COLLECTION", help=output_help),
        collections_option("Collections with the inputs.", "inputs", required=True),
    ):
        command = option(command)
    return command


def _choice_options() -> Iterator[_Option]:
    """Return the options that choose data beside --where, the last one first."""
    yield click.option("--include-flagged", is_flag=True, help="Let observations with a flag take part.")
    yield click.option(
        "--overrides",
        type=_FILE,
        metavar="FILE",
        help="A table of calibrations to be used whatever is valid: dataset_type, a data ID, and dataset_id or "
        "collection.",
    )
    yield click.option(
        "--data-id-table",
        "tables",
        multiple=True,
        type=_FILE,
        metavar="FILE",
        help="Only the data IDs in this table: CSV, Parquet, ECSV, FITS, …  [any number of times]",
    )
    yield click.option(
        "--allow-partial-gather",
        is_flag=True,
        help="Accept that --where or a table trims what tasks gather.",
    )
    yield click.option(
        "--target-type", default="", metavar="TYPE", help="The dataset type of --target.  [default: the last]"
    )
    yield click.option(
        "--target",
        default="",
        metavar="EXPRESSION",
        help='Which end products: "tract=9813 AND patch IN (1,2)". All that they need is planned, complete.',
    )


def _done_options() -> Iterator[_Option]:
    """Return the options about what exists already, the last one first."""
    yield click.option(
        "--repair",
        multiple=True,
        callback=split_names,
        metavar="COLLECTION",
        help="Make anew, without flagged observations, what these went into there, and nothing else.",
    )
    yield click.option(
        "--skip-existing-in",
        multiple=True,
        callback=split_names,
        metavar="COLLECTION",
        help="Where what is done may be.  [default: the output]",
    )
    yield click.option(
        "--skip-existing",
        type=click.Choice(["exists", "provenance", "content"]),
        help="Leave out what is done: it exists; by the same code, configuration and datasets; or content.",
    )


def _job_options() -> Iterator[_Option]:
    """Return the options that say how quanta become jobs, the last one first."""
    yield click.option(
        "--store-after-all", is_flag=True, help="Store an elided type that another job reads, and plan."
    )
    yield click.option(
        "--elide",
        multiple=True,
        callback=split_names,
        metavar="TYPE",
        help="A dataset type that is handed on in memory inside its job, and not stored.",
    )
    yield click.option(
        "--clusters",
        type=_FILE,
        metavar="FILE",
        help="A batch file: which quanta run together in a job, and what jobs ask for.  [default: each alone]",
    )


def submit_options(command: _Command) -> _Command:
    """Add the options that say how a plan is run."""
    rebase_help = "Put the output on other inputs than those from which its older runs were made."
    junk_help = (
        "What becomes of files that tasks write and nobody declared: keep packs them, a dataset a quantum."
    )
    for option in (
        click.option("--rebase", is_flag=True, help=rebase_help),
        click.option(
            "--junk-limit",
            default="100MB",
            show_default=True,
            metavar="SIZE",
            callback=size_value,
            help="How much --junk keep packs for each quantum.",
        ),
        click.option(
            "--junk", type=click.Choice(["drop", "keep"]), default="drop", show_default=True, help=junk_help
        ),
        click.option("-j", "--jobs", type=click.IntRange(min=1), metavar="N", help="How many jobs at once."),
        click.option(
            "--site",
            default="local",
            envvar=SITE_VARIABLE,
            help=f"A site's name, or its YAML file.  [default: ${SITE_VARIABLE}, or local]",
        ),
    ):
        command = option(command)
    return command


@click.command("plan")
@click.argument("pipeline")
@request_options
@limit_options
@click.option("--save", type=click.Path(dir_okay=False, path_type=Path), help="Write the plan, for `submit`.")
@click.option(
    "--explain", "is_explained", is_flag=True, help="Say instead, task by task, what takes data IDs away."
)
@click.option(
    "--why-not",
    metavar="QUANTUM",
    help="Say instead what took this quantum away: 'warp visit=1228 tract=9813 patch=40'.",
)
@json_option
@repo_option
def plan_command(
    save: Path | None,
    is_explained: bool,
    why_not: str | None,
    max_core_hours: float | None,
    max_bytes: float | None,
    as_json: bool,
    repo: str,
    **asked: Any,
) -> int:
    """Plan what a pipeline will do, and show it.

    PIPELINE is a YAML file; FILE#LABEL,… a part of it. Nothing is started, and nothing but --save is written.
    Exit code 3 says that the plan is refused, or that there is nothing in it.
    """
    if is_explained and why_not:
        raise click.UsageError("give one of --explain and --why-not")
    with Repo(repo) as opened:
        if why_not is not None:
            return _tell_why(opened.why_not(why_not, **asked), as_json)
        if is_explained:
            return _tell_why(opened.explain(**asked), as_json)
        plan = opened.plan(**asked)
        limits = Limits(max_core_hours, max_bytes)
        if limits != Limits():
            refuse_over_limits(plan.estimate(), limits)
        if save is not None:
            plan.write(save)
        show(plan.table(), plan.facts(), as_json)
        if plan.is_empty:
            tell(
                "\n".join(
                    [*opened.explain(**asked).answer(), "step by step: the same command with --explain"]
                )
            )
            return REFUSED
    if save is not None:
        tell(f"next: loadmaster submit {save}{at(repo)}")
    return DONE


def _tell_why(why: Explanation | WhyNot, as_json: bool) -> int:
    """Print why data IDs are, or are not, in a plan."""
    if as_json:
        show_json(why.to_json())
    else:
        click.echo("\n".join(why.lines()))
    return REFUSED if isinstance(why, Explanation) and why.is_empty else DONE


@click.command("submit")
@click.argument("plan", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@submit_options
@json_option
@repo_option
def submit_command(
    plan: Path,
    site: str,
    jobs: int | None,
    rebase: bool,
    junk: str,
    junk_limit: float,
    as_json: bool,
    repo: str,
) -> int:
    """Start the run of a saved plan and wait for it.

    PLAN is a file that `plan --save` wrote. The same command again goes on where it stands.
    """
    with Repo(repo) as opened:
        run = opened.open_plan(plan).submit(site=site, jobs=jobs, rebase=rebase)
        return _finish(run, as_json, repo, _junk_bytes(junk, junk_limit))


@click.command("run")
@click.argument("pipeline")
@request_options
@submit_options
@json_option
@repo_option
def run_command(junk: str, junk_limit: float, as_json: bool, repo: str, **asked: Any) -> int:
    """Plan, submit and wait; after an interruption, go on.

    PIPELINE is a YAML file; FILE#LABEL,… a part of it. If a run of the same request was interrupted, or jobs
    of it failed, this goes on with it: jobs that are done stay done, the others are tried again.
    """
    with Repo(repo) as opened:
        run = opened.run(**asked)
        _tell_of_others(opened, run, repo)
        return _finish(run, as_json, repo, _junk_bytes(junk, junk_limit))


@click.command("status")
@click.argument("run", required=False)
@json_option
@repo_option
def status_command(run: str | None, as_json: bool, repo: str) -> None:
    """Say how far runs are.

    RUN is a run, or an output collection, which means its newest run; all runs without it.
    """
    with Repo(repo) as opened:
        runs = opened.runs() if run is None else [opened.open_run(run)]
        lines = [(one.report(), one.status()) for one in runs]
    shown = [one.folder.path for one in runs if run is not None or one.folder.is_attended]
    notes = dict.fromkeys(note for folder in shown for note in endpoint_notes(folder))
    facts = [
        {**report_facts(report, status), "endpoints": endpoint_facts(one.folder.path)}
        for one, (report, status) in zip(runs, lines, strict=True)
    ]
    show(status_table(lines, tuple(notes)), facts, as_json)
    if any(status == "stopped" for _, status in lines):
        tell("a stopped run goes on with the command that began it, or: loadmaster submit REPO/runs/RUN/plan")


@click.command("report")
@click.argument("run")
@click.option("--traceback", is_flag=True, help="Show a traceback of each kind of failure.")
@json_option
@repo_option
def report_command(run: str, traceback: bool, as_json: bool, repo: str) -> int:
    """Say what a run did, and why what failed failed.

    RUN is a run, or an output collection, which means its newest run.
    """
    with Repo(repo) as opened:
        found = opened.open_run(run)
        report, status = found.report(), found.status()
    show(report_table(report, tracebacks=traceback), report_facts(report, status), as_json)
    return FAILED if status == "failed" else DONE


def _tell_of_others(opened: Repo, run: Run, repo: str) -> None:
    """Say which runs of the same output were left unfinished, in case this was meant to be one of them."""
    if run.is_resumed:
        return
    for other in opened.runs():
        if other.name != run.name and other.status() == "stopped" and other.output == run.output:
            plan = other.folder.path / "plan"
            tell(f"note: {other.name}, of another request, is unfinished")
            tell(f"  to go on with it: loadmaster submit {plan}{at(repo)}")


def _junk_bytes(junk: str, limit: float) -> int:
    """Return how much of undeclared files is kept for each quantum; -1 for none at all."""
    return int(limit) if junk == "keep" else -1


def _finish(run: Run, as_json: bool, repo: str, junk_bytes: int) -> int:
    """Wait for a run, and say how it ended and what to do next."""
    if run.is_resumed:
        tell(f"going on with run {run.name}, begun {run.folder.journal.facts()['created']}")
    else:
        plan_table(run.folder.plan).print(Console(stderr=True))
    try:
        report = run.wait(junk_bytes=junk_bytes)
    except KeyboardInterrupt:
        tell(f"interrupted: nothing runs any more, and the same command goes on with run {run.name}")
        return FAILED
    except RegistryError as error:  # in the middle of the run: not refused, but failed
        tell_error(error)
        return FAILED
    show(report_table(report), report_facts(report, run.status()), as_json)
    tell(_next_step(run, report, repo))
    return DONE if report.is_good else FAILED


def _next_step(run: Run, report: RunReport, repo: str) -> str:
    if report.is_good:
        made = ", ".join(dataset_type.name for dataset_type in run.folder.plan.dataset_types)
        return f"made {made}; see them: loadmaster query-datasets TYPE -i {run.output}{at(repo)}"
    again = "tries again what failed" if report.counts["failed"] else "begins a new run"
    return f"see more: loadmaster report {run.name} --traceback{at(repo)}; the same command {again}"
