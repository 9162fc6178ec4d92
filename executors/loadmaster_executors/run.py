"""The folder of one run: its plan, its journal, its logs; whoever holds its lease is its controller."""

import os
import secrets
import socket
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Self

from loadmaster_planner.plan import Plan
from loadmaster_registry.errors import RunError
from loadmaster_staging.shards import Shards, piece_of, read_piece

from .journal import JobState, Journal
from .lease import Lease, holder, is_held

PLAN_NAME = "plan"
JOURNAL_NAME = "journal.sqlite3"
_LEASE_NAME = "lease"
_LOGS_NAME = "logs"
_TRIES, _TRY_S = 5, 0.02


class RunFolder:
    """A run that was begun; its state outlives every process."""

    def __init__(self, path: Path, journal: Journal) -> None:
        self.path = path
        self.journal = journal
        facts = journal.facts()
        self.run = facts["run"]
        self.token = facts["token"]  # tells two folders of the same run apart, in the staging area

    @classmethod
    def create(cls, path: Path, plan: Plan) -> Self:
        """Begin a run of `plan` in a folder; where the same plan was begun there, go on.

        Raises
        ------
        RunError
            If the folder holds another run.
        """
        if not (path / JOURNAL_NAME).exists():
            path.mkdir(parents=True, exist_ok=True)
            with _lease(path):
                _begin(path, plan)
        run = cls.open(path)
        run._check_same(plan)
        return run

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open a run that was begun.

        Raises
        ------
        RunError
            If there is none.
        """
        return cls(path, Journal.open(path / JOURNAL_NAME))

    def close(self) -> None:
        """Let go of the journal."""
        self.journal.close()

    @cached_property
    def plan(self) -> Plan:
        """The plan as it was when the run began."""
        return Plan.open(self.path / PLAN_NAME)

    def lease(self) -> AbstractContextManager[None]:
        """Be the one controller of this run, until the block or the process ends.

        Raises
        ------
        RunError
            If another process is.
        """
        return _lease(self.path)

    @property
    def is_attended(self) -> bool:
        """Whether some process is at work on this run."""
        return is_held(self.path / _LEASE_NAME)

    def cancel(self) -> int:
        """Give up all jobs that are not over, and return how many; the same run can be taken up again.

        Raises
        ------
        RunError
            If a process is at work on the run: that is to be ended first.
        """
        open_states = (JobState.WAITING, JobState.READY, JobState.RUNNING)
        with self.lease(), self.journal.batch():
            jobs = [attempt.job for attempt in self.journal.in_state(*open_states)]
            self.journal.move(jobs, JobState.CANCELLED)
        return len(jobs)

    def log_shards(self) -> Shards:
        """Return where a controller of this run keeps logs."""
        return Shards(str(self.path / _LOGS_NAME), ".txt")

    def log(self, quantum: str, attempt: int | None = None) -> str:
        """Return what an attempt at a quantum said, the last one by default; "" if it said nothing.

        Raises
        ------
        RunError
            If the log cannot be read.
        """
        found = self.journal.log(quantum, attempt)
        if found is None:
            return ""
        piece = piece_of(str(self.path / _LOGS_NAME / found.url))
        assert piece is not None, "logs are kept in shards"
        try:
            return read_piece(piece).decode(errors="replace")
        except OSError as error:
            raise RunError(
                what="the log cannot be read",
                where=piece.shard_url,
                why=str(error),
                todo="run the job again if you need it",
            ) from error

    def _check_same(self, plan: Plan) -> None:
        there = (self.journal.facts()["plan"], self.run)
        if there != (plan.digest, plan.output_run):
            raise RunError(
                what="the folder holds another run",
                where=str(self.path),
                why=f"it is of plan {there[0][:12]} into {there[1]!r}, "
                f"and this is plan {plan.digest[:12]} into {plan.output_run!r}",
                todo="plan into a new run",
            )


def _begin(path: Path, plan: Plan) -> None:
    """Write plan and journal; the journal comes last, and makes the folder a run."""
    if (path / JOURNAL_NAME).exists():
        return
    plan.write(path / PLAN_NAME)
    facts = {
        "run": plan.output_run,
        "plan": plan.digest,
        "token": secrets.token_hex(4),
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    Journal.create(path / JOURNAL_NAME, plan.n_jobs, facts).close()


@contextmanager
def _lease(folder: Path) -> Iterator[None]:
    path = folder / _LEASE_NAME
    lease = Lease.take(path)
    for _ in range(_TRIES):  # whoever asks for `is_attended` holds it for an instant
        if lease is None:
            time.sleep(_TRY_S)
            lease = Lease.take(path)
    if lease is None:
        raise RunError(
            what="another process is at work on this run",
            where=str(folder),
            why=f"it is {holder(path)}",
            todo="wait for it, watch it with `loadmaster status`, or end it and give this command again",
        )
    now = time.strftime("%Y-%m-%d %H:%M:%S")
    lease.say(f"process {os.getpid()} on {socket.gethostname()}, since {now}")
    try:
        yield
    finally:
        lease.give_back()
