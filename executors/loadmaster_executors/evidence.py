"""What went wrong in a quantum, told from the exception that ended it.

Light: the job runner imports this.
"""

import errno
import signal
import traceback
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from loadmaster_registry.errors import Error
from loadmaster_staging.manifest import Status

MESSAGE_CHARS = 2_000
TRACEBACK_CHARS = 20_000
TAIL_BYTES = 4_000
_FRAMEWORK = {f"loadmaster_pipelines.{name}" for name in ("formats", "handles", "storage", "task")}
_REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS}


class CommandEnded(Exception):  # noqa: N818 (the end of a command, which is bad here)
    """A command's process ended badly; `returncode` as in subprocess: negative for a signal."""

    def __init__(self, returncode: int, program: str, tail: str) -> None:
        super().__init__(returncode, program, tail)
        self.returncode = returncode
        self.program = program
        self.tail = tail


@dataclass(frozen=True, slots=True)
class Verdict:
    """Why a quantum has the status that it has."""

    status: Status
    error: str = ""
    message: str = ""
    first_frame: str = ""
    traceback: str = ""
    refused: str = ""  # the file to which Python was refused, as far as the exception says


def verdict(exception: BaseException, code: str, read_only: Collection[Path]) -> Verdict:
    """Class what a task raised.

    Parameters
    ----------
    code : str
        Dotted name of the task's class, whose package's frames are the task's own; "" for a command.
    read_only : collection of Path
        Files that the task must not write.
    """
    if isinstance(exception, CommandEnded):
        return _command_verdict(exception)
    refused = _refused_file(exception)
    first = exception.args[0] if isinstance(exception, Error) else str(exception)
    return Verdict(
        status="overwrite_attempt" if refused and Path(refused) in read_only else "code_error",
        error=type(exception).__name__,
        message=str(first)[:MESSAGE_CHARS],
        first_frame=_first_frame(exception.__traceback__, code.partition(".")[0]),
        traceback="".join(traceback.format_exception(exception))[-TRACEBACK_CHARS:],
        refused=refused,
    )


def ended_by(returncode: int) -> Verdict:
    """Class the end of a job's process that says nothing more; `returncode` is negative for a signal."""
    if returncode < 0:
        name = signal_name(-returncode)
        return Verdict("signal", name, f"the job's process was ended by {name}")
    message = f"the job's process ended with exit status {returncode}, without a report"
    return Verdict("code_error", "exit status", message)


def signal_name(number: int) -> str:
    """Return SIGKILL for 9, and so on."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def tail(path: Path) -> str:
    """Return the last lines of a log."""
    with open(path, "rb") as stream:
        size = stream.seek(0, 2)
        stream.seek(max(0, size - TAIL_BYTES))
        return stream.read().decode(errors="replace")


def _command_verdict(ended: CommandEnded) -> Verdict:
    if ended.returncode < 0:
        name = signal_name(-ended.returncode)
        return Verdict("signal", name, f"{ended.program} was ended by {name}", traceback=ended.tail)
    message = f"{ended.program} ended with exit status {ended.returncode}"
    return Verdict("code_error", "exit status", message, traceback=ended.tail)


def _refused_file(exception: BaseException) -> str:
    """Return the existing file to which an exception says that there was no access; "" for none."""
    if not isinstance(exception, OSError) or exception.errno not in _REFUSED:
        return ""
    name = exception.filename
    return str(Path(name).absolute()) if isinstance(name, str | Path) and Path(name).exists() else ""


def _first_frame(trace: TracebackType | None, package: str) -> str:
    """Return the innermost frame in the task's own package; the innermost of all where there is none."""
    found = own = ""
    while trace is not None:
        module = trace.tb_frame.f_globals.get("__name__", "?")
        found = f"{module}:{trace.tb_lineno} in {trace.tb_frame.f_code.co_name}"
        if package and module.partition(".")[0] == package and module not in _FRAMEWORK:
            own = found
        trace = trace.tb_next
    return own or found
