"""The controller: feeds an executor from the schedule, harvests what it reports, and keeps the journal.

It is crash-only. Whatever state a kill leaves, `execute` begins by finding out what became of what was under
way, and goes on; going on after Ctrl-C is no other thing.
"""

import json
import logging
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from uuid import UUID

from loadmaster_registry.errors import StageError
from loadmaster_registry.store import Registry
from loadmaster_staging.backbone import Backbone
from loadmaster_staging.harvest import Harvested, Reported, harvest, open_run
from loadmaster_staging.location import join
from loadmaster_staging.manifest import FATAL, Manifest, QuantumReport, QuantumSpec, Report, Staging
from loadmaster_staging.stage import clear_folder, fetch_log, read_report

from .executor import Ended, Executor, RunPlace
from .journal import STATE_NAMES, Attempt, Failure, JobEnd, JobState, Journal, Share
from .loss import report_of_loss
from .prepare import Manifests, check_runnable, modules_of, why_starved
from .report import RunReport, report
from .run import RunFolder
from .schedule import Changes, Schedule

log = logging.getLogger(__name__)

AS_SHIPPED = Staging()
HARVEST_JOBS = 64  # at most in one transaction, so that workers do not wait long
HARVEST_S = 0.2  # no report lies longer
_PROGRESS_S = 0.1
_WAIT_S = 1.0
_STATES: Mapping[str, JobState] = {
    "done": JobState.DONE,
    "no_work": JobState.DONE,
    "partial": JobState.PARTIAL,
    "failed": JobState.FAILED,
}


@dataclass(frozen=True)
class Progress:
    """How many jobs are in each state; together they are all jobs of the plan."""

    counts: Mapping[str, int]

    @property
    def n_jobs(self) -> int:
        """All jobs of the plan."""
        return sum(self.counts.values())

    @property
    def n_over(self) -> int:
        """Jobs with which nothing more will happen in this run."""
        return sum(self.counts[name] for name in ("done", "partial", "failed", "blocked", "cancelled"))


def execute(
    run: RunFolder,
    executor: Executor,
    registry: Registry,
    backbone: Backbone,
    *,
    staging: Staging = AS_SHIPPED,
    progress: Callable[[Progress], None] | None = None,
) -> RunReport:
    """Run all jobs that can run, harvest them, and return the report; called again, go on where it stands.

    Jobs that failed or were blocked in an earlier call are tried again; what is done, or partly done, stays.

    Parameters
    ----------
    progress : callable, optional
        Is told of the counts now and then, and at the end.

    Raises
    ------
    RunError
        If another process is at work on the run, the plan has tasks that cannot run, or no worker starts.
    KeyboardInterrupt
        After Ctrl-C, when no job is running any more.
    StageError, RegistryError
        If storage or registry cannot be written at all.
    """
    check_runnable(run.plan)
    staging_url = backbone.staging_url(run.run, run.token)
    manifests = Manifests(run.plan, backbone, staging_url, staging, run.journal.made)
    tell = progress or (lambda _: None)
    with run.lease():
        try:
            controller = _Controller(run, executor, registry, backbone, manifests, tell)
            while controller.is_on:
                controller.tick()
        finally:
            _take_stock(run.journal, manifests, kept=executor.close())
            tell(Progress(run.journal.counts()))
    return report(run)


def _take_stock(journal: Journal, manifests: Manifests, kept: set[str]) -> None:
    """Write down what became of jobs that were under way and that no executor has in hand any more."""
    for attempt in journal.in_state(JobState.RUNNING):
        if attempt.token not in kept:
            found = _report_of(manifests.of(attempt))
            with journal.batch():
                journal.move([attempt.job], JobState.FINISHED if found else JobState.READY)


def _report_of(manifest: Manifest) -> Report | None:
    try:
        return read_report(manifest.staging_url, manifest.token)
    except StageError as error:  # a report that nobody can read is none
        log.warning("unreadable report job=%s attempt=%s: %s", manifest.job, manifest.attempt, error)
        return None


