"""The process in which a job's quanta run, shut into its sandbox; the job itself stays outside and has the last word.

What a quantum's process says of itself is only what its code did. What it tried and may not is heard by the watch,
what it wrote is looked at from outside, and if it dies there is still somebody to report it.
Light: the job runner imports this.
"""

import array  # noqa: F401 (`socket.send_fds` imports it, at a moment at which no file can be opened)
import json
import os
import select
import signal
import socket
import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

from loadmaster_staging import kernel
from loadmaster_staging.manifest import QuantumSpec, SandboxMode
from loadmaster_staging.sandbox import Sandbox
from loadmaster_staging.software import Software
from loadmaster_staging.watch import Attempt, Watch

from .evidence import Verdict, ended_by, tail
from .folder import JobFolder, Noted
from .quantum import run_quantum

_ALL_DESCRIPTORS = 1 << 20
_BLOCK_BYTES = 1 << 16
_EXIT_BROKEN = 70  # EX_SOFTWARE: the runner itself failed


@dataclass(frozen=True, slots=True)
class Ran:
    """A quantum that its process is through with."""

    verdict: Verdict
    tried: tuple[Attempt, ...]  # what it may not do
    wall_s: float
    cpu_s: float
    contents: Mapping[str, Noted] = field(default_factory=dict)  # of what it wrote, by path


class Cell:
    """A child process that runs quanta, one after the other, as it is told.

    It is to be made before anything else happens: two processes share the memory that neither has written to.

    Parameters
    ----------
    kept : sequence of int
        Descriptors that it, and programs that it starts, keep; all others but the first three are closed.
    """

    def __init__(
        self, quanta: Sequence[QuantumSpec], folder: JobFolder, software: Software, kept: Sequence[int]
    ) -> None:
        self._quanta = quanta
        self._told: set[str] = set()
        self._folder = folder
        self._sandbox: Sandbox | None = None
        self.is_over = self._is_gone = False
        kernel.adopt_orphans()
        ours, its = socket.socketpair()
        self._process = os.fork()
        if self._process == 0:
            ours.close()
            _be_child(quanta, folder, software, its, kept)
        its.close()
        self._ending = os.pidfd_open(self._process)
        self._channel = _Channel(ours)
        self._poll = select.poll()
        self._poll.register(ours, select.POLLIN)
        self._poll.register(self._ending, select.POLLIN)
        self.mode: SandboxMode = "off"
        self._network = False
        self._watch: Watch | None = None

    def enter(self, sandbox: Sandbox) -> None:
        """Let the process shut itself into a sandbox."""
        self._sandbox = sandbox
        self._channel.send({"sandbox": sandbox.asked, "root": sandbox.root, "own": dict(sandbox.own)})

    def run(self, index: int) -> Ran:
        """Run a quantum and return how it ended."""
        began = time.monotonic()
        self._network = self._quanta[index].network
        if self._watch is not None:
            self._watch.network = self._network
        new = self._folder.readable.keys() - self._told
        self._told |= new
        with open(self._folder.log(index), "ab") as log:  # in the sandbox none can be made
            order = {"index": index, "new": {id: str(self._folder.readable[id]) for id in new}}
            self._channel.send(order, log.fileno())
        answer = self._answer()
        tried = () if self._watch is None else tuple(self._watch.take())
        if answer is None:
            death = replace(self._death(), traceback=tail(self._folder.log(index)))
            return Ran(death, tried, time.monotonic() - began, 0.0)
        found = Verdict(*answer["verdict"])
        if self._watch is None and self._sandbox is not None and self.mode == "enforce" and found.refused:
            tried = self._sandbox.attempts_of(found.refused)
        return Ran(found, tried, time.monotonic() - began, answer["cpu_s"], answer["contents"])

    def close(self) -> None:
        """See the process gone, and all that it left behind."""
        if not self._is_gone:
            self._poll.unregister(self._channel)
            self._channel.close()
            while not self.is_over:
                self._hear_once()
            self._death()
        if self._watch is not None:
            self._watch.close()

    def _answer(self) -> dict[str, Any] | None:
        """Wait for what the process says, with an ear for what it tries; None if it ended without a word."""
        while True:
            message = self._channel.receive()
            if message is None and self.is_over:
                return None
            if message is None:
                self._hear_once()
            elif "mode" in message:
                self._entered(message)
            else:
                return message

    def _entered(self, message: Mapping[str, Any]) -> None:
        """Take note of the mode in which the process shut itself in."""
        self.mode = message["mode"]
        if message["listens"] and self._sandbox is not None:
            self._watch = self._sandbox.watch(self.mode, self._channel.take_descriptor())
            self._watch.network = self._network
            self._poll.register(self._watch, select.POLLIN)

    def _hear_once(self) -> None:
        """Wait until something happens, and act on it."""
        for descriptor, event in self._poll.poll():
            if descriptor == self._channel.fileno():
                self._channel.listen()
                if event & select.POLLHUP:
                    self._poll.unregister(descriptor)
            elif descriptor == self._ending:
                self.is_over = True
            elif event & select.POLLIN and self._watch is not None:
                self._watch.hear()
            else:  # nobody is left in the sandbox
                self._poll.unregister(descriptor)

    def _death(self) -> Verdict:
        """Return how the process ended, once all its descendants are gone as well."""
        _, status = os.waitpid(self._process, 0)
        os.close(self._ending)
        _end_orphans()
        self._is_gone = True
        return ended_by(os.waitstatus_to_exitcode(status))


