"""What quanta and jobs ask of a machine."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace


@dataclass(frozen=True, slots=True)
class Resources:
    """Asked for, not measured; None where the site's own default is right."""

    cpus: int = 1
    memory_mib: int = 2048
    walltime_s: int | None = None
    disk_mib: int | None = None
    priority: int = 0  # of what is ready, the highest goes first
    run_time_s: int | None = None  # how long it usually takes: an expectation, not a limit
    output_mib: int | None = None  # how much it usually makes in all


@dataclass(frozen=True, slots=True)
class ResourceRequest:
    """What one place says of resources; None where it says nothing."""

    cpus: int | None = None
    memory_mib: int | None = None
    walltime_s: int | None = None
    disk_mib: int | None = None
    priority: int | None = None
    run_time_s: int | None = None
    output_mib: int | None = None

    def over(self, other: "ResourceRequest") -> "ResourceRequest":
        """Return this, and where it says nothing, `other`."""
        return replace(other, **self._said())

    def filled(self, resources: Resources) -> Resources:
        """Return `resources`, changed where this says something."""
        return replace(resources, **self._said())

    def _said(self) -> dict[str, int]:
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: value for name, value in values.items() if value is not None}

    @classmethod
    def of(cls, resources: Resources) -> "ResourceRequest":
        """Return what `resources` asks for beyond the defaults."""
        usual = Resources()
        values = {f.name: getattr(resources, f.name) for f in fields(cls)}
        return cls(**{name: value for name, value in values.items() if value != getattr(usual, name)})


NOTHING_ASKED = ResourceRequest()


def together(members: Sequence[tuple[Resources, int]]) -> Resources:
    """Return what one job needs that runs these quanta one after another: pairs of one's resources, and how many.

    Processors, memory and priority are the most that any asks for; times, disk and outputs add up, and are unknown
    where they are for one of them.
    """
    return Resources(
        cpus=max(r.cpus for r, _ in members),
        memory_mib=max(r.memory_mib for r, _ in members),
        walltime_s=_sum([(r.walltime_s, n) for r, n in members]),
        disk_mib=_sum([(r.disk_mib, n) for r, n in members]),
        priority=max(r.priority for r, _ in members),
        run_time_s=_sum([(r.run_time_s, n) for r, n in members]),
        output_mib=_sum([(r.output_mib, n) for r, n in members]),
    )


def _sum(parts: Sequence[tuple[int | None, int]]) -> int | None:
    known = [value * count for value, count in parts if value is not None]
    return sum(known) if len(known) == len(parts) else None