class _Controller:
    """One life of a run's controller; it begins by finding out where the run stands."""

    def __init__(
        self,
        run: RunFolder,
        executor: Executor,
        registry: Registry,
        backbone: Backbone,
        manifests: Manifests,
        tell: Callable[[Progress], None],
    ) -> None:
        self._run = run
        self._journal = run.journal
        self._executor = executor
        self._registry = registry
        self._backbone = backbone
        self._manifests = manifests
        self._tell = tell
        self._types = {type.name: type for type in run.plan.dataset_types}
        self._running: dict[str, Manifest] = {}  # by token
        self._reported: list[Reported] = []
        self._reported_since = self._told_at = 0.0
        open_run(registry, run.run, self._types.values())
        executor.prepare(RunPlace(run.path, run.token, modules_of(run.plan)))
        self._take_up()
        self._sweep()
        self._schedule = self._begun()
        self._attempts = self._journal.attempts()

    @property
    def is_on(self) -> bool:
        """Whether anything is left to do."""
        return bool(self._schedule.ready or self._running or self._reported)

    def tick(self) -> None:
        """Feed, listen, harvest: one round."""
        self._feed()
        self._listen()
        while self._is_harvest_due():
            self._harvest()
        if time.monotonic() - self._told_at >= _PROGRESS_S:
            self._told_at = time.monotonic()
            counts = map(int, self._schedule.counts())
            self._tell(Progress(dict(zip(STATE_NAMES, counts, strict=True))))

    def _take_up(self) -> None:
        """Take over the attempts of an earlier life: still running, reported, or to be made again."""
        running = {attempt.token: attempt for attempt in self._journal.in_state(JobState.RUNNING)}
        kept = self._executor.restart(tuple(running))
        self._running.update((token, self._manifests.of(running[token])) for token in kept)
        _take_stock(self._journal, self._manifests, kept)
        for attempt in self._journal.in_state(JobState.FINISHED):
            manifest = self._manifests.of(attempt)
            if found := _report_of(manifest):
                self._reported.append(Reported(manifest, found, is_resumed=True))
            else:
                with self._journal.batch():
                    self._journal.move([attempt.job], JobState.READY)

    def _begun(self) -> Schedule:
        """Return the schedule of all that is neither harvested nor under way."""
        dependencies = self._run.plan.dependencies()
        with self._journal.batch():
            self._journal.wait_again()
            schedule = Schedule(
                self._journal.states(),
                self._journal.left_out(),
                dependencies["job"].to_numpy(),
                dependencies["needs"].to_numpy(),
                self._run.plan.priorities(),
            )
            self._write(schedule.begin())
        return schedule

    def _sweep(self) -> None:
        """Remove what attempts that nobody waits for have staged."""
        manifests = (*self._running.values(), *(job.manifest for job in self._reported))
        wanted = {manifest.staging_url for manifest in manifests}
        root = self._manifests.staging_url
        for name in self._backbone.staged_names(root):
            if (url := join(root, name)) not in wanted:
                self._backbone.remove_staged(url)

    def _feed(self) -> None:
        """Give the executor as many ready jobs as it wants."""
        ready, room = self._schedule.ready, self._executor.room()
        manifests: list[Manifest] = []
        starved: dict[int, str] = {}
        while ready and len(manifests) < room:
            job = ready.take()
            manifest = self._manifests.of(Attempt(job, int(self._attempts[job]) + 1, secrets.token_hex(16)))
            if self._schedule.is_short(job) and (reason := why_starved(manifest)):
                starved[job] = reason
            else:
                manifests.append(manifest)
        if starved:
            self._starve(starved)
        if manifests:
            self._start(manifests)

    def _start(self, manifests: Sequence[Manifest]) -> None:
        """Write down which attempts begin, then let them begin."""
        with self._journal.batch():
            self._journal.start(Attempt(m.job, m.attempt, m.token) for m in manifests)
        for manifest in manifests:
            self._attempts[manifest.job] = manifest.attempt
            self._running[manifest.token] = manifest
            self._schedule.started(manifest.job)
        self._executor.submit(manifests)

    def _starve(self, reasons: Mapping[int, str]) -> None:
        with self._journal.batch():
            self._journal.starve(reasons)
            for job in reasons:
                self._write(self._schedule.starved(job))

    def _listen(self) -> None:
        """Take the reports of jobs that ended; wait for some unless there is something else to do."""
        if not self._running:
            return
        ended = self._executor.status(HARVEST_S / 4 if self._reported else _WAIT_S)
        if not ended:
            return
        if not self._reported:
            self._reported_since = time.monotonic()
        found = [self._end_of(end) for end in ended]
        with self._journal.batch():
            self._journal.move([job.manifest.job for job in found], JobState.FINISHED)
        for job in found:
            self._schedule.finished(job.manifest.job)
        self._reported += found

    def _end_of(self, ended: Ended) -> Reported:
        manifest = self._running.pop(ended.token)
        found = _report_of(manifest)
        if found is None:
            found = report_of_loss(
                manifest, ended, partial(self._run.log_path, manifest.job, manifest.attempt)
            )
        elif ended.peak_memory_mib:
            found = replace(found, cpu_s=ended.cpu_s, peak_memory_mib=ended.peak_memory_mib)
        if ended.folder is not None and ended.folder.exists():
            clear_folder(ended.folder)
        return Reported(manifest, found)

    def _is_harvest_due(self) -> bool:
        if not self._reported:
            return False
        is_idle = not self._schedule.ready and self._executor.room() > 0
        is_old = time.monotonic() - self._reported_since >= HARVEST_S
        return is_idle or is_old or len(self._reported) >= HARVEST_JOBS

    def _harvest(self) -> None:
        batch, self._reported = self._reported[:HARVEST_JOBS], self._reported[HARVEST_JOBS:]
        harvest(batch, self._registry, self._backbone, self._types, self._record)

    def _record(self, harvested: Sequence[Harvested]) -> None:
        """Keep logs, then write into the journal how jobs ended and what that means for others."""
        for job in harvested:
            self._keep_logs(job)
        with self._journal.batch():
            self._journal.add_made(
                (UUID(file.dataset_id), file.size_bytes, file.checksum)
                for job in harvested
                if job.outcome in ("done", "partial")
                for quantum in job.report.quanta
                for file in quantum.outputs
            )
            self._journal.add_failures(failure for job in harvested for failure in self._failures(job))
            for job in harvested:
                end = _job_end(job)
                self._journal.end([end])
                self._journal.add_shares(_shares(job))
                self._write(self._schedule.ended(end.job, end.state, left_out=end.left_out))

    def _write(self, changes: Changes) -> None:
        self._journal.move(changes.ready, JobState.READY)
        for culprit, jobs in changes.blocked.items():
            self._journal.block(jobs, culprit)

    def _keep_logs(self, job: Harvested) -> None:
        for index, quantum in enumerate(job.report.quanta):
            if quantum.log:
                path = self._run.log_path(job.manifest.job, job.manifest.attempt, index)
                fetch_log(job.manifest.staging_url, quantum.log, path)

    def _failures(self, job: Harvested) -> list[Failure]:
        pairs = list(zip(job.manifest.quanta, job.report.quanta, strict=True))
        if job.refusal:
            spec, quantum = pairs[0]
            return [self._failure(job, 0, spec, replace(quantum, message=job.message), job.refusal)]
        return [
            self._failure(job, index, spec, quantum, quantum.status)
            for index, (spec, quantum) in enumerate(pairs)
            if quantum.status in FATAL or quantum.status == "missing_output"
        ]

    def _failure(
        self, job: Harvested, index: int, spec: QuantumSpec, quantum: QuantumReport, class_: str
    ) -> Failure:
        path = self._run.log_path(job.manifest.job, job.manifest.attempt, index)
        return Failure(
            job=job.manifest.job,
            attempt=job.manifest.attempt,
            quantum=spec.id,
            task=spec.task,
            data_id=json.dumps(dict(spec.data_id)),
            class_=class_,
            error=quantum.error,
            message=quantum.message,
            first_frame=quantum.first_frame,
            traceback=quantum.traceback,
            log=str(path.relative_to(self._run.path)) if path.exists() else "",
        )


