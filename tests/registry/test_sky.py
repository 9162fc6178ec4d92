"""Sky regions: the vectorised overlap against sphgeom one by one."""

import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loadmaster_registry import sky
from loadmaster_registry.errors import QueryError, RegistryError
from loadmaster_registry.sky import envelope_pixels, overlapping_pairs, paired_mask, region_mask
from lsst.sphgeom import Angle, Box, Circle, ConvexPolygon, HtmPixelization, LonLat, Region, UnitVector3d

# --- random skies


def unit(ra: float, dec: float) -> UnitVector3d:
    return UnitVector3d(LonLat.fromDegrees(ra, dec))


def tangent(ra: float, dec: float, x: float, y: float) -> UnitVector3d:
    """Return the direction at (x, y) degrees in the tangent plane at (ra, dec)."""
    a, d = math.radians(ra), math.radians(dec)
    centre = np.array([math.cos(d) * math.cos(a), math.cos(d) * math.sin(a), math.sin(d)])
    east = np.array([-math.sin(a), math.cos(a), 0.0])
    north = np.cross(centre, east)
    return UnitVector3d(*(centre + math.radians(x) * east + math.radians(y) * north))


places = st.tuples(st.floats(149, 151), st.floats(-1, 1)) | st.tuples(st.floats(0, 359.9), st.floats(-89, 89))
sizes = st.sampled_from([1e-4, 0.01, 0.3, 1.0, 20.0])


@st.composite
def polygons(draw: st.DrawFn) -> Region:
    (ra, dec), size, corners = draw(places), draw(sizes), draw(st.integers(3, 7))
    first = draw(st.floats(0, 2 * math.pi))
    angles = [first + (k + draw(st.floats(0, 0.5))) * 2 * math.pi / corners for k in range(corners)]
    points = [tangent(ra, dec, size * math.cos(angle), size * math.sin(angle)) for angle in angles]
    return ConvexPolygon(points)


@st.composite
def tiles(draw: st.DrawFn) -> Region:
    """Cells of one grid: neighbours share an edge or a corner exactly."""
    x, y = draw(st.integers(0, 3)), draw(st.integers(0, 3))
    corners = [(x, y), (x + 1, y), (x + 1, y + 1), (x, y + 1)]
    return ConvexPolygon([tangent(150, 0, a * 0.25, b * 0.25) for a, b in corners])


@st.composite
def circles(draw: st.DrawFn) -> Region:
    (ra, dec), size = draw(places), draw(sizes | st.sampled_from([0.0, 80.0, 170.0]))
    return Circle(unit(ra, dec), Angle.fromDegrees(size))


@st.composite
def boxes(draw: st.DrawFn) -> Region:
    (ra, dec), size = draw(places), draw(sizes)
    return Box.fromDegrees(ra - size, dec - size, ra + size, min(dec + size, 90.0))


@st.composite
def touching(draw: st.DrawFn) -> Region:
    """A triangle with a corner within rounding of the grid's edge x = 0.25 degrees."""
    gap = draw(st.sampled_from([0.0, 1e-15, -1e-15, 1e-13, 1e-11, -1e-11]))
    y = draw(st.floats(0, 1))
    points = [tangent(150, 0, 0.25 + gap, y), tangent(150, 0, 1, y - 0.2), tangent(150, 0, 1, y + 0.2)]
    return ConvexPolygon(points)


large = st.builds(
    lambda ra, dec, size: ConvexPolygon(
        [tangent(ra, dec, *c) for c in ((-size, -size), (size, -size), (0, size))]
    ),
    st.floats(0, 359),
    st.floats(-60, 60),
    st.floats(60, 400),
)
small_circles = st.builds(
    lambda x, y, size: Circle(tangent(150, 0, x, y), Angle.fromDegrees(size)),
    st.floats(0, 1),
    st.floats(0, 1),
    st.sampled_from([0.0, 0.1, 1.0, 20.0]),
)
regions = polygons() | tiles() | circles() | boxes() | touching() | large


def opposite(region: Region) -> Region:
    """Return the polygon on the other side of the sphere."""
    assert isinstance(region, ConvexPolygon)
    return ConvexPolygon([UnitVector3d(*(-c for c in vertex)) for vertex in region.getVertices()])


here = tiles() | touching() | small_circles
anywhere = polygons() | polygons().map(opposite) | large | circles() | boxes()


