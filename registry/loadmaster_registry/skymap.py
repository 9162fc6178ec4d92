"""A discrete sky map: tangent planes at chosen places, each cut into square patches that overlap a little.

The form of its YAML file; keys marked with * may be left out::

    name: demo                     # value of the dimension `skymap`
    pixel_scale: 0.2               # arcseconds a pixel, at the tangent point
    patch_px: 4000                 # side of a patch, without its overlap
    overlap_px: 100                # * by so much a patch grows into each of its neighbours
    tracts:
      - {id: 0, ra: 150.1, dec: 2.2, nx: 3, ny: 2}      # degrees; patches along RA and Dec
      - {id: 1, ra: 151.6, dec: 2.2, size_deg: 0.5}     # or as many patches as cover a square of this size

Patch ``y * nx + x`` is the one in column x and row y; column 0 is in the east, row 0 in the south.
"""

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from astropy.wcs import WCS
from lsst.sphgeom import ConvexPolygon, UnitVector3d
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from .documents import Document, parse_document, read_document
from .errors import NotFound, did_you_mean

Corners = tuple[int, int, int, int]  # x begin, y begin, x end, y end


@dataclass(frozen=True, slots=True)
class PixelBox:
    """Pixels ``x_begin <= x < x_end``, ``y_begin <= y < y_end`` of a tract; the first pixel is (0, 0)."""

    x_begin: int
    y_begin: int
    x_end: int
    y_end: int

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns, as an array has them."""
        return self.y_end - self.y_begin, self.x_end - self.x_begin


@dataclass(frozen=True, slots=True)
class Tract:
    """One tangent plane."""

    id: int
    ra: float  # of the tangent point, degrees
    dec: float
    nx: int
    ny: int


@dataclass(frozen=True)
class SkyMap:
    """Where the tracts and patches of a sky map are, and the pixels that images of them have."""

    name: str
    pixel_scale: float  # arcseconds
    patch_px: int
    overlap_px: int
    tracts: tuple[Tract, ...]

    def tract(self, tract: int) -> Tract:
        """Return the tract with this id.

        Raises
        ------
        NotFound
            If there is none.
        """
        if tract not in self._by_id:
            raise NotFound(
                what=f"there is no tract {tract}",
                where=f"sky map {self.name!r}",
                why=f"it has {len(self.tracts)} tracts",
                todo=did_you_mean(str(tract), map(str, self._by_id)),
            )
        return self._by_id[tract]

    def wcs(self, tract: int) -> WCS:
        """Return the tangent-plane WCS of a whole tract."""
        found = self.tract(tract)
        wcs = WCS(naxis=2)
        wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
        wcs.wcs.crval = [found.ra, found.dec]
        wcs.wcs.crpix = [(found.nx * self.patch_px + 1) / 2, (found.ny * self.patch_px + 1) / 2]
        wcs.wcs.cdelt = [-self.pixel_scale / 3600, self.pixel_scale / 3600]
        wcs.wcs.cunit = ["deg", "deg"]
        wcs.wcs.radesys = "ICRS"
        wcs.pixel_shape = (found.nx * self.patch_px, found.ny * self.patch_px)
        return wcs

    def patch_bbox(self, tract: int, patch: int) -> PixelBox:
        """Return the pixels of a patch, its overlap with its neighbours included.

        Raises
        ------
        NotFound
            If there is no such tract or patch.
        """
        found = self.tract(tract)
        y, x = divmod(patch, found.nx)
        if not (patch >= 0 and y < found.ny):
            raise NotFound(
                what=f"there is no patch {patch}",
                where=f"tract {tract} of sky map {self.name!r}",
                why=f"the tract has {found.nx} × {found.ny} patches",
                todo=f"give 0 … {found.nx * found.ny - 1}",
            )
        side, more = self.patch_px, self.overlap_px
        return PixelBox(
            max(0, x * side - more),
            max(0, y * side - more),
            min(found.nx * side, (x + 1) * side + more),
            min(found.ny * side, (y + 1) * side + more),
        )

    def patch_wcs(self, tract: int, patch: int) -> WCS:
        """Return the WCS of an image of one patch."""
        box, wcs = self.patch_bbox(tract, patch), self.wcs(tract)
        wcs.wcs.crpix = [wcs.wcs.crpix[0] - box.x_begin, wcs.wcs.crpix[1] - box.y_begin]
        wcs.pixel_shape = (box.shape[1], box.shape[0])
        return wcs

    def patch_shape(self, tract: int, patch: int) -> tuple[int, int]:
        """Return rows and columns of an image of one patch."""
        return self.patch_bbox(tract, patch).shape

    def records(self) -> dict[str, pl.DataFrame]:
        """Return the registry's records of sky map, tracts and patches, in the order of import."""
        tracts = [
            (t.id, *self._polygons(t, [(0, 0, t.nx * self.patch_px, t.ny * self.patch_px)]))
            for t in self.tracts
        ]
        return {
            "skymap": pl.DataFrame([self._description()]),
            "tract": pl.DataFrame(
                tracts, schema={"tract": pl.Int64, "region": pl.Binary}, orient="row"
            ).select(pl.lit(self.name).alias("skymap"), "tract", "region"),
            "patch": pl.concat(self._patches(t) for t in self.tracts),
        }

    def to_json(self) -> str:
        """Return the definition as JSON text, the same for equal sky maps."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> "SkyMap":
        """Read what `to_json` wrote.

        Raises
        ------
        ConfigError
            If it is something else.
        """
        return _sky_map(parse_document(text, "sky map"))

    @cached_property
    def hash(self) -> bytes:
        """The digest of the definition, by which two sky maps of one name are told apart."""
        return hashlib.sha256(self.to_json().encode()).digest()

    @cached_property
    def _by_id(self) -> dict[int, Tract]:
        return {t.id: t for t in self.tracts}

    def _description(self) -> dict[str, Any]:
        return {
            "skymap": self.name,
            "hash": self.hash,
            "tract_max": max(t.id for t in self.tracts) + 1,
            "patch_nx_max": max(t.nx for t in self.tracts),
            "patch_ny_max": max(t.ny for t in self.tracts),
        }

    def _patches(self, tract: Tract) -> pl.DataFrame:
        patches = range(tract.nx * tract.ny)
        boxes = [self.patch_bbox(tract.id, patch) for patch in patches]
        corners = [(b.x_begin, b.y_begin, b.x_end, b.y_end) for b in boxes]
        number = pl.Series("patch", patches, dtype=pl.Int64)
        return pl.DataFrame({"patch": number}).select(
            pl.lit(self.name).alias("skymap"),
            pl.lit(tract.id, dtype=pl.Int64).alias("tract"),
            "patch",
            (pl.col("patch") % tract.nx).alias("cell_x"),
            (pl.col("patch") // tract.nx).alias("cell_y"),
            pl.Series("region", list(self._polygons(tract, corners)), dtype=pl.Binary),
        )

    def _polygons(self, tract: Tract, boxes: list[Corners]) -> Iterator[bytes]:
        """Return the regions of pixel boxes, whole pixels; straight lines of a tangent plane are great circles."""
        x0, y0, x1, y1 = np.asarray(boxes, dtype=np.float64).T - 0.5
        x, y = np.stack([x0, x1, x1, x0], axis=1), np.stack([y0, y0, y1, y1], axis=1)
        ra, dec = self.wcs(tract.id).wcs_pix2world(x.ravel(), y.ravel(), 0)
        for box in unit_vectors(ra, dec).reshape(-1, 4, 3):
            yield ConvexPolygon([UnitVector3d(*corner) for corner in box.tolist()]).encode()


def load_sky_map(path: str | Path) -> SkyMap:
    """Read a sky map's YAML file.

    Raises
    ------
    ConfigError
        That says what is wrong, with file and line.
    """
    return _sky_map(read_document(path))


def unit_vectors(ra: NDArray[np.float64], dec: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return directions as unit vectors.

    Parameters
    ----------
    ra, dec : ndarray of float64, shape (n,)
        Degrees.

    Returns
    -------
    vectors : ndarray of float64, shape (n, 3)
    """
    a, d = np.radians(ra), np.radians(dec)
    return np.stack([np.cos(d) * np.cos(a), np.cos(d) * np.sin(a), np.sin(d)], axis=-1)


