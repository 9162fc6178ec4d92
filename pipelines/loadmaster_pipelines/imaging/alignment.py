"""How far two images of the same field lie apart, from the images themselves."""

import numpy as np
from astropy.stats import mad_std
from numpy.typing import NDArray
from scipy import fft
from scipy.ndimage import gaussian_filter, uniform_filter

from .detection import Pixels
from .detrending import Mask
from .resampling import fill

Floats = NDArray[np.float64]

_BROAD = 20  # what is so many times broader than a star is background
_NOISE_SIGMAS = 3.0


def image_offset(
    data: Pixels, mask: Mask, reference: Pixels, reference_mask: Mask, *, smooth_px: float
) -> Floats:
    """Find the shift between two images at the peak of their cross-correlation.

    Works where single stars are too faint to be found with certainty. What is fixed to the detector, rows and
    columns of odd level, is taken off first: it would correlate at no shift at all.

    Parameters
    ----------
    data, reference : ndarray
        Background subtracted, of one shape.
    smooth_px : float
        Standard deviation of a Gaussian, about that of a star.

    Returns
    -------
    offset : ndarray, shape (2,)
        (dx, dy): a star at (x, y) in `reference` is at (x + dx, y + dy) in `data`; to a fraction of a pixel.
    """
    first, second = (_structure(d, m, smooth_px) for d, m in ((data, mask), (reference, reference_mask)))
    shape = [fft.next_fast_len(2 * n, real=True) for n in data.shape]
    spectrum = fft.rfft2(first, shape) * np.conj(fft.rfft2(second, shape))
    correlation = fft.irfft2(spectrum, shape)
    peak = np.unravel_index(np.argmax(correlation), correlation.shape)
    dy, dx = (_vertex(correlation, peak, axis) for axis in (0, 1))
    return np.array([dx, dy])


def _structure(data: Pixels, mask: Mask, smooth_px: float) -> Pixels:
    """Return what stands out at the scale of stars; the noise, which has peaks of its own, is cut off."""
    filled = fill(data, mask)
    band = gaussian_filter(filled, smooth_px) - uniform_filter(filled, round(_BROAD * smooth_px))
    band -= np.median(band, axis=0, keepdims=True)
    band -= np.median(band, axis=1, keepdims=True)
    return np.asarray(np.maximum(band - _NOISE_SIGMAS * mad_std(band), 0), dtype=np.float32)


def _vertex(correlation: Pixels, peak: tuple[np.intp, ...], axis: int) -> float:
    """Return the top of the parabola through the peak and its neighbours along an axis, as a signed shift."""
    size = correlation.shape[axis]
    at = [int(i) for i in peak]
    low, middle, high = (
        float(correlation[tuple((p + step) % size if a == axis else p for a, p in enumerate(at))])
        for step in (-1, 0, 1)
    )
    place = at[axis] + 0.5 * (low - high) / (low - 2 * middle + high)
    return place - size if place > size / 2 else place