def one_by_one(a: list[bytes | None], b: list[bytes | None]) -> list[tuple[int, int]]:
    def meet(x: bytes | None, y: bytes | None) -> bool:
        if x is None or y is None:
            return False
        return Region.decode(x).overlaps(Region.decode(y)) is not False

    return [(i, j) for i, x in enumerate(a) for j, y in enumerate(b) if meet(x, y)]


def columns(of: st.SearchStrategy[Region]) -> st.SearchStrategy[list[bytes | None]]:
    return st.lists(st.none() | of.map(lambda r: r.encode()), max_size=8)


@settings(max_examples=200, deadline=None)
@given(columns(regions), columns(regions))
def test_pairs_are_those_that_sphgeom_finds_one_by_one(a: list[bytes | None], b: list[bytes | None]) -> None:
    i, j = overlapping_pairs(a, b)
    assert list(zip(i.tolist(), j.tolist(), strict=True)) == one_by_one(a, b)


@settings(max_examples=100, deadline=None)
@given(columns(tiles() | touching()), columns(tiles() | touching()))
def test_regions_that_touch_are_judged_as_by_sphgeom(a: list[bytes | None], b: list[bytes | None]) -> None:
    i, j = overlapping_pairs(a, b)
    assert list(zip(i.tolist(), j.tolist(), strict=True)) == one_by_one(a, b)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.none() | here.map(lambda r: r.encode()), min_size=1, max_size=2),
    st.lists((anywhere | here).map(lambda r: r.encode()), min_size=3, max_size=16),
)
def test_of_a_long_column_what_lies_elsewhere_is_left_out_and_nothing_else(
    few: list[bytes | None], many: list[bytes | None]
) -> None:
    for a, b in ((few, many), (many, few)):
        i, j = overlapping_pairs(a, b)
        assert list(zip(i.tolist(), j.tolist(), strict=True)) == one_by_one(a, b)


@settings(max_examples=100, deadline=None)
@given(columns(regions), columns(regions), st.integers(1, 4))
def test_a_column_that_is_judged_piece_by_piece_has_the_same_pairs(
    a: list[bytes | None], b: list[bytes | None], rows: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sky, "_PIECE", rows)
        i, j = overlapping_pairs(a, b)
    assert list(zip(i.tolist(), j.tolist(), strict=True)) == one_by_one(a, b)


@settings(max_examples=50, deadline=None)
@given(columns(regions), regions)
def test_a_mask_is_null_where_the_region_is_null(column: list[bytes | None], region: Region) -> None:
    mask = region_mask(pl.Series("region", column, dtype=pl.Binary), region)
    hits = {i for i, _ in one_by_one(column, [region.encode()])}
    assert mask.to_list() == [None if value is None else i in hits for i, value in enumerate(column)]


@settings(max_examples=100, deadline=None)
@given(columns(regions | polygons().map(opposite)), columns(regions))
def test_regions_paired_row_by_row_are_judged_as_by_sphgeom(
    a: list[bytes | None], b: list[bytes | None]
) -> None:
    rows = [(x, y) for x in a for y in b]
    left, right = (pl.Series([row[k] for row in rows], dtype=pl.Binary) for k in (0, 1))
    expected = [None if x is None or y is None else bool(one_by_one([x], [y])) for x, y in rows]
    assert paired_mask(left, right).to_list() == expected


@settings(max_examples=20, deadline=None)
@given(columns(polygons()))
def test_envelopes_are_those_of_sphgeom(column: list[bytes | None]) -> None:
    row, pixel = envelope_pixels(pl.Series(column, dtype=pl.Binary), "htm5")
    expected = [
        (i, p)
        for i, value in enumerate(column)
        if value is not None
        for begin, end in HtmPixelization(5).envelope(Region.decode(value)).ranges()
        for p in range(begin, end)
    ]
    assert list(zip(row.tolist(), pixel.tolist(), strict=True)) == expected


def test_nothing_overlaps_an_empty_region_or_column() -> None:
    circle = Circle(unit(10, 10), Angle.fromDegrees(1)).encode()
    assert overlapping_pairs([], [circle])[0].size == 0
    assert overlapping_pairs([Circle.empty().encode(), circle], [circle])[0].tolist() == [1]


@pytest.mark.parametrize("broken", [b"p123", b"", b"zzz", b"c12"])
def test_bytes_that_hold_no_region_are_refused(broken: bytes) -> None:
    with pytest.raises(RegistryError, match="not an encoded sky region"):
        overlapping_pairs([broken], [broken])


def test_an_unknown_pixelization_is_refused_with_the_known_ones() -> None:
    with pytest.raises(QueryError, match="htm0 … htm24"):
        envelope_pixels([], "htm25")
