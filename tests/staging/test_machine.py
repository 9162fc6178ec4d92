"""How outputs come home: every interleaving of two harvesters, each killed after any act and begun again."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

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

OUTPUTS = ("a", "b", "small")
ALL = frozenset(OUTPUTS)
PACKED = frozenset({"small"})  # into a shard: it gets no name of its own, and who refers to it is its row
NAMED = ALL - PACKED
Names = frozenset[str]


@dataclass(frozen=True)
class World:
    """What is there: files by whose they are, registry rows, journals, the staging area."""

    journals: tuple[str, ...]
    staged: Names = ALL
    aside: Names = frozenset()  # what was staged, under a name from which nobody publishes
    ours: Names = frozenset()
    foreign: Names = frozenset()
    rows: Names = frozenset()
    is_spoilt: bool = False
    registry_has_other: bool = False


@dataclass(frozen=True)
class Harvester:
    """One process at work on the job: what it has been told to do, and how much of that is done."""

    journal: int
    state: Homecoming
    action: Action | None
    n_done: int = 0


Moment = tuple[World, tuple[Harvester, ...]]


def act(world: World, doer: Harvester) -> tuple[World, Event | None]:
    """Do the next thing that cannot be divided of what a harvester was told to do; None while more is to be done."""
    match doer.action:
        case Verify():
            return world, verified(world, doer.n_done)
        case Publish():
            return published(world, doer.n_done)
        case Register():
            if world.registry_has_other:
                return world, Refused("other")
            return replace(world, rows=ALL), Registered()
        case Withdraw():
            return withdrawn(world, doer.n_done)
        case Record():
            journals = list(world.journals)
            journals[doer.journal] = doer.state.refusal or "done"
            return replace(world, journals=tuple(journals)), Recorded()
        case Free():
            left = frozenset(OUTPUTS[doer.n_done + 1 :])
            freed = replace(world, staged=world.staged & left, aside=world.aside & left)
            return freed, None if left else Freed()
    raise AssertionError("nothing is left to do")


def verified(world: World, n_done: int) -> Event | None:
    if OUTPUTS[n_done] not in world.staged | world.ours:
        return missed(world)
    if world.is_spoilt:
        return Spoiled("not what was reported")
    return Verified() if n_done + 1 == len(OUTPUTS) else None


def missed(world: World) -> Event:
    return Registered() if world.rows else Spoiled("gone")


def published(world: World, n_done: int) -> tuple[World, Event | None]:
    output = OUTPUTS[n_done]
    if output in world.foreign:
        return world, Taken("another's")
    if output not in world.staged | world.ours:
        return world, missed(world)
    linked = replace(world, ours=world.ours | ({output} & NAMED))
    return linked, Published() if n_done + 1 == len(OUTPUTS) else None


def withdrawn(world: World, n_done: int) -> tuple[World, Event | None]:
    index, is_second = divmod(n_done, 2)
    output = OUTPUTS[index]
    if is_second:
        left = replace(world, ours=world.ours - {output})
        return left, Withdrawn() if index + 1 == len(OUTPUTS) else None
    moved = world.staged & {output}
    return replace(world, staged=world.staged - moved, aside=world.aside | moved), None


def life(world: World, journal: int) -> Harvester:
    """Return a process that begins now: what its journal has is over, and what is staged still is swept away."""
    if known := world.journals[journal]:
        refusal = "" if known == "done" else known
        return Harvester(journal, Homecoming("settling", refusal), Free())  # type: ignore[arg-type]
    return Harvester(journal, *begin(registered=bool(world.rows)))


def moved(world: World, doer: Harvester) -> tuple[World, Harvester]:
    if isinstance(doer.action, Record) and world.journals[doer.journal]:
        return world, replace(doer, action=None)  # the journal refuses: another was first
    world, event = act(world, doer)
    if event is None:
        return world, replace(doer, n_done=doer.n_done + 1)
    return world, Harvester(doer.journal, *step(doer.state, event))


@dataclass(frozen=True)
class Others:
    """What those do who are no harvesters."""

    puts: bool = False  # files under names that are free
    spoils: bool = False  # what is staged


def followers(moment: Moment, others: Others) -> Iterator[Moment]:
    """Yield all that can come next: someone acts, someone is killed and begins again, others meddle."""
    world, doers = moment
    for i, doer in enumerate(doers):
        if doer.action is not None:
            after, changed = moved(world, doer)
            yield after, (*doers[:i], changed, *doers[i + 1 :])
            yield world, (*doers[:i], life(world, doer.journal), *doers[i + 1 :])
    if others.puts:
        for name in NAMED - world.ours - world.foreign:
            yield replace(world, foreign=world.foreign | {name}), doers
    if others.spoils and not world.is_spoilt:
        yield replace(world, is_spoilt=True), doers


def reachable(world: World, owners: tuple[int, ...], others: Others) -> set[Moment]:
    """Return every moment that can come after harvesters begin, each with its journal (`owners`)."""
    start = (world, tuple(life(world, journal) for journal in owners))
    found, frontier = {start}, [start]
    while frontier:
        for new in followers(frontier.pop(), others):
            if new not in found:
                found.add(new)
                frontier.append(new)
    return found


def check(moment: Moment) -> None:
    world, doers = moment
    assert world.rows in (frozenset(), ALL), "registered all together or not at all"
    assert world.rows & NAMED <= world.ours, "what is registered is there"
    assert not world.ours & world.foreign, "nothing is overwritten"
    if "done" in world.journals:
        assert world.rows == ALL, "what is said to be done is registered"
    if all(doer.action is None for doer in doers):
        assert all(world.journals), "in the end the journals know"
        assert world.ours == world.rows & NAMED, "what is visible is registered"
        assert not world.staged | world.aside, "nothing stays in the staging area"
        assert len({journal == "done" for journal in world.journals}) == 1, "all say the same"


ONE = ((0,), ("",))
TWO = ((0, 0), ("",))  # two processes with one journal, as after a lease that a file system did not keep
APART = ((0, 1), ("", ""))  # two copies of a run's folder


@pytest.mark.parametrize(
    ("harvesters", "spoils"), [(ONE, True), (TWO, False), (APART, False)], ids=["one", "two", "two apart"]
)
@pytest.mark.parametrize("puts", [False, True], ids=["", "others put files there"])
@pytest.mark.parametrize(
    "given",
    [{}, {"is_spoilt": True}, {"registry_has_other": True}, *({"foreign": frozenset(n)} for n in "ab")],
    ids=["all well", "spoilt", "another in the registry", "a taken", "b taken"],
)
def test_whoever_is_killed_whenever_all_is_visible_and_registered_or_nothing(
    harvesters: tuple[tuple[int, ...], tuple[str, ...]], spoils: bool, puts: bool, given: dict[str, Any]
) -> None:
    owners, journals = harvesters
    found = reachable(World(journals, **given), owners, Others(puts, spoils))
    for moment in found:
        check(moment)
    assert any(all(doer.action is None for doer in doers) for _, doers in found)
    assert len(found) > (100 if len(owners) > 1 else 10)


def test_every_moment_of_two_harvesters_leads_to_an_end() -> None:
    """Thousands of them; from each, one harvester alone comes to an end in a few steps."""
    found = reachable(World(("",)), (0, 0), Others(puts=True))
    assert len(found) > 1000
    for world, doers in found:
        for index in range(len(doers)):
            after, doer, n_steps = world, doers[index], 0
            while doer.action is not None:
                after, doer = moved(after, doer)
                n_steps += 1
            assert n_steps < 24
            assert after.journals[0]


def test_a_clean_harvest_verifies_publishes_registers_records_and_frees() -> None:
    state, action = begin()
    seen: list[Action | None] = [action]
    for event in (Verified(), Published(), Registered(), Recorded(), Freed()):
        state, action = step(state, event)
        seen.append(action)
    assert seen == [Verify(), Publish(), Register(), Record(), Free(), None]
    assert state == Homecoming("freed")


def test_nothing_of_a_failed_job_is_looked_at() -> None:
    assert begin(failed=True)[1] == Record()


def test_an_event_out_of_turn_is_refused_and_changes_nothing() -> None:
    state, _ = begin()
    with pytest.raises(StageError, match="Recorded cannot follow"):
        step(state, Recorded())
    assert state == begin()[0]
