"""What to do next to get the bytes of one file from its replicas: a pure machine, told of what happened and when.

Replicas are tried in order. One that fails is tried again after a while that grows, and meanwhile the next one
is; a paused endpoint is left alone until its pause is over. Light: the job runner imports this.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from .health import Health

TRIES = 6  # at a replica whose endpoint answers others
TRIES_WRONG = 2  # at bytes that are not those promised
FIRST_WAIT_S = 0.25
LONGEST_WAIT_S = 30.0

Fault = Literal[
    "transport",  # the connection broke, the server is at its end: another try may help
    "wrong",  # the bytes came and are not those promised
    "final",  # there is no such file, or no right to read it: no other try helps
]


@dataclass(frozen=True, slots=True)
class Replica:
    """One place with the bytes."""

    url: str
    endpoint: str
    tries: int = 0
    wrong: int = 0
    not_before: float = 0.0
    why: str = ""  # it failed last
    is_given_up: bool = False


@dataclass(frozen=True, slots=True)
class Transfer:
    """One file on its way."""

    replicas: tuple[Replica, ...]
    deadline: float  # until then it waits for endpoints that are paused
    patience_s: float
    furthest: int = 0  # bytes that were ever in hand

    @classmethod
    def begin(cls, places: Sequence[tuple[str, str]], now: float, patience_s: float) -> "Transfer":
        """Return a transfer from these places, pairs of URL and endpoint, that has not begun."""
        return cls(tuple(Replica(*place) for place in places), now + patience_s, patience_s)

    def endpoint_of(self, url: str) -> str:
        """Return the endpoint of one of the replicas."""
        return next(replica.endpoint for replica in self.replicas if replica.url == url)


@dataclass(frozen=True, slots=True)
class Failed:
    """A try broke off."""

    url: str
    fault: Fault
    why: str
    at: float
    offset: int  # bytes in hand now
    jitter: float  # from 0 to 1, at random


@dataclass(frozen=True, slots=True)
class Fetch:
    """Do: get the rest from here."""

    url: str


@dataclass(frozen=True, slots=True)
class Wait:
    """Do: nothing before this time."""

    until: float
    why: str


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Do: tell that it cannot be had."""

    why: str
    is_patience_over: bool  # an endpoint is paused; else the file itself is to blame


def after(transfer: Transfer, event: Failed, health: Health) -> Transfer:
    """Return the transfer after a try failed; `health` is that of its endpoint, this failure included.

    Bytes that came further than ever are progress: they give new patience and new tries.
    """
    is_progress = event.offset > transfer.furthest
    replicas = tuple(
        _failed(r, event, health, is_progress=is_progress) if r.url == event.url else r
        for r in transfer.replicas
    )
    if not is_progress:
        return replace(transfer, replicas=replicas)
    return replace(
        transfer, replicas=replicas, furthest=event.offset, deadline=event.at + transfer.patience_s
    )


def next_step(transfer: Transfer, health: Mapping[str, Health], now: float) -> Fetch | Wait | GiveUp:
    """Return what to do now, given how the endpoints are."""
    left = [r for r in transfer.replicas if not r.is_given_up]
    if not left:
        return GiveUp("; ".join(_told(r) for r in transfer.replicas), is_patience_over=False)
    free = {r.url: max(r.not_before, health[r.endpoint].until) for r in left}
    for replica in left:
        if free[replica.url] <= now:
            return Fetch(replica.url)
    soonest = min(left, key=lambda r: free[r.url])
    why = health[soonest.endpoint].why or soonest.why
    if free[soonest.url] > transfer.deadline:
        told = "; ".join(_told(r) for r in transfer.replicas if r.why) or why
        return GiveUp(f"{told}; no answer for {transfer.patience_s:.0f} s", is_patience_over=True)
    return Wait(free[soonest.url], why)


def wait_s(tries: int, jitter: float) -> float:
    """Return how long to wait after so many tries: twice as long each time, half to one and a half of it."""
    return float(min(FIRST_WAIT_S * 2 ** (tries - 1), LONGEST_WAIT_S) * (0.5 + jitter))


def _failed(replica: Replica, event: Failed, health: Health, *, is_progress: bool) -> Replica:
    if event.fault == "final":
        return replace(replica, why=event.why, is_given_up=True)
    if event.fault == "wrong":
        wrong = replica.wrong + 1
        return replace(replica, why=event.why, wrong=wrong, is_given_up=wrong >= TRIES_WRONG)
    tries = 1 if is_progress else replica.tries + 1
    return replace(
        replica,
        why=event.why,
        tries=tries,
        not_before=event.at + wait_s(tries, event.jitter),
        # Where the endpoint is down, that is no fault of this file: it waits, as long as patience lasts.
        is_given_up=tries >= TRIES and not health.is_suspect,
    )


def _told(replica: Replica) -> str:
    return f"{replica.url}: {replica.why}" if replica.why else f"{replica.url}: not tried"
