r"""An instrument described by a YAML file: what its raw frames' headers mean, as dimension records.

The form, by example; keys marked with * may be left out::

    name: SimCam                      # value of the dimension `instrument`
    detectors:
      - {id: 0, full_name: S00, raft: S, name_in_raft: "00", purpose: SCIENCE}    # the last three: *
    filters: {sim-g: g, sim-r: r}     # physical filter: band
    files:                            # *
      pattern: "*.fits*"              # * which files of a folder are raw frames (glob on the name)
      fields: 'sim_(?P<exp>\d+)'      # * regular expression found in the file's name; see `file` below
      hdu: 0                          # * number or EXTNAME of the HDU with the pixels and the WCS; the
                                      #   primary header's keywords are seen too
    detector: DETECTOR                # a source whose value is a detector's id or full_name
    exposure:                         # sources of the columns of the exposure's record
      id: EXPID
      physical_filter: FILTER
      begin: {keyword: DATE-OBS, format: isot, scale: utc}      # * no time: no time span
      end: DATE-END                   # * default: begin + exposure_time
      exposure_time: EXPTIME          # * seconds
      observation_type: {keyword: IMAGETYP, map: {Light Frame: science}, default: unknown}    # *
      obs_id: OBSID                   # * default: the id as text
      group: GROUPID                  # * default: the obs_id
      target_name: OBJECT             # * and so on: any column that exposures have
    day_obs: {offset_hours: 12}       # * the night's number YYYYMMDD is the TAI date of `begin` less the
                                      #   offset (default 12); or a source of the number, or of a date
    visits:                           # * without it no exposure becomes a visit; with it each of these types
      observation_types: [science]    #   becomes one (visit system 0, "one-to-one")
      without_wcs: visit              # * a frame with no celestial WCS: `visit` (default: has no region),
                                      #   `no_visit`, or `refuse` (the frame is an error)
      padding_px: 10                  # * widen detector regions by so many pixels on each side

A *source* says where a value comes from. ``EXPTIME`` is short for ``{keyword: EXPTIME}``. In full it has
one of

- ``keyword``: a header keyword,
- ``file``: a named group of `files.fields`, or ``stem``, the file's name up to its first dot,
- ``value``: the value itself,

and perhaps ``map`` (found text: value; what is not in the map stays), ``default`` (where keyword or group is
absent), and for times ``format`` (of Astropy, or a pattern with % as for strptime; default ``isot``),
``scale`` (default ``utc``) and ``time_of_day`` (another keyword with the hours, where `keyword` holds only
the date).
"""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from astropy.time import Time
from loadmaster_registry.documents import Document, read_document
from loadmaster_registry.errors import ConfigError, did_you_mean
from loadmaster_registry.universe import Column, Universe, load_universe
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

Scalar = int | float | str | bool | None
WithoutWcs = Literal["visit", "no_visit", "refuse"]
_KEYS = {"id": "int", "obs_id": "str", "group": "str", "physical_filter": "str"}
_TIMES = ("begin", "end")


@dataclass(frozen=True, slots=True)
class Source:
    """Where a value comes from: one of `keyword`, `file` and `value`."""

    place: str  # file and line where it is written
    keyword: str | None = None
    file: str | None = None
    value: Scalar = None
    map: Mapping[str, Scalar] | None = None
    default: Scalar = None
    has_default: bool = False
    format: str = "isot"
    scale: str = "utc"
    time_of_day: str | None = None


@dataclass(frozen=True, slots=True)
class Detector:
    """One sensor of the camera."""

    id: int
    full_name: str
    raft: str | None
    name_in_raft: str | None
    purpose: str | None


@dataclass(frozen=True, slots=True)
class Files:
    """Which files are raw frames, and what their names say."""

    pattern: str
    fields: re.Pattern[str] | None
    hdu: int | str


@dataclass(frozen=True, slots=True)
class DayRule:
    """How the number of the night follows: from a source, or from the begin of the exposure."""

    source: Source | None
    offset_ns: int


@dataclass(frozen=True, slots=True)
class VisitRule:
    """Which exposures become visits, one to one."""

    observation_types: tuple[str, ...]
    without_wcs: WithoutWcs
    padding_px: float


