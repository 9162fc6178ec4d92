"""What one quantum of a task asks of a machine."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Resources:
    """Asked for, not measured; None where the site's own default is right."""

    cpus: int = 1
    memory_mib: int = 2048
    walltime_s: int | None = None
    disk_mib: int | None = None
