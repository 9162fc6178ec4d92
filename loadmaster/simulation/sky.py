"""The simulated sky: true positions and magnitudes of stars, and what a reference catalogue knows of them."""

import numpy as np
from astropy.coordinates import SkyCoord
from astropy.table import Table
from astropy.wcs import WCS
from numpy.typing import NDArray

from .camera import tangent_wcs

BANDS = ("g", "r")
CENTRE_DEG = (150.1, 2.2)

_FIELD_SIZE_DEG = 0.14
_STARS = 760
_MAGNITUDES = (15.0, 22.5)
_COUNT_SLOPE = 0.25  # dex of star counts a magnitude, as at high galactic latitude
_REFERENCE_LIMIT = 20.5
_REFERENCE_COMPLETENESS = 0.9
_REFERENCE_POSITION_ERROR_MAS = 15.0
_REFERENCE_MAGNITUDE_ERROR = 0.01


def simulate_stars(rng: np.random.Generator) -> Table:
    """Scatter stars over a square field.

    Returns
    -------
    stars : Table
        Columns ``id``, ``ra``, ``dec`` (degrees) and ``mag_BAND`` (AB) for each of `BANDS`.
    """
    wcs = tangent_wcs(*CENTRE_DEG, scale_arcsec=1.0)
    half_arcsec = _FIELD_SIZE_DEG * 1800
    x, y = rng.uniform(-half_arcsec, half_arcsec, (2, _STARS))
    ra, dec = wcs.wcs_pix2world(x, y, 0)
    r = _magnitudes(rng.uniform(size=_STARS))
    colour = rng.normal(0.6, 0.3, _STARS)
    return Table({"id": np.arange(_STARS), "ra": ra, "dec": dec, "mag_g": r + colour, "mag_r": r})


def reference_catalogue(stars: Table, rng: np.random.Generator) -> Table:
    """Return the bright stars as an earlier survey measured them: most of them, and not quite exactly.

    Returns
    -------
    reference : Table
        Columns ``id``, ``ra``, ``dec`` (degrees), ``mag_BAND`` and ``mag_err``.
    """
    known = (stars["mag_r"] < _REFERENCE_LIMIT) & (rng.uniform(size=len(stars)) < _REFERENCE_COMPLETENESS)
    reference = stars[known]
    error_deg = rng.normal(0, _REFERENCE_POSITION_ERROR_MAS / 3.6e6, (2, len(reference)))
    reference["ra"] += error_deg[0] / np.cos(np.radians(reference["dec"]))
    reference["dec"] += error_deg[1]
    for band in BANDS:
        reference[f"mag_{band}"] += rng.normal(0, _REFERENCE_MAGNITUDE_ERROR, len(reference))
    reference["mag_err"] = _REFERENCE_MAGNITUDE_ERROR
    return reference


def pixel_positions(stars: Table, wcs: WCS) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return where `wcs` puts the stars, counting pixels from 0."""
    x, y = wcs.world_to_pixel(SkyCoord(stars["ra"], stars["dec"], unit="deg"))
    return np.asarray(x), np.asarray(y)


def _magnitudes(uniform: NDArray[np.float64]) -> NDArray[np.float64]:
    """Invert the cumulative count 10^(slope m) between the limits."""
    low, high = (10 ** (_COUNT_SLOPE * m) for m in _MAGNITUDES)
    return np.log10(low + uniform * (high - low)) / _COUNT_SLOPE
