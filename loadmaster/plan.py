"""A plan in the hands of a person: it shows itself, is written to a file, and is submitted."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import loadmaster_planner.plan as planner
from loadmaster_pipelines.pipeline import Pipeline
from loadmaster_planner.estimate import Estimate
from loadmaster_planner.header import OrderFacts

from .config import read_site
from .estimate import estimate_plan
from .run import Run
from .tables import Table, format_bytes

if TYPE_CHECKING:
    from .repo import Repo

_FACTS = (
    "digest",
    "created",
    "inputs",
    "output",
    "output_run",
    "where",
    "summary",
    "dropped",
    "partial",
    "why_empty",
)


class Plan:
    """What a pipeline will do in a repository; made by `Repo.plan`, never changed."""

    def __init__(self, repo: "Repo", planned: planner.Plan, request_digest: str = "") -> None:
        self._repo = repo
        self.planned = planned
        self.request_digest = request_digest  # empty for a plan from a file

    @property
    def output_run(self) -> str:
        """The RUN that will hold every output."""
        return self.planned.output_run

    @property
    def digest(self) -> str:
        """What two sites can compare: the same request on the same data gives the same."""
        return self.planned.digest

    @property
    def pipeline(self) -> Pipeline:
        """The pipeline with all configuration resolved."""
        return self.planned.pipeline

    @property
    def n_jobs(self) -> int:
        """How many jobs will run."""
        return self.planned.n_jobs

    @property
    def is_empty(self) -> bool:
        """Whether it has nothing to run, and this is not because all is done."""
        return not self.n_jobs and not any(task.done for task in self.planned.summary)

    def estimate(self, slots: int | None = None) -> Estimate:
        """Estimate what it costs, from earlier runs of the repository where there are any, else what tasks declare.

        Parameters
        ----------
        slots : int, optional
            How many jobs run at once; as many as this machine has cores by default.
        """
        n = slots or read_site("local").jobs
        return estimate_plan(self.planned, n, self._repo.registry, self._repo.place.runs)

    def write(self, path: str | Path) -> None:
        """Write the plan to one file, which appears complete or not at all."""
        self.planned.write(path)

    def submit(self, *, site: str = "local", jobs: int | None = None, rebase: bool = False) -> Run:
        """Start a run of this plan; see `Repo.submit`."""
        return self._repo.submit(self, site=site, jobs=jobs, rebase=rebase)

    def table(self) -> Table:
        """Return what people see: a line a task, then why quanta are missing."""
        return plan_table(self.planned)

    def facts(self) -> dict[str, Any]:
        """Return the table's content as plain values."""
        header = self.planned.header.to_json()
        return {"n_jobs": self.n_jobs, **{key: header[key] for key in _FACTS}}

    def __repr__(self) -> str:
        return f"<Plan of {self.output_run}: {self.n_jobs} jobs>"

    def _repr_html_(self) -> str:
        return self.table().html()


def plan_table(plan: planner.Plan) -> Table:
    """Make the table of a plan."""
    lines = [
        (t.label, t.quanta, t.done, t.inputs_found, t.inputs_missing, t.bytes_in, t.outputs, t.dropped)
        for t in plan.summary
    ]
    if len(lines) > 1:
        lines.append(("all", *(sum(column) for column in tuple(zip(*lines, strict=True))[1:])))
    headings = ("task", "quanta", "done", "inputs found", "missing", "bytes in", "outputs", "dropped")
    return Table(
        headings=headings,
        rows=tuple(_cells(*line) for line in lines),
        title=f"plan of {plan.output_run}",
        numeric=frozenset(headings[1:]),
        notes=_notes(plan),
    )


def _cells(
    label: str, quanta: int, done: int, found: int, missing: int, bytes_in: int, outputs: int, dropped: int
) -> tuple[str, ...]:
    # Imported datasets come without sizes: then the sum is nothing that anybody knows.
    size = format_bytes(-1 if found and not bytes_in else bytes_in)
    return (label, str(quanta), str(done), str(found), str(missing), size, str(outputs), str(dropped))


def _order_note(order: OrderFacts) -> str:
    what = "keeps those after it from running" if order.is_blocking else "does not stop those after it"
    return (
        f"order {order.name}: {order.jobs} jobs of {', '.join(order.labels)} in {order.groups} groups by "
        f"{', '.join(order.dimensions)}, one after the other; a failure in one {what}"
    )


def _notes(plan: planner.Plan) -> tuple[str, ...]:
    idle = [label for label, task in plan.pipeline.tasks.items() if not task.runnable]
    reused = sum(plan.header.reused.values())
    return (
        *((f"reused: {reused} datasets of earlier runs, shown as this run's own",) if reused else ()),
        *plan.header.notes,
        *plan.header.jobs.notes,
        *map(_order_note, plan.header.jobs.orders),
        *(f"partial: {partial}" for partial in plan.header.partial),
        *(f"dropped: {dropped}" for dropped in plan.header.dropped),
        *((f"nothing to do: {plan.header.why_empty}",) if plan.header.why_empty else ()),
        *((f"for planning only (no class, no command): {', '.join(idle)}",) if idle else ()),
    )
