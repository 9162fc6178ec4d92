"""From a raw frame to electrons that the sky alone has made, with their errors and a mask."""

from typing import Any

import astropy.units as u
import ccdproc
import numpy as np
from astropy.modeling.models import Polynomial1D
from astropy.nddata import CCDData, StdDevUncertainty
from astropy.stats import mad_std
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, maximum_filter

Mask = NDArray[np.bool_]

_LOWEST_FLAT = 0.2  # less response than this only amplifies noise
_SHARPER_THAN_A_STAR = 4.0  # times the brightest neighbour


def electrons(raw: CCDData) -> CCDData:
    """Return the imaging pixels of a raw frame in electrons, without overscan, with the error of each.

    Parameters
    ----------
    raw : CCDData
        In ADU; its header holds GAIN (electrons per ADU), RDNOISE (electrons) and, where there is an
        overscan, BIASSEC and TRIMSEC. SATURATE (ADU above the bias) is used where it is there.

    Returns
    -------
    image : CCDData
        In electrons; saturated pixels and their neighbours are masked.
    """
    gain = raw.header["GAIN"] * u.electron / u.adu
    noise = raw.header["RDNOISE"] * u.electron
    image = _without_overscan(raw)
    image = ccdproc.create_deviation(image, gain=gain, readnoise=noise, disregard_nan=True, add_keyword=False)
    saturated = image.data >= raw.header.get("SATURATE", np.inf)
    image = ccdproc.gain_correct(image, gain, add_keyword=False)
    image.mask = binary_dilation(saturated, iterations=2)
    return image


def detrend(
    image: CCDData,
    *,
    bias: CCDData | None = None,
    dark: CCDData | None = None,
    flat: CCDData | None = None,
    defects: Mask | None = None,
) -> CCDData:
    """Take bias, dark current (scaled by time) and response out of an image in electrons; mask the defects.

    Parameters
    ----------
    image, bias : CCDData
        In electrons; the image's header holds EXPTIME (seconds).
    dark : CCDData
        In electrons a second.
    flat : CCDData
        Response, 1 on average.
    defects : ndarray of bool
        True where the detector is not to be trusted.

    Returns
    -------
    image : CCDData
        As 32-bit floats, errors propagated.
    """
    if bias is not None:
        image = ccdproc.subtract_bias(image, bias, add_keyword=False)
    if dark is not None:
        current = dark.multiply(image.header["EXPTIME"] * u.s, handle_meta="first_found")
        image = ccdproc.subtract_bias(image, current, add_keyword=False)
    if flat is not None:
        image = ccdproc.flat_correct(image, flat, min_value=_LOWEST_FLAT, norm_value=1, add_keyword=False)
    if defects is not None:
        image.mask = np.asarray(image.mask, dtype=bool) | defects
    return as_float32(image)


def mask_cosmic_rays(image: CCDData) -> CCDData:
    """Mask the pixels that charged particles have hit, by L.A.Cosmic.

    References
    ----------
    P. G. van Dokkum, PASP 113 (2001), 1420, doi:10.1086/323894; limits strict enough to spare sharp stars.
    """
    cleaned = ccdproc.cosmicray_lacosmic(
        image,
        sigclip=6.0,
        objlim=8.0,
        readnoise=image.header["RDNOISE"],
        gain_apply=False,
        satlevel=np.inf,  # saturated pixels are masked already
        niter=3,
    )
    return as_float32(cleaned)


def mask_hot_pixels(data: NDArray[np.float32], *, sigmas: float = 10.0) -> Mask:
    """Find single pixels that stand far above the next brightest of their eight neighbours.

    For frames without darks; a star, however sharp, shines into more than one pixel.
    """
    ring = np.ones((3, 3), dtype=bool)
    ring[1, 1] = False
    signal = data - np.median(data)
    around = maximum_filter(signal, footprint=ring)
    stands_out = signal - around > sigmas * mad_std(signal - around)
    return np.asarray(stands_out & (signal > _SHARPER_THAN_A_STAR * around), dtype=bool)


def as_float32(image: CCDData) -> CCDData:
    """Return the image with data and errors as 32-bit floats and a plain true or false mask."""
    error = None if image.uncertainty is None else image.uncertainty.array.astype(np.float32)
    return CCDData(
        image.data.astype(np.float32),
        unit=image.unit,
        uncertainty=None if error is None else StdDevUncertainty(error),
        mask=np.zeros(image.shape, dtype=bool) if image.mask is None else np.asarray(image.mask, dtype=bool),
        header=image.header,
        wcs=image.wcs,
    )


def _without_overscan(raw: CCDData) -> CCDData:
    header: Any = raw.header
    if "BIASSEC" in header:
        # A straight line along the rows: each row's own median would print its noise into the row.
        raw = ccdproc.subtract_overscan(
            raw, fits_section=header["BIASSEC"], median=True, model=Polynomial1D(1), add_keyword=False
        )
    if "TRIMSEC" in header:
        raw = ccdproc.trim_image(raw, fits_section=header["TRIMSEC"], add_keyword=False)
    return raw
