"""One raw frame: what its file and header say, in the registry's words."""

import bz2
import gzip
import lzma
import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS
from loadmaster_registry.errors import QueryError, StageError, did_you_mean
from loadmaster_registry.sky import Floats
from loadmaster_registry.skymap import unit_vectors
from loadmaster_registry.times import parsed_ns
from loadmaster_registry.universe import Column
from lsst.sphgeom import ConvexPolygon, UnitVector3d

from .instrument import Instrument, Scalar, Source

_DAY_NS = 86_400_000_000_000
_BLOCK_BYTES = 1 << 20
_OPENERS: Mapping[bytes, Callable[..., Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZ": bz2.open,
    b"\xfd7": lzma.open,
}


@dataclass(frozen=True)
class RawFrame:
    """A file with the pixels of one detector in one exposure."""

    path: Path
    detector: int
    exposure: Mapping[str, Scalar]  # columns of the exposure's record
    day_span: tuple[int, int] | None  # of its day_obs, TAI nanoseconds
    region: bytes | None  # on the sky, of the frames of a visit
    is_visit: bool


def read_frame(path: Path, instrument: Instrument) -> RawFrame:
    """Read what a raw frame's header says; all of the file must be there.

    Raises
    ------
    StageError
        That names the file, and what in it is missing or not understood.
    """
    header, shape = _read_header(path, instrument.files.hdu)
    reading = _Reading(path, header, _name_fields(path, instrument))
    exposure = _exposure(reading, instrument)
    detector = _detector(reading, instrument)
    day_span = _day_span(exposure, instrument)
    rule = instrument.visits
    if rule is None or exposure.get("observation_type") not in rule.observation_types:
        return RawFrame(path, detector, exposure, day_span, None, False)
    region = _region(path, header, shape, rule.padding_px)
    if region is None and rule.without_wcs == "refuse":
        raise _misread(path, "it has no celestial WCS", "the instrument's description asks for one")
    is_visit = region is not None or rule.without_wcs == "visit"
    return RawFrame(path, detector, exposure, day_span, region, is_visit)


@dataclass(frozen=True)
class _Reading:
    """Where sources find their values."""

    path: Path
    header: fits.Header
    name_fields: Mapping[str, str]

    def value(self, source: Source) -> Scalar:
        """Return the value of a source, mapped; its default where there is none."""
        found: Scalar = source.value
        if source.keyword is not None:
            found = self._card(source.keyword)
        elif source.file is not None:
            found = self.name_fields.get(source.file)
        if found is None and source.has_default:
            return source.default
        if found is None:
            raise self._absent(source)
        return (source.map or {}).get(str(found), found)

    def time_ns(self, source: Source) -> int | None:
        """Return the instant that a source gives; None where its default says so."""
        value = self.value(source)
        if source.time_of_day is not None and value is not None:
            value = f"{value}T{self.value(replace(source, keyword=source.time_of_day, has_default=False))}"
        if value is None:
            return None
        try:
            return _instant_ns(value, source)
        except (QueryError, ValueError) as error:
            why = str(error.args[2]) if isinstance(error, QueryError) else str(error)
            raise _misread(self.path, f"{_named(source)} is {value!r}, which is no time", why) from error

    def column(self, source: Source, column: Column) -> Scalar:
        """Return the value of a source as a column of this type holds it."""
        value = self.value(source)
        try:
            return None if value is None else _CONVERTED[column.type](value)
        except (TypeError, ValueError) as error:
            what = f"{_named(source)} is {value!r}, which is no {column.type} for exposure.{column.name}"
            raise _misread(self.path, what, str(error)) from error

    def _card(self, keyword: str) -> Scalar:
        """Return a header value; None where there is no such card, or none in it."""
        try:
            value = self.header.get(keyword)
        except (fits.VerifyError, ValueError) as error:
            raise _misread(self.path, f"the card of {keyword!r} cannot be parsed", str(error)) from error
        if isinstance(value, bool | int | str):
            return value
        return float(value) if isinstance(value, float) else None

    def _absent(self, source: Source) -> StageError:
        if source.keyword is not None:
            what = f"the keyword {source.keyword!r} is not in the header"
            return _misread(self.path, what, did_you_mean(source.keyword, set(self.header)))
        return _misread(self.path, f"its name has no {source.file!r}", "files.fields does not match it")


def _read_header(path: Path, hdu: int | str) -> tuple[fits.Header, tuple[int, ...]]:
    """Return the header of the pixels, the primary header's keywords included, and the shape."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of headers that are a little off; a cut file is found below
            with fits.open(path, memmap=False, lazy_load_hdus=False) as hdus:
                _check_whole(path, hdus)
                image = hdus[hdu]
                header = hdus[0].header.copy()
                if image is not hdus[0]:
                    header.extend(image.header, update=True)
                return header, tuple(image.shape)
    except (KeyError, IndexError) as error:
        raise _misread(path, f"it has no HDU {hdu!r}", "files.hdu names the one with the pixels") from error
    except (OSError, EOFError, ValueError, TypeError, fits.VerifyError, lzma.LZMAError) as error:
        raise _unreadable(path, str(error)) from error


def _check_whole(path: Path, hdus: fits.HDUList) -> None:
    info = hdus[-1].fileinfo()
    promised = info["datLoc"] + info["datSpan"]
    if (length := _length(path)) < promised:
        raise _unreadable(path, f"it breaks off after {length} of {promised} bytes")


def _length(path: Path) -> int:
    """Return how many bytes a file has once uncompressed."""
    with open(path, "rb") as stream:
        start = stream.read(2)
    if start not in _OPENERS:
        return path.stat().st_size
    with _OPENERS[start](path) as opened:
        return sum(map(len, iter(partial(opened.read, _BLOCK_BYTES), b"")))


def _name_fields(path: Path, instrument: Instrument) -> dict[str, str]:
    fields = {"stem": path.name.partition(".")[0]}
    match = instrument.files.fields.search(path.name) if instrument.files.fields else None
    if match is not None:
        fields |= {key: value for key, value in match.groupdict().items() if value is not None}
    return fields


def _exposure(reading: _Reading, instrument: Instrument) -> dict[str, Scalar]:
    """Return the columns of the exposure's record."""
    sources = instrument.exposure
    found = {name: reading.column(sources[name], column) for name, column in instrument.columns.items()}
    found = {"instrument": instrument.name, "exposure": found.pop("id"), **found}
    for key in ("exposure", "physical_filter"):
        if found[key] is None:
            raise _misread(reading.path, f"its {key} is null", "it identifies the frame")
    if found["physical_filter"] not in instrument.filters:
        advice = did_you_mean(str(found["physical_filter"]), instrument.filters)
        raise _misread(reading.path, f"its filter {found['physical_filter']!r} is unknown", advice)
    found["obs_id"] = found.get("obs_id") or str(found["exposure"])
    found["group"] = found.get("group") or found["obs_id"]
    begin = reading.time_ns(sources["begin"]) if "begin" in sources else None
    found["timespan_begin"] = begin
    found["timespan_end"] = _end_ns(reading, sources, begin, found.get("exposure_time"))
    found["day_obs"] = _day_obs(reading, instrument, begin)
    return found


def _end_ns(
    reading: _Reading, sources: Mapping[str, Source], begin: int | None, exposure_time: Scalar
) -> int | None:
    if begin is None:
        return None
    if "end" in sources:
        return reading.time_ns(sources["end"])
    if not isinstance(exposure_time, int | float):
        raise _misread(
            reading.path, "its end is unknown", "it has no exposure time, and the description no end"
        )
    return begin + round(exposure_time * 1e9)


def _day_obs(reading: _Reading, instrument: Instrument, begin: int | None) -> int:
    """Return the number of the night, YYYYMMDD."""
    rule = instrument.day_obs
    if rule.source is not None:
        value = str(reading.value(rule.source))
        try:
            return int(datetime.strptime(value[:10].replace("-", ""), "%Y%m%d").strftime("%Y%m%d"))
        except ValueError as error:
            what = f"{_named(rule.source)} is {value!r}, which is no number of a night"
            raise _misread(reading.path, what, "it must be YYYYMMDD or a date") from error
    if begin is None:
        raise _misread(reading.path, "its night is unknown", "it has no begin; give day_obs a source")
    days = (begin - rule.offset_ns) // _DAY_NS
    return int((datetime(1970, 1, 1) + timedelta(days=days)).strftime("%Y%m%d"))


def _day_span(exposure: Mapping[str, Scalar], instrument: Instrument) -> tuple[int, int] | None:
    if instrument.day_obs.source is not None:
        return None  # nothing says when such a night begins
    day = datetime.strptime(str(exposure["day_obs"]), "%Y%m%d") - datetime(1970, 1, 1)
    begin = day.days * _DAY_NS + instrument.day_obs.offset_ns
    return begin, begin + _DAY_NS


def _detector(reading: _Reading, instrument: Instrument) -> int:
    value = reading.value(instrument.detector)
    known = instrument.detector_ids
    key: Any = value.strip() if isinstance(value, str) else value
    if key not in known and str(key).isdecimal():
        key = int(key)
    if key not in known:
        advice = did_you_mean(str(value), map(str, known))
        raise _misread(
            reading.path, f"{_named(instrument.detector)} is {value!r}, which is no detector", advice
        )
    return known[key]


def _region(path: Path, header: fits.Header, shape: tuple[int, ...], padding_px: float) -> bytes | None:
    """Return the footprint on the sky of the pixels' outer edges, widened; None without a celestial WCS."""
    if len(shape) < 2:
        raise _misread(path, "it holds no image", f"files.hdu names an HDU with the shape {shape}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # WCS repairs old spellings and tells
            wcs = WCS(header)
            if not wcs.has_celestial:
                return None
            corners = _corners(shape, padding_px)
            sky = wcs.celestial.pixel_to_world(corners[:, 0], corners[:, 1]).icrs
        directions = unit_vectors(sky.ra.deg, sky.dec.deg)
        if not np.isfinite(directions).all():
            raise _misread(path, "its WCS maps a corner to no place on the sky", "the WCS is broken")
        return ConvexPolygon([UnitVector3d(*corner) for corner in directions.tolist()]).encode()
    except (ValueError, RuntimeError, MemoryError, KeyError) as error:
        raise _misread(path, "its WCS cannot be used", str(error)) from error


def _corners(shape: tuple[int, ...], padding_px: float) -> Floats:
    height, width = shape[-2:]
    low, right, top = -0.5 - padding_px, width - 0.5 + padding_px, height - 0.5 + padding_px
    return np.array([(low, low), (right, low), (right, top), (low, top)])


def _instant_ns(value: Scalar, source: Source) -> int:
    text = str(value).strip()
    if "%" in source.format:
        return parsed_ns(datetime.strptime(text, source.format).isoformat(), "isot", source.scale)
    if source.scale == "utc" and source.format in ("iso", "isot", "fits"):
        text = text.removesuffix("Z")
    return parsed_ns(text, source.format, source.scale)


def _named(source: Source) -> str:
    if source.keyword is not None:
        return f"the keyword {source.keyword!r}"
    return f"{source.file!r} in its name" if source.file is not None else f"the value at {source.place}"


def _whole(value: Scalar) -> int:
    number = float(str(value))
    if isinstance(value, int) or (isinstance(value, str) and value.strip().lstrip("+-").isdecimal()):
        return int(value)
    if number != int(number):
        raise ValueError("it is not whole")
    return int(number)


def _real(value: Scalar) -> float | None:
    number = float(str(value))
    return number if math.isfinite(number) else None


def _truth(value: Scalar) -> bool:
    if isinstance(value, bool) or value in (0, 1):
        return bool(value)
    raise ValueError("it is neither true nor false")


_CONVERTED: Mapping[str, Any] = {
    "int": _whole,
    "float": _real,
    "str": lambda value: str(value).strip(),
    "bool": _truth,
}


def _unreadable(path: Path, why: str) -> StageError:
    return StageError(
        what=f"{path.name} is no complete FITS file",
        where=str(path),
        why=why or "it cannot be read",
        todo="fetch it again; the other files are not concerned",
    )


def _misread(path: Path, what: str, why: str) -> StageError:
    return StageError(
        what=f"{path.name} cannot be taken: {what}",
        where=str(path),
        why=why,
        todo="correct the file's header or the instrument's description",
    )
