"""What both demos do at every step: plan, show, submit, wait, show; and count what was moved."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from loadmaster_planner.plan import PlannedDataset, PlannedQuantum
from loadmaster_registry.errors import RunError
from rich.console import Console

from ..plan import Plan
from ..repo import Repo
from ..run import Run
from ..tables import Table, format_bytes


def _stdout() -> Console:
    # A pipe or a file has no width; tables are told one that they fit in.
    return Console(width=None if sys.stdout.isatty() else 140)


@dataclass(frozen=True, slots=True)
class Guide:
    """Leads through a repository: where to talk, and how many jobs at once."""

    repo: Repo
    jobs: int | None = None
    console: Console = field(default_factory=_stdout)

    def say(self, text: str) -> None:
        """Write a line of the story."""
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def show(self, table: Table) -> None:
        """Print a table."""
        table.print(self.console)

    def process(
        self,
        pipeline: str,
        *,
        inputs: Sequence[str],
        output: str,
        where: str,
        select: str | None = None,
        allow_partial_gather: bool = False,
    ) -> Run:
        """Plan and run a shipped pipeline; show its plan, its report, and what was staged and harvested.

        Raises
        ------
        RunError
            If a job failed.
        """
        location = f"$LOADMASTER_PIPELINES_DIR/{pipeline}"
        plan = self.repo.plan(
            location,
            inputs=inputs,
            output=output,
            where=where,
            select=select,
            allow_partial_gather=allow_partial_gather,
        )
        self.show(plan.table())
        run = plan.submit(jobs=self.jobs)
        report = run.wait()
        self.show(run.table())
        if not report.is_good:
            raise RunError(
                what=f"the run {run.name} did not end well",
                where=pipeline,
                why="; ".join(f"{group.count} × {group.task}: {group.message}" for group in report.failures),
                todo="read the table above; this is a defect of Loadmaster or of its installation",
            )
        self.show(moved_table(plan, self._harvested(plan)))
        return run

    def _harvested(self, plan: Plan) -> dict[UUID, int]:
        """Return the size of each dataset that the plan's run put onto the backbone."""
        sizes: dict[UUID, int] = {}
        for dataset_type in plan.planned.dataset_types:
            found = self.repo.query_datasets(dataset_type.name, plan.output_run)
            ids = (UUID(bytes=id) for id in found["id"])
            sizes.update(zip(ids, found["size_bytes"].to_list(), strict=True))
        return sizes


def moved_table(plan: Plan, harvested: Mapping[UUID, int]) -> Table:
    """Tell how many files each task got and gave, and their sizes.

    Parameters
    ----------
    harvested : mapping
        Size in bytes of what the run made, by dataset id.
    """
    counts: dict[str, list[int]] = {}
    for quantum in _quanta(plan):
        line = counts.setdefault(quantum.task, [0, 0, 0, 0, 0])
        staged = [_size(d, harvested) for d in _flat(quantum.inputs) if d.exists or d.id in harvested]
        made = [harvested[d.id] for d in _flat(quantum.outputs) if d.id in harvested]
        new = (1, len(staged), sum(staged), len(made), sum(made))
        line[:] = [old + more for old, more in zip(line, new, strict=True)]
    counts["all"] = [sum(column) for column in zip(*counts.values(), strict=True)]
    headings = ("task", "quanta", "files staged in", "bytes in", "files harvested", "bytes out")
    rows = tuple(
        (task, str(n), str(files_in), format_bytes(bytes_in), str(files_out), format_bytes(bytes_out))
        for task, (n, files_in, bytes_in, files_out, bytes_out) in counts.items()
    )
    return Table(headings, rows, "staged and harvested", frozenset(headings[1:]))


def _quanta(plan: Plan) -> Iterator[PlannedQuantum]:
    for job in range(plan.n_jobs):
        yield from plan.planned.job(job).quanta


def _flat(datasets: Mapping[str, Sequence[PlannedDataset]]) -> Iterator[PlannedDataset]:
    for several in datasets.values():
        yield from several


def _size(dataset: PlannedDataset, harvested: Mapping[UUID, int]) -> int:
    return max(0, dataset.size_bytes) if dataset.exists else harvested[dataset.id]
