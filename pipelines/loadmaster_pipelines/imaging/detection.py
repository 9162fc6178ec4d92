"""Sky background, and the sources that stand out of it."""

import warnings
from dataclasses import dataclass

import numpy as np
from astropy.stats import SigmaClip, mad_std
from astropy.table import Table
from astropy.utils.exceptions import AstropyUserWarning
from numpy.typing import NDArray
from photutils.background import Background2D, MedianBackground
from photutils.psf import fit_fwhm
from photutils.segmentation import SourceCatalog, deblend_sources, detect_sources
from photutils.utils.exceptions import NoDetectionsWarning
from scipy.ndimage import gaussian_filter

from .detrending import Mask

Pixels = NDArray[np.float32]

_KERNEL_SIGMA_PX = 1.0
_LEAST_PIXELS = 5
_COLUMNS = {"x_centroid_win": "x", "y_centroid_win": "y", "max_value": "peak", "area": "area"}
_FWHM_STARS = 15
_FWHM_BOX_PX = 11


@dataclass(frozen=True, slots=True)
class Background:
    """What the image would be without sources."""

    level: Pixels
    noise: float  # standard deviation of a pixel, in the median over the image


def estimate_background(data: Pixels, mask: Mask, *, box_px: int) -> Background:
    """Estimate the background in boxes of `box_px` pixels, sources clipped away, smooth between the boxes."""
    found = Background2D(
        data,
        min(box_px, *data.shape),
        mask=mask,
        filter_size=3,
        exclude_percentile=90,
        sigma_clip=SigmaClip(sigma=3, maxiters=5),
        bkg_estimator=MedianBackground(),
    )
    return Background(found.background.astype(np.float32), float(found.background_rms_median))


def detect(data: Pixels, mask: Mask, *, threshold_sigmas: float) -> Table:
    """Find sources in an image whose background is gone.

    Parameters
    ----------
    data : ndarray
        Background subtracted; what the masked pixels hold does not matter.
    threshold_sigmas : float
        In standard deviations of the smoothed image.

    Returns
    -------
    sources : Table
        ``x``, ``y`` (windowed centroid, from 0), ``peak``, ``area`` (pixels); brightest first.
    """
    smooth = gaussian_filter(np.where(mask, 0, data), _KERNEL_SIGMA_PX)
    # Noise is measured after smoothing, so that it holds where neighbouring pixels are correlated too.
    threshold = threshold_sigmas * mad_std(smooth[~mask])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NoDetectionsWarning)  # an empty table says it too
        segments = detect_sources(smooth, threshold, n_pixels=_LEAST_PIXELS, mask=mask)
    if segments is None:
        return _no_sources()
    segments = deblend_sources(
        smooth, segments, n_pixels=_LEAST_PIXELS, n_levels=8, contrast=0.01, progress_bar=False
    )
    found = SourceCatalog(data, segments, mask=mask).to_table(columns=list(_COLUMNS))
    sources = Table({short: np.asarray(found[long], dtype=float) for long, short in _COLUMNS.items()})
    sources = sources[np.isfinite(sources["x"]) & np.isfinite(sources["y"])]
    return sources[np.argsort(-sources["peak"])]


def stellar_fwhm(data: Pixels, mask: Mask, sources: Table) -> float:
    """Return the full width at half maximum in pixels of the brightest sources; NaN without any."""
    if not len(sources):
        return float("nan")
    bright = np.column_stack([sources["x"], sources["y"]])[:_FWHM_STARS]
    with warnings.catch_warnings():
        # A star at the edge or beside a bad column doesn't fit; the median does without it.
        warnings.simplefilter("ignore", AstropyUserWarning)
        widths = fit_fwhm(data, xypos=bright, fwhm=_FWHM_BOX_PX / 4, fit_shape=_FWHM_BOX_PX, mask=mask)
    return float(np.nanmedian(widths))


def _no_sources() -> Table:
    return Table({name: np.empty(0) for name in _COLUMNS.values()})
