"""Images on another grid, their flux kept."""

from dataclasses import dataclass

import numpy as np
from astropy.wcs import WCS
from astropy.wcs.utils import proj_plane_pixel_area
from reproject import reproject_interp
from scipy.ndimage import gaussian_filter, shift

from .detection import Pixels
from .detrending import Mask

_FILL_SIGMA_PX = 1.5
_TOUCHED = 0.02  # a pixel with more than this of a masked one in it is masked


@dataclass(frozen=True, slots=True)
class Resampled:
    """Pixels, their variance, and where there is none; NaN under the mask."""

    data: Pixels
    variance: Pixels
    mask: Mask


def warp(
    data: Pixels, variance: Pixels, mask: Mask, wcs: WCS, target: WCS, shape: tuple[int, int]
) -> Resampled:
    """Resample an image to the grid of `target`.

    Interpolation keeps surface brightness; what a pixel holds is that times its area, so the result is scaled
    by the ratio of the pixel areas, and the sum over a star stays what it was.

    Parameters
    ----------
    data, variance : ndarray
        Background subtracted image and the variance of each pixel.
    shape : tuple of int
        Rows and columns of the result.
    """
    area = proj_plane_pixel_area(target.celestial) / proj_plane_pixel_area(wcs.celestial)
    smooth = fill(data, mask)
    values = _interpolate(smooth, wcs, target, shape, "bicubic") * area
    planes = _interpolate(
        np.stack([fill(variance, mask), mask.astype(np.float32)]), wcs, target, shape, "bilinear"
    )
    hidden = ~np.isfinite(values) | ~(planes[1] < _TOUCHED)
    values[hidden] = np.nan
    return Resampled(values.astype(np.float32), (planes[0] * area**2).astype(np.float32), hidden)


def translate(data: Pixels, mask: Mask, dx: float, dy: float) -> Resampled:
    """Shift an image by a fraction of pixels: a source at (x, y) comes to (x + dx, y + dy)."""
    moved = shift(fill(data, mask), (dy, dx), order=3, mode="constant", cval=np.nan)
    hidden = shift(mask.astype(np.float32), (dy, dx), order=1, mode="constant", cval=1.0) > _TOUCHED
    hidden |= ~np.isfinite(moved)
    moved[hidden] = np.nan
    return Resampled(moved.astype(np.float32), np.ones_like(data), hidden)


def fill(data: Pixels, mask: Mask) -> Pixels:
    """Return the image with masked pixels filled from around them, so that nothing rings when resampled."""
    if not mask.any():
        return data
    weight = gaussian_filter((~mask).astype(np.float32), _FILL_SIGMA_PX)
    around = gaussian_filter(np.where(mask, 0, data).astype(np.float32), _FILL_SIGMA_PX)
    local = np.divide(around, weight, out=np.zeros_like(around), where=weight > 1e-3)
    return np.where(mask, local, data).astype(np.float32)


def _interpolate(array: Pixels, wcs: WCS, target: WCS, shape: tuple[int, int], order: str) -> Pixels:
    return np.asarray(
        reproject_interp(
            (array, wcs),
            target,
            shape_out=(*array.shape[:-2], *shape),
            order=order,
            roundtrip_coords=False,  # a tangential projection has no other side to confuse it with
            return_footprint=False,
        ),
        dtype=np.float32,
    )
