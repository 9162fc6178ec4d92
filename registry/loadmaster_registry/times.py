"""Instants as people write them, and as Astropy has them, in TAI nanoseconds."""

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from decimal import Decimal

from astropy.time import Time

from .errors import QueryError

_DAY_NS = 86_400_000_000_000
_EPOCH_JD = 2440587.5  # 1970-01-01 00:00:00 TAI
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
_WRITTEN = re.compile(
    r"""(?:(?P<format>\w+)/)?
    (?P<value>
        (?P<number>-?(?:\d+(?:\.\d*)?|\.\d+))
      | (?P<iso>\d+-\d+-\d+(?:[ T]\d+:\d+(?::\d+(?:\.\d*)?)?)?)
      | (?P<fits>[+]\d+-\d+-\d+(?:T\d+:\d+:\d+(?:\.\d*)?)?)
      | (?P<yday>\d+:\d+(?::\d+:\d+(?::\d+(?:\.\d*)?)?)?)
    )
    (?:/(?P<scale>\w+))?""",
    re.VERBOSE | re.IGNORECASE,
)


def instant_ns(time: Time | datetime) -> int:
    """Convert an Astropy time, or a datetime (UTC where it has no zone), to TAI nanoseconds since 1970."""
    with _quiet():
        tai = Time(time, scale="utc").tai if isinstance(time, datetime) else time.tai
    # The Julian date comes in two doubles, day and fraction, which together hold a nanosecond.
    days = float(tai.jd1) - _EPOCH_JD
    return round(days * 86_400) * 1_000_000_000 + round(float(tai.jd2) * _DAY_NS)


def time_of(ns: int) -> Time:
    """Return the Astropy time of TAI nanoseconds since 1970; `instant_ns` gives these back."""
    days, rest = divmod(ns, _DAY_NS)
    return Time(_EPOCH_JD + days, rest / _DAY_NS, format="jd", scale="tai")


def written_ns(text: str) -> int:
    """Read ``[format/]value[/scale]`` as TAI nanoseconds since 1970.

    Without a format, a number with a decimal point is MJD, else ISO, FITS or year:day. The scale is UTC for
    the written forms and for ``unix``, TT for ``cxcsec``, otherwise TAI.

    Raises
    ------
    QueryError
        That says what is wrong with the text; only the caller knows where it stood.
    """
    match = _WRITTEN.fullmatch(text.strip().removesuffix("+00:00"))
    if match is None:
        raise _no_time(
            text, "it is no ISO date, no year:day and no number; other time zones than UTC are not read"
        )
    format_ = (match["format"] or _guessed_format(match)).lower()
    scale = (match["scale"] or _default_scale(format_)).lower()
    return parsed_ns(match["value"], format_, scale)


def parsed_ns(value: str | float, format_: str, scale: str) -> int:
    """Read a value in one of Astropy's formats as TAI nanoseconds since 1970; a number may come as text.

    Raises
    ------
    QueryError
        If there is no such format or scale, or the value is not of this format.
    """
    if format_ not in Time.FORMATS:
        raise _no_time(value, f"there is no time format {format_!r}")
    if scale not in Time.SCALES or scale == "local":
        raise _no_time(value, f"there is no time scale {scale!r}")
    text = str(value).strip()
    # Whole and fraction go to Astropy apart: one double resolves an MJD to a microsecond only.
    parts = divmod(Decimal(text), 1) if _NUMBER.fullmatch(text) else (text,)
    numbers = [part if isinstance(part, str) else float(part) for part in parts]
    try:
        with _quiet():
            return instant_ns(Time(*numbers, format=format_, scale=scale))
    except ValueError as error:
        raise _no_time(value, f"it does not have the format {format_!r}") from error


def _guessed_format(match: re.Match[str]) -> str:
    if match["number"] is not None:
        if "." not in match["number"]:
            raise _no_time(match["number"], "an MJD is told from other numbers by its decimal point")
        return "mjd"
    if match["iso"] is not None:
        return "isot" if "T" in match["value"].upper() else "iso"
    return "fits" if match["fits"] is not None else "yday"


def _default_scale(format_: str) -> str:
    if format_ in ("iso", "isot", "fits", "yday", "unix"):
        return "utc"
    return "tt" if format_ == "cxcsec" else "tai"


def _no_time(value: str | float, why: str) -> QueryError:
    return QueryError(
        what=f"{value!r} is no time",
        where="a time",
        why=why,
        todo="write 2026-03-01T05:00, 61100.25 (MJD), 2026:060, or FORMAT/VALUE/SCALE as mjd/61100.25/tai",
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence warnings about leap seconds that nobody can know yet."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
