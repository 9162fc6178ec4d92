"""Aperture photometry: fluxes, the light outside the aperture, and the zero point."""

from dataclasses import dataclass

import numpy as np
from astropy.stats import mad_std, sigma_clip
from astropy.table import Table
from numpy.typing import NDArray
from photutils.aperture import CircularAperture
from scipy.spatial import cKDTree

from .detection import Pixels
from .detrending import Mask

Floats = NDArray[np.float64]

AB_ZERO_POINT_NJY = (
    31.4  # magnitude of 1 nJy: 8.9 for 1 Jy (Oke & Gunn 1983, ApJ 266, 713) and 22.5 for the nano
)
MAGNITUDES_PER_E_FOLD = 2.5 / np.log(10)

_ISOLATION_RADII = 1.5  # no neighbour within so many outer radii
_LEAST_STARS = 3


@dataclass(frozen=True, slots=True)
class ZeroPoint:
    """What turns instrumental magnitudes into calibrated ones."""

    value: float  # magnitude of one unit of flux
    scatter: float  # robust standard deviation of one star
    stars: int


def aperture_flux(
    data: Pixels, error: Pixels, mask: Mask, x: Floats, y: Floats, *, radius_px: float
) -> Table:
    """Sum the light in a circle around each position.

    Parameters
    ----------
    data, error : ndarray
        Background subtracted image and the standard deviation of each pixel.

    Returns
    -------
    fluxes : Table
        ``flux``, ``flux_err``, and ``flagged``: a masked pixel, or the image's edge, cuts into the circle.
    """
    aperture = CircularAperture(np.column_stack([x, y]), radius_px)
    good = np.where(mask, 0, data)
    flux, flux_err = aperture.do_photometry(good, error=np.where(mask, 0, error))
    lit, _ = aperture.do_photometry((~mask).astype(np.float32))
    return Table({"flux": flux, "flux_err": flux_err, "flagged": lit < aperture.area * (1 - 1e-4)})


def total_flux(
    data: Pixels, error: Pixels, mask: Mask, sources: Table, *, radius_px: float, total_radius_px: float
) -> Table:
    """Measure all the light of each source: what a small aperture holds, and what is outside of it.

    Parameters
    ----------
    sources : Table
        ``x``, ``y``.

    Returns
    -------
    fluxes : Table
        As of `aperture_flux`.
    """
    x, y = np.asarray(sources["x"], dtype=float), np.asarray(sources["y"], dtype=float)
    fluxes = aperture_flux(data, error, mask, x, y, radius_px=radius_px)
    factor = aperture_correction(data, mask, sources, radius_px=radius_px, total_radius_px=total_radius_px)
    fluxes["flux"] *= factor
    fluxes["flux_err"] *= factor
    return fluxes


def aperture_correction(
    data: Pixels, mask: Mask, sources: Table, *, radius_px: float, total_radius_px: float
) -> float:
    """Return how much more light the total radius holds than the aperture, from stars without neighbours.

    Parameters
    ----------
    sources : Table
        ``x``, ``y``.

    Returns
    -------
    correction : float
        Median over the stars, weighted by their light: noise decides the ratio of a faint one. 1 where hardly any
        star is fit for it.
    """
    if not len(sources):
        return 1.0
    xy = np.column_stack([sources["x"], sources["y"]])
    alone = _nearest_neighbour(xy) > _ISOLATION_RADII * total_radius_px
    inner, outer = (
        aperture_flux(data, np.zeros_like(data), mask, xy[:, 0], xy[:, 1], radius_px=radius)
        for radius in (radius_px, total_radius_px)
    )
    fit = alone & ~outer["flagged"] & (inner["flux"] > 0)
    if fit.sum() < _LEAST_STARS:
        return 1.0
    return _weighted_median(np.asarray(outer["flux"] / inner["flux"])[fit], np.asarray(inner["flux"])[fit])


def magnitude(flux: Floats, zero_point: float) -> Floats:
    """Return magnitudes; NaN where the flux is not positive."""
    positive = np.where(flux > 0, flux, np.nan)
    return np.asarray(zero_point - 2.5 * np.log10(positive), dtype=float)


def magnitude_error(flux: Floats, flux_err: Floats) -> Floats:
    """Return the standard error of a magnitude to first order; NaN where the flux is not positive."""
    return np.asarray(MAGNITUDES_PER_E_FOLD * flux_err / np.where(flux > 0, flux, np.nan), dtype=float)


def fit_zero_point(flux: Floats, flux_err: Floats, reference_mag: Floats, reference_err: Floats) -> ZeroPoint:
    """Compare fluxes with the magnitudes of the same stars in a reference catalogue.

    Outliers (variables, blends, wrong matches) are clipped; the mean is weighted, with a floor under errors
    so that a handful of very bright stars doesn't decide alone.
    """
    difference = reference_mag - magnitude(flux, 0.0)
    error = np.sqrt(magnitude_error(flux, flux_err) ** 2 + reference_err**2 + 0.005**2)
    usable = np.isfinite(difference) & np.isfinite(error)
    if not usable.any():
        return ZeroPoint(float("nan"), float("nan"), 0)
    clipped = sigma_clip(difference[usable], sigma=3, maxiters=5, cenfunc="median", stdfunc=mad_std)
    kept = ~np.ma.getmaskarray(clipped)
    value = np.average(difference[usable][kept], weights=error[usable][kept] ** -2)
    return ZeroPoint(float(value), float(mad_std(difference[usable][kept])), int(kept.sum()))


def _nearest_neighbour(xy: Floats) -> Floats:
    """Return the distance from each point to the next one; infinite for a single point."""
    distance, _ = cKDTree(xy).query(xy, k=2)
    return np.asarray(distance[:, 1], dtype=float)


def _weighted_median(values: Floats, weights: Floats) -> float:
    order = np.argsort(values)
    passed = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(passed, passed[-1] / 2)])
