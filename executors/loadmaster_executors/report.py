"""The report of a run: how many jobs are in each state, and why some failed, alike ones together."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from .journal import Failure
from .run import RunFolder

# Most particular first: what tells two failures of the same kind apart, and nothing of their kind.
_PARTICULARS = (
    (re.compile(r"(?<![\w/.>])(?:[a-z][a-z0-9+]*:/)?/[^\s'\",;:)\]}<>]+"), "<path>"),
    (re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b", re.IGNORECASE), "<id>"),
    (re.compile(r"\b0x[0-9a-f]+\b", re.IGNORECASE), "<n>"),
    (re.compile(r"(?<![\w])[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?(?!\w)", re.IGNORECASE), "<n>"),
)


@dataclass(frozen=True, slots=True)
class FailureGroup:
    """Quanta that failed in the same way."""

    task: str
    class_: str  # code_error, missing_output, signal, …
    error: str  # the exception's class, the signal's name
    message: str  # with numbers, paths and ids left out
    first_frame: str
    count: int
    n_blocked: int  # jobs that cannot run because of these
    example: Failure

    @property
    def example_data_id(self) -> dict[str, int | str]:
        """The data ID of the example."""
        data_id: dict[str, int | str] = json.loads(self.example.data_id)
        return data_id


@dataclass(frozen=True, slots=True)
class IdleGroup:
    """Jobs that had nothing to do, for the same reason."""

    task: str
    message: str  # with numbers, paths and ids left out
    count: int
    example: str  # the message of one of them


@dataclass(frozen=True, slots=True)
class UndeliveredGroup:
    """Copies that have not arrived at a destination, for the same reason."""

    destination: str
    error: str  # with numbers, paths and ids left out; "" for those that were not tried yet
    count: int
    example: str  # the error of one of them


@dataclass(frozen=True, slots=True)
class RunReport:
    """Where a run stands."""

    run: str
    counts: Mapping[str, int]  # jobs by state; together they are all jobs of the plan
    idle: tuple[
        IdleGroup, ...
    ]  # of those done or blocked: because there was nothing to do; most frequent first
    failures: tuple[FailureGroup, ...]  # most frequent first
    undelivered: tuple[UndeliveredGroup, ...] = ()

    @property
    def n_no_work(self) -> int:
        """How many jobs had nothing to do."""
        return sum(group.count for group in self.idle)

    @property
    def n_jobs(self) -> int:
        """All jobs of the plan."""
        return sum(self.counts.values())

    @property
    def is_over(self) -> bool:
        """Whether every job has come to an end."""
        return not any(self.counts[name] for name in ("waiting", "ready", "running", "finished"))

    @property
    def is_good(self) -> bool:
        """Whether every job is done, or had nothing to do."""
        return self.is_over and not any(self.counts[n] for n in ("partial", "failed", "cancelled"))


def report(run: RunFolder) -> RunReport:
    """Read a run's report from its journal; also while it goes on."""
    blocked = dict(run.journal.blocked())
    groups: dict[tuple[str, ...], list[tuple[Failure, int]]] = {}
    for failure in run.journal.failures():
        # What a job blocks counts once, for the first of its failures.
        groups.setdefault(_kind(failure), []).append((failure, blocked.pop(failure.job, 0)))
    failures = [_group(kind, members) for kind, members in groups.items()]
    return RunReport(
        run=run.run,
        counts=run.journal.counts(),
        idle=_idle(run),
        failures=tuple(sorted(failures, key=lambda group: -group.count)),
        undelivered=_undelivered(run),
    )


def _idle(run: RunFolder) -> tuple[IdleGroup, ...]:
    kinds: dict[tuple[str, str], list[str]] = {}
    for job, message in run.journal.without_work():
        kinds.setdefault((run.plan.task_of(job), normalised(message)), []).append(message)
    groups = (IdleGroup(*kind, len(messages), messages[0]) for kind, messages in kinds.items())
    return tuple(sorted(groups, key=lambda group: -group.count))


def _undelivered(run: RunFolder) -> tuple[UndeliveredGroup, ...]:
    kinds: dict[tuple[str, str], list[str]] = {}
    for delivery in run.journal.deliveries():
        kinds.setdefault((delivery.destination, normalised(delivery.error)), []).append(delivery.error)
    return tuple(UndeliveredGroup(*kind, len(errors), errors[0]) for kind, errors in kinds.items())


def normalised(message: str) -> str:
    """Return a message without what differs between quanta: numbers, paths, ids."""
    for pattern, placeholder in _PARTICULARS:
        message = pattern.sub(placeholder, message)
    return message


def _kind(failure: Failure) -> tuple[str, ...]:
    message = normalised(failure.message)
    return failure.task, failure.class_, failure.error, message, failure.first_frame


def _group(kind: tuple[str, ...], members: list[tuple[Failure, int]]) -> FailureGroup:
    task, class_, error, message, first_frame = kind
    n_blocked = sum(blocked for _, blocked in members)
    return FailureGroup(task, class_, error, message, first_frame, len(members), n_blocked, members[0][0])
