"""The simulated camera: four detectors, each with its own gain, bias, dark current, response and faults."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from astropy.wcs import WCS
from numpy.typing import NDArray

Pixels = NDArray[np.float32]

NAME = "SimCam"
FILTERS = {"g": "sim-g", "r": "sim-r"}  # band → physical filter
SIZE = 400  # imaging pixels along each axis of a detector
OVERSCAN = 16  # columns on the right that see no light
PIXEL_SCALE_ARCSEC = 0.5
READ_NOISE_E = 5.0
FULL_WELL_E = 85_000.0

_GAP = 12  # pixels between neighbouring detectors
_GAINS = (1.50, 1.62, 1.41, 1.55)  # electrons per ADU
_HOT_FRACTION = 1e-3
_DEAD_COLUMN_RESPONSE = 0.05


@dataclass(frozen=True, slots=True)
class Detector:
    """One detector: where it is in the focal plane, and everything that is wrong with it."""

    id: int
    name: str
    gain: float  # electrons per ADU
    centre: tuple[float, float]  # of the detector, in pixels from the boresight
    rotation_deg: float  # small, and unknown to the raw frame's header
    bias: Pixels  # ADU, overscan included
    dark: Pixels  # electrons a second
    response: Mapping[str, Pixels]  # band → relative response, 1 on average over good pixels
    bad_columns: tuple[int, ...]


def simulate_camera(rng: np.random.Generator) -> tuple[Detector, ...]:
    """Make the four detectors of the camera."""
    step = SIZE + _GAP
    corners = [(ix, iy) for iy in (0, 1) for ix in (0, 1)]
    return tuple(
        _detector(number, ix, iy, ((ix - 0.5) * step, (iy - 0.5) * step), rng)
        for number, (ix, iy) in enumerate(corners)
    )


def tangent_wcs(
    ra_deg: float,
    dec_deg: float,
    *,
    scale_arcsec: float = PIXEL_SCALE_ARCSEC,
    rotation_deg: float = 0.0,
    reference_pixel: tuple[float, float] = (1.0, 1.0),
) -> WCS:
    """Return a tangent-plane WCS, north up and east to the left before `rotation_deg` turns it."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [ra_deg, dec_deg]
    wcs.wcs.crpix = reference_pixel
    cos, sin = np.cos(np.radians(rotation_deg)), np.sin(np.radians(rotation_deg))
    wcs.wcs.cd = scale_arcsec / 3600 * np.array([[-cos, sin], [sin, cos]])
    wcs.wcs.radesys = "ICRS"
    return wcs


def detector_wcs(detector: Detector, ra_deg: float, dec_deg: float, *, rotation_deg: float = 0.0) -> WCS:
    """Return the WCS of a detector, as designed, when the boresight points at a place."""
    middle = (SIZE + 1) / 2
    reference = (middle - detector.centre[0], middle - detector.centre[1])
    return tangent_wcs(ra_deg, dec_deg, rotation_deg=rotation_deg, reference_pixel=reference)


def _detector(
    number: int, ix: int, iy: int, centre: tuple[float, float], rng: np.random.Generator
) -> Detector:
    dead, hot = (int(column) for column in rng.choice(np.arange(10, SIZE - 10), 2, replace=False))
    dark = np.full((SIZE, SIZE), 0.05, dtype=np.float32)
    pixels = rng.integers(0, SIZE, (2, int(_HOT_FRACTION * SIZE**2)))
    dark[pixels[1], pixels[0]] += rng.lognormal(2.0, 1.0, pixels.shape[1])
    dark[:, hot] += 60.0
    return Detector(
        id=number,
        name=f"S{iy}{ix}",
        gain=_GAINS[number],
        centre=centre,
        rotation_deg=float(rng.normal(0, 0.02)),
        bias=_bias(rng),
        dark=dark,
        response=_responses(centre, dead, rng),
        bad_columns=tuple(sorted((dead, hot))),
    )


def _bias(rng: np.random.Generator) -> Pixels:
    """Return level, slope and column pattern in ADU; the overscan has the level only."""
    bias = np.full((SIZE, SIZE + OVERSCAN), 1000 + rng.normal(0, 20), dtype=np.float32)
    rows = np.linspace(-1, 1, SIZE, dtype=np.float32)
    bias[:, :SIZE] += 4 * rows[:, None] ** 2 + rng.normal(0, 1.5, SIZE).astype(np.float32)
    return bias


def _responses(centre: tuple[float, float], dead_column: int, rng: np.random.Generator) -> dict[str, Pixels]:
    """Return vignetting × pixel response × a dust ring for each band, dead column included."""
    axis = np.arange(SIZE, dtype=np.float32) - (SIZE - 1) / 2
    x, y = np.meshgrid(axis + centre[0], axis + centre[1])
    vignetting = 1 - 0.18 * (x**2 + y**2) / SIZE**2
    pixels = rng.normal(1, 0.008, (SIZE, SIZE))
    dust_x, dust_y = rng.uniform(60, SIZE - 60, 2)
    radius = np.hypot(axis[None, :] + SIZE / 2 - dust_x, axis[:, None] + SIZE / 2 - dust_y)
    responses = {}
    for band, colour in zip(FILTERS, (0.03, -0.02), strict=True):
        dust = 1 - 0.06 * np.exp(-(((radius - 14) / 4) ** 2))
        response = vignetting * pixels * dust * (1 + colour * y / SIZE)
        response /= np.median(response)
        response[:, dead_column] *= _DEAD_COLUMN_RESPONSE
        responses[band] = response.astype(np.float32)
    return responses
