"""What became of a quantum: what its process says, what it tried and may not, and what lies in the job's folder.

Light: the job runner imports this.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from loadmaster_staging.manifest import HARMLESS, QuantumReport, QuantumSpec, SandboxMode
from loadmaster_staging.stage import WrittenFile
from loadmaster_staging.watch import Attempt

from .cell import Ran
from .evidence import MESSAGE_CHARS, Verdict
from .folder import JobFolder


@dataclass(frozen=True, slots=True)
class Finished:
    """A quantum that is over: its report, and the files it wrote that are to be staged."""

    report: QuantumReport
    written: tuple[WrittenFile, ...] = ()


def finish(
    ran: Ran, spec: QuantumSpec, index: int, folder: JobFolder, mode: SandboxMode, junk_bytes: int
) -> Finished:
    """Judge a quantum, and take what it wrote out of the reach of later ones.

    Outputs of a quantum that succeeded can be read by later ones of the same job. Undeclared files, where they are
    wanted, become one archive that holds `junk_bytes` at most.
    """
    _note(ran.tried, folder, index, mode)
    found = _judged(ran, spec, folder, mode)
    written: list[WrittenFile] = []
    if found.status in ("succeeded", "missing_output"):
        written = folder.settle(folder.written(spec, ran.contents))
    if found.status == "succeeded":
        folder.readable.update((file.dataset_id, file.path) for file in written if not file.part)
    undeclared = folder.undeclared(index)
    elided = {file.dataset_id for file in spec.outputs if file.is_elided}
    written = [file for file in written if file.dataset_id not in elided]
    if spec.junk is not None and undeclared and (found.status == "succeeded" or written):
        written.append(WrittenFile(spec.junk.dataset_id, folder.pack(undeclared, index, junk_bytes)))
    report = QuantumReport(
        id=spec.id,
        status=found.status,
        error=found.error,
        message=found.message,
        first_frame=found.first_frame,
        traceback=found.traceback,
        wall_s=round(ran.wall_s, 6),
        cpu_s=ran.cpu_s,
        undeclared=tuple(file.name for file in undeclared),
    )
    return Finished(report, tuple(written))


def _judged(ran: Ran, spec: QuantumSpec, folder: JobFolder, mode: SandboxMode) -> Verdict:
    found = ran.verdict
    if mode == "enforce":
        for attempt in ran.tried:
            if attempt.kind in ("read", "overwrite"):
                return _refused(found, attempt, folder)
    if changed := [path.name for path in folder.changed()]:
        message = f"{', '.join(changed)} was written, but is there to be read only"
        return replace(found, status="overwrite_attempt", message=message)
    if found.status == "succeeded":
        there = {file.dataset_id for file in folder.written(spec)}
        missing = [file for file in spec.outputs if file.dataset_id not in there]
        if missing:
            names = ", ".join(f"{f.dataset_type} ({f.connection})" for f in missing)
            return Verdict("missing_output", message=f"the task ended well without writing {names}")
    if mode == "enforce" and found.status not in HARMLESS and ran.tried:
        message = f"{found.message}; {_explained(ran.tried)}"
        return replace(found, message=message[-MESSAGE_CHARS:])
    return found


def _refused(found: Verdict, attempt: Attempt, folder: JobFolder) -> Verdict:
    path = _shown(attempt.path, folder.root)
    if attempt.kind == "read":
        message = f"it tried to read {path}, which is none of its inputs"
        return replace(found, status="undeclared_read", message=message)
    message = f"it tried to write or remove {path}, which is not its own"
    return replace(found, status="overwrite_attempt", message=message)


def _explained(tried: Sequence[Attempt]) -> str:
    """Say what the sandbox refused although it is no wrong in itself."""
    reasons = []
    if made := [attempt.path for attempt in tried if attempt.kind == "create"]:
        reasons.append(f"it may write in its own folder only, and not {', '.join(made[:5])}")
    if any(attempt.kind == "network" for attempt in tried):
        reasons.append("it may use no network unless the task says `network: true`")
    return "; ".join(reasons)


def _note(tried: Sequence[Attempt], folder: JobFolder, index: int, mode: SandboxMode) -> None:
    """Write into the quantum's log what it tried."""
    if not tried:
        return
    verb = "was refused" if mode == "enforce" else "would have been refused"
    with open(folder.log(index), "a") as log:
        log.writelines(f"sandbox ({mode}): {verb}: {attempt}\n" for attempt in tried)


def _shown(path: str, root: Path) -> str:
    """Return a path as people know it: below the job's own folder where it is there."""
    return path.removeprefix(f"{root.resolve()}/")