@dataclass(frozen=True)
class Instrument:
    """A camera, and how to read its raw frames."""

    name: str
    detectors: tuple[Detector, ...]
    filters: Mapping[str, str]  # physical filter → band
    files: Files
    detector: Source
    exposure: Mapping[str, Source]  # by column; "id", "begin" and "end" among them
    columns: Mapping[str, Column]  # of exposure records, those of `exposure` that are no times
    day_obs: DayRule
    visits: VisitRule | None

    @cached_property
    def detector_ids(self) -> Mapping[int | str, int]:
        """The detectors' ids by id and by full name."""
        names: dict[int | str, int] = {d.full_name: d.id for d in self.detectors}
        return names | {d.id: d.id for d in self.detectors}


def load_instrument(path: str | Path, universe: Universe | None = None) -> Instrument:
    """Read an instrument's YAML file.

    Parameters
    ----------
    universe : Universe, optional
        Whose exposures have the columns that may be named; Rubin's by default.

    Raises
    ------
    ConfigError
        That says what is wrong, with file, line and key.
    """
    document = read_document(path)
    file = document.validated(_InstrumentFile, "description of an instrument")
    columns = _exposure_columns(document, file, universe or load_universe())
    exposure = {key: _source(document, source, "exposure", key) for key, source in file.exposure.items()}
    instrument = Instrument(
        name=file.name,
        detectors=tuple(Detector(**d.model_dump()) for d in file.detectors),
        filters=file.filters,
        files=_files(document, file.files),
        detector=_source(document, file.detector, "detector"),
        exposure=exposure,
        columns=columns,
        day_obs=_day_rule(document, file.day_obs),
        visits=VisitRule(**file.visits.model_dump()) if file.visits else None,
    )
    _check_sources(instrument)
    return instrument


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _SourceFile(_Strict):
    keyword: str | None = None
    file: str | None = None
    value: Scalar = None
    map: dict[str | int | float | bool, Scalar] | None = None
    default: Scalar = None
    format: str = "isot"
    scale: str = "utc"
    time_of_day: str | None = None

    @property
    def origins(self) -> set[str]:
        return self.model_fields_set & {"keyword", "file", "value"}

    @model_validator(mode="after")
    def _one_origin(self) -> "_SourceFile":
        if len(self.origins) != 1:
            raise ValueError("give one of keyword, file and value")
        return self

    @model_validator(mode="after")
    def _known_time(self) -> "_SourceFile":
        if "%" not in self.format and self.format not in Time.FORMATS:
            raise ValueError(
                f"there is no time format {self.format!r}; {did_you_mean(self.format, Time.FORMATS)}"
            )
        if self.scale not in Time.SCALES or self.scale == "local":
            raise ValueError(
                f"there is no time scale {self.scale!r}; {did_you_mean(self.scale, Time.SCALES)}"
            )
        return self


def _spelled_out(value: Any) -> Any:
    return {"keyword": value} if isinstance(value, str) else value


_AnySource = Annotated[_SourceFile, BeforeValidator(_spelled_out)]


class _DetectorFile(_Strict):
    id: int = Field(ge=0)
    full_name: str = Field(min_length=1)
    raft: str | None = None
    name_in_raft: str | None = None
    purpose: str | None = None


class _FilesFile(_Strict):
    pattern: str = "*.fits*"
    fields: str | None = None
    hdu: int | str = 0


class _DayFile(_SourceFile):
    offset_hours: float | None = None

    @model_validator(mode="after")
    def _one_origin(self) -> "_DayFile":
        if len(self.origins) + (self.offset_hours is not None) != 1:
            raise ValueError("give either offset_hours or a source, which has one of keyword, file and value")
        return self


class _VisitsFile(_Strict):
    observation_types: tuple[str, ...] = ("science",)
    without_wcs: WithoutWcs = "visit"
    padding_px: float = Field(0, ge=0)


