"""From a plan to a run: one folder, one registry transaction, and then the executor."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from loadmaster_executors.prepare import check_runnable
from loadmaster_executors.run import JOURNAL_NAME, PLAN_NAME, RunFolder
from loadmaster_pipelines.pipeline import Pipeline
from loadmaster_planner.all_done import planned_record
from loadmaster_planner.plan import Plan
from loadmaster_planner.request import Request
from loadmaster_registry.errors import PlanError
from loadmaster_registry.records import Collection, CollectionType
from loadmaster_registry.store import Registry
from loadmaster_registry.transaction import Transaction
from loadmaster_staging.location import checked_path

from .chain import output_chain

_REQUEST_NAME = "request.json"
_REUSED = "reused"  # below the run: what earlier runs made that stands for outputs of this one
# With jobs in these states a run is worth going on with: they are open, or may do better when tried again.
_UNFINISHED = ("waiting", "ready", "running", "finished", "failed", "cancelled")


def request_digest(pipeline: Pipeline, request: Request, clustering: Mapping[str, Any]) -> str:
    """Digest what a person asked for, whatever the name of the run: the same command has the same digest."""
    asked = [pipeline.to_json(), {**request.to_json(), "output_run": ""}, clustering]
    return hashlib.sha256(json.dumps(asked, sort_keys=True, default=str).encode()).hexdigest()


def begin_run(
    registry: Registry, runs: Path, plan: Plan, digest: str, *, rebase: bool = False
) -> tuple[RunFolder, bool]:
    """Begin the run of a plan in its folder below `runs`, and show its outputs in the output chain.

    In one transaction the registry learns the types of the outputs, the RUN, the earlier datasets that it reuses
    (tagged, nothing is copied), and the chain: this run, what it reuses, older runs, inputs.
    Where the same plan was begun already, this goes on with it; it can be killed at any point, and repeated.

    Returns
    -------
    run : RunFolder
    is_new : bool
        False where the run was begun before.

    Raises
    ------
    PlanError
        If the plan has nothing to do.
    RunError
        If it has tasks that cannot run.
    Conflict
        If older runs of the output were made from other inputs, and not `rebase`.
    """
    _refuse_empty(plan)
    check_runnable(plan)
    folder = runs / checked_path(plan.output_run)
    with registry.snapshot() as now:
        children = _children(now.collections(plan.header.output))
    _chain(plan, children, rebase)  # refused before anything is written
    is_new = not (folder / JOURNAL_NAME).exists()
    if is_new:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / _REQUEST_NAME).write_text(json.dumps({"digest": digest, "output": plan.header.output}))
    run = RunFolder.create(folder, plan)
    with registry.transaction() as transaction:
        _register(transaction, plan, rebase)
    return run, is_new


def reused_by(run: str) -> str:
    """Name the collection that shows earlier datasets as the outputs of a run."""
    return f"{run}/{_REUSED}"


def run_folders(runs: Path) -> list[Path]:
    """Return the folders of all runs, the oldest first."""
    return sorted(_run_folders(runs), key=lambda folder: (folder / PLAN_NAME).stat().st_mtime_ns)


def unfinished_run(runs: Path, digest: str, name: str | None = None) -> Path | None:
    """Return the folder of the newest run of this request, and of this name, that is worth going on with."""
    begun = [
        folder for folder in run_folders(runs) if _digest_of(folder) == digest and _is_unfinished(folder)
    ]
    fitting = [folder for folder in begun if name is None or folder == runs / name]
    return fitting[-1] if fitting else None


def _run_folders(runs: Path) -> Iterator[Path]:
    for folder, inside, files in os.walk(runs):
        if JOURNAL_NAME in files:
            inside.clear()  # there may be a million logs
            yield Path(folder)


def _refuse_empty(plan: Plan) -> None:
    if plan.n_jobs or plan.header.reused:
        return
    dropped = "; ".join(map(str, plan.header.dropped))
    raise PlanError(
        what="there is nothing to run: the plan has no quanta",
        where=f"plan of {plan.output_run}" + (f" where {plan.header.where}" if plan.header.where else ""),
        why=plan.header.why_empty or dropped or "no data ID has all that the tasks need",
        todo="see what there is with `loadmaster query-datasets`, and correct inputs or --where",
    )


def _children(found: Sequence[Collection]) -> tuple[str, ...]:
    return found[0].children if found else ()


def _chain(plan: Plan, children: Sequence[str], rebase: bool) -> tuple[str, ...]:
    header = plan.header
    return output_chain(
        header.output, plan.output_run, header.inputs, children, reused=_reused(plan), rebase=rebase
    )


def _reused(plan: Plan) -> str:
    """Name the collection that shows earlier datasets as the run's own; empty where it reuses none."""
    return reused_by(plan.output_run) if plan.header.reused else ""


def _register(transaction: Transaction, plan: Plan, rebase: bool) -> None:
    for dataset_type in plan.dataset_types:
        transaction.register_dataset_type(dataset_type)
    if not transaction.collections(plan.output_run):
        transaction.register_collection(Collection(plan.output_run, CollectionType.RUN))
    if basis := plan.header.basis:
        planned = planned_record(plan.header)
        transaction.record_plan(plan.output_run, basis["asked"], basis["state"], planned)
    if reused := _reused(plan):
        transaction.register_collection(Collection(reused, CollectionType.TAGGED))
        transaction.associate(reused, plan.reused_ids())
    if output := plan.header.output:
        known = transaction.collections(output)
        if not known:
            transaction.register_collection(Collection(output, CollectionType.CHAINED))
        transaction.set_chain(output, _chain(plan, _children(known), rebase))


def _digest_of(folder: Path) -> str:
    path = folder / _REQUEST_NAME
    return str(json.loads(path.read_text())["digest"]) if path.is_file() else ""


def _is_unfinished(folder: Path) -> bool:
    run = RunFolder.open(folder)
    try:
        counts = run.journal.counts()
    finally:
        run.close()
    return any(counts[state] for state in _UNFINISHED)
