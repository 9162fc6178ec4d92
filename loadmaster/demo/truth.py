"""The truth check: measured objects beside the stars that the simulation put there."""

from dataclasses import dataclass

import numpy as np
from astropy.table import Table
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_BRIGHT_MAG = (16.5, 20.0)  # still brighter ones saturate in good seeing
_MATCH_ARCSEC = 0.5
_NEAR_ARCSEC, _NEAR_PART = (
    4.0,
    0.01,
)  # so much of its own light may a star's neighbours have within that distance
_FAR_ARCSEC, _FAR_PART = 8.0, 1.0
_MAX_ASTROMETRY_PX = 0.1
_MAX_PHOTOMETRY = 0.02


@dataclass(frozen=True, slots=True)
class TruthCheck:
    """How far bright lonely objects of one band are from the truth."""

    band: str
    stars: int
    astrometry_px: float  # distance on the sky in pixels of the coadd, root mean square
    photometry: float  # relative difference in flux, root mean square

    @property
    def is_good(self) -> bool:
        """Whether it is as good as promised: 0.1 pixel and 2 %."""
        precise = self.astrometry_px <= _MAX_ASTROMETRY_PX and self.photometry <= _MAX_PHOTOMETRY
        return self.stars > 0 and precise


def compare(objects: Table, stars: Table, band: str, *, pixel_arcsec: float) -> TruthCheck:
    """Compare objects with the true stars of one band.

    Bright are stars between magnitudes 16.5 and 20. Objects that touch masked pixels, and stars with neighbours
    (of 1 % of their light within 4 arcseconds, or as much light as their own within 8) tell little about the
    processing, and are left out.

    Parameters
    ----------
    objects : Table
        ``ra``, ``dec``, ``mag``, ``flagged``.
    stars : Table
        ``ra``, ``dec``, ``mag_BAND``.
    """
    magnitude = np.asarray(stars[f"mag_{band}"])
    fit = (magnitude >= _BRIGHT_MAG[0]) & (magnitude <= _BRIGHT_MAG[1]) & _is_lonely(stars, magnitude)
    apart = _separations(objects[~objects["flagged"]], stars[fit])
    if not apart.size:
        return TruthCheck(band, 0, float("nan"), float("nan"))
    nearest = apart.argmin(axis=1)
    distance = apart[np.arange(len(apart)), nearest]
    found = distance < _MATCH_ARCSEC
    difference = np.asarray(objects["mag"][~objects["flagged"]])[found] - magnitude[fit][nearest[found]]
    flux_ratio = 10 ** (-0.4 * difference)
    return TruthCheck(
        band=band,
        stars=len(np.unique(nearest[found])),
        astrometry_px=float(np.sqrt(np.mean(distance[found] ** 2)) / pixel_arcsec),
        photometry=float(np.sqrt(np.mean((flux_ratio - 1) ** 2))),
    )


def _is_lonely(stars: Table, magnitude: Floats) -> NDArray[np.bool_]:
    apart = _separations(stars, stars)
    np.fill_diagonal(apart, np.inf)
    flux = 10 ** (-0.4 * magnitude)
    near, far = ((apart < radius) @ flux / flux for radius in (_NEAR_ARCSEC, _FAR_ARCSEC))
    return np.asarray((near < _NEAR_PART) & (far < _FAR_PART), dtype=bool)


def _separations(a: Table, b: Table) -> Floats:
    """Return distances in arcseconds between all pairs, in the plane: the field is small."""
    cos = np.cos(np.radians(np.mean(b["dec"]))) if len(b) else 1.0
    dx = (np.asarray(a["ra"])[:, None] - np.asarray(b["ra"])[None, :]) * cos
    dy = np.asarray(a["dec"])[:, None] - np.asarray(b["dec"])[None, :]
    return np.asarray(np.hypot(dx, dy) * 3600, dtype=float)
