"""The run's journal: the state of each job in one SQLite file, written in batches by the one controller.

A job moves only as `_FROM` allows; a batch with any other move changes nothing.
"""

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from enum import IntEnum
from pathlib import Path
from typing import Any, Self
from uuid import UUID

import numpy as np
from loadmaster_registry.errors import RunError
from loadmaster_staging.destinations import Delivery, files_from_json
from numpy.typing import NDArray

FORMAT = 3
_BUSY_S = 30


class JobState(IntEnum):
    """Where a job is, and whose it is."""

    WAITING = 0  # for other jobs
    READY = 1  # the controller may start it
    RUNNING = 2  # the executor's
    FINISHED = 3  # its report is there; the harvest's
    DONE = 4  # harvested whole, or nothing was to be done
    PARTIAL = 5  # harvested as far as it went
    FAILED = 6
    BLOCKED = 7  # needs what a failed or partial job, or one that had nothing to do, did not make
    CANCELLED = 8


STATE_NAMES = tuple(state.name.lower() for state in JobState)
# From where a job may come into a state.
_FROM: Mapping[JobState, tuple[JobState, ...]] = {
    JobState.WAITING: (JobState.READY, JobState.FAILED, JobState.BLOCKED, JobState.CANCELLED),
    JobState.READY: (JobState.WAITING, JobState.RUNNING, JobState.FINISHED),
    JobState.RUNNING: (JobState.READY,),
    JobState.FINISHED: (JobState.RUNNING,),
    JobState.DONE: (JobState.FINISHED,),
    JobState.PARTIAL: (JobState.FINISHED,),
    JobState.FAILED: (JobState.FINISHED,),
    JobState.BLOCKED: (JobState.WAITING, JobState.READY),
    JobState.CANCELLED: (JobState.WAITING, JobState.READY, JobState.RUNNING),
}
_TABLES = f"""
CREATE TABLE fact (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE job (
    job INTEGER PRIMARY KEY,
    state INTEGER NOT NULL DEFAULT {int(JobState.WAITING)},
    attempt INTEGER NOT NULL DEFAULT 0,
    token TEXT NOT NULL DEFAULT '',
    class TEXT NOT NULL DEFAULT '',
    message TEXT NOT NULL DEFAULT '',
    blocked_by INTEGER,
    left_out INTEGER NOT NULL DEFAULT 0,
    host TEXT, started TEXT, ended TEXT, wall_s REAL, cpu_s REAL, peak_memory_mib REAL
);
CREATE TABLE failure (
    job INTEGER NOT NULL REFERENCES job, attempt INTEGER NOT NULL, quantum TEXT NOT NULL, task TEXT NOT NULL,
    data_id TEXT NOT NULL, class TEXT NOT NULL, error TEXT NOT NULL, message TEXT NOT NULL,
    first_frame TEXT NOT NULL, traceback TEXT NOT NULL, log TEXT NOT NULL,
    PRIMARY KEY (job, attempt, quantum)
);
CREATE TABLE made (
    dataset BLOB PRIMARY KEY, size_bytes INTEGER NOT NULL, checksum TEXT NOT NULL, url TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE log (
    quantum TEXT NOT NULL, attempt INTEGER NOT NULL, url TEXT NOT NULL, PRIMARY KEY (quantum, attempt)
) WITHOUT ROWID;
CREATE TABLE share (
    job INTEGER NOT NULL REFERENCES job, position INTEGER NOT NULL, task TEXT NOT NULL, wall_s REAL NOT NULL,
    PRIMARY KEY (job, position)
) WITHOUT ROWID;
CREATE TABLE delivery (
    dataset TEXT NOT NULL, destination TEXT NOT NULL, files TEXT NOT NULL,
    n_tries INTEGER NOT NULL, due_s REAL NOT NULL, error TEXT NOT NULL,
    PRIMARY KEY (dataset, destination)
) WITHOUT ROWID;
PRAGMA user_version = {FORMAT};
"""


@dataclass(frozen=True, slots=True)
class JobEnd:
    """How an attempt at a job ended."""

    state: JobState
    class_: str  # of the failure; "no_work" for a job with nothing to do; "" for one that is done
    message: str
    left_out: bool  # some planned output does not exist
    host: str
    started: str
    ended: str
    wall_s: float
    cpu_s: float
    peak_memory_mib: float
    job: int


