"""Where pixels look: matching stars with a reference catalogue, and a WCS from the matches."""

from dataclasses import dataclass

import numpy as np
from astropy.wcs import WCS
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree

Floats = NDArray[np.float64]
Rows = NDArray[np.intp]

_LEAST_STARS = 5
_ROUNDS = 4


@dataclass(frozen=True, slots=True)
class Astrometry:
    """A WCS, and how well the stars agree with it."""

    wcs: WCS
    rms_px: float  # distance of matched stars from their place, root mean square
    matched: int


def pixel_offset(xy: Floats, reference: Floats, *, search_px: float, bin_px: float = 1.0) -> Floats:
    """Find the shift between two lists of positions by the vote of all pairs.

    Parameters
    ----------
    xy, reference : ndarray, shape (n, 2) and (m, 2)
        Positions; neither list needs to be complete.
    search_px : float
        The shift is at most this along each axis.

    Returns
    -------
    offset : ndarray, shape (2,)
        What to add to `reference` to come near `xy`, to about one bin.
    """
    pairs = (xy[:, None, :] - reference[None, :, :]).reshape(-1, 2)
    pairs = pairs[(np.abs(pairs) <= search_px).all(axis=1)]
    edges = np.arange(-search_px, search_px + bin_px, bin_px)
    votes, *_ = np.histogram2d(pairs[:, 0], pairs[:, 1], bins=[edges, edges])
    # Smoothed, because a true shift near a bin's edge splits its votes.
    best = np.unravel_index(np.argmax(gaussian_filter(votes, 1.0)), votes.shape)
    near = edges[list(best)] + bin_px / 2
    inside = pairs[(np.abs(pairs - near) <= 1.5 * bin_px).all(axis=1)]
    return np.asarray(np.median(inside, axis=0) if len(inside) else near, dtype=float)


def match(xy: Floats, reference: Floats, *, radius_px: float) -> tuple[Rows, Rows]:
    """Return rows of pairs that are each other's nearest within `radius_px`."""
    there, here = cKDTree(reference), cKDTree(xy)
    distance, partner = there.query(xy, distance_upper_bound=radius_px)
    rows = np.flatnonzero(np.isfinite(distance))
    _, back = here.query(reference[partner[rows]])
    mutual = rows[back == rows]
    return mutual, partner[mutual]


def refine_wcs(
    xy: Floats, ra: Floats, dec: Floats, guess: WCS, *, search_px: float, radius_px: float
) -> Astrometry | None:
    """Fit a tangent-plane WCS to stars, starting from one whose pointing is off.

    Parameters
    ----------
    xy : ndarray, shape (n, 2)
        Measured positions, from 0.
    ra, dec : ndarray, shape (m,)
        Of reference stars, degrees.
    guess : WCS
        A tangential projection without distortion, right to about `search_px`.
    radius_px : float
        Matching radius at the first round; it shrinks with the residuals.

    Returns
    -------
    astrometry : Astrometry or None
        None if too few stars match for a fit.
    """
    if not len(xy) or not len(ra):
        return None
    expected = np.column_stack(guess.wcs_world2pix(ra, dec, 0))
    rows, partners = match(
        xy, expected + pixel_offset(xy, expected, search_px=search_px), radius_px=radius_px
    )
    for _ in range(_ROUNDS):
        if len(rows) < _LEAST_STARS:
            return None
        wcs = _fit(xy[rows], ra[partners], dec[partners], guess)
        expected = np.column_stack(wcs.wcs_world2pix(ra, dec, 0))
        residual = np.hypot(*(xy[rows] - expected[partners]).T)
        radius_px = float(np.clip(5 * np.median(residual), 0.05, radius_px))
        rows, partners = match(xy, expected, radius_px=radius_px)
    residual = np.hypot(*(xy[rows] - expected[partners]).T)
    return Astrometry(wcs, float(np.sqrt(np.mean(residual**2))), len(rows))


def _fit(xy: Floats, ra: Floats, dec: Floats, guess: WCS) -> WCS:
    """Solve for the linear part of the WCS, which in the tangent plane is a linear problem.

    `astropy.wcs.utils.fit_wcs_from_points` holds the reference pixel inside the image; a camera's boresight
    often lies outside its detectors.
    """
    plane = WCS(naxis=2)  # degrees in the tangent plane as pixels
    plane.wcs.ctype = guess.wcs.ctype
    plane.wcs.crval = guess.wcs.crval
    plane.wcs.crpix = [0, 0]
    plane.wcs.cdelt = [1, 1]
    target = np.column_stack(plane.wcs_world2pix(ra, dec, 1))
    design = np.column_stack([xy + 1, np.ones(len(xy))])  # FITS counts pixels from 1
    solution, *_ = np.linalg.lstsq(design, target, rcond=None)
    cd, origin = solution[:2].T, solution[2]
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = guess.wcs.ctype
    wcs.wcs.crval = guess.wcs.crval
    wcs.wcs.crpix = -np.linalg.solve(cd, origin)
    wcs.wcs.cd = cd
    wcs.wcs.radesys = guess.wcs.radesys
    wcs.array_shape = guess.array_shape
    return wcs