class _TractFile(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    id: int = Field(ge=0)
    ra: float = Field(ge=0, lt=360)
    dec: float = Field(ge=-90, le=90)
    nx: int | None = Field(None, ge=1)
    ny: int | None = Field(None, ge=1)
    size_deg: float | None = Field(None, gt=0, le=90)

    @model_validator(mode="after")
    def _one_size(self) -> "_TractFile":
        if (self.size_deg is None) != (self.nx is not None and self.ny is not None):
            raise ValueError("give either nx and ny, or size_deg")
        return self


class _SkyMapFile(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str = Field(min_length=1, max_length=64)
    pixel_scale: float = Field(gt=0)
    patch_px: int = Field(ge=1)
    overlap_px: int = Field(0, ge=0)
    tracts: tuple[_TractFile, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _ids_differ(self) -> "_SkyMapFile":
        ids = [tract.id for tract in self.tracts]
        if len(set(ids)) < len(ids):
            raise ValueError(f"two tracts have the id {next(i for i in ids if ids.count(i) > 1)}")
        return self


def _sky_map(document: Document) -> SkyMap:
    file = document.validated(_SkyMapFile, "sky map")
    scale, side = file.pixel_scale, file.patch_px
    return SkyMap(file.name, scale, side, file.overlap_px, tuple(_tract(t, scale, side) for t in file.tracts))


def _tract(file: _TractFile, pixel_scale: float, patch_px: int) -> Tract:
    """Return a tract; a size in degrees is along both axes through the tangent point."""
    if file.size_deg is None:
        assert file.nx is not None
        assert file.ny is not None
        return Tract(file.id, file.ra, file.dec, file.nx, file.ny)
    half_px = math.degrees(math.tan(math.radians(file.size_deg / 2))) * 3600 / pixel_scale
    count = max(1, math.ceil(2 * half_px / patch_px - 1e-9))
    return Tract(file.id, file.ra, file.dec, count, count)
