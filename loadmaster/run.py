"""A run in the hands of a person: it is waited for, asked, and shows itself."""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from loadmaster_executors.controller import Progress, execute
from loadmaster_executors.local import LocalExecutor
from loadmaster_executors.report import FailureGroup, RunReport, report
from loadmaster_executors.run import RunFolder
from loadmaster_registry.store import Registry
from loadmaster_staging.backbone import Backbone
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from .config import Site
from .tables import Table

_LINE_S = 30  # between lines of progress where there is no terminal to draw on


class Run:
    """A run that was begun; made by `Plan.submit`, `Repo.run` or `Repo.open_run`.

    Local jobs are worked on while somebody waits: `wait` is the controller. Whenever it ends (Ctrl-C, a
    kill), the run stands still, and the next `wait` goes on.
    """

    def __init__(
        self,
        registry: Registry,
        backbone: Backbone,
        folder: RunFolder,
        site: Site,
        *,
        is_resumed: bool = True,
    ) -> None:
        self._registry = registry
        self._backbone = backbone
        self.folder = folder
        self.site = site
        self.is_resumed = is_resumed  # it was begun before, and goes on

    @property
    def name(self) -> str:
        """The RUN collection that holds what is made."""
        return self.folder.run

    @property
    def output(self) -> str:
        """The collection that shows what is made: the output chain, or else the RUN itself."""
        return self.folder.plan.header.output or self.name

    def wait(self, *, progress: bool = True) -> RunReport:
        """Work until every job has come to an end, and return the report.

        Jobs that failed or were blocked earlier are tried again.

        Parameters
        ----------
        progress : bool
            Draw a bar on stderr (in a notebook, below the cell); where there is neither, a line now and then.

        Raises
        ------
        RunError
            If another process is at work on this run, or jobs cannot be started.
        KeyboardInterrupt
            After Ctrl-C, when no job is running any more.
        """
        with _shown(progress) as tell:
            return execute(
                self.folder,
                LocalExecutor(self.site.jobs, scratch=self.site.scratch),
                self._registry,
                self._backbone,
                staging=self.site.staging,
                progress=tell,
            )

    def report(self) -> RunReport:
        """Say where the run stands, and why what failed failed; also while it goes on."""
        return report(self.folder)

    def status(self) -> str:
        """Say in a word how far the run is: running, stopped, done or failed."""
        return status_of(self.report(), self.folder.is_attended)

    def table(self) -> Table:
        """Return the report as people see it."""
        return report_table(self.report())

    def __repr__(self) -> str:
        return f"<Run {self.name}: {self.status()}>"

    def _repr_html_(self) -> str:
        return self.table().html()


def status_of(report: RunReport, is_attended: bool) -> str:
    """Say in a word how far a run is."""
    if is_attended:
        return "running"
    if not report.is_over:
        return "stopped"
    return "done" if report.is_good else "failed"


def status_table(lines: Sequence[tuple[RunReport, str]]) -> Table:
    """Make a table of runs, a line each."""
    states = ("done", "failed", "partial", "blocked")
    rows = tuple(
        (report.run, status, str(report.n_jobs), *(str(report.counts[state]) for state in states))
        for report, status in lines
    )
    headings = ("run", "status", "jobs", *states)
    return Table(headings, rows, numeric=frozenset(headings[2:]), notes=() if rows else ("no runs yet",))


def report_table(report: RunReport, *, tracebacks: bool = False) -> Table:
    """Make the table of a report: how many jobs are in each state, then a note for each kind of failure."""
    states = [(state, count) for state, count in report.counts.items() if count]
    idle = [f"{group.count} × {group.task} had nothing to do: {group.example}" for group in report.idle]
    return Table(
        headings=("jobs", "state"),
        rows=(*((str(count), state) for state, count in states), (str(report.n_jobs), "all")),
        title=f"run {report.run}",
        numeric=frozenset(["jobs"]),
        notes=(*idle, *(_failure_note(group, tracebacks) for group in report.failures)),
    )


def report_facts(report: RunReport, status: str) -> dict[str, object]:
    """Return a report as plain values."""
    return {
        "run": report.run,
        "status": status,
        "n_jobs": report.n_jobs,
        "counts": dict(report.counts),
        "n_no_work": report.n_no_work,
        "idle": [
            {"task": g.task, "message": g.message, "count": g.count, "example": g.example}
            for g in report.idle
        ],
        "failures": [
            {
                "task": group.task,
                "class": group.class_,
                "error": group.error,
                "message": group.message,
                "first_frame": group.first_frame,
                "count": group.count,
                "n_blocked": group.n_blocked,
                "example": {
                    "data_id": group.example_data_id,
                    "quantum": group.example.quantum,
                    "message": group.example.message,
                    "traceback": group.example.traceback,
                    "log": group.example.log,
                },
            }
            for group in report.failures
        ],
    }


def _failure_note(group: FailureGroup, traceback: bool) -> str:
    """Say what failed, why, what hangs on it, and where to look."""
    example = ", ".join(f"{name}={value}" for name, value in group.example_data_id.items())
    error = f" {group.error}" if group.error else ""
    lines = [f"{group.count} × {group.task}: {group.class_}{error}: {group.message or '(no message)'}"]
    if group.first_frame:
        lines.append(f"  at {group.first_frame}")
    if group.n_blocked:
        lines.append(f"  {group.n_blocked} jobs are blocked by it")
    lines.append(f"  for instance {example}" + (f"; log {group.example.log}" if group.example.log else ""))
    if group.example.message != group.message:
        lines.append(f"  {group.example.message}")
    if traceback and group.example.traceback:
        lines += [f"  | {line}" for line in group.example.traceback.rstrip().splitlines()]
    return "\n".join(lines)


@contextmanager
def _shown(progress: bool) -> Iterator[Callable[[Progress], None] | None]:
    """Yield what shows the progress of a run, if anything should."""
    console = Console(stderr=True)
    if not progress:
        yield None
    elif not (console.is_terminal or console.is_jupyter):
        yield _Lines()
    else:
        columns = (
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with Bar(*columns, console=console) as bar:
            task = bar.add_task("", total=None)
            yield lambda now: bar.update(
                task, total=now.n_jobs, completed=now.n_over, description=_words(now)
            )


class _Lines:
    """Shows progress as lines in a log: the first at once, then one every `_LINE_S`, and the last."""

    def __init__(self) -> None:
        self._last = ""
        self._last_s = -float(_LINE_S)

    def __call__(self, now: Progress) -> None:
        words = _words(now)
        line = f"{now.n_over}/{now.n_jobs} jobs" + (f": {words}" if words else "")
        is_due = now.n_over == now.n_jobs or time.monotonic() - self._last_s >= _LINE_S
        if is_due and line != self._last:
            self._last, self._last_s = line, time.monotonic()
            print(line, file=sys.stderr, flush=True)


def _words(now: Progress) -> str:
    shown = ("running", "failed", "partial", "blocked")
    return ", ".join(f"{now.counts[state]} {state}" for state in shown if now.counts[state])
