"""The local executor: worker processes on this machine, each of which forks a child for every job."""

import json
import os
import select
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from loadmaster_registry.errors import RunError
from loadmaster_staging.manifest import Manifest, to_json
from loadmaster_staging.stage import clear_folder

from .executor import Ended, RunPlace
from .job import EXIT_NO_REPORT, thread_limits
from .lease import end_holders, holder

_START_S = 120  # imports of a run's tasks from a cold disk
_END_S = 30  # for what was killed to be gone
_GRACE_S = 2  # for a worker to end by itself, and its job with it


class LocalExecutor:
    """Runs up to `cpus` single-threaded jobs at once; one that asks for more takes the place of as many."""

    def __init__(self, cpus: int, *, scratch: Path | None = None) -> None:
        self._cpus = cpus
        self._scratch_root = scratch
        self._workers: list[_Worker] = []
        self._queue: deque[Manifest] = deque()
        self._place: RunPlace | None = None

    def prepare(self, place: RunPlace) -> None:
        """Make sure that nothing of an earlier life runs any more, and clear what it left.

        Raises
        ------
        RunError
            If processes of an earlier life cannot be ended.
        """
        self._place = place
        for path in sorted(self._leases.glob("*.lease")):
            _free(path)
        for folder in self._scratch.glob("*"):
            clear_folder(folder)

    def restart(self, tokens: Sequence[str]) -> set[str]:
        """Return none: jobs here end with the process that started them."""
        return set()

    def room(self) -> int:
        """Return how many more jobs it wants now."""
        return max(0, self._cpus - self._busy_cpus() - len(self._queue))

    def submit(self, manifests: Sequence[Manifest]) -> None:
        """Take jobs, in this order."""
        self._queue.extend(manifests)
        self._feed()

    def status(self, wait_s: float) -> list[Ended]:
        """Return the jobs that have ended since the last call; wait up to `wait_s` for one."""
        ended: list[Ended] = []
        deadline = time.monotonic() + wait_s
        while not ended:
            left_s = max(0.0, deadline - time.monotonic())
            busy = [worker for worker in self._workers if worker.job is not None]
            ready, _, _ = select.select(busy, [], [], left_s)
            for worker in ready:
                ended += self._heard(worker)
            self._feed()
            if not left_s:
                break
        return ended

    def cancel(self, tokens: Sequence[str]) -> None:
        """End jobs; those that have not begun are forgotten."""
        unwanted = set(tokens)
        self._queue = deque(m for m in self._queue if m.token not in unwanted)
        for worker in self._workers:
            if worker.job is not None and worker.job.token in unwanted:
                worker.order({"order": "cancel", "token": worker.job.token})

    def ping(self) -> str:
        """Return what a worker says of itself.

        Raises
        ------
        RunError
            If it does not start.
        """
        worker = self._idle_worker(1)
        deadline = time.monotonic() + _START_S
        while not worker.about and time.monotonic() < deadline:
            select.select([worker], [], [], 1.0)
            if worker.hear() is None:
                break
        if not worker.about:
            raise _no_worker(worker)
        return f"local: {self._cpus} at once, {worker.about}"

    def close(self) -> set[str]:
        """End all that is running, at once; nothing goes on alone."""
        self._queue.clear()
        for worker in self._workers:
            worker.dismiss()
        while self._workers:
            worker = self._workers.pop()
            worker.end(wait_s=_GRACE_S)
            _free(worker.lease)
        if self._place is not None:
            with suppress(OSError):  # not there, or not empty because somebody looks into a job's folder
                self._scratch.rmdir()
        return set()

    @property
    def _prepared(self) -> RunPlace:
        assert self._place is not None, "prepare comes first"
        return self._place

    @property
    def _leases(self) -> Path:
        return self._prepared.folder / "workers"

    @property
    def _scratch(self) -> Path:
        """The folder that holds the jobs' own folders; of this run alone."""
        if self._scratch_root is None:
            return self._prepared.folder / "scratch"
        return self._scratch_root / f"loadmaster-{self._prepared.name}"

    def _busy_cpus(self) -> int:
        return sum(self._share(worker.job) for worker in self._workers if worker.job is not None)

    def _share(self, manifest: Manifest) -> int:
        return min(manifest.cpus, self._cpus)

    def _has_room(self, manifest: Manifest) -> bool:
        """Whether processors and scratch for a job are free."""
        if self._busy_cpus() + self._share(manifest) > self._cpus:
            return False
        budget = manifest.staging.scratch_bytes
        used = sum(self._scratch_share(worker.job) for worker in self._workers if worker.job is not None)
        return budget < 0 or used + self._scratch_share(manifest) <= budget

    def _scratch_share(self, manifest: Manifest) -> int:
        """Return what a job may use of the scratch: where nobody said, as much as each of `cpus` jobs can have."""
        budget = manifest.staging.scratch_bytes
        return min(manifest.scratch_bytes, budget) if manifest.scratch_bytes >= 0 else budget // self._cpus

    def _feed(self) -> None:
        """Start jobs from the head of the queue while there is room; none overtakes a large one that waits."""
        while self._queue and self._has_room(self._queue[0]):
            manifest = self._queue.popleft()
            worker = self._idle_worker(self._share(manifest))
            worker.run(manifest, self._scratch / f"{manifest.job}.{manifest.attempt}")

    def _idle_worker(self, cpus: int) -> "_Worker":
        """Return a worker whose libraries were loaded for so many threads."""
        for worker in self._workers:
            if worker.job is None and worker.cpus == cpus:
                return worker
        taken = {worker.lease for worker in self._workers}
        leases = (self._leases / f"{i}.lease" for i in range(len(taken) + 1))
        worker = _Worker(next(lease for lease in leases if lease not in taken), cpus, self._prepared.modules)
        self._workers.append(worker)
        return worker

    def _heard(self, worker: "_Worker") -> list[Ended]:
        news = worker.hear()
        if news is None:
            return self._lost(worker)
        return [ended for item in news if (ended := worker.ended(item)) is not None]

    def _lost(self, worker: "_Worker") -> list[Ended]:
        """Tell of the job of a worker that is gone, once nothing of it runs any more."""
        self._workers.remove(worker)
        worker.end(wait_s=_END_S)
        _free(worker.lease)
        if not worker.about:
            raise _no_worker(worker)
        if worker.job is None:
            return []
        why = f"its worker process ended with exit status {worker.process.returncode}"
        return [Ended(worker.job.token, None, why, worker.folder)]


