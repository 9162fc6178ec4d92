"""What both demos do at every step: plan, show, submit, wait, show; and count what came home."""

from collections.abc import Sequence
from dataclasses import dataclass

from loadmaster_registry.errors import RunError
from rich.console import Console

from ..plan import Plan
from ..repo import Repo
from ..run import Run
from ..tables import Table, format_bytes


@dataclass(frozen=True, slots=True)
class Stage:
    """A repository, where to talk, and how many jobs at once."""

    repo: Repo
    console: Console
    jobs: int | None

    def say(self, text: str) -> None:
        """Write a line of the story."""
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def process(
        self, pipeline: str, *, inputs: Sequence[str], output: str, where: str, select: str | None = None
    ) -> Run:
        """Plan and run a shipped pipeline, with its plan and its report shown.

        Raises
        ------
        RunError
            If a job failed.
        """
        plan = self.repo.plan(
            f"$LOADMASTER_PIPELINES_DIR/{pipeline}", inputs=inputs, output=output, where=where, select=select
        )
        self.show(plan.table())
        run = plan.submit(site="local", jobs=self.jobs)
        report = run.wait()
        self.show(run.table())
        if not report.is_good:
            raise RunError(
                what=f"the run {run.name} did not end well",
                where=pipeline,
                why="; ".join(f"{group.count} × {group.task}: {group.message}" for group in report.failures),
                todo="read the table above; this is a defect of Loadmaster or of its installation",
            )
        self.show(self.harvested(plan))
        return run

    def harvested(self, plan: Plan) -> Table:
        """Tell what the run of a plan put onto the backbone."""
        rows = []
        for dataset_type in plan.planned.dataset_types:
            found = self.repo.query_datasets(dataset_type.name, [plan.output_run])
            size = int(found["size_bytes"].fill_null(0).sum()) if found.height else 0
            rows.append((dataset_type.name, str(found.height), format_bytes(size)))
        return Table(
            ("dataset type", "datasets", "size"),
            tuple(rows),
            f"harvested into {plan.output_run}",
            frozenset(["datasets", "size"]),
        )

    def show(self, table: Table) -> None:
        """Print a table."""
        table.print(self.console)
