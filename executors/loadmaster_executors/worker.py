"""A worker process of the local executor: warm, it forks a child for each job and tells how it ended.

It reads orders from stdin and writes news to stdout, a JSON object a line. When stdin ends (its controller is
gone) it kills its job and goes too. It starts light, then imports what the run's tasks need, once.
"""

import gc
import io
import json
import logging
import os
import select
import signal
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from loadmaster_staging.manifest import Manifest, manifest_from_json
from loadmaster_staging.sandbox import software_of
from loadmaster_staging.software import software_digest

from .job import EXIT_NO_REPORT, run_job
from .lease import Lease

_EXIT_BROKEN = 70  # EX_SOFTWARE: the runner itself failed
_BLOCK_BYTES = 1 << 16


class _Channel:
    """Orders in, news out; stdin and stdout themselves are taken away from tasks."""

    def __init__(self) -> None:
        self.orders, self._news = os.dup(0), os.dup(1)
        with open(os.devnull) as nothing:
            os.dup2(nothing.fileno(), 0)
        os.dup2(2, 1)
        self._rest = b""

    def read(self) -> list[dict[str, Any]] | None:
        """Return the orders that have come; wait for some; None at the end."""
        block = os.read(self.orders, _BLOCK_BYTES)
        if not block:
            return None
        *lines, self._rest = (self._rest + block).split(b"\n")
        return [json.loads(line) for line in lines]

    def tell(self, news: dict[str, Any]) -> None:
        """Send news; nobody may be there to hear it."""
        text = json.dumps(news).encode() + b"\n"
        with suppress(BrokenPipeError):
            while text:
                text = text[os.write(self._news, text) :]

    def close(self) -> None:
        os.close(self.orders)
        os.close(self._news)


class Worker:
    """Runs one job at a time in a child process."""

    def __init__(self, channel: _Channel, lease: Lease) -> None:
        self._channel = channel
        self._lease = lease
        self._child = 0
        self._token = ""
        self._wake, wake_end = os.pipe()
        os.set_blocking(wake_end, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake_end, warn_on_full_buffer=False)

    def serve(self, orders: Sequence[dict[str, Any]]) -> None:
        """Do as ordered, by `orders` first, until there is nobody to order."""
        for order in orders:
            self._obey(order)
        while True:
            ready, _, _ = select.select([self._channel.orders, self._wake], [], [])
            if self._wake in ready:
                os.read(self._wake, _BLOCK_BYTES)
                self._reap()
            if self._channel.orders in ready:
                if (more := self._channel.read()) is None:
                    self._kill()
                    return
                for order in more:
                    self._obey(order)

    def _obey(self, order: dict[str, Any]) -> None:
        if order["order"] == "run":
            self._start(order["manifest"], Path(order["folder"]), order["token"])
        elif order["order"] == "cancel" and order["token"] == self._token:
            self._kill()

    def _start(self, text: str, folder: Path, token: str) -> None:
        # Here and not in the child, in which every page that is written to must be copied first.
        manifest = manifest_from_json(text)
        software_digest()
        if manifest.staging.sandbox != "off":
            software_of(manifest.staging, folder.parent)
        self._token = token
        self._child = os.fork()
        if self._child == 0:
            os._exit(self._run(manifest, folder))
        with suppress(OSError):  # both do it, so that neither can find it undone
            os.setpgid(self._child, self._child)

    def _run(self, manifest: Manifest, folder: Path) -> int:
        """Be the child: run the job and return the exit status."""
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.setpgid(0, 0)
            self._lease.say(str(os.getpid()))
            self._lease.share()
            self._channel.close()
            run_job(manifest, folder, (self._lease.fileno(),))
        except OSError:
            traceback.print_exc()
            return EXIT_NO_REPORT
        except BaseException:
            traceback.print_exc()
            return _EXIT_BROKEN
        return 0

    def _reap(self) -> None:
        if not self._child:
            return
        # Not reaped yet, so its number is still its own while what it left behind is killed.
        if os.waitid(os.P_PID, self._child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            return
        self._kill()
        _, status, usage = os.wait4(self._child, 0)
        self._child = 0
        self._lease.say(str(os.getpid()))
        self._channel.tell(
            {
                "news": "ended",
                "token": self._token,
                "returncode": os.waitstatus_to_exitcode(status),
                "cpu_s": round(usage.ru_utime + usage.ru_stime, 6),
                "peak_memory_mib": round(usage.ru_maxrss / 1024, 1),
            }
        )

    def _kill(self) -> None:
        if self._child:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._child, signal.SIGKILL)


def _configure_streams() -> None:
    """Let what a task prints or logs reach stdout and stderr at each line's end, so that a kill leaves it there."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(line_buffering=True)


def _warm(modules: Sequence[str]) -> None:
    """Import what tasks will need; what fails here fails again in the job, which reports it."""
    for name in modules:
        try:
            import_module(name)
        except BaseException:  # whatever a module raises, a worker lives on
            traceback.print_exc()
    gc.collect()
    gc.freeze()  # so that a child's collector does not copy the pages it only reads


def main() -> None:
    """Be a worker. The first order says where the lease is, where modules are found, and which to import."""
    channel = _Channel()
    orders: list[dict[str, Any]] = []
    while not orders:
        if (more := channel.read()) is None:
            return
        orders += more
    hello, *orders = orders
    lease = Lease.take(Path(hello["lease"]), wait=True)
    assert lease is not None
    lease.say(str(os.getpid()))
    sys.path[:] = hello["path"]
    _configure_streams()
    _warm(hello["modules"])
    channel.tell({"news": "ready", "python": sys.version.split()[0]})
    Worker(channel, lease).serve(orders)


if __name__ == "__main__":
    main()
