"""Which sky regions overlap: whole columns of encoded regions at once, exactly on the sphere.

Regions are `lsst.sphgeom` regions in its binary form. Of the longer column only what may reach the circle around the
shorter one is looked at. Bounding circles in a k-d tree propose pairs; of two convex polygons an edge that separates
them decides. Whatever is not a convex polygon, is very
large, or touches within rounding is decided by `lsst.sphgeom` itself, so that both always agree.
(Rubin's answers are sphgeom's too. It compares a box in longitude and latitude with a polygon by the
polygon's own bounding box, which errs on the side of overlap.)
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import polars as pl
from lsst.sphgeom import Circle, ConvexPolygon, HealpixPixelization, HtmPixelization, Region, UnitVector3d
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from .errors import QueryError, RegistryError

Regions = Sequence[bytes | None] | pl.Series
Integers = NDArray[np.int64]
Floats = NDArray[np.float64]

_SLACK = 1e-9  # radians (0.2 mas) added to bounding circles, far above rounding
_TIE = 1e-14  # triple products of unit vectors nearer to 0 than this are left to exact arithmetic
_LARGE = np.radians(45.0)  # below this radius, polygons that are neighbours hold no antipodal points
_WIDE = np.radians(60.0)  # from this radius on, too little lies beyond a circle to look for it
_ANY = 100  # stands for the power of two of a radius that is not below
_BY_BOX = -1  # stands for the number of vertices of boxes, and of unions and intersections that may hold some
_NO_REGION = -2
_CHUNK = 1 << 16  # candidate pairs tested in one go
_PIECE = 1 << 16  # regions


@dataclass(frozen=True)
class _Batch:
    """Regions of like shape and size."""

    rows: Integers  # where they stood in the caller's column
    encoded: pl.Series
    centre: Floats  # of the bounding circle, (n, 3)
    radius: Floats  # radians
    vertices: Floats | None  # (n, k, 3), counter-clockwise; None where only sphgeom can tell
    by_box: bool = False  # sphgeom compares these with others by bounding boxes

    @cached_property
    def normals(self) -> Floats:
        """Of the edges, inwards, (n, k, 3)."""
        assert self.vertices is not None
        begin, end = self.vertices, np.roll(self.vertices, -1, axis=1)
        normals = np.empty_like(begin)
        for x, y, z in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):  # the cross product; NumPy's makes more copies
            normals[..., x] = begin[..., y] * end[..., z] - begin[..., z] * end[..., y]
        return normals

    @cached_property
    def inner_radius(self) -> Floats:
        """Radians: a circle of it around the centre lies inside; 0 or less where the centre itself does not, (n,)."""
        assert self.vertices is not None
        lengths = np.linalg.norm(self.normals, axis=2)
        with np.errstate(invalid="ignore", divide="ignore"):
            depth = _least(np.matmul(self.normals, self.centre[:, :, None])[:, :, 0] / lengths)
        return np.nan_to_num(np.arcsin(np.clip(depth, -1, 1))) - _SLACK

    @cached_property
    def tree(self) -> cKDTree:
        """Of the centres; without balance, which costs more than it saves where points lie like tiles."""
        return cKDTree(self.centre, balanced_tree=False, compact_nodes=False)

    @cached_property
    def corners(self) -> Floats:
        """The vertices as columns, (n, 3, k)."""
        assert self.vertices is not None
        return np.ascontiguousarray(self.vertices.transpose(0, 2, 1))


def overlapping_pairs(a: Regions, b: Regions) -> tuple[Integers, Integers]:
    """Find all pairs of regions that are not disjoint.

    Two convex polygons on a hemisphere are disjoint if and only if an edge of one of them separates them:
    then a plane separates their convex cones, and one such plane holds a face of either cone.

    Parameters
    ----------
    a, b : sequence or Series of encoded regions
        Null and empty regions overlap nothing.

    Returns
    -------
    row_a, row_b : ndarray of int64
        Positions in `a` and `b`, sorted by `row_a`, then `row_b`.

    Raises
    ------
    RegistryError
        If a value is not an encoded region.
    """
    if len(a) < len(b):
        first = list(_in_pieces(a))
        found = [_pairs(x, y) for y in _batches(b, _bounds(first)) for x in first]
    else:
        second = list(_batches(b))
        found = [_pairs(x, y) for x in _in_pieces(a, _bounds(second)) for y in second]
    rows = max(len(b), 1)
    pair = np.concatenate([np.empty(0, np.int64), *(i * rows + j for i, j in found)])
    pair.sort()
    row_a = pair // rows
    return row_a, pair - row_a * rows


def region_mask(regions: pl.Series, region: Region | bytes) -> pl.Series:
    """Return which of `regions` overlap `region`; null where a region is null."""
    encoded = region if isinstance(region, bytes) else region.encode()
    distinct = regions.unique()  # a joined frame repeats its regions
    hit = np.zeros(len(distinct), dtype=bool)
    hit[overlapping_pairs(distinct, [encoded])[0]] = True
    known = regions.is_in(distinct.filter(pl.Series(hit)).implode())
    return known.set(regions.is_null(), None).alias(regions.name)


def paired_mask(a: pl.Series, b: pl.Series) -> pl.Series:
    """Return, row by row, whether two regions overlap; null where one of them is null."""
    i, first = _codes(a)
    j, second = _codes(b)
    asked, back = np.unique(i * len(second) + j, return_inverse=True)  # joined frames repeat their pairs
    i, j = np.divmod(asked, max(len(second), 1))
    hit = np.zeros(asked.size, dtype=bool)
    others = list(_batches(second))
    for x in _batches(first):
        for y in others:
            among = np.flatnonzero(np.isin(i, x.rows) & np.isin(j, y.rows))
            at_x, at_y = np.searchsorted(x.rows, i[among]), np.searchsorted(y.rows, j[among])
            hit[among] = _overlap(x, y, at_x, at_y, _distances(x, y, at_x, at_y))
    return pl.Series(a.name, hit[back]).set(a.is_null() | b.is_null(), None)


def pixel_regions(pixel: pl.Series, pixels: str) -> pl.Series:
    """Return the regions of sky pixels of a system and level, as ``htm7``; null where the number is null."""
    pixelization = pixelization_of(pixels)
    encoded = [None if number is None else pixelization.pixel(number).encode() for number in pixel]
    return pl.Series(pixel.name, encoded, dtype=pl.Binary)


def envelope_pixels(regions: Regions, pixels: str) -> tuple[Integers, Integers]:
    """Find the sky pixels that each region's envelope touches.

    Parameters
    ----------
    regions : sequence or Series of encoded regions
        Null regions touch none.
    pixels : str
        System and level, as ``htm7`` or ``healpix9``.

    Returns
    -------
    row, pixel : ndarray of int64
        Positions in `regions` and pixel numbers, sorted by both.
    """
    pixelization = pixelization_of(pixels)
    rows: list[Integers] = []
    found: list[Integers] = []
    for row, encoded in enumerate(_listed(regions)):
        if encoded is None:
            continue
        for begin, end in pixelization.envelope(decode(encoded)).ranges():
            found.append(np.arange(begin, end, dtype=np.int64))
            rows.append(np.full(end - begin, row, dtype=np.int64))
    nothing = np.empty(0, np.int64)
    return np.concatenate([nothing, *rows]), np.concatenate([nothing, *found])


def pixelization_of(pixels: str) -> HtmPixelization | HealpixPixelization:
    """Return the sky pixelization named by system and level, as ``htm7``."""
    match = re.fullmatch(r"(htm|healpix)(\d{1,2})", pixels)
    deepest = {"htm": 24, "healpix": 17}
    if not match or int(match[2]) > deepest[match[1]]:
        raise QueryError(
            what=f"there is no sky pixelization {pixels!r}",
            where="sky pixels of regions",
            why="the name is not a system and its level",
            todo="use htm0 … htm24 or healpix0 … healpix17",
        )
    level = int(match[2])
    return HtmPixelization(level) if match[1] == "htm" else HealpixPixelization(level)


def hull(polygons: Sequence[bytes]) -> bytes:
    """Return the convex hull of some convex polygons; they must lie on a hemisphere."""
    if len(polygons) == 1:
        return polygons[0]
    corners = np.concatenate([polygon_vertices(pl.Series([polygon]))[0] for polygon in polygons])
    try:
        return ConvexPolygon.convexHull([UnitVector3d(*corner) for corner in corners.tolist()]).encode()
    except (RuntimeError, ValueError) as error:
        raise RegistryError(
            what="some sky regions have no convex hull",
            where=f"{len(polygons)} polygons",
            why=str(error),
            todo="check their coordinates: they must lie within one hemisphere",
        ) from error


def contains_all(outer: bytes, inner: bytes) -> bool:
    """Whether a convex polygon holds all corners of another one, and so all of it."""
    region = decode(outer)
    return all(
        region.contains(UnitVector3d(*corner)) for corner in polygon_vertices(pl.Series([inner]))[0].tolist()
    )


def decode(encoded: bytes) -> Region:
    """Return the region that `encoded` holds.

    Raises
    ------
    RegistryError
        If it holds none.
    """
    try:
        return Region.decode(encoded)
    except (RuntimeError, ValueError) as error:
        raise _not_a_region(encoded, str(error)) from error


def polygon_vertices(encoded: pl.Series) -> Floats:
    """Return the vertices of convex polygons with equally many vertices.

    Returns
    -------
    vertices : ndarray of float64, shape (n_polygons, n_vertices, 3)
        Unit vectors, counter-clockwise seen from outside.
    """
    if not len(encoded):
        return np.empty((0, 3, 3))
    raw = encoded.cast(pl.List(pl.UInt8)).list.explode().to_numpy().reshape(len(encoded), -1)
    return (
        np.ascontiguousarray(raw[:, 1:])
        .view("<f8")
        .astype(np.float64, copy=False)
        .reshape(len(encoded), -1, 3)
    )


def _bounds(batches: Sequence[_Batch]) -> Floats | None:
    """Return four half-spaces, by normals inwards, that hold a circle around all regions; None if it is wide.

    A convex polygon with all its vertices outside of one of them overlaps none of the regions.
    """
    if not batches or any(batch.by_box for batch in batches):  # boxes reach further than their circles
        return None
    centre, radius = (
        np.concatenate([getattr(batch, name) for batch in batches]) for name in ("centre", "radius")
    )
    middle = centre.sum(axis=0)
    middle /= np.linalg.norm(middle) or 1.0
    away = np.linalg.norm(centre - middle, axis=1)
    reach = float((2 * np.arcsin(np.minimum(away / 2, 1)) + radius).max(initial=0))
    if not reach < _WIDE:
        return None
    east = np.cross(middle, np.eye(3)[np.abs(middle).argmin()])
    east /= np.linalg.norm(east)
    across = np.stack([east, -east, np.cross(middle, east), -np.cross(middle, east)])
    bounds: Floats = np.sin(reach) * middle + np.cos(reach) * across
    return bounds


def _beyond(vertices: Floats, bounds: Floats) -> NDArray[np.bool_]:
    """Return which polygons lie outside of one of the half-spaces with all their vertices."""
    x, y, z = vertices[..., 0], vertices[..., 1], vertices[..., 2]
    beyond = np.zeros(len(vertices), dtype=bool)
    for a, b, c in bounds:  # written out: a product of matrices would wake threads for it
        beyond |= _greatest(a * x + b * y + c * z) < 0
    return beyond


def _in_pieces(regions: Regions, bounds: Floats | None = None) -> Iterator[_Batch]:
    """Give the batches of so many regions at a time that their vertices stay near the processor.

    Each time it is those that lie together: what they may meet is then little, and near the processor too.
    """
    encoded = regions if isinstance(regions, pl.Series) else pl.Series(list(regions), dtype=pl.Binary)
    if len(encoded) <= _PIECE:
        yield from _batches(encoded, bounds)
        return
    order = _by_place(encoded)
    for start in range(0, len(encoded), _PIECE):
        rows = order[start : start + _PIECE]
        for batch in _batches(encoded.gather(rows), bounds):
            yield replace(batch, rows=rows[batch.rows])


def _by_place(encoded: pl.Series) -> Integers:
    """Return the order of regions by cells of some 4° in which they begin; what is no polygon may be anywhere."""
    cell = np.zeros(len(encoded), dtype=np.uint16)
    for axis in range(3):
        place = encoded.bin.slice(1 + 8 * axis, 8).bin.reinterpret(dtype=pl.Float64)  # of the first vertex
        known = np.nan_to_num(place.fill_null(0.0).to_numpy())
        cell = cell * np.uint16(32) + ((known.clip(-1, 1) + 1) * 15.9).astype(np.uint16)
    return np.argsort(cell, kind="stable")  # of 16 bits: linear


def _batches(regions: Regions, bounds: Floats | None = None) -> Iterator[_Batch]:
    """Give the regions in batches, without those polygons that lie beyond `bounds`."""
    encoded = regions if isinstance(regions, pl.Series) else pl.Series(list(regions), dtype=pl.Binary)
    size = _polygon_sizes(encoded)
    for vertices in np.unique(size[size != _NO_REGION]):
        rows = np.flatnonzero(size == vertices)
        chosen = encoded if rows.size == len(encoded) else encoded.gather(rows)
        if vertices > 0:
            yield from _by_size(_polygons(rows, chosen, bounds))
        else:
            circles = [decode(value).getBoundingCircle() for value in chosen]
            yield from _by_size(_round(rows, chosen, circles, by_box=vertices == _BY_BOX))


def _listed(regions: Regions) -> list[bytes | None]:
    return regions.to_list() if isinstance(regions, pl.Series) else list(regions)


def _polygon_sizes(encoded: pl.Series) -> Integers:
    """Return how many vertices each polygon has; for what is no polygon 0, or less where boxes are in it."""
    sizes = encoded.bin.size().fill_null(0).to_numpy().astype(np.int64)
    is_polygon = encoded.bin.starts_with(b"p").fill_null(False).to_numpy()
    vertices, rest = np.divmod(sizes - 1, 24)
    if (odd := is_polygon & ((rest != 0) | (vertices < 3))).any():
        wrong: bytes = encoded[int(odd.argmax())]
        raise _not_a_region(wrong, f"a polygon of {len(wrong)} bytes has no whole number of vertices")
    sizes = np.where(is_polygon, vertices, 0)
    if not is_polygon.all():
        for kind in (b"b", b"u", b"i"):
            sizes[encoded.bin.starts_with(kind).fill_null(False).to_numpy()] = _BY_BOX
        sizes[encoded.is_null().to_numpy()] = _NO_REGION
    return sizes


def _polygons(rows: Integers, encoded: pl.Series, bounds: Floats | None = None) -> _Batch:
    vertices = polygon_vertices(encoded)
    if bounds is not None and (beyond := _beyond(vertices, bounds)).any():
        near = np.flatnonzero(~beyond)
        rows, encoded, vertices = rows[near], encoded.gather(near), vertices[near]
    total = np.einsum("nkx->nx", vertices)
    with np.errstate(invalid="ignore", divide="ignore"):
        centre = total / np.sqrt(np.einsum("nx,nx->n", total, total))[:, None]
        away = vertices - centre[:, None, :]
        chord = np.sqrt(_greatest(np.einsum("nkx,nkx->nk", away, away)))
        radius = 2 * np.arcsin(np.minimum(chord / 2, 1)) + _SLACK
    radius[~np.isfinite(radius)] = np.pi  # not on a hemisphere, or not finite: for sphgeom to judge
    return _Batch(rows, encoded, centre, radius, vertices)


def _round(rows: Integers, encoded: pl.Series, circles: list[Circle], by_box: bool) -> _Batch:
    full = np.array([not circle.isEmpty() for circle in circles], dtype=bool)
    centre = np.array([list(circle.getCenter()) for circle in circles], dtype=np.float64).reshape(-1, 3)
    radius = np.array([circle.getOpeningAngle().asRadians() + _SLACK for circle in circles], dtype=np.float64)
    return _Batch(rows[full], encoded.filter(pl.Series(full)), centre[full], radius[full], None, by_box)


def _by_size(batch: _Batch) -> Iterator[_Batch]:
    """Split by powers of two of the radius, so that one large region does not widen everybody's search."""
    power = np.where(batch.radius < _LARGE, np.ceil(np.log2(batch.radius)), _ANY)
    centre = np.nan_to_num(batch.centre)
    for value in np.unique(power):
        at = np.flatnonzero(power == value)
        exact = batch.vertices[at] if batch.vertices is not None and value < _ANY else None
        encoded = batch.encoded.gather(at)
        yield _Batch(batch.rows[at], encoded, centre[at], batch.radius[at], exact, batch.by_box)


