"""Whether an observation is fit for use, and why not."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class DetectorQuality:
    """What calibration found for one detector of a visit."""

    detector: int
    fwhm_px: float
    sky: float  # electrons a pixel
    zero_point: float
    astrometric_rms_px: float
    matched: int


@dataclass(frozen=True, slots=True)
class Limits:
    """Beyond these a visit is bad."""

    fwhm_px: float
    extinction_mag: float
    astrometric_rms_px: float
    matched: int


@dataclass(frozen=True, slots=True)
class VisitQuality:
    """A visit as the median over its detectors, and the verdict on it."""

    fwhm_px: float
    sky: float
    zero_point: float
    extinction_mag: float  # against a clear sky; NaN where that is not known
    astrometric_rms_px: float
    matched: int  # all detectors together
    reasons: tuple[str, ...]  # why it is bad; empty for a good one

    @property
    def is_good(self) -> bool:
        """Whether nothing speaks against it."""
        return not self.reasons


def judge(
    detectors: Sequence[DetectorQuality], limits: Limits, clear_zero_point: float | None
) -> VisitQuality:
    """Summarise a visit's detectors and say what is wrong with it.

    Parameters
    ----------
    clear_zero_point : float or None
        Zero point through a clear sky; None where it is not known, then clouds cannot be told.
    """
    fwhm, sky, zero_point, rms = (
        float(np.nanmedian([getattr(d, name) for d in detectors]))
        for name in ("fwhm_px", "sky", "zero_point", "astrometric_rms_px")
    )
    extinction = float("nan") if clear_zero_point is None else clear_zero_point - zero_point
    matched = sum(d.matched for d in detectors)
    checks = [
        (fwhm > limits.fwhm_px, f"seeing {fwhm:.1f} px, limit {limits.fwhm_px:g}"),
        (
            extinction > limits.extinction_mag,
            f"clouds take {extinction:.2f} mag, limit {limits.extinction_mag:g}",
        ),
        (rms > limits.astrometric_rms_px, f"astrometry {rms:.2f} px, limit {limits.astrometric_rms_px:g}"),
        (matched < limits.matched, f"{matched} stars matched, least {limits.matched}"),
    ]
    reasons = tuple(text for is_bad, text in checks if is_bad)
    return VisitQuality(fwhm, sky, zero_point, extinction, rms, matched, reasons)
