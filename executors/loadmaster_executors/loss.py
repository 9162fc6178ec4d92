"""What can be said of a job that left no report."""

from dataclasses import replace
from itertools import count, takewhile
from pathlib import Path

from loadmaster_staging.manifest import Manifest, QuantumReport, Report, Status
from loadmaster_staging.stage import send_log

from . import folder
from .evidence import ended_by, tail
from .executor import Ended
from .job import EXIT_NO_REPORT


def report_of_loss(manifest: Manifest, ended: Ended) -> Report:
    """Return a report in place of the one that a job did not write, from what the executor saw of it.

    Logs that lie in the job's folder still are staged, as the job itself would have done.
    """
    status, error, message = _class_of(ended)
    logs = _logs(ended)
    said = tail(logs[-1]) if logs else ""
    names = [_sent(log, manifest.staging_url, f".log-{i}.txt") for i, log in enumerate(logs)]
    names += [""] * (len(manifest.quanta) - len(names))
    quanta = [
        QuantumReport(quantum.id, "blocked", message="the job's process ended", log=name)
        for quantum, name in zip(manifest.quanta, names, strict=True)
    ]
    last = max(len(logs) - 1, 0)  # the quantum that was at work
    quanta[last] = replace(quanta[last], status=status, error=error, message=message, traceback=said)
    return Report(
        run=manifest.run,
        job=manifest.job,
        attempt=manifest.attempt,
        token=manifest.token,
        outcome="failed",
        quanta=tuple(quanta),
        host="",
        started="",
        ended="",
        wall_s=0.0,
        cpu_s=ended.cpu_s,
        peak_memory_mib=ended.peak_memory_mib,
    )


def _class_of(ended: Ended) -> tuple[Status, str, str]:
    if ended.returncode is None:
        return "node_lost", "", ended.why
    if ended.returncode == EXIT_NO_REPORT:
        return "stage_out_failed", "", f"the job could not write its report: {ended.why}"
    found = ended_by(ended.returncode)
    return found.status, found.error, found.message


def _logs(ended: Ended) -> list[Path]:
    """Return the logs of the quanta that began, in order."""
    if ended.folder is None:
        return []
    root = ended.folder
    return list(takewhile(Path.exists, (folder.log_path(root, index) for index in count())))


def _sent(log: Path, staging_url: str, name: str) -> str:
    try:
        return send_log(log, staging_url, name)
    except OSError:  # the disk is full, perhaps: the report has the last lines
        return ""