def _codes(regions: pl.Series) -> tuple[Integers, pl.Series]:
    """Return the distinct regions, and for each row which of them it has."""
    distinct = regions.unique(maintain_order=True)
    numbered = pl.DataFrame({"region": distinct, "code": np.arange(len(distinct), dtype=np.int64)})
    rows = pl.DataFrame({"region": regions}).join(
        numbered, on="region", how="left", nulls_equal=True, maintain_order="left"
    )
    return rows["code"].to_numpy(), distinct


def _pairs(a: _Batch, b: _Batch) -> tuple[Integers, Integers]:
    if a.by_box or b.by_box:
        a, b = _around_boxes(a), _around_boxes(b)
    i, j, distance = _candidates(a, b)
    hit = _overlap(a, b, i, j, distance)
    return a.rows[i[hit]], b.rows[j[hit]]


def _distances(a: _Batch, b: _Batch, i: Integers, j: Integers) -> Floats:
    """Return how far apart the centres are, along a straight line."""
    apart = a.centre[i] - b.centre[j]
    distance: Floats = np.sqrt(np.einsum("nx,nx->n", apart, apart))
    return distance


def _overlap(a: _Batch, b: _Batch, i: Integers, j: Integers, distance: Floats) -> NDArray[np.bool_]:
    """Decide pair by pair, given how far apart the centres are."""
    if a.vertices is None or b.vertices is None:
        return _ask(a, b, i, j)
    hit = np.zeros(i.size, dtype=bool)
    for start in range(0, i.size, _CHUNK):
        part = slice(start, start + _CHUNK)
        hit[part] = _polygons_overlap(a, b, i[part], j[part], distance[part])
    return hit


