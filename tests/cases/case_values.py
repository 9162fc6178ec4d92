"""Values as the files of answers write them: times, spans, and what an expression's names are bound to."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from astropy.time import Time
from loadmaster_registry.timespan import MAX_NS, MIN_NS, Timespan

_ISO_TIME = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d*)?)?)?")
_TIME_KEYS = {"time", "format", "scale"}


def instant_ns(text: str | None, unbounded: int) -> int:
    """Return a TAI time in ns; None stands for the end of all time in that direction."""
    return unbounded if text is None else int(np.datetime64(text, "ns").astype(np.int64))


def span(begin: str | None, end: str | None) -> Timespan:
    """Return a span between TAI times."""
    return Timespan(instant_ns(begin, MIN_NS), instant_ns(end, MAX_NS))


def bound(values: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return what a case binds to names, times as times."""
    return {name: _bound(value) for name, value in (values or {}).items()}


def _bound(value: Any) -> Any:
    if isinstance(value, list):
        return [_bound(v) for v in value]
    if isinstance(value, Mapping):
        if {"begin", "end"} <= set(value):
            return span(value["begin"], value["end"])
        assert {"time"} <= set(value) <= _TIME_KEYS, f"what does a bound {value} mean?"
        return Time(value["time"], format=value.get("format"), scale=value.get("scale", "tai"))
    if isinstance(value, str) and (quoted := re.fullmatch(r"T'(.*)'", value)):
        value = quoted[1]
        scale = "tai" if value.endswith("/tai") else "utc"
        return Time(value.removesuffix("/tai").removesuffix("/utc"), scale=scale)
    if isinstance(value, str) and _ISO_TIME.fullmatch(value):
        return Time(value, scale="utc")
    return value
