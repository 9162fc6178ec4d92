"""What is written down of jobs that came home: how each ended, what it made, why it failed, what it said."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from uuid import UUID

from loadmaster_registry.errors import RunError
from loadmaster_staging.backbone import Backbone
from loadmaster_staging.harvest import Harvested
from loadmaster_staging.location import staged
from loadmaster_staging.manifest import FATAL, QuantumReport, QuantumSpec
from loadmaster_staging.shards import Shards

from .journal import Failure, JobEnd, JobState, Journal, Log, Made, Share

_STATES: Mapping[str, JobState] = {
    "done": JobState.DONE,
    "no_work": JobState.DONE,
    "partial": JobState.PARTIAL,
    "failed": JobState.FAILED,
}
_UNKNOWN = QuantumReport("", "code_error")  # of a report that is about other quanta


def keep_logs(harvested: Sequence[Harvested], backbone: Backbone, shards: Shards) -> list[Log]:
    """Bring the logs of jobs from beside their reports into a shard, and return where each is.

    Raises
    ------
    StageError, RunError
        If a log cannot be read or kept.
    """
    said = [
        (job, spec, staged(job.manifest.staging_url, quantum.log))
        for job in harvested
        for spec, quantum in zip(job.manifest.quanta, job.report.quanta, strict=False)
        if quantum.log
    ]
    texts = backbone.each(backbone.read_staged, [url for _, _, url in said])
    found = [(job, spec, text) for (job, spec, _), text in zip(said, texts, strict=True) if text is not None]
    try:
        urls = shards.append([text for _, _, text in found])
    except OSError as error:
        raise RunError(
            what="the logs of jobs cannot be kept",
            where=str(error.filename),
            why=str(error),
            todo="see that there is space and permission to write, then give the same command again",
        ) from error
    return [Log(spec.id, job.manifest.attempt, url) for (job, spec, _), url in zip(found, urls, strict=True)]


def write_endings(journal: Journal, harvested: Sequence[Harvested], logs: Sequence[Log]) -> list[JobEnd]:
    """Write all that is to be known of jobs that came home, in the journal's current batch."""
    where = {(log.quantum, log.attempt): log.url for log in logs}
    journal.add_logs(logs)
    journal.add_made(made for job in harvested if job.outcome in ("done", "partial") for made in _made(job))
    journal.add_failures(failure for job in harvested for failure in _failures(job, where))
    ends = [_job_end(job) for job in harvested]
    journal.end(ends)
    journal.add_shares(share for job in harvested for share in _shares(job))
    return ends


def _made(job: Harvested) -> list[Made]:
    return [
        Made(UUID(file.dataset_id), file.size_bytes, file.checksum, job.packed.get(file.dataset_id, ""))
        for quantum in job.report.quanta
        for file in quantum.outputs
        if not file.part
    ]


def _failures(job: Harvested, logs: Mapping[tuple[str, int], str]) -> list[Failure]:
    if job.refusal:
        spec = job.manifest.quanta[0]
        quantum = replace(next(iter(job.report.quanta), _UNKNOWN), message=job.message)
        return [_failure(job, spec, quantum, job.refusal, logs)]
    return [
        _failure(job, spec, quantum, quantum.status, logs)
        for spec, quantum in zip(job.manifest.quanta, job.report.quanta, strict=True)
        if quantum.status in FATAL or quantum.status == "missing_output"
    ]


def _failure(
    job: Harvested,
    spec: QuantumSpec,
    quantum: QuantumReport,
    class_: str,
    logs: Mapping[tuple[str, int], str],
) -> Failure:
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
        log=logs.get((spec.id, job.manifest.attempt), ""),
    )


def _job_end(job: Harvested) -> JobEnd:
    stored = {f.dataset_id for quantum in job.manifest.quanta for f in quantum.outputs if not f.is_elided}
    made = {file.dataset_id for quantum in job.report.quanta for file in quantum.outputs}
    class_, message = _cause(job)
    return JobEnd(
        state=_STATES[job.outcome],
        class_=class_,
        message=message,
        left_out=not stored <= made,
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
    quanta = list(zip(job.manifest.quanta, job.report.quanta, strict=False))
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
    found = next((quantum for quantum in job.report.quanta if quantum.status in statuses), None)
    return (found.status, found.message) if found else ("", "")