def _around_boxes(batch: _Batch) -> _Batch:
    """Replace the bounding circles by those of the bounding boxes."""
    circles = [decode(value).getBoundingBox().getBoundingCircle() for value in batch.encoded]
    return _round(batch.rows, batch.encoded, circles, batch.by_box)


def _candidates(a: _Batch, b: _Batch) -> tuple[Integers, Integers, Floats]:
    """Return the pairs whose bounding circles meet, and how far apart their centres are."""
    furthest = _chord(np.array([a.radius.max(initial=0) + b.radius.max(initial=0)]))[0]
    near = a.tree.sparse_distance_matrix(b.tree, float(np.nextafter(furthest, 3)), output_type="ndarray")
    i, j, distance = near["i"].astype(np.int64), near["j"].astype(np.int64), near["v"].copy()
    meet = distance <= _chord(a.radius[i] + b.radius[j])
    return i[meet], j[meet], distance[meet]


def _chord(angle: Floats) -> Floats:
    return 2 * np.sin(np.minimum(angle, np.pi) / 2)


def _polygons_overlap(a: _Batch, b: _Batch, i: Integers, j: Integers, distance: Floats) -> NDArray[np.bool_]:
    near = distance <= _chord(a.radius[i] + b.radius[j])
    hit: NDArray[np.bool_] = near & (distance < _chord(a.inner_radius[i] + b.inner_radius[j]))
    asked = np.flatnonzero(near & ~hit)  # the circles inside of them do not meet, those around them do
    i, j = i[asked], j[asked]
    gap = _widest_gap(a.normals[i], b.corners[j])
    left = np.flatnonzero(gap >= -_TIE)  # no edge of `a` separates these: perhaps one of `b` does
    gap[left] = np.minimum(gap[left], _widest_gap(b.normals[j[left]], a.corners[i[left]]))
    hit[asked] = gap > 0
    tied = np.flatnonzero(np.abs(gap) <= _TIE)
    hit[asked[tied]] = _ask(a, b, i[tied], j[tied])
    return hit


