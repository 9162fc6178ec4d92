"""What can be said of a job that left no report."""

from itertools import count, takewhile
from pathlib import Path

from loadmaster_staging.location import join
from loadmaster_staging.manifest import Manifest, QuantumReport, Report, Status
from loadmaster_staging.stage import send_log

from .evidence import signal_name, tail
from .executor import Ended
from .folder import log_path
from .job import EXIT_NO_REPORT


def report_of_loss(manifest: Manifest, ended: Ended) -> Report:
    """Return a report in place of the one that a job did not write, from what the executor saw of it.

    Logs that still lie in the job's folder are brought beside where the report would be.
    """
    status, error, message = _class_of(ended)
    logs = _logs(ended)
    last = max(len(logs) - 1, 0)  # the quantum that was at work
    quanta = []
    for index, spec in enumerate(manifest.quanta):
        log = send_log(logs[index], manifest.staging_url, f".log-{index}.txt") if index < len(logs) else ""
        if index == last:
            text = _tail_of(manifest, log)
            quanta.append(QuantumReport(spec.id, status, error, message, traceback=text, log=log))
        else:
            quanta.append(QuantumReport(spec.id, "blocked", message="the job's process ended", log=log))
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
    if ended.returncode < 0:
        name = signal_name(-ended.returncode)
        return "signal", name, f"the job's process was ended by {name}"
    if ended.returncode == EXIT_NO_REPORT:
        return "stage_out_failed", "", "the job could not write its report"
    message = f"the job's process ended with exit status {ended.returncode}, without a report"
    return "code_error", "exit status", message


def _logs(ended: Ended) -> list[Path]:
    """Return the logs of the quanta that began, in order."""
    if ended.folder is None:
        return []
    root = ended.folder
    return list(takewhile(Path.exists, (log_path(root, index) for index in count())))


def _tail_of(manifest: Manifest, log: str) -> str:
    return tail(Path(join(manifest.staging_url, log))) if log and "://" not in manifest.staging_url else ""