class _Channel:
    """Messages, a JSON object a line, between the two processes."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._block = b""
        self._messages: list[dict[str, Any]] = []
        self.descriptors: list[int] = []  # that came with messages

    def fileno(self) -> int:
        return self._end.fileno()

    def send(self, message: Mapping[str, Any], *descriptors: int) -> None:
        """Send a message; nobody may be there to hear it."""
        text = json.dumps(message).encode() + b"\n"
        with suppress(BrokenPipeError, ConnectionResetError):
            if descriptors:
                socket.send_fds(self._end, [text], descriptors)
            else:
                self._end.sendall(text)

    def listen(self) -> bool:
        """Take what has come, and return whether a message is complete."""
        with suppress(ConnectionResetError):  # it ended before it had read all
            block, descriptors, _, _ = socket.recv_fds(self._end, _BLOCK_BYTES, 1)
            self._block += block
            self.descriptors += descriptors
        *lines, self._block = self._block.split(b"\n")
        self._messages += map(json.loads, lines)
        return bool(self._messages)

    def receive(self) -> dict[str, Any] | None:
        """Return a message that has come; None if there is none."""
        return self._messages.pop(0) if self._messages else None

    def wait(self) -> dict[str, Any] | None:
        """Wait for a message; None at the end."""
        while not self._messages:
            before = self._block
            if not self.listen() and self._block == before:
                return None
        return self.receive()

    def take_descriptor(self) -> int:
        """Return the descriptor that came with a message."""
        return self.descriptors.pop(0)

    def close(self) -> None:
        self._end.close()


def _be_child(
    quanta: Sequence[QuantumSpec],
    folder: JobFolder,
    software: Software,
    end: socket.socket,
    kept: Sequence[int],
) -> NoReturn:
    """Shut this process in, run what it is told, and end it."""
    parent = os.getppid()
    try:
        kernel.die_with_parent(signal.SIGKILL)
        channel = _Channel(end)
        order = channel.wait()
        if order is None or os.getppid() != parent:
            os._exit(_EXIT_BROKEN)
        sandbox = Sandbox(order["sandbox"], order["root"], software, order["own"])
        mode, listener = sandbox.enter(network=any(spec.network for spec in quanta))
        channel.send(
            {"mode": mode, "listens": listener is not None}, *(() if listener is None else (listener,))
        )
        _close_all_but((0, 1, 2, end.fileno(), *channel.descriptors, *kept))
        os.environ.update(sandbox.environment())
        while (order := channel.wait()) is not None:
            folder.readable.update((id, Path(path)) for id, path in order["new"].items())
            before = _cpu_s()
            found = run_quantum(quanta[order["index"]], order["index"], folder, channel.take_descriptor())
            verdict = [getattr(found, name) for name in Verdict.__slots__]
            cpu_s = round(_cpu_s() - before, 6)
            channel.send({"verdict": verdict, "cpu_s": cpu_s, "contents": folder.take_contents()})
    except BaseException:
        traceback.print_exc()
        os._exit(_EXIT_BROKEN)
    finally:
        os._exit(0)


def _close_all_but(kept: Sequence[int]) -> None:
    """Close all descriptors but some: whatever this process inherited is not for tasks."""
    low = 0
    for number in sorted(kept):
        if low < number:  # of an empty range that begins at 0 Python makes all
            os.closerange(low, number)
        low = number + 1
    os.closerange(low, _ALL_DESCRIPTORS)


def _end_orphans() -> None:
    """End what tasks left behind: a job's files must not change once it is over."""
    while True:
        try:
            found, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not found:
            for process in _children():
                with suppress(ProcessLookupError, PermissionError):
                    os.kill(process, signal.SIGKILL)
            os.waitpid(-1, 0)


def _children() -> list[int]:
    ours = os.getpid()
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            after_name = (place / "stat").read_text().rpartition(")")[2].split()
            if int(after_name[1]) == ours:
                found.append(int(place.name))
    return found


def _cpu_s() -> float:
    return sum(os.times()[:4])
