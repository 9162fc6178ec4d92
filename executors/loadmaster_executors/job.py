"""The job runner: inputs in, quanta run, outputs out, the report last. It never sees a registry.

Light: it starts on a compute node thousands of times, and imports nothing that a task does not ask for.
"""

import os
import resource
import socket
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from loadmaster_registry.errors import StageError
from loadmaster_staging.inputs import stage_in
from loadmaster_staging.manifest import (
    FATAL,
    HARMLESS,
    Manifest,
    QuantumReport,
    QuantumSpec,
    Report,
    SandboxMode,
    StagedFile,
    Status,
    outcome_of,
    too_few_inputs,
)
from loadmaster_staging.sandbox import make_sandbox, software_of
from loadmaster_staging.software import software_digest
from loadmaster_staging.stage import clear_folder, send_log, stage_out, write_report

from .cell import Cell
from .folder import JobFolder, log_path
from .judge import Finished, finish

EXIT_NO_REPORT = 74  # of a job that ran, but could not bring its report out (EX_IOERR of sysexits.h)
_THREADS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "POLARS_MAX_THREADS",
)


def run_job(manifest: Manifest, root: Path, kept: Sequence[int] = ()) -> Report:
    """Run a job in the new folder `root`, leave outputs and report at its staging URL, and clear the folder.

    A job that fails says so in its report.

    Parameters
    ----------
    kept : sequence of int
        Descriptors that the processes of its tasks keep.

    Raises
    ------
    StageError, OSError
        If not even the report could be written; the folder stays.
    """
    started, clock = time.time(), time.monotonic()
    root.mkdir(parents=True)
    finished, mode = _finished(manifest, root, kept)
    quanta = _staged_out(finished, manifest, root)
    report = Report(
        run=manifest.run,
        job=manifest.job,
        attempt=manifest.attempt,
        token=manifest.token,
        outcome=outcome_of(quanta),
        quanta=quanta,
        host=socket.gethostname(),
        started=_iso(started),
        ended=_iso(time.time()),
        wall_s=round(time.monotonic() - clock, 6),
        cpu_s=round(sum(os.times()[:4]), 6),
        peak_memory_mib=_peak_memory_mib(),
        **_bytes_moved(),
        sandbox=mode,
        software=software_digest(),
    )
    write_report(report, manifest.staging_url)
    clear_folder(root)
    return report


def thread_limits(cpus: int) -> dict[str, str]:
    """Return the environment that keeps numeric libraries to `cpus` threads."""
    return dict.fromkeys(_THREADS, str(cpus))


def _finished(manifest: Manifest, root: Path, kept: Sequence[int]) -> tuple[list[Finished], SandboxMode]:
    """Run the quanta, and return what became of them and in what mode the sandbox was."""
    folder = JobFolder(root, manifest.quanta)
    inputs = [f for spec in manifest.quanta for f in spec.inputs if f.dataset_id not in folder.outputs]
    software = software_of(manifest.staging, root.parent)
    with closing(Cell(manifest.quanta, folder, software, kept)) as cell:
        try:
            staged = stage_in(inputs, root / "in", manifest.staging, manifest.scratch_bytes)
        except StageError as error:
            what, where, why, todo = error.args
            message = f"{what}: {why} ({where}); do: {todo}"
            return [_not_run(spec, "stage_in_failed", message) for spec in manifest.quanta], "off"
        folder.furnish(staged)
        commands = {spec.command for spec in manifest.quanta if spec.command is not None}
        cell.enter(make_sandbox(root, manifest.staging, software, staged, commands))
        return run_quanta(manifest, folder, cell), cell.mode


def run_quanta(manifest: Manifest, folder: JobFolder, cell: Cell) -> list[Finished]:
    """Let the cell run each quantum that can run, in order."""
    finished: list[Finished] = []
    spoilt: dict[str, str] = {}  # outputs of quanta that failed: dataset id → why
    for index, spec in enumerate(manifest.quanta):
        end = _spared(spec, folder, cell, spoilt)
        if end is None:
            ran = cell.run(index)
            end = finish(ran, spec, index, folder, cell.mode, manifest.staging.junk_bytes)
        if end.report.status not in HARMLESS:
            why = f"{spec.task} {dict(spec.data_id)} of the same job ended as {end.report.status}"
            spoilt.update((file.dataset_id, why) for file in spec.outputs)
        finished.append(end)
    return finished


def _spared(spec: QuantumSpec, folder: JobFolder, cell: Cell, spoilt: Mapping[str, str]) -> Finished | None:
    """Return the end of a quantum that need not or cannot be run."""
    if cell.is_over:
        return _not_run(spec, "blocked", "the job's process ended")
    if blocked := next((spoilt[f.dataset_id] for f in spec.inputs if f.dataset_id in spoilt), ""):
        return _not_run(spec, "blocked", blocked)
    if too_few := too_few_inputs(spec, folder.readable):
        return _not_run(spec, "no_work", f"no_work upstream: {too_few}")
    if taken := [path.name for path in folder.taken(spec)]:
        message = f"an earlier quantum of the job wrote {', '.join(taken)}, which is not its own"
        return _not_run(spec, "overwrite_attempt", message)
    return None


def _not_run(spec: QuantumSpec, status: Status, message: str) -> Finished:
    return Finished(QuantumReport(id=spec.id, status=status, message=message))


def _staged_out(finished: list[Finished], manifest: Manifest, root: Path) -> tuple[QuantumReport, ...]:
    """Bring outputs and logs to the staging area and return the reports that name them there."""
    reports = [end.report for end in finished]
    if not any(report.status in FATAL for report in reports):
        try:
            files = [file for end in finished for file in end.written]
            staged = stage_out(files, manifest.staging_url, manifest.staging.checksum)
            reports = [
                _with_outputs(end, {(file.dataset_id, file.part): file for file in staged})
                for end in finished
            ]
        except StageError as error:
            reports = [_not_staged_out(report, error) for report in reports]
    return tuple(_with_log(report, i, manifest, root) for i, report in enumerate(reports))


def _with_outputs(end: Finished, staged: Mapping[tuple[str, str], StagedFile]) -> QuantumReport:
    return replace(end.report, outputs=tuple(staged[file.dataset_id, file.part] for file in end.written))


def _not_staged_out(report: QuantumReport, error: StageError) -> QuantumReport:
    if report.status not in ("succeeded", "missing_output"):
        return report
    what, _, why, _ = error.args
    return replace(report, status="stage_out_failed", error="StageError", message=f"{what}: {why}")


def _with_log(report: QuantumReport, index: int, manifest: Manifest, root: Path) -> QuantumReport:
    try:
        log = send_log(log_path(root, index), manifest.staging_url, f".log-{index}.txt")
        return replace(report, log=log)
    except OSError:  # it did not run, or the disk is full: the report matters more
        return report


def _peak_memory_mib() -> float:
    kib = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return round(kib / 1024, 1)


def _bytes_moved() -> dict[str, int]:
    """Return what this process and those that it waited for read and wrote, by whatever means."""
    try:
        with open("/proc/self/io") as stream:
            counts = dict(line.split(": ") for line in stream)
    except OSError:  # no Linux
        return {}
    return {"bytes_read": int(counts["rchar"]), "bytes_written": int(counts["wchar"])}


def _iso(unix_s: float) -> str:
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(unix_s))
    return f"{whole}.{int(unix_s % 1 * 1000):03d}Z"
