"""The controller: feeds an executor from the schedule, harvests what it reports, and keeps the journal.

It is crash-only. Whatever state a kill leaves, `execute` begins by finding out what became of what was under
way, and goes on; going on after Ctrl-C is no other thing.
"""

import logging
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from loadmaster_registry.errors import StageError
from loadmaster_registry.store import Registry
from loadmaster_staging.backbone import Backbone
from loadmaster_staging.destinations import Destination, deliveries
from loadmaster_staging.harvest import Harvested, Reported, drop_unused_shards, harvest, open_run
from loadmaster_staging.location import join
from loadmaster_staging.manifest import Manifest, Report, Staging
from loadmaster_staging.stage import clear_folder, read_report

from .claim import Claim, claimed
from .delivery import Deliverer
from .endings import keep_logs, write_endings
from .executor import Ended, Executor, RunPlace
from .journal import STATE_NAMES, Attempt, JobState, Journal
from .loss import report_of_loss
from .prepare import Manifests, check_runnable, modules_of, why_starved, with_endpoints
from .report import RunReport, report
from .run import RunFolder
from .schedule import Changes, Schedule
from .scratch import refuse_too_large

log = logging.getLogger(__name__)

AS_SHIPPED = Staging()
HARVEST_JOBS = 512  # at most in one transaction
HARVEST_S = 0.2  # no report lies longer; nor does one harvest take much longer, for workers wait meanwhile
_FEWEST_JOBS = 16  # that are harvested together if there are so many
_PROGRESS_S = 0.1
_WAIT_S = 1.0


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
    site: str = "",
    destinations: Sequence[Destination] = (),
    progress: Callable[[Progress], None] | None = None,
) -> RunReport:
    """Run all jobs that can run, harvest them, and return the report; called again, go on where it stands.

    Jobs that failed or were blocked in an earlier call are tried again; what is done, or partly done, stays.

    Parameters
    ----------
    site : str
        Where jobs run: they ask for what the plan says of this site, or else in general.
    destinations : sequence of Destination
        What gets copies of what comes home. Those that do not arrive are in the report, and fail nothing.
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
    manifests = _manifests(run, backbone, staging, site)
    tell = progress or (lambda _: None)
    with run.lease():
        open_run(registry, run.run, manifests.dataset_types)
        with claimed(registry, run) as claim:
            deliverer = Deliverer(run.run, run.journal, registry, backbone, destinations)
            try:
                _work(
                    _Controller(run, executor, registry, backbone, manifests, deliverer, tell),
                    deliverer,
                    claim,
                )
            finally:
                deliverer.close()
                _take_stock(run.journal, manifests, kept=executor.close())
                tell(Progress(run.journal.counts()))
    return report(run)


def _manifests(run: RunFolder, backbone: Backbone, staging: Staging, site: str) -> Manifests:
    check_runnable(run.plan)
    refuse_too_large(run.plan, staging, site)
    staging = with_endpoints(staging, run.path)
    staging_url = backbone.staging_url(run.run, run.token)
    return Manifests(run.plan, backbone, staging_url, staging, run.journal.made, site)


def _work(controller: "_Controller", deliverer: Deliverer, claim: Claim) -> None:
    """Go on until there is nothing left to do."""
    while controller.is_on or deliverer.is_on:
        controller.tick()
        deliverer.tick(is_alone=not controller.is_on)
        claim.renew()
    controller.tidy()


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
    except OSError as error:  # whether there is one cannot be seen
        raise StageError(
            what=f"the report of job {manifest.job} cannot be fetched",
            where=manifest.staging_url,
            why=str(error),
            todo="see that the storage can be reached, then give the same command again",
        ) from error


class _Controller:
    """One life of a run's controller; it begins by finding out where the run stands."""

    def __init__(
        self,
        run: RunFolder,
        executor: Executor,
        registry: Registry,
        backbone: Backbone,
        manifests: Manifests,
        deliverer: Deliverer,
        tell: Callable[[Progress], None],
    ) -> None:
        self._run = run
        self._journal = run.journal
        self._executor = executor
        self._registry = registry
        self._backbone = backbone
        self._manifests = manifests
        self._deliverer = deliverer
        self._tell = tell
        self._types = {type.name: type for type in manifests.dataset_types}
        self._running: dict[str, Manifest] = {}  # by token
        self._reported: list[Reported] = []
        self._is_warned = False
        self._logs = run.log_shards()
        self._tried_again: set[int] = set()
        self._reported_since = self._told_at = 0.0
        self._batch = _FEWEST_JOBS  # how many jobs are harvested at once
        executor.prepare(RunPlace(run.path, run.token, (*backbone.modules, *modules_of(run.plan))))
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

    def tidy(self) -> None:
        """Remove the empty folders of the staging area, and what lives that were killed had begun to pack."""
        self._backbone.remove_staged(self._manifests.staging_url)
        drop_unused_shards(self._registry, self._backbone, self._run.run, self._run.token)

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
                self._run.plan.priorities(self._manifests.site),
                self._run.plan.barriers(),
            )
            self._write(schedule.begin())
        return schedule

    def _sweep(self) -> None:
        """Remove what attempts that nobody waits for have staged."""
        manifests = (*self._running.values(), *(job.manifest for job in self._reported))
        wanted = {manifest.staging_url for manifest in manifests}
        root = self._manifests.staging_url
        names = self._backbone.staged_names(root)
        unwanted = [join(root, name) for name in names if join(root, name.partition("-")[0]) not in wanted]
        self._backbone.each(self._backbone.remove_staged, unwanted)

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
            found = report_of_loss(manifest, ended)
        elif ended.peak_memory_mib:
            found = replace(found, cpu_s=ended.cpu_s, peak_memory_mib=ended.peak_memory_mib)
        if ended.folder is not None and ended.folder.exists():
            clear_folder(ended.folder)
        self._check_sandbox(manifest, found)
        return Reported(manifest, found)

    def _check_sandbox(self, manifest: Manifest, found: Report) -> None:
        """Say once that a node cannot do what the site asks for."""
        asked = manifest.staging.sandbox
        if found.sandbox != asked and found.outcome != "failed" and not self._is_warned:
            self._is_warned = True
            log.warning(
                "sandbox=%s is not to be had on host=%s: jobs run with sandbox=%s there, and reports say so",
                asked,
                found.host,
                found.sandbox,
            )

    def _is_harvest_due(self) -> bool:
        if not self._reported:
            return False
        is_idle = not self._schedule.ready and self._executor.room() > 0
        is_old = time.monotonic() - self._reported_since >= HARVEST_S
        return is_idle or is_old or len(self._reported) >= self._batch

    def _harvest(self) -> None:
        """Harvest as many jobs as the last harvest says can be done in `HARVEST_S`."""
        batch, self._reported = self._reported[: self._batch], self._reported[self._batch :]
        started = time.monotonic()
        harvest(batch, self._registry, self._backbone, self._types, self._record)
        in_time = len(batch) * HARVEST_S / max(time.monotonic() - started, 1e-3)
        self._batch = min(max(int(in_time), _FEWEST_JOBS), 2 * self._batch, HARVEST_JOBS)

    def _record(self, harvested: Sequence[Harvested]) -> None:
        """Keep logs, then write into the journal how jobs ended and what that means for others."""
        logs = keep_logs(harvested, self._backbone, self._logs)
        again = {job.manifest.job for job in harvested if self._is_worth_another_try(job)}
        over = [job for job in harvested if job.manifest.job not in again]
        copies = deliveries(over, self._deliverer.destinations)
        with self._journal.batch():
            self._journal.add_deliveries(copies)
            self._journal.move(again, JobState.READY)
            for end in write_endings(self._journal, over, logs):
                self._write(self._schedule.ended(end.job, end.state, left_out=end.left_out))
        self._deliverer.add(copies)
        for job in again:
            self._schedule.again(job)
        self._tried_again |= again

    def _is_worth_another_try(self, job: Harvested) -> bool:
        """Whether a job whose files were spoilt on their way home is run once more."""
        return job.refusal == "checksum_mismatch" and job.manifest.job not in self._tried_again

    def _write(self, changes: Changes) -> None:
        self._journal.move(changes.ready, JobState.READY)
        for culprit, jobs in changes.blocked.items():
            self._journal.block(jobs, culprit)
