"""How outputs come home: every way through the machine, with kills after every action."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest
from loadmaster_registry.errors import StageError
from loadmaster_staging.machine import (
    Action,
    Event,
    Free,
    Freed,
    Homecoming,
    Publish,
    Published,
    Record,
    Recorded,
    Refused,
    Register,
    Registered,
    Spoiled,
    Taken,
    Verified,
    Verify,
    Withdraw,
    Withdrawn,
    begin,
    step,
)

OUTPUTS = ("a", "b", "c")
Names = frozenset[str]


@dataclass(frozen=True)
class World:
    """What is there: files by whose they are, registry rows, the journal, the staging folder."""

    ours: Names = frozenset()
    foreign: Names = frozenset()
    is_spoilt: bool = False
    registry_has_other: bool = False
    rows: Names = frozenset()
    recorded: str = ""
    is_staged: bool = True


def act(world: World, state: Homecoming, action: Action) -> tuple[World, Event]:
    """Do what an action asks for, as the shell does, in a world made of values."""
    match action:
        case Verify():
            if world.is_spoilt:
                return world, Spoiled("spoilt")
            return world, Taken("taken") if world.foreign & set(OUTPUTS) else Verified()
        case Publish(output):
            if output in world.foreign:
                return world, Taken("taken")
            return replace(world, ours=world.ours | {output}), Published()
        case Withdraw(output):
            return replace(world, ours=world.ours - {output}), Withdrawn()
        case Register():
            if world.registry_has_other:
                return world, Refused("other")
            return replace(world, rows=frozenset(OUTPUTS)), Registered()
        case Record():
            return replace(world, recorded=state.refusal or "done"), Recorded()
        case Free():
            return replace(world, is_staged=False), Freed()


def check(world: World) -> None:
    """Invariants that hold at every moment, whatever was killed."""
    assert world.rows in (frozenset(), frozenset(OUTPUTS)), "all together or not at all"
    assert world.rows <= world.ours, "what is registered is there"
    if world.recorded == "done":
        assert world.rows == frozenset(OUTPUTS)
    if world.recorded and world.recorded != "done":
        assert not world.ours, "what is refused leaves nothing behind"
        assert not world.rows


def lives(world: World, mishaps: int) -> Iterator[World]:
    """Yield the worlds in which a harvest ends that begins now; up to `mishaps` things happen meanwhile."""
    yield from go_on(world, *begin(OUTPUTS, registered=bool(world.rows)), mishaps)


def go_on(world: World, state: Homecoming, action: Action | None, mishaps: int) -> Iterator[World]:
    while action is not None:
        after, event = act(world, state, action)
        check(after)
        if mishaps and not after.recorded:
            yield from lives(after, mishaps - 1)  # killed before it could take note of what it did
            for changed in mischief(after):
                yield from lives(changed, mishaps - 1)
                yield from go_on(changed, *step(state, event), mishaps - 1)
        world, (state, action) = after, step(state, event)
    yield world


def mischief(world: World) -> Iterator[World]:
    """Yield what others can do at any moment: put a file under a free name, spoil what is staged."""
    for name in OUTPUTS:
        if name not in world.ours | world.foreign:
            yield replace(world, foreign=world.foreign | {name})
    if not world.is_spoilt:
        yield replace(world, is_spoilt=True)


STARTS = [
    World(),
    World(is_spoilt=True),
    World(registry_has_other=True),
    *(World(foreign=frozenset({name})) for name in OUTPUTS),
    World(foreign=frozenset(OUTPUTS)),
]


@pytest.mark.parametrize("start", STARTS)
def test_whatever_is_killed_whenever_all_outputs_are_visible_and_registered_or_none(start: World) -> None:
    n = 0
    for end in lives(start, mishaps=3):
        assert end.recorded
        assert not end.is_staged
        assert end.foreign >= start.foreign, "another's file is never touched"
        n += 1
    assert n > 1


def test_a_clean_harvest_publishes_in_order_then_registers_records_and_frees() -> None:
    state, action = begin(("a", "b"))
    events = (Verified(), Published(), Published(), Registered(), Recorded(), Freed())
    seen: list[Action | None] = [action]
    for event in events:
        state, action = step(state, event)
        seen.append(action)
    assert seen == [Verify(), Publish("a"), Publish("b"), Register(), Record(), Free(), None]
    assert state.stage == "freed"


def test_nothing_of_a_failed_job_is_looked_at() -> None:
    assert begin(("a",), failed=True)[1] == Record()


def test_an_event_out_of_turn_is_refused_and_changes_nothing() -> None:
    state, _ = begin(OUTPUTS)
    with pytest.raises(StageError, match="Registered cannot follow"):
        step(state, Registered())
    assert state == begin(OUTPUTS)[0]
