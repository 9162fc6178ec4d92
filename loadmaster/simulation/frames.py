"""Photons to pixels: star images, and what a detector makes of the light that falls on it."""

import numpy as np
from numpy.typing import NDArray

from .camera import FULL_WELL_E, OVERSCAN, READ_NOISE_E, SIZE, Detector, Pixels

MOFFAT_BETA = 3.5

_STAMP_RADIUS = 24  # pixels
_SUBPIXELS = 3
_ADC_MAX = 65_535


def star_image(
    x: NDArray[np.float64], y: NDArray[np.float64], flux: NDArray[np.float64], fwhm_px: float
) -> Pixels:
    """Draw stars with a Moffat profile integrated over each pixel.

    Parameters
    ----------
    x, y : ndarray, shape (n_stars,)
        Centres in pixels from 0; stars outside the detector shine in as far as their stamp reaches.
    flux : ndarray, shape (n_stars,)
        Total flux.

    Returns
    -------
    image : ndarray of float32, shape (SIZE, SIZE)
    """
    near = (np.abs(x - SIZE / 2) < SIZE / 2 + _STAMP_RADIUS) & (
        np.abs(y - SIZE / 2) < SIZE / 2 + _STAMP_RADIUS
    )
    x, y, flux = x[near], y[near], flux[near]
    left, bottom = np.rint(x).astype(int) - _STAMP_RADIUS, np.rint(y).astype(int) - _STAMP_RADIUS
    stamps = _moffat_stamps(x - left, y - bottom, fwhm_px) * flux[:, None, None].astype(np.float32)
    margin = 2 * _STAMP_RADIUS + 1
    canvas = np.zeros((SIZE + 2 * margin, SIZE + 2 * margin), dtype=np.float32)
    size = np.arange(margin)
    rows = (bottom + margin)[:, None, None] + size[:, None]
    columns = (left + margin)[:, None, None] + size
    np.add.at(canvas, (rows, columns), stamps)
    return canvas[margin:-margin, margin:-margin]


def expose(
    light: Pixels,
    detector: Detector,
    band: str,
    exposure_s: float,
    rng: np.random.Generator,
    *,
    cosmic_rays: int = 0,
) -> NDArray[np.uint16]:
    """Return the raw frame that a detector delivers, overscan included.

    Parameters
    ----------
    light : ndarray, shape (SIZE, SIZE)
        Expected electrons a pixel over the exposure for a response of 1; 0 with the shutter closed.
    """
    electrons = rng.poisson(light * detector.response[band] + detector.dark * exposure_s).astype(np.float32)
    _strike(electrons, cosmic_rays, rng)
    np.minimum(electrons, FULL_WELL_E, out=electrons)
    frame = np.zeros((SIZE, SIZE + OVERSCAN), dtype=np.float32)
    frame[:, :SIZE] = electrons
    frame += rng.normal(0, READ_NOISE_E, frame.shape).astype(np.float32)
    drift = rng.normal(0, 3)  # the bias level is never quite the same twice
    adu = frame / detector.gain + detector.bias + drift
    return np.asarray(np.clip(np.rint(adu), 0, _ADC_MAX), dtype=np.uint16)


def _moffat_stamps(x: NDArray[np.float64], y: NDArray[np.float64], fwhm_px: float) -> Pixels:
    """Return stamps of unit flux whose stars stand at (x, y) from each stamp's first pixel."""
    alpha = fwhm_px / (2 * np.sqrt(2 ** (1 / MOFFAT_BETA) - 1))
    side = (2 * _STAMP_RADIUS + 1) * _SUBPIXELS
    grid = ((np.arange(side) + 0.5) / _SUBPIXELS - 0.5).astype(np.float32)
    dx = (grid - x[:, None].astype(np.float32))[:, None, :] ** 2
    dy = (grid - y[:, None].astype(np.float32))[:, :, None] ** 2
    profile = (1 + (dx + dy) / np.float32(alpha**2)) ** np.float32(-MOFFAT_BETA)
    profile *= (MOFFAT_BETA - 1) / (np.pi * alpha**2 * _SUBPIXELS**2)
    blocks = profile.reshape(len(x), side // _SUBPIXELS, _SUBPIXELS, side // _SUBPIXELS, _SUBPIXELS)
    return np.asarray(blocks.sum(axis=(2, 4)), dtype=np.float32)


def _strike(electrons: Pixels, number: int, rng: np.random.Generator) -> None:
    """Add short straight tracks of charged particles in place."""
    steps = np.arange(8)
    start = rng.uniform(8, SIZE - 8, (2, number, 1))
    angle = rng.uniform(0, 2 * np.pi, (number, 1))
    length = rng.integers(1, len(steps), (number, 1))
    columns = np.rint(start[0] + steps * np.cos(angle)).astype(int)
    rows = np.rint(start[1] + steps * np.sin(angle)).astype(int)
    charge = np.where(steps < length, rng.uniform(500, 4000, (number, 1)), 0)
    np.add.at(electrons, (rows, columns), charge.astype(np.float32))
