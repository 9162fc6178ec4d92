"""Time spans as half-open ranges of TAI nanoseconds since 1970-01-01 00:00:00 TAI. Light: no Astropy here."""

from dataclasses import dataclass

MIN_NS = -(2**63) + 1  # stands for "since ever" in columns
MAX_NS = 2**63 - 1  # stands for "for ever"


@dataclass(frozen=True, slots=True, order=True)
class Timespan:
    """All instants t with begin_ns <= t < end_ns."""

    begin_ns: int = MIN_NS
    end_ns: int = MAX_NS

    def overlaps(self, other: "Timespan") -> bool:
        """Whether some instant lies in both."""
        return self.begin_ns < other.end_ns and other.begin_ns < self.end_ns

    def __str__(self) -> str:
        return f"[{format_ns(self.begin_ns)}, {format_ns(self.end_ns)})"


def format_ns(ns: int) -> str:
    """Write an instant as ISO text on the TAI scale; an unbounded end as an infinity sign."""
    if ns <= MIN_NS:
        return "-∞"
    if ns >= MAX_NS:
        return "∞"
    days, rest = divmod(ns, 86_400_000_000_000)
    seconds, fraction = divmod(rest, 1_000_000_000)
    year, month, day = _civil(days)
    text = (
        f"{year:04d}-{month:02d}-{day:02d}T{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
    )
    return text + (f".{fraction:09d}".rstrip("0") if fraction else "") + " TAI"


def _civil(days: int) -> tuple[int, int, int]:
    """Return year, month and day of a count of days since 1970-01-01 (H. Hinnant's days_from_civil inverted)."""
    era, day_of_era = divmod(days + 719_468, 146_097)
    year_of_era = (day_of_era - day_of_era // 1460 + day_of_era // 36_524 - day_of_era // 146_096) // 365
    day_of_year = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    shifted = (5 * day_of_year + 2) // 153
    month = shifted + 3 if shifted < 10 else shifted - 9
    return year_of_era + era * 400 + (month <= 2), month, day_of_year - (153 * shifted + 2) // 5 + 1