def _widest_gap(normals: Floats, corners: Floats) -> Floats:
    """Return, for the edge that separates best, how far the other polygon reaches over it; below 0: not at all.

    Not scaled by the edge's length: only the sign counts, and its rounding error is the same for all.

    Parameters
    ----------
    normals : ndarray, shape (n_pairs, n_edges, 3)
        Of one polygon's edges, inwards.
    corners : ndarray, shape (n_pairs, 3, n_corners)
        Of the other one.
    """
    return _least(_greatest(np.matmul(normals, corners)))


def _greatest(values: Floats) -> Floats:
    """Return the maximum along the last axis, which is short: NumPy's own takes ten times as long there."""
    found: Floats = values[..., 0]
    for k in range(1, values.shape[-1]):
        found = np.maximum(found, values[..., k])
    return found


def _least(values: Floats) -> Floats:
    return -_greatest(-values)


def _ask(a: _Batch, b: _Batch, i: Integers, j: Integers) -> NDArray[np.bool_]:
    """Let sphgeom decide; what it cannot tell apart counts as overlapping."""
    one = {k: decode(a.encoded[k]) for k in np.unique(i).tolist()}
    two = {k: decode(b.encoded[k]) for k in np.unique(j).tolist()}
    pairs = zip(i.tolist(), j.tolist(), strict=True)
    return np.array([one[x].overlaps(two[y]) is not False for x, y in pairs], dtype=bool)


def _not_a_region(encoded: bytes, why: str) -> RegistryError:
    return RegistryError(
        what="a value is not an encoded sky region",
        where=f"bytes {encoded[:12].hex()}… ({len(encoded)} bytes)",
        why=why,
        todo="write regions with lsst.sphgeom's Region.encode()",
    )
