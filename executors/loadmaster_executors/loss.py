"""What can be said of a job that left no report."""

import shutil
from collections.abc import Callable
from itertools import count, takewhile
from pathlib import Path

from loadmaster_staging.manifest import Manifest, QuantumReport, Report, Status

from . import folder
from .evidence import signal_name, tail
from .executor import Ended
from .job import EXIT_NO_REPORT


def report_of_loss(manifest: Manifest, ended: Ended, log_path: Callable[[int], Path]) -> Report:
    """Return a report in place of the one that a job did not write, from what the executor saw of it.

    Logs that lie in the job's folder still are kept at `log_path(i)`, for the i-th quantum.
    """
    status, error, message = _class_of(ended)
    kept = [_kept(log, log_path(index)) for index, log in enumerate(_logs(ended))]
    last = max(len(kept) - 1, 0)  # the quantum that was at work
    quanta = [QuantumReport(q.id, "blocked", message="the job's process ended") for q in manifest.quanta]
    quanta[last] = QuantumReport(
        manifest.quanta[last].id, status, error, message, traceback=tail(kept[last]) if kept else ""
    )
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
    return list(takewhile(Path.exists, (folder.log_path(root, index) for index in count())))


def _kept(log: Path, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(log, path)
    return path