class _InstrumentFile(_Strict):
    name: str = Field(min_length=1, max_length=32)
    detectors: tuple[_DetectorFile, ...] = Field(min_length=1)
    filters: dict[str, str] = Field(min_length=1)
    files: _FilesFile = _FilesFile()
    detector: _AnySource
    exposure: dict[str, _AnySource]
    day_obs: Annotated[_DayFile, BeforeValidator(_spelled_out)] = _DayFile(offset_hours=12)
    visits: _VisitsFile | None = None

    @model_validator(mode="after")
    def _consistent(self) -> "_InstrumentFile":
        for what in ("id", "full_name"):
            (value, count), *_ = Counter(getattr(d, what) for d in self.detectors).most_common(1)
            if count > 1:
                raise ValueError(f"{count} detectors have the {what} {value!r}")
        if missing := {"id", "physical_filter"} - set(self.exposure):
            raise ValueError(f"exposure must say where its {' and '.join(sorted(missing))} comes from")
        return self


def _exposure_columns(document: Document, file: _InstrumentFile, universe: Universe) -> dict[str, Column]:
    """Return the columns that the file gives sources for; refuse what exposures do not have."""
    metadata = {c.name: c for c in universe["exposure"].metadata}
    known = {name: Column(name, type) for name, type in _KEYS.items()} | metadata  # type: ignore[arg-type]
    for key in file.exposure:
        if key not in known and key not in _TIMES:
            raise ConfigError(
                what=f"exposures have no column {key!r}",
                where=document.place(("exposure", key)),
                why=f"universe {universe.namespace} version {universe.version} does not define it",
                todo=did_you_mean(key, {*known, *_TIMES}),
            )
    return {key: known[key] for key in file.exposure if key in known}


def _source(document: Document, file: _SourceFile, *path: str) -> Source:
    values = file.model_dump(exclude={"offset_hours"}) | {
        "map": {str(key): value for key, value in file.map.items()} if file.map is not None else None,
        "has_default": "default" in file.model_fields_set,
    }
    return Source(place=document.place(path), **values)


def _files(document: Document, file: _FilesFile) -> Files:
    try:
        return Files(file.pattern, re.compile(file.fields) if file.fields else None, file.hdu)
    except re.error as error:
        raise ConfigError(
            what=f"{file.fields!r} is no regular expression",
            where=document.place(("files", "fields")),
            why=str(error),
            todo="write one with named groups, as '(?P<number>[0-9]+)'",
        ) from error


def _day_rule(document: Document, file: _DayFile) -> DayRule:
    if file.offset_hours is not None:
        return DayRule(None, round(file.offset_hours * 3_600_000_000_000))
    return DayRule(_source(document, file, "day_obs"), 0)


def _check_sources(instrument: Instrument) -> None:
    """Refuse what file names do not have, and filters and detectors that are not listed."""
    sources = {**instrument.exposure, "detector": instrument.detector}
    if "begin" in sources and not {"end", "exposure_time"} & set(sources):
        raise ConfigError(
            what="exposures have a begin and no end",
            where=sources["begin"].place,
            why="a time span has both",
            todo="give a source for end or exposure_time",
        )
    if instrument.day_obs.source:
        sources["day_obs"] = instrument.day_obs.source
    groups = {"stem", *(instrument.files.fields.groupindex if instrument.files.fields else ())}
    for source in sources.values():
        if source.file is not None and source.file not in groups:
            why = "files.fields has no group of that name"
            raise _wrong(
                source, f"nothing in a file's name is called {source.file!r}", why, source.file, groups
            )
    for value in _fixed_values(sources["physical_filter"]):
        if value not in instrument.filters:
            why = "a physical filter must have a band"
            raise _wrong(
                sources["physical_filter"], f"{value!r} is not in filters", why, value, instrument.filters
            )
    for value in _fixed_values(instrument.detector):
        if value not in instrument.detector_ids:
            why = "it is neither the id nor the full_name of one"
            known = map(str, instrument.detector_ids)
            raise _wrong(instrument.detector, f"{value!r} is no detector", why, value, known)


def _fixed_values(source: Source) -> set[Scalar]:
    """Return the values that the file itself gives."""
    given = {*(source.map or {}).values(), *([source.default] if source.has_default else [])}
    return given | (
        {source.value} if source.keyword is None and source.file is None and not source.map else set()
    )


def _wrong(source: Source, what: str, why: str, name: Scalar, known: Any) -> ConfigError:
    return ConfigError(what=what, where=source.place, why=why, todo=did_you_mean(str(name), known))
