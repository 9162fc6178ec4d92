"""How the outputs of one job come home: a pure machine, without files, registry or clock.

    reported ─► publishing ─► … ─► registering ─► settled ─► settling ─► freed
        │           │ name taken       │ refused     ▲ recorded in the run's journal
        │           └─► withdrawing ◄──┘ ────────────┤
        └─ not what was reported, or a name taken ───┘

Every action may have been done already, in whole or in part, by a process that was killed: to do it again is
right. What is visible is registered, or about to be; what is refused leaves nothing behind.
"""

from dataclasses import dataclass, replace
from typing import Literal

from loadmaster_registry.errors import StageError

Stage = Literal["reported", "publishing", "registering", "withdrawing", "settled", "settling", "freed"]
Refusal = Literal["", "output_exists", "checksum_mismatch"]


@dataclass(frozen=True, slots=True)
class Homecoming:
    """How far the outputs of one job have come."""

    outputs: tuple[str, ...]  # dataset ids, in the order in which they are published
    n_published: int = 0  # perhaps, when they are withdrawn
    stage: Stage = "reported"
    refusal: Refusal = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class Verify:
    """See that what is staged is what the report says, and that no other file has its names."""


@dataclass(frozen=True, slots=True)
class Publish:
    """Make one output visible, over nothing."""

    output: str


@dataclass(frozen=True, slots=True)
class Register:
    """Enter outputs and provenance into the registry, in one transaction."""


@dataclass(frozen=True, slots=True)
class Withdraw:
    """Take one output back if this job published it."""

    output: str


@dataclass(frozen=True, slots=True)
class Record:
    """Write the job's end into the run's journal."""


@dataclass(frozen=True, slots=True)
class Free:
    """Remove what is staged."""


@dataclass(frozen=True, slots=True)
class Verified:
    """All is as reported."""


@dataclass(frozen=True, slots=True)
class Spoiled:
    """Something staged is not what the report says."""

    message: str


@dataclass(frozen=True, slots=True)
class Published:
    """The output is visible, whoever published it for this job."""


@dataclass(frozen=True, slots=True)
class Taken:
    """Another file has the output's name."""

    message: str


@dataclass(frozen=True, slots=True)
class Registered:
    """The registry has it all."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The registry has something else in this place, and took nothing."""

    message: str


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """The output is not visible any more."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """The journal has it."""


@dataclass(frozen=True, slots=True)
class Freed:
    """Nothing is staged any more."""


Action = Verify | Publish | Register | Withdraw | Record | Free
Event = Verified | Spoiled | Published | Taken | Registered | Refused | Withdrawn | Recorded | Freed


def begin(
    outputs: tuple[str, ...], *, failed: bool = False, registered: bool = False
) -> tuple[Homecoming, Action]:
    """Return the start for a job whose report names these outputs; a repetition starts here too.

    Of a job that failed nothing comes home. What an interrupted harvest has registered stays, whatever has
    happened to the files since.
    """
    if failed or registered:
        return Homecoming(outputs, stage="settled"), Record()
    return Homecoming(outputs), Verify()


def step(state: Homecoming, event: Event) -> tuple[Homecoming, Action | None]:
    """Return the state after `event` and the one action that it asks for; None at the end.

    Raises
    ------
    StageError
        If the event cannot happen in this state, which stays.
    """
    match state.stage, event:
        case "reported", Verified():
            return _forward(state)
        case "reported", Spoiled(message):
            return _refuse(state, "checksum_mismatch", message)
        case "reported" | "publishing", Taken(message):
            return _refuse(state, "output_exists", message)
        case "publishing", Published():
            return _forward(replace(state, n_published=state.n_published + 1))
        case "registering", Registered():
            return replace(state, stage="settled"), Record()
        case "registering", Refused(message):
            return _refuse(state, "output_exists", message)
        case "withdrawing", Withdrawn():
            return _backward(replace(state, n_published=state.n_published - 1))
        case "settled", Recorded():
            return replace(state, stage="settling"), Free()
        case "settling", Freed():
            return replace(state, stage="freed"), None
    raise StageError(
        what=f"{type(event).__name__} cannot follow when outputs are {state.stage}",
        where="harvest of a job",
        why="the harvest acted out of turn",
        todo="report this; nothing was changed, and the same command starts the harvest over",
    )


def _forward(state: Homecoming) -> tuple[Homecoming, Action]:
    if state.n_published < len(state.outputs):
        return replace(state, stage="publishing"), Publish(state.outputs[state.n_published])
    return replace(state, stage="registering"), Register()


def _refuse(state: Homecoming, refusal: Refusal, message: str) -> tuple[Homecoming, Action]:
    """Begin to take everything back: an interrupted harvest may have published more than this one did."""
    return _backward(replace(state, n_published=len(state.outputs), refusal=refusal, message=message))


def _backward(state: Homecoming) -> tuple[Homecoming, Action]:
    if state.n_published:
        return replace(state, stage="withdrawing"), Withdraw(state.outputs[state.n_published - 1])
    return replace(state, stage="settled"), Record()
