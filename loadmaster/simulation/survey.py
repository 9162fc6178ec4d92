"""The simulated survey: two nights of calibration and science frames as FITS, and the truth beside them."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.table import Table
from astropy.time import Time
from astropy.wcs import WCS

from . import camera, sky
from .frames import expose, star_image

_FIRST_NIGHT = datetime(2026, 3, 2, 0, 30)
_FLAT_E = 40_000.0
_DARK_S = 120.0
_FLAT_S = 8.0
_SCIENCE_S = 60.0
_COSMIC_RAYS = 12
_ZERO_POINTS = {"g": 30.3, "r": 30.5}  # electrons over a science exposure through a clear sky
_SKY_E = {"g": 500.0, "r": 900.0}  # per pixel over a science exposure
_DITHERS_PX = [(0.0, 0.0), (14.3, -9.6), (-11.7, 12.2), (7.4, 10.9)]


@dataclass(frozen=True, slots=True)
class Exposure:
    """One reading of all four detectors: what was asked of the camera, and what the sky was like."""

    id: int  # YYYYMMDD × 10⁴ + number in the night
    kind: str  # bias, dark, flat or science
    band: str
    begin: datetime  # UTC
    exposure_s: float
    boresight: tuple[float, float]  # true, degrees
    rotation_deg: float  # true; headers say 0
    pointing_error_px: tuple[float, float]  # of the header
    fwhm_px: float
    transparency: float
    sky_e: float

    @property
    def is_bad(self) -> bool:
        """Whether clouds spoilt it."""
        return self.kind == "science" and self.transparency < 0.5


@dataclass(frozen=True, slots=True)
class SimulatedSurvey:
    """What was written, and what is true."""

    folder: Path
    exposures: tuple[Exposure, ...]
    raws: tuple[Path, ...]
    stars: Table  # the truth
    reference: Table  # what an earlier survey knew of it

    @property
    def visits(self) -> tuple[Exposure, ...]:
        """The exposures of the sky."""
        return tuple(e for e in self.exposures if e.kind == "science")


def simulate_survey(folder: Path, *, seed: int = 2026) -> SimulatedSurvey:
    """Simulate the survey into ``folder/raw``, with ``truth.fits`` and ``reference.fits`` beside.

    It takes some seconds. The same seed gives the same pixels.
    """
    rng = np.random.default_rng(seed)
    detectors = camera.simulate_camera(rng)
    stars = sky.simulate_stars(rng)
    reference = sky.reference_catalogue(stars, rng)
    exposures = tuple(_schedule(rng))
    raw_folder = folder / "raw"
    raw_folder.mkdir(parents=True)
    raws = tuple(
        _write_raw(raw_folder, exposure, detector, stars, rng)
        for exposure in exposures
        for detector in detectors
    )
    stars.write(folder / "truth.fits")
    reference.write(folder / "reference.fits")
    return SimulatedSurvey(folder, exposures, raws, stars, reference)


def _schedule(rng: np.random.Generator) -> Iterator[Exposure]:
    """Yield two nights: calibrations and g in the first, r in the second with its last visit under clouds."""
    night = _FIRST_NIGHT
    plan = [("bias", "g")] * 5 + [("dark", "g")] * 4 + [("flat", "g")] * 4 + [("flat", "r")] * 4
    yield from _night(night, [*plan, *[("science", "g")] * 3], rng)
    *clear, last = _night(night + timedelta(days=1), [("science", "r")] * 4, rng)
    yield from clear
    yield replace(last, transparency=0.22, fwhm_px=6.3, sky_e=3 * last.sky_e)


def _night(evening: datetime, plan: list[tuple[str, str]], rng: np.random.Generator) -> Iterator[Exposure]:
    day = int(f"{evening - timedelta(hours=12):%Y%m%d}")
    dithers = iter(_DITHERS_PX)
    for number, (kind, band) in enumerate(plan, start=1):
        seconds = {"bias": 0.0, "dark": _DARK_S, "flat": _FLAT_S, "science": _SCIENCE_S}[kind]
        yield Exposure(
            id=day * 10_000 + number,
            kind=kind,
            band=band,
            begin=evening + number * timedelta(minutes=3),
            exposure_s=seconds,
            boresight=_dithered(next(dithers) if kind == "science" else (0.0, 0.0)),
            rotation_deg=rng.normal(0, 0.03),
            pointing_error_px=tuple(rng.uniform(3, 7, 2) * rng.choice([-1, 1], 2)),
            fwhm_px=rng.uniform(2.4, 3.1),
            transparency=rng.uniform(0.93, 1.0),
            sky_e=_SKY_E[band] * rng.uniform(0.9, 1.1),
        )


def _dithered(offset_px: tuple[float, float]) -> tuple[float, float]:
    step_deg = camera.PIXEL_SCALE_ARCSEC / 3600
    ra, dec = sky.CENTRE_DEG
    return ra + offset_px[0] * step_deg / np.cos(np.radians(dec)), dec + offset_px[1] * step_deg


def _write_raw(
    folder: Path, exposure: Exposure, detector: camera.Detector, stars: Table, rng: np.random.Generator
) -> Path:
    pixels = expose(
        _light(exposure, detector, stars),
        detector,
        exposure.band,
        exposure.exposure_s,
        rng,
        cosmic_rays=_COSMIC_RAYS if exposure.exposure_s > _FLAT_S else 0,
    )
    path = folder / f"{camera.NAME}_{exposure.id}_{detector.name}.fits"
    fits.PrimaryHDU(pixels, _header(exposure, detector)).writeto(path)
    return path


def _light(exposure: Exposure, detector: camera.Detector, stars: Table) -> camera.Pixels:
    """Return the electrons that a perfect detector would see."""
    light = np.zeros((camera.SIZE, camera.SIZE), dtype=np.float32)
    if exposure.kind == "flat":
        return light + np.float32(_FLAT_E)
    if exposure.kind != "science":
        return light
    wcs = true_wcs(exposure, detector)
    flux = exposure.transparency * 10 ** (
        -0.4 * (stars[f"mag_{exposure.band}"] - _ZERO_POINTS[exposure.band])
    )
    x, y = sky.pixel_positions(stars, wcs)
    return star_image(x, y, np.asarray(flux), exposure.fwhm_px) + np.float32(exposure.sky_e)


def true_wcs(exposure: Exposure, detector: camera.Detector) -> WCS:
    """Return where the pixels of a detector really look."""
    rotation = exposure.rotation_deg + detector.rotation_deg
    return camera.detector_wcs(detector, *exposure.boresight, rotation_deg=rotation)


def _header(exposure: Exposure, detector: camera.Detector) -> fits.Header:
    """Return what the camera's control system believes; its WCS is off by the pointing error."""
    header = fits.Header()
    night, number = divmod(exposure.id, 10_000)
    size, width = camera.SIZE, camera.SIZE + camera.OVERSCAN
    cards: list[tuple[str, object, str]] = [
        ("INSTRUME", camera.NAME, "camera"),
        ("OBSID", f"SC{night}_{number:04d}", "name of the exposure"),
        ("EXPID", exposure.id, "number of the exposure"),
        ("DAYOBS", night, "local date of the evening"),
        ("SEQNUM", number, "number in the night"),
        ("OBSTYPE", exposure.kind, "bias, dark, flat or science"),
        ("OBJECT", "simfield" if exposure.kind == "science" else exposure.kind.upper(), "target"),
        ("DETECTOR", detector.id, "number of the detector"),
        ("DETNAME", detector.name, "name of the detector"),
        ("FILTER", camera.FILTERS[exposure.band], "physical filter"),
        ("TIMESYS", "UTC", "time scale"),
        ("DATE-OBS", f"{exposure.begin:%Y-%m-%dT%H:%M:%S.%f}"[:-3], "begin of the exposure"),
        ("MJD-OBS", Time(exposure.begin, scale="utc").mjd, "begin of the exposure"),
        ("EXPTIME", exposure.exposure_s, "[s] shutter open"),
        ("DARKTIME", exposure.exposure_s, "[s] since the last clear"),
        ("GAIN", detector.gain, "[electron/adu]"),
        ("RDNOISE", camera.READ_NOISE_E, "[electron]"),
        ("SATURATE", 50_000, "[adu] above bias"),
        ("TRIMSEC", f"[1:{size},1:{size}]", "imaging pixels"),
        ("BIASSEC", f"[{size + 1}:{width},1:{size}]", "overscan"),
        ("BUNIT", "adu", "unit of the pixels"),
    ]
    header.extend(cards)
    if exposure.kind == "science":
        ra, dec = exposure.boresight
        wcs = camera.detector_wcs(detector, ra, dec)
        wcs.wcs.crpix = np.asarray(wcs.wcs.crpix) + exposure.pointing_error_px
        header.extend([("RA", ra, "[deg] boresight"), ("DEC", dec, "[deg] boresight"), ("AIRMASS", 1.1, "")])
        header.extend(wcs.to_header())
    return header
