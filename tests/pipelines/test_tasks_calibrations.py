"""Calibration and detrending against a simulated camera whose faults are known."""

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.nddata import CCDData
from astropy.stats import mad_std
from loadmaster_pipelines.imaging.calibrations import combine, combine_darks, combine_flats, find_defects
from loadmaster_pipelines.imaging.detrending import detrend, electrons, mask_cosmic_rays, mask_hot_pixels

from loadmaster.simulation import SimulatedSurvey, camera, simulate_survey

SEED = 7


@pytest.fixture(scope="module")
def survey(tmp_path_factory: pytest.TempPathFactory) -> SimulatedSurvey:
    return simulate_survey(tmp_path_factory.mktemp("survey") / "sim", seed=SEED)


@pytest.fixture(scope="module")
def detector() -> camera.Detector:
    return camera.simulate_camera(np.random.default_rng(SEED))[0]


@pytest.fixture(scope="module")
def products(survey: SimulatedSurvey) -> dict[str, CCDData]:
    bias = combine([electrons(f) for f in frames(survey, "bias")])
    dark = combine_darks([detrend(electrons(f), bias=bias) for f in frames(survey, "dark")])
    flats = {
        f"flat_{band}": combine_flats(
            [detrend(electrons(f), bias=bias, dark=dark) for f in frames(survey, "flat", band)]
        )
        for band in camera.FILTERS
    }
    return {"bias": bias, "dark": dark, **flats}


def frames(survey: SimulatedSurvey, kind: str, band: str | None = None) -> list[CCDData]:
    """Read the raw frames of the first detector."""

    def is_wanted(path: Path) -> bool:
        header = fits.getheader(path)
        chosen = header["OBSTYPE"] == kind and header["DETECTOR"] == 0
        return chosen and (band is None or header["FILTER"] == camera.FILTERS[band])

    return [CCDData.read(path) for path in survey.raws if is_wanted(path)]


def test_a_bias_is_the_pattern_of_the_detector(
    products: dict[str, CCDData], detector: camera.Detector
) -> None:
    pattern = detector.bias[:, : camera.SIZE] - detector.bias[:, camera.SIZE :].mean()
    residual = products["bias"].data - pattern * detector.gain
    assert abs(np.median(residual)) < 1.0
    assert mad_std(residual) < 1.3 * camera.READ_NOISE_E / np.sqrt(5)


def test_a_dark_is_the_current_of_the_detector(
    products: dict[str, CCDData], detector: camera.Detector
) -> None:
    residual = products["dark"].data - detector.dark
    assert abs(np.median(residual)) < 0.01
    hot = detector.dark > 5
    assert np.median(products["dark"].data[hot] / detector.dark[hot]) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("band", camera.FILTERS)
def test_a_flat_is_the_response_to_a_third_of_a_percent(
    products: dict[str, CCDData], detector: camera.Detector, band: str
) -> None:
    good = detector.response[band] > 0.5
    ratio = (products[f"flat_{band}"].data / detector.response[band])[good]
    assert mad_std(ratio / np.median(ratio)) < 0.0033


def test_defects_are_the_bad_columns_and_the_hot_pixels(
    products: dict[str, CCDData], detector: camera.Detector
) -> None:
    flats = [products[f"flat_{band}"].data for band in camera.FILTERS]
    found = find_defects(products["dark"].data, flats, hot_e_per_s=10, response_tolerance=0.3)
    whole = tuple(np.flatnonzero(found.all(axis=0)))
    assert whole == detector.bad_columns
    beside = np.delete(found, detector.bad_columns, axis=1)
    hot = np.delete(detector.dark > 10, detector.bad_columns, axis=1)
    clear = np.delete(np.abs(detector.dark - 10) > 2, detector.bad_columns, axis=1)
    assert (beside == hot)[clear].all()


def test_a_detrended_frame_is_flat_and_knows_its_noise(
    survey: SimulatedSurvey, products: dict[str, CCDData]
) -> None:
    raw = frames(survey, "science", "r")[0]
    visit = next(v for v in survey.visits if v.id == raw.header["EXPID"])
    image = detrend(electrons(raw), bias=products["bias"], dark=products["dark"], flat=products["flat_r"])
    level = np.median(image.data)
    corners = [np.median(image.data[box, box]) for box in (slice(0, 60), slice(340, 400))]
    assert level == pytest.approx(visit.sky_e, rel=0.02)
    assert corners == pytest.approx([level, level], rel=0.01)
    assert np.median(image.uncertainty.array) == pytest.approx(mad_std(image.data), rel=0.05)


def test_a_frame_without_overscan_keeps_its_shape() -> None:
    raw = CCDData(np.full((20, 30), 500.0), unit="adu", header={"GAIN": 2.0, "RDNOISE": 4.0})
    image = electrons(raw)
    assert image.shape == (20, 30)
    assert image.data[0, 0] == pytest.approx(1000)
    assert image.uncertainty.array[0, 0] == pytest.approx(np.sqrt(1000 + 16))


def test_saturated_pixels_are_masked_with_those_around_them() -> None:
    pixels = np.full((20, 20), 100.0)
    pixels[10, 10] = 60_000
    image = electrons(CCDData(pixels, unit="adu", header={"GAIN": 1.0, "RDNOISE": 4.0, "SATURATE": 50_000}))
    assert image.mask[10, 8:13].all()
    assert image.mask.sum() == 13


def test_cosmic_rays_are_masked_and_stars_are_not(
    survey: SimulatedSurvey, products: dict[str, CCDData]
) -> None:
    raw = frames(survey, "science", "g")[0]
    image = detrend(electrons(raw), bias=products["bias"], dark=products["dark"], flat=products["flat_g"])
    hit = image.copy()
    hit.data = image.data.copy()
    hit.data[50:53, 200] += 3000
    masked = mask_cosmic_rays(hit)
    assert masked.mask[50:53, 200].all()
    assert masked.mask.mean() < 0.003


def test_combining_leaves_out_what_one_frame_alone_has_seen() -> None:
    rng = np.random.default_rng(1)
    made = [CCDData(rng.normal(100, 2, (30, 30)), unit="electron") for _ in range(5)]
    made[2].data[4, 5] += 10_000
    assert combine(made).data[4, 5] == pytest.approx(100, abs=5)


def test_a_hot_pixel_is_told_from_a_star() -> None:
    rows, columns = np.indices((60, 60))
    star = 5000 * np.exp(-((rows - 30) ** 2 + (columns - 30) ** 2) / (2 * 1.2**2))
    data = (star + np.random.default_rng(2).normal(0, 5, (60, 60))).astype(np.float32)
    data[10, 12] += 2000
    assert np.argwhere(mask_hot_pixels(data)).tolist() == [[10, 12]]
