"""A run in the hands of a person: it is waited for, asked, and shows itself."""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from loadmaster_executors.controller import Progress, execute
from loadmaster_executors.local import LocalExecutor
from loadmaster_executors.report import FailureGroup, RunReport, UndeliveredGroup, report
from loadmaster_executors.run import RunFolder
from loadmaster_planner.show import find_quantum
from loadmaster_registry.errors import NotFound
from loadmaster_registry.store import Registry
from loadmaster_staging.backbone import Backbone
from loadmaster_staging.destinations import Destination
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
        destinations: Sequence[Destination] = (),
        *,
        is_resumed: bool = True,
    ) -> None:
        self._registry = registry
        self._backbone = backbone
        self.folder = folder
        self.site = site
        self._destinations = destinations
        self.is_resumed = is_resumed  # it was begun before, and goes on

    @property
    def name(self) -> str:
        """The RUN collection that holds what is made."""
        return self.folder.run

    @property
    def output(self) -> str:
        """The collection that shows what is made: the output chain, or else the RUN itself."""
        return self.folder.plan.header.output or self.name

    def wait(self, *, progress: bool = True, junk_bytes: int = -1) -> RunReport:
        """Work until every job has come to an end, and return the report.

        Jobs that failed or were blocked earlier are tried again.

        Parameters
        ----------
        progress : bool
            Draw a bar on stderr (in a notebook, below the cell); where there is neither, a line now and then.
        junk_bytes : int
            Bring home what tasks write and nobody declared: for each quantum an archive that holds so much at most,
            a dataset of type ``<task>_junk``. -1 leaves such files where they are, and they go with the job.

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
                staging=replace(self.site.staging, junk_bytes=junk_bytes),
                site=self.site.name,
                destinations=self._destinations,
                progress=tell,
            )

    def report(self) -> RunReport:
        """Say where the run stands, and why what failed failed; also while it goes on."""
        return report(self.folder)

    def log(self, quantum: str, attempt: int | None = None) -> str:
        """Return what a quantum wrote to stdout and stderr, in the last attempt that said anything by default.

        Parameters
        ----------
        quantum : str
            ``isr exposure=1228 detector=41``, its uuid, or the number of a job that has one quantum.

        Raises
        ------
        PlanError, NotFound
            If there is no such quantum, or it said nothing.
        """
        plan = self.folder.plan
        place = find_quantum(plan, quantum)
        text = self.folder.log(str(plan.quantum(place.task, place.row).id), attempt)
        if not text:
            raise NotFound(
                what="there is no log",
                where=f"{quantum!r} of run {self.name}",
                why="the quantum said nothing, or has not run"
                + (f" in attempt {attempt}" if attempt else ""),
                todo=f"see how far the run is: loadmaster report {self.name}",
            )
        return text

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


def status_table(lines: Sequence[tuple[RunReport, str]], notes: Sequence[str] = ()) -> Table:
    """Make a table of runs, a line each, and notes below."""
    states = ("done", "failed", "partial", "blocked")
    rows = tuple(
        (report.run, status, str(report.n_jobs), *(str(report.counts[state]) for state in states))
        for report, status in lines
    )
    headings = ("run", "status", "jobs", *states)
    return Table(
        headings, rows, numeric=frozenset(headings[2:]), notes=tuple(notes) if rows else ("no runs yet",)
    )


def report_table(report: RunReport, *, tracebacks: bool = False) -> Table:
    """Make the table of a report: how many jobs are in each state, then a note for each kind of failure."""
    states = [(state, count) for state, count in report.counts.items() if count]
    idle = [f"{group.count} × {group.task} had nothing to do: {group.example}" for group in report.idle]
    return Table(
        headings=("jobs", "state"),
        rows=(*((str(count), state) for state, count in states), (str(report.n_jobs), "all")),
        title=f"run {report.run}",
        numeric=frozenset(["jobs"]),
        notes=(
            *idle,
            *(_failure_note(report.run, group, tracebacks) for group in report.failures),
            *(_undelivered_note(group) for group in report.undelivered),
        ),
    )


def report_facts(report: RunReport, status: str) -> dict[str, object]:
    """Return a report as plain values."""
    return {
        "run": report.run,
        "status": status,
        "n_jobs": report.n_jobs,
        "undelivered": [
            {"destination": g.destination, "error": g.error, "count": g.count, "example": g.example}
            for g in report.undelivered
        ],
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
                },
            }
            for group in report.failures
        ],
    }


def _failure_note(run: str, group: FailureGroup, traceback: bool) -> str:
    """Say what failed, why, what hangs on it, and where to look."""
    example = ", ".join(f"{name}={value}" for name, value in group.example_data_id.items())
    error = f" {group.error}" if group.error else ""
    lines = [f"{group.count} × {group.task}: {group.class_}{error}: {group.message or '(no message)'}"]
    if group.first_frame:
        lines.append(f"  at {group.first_frame}")
    if group.n_blocked:
        lines.append(f"  {group.n_blocked} jobs are blocked by it")
    lines.append(f"  for instance {example}")
    if group.example.log:
        lines.append(f"  what it said: loadmaster log {run} {group.example.quantum}")
    if group.example.message != group.message:
        lines.append(f"  {group.example.message}")
    if traceback and group.example.traceback:
        lines += [f"  | {line}" for line in group.example.traceback.rstrip().splitlines()]
    return "\n".join(lines)


def _undelivered_note(group: UndeliveredGroup) -> str:
    why = f": {group.example}" if group.example else ""
    again = "; the command that began the run tries again" if group.example else ""
    return f"{group.count} copies have not arrived at {group.destination!r}{why}{again}"


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