@dataclass(frozen=True, slots=True)
class Failure:
    """Why one quantum failed in one attempt."""

    job: int
    attempt: int
    quantum: str
    task: str
    data_id: str  # JSON
    class_: str
    error: str
    message: str
    first_frame: str
    traceback: str
    log: str  # below the folder of the run's logs


@dataclass(frozen=True, slots=True)
class Made:
    """A dataset that came home."""

    dataset: UUID
    size_bytes: int
    checksum: str
    url: str = ""  # below the backbone's root; "" where it is where it was planned to be


@dataclass(frozen=True, slots=True)
class Log:
    """Where the log of an attempt at a quantum is."""

    quantum: str
    attempt: int
    url: str  # below the folder of the run's logs


@dataclass(frozen=True, slots=True)
class Share:
    """How long one quantum of a job with several took."""

    job: int
    position: int  # of the quantum in the job
    task: str
    wall_s: float


@dataclass(frozen=True, slots=True)
class Attempt:
    """Which attempt at a job is on."""

    job: int
    attempt: int
    token: str


class Journal:
    """One run's state. One process writes, in `batch`; any number read."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self._connection = connection

    @classmethod
    def create(cls, path: Path, n_jobs: int, facts: Mapping[str, str]) -> Self:
        """Write a new journal with all jobs waiting; it appears complete or not at all."""
        part = path.with_name(f"{path.name}.part")
        part.unlink(missing_ok=True)
        connection = sqlite3.connect(part)
        connection.executescript(_TABLES)
        connection.executemany("INSERT INTO fact VALUES (?, ?)", facts.items())
        connection.execute(
            "WITH RECURSIVE n(job) AS (SELECT 0 UNION ALL SELECT job + 1 FROM n WHERE job + 1 < ?)"
            " INSERT INTO job (job) SELECT job FROM n WHERE job < ?",
            (n_jobs, n_jobs),
        )
        connection.commit()
        connection.close()
        part.rename(path)
        return cls.open(path)

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open a journal.

        Raises
        ------
        RunError
            If there is none, or another version wrote it.
        """
        if not path.is_file():
            raise RunError(
                what="there is no run",
                where=str(path),
                why="its folder has no journal",
                todo="submit a plan first, or name another run",
            )
        connection = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version != FORMAT:
            raise RunError(
                what=f"the journal has format {version}, and this is loadmaster with format {FORMAT}",
                where=str(path),
                why="another version of loadmaster wrote it",
                todo="go on with the version that began the run, or plan into a new run",
            )
        return cls(path, connection)

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Write several things at once: all of them, or none.

        Raises
        ------
        RunError
            If the file cannot be written, as on a full disk.
        """
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            yield
            self._connection.execute("COMMIT")
        except BaseException as error:
            if self._connection.in_transaction:  # a full disk has ended it already
                self._connection.execute("ROLLBACK")
            if isinstance(error, sqlite3.Error):
                raise _unwritable(self.path, error) from error
            raise

    def facts(self) -> dict[str, str]:
        """Return what was said of the run when it was created."""
        return dict(self._connection.execute("SELECT name, value FROM fact"))

    def states(self) -> NDArray[np.uint8]:
        """Return the state of each job, shape (n_jobs,)."""
        return self._column("state").astype(np.uint8)

    def left_out(self) -> NDArray[np.bool_]:
        """Return which jobs left some planned output out, shape (n_jobs,)."""
        return self._column("left_out").astype(bool)

    def attempts(self) -> NDArray[np.int64]:
        """Return how often each job was started, shape (n_jobs,)."""
        return self._column("attempt")

    def counts(self) -> dict[str, int]:
        """Return how many jobs are in each state; together they are all."""
        rows = dict(self._connection.execute("SELECT state, count(*) FROM job GROUP BY state"))
        return {state.name.lower(): rows.get(int(state), 0) for state in JobState}

    def in_state(self, *states: JobState) -> list[Attempt]:
        """Return the attempts at jobs in one of these states."""
        marks = ", ".join("?" * len(states))
        rows = self._connection.execute(
            f"SELECT job, attempt, token FROM job WHERE state IN ({marks}) ORDER BY job",
            list(map(int, states)),
        )
        return [Attempt(*row) for row in rows]

    def made(self, datasets: Sequence[UUID]) -> dict[UUID, Made]:
        """Return which of these datasets the run has made."""
        found = {}
        query = "SELECT size_bytes, checksum, url FROM made WHERE dataset = ?"
        for id in datasets:
            row = self._connection.execute(query, (id.bytes,)).fetchone()
            if row is not None:
                found[id] = Made(id, *row)
        return found

    def log(self, quantum: str, attempt: int | None = None) -> Log | None:
        """Return where the log of an attempt at a quantum is, the last one's by default; None if it said nothing."""
        row = self._connection.execute(
            "SELECT * FROM log WHERE quantum = ? AND attempt = coalesce(?, attempt)"
            " ORDER BY attempt DESC LIMIT 1",
            (quantum, attempt),
        ).fetchone()
        return None if row is None else Log(*row)

    def failures(self) -> list[Failure]:
        """Return what failed in the last attempt at each job that is failed or partial."""
        rows = self._connection.execute(
            "SELECT failure.* FROM failure JOIN job USING (job, attempt)"
            " WHERE job.state IN (?, ?) ORDER BY job, failure.rowid",
            (int(JobState.FAILED), int(JobState.PARTIAL)),
        )
        return [Failure(*row) for row in rows]

    def blocked(self) -> dict[int | None, int]:
        """Return how many jobs each failed or partial job blocks; None: too little came from upstream."""
        rows = self._connection.execute(
            "SELECT blocked_by, count(*) FROM job WHERE state = ? GROUP BY blocked_by",
            (int(JobState.BLOCKED),),
        )
        return dict(rows.fetchall())

    def without_work(self) -> list[tuple[int, str]]:
        """Return the jobs that are done, or blocked, because there was nothing to do, and the reason of each."""
        query = "SELECT job, message FROM job WHERE class = 'no_work' ORDER BY job"
        return self._connection.execute(query).fetchall()

    def move(self, jobs: Iterable[int], state: JobState) -> None:
        """Move jobs to a state that needs no more words."""
        self._change("state = ?", state, [(int(state), job) for job in jobs])

    def start(self, attempts: Iterable[Attempt]) -> None:
        """Say which attempts the executor is about to get."""
        rows = [(int(JobState.RUNNING), a.attempt, a.token, a.job) for a in attempts]
        self._change("state = ?, attempt = ?, token = ?", JobState.RUNNING, rows)

    def block(self, jobs: Iterable[int], by: int) -> None:
        """Say that a failed or partial job keeps these from running."""
        rows = [(int(JobState.BLOCKED), by, job) for job in jobs]
        self._change("state = ?, class = 'blocked', blocked_by = ?", JobState.BLOCKED, rows)

    def starve(self, reasons: Mapping[int, str]) -> None:
        """Say that jobs cannot run because too little came from jobs that had nothing to do."""
        rows = [(int(JobState.BLOCKED), reason, job) for job, reason in reasons.items()]
        self._change("state = ?, class = 'no_work', message = ?, left_out = 1", JobState.BLOCKED, rows)

    def end(self, ends: Iterable[JobEnd]) -> None:
        """Say how attempts ended."""
        rows: dict[JobState, list[tuple[Any, ...]]] = {}
        for end in ends:
            rows.setdefault(end.state, []).append(_row(end))
        for state, changed in rows.items():
            self._change(
                "state = ?, class = ?, message = ?, left_out = ?, host = ?, started = ?, ended = ?,"
                " wall_s = ?, cpu_s = ?, peak_memory_mib = ?",
                state,
                changed,
            )

    def add_failures(self, failures: Iterable[Failure]) -> None:
        """Keep why quanta failed."""
        rows = [_row(failure) for failure in failures]
        self._connection.executemany(f"INSERT OR REPLACE INTO failure VALUES ({', '.join('?' * 11)})", rows)

    def add_made(self, datasets: Iterable[Made]) -> None:
        """Keep which datasets came home."""
        rows = [(made.dataset.bytes, made.size_bytes, made.checksum, made.url) for made in datasets]
        self._connection.executemany("INSERT OR REPLACE INTO made VALUES (?, ?, ?, ?)", rows)

    def add_logs(self, logs: Iterable[Log]) -> None:
        """Keep where logs are."""
        rows = [_row(log) for log in logs]
        self._connection.executemany("INSERT OR REPLACE INTO log VALUES (?, ?, ?)", rows)

    def add_shares(self, shares: Iterable[Share]) -> None:
        """Keep what each quantum of a job had of its time."""
        rows = [_row(share) for share in shares]
        self._connection.executemany("INSERT OR REPLACE INTO share VALUES (?, ?, ?, ?)", rows)

    def add_deliveries(self, deliveries: Iterable[Delivery]) -> None:
        """Keep what is still to go where, or when it is tried again."""
        rows = [(d.dataset, d.destination, d.files_json(), d.n_tries, d.due_s, d.error) for d in deliveries]
        self._connection.executemany("INSERT OR REPLACE INTO delivery VALUES (?, ?, ?, ?, ?, ?)", rows)

    def drop_deliveries(self, deliveries: Iterable[Delivery]) -> None:
        """Forget what has arrived."""
        rows = [(d.dataset, d.destination) for d in deliveries]
        self._connection.executemany("DELETE FROM delivery WHERE dataset = ? AND destination = ?", rows)

    def deliveries(self) -> list[Delivery]:
        """Return all that has not arrived yet, what is due first first."""
        rows = self._connection.execute("SELECT * FROM delivery ORDER BY due_s, dataset, destination")
        return [Delivery(row[0], row[1], files_from_json(row[2]), *row[3:]) for row in rows]

    def usage(self, jobs: Sequence[int]) -> list[tuple[int, float, float]]:
        """Return those of some jobs that are done, with their wall time (s) and peak memory (MiB)."""
        query = (
            "SELECT job, wall_s, peak_memory_mib FROM job WHERE state = ? AND wall_s IS NOT NULL"
            " AND job IN (SELECT value FROM json_each(?))"
        )
        return self._connection.execute(query, (int(JobState.DONE), json.dumps(list(jobs)))).fetchall()

    def shares(self, jobs: Sequence[int]) -> list[tuple[int, str, float]]:
        """Return the quanta of those of some jobs that have several: job, task, wall time (s)."""
        query = "SELECT job, task, wall_s FROM share WHERE job IN (SELECT value FROM json_each(?))"
        return self._connection.execute(query, (json.dumps(list(jobs)),)).fetchall()

    def wait_again(self) -> None:
        """Let every job that is neither under way nor harvested begin again, as a run begins."""
        again = _FROM[JobState.WAITING]
        marks = ", ".join("?" * len(again))
        self._connection.execute(
            "UPDATE job SET state = ?, class = '', message = '', blocked_by = NULL, left_out = 0"
            f" WHERE state IN ({marks})",
            (int(JobState.WAITING), *map(int, again)),
        )

    def _column(self, name: str) -> NDArray[np.int64]:
        rows = self._connection.execute(f"SELECT {name} FROM job ORDER BY job").fetchall()
        return np.array(rows, dtype=np.int64).reshape(len(rows))

    def _change(self, assignments: str, state: JobState, rows: list[tuple[Any, ...]]) -> None:
        """Change jobs, each of which must be where it may come from; the last value of a row is the job."""
        allowed = ", ".join(str(int(origin)) for origin in _FROM[state])
        cursor = self._connection.executemany(
            f"UPDATE job SET {assignments} WHERE job = ? AND state IN ({allowed})", rows
        )
        if rows and cursor.rowcount != len(rows):
            raise RunError(
                what=f"{len(rows) - cursor.rowcount} of {len(rows)} jobs cannot become {state.name.lower()}",
                where=str(self.path),
                why="they are in another state: somebody else moved them, or the controller acts out of turn",
                todo="nothing was changed; give the same command again, and report this if it stays",
            )


def _row(value: Any) -> tuple[Any, ...]:
    """Return the fields of a dataclass, in order; `astuple` copies each of them, and takes ten times as long."""
    return tuple(getattr(value, field.name) for field in fields(value))


def _unwritable(path: Path, error: sqlite3.Error) -> RunError:
    return RunError(
        what="the run's journal cannot be written",
        where=str(path),
        why=str(error),
        todo="see that no other program holds the file, and that the disk has room; then give the same command again",
    )
