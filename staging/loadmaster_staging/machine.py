"""How the outputs of one job come home: a pure machine, without files, registry or clock.

    reported ─► publishing ─► registering ─► settled ─► settling ─► freed
        │           │ name taken   │ refused    ▲ recorded in the run's journal
        │           ▼              ▼            │
        └─────► withdrawing ────────────────────┘
      not what was reported

Every action may have been done already, in whole or in part, by a process that was killed or that harvests the
same job at this moment: to do it again is right. What is visible is registered, or about to be; what is refused
leaves nothing behind.
"""

from dataclasses import dataclass, replace
from typing import Literal

from loadmaster_registry.errors import StageError

Stage = Literal["reported", "publishing", "registering", "withdrawing", "settled", "settling", "freed"]
Refusal = Literal["", "output_exists", "checksum_mismatch"]


@dataclass(frozen=True, slots=True)
class Homecoming:
    """How far the outputs of one job have come."""

    stage: Stage = "reported"
    refusal: Refusal = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class Verify:
    """See that what is staged is what the report says."""


@dataclass(frozen=True, slots=True)
class Publish:
    """Make each output visible, over nothing, until a name is taken."""


@dataclass(frozen=True, slots=True)
class Register:
    """Enter outputs and provenance into the registry, in one transaction."""


@dataclass(frozen=True, slots=True)
class Withdraw:
    """Take back each output that this job published, and first what anybody could publish it from."""


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
    """All outputs are visible, whoever published them for this job."""


@dataclass(frozen=True, slots=True)
class Taken:
    """Another file has an output's name."""

    message: str


@dataclass(frozen=True, slots=True)
class Registered:
    """The registry has it all, whoever registered it."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The registry has something else in this place, and took nothing."""

    message: str


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """Nothing of this job is visible any more."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """The journal has it."""


@dataclass(frozen=True, slots=True)
class Freed:
    """Nothing is staged any more."""


Action = Verify | Publish | Register | Withdraw | Record | Free
Event = Verified | Spoiled | Published | Taken | Registered | Refused | Withdrawn | Recorded | Freed


def begin(*, failed: bool = False, registered: bool = False) -> tuple[Homecoming, Action]:
    """Return the start for a job that has a report; a repetition starts here too.

    Of a job that failed nothing comes home. What an interrupted harvest has registered stays, whatever has
    happened to the files since.
    """
    if failed or registered:
        return Homecoming("settled"), Record()
    return Homecoming(), Verify()


def step(state: Homecoming, event: Event) -> tuple[Homecoming, Action | None]:
    """Return the state after `event` and the one action that it asks for; None at the end.

    Raises
    ------
    StageError
        If the event cannot happen in this state, which stays.
    """
    match state.stage, event:
        case "reported", Verified():
            return replace(state, stage="publishing"), Publish()
        case "publishing", Published():
            return replace(state, stage="registering"), Register()
        case "reported" | "publishing" | "registering", Registered():
            return replace(state, stage="settled"), Record()
        case "reported" | "publishing", Spoiled(message):
            return Homecoming("withdrawing", "checksum_mismatch", message), Withdraw()
        case "publishing", Taken(message):
            return Homecoming("withdrawing", "output_exists", message), Withdraw()
        case "registering", Refused(message):
            return Homecoming("withdrawing", "output_exists", message), Withdraw()
        case "withdrawing", Withdrawn():
            return replace(state, stage="settled"), Record()
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
