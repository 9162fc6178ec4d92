"""Many calibration frames to one: bias, dark, flat, and the defects that show in them."""

from collections.abc import Sequence

import astropy.units as u
import ccdproc
import numpy as np
from astropy.nddata import CCDData
from astropy.stats import mad_std
from numpy.typing import NDArray
from scipy.ndimage import median_filter

from .detrending import Mask, as_float32

_CLIP_SIGMAS = 5.0


def combine(frames: Sequence[CCDData]) -> CCDData:
    """Return the mean of frames, pixel by pixel, without the values that stick out (cosmic rays)."""
    combiner = ccdproc.Combiner(list(frames))
    if len(frames) > 2:
        combiner.sigma_clipping(_CLIP_SIGMAS, _CLIP_SIGMAS, func=np.ma.median, dev_func=mad_std)
    mean = combiner.average_combine()
    mean.header = frames[0].header.copy()
    mean.header["NCOMBINE"] = len(frames)
    mean.mask = None  # what was masked in all frames shows in the data, where `find_defects` sees it
    return as_float32(mean)


def combine_darks(frames: Sequence[CCDData]) -> CCDData:
    """Return the dark current in electrons a second from frames whose bias is gone."""
    return combine([f.divide(f.header["EXPTIME"] * u.s, handle_meta="first_found") for f in frames])


def combine_flats(frames: Sequence[CCDData]) -> CCDData:
    """Return the response, 1 in the median, from frames without bias and dark; each counts the same."""
    scaled = [f.divide(np.median(f.data) * f.unit, handle_meta="first_found") for f in frames]
    return combine(scaled)


def find_defects(
    dark: NDArray[np.float32],
    flats: Sequence[NDArray[np.float32]],
    *,
    hot_e_per_s: float,
    response_tolerance: float,
) -> Mask:
    """Find hot pixels, pixels of odd response, and columns that are bad as a whole.

    Parameters
    ----------
    dark : ndarray
        Electrons a second.
    flats : sequence of ndarray
        Response in each filter.
    hot_e_per_s : float
        More dark current than this is a defect.
    response_tolerance : float
        So far may a pixel's or a column's response be from that around it.
    """
    defects = dark > hot_e_per_s
    defects |= _is_bad_column(dark - np.median(dark), hot_e_per_s)[None, :]
    for flat in flats:
        deviation = flat / median_filter(flat, size=(1, 15), mode="nearest") - 1
        defects |= np.abs(deviation) > response_tolerance
        defects |= _is_bad_column(deviation, response_tolerance)[None, :]
    return np.asarray(defects, dtype=bool)


def _is_bad_column(deviation: NDArray[np.float32], tolerance: float) -> Mask:
    return np.asarray(np.abs(np.median(deviation, axis=0)) > tolerance / 2, dtype=bool)
