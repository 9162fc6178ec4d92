"""Values that stand in an expression, or are bound to it: numbers, texts, times, time spans, sky regions."""

import numbers
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, Protocol, runtime_checkable
from uuid import UUID

from astropy.time import Time
from lsst.sphgeom import Angle, Box, Circle, ConvexPolygon, LonLat, Region, UnitVector3d

from .errors import QueryError, did_you_mean
from .times import instant_ns
from .timespan import MAX_NS, MIN_NS, Timespan

ConstantType = Literal["int", "float", "str", "bool", "time", "span", "region", "null"]


@dataclass(frozen=True, slots=True)
class Constant:
    """A value known before any row is."""

    type: ConstantType
    value: int | float | str | bool | Timespan | Region | None


def bound_constant(name: str, value: object) -> Constant | tuple[Constant, ...]:
    """Return what a bound value stands for; lists, tuples, sets and ranges of them stay several.

    Raises
    ------
    QueryError
        If a value of this kind cannot be in an expression.
    """
    if isinstance(value, list | tuple | set | frozenset | range):
        items = [_scalar(name, item) for item in value]
        if len({"number" if item.type in ("int", "float") else item.type for item in items}) > 1:
            found = ", ".join(sorted({item.type for item in items}))
            raise _unusable(name, f"it mixes values of the types {found}", "bind values of one type")
        return tuple(items)
    return _scalar(name, value)


def region_constant(function: str, arguments: Sequence[float | str], rubin_circles: bool) -> Constant:
    """Return the region that a call such as ``CIRCLE(150.1, 2.2, 0.5)`` describes; angles in degrees, ICRS.

    Parameters
    ----------
    rubin_circles : bool
        Give circles twice the radius that they name, as Rubin's code does at present.

    Raises
    ------
    QueryError
        If there is no such function, or its arguments describe no region.
    """
    if function not in REGIONS:
        raise QueryError(
            what=f"there is no function {function}",
            where="an expression",
            why=f"the functions are {', '.join(FUNCTIONS)}",
            todo=did_you_mean(function, FUNCTIONS),
        )
    form, build = REGIONS[function]
    wanted = str if function == "REGION" else (int, float)
    if not form.fits(len(arguments)) or not all(isinstance(a, wanted) for a in arguments):
        raise _no_region(function, f"it takes {form.text}")
    try:
        region = build(arguments)
    except (RuntimeError, ValueError) as error:
        raise _no_region(function, str(error)) from error
    if isinstance(region, Circle) and function == "CIRCLE" and rubin_circles:
        region = Circle(region.getCenter(), region.getOpeningAngle() * 2)
    return Constant("region", region)


@runtime_checkable
class _Position(Protocol):
    """A place on the sky as Astropy's SkyCoord is one; importing that would take a third of a second."""

    isscalar: bool
    icrs: Any


@dataclass(frozen=True, slots=True)
class _Form:
    text: str
    fits: Callable[[int], bool]


def _scalar(name: str, value: object) -> Constant:
    match value:
        case None:
            return Constant("null", None)
        case bool():
            return Constant("bool", value)
        case str():
            return Constant("str", value)
        case numbers.Integral():
            return Constant("int", int(value))
        case numbers.Real():
            return Constant("float", float(value))
        case datetime():
            return Constant("time", instant_ns(value))
        case Timespan() | Region():
            return Constant("span" if isinstance(value, Timespan) else "region", value)
        case LonLat():
            return Constant("region", Circle(UnitVector3d(value)))
        case Time() | _Position() if not value.isscalar:
            raise _unusable(name, "it is an array", "bind a list, or one value")
        case Time():
            return Constant("time", instant_ns(value))
        case _Position():
            return Constant("region", _point([value.icrs.ra.deg, value.icrs.dec.deg]))
        case UUID():
            raise _unusable(
                name, "datasets cannot be selected in an expression", "ask for the dataset by its id"
            )
    raise _unusable(
        name,
        f"values of type {type(value).__name__} have no meaning in an expression",
        "bind a number, text, time, Timespan, sky region or position, or a list of them",
    )


def span_constant(begin: Constant, end: Constant) -> Constant | None:
    """Return the time span between two times, NULL being unbounded; None where one is something else."""
    if not {begin.type, end.type} <= {"time", "null"}:
        return None
    first = MIN_NS if begin.type == "null" else begin.value
    last = MAX_NS if end.type == "null" else end.value
    assert isinstance(first, int)
    assert isinstance(last, int)
    return Constant("span", Timespan(first, last))


def _place(ra: float, dec: float) -> LonLat:
    if not -90 <= dec <= 90:
        raise ValueError(f"the declination {dec} is not between -90 and 90 degrees")
    return LonLat.fromDegrees(ra, dec)


def _point(arguments: Sequence[float]) -> Region:
    return Circle(UnitVector3d(_place(*arguments)))


def _circle(arguments: Sequence[float]) -> Region:
    ra, dec, radius = arguments
    if radius < 0:
        raise ValueError(f"the radius {radius} is negative")
    return Circle(UnitVector3d(_place(ra, dec)), Angle.fromDegrees(radius))


def _box(arguments: Sequence[float]) -> Region:
    ra, dec, width, height = arguments
    if width < 0 or height < 0:
        raise ValueError("a width or height is negative")
    return Box(_place(ra, dec), Angle.fromDegrees(width / 2), Angle.fromDegrees(height / 2))


def _polygon(arguments: Sequence[float]) -> Region:
    corners = zip(arguments[::2], arguments[1::2], strict=True)
    return ConvexPolygon.convexHull([UnitVector3d(_place(ra, dec)) for ra, dec in corners])


def _written(arguments: Sequence[str]) -> Region:
    return Region.from_ivoa_pos(arguments[0])


REGIONS: Mapping[str, tuple[_Form, Callable[..., Region]]] = {
    "POINT": (_Form("(ra, dec)", lambda n: n == 2), _point),
    "CIRCLE": (_Form("(ra, dec, radius)", lambda n: n == 3), _circle),
    "BOX": (_Form("(ra, dec, width, height)", lambda n: n == 4), _box),
    "POLYGON": (_Form("(ra1, dec1, ra2, dec2, ra3, dec3, …)", lambda n: n >= 6 and n % 2 == 0), _polygon),
    "REGION": (_Form("one text, as 'CIRCLE 150.1 2.2 0.5'", lambda n: n == 1), _written),
}
FUNCTIONS: Iterable[str] = ("GLOB", *REGIONS)


def _no_region(function: str, why: str) -> QueryError:
    return QueryError(
        what=f"this {function} is no region on the sky",
        where="an expression",
        why=why,
        todo="give ICRS degrees; arguments must be numbers or bound values, not columns",
    )


def _unusable(name: str, why: str, todo: str) -> QueryError:
    return QueryError(
        what=f"the value bound to {name!r} cannot be used", where=f"bind {name}", why=why, todo=todo
    )
