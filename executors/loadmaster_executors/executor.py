"""What an engine must do to run jobs: the small contract behind `local`, and behind those to come."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from loadmaster_staging.manifest import Manifest


@dataclass(frozen=True, slots=True)
class RunPlace:
    """What an executor is told of the run whose jobs it gets."""

    folder: Path  # the run's own, for whatever the executor wants to keep
    name: str  # unique among all run folders; a folder's name
    modules: tuple[str, ...]  # Python modules that its tasks live in


@dataclass(frozen=True, slots=True)
class Ended:
    """What an executor saw of a job that is over. The report, where there is one, says what became of it."""

    token: str
    returncode: int | None  # of its process, negative for a signal; None if it was lost with its worker
    why: str = ""  # what the executor knows beside that
    folder: Path | None = None  # of the job, with its logs if it left no report; to be removed
    cpu_s: float = 0.0
    peak_memory_mib: float = 0.0


class Executor(Protocol):
    """Runs jobs from their manifests; knows nothing of plans, journals and registries.

    The run's journal is the truth, an executor's view a hint: it may forget everything when its process dies.
    """

    def prepare(self, place: RunPlace) -> None:
        """Get ready for the jobs of a run; nothing of an earlier life of this executor goes on unseen.

        Raises
        ------
        RunError
            If processes of an earlier life cannot be ended or found.
        """

    def restart(self, tokens: Sequence[str]) -> set[str]:
        """Return the attempts of an earlier life that are still in hand, and are told of when they end."""

    def room(self) -> int:
        """Return how many more jobs it wants now."""

    def submit(self, manifests: Sequence[Manifest]) -> None:
        """Take jobs, each once; the token says which attempt it is."""

    def status(self, wait_s: float) -> list[Ended]:
        """Return the jobs that have ended since the last call; wait up to `wait_s` for one."""

    def cancel(self, tokens: Sequence[str]) -> None:
        """End jobs, and forget those that have not begun; what was running is told of when it has ended."""

    def ping(self) -> str:
        """Return a line that says what answers here.

        Raises
        ------
        RunError
            If nothing does.
        """

    def close(self) -> set[str]:
        """Let go of everything; end at once what cannot go on alone, and return the attempts that do."""