def _job_end(job: Harvested) -> JobEnd:
    n_planned = sum(not file.is_elided for quantum in job.manifest.quanta for file in quantum.outputs)
    n_made = sum(len(quantum.outputs) for quantum in job.report.quanta)
    class_, message = _cause(job)
    return JobEnd(
        state=_STATES[job.outcome],
        class_=class_,
        message=message,
        left_out=n_made < n_planned,
        host=job.report.host,
        started=job.report.started,
        ended=job.report.ended,
        wall_s=job.report.wall_s,
        cpu_s=job.report.cpu_s,
        peak_memory_mib=job.report.peak_memory_mib,
        job=job.manifest.job,
    )


def _shares(job: Harvested) -> list[Share]:
    """Return what each quantum had of the job's time; a single one had all of it."""
    quanta = list(zip(job.manifest.quanta, job.report.quanta, strict=True))
    if job.refusal or len(quanta) < 2:
        return []
    return [Share(job.manifest.job, i, spec.task, report.wall_s) for i, (spec, report) in enumerate(quanta)]


def _cause(job: Harvested) -> tuple[str, str]:
    """Return class and message of the first quantum that says why the job ended as it did."""
    if job.refusal:
        return job.refusal, job.message
    if job.outcome == "done":
        return "", ""
    statuses = {"no_work"} if job.outcome == "no_work" else FATAL | {"missing_output"}
    return next((q.status, q.message) for q in job.report.quanta if q.status in statuses)