class _Worker:
    """The controller's end of one worker process."""

    def __init__(self, lease: Path, cpus: int, modules: Sequence[str]) -> None:
        self.lease = lease
        self.cpus = cpus
        self.about = ""
        self.job: Manifest | None = None
        self.folder: Path | None = None
        self._rest = b""
        self._log = lease.with_suffix(".log")
        lease.parent.mkdir(parents=True, exist_ok=True)
        with open(self._log, "ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "loadmaster_executors.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, **thread_limits(cpus)},
                start_new_session=True,  # Ctrl-C is for the controller alone
            )
        path = [str(Path(entry).absolute()) for entry in sys.path]
        self.order({"lease": str(lease), "path": path, "modules": list(modules)})

    def fileno(self) -> int:
        assert self.process.stdout is not None
        return self.process.stdout.fileno()

    def run(self, manifest: Manifest, folder: Path) -> None:
        self.job, self.folder = manifest, folder
        self.order(
            {"order": "run", "manifest": to_json(manifest), "folder": str(folder), "token": manifest.token}
        )

    def order(self, order: dict[str, Any]) -> None:
        """Send an order; that a worker is gone shows when it is heard."""
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps(order).encode() + b"\n")
            self.process.stdin.flush()

    def hear(self) -> list[dict[str, Any]] | None:
        """Return the news that have come, None when the worker is gone."""
        block = os.read(self.fileno(), 1 << 16)
        if not block:
            return None
        *lines, self._rest = (self._rest + block).split(b"\n")
        news = [json.loads(line) for line in lines]
        for item in news:
            if item["news"] == "ready":
                self.about = f"Python {item['python']}"
        return news

    def ended(self, news: dict[str, Any]) -> Ended | None:
        """Return what the news say of the job, which is over then; None where they say nothing of it."""
        if news["news"] != "ended" or self.job is None:
            return None
        usage = {"cpu_s": news["cpu_s"], "peak_memory_mib": news["peak_memory_mib"]}
        why = self.last_words() if news["returncode"] == EXIT_NO_REPORT else ""
        ended = Ended(self.job.token, news["returncode"], why, self.folder, **usage)
        self.job = self.folder = None
        return ended

    def dismiss(self) -> None:
        """Close its orders: it kills its job and goes."""
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):
            self.process.stdin.close()

    def end(self, wait_s: float) -> None:
        """See it gone, by force if it takes longer than `wait_s`."""
        self.dismiss()
        try:
            self.process.wait(wait_s)
        except subprocess.TimeoutExpired:  # still importing, perhaps
            self.process.kill()
            self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def last_words(self) -> str:
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"


def _free(lease: Path) -> None:
    if not end_holders(lease, _END_S):
        raise RunError(
            what="processes of earlier jobs are still running and cannot be ended",
            where=f"process group {holder(lease)} (it holds {lease})",
            why="a job's processes must be gone before it can run again",
            todo="end them, then give the same command again",
        )


def _no_worker(worker: _Worker) -> RunError:
    return RunError(
        what="a worker process does not start",
        where=" ".join(map(str, worker.process.args)) if isinstance(worker.process.args, list) else "",
        why=worker.last_words(),
        todo=f"see {worker.lease.with_suffix('.log')}; correct the Python environment",
    )
