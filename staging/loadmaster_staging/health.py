"""How an endpoint is: a pure machine that counts failures in a row and pauses it, longer each time.

Light: the job runner imports this.
"""

from dataclasses import dataclass, replace

FAILURES = 5  # in a row, after which it is paused
LONGEST_PAUSE_S = 900.0


@dataclass(frozen=True, slots=True)
class Health:
    """What is known of an endpoint; the default is that nothing is wrong."""

    failures: int = 0  # in a row
    pauses: int = 0  # since it last answered
    until: float = 0.0  # nobody may try before; seconds since 1970
    since: float = 0.0  # the first of the failures
    why: str = ""  # the last of them

    @property
    def is_suspect(self) -> bool:
        """Whether it was paused and has not answered since: then one try at a time, to see."""
        return self.pauses > 0


def after_failure(health: Health, why: str, at: float, *, first_pause_s: float, jitter: float) -> Health:
    """Return the health after a failure; `jitter` is at random from 0 to 1.

    A failure of what was under way when the pause began does not lengthen it.
    """
    failed = replace(health, failures=health.failures + 1, since=health.since or at, why=why)
    if failed.failures < FAILURES or at < health.until:
        return failed
    pause_s = min(first_pause_s * 2**health.pauses, LONGEST_PAUSE_S) * (0.75 + jitter / 2)
    return replace(failed, pauses=health.pauses + 1, until=at + pause_s)
