"""What `status` says of the servers and file systems that a run's inputs come from."""

import time
from pathlib import Path

from loadmaster_staging.endpoints import troubled
from loadmaster_staging.links import remembered


def endpoint_notes(run: Path) -> tuple[str, ...]:
    """Return a line for each endpoint that something is wrong with, and one for each way by which inputs come."""
    now = time.time()
    lines = []
    for endpoint, health in troubled(run / "endpoints").items():
        state = f"paused until {_clock(health.until)}" if health.until > now else "tried again"
        lines.append(
            f"{endpoint}: {state}, {health.failures} failures in a row since {_clock(health.since)}: {health.why}"
        )
    for means, source, target in remembered(run / "endpoints"):
        lines.append(f"inputs come by {means} from {source} to {target}")
    return tuple(lines)


def endpoint_facts(run: Path) -> list[dict[str, object]]:
    """Return the endpoints that something is wrong with as plain values."""
    return [
        {
            "endpoint": endpoint,
            "failures": health.failures,
            "since": _iso(health.since),
            "paused_until": _iso(health.until) if health.until > time.time() else None,
            "why": health.why,
        }
        for endpoint, health in troubled(run / "endpoints").items()
    ]


def _clock(unix_s: float) -> str:
    return time.strftime("%H:%M:%S UTC", time.gmtime(unix_s))


def _iso(unix_s: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(unix_s))
