"""What is done next to get a file, and how endpoints are paused: the pure machines, in virtual time."""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from loadmaster_staging.health import FAILURES, LONGEST_PAUSE_S, Health, after_failure
from loadmaster_staging.transfer import (
    LONGEST_WAIT_S,
    TRIES,
    TRIES_WRONG,
    Failed,
    Fault,
    Fetch,
    GiveUp,
    Transfer,
    after,
    next_step,
    wait_s,
)

A, B = ("http://a/x", "http://a"), ("http://b/x", "http://b")
Answer = Callable[[float], Fault | None]  # what a server does at a time; None: it sends the file


@dataclass
class World:
    """Servers, and a clock that jumps to where something happens."""

    servers: dict[str, Answer]
    patience_s: float = 3600.0
    jitter: float = 0.5
    now: float = 0.0
    health: dict[str, Health] = field(default_factory=dict)
    asked: list[tuple[float, str]] = field(default_factory=list)  # when, and whom

    def get(self, *places: tuple[str, str]) -> str:
        """Return from where the file came, or why it did not."""
        transfer = Transfer.begin(places, self.now, self.patience_s)
        while True:
            known = {endpoint: self.health.get(endpoint, Health()) for _, endpoint in places}
            step = next_step(transfer, known, self.now)
            if isinstance(step, GiveUp):
                return step.why
            if not isinstance(step, Fetch):
                assert step.until > self.now, "waiting gets on"
                self.now = step.until
                continue
            endpoint = dict(places)[step.url]
            self.asked.append((self.now, endpoint))
            fault = self.servers[endpoint](self.now)
            self.now += 0.01
            if fault is None:
                self.health.pop(endpoint, None)
                return step.url
            transfer = after(
                transfer, self._failed(step.url, endpoint, fault), self.health.get(endpoint, Health())
            )

    def _failed(self, url: str, endpoint: str, fault: Fault) -> Failed:
        if fault == "transport":
            known = self.health.get(endpoint, Health())
            self.health[endpoint] = after_failure(
                known, "refused", self.now, first_pause_s=30, jitter=self.jitter
            )
        else:
            self.health.pop(endpoint, None)
        return Failed(url, fault, fault, self.now, 0, self.jitter)


def always(fault: Fault | None) -> Answer:
    return lambda _: fault


def down_until(time: float) -> Answer:
    return lambda now: "transport" if now < time else None


def test_the_first_replica_is_asked_first() -> None:
    world = World({"http://a": always(None), "http://b": always(None)})
    assert world.get(A, B) == A[0]
    assert world.asked == [(0.0, "http://a")]


def test_what_is_not_there_is_asked_for_once_and_the_next_replica_at_once() -> None:
    world = World({"http://a": always("final"), "http://b": always(None)})
    assert world.get(A, B) == B[0]
    assert [endpoint for _, endpoint in world.asked] == ["http://a", "http://b"]
    assert world.now < 0.1


def test_wrong_bytes_are_fetched_once_more() -> None:
    world = World({"http://a": always("wrong")})
    assert world.get(A) == "http://a/x: wrong"
    assert len(world.asked) == TRIES_WRONG


def test_between_tries_it_waits_twice_as_long_each_time() -> None:
    world = World({"http://a": down_until(3.0)})
    assert world.get(A) == A[0]
    times = [time for time, _ in world.asked]
    waits = [round(later - earlier - 0.01, 3) for earlier, later in pairwise(times)]
    assert waits == [0.25, 0.5, 1.0, 2.0]


@given(st.integers(1, 60), st.floats(0, 1))
def test_waits_are_spread_at_random_and_never_too_long(tries: int, jitter: float) -> None:
    middle = min(0.25 * 2 ** (tries - 1), LONGEST_WAIT_S)
    assert middle / 2 <= wait_s(tries, jitter) <= middle * 1.5


def test_after_five_failures_an_endpoint_is_left_alone_longer_each_time_and_the_job_waits() -> None:
    world = World({"http://a": down_until(400.0)})
    assert world.get(A) == A[0]
    times = [time for time, _ in world.asked]
    pauses = [round(b - a) for a, b in pairwise(times)][FAILURES - 1 :]
    assert pauses == [30, 60, 120, 240]
    assert not world.health, "an answer makes it well"


def test_a_job_waits_no_longer_than_the_site_is_patient() -> None:
    world = World({"http://a": always("transport")}, patience_s=200)
    assert world.get(A) == "http://a/x: transport; no answer for 200 s"
    assert 90 < world.now < 200
    assert len(world.asked) < 10


def test_another_replica_is_asked_while_one_is_paused() -> None:
    world = World({"http://a": always("transport"), "http://b": always(None)})
    world.health["http://a"] = Health(failures=5, pauses=1, until=1000.0, why="refused")
    assert world.get(A, B) == B[0]
    assert world.asked == [(0.0, "http://b")]


def test_where_the_endpoint_serves_others_a_file_that_always_breaks_off_is_given_up() -> None:
    transfer, now = Transfer.begin([A], 0.0, 3600.0), 0.0
    for _ in range(TRIES):
        transfer = after(transfer, Failed(A[0], "transport", "cut", now, 0, 0.5), Health(failures=1))
        now += 100
    step = next_step(transfer, {A[1]: Health()}, now)
    assert isinstance(step, GiveUp)
    assert not step.is_patience_over


def test_as_long_as_more_bytes_come_it_goes_on() -> None:
    transfer = Transfer.begin([A], 0.0, 100.0)
    for i in range(1, 50):
        now = 60.0 * i
        transfer = after(transfer, Failed(A[0], "transport", "cut", now, 1000 * i, 0.5), Health(failures=1))
        assert isinstance(next_step(transfer, {A[1]: Health()}, now + 50), Fetch)


def test_failures_during_a_pause_do_not_lengthen_it() -> None:
    health = Health()
    for _ in range(FAILURES):
        health = after_failure(health, "refused", 10.0, first_pause_s=30, jitter=0.5)
    assert health.is_suspect
    assert health.until == 40.0
    late = after_failure(health, "reset", 20.0, first_pause_s=30, jitter=0.5)
    assert (late.until, late.pauses, late.since, late.why) == (40.0, 1, 10.0, "reset")


@given(st.lists(st.tuples(st.floats(0, 1000), st.floats(0, 1)), max_size=40))
def test_pauses_begin_with_the_fifth_failure_and_have_an_end(failures: list[tuple[float, float]]) -> None:
    health, now = Health(), 0.0
    for n, (later, jitter) in enumerate(failures, start=1):
        now += later
        health = after_failure(health, "refused", now, first_pause_s=30, jitter=jitter)
        assert health.failures == n
        assert health.is_suspect == (n >= FAILURES)
        assert health.until <= now + LONGEST_PAUSE_S * 1.25


@given(st.lists(st.sampled_from(["transport", "wrong", "final", None]), max_size=30), st.integers(1, 3))
def test_every_transfer_comes_to_an_end(script: list[Fault | None], n_places: int) -> None:
    answers = iter(script)
    places = [(f"http://{i}/x", f"http://{i}") for i in range(n_places)]
    world = World({e: lambda _: next(answers, "transport") for _, e in places}, patience_s=500)
    came = world.get(*places)
    assert (came in dict(places)) == (None in script[: len(world.asked)])
    assert world.now < 500 * (1 + len(world.asked))
