"""Detection, photometry and astrometry against images of stars whose places and fluxes are known."""

from dataclasses import dataclass

import numpy as np
import pytest
from astropy.stats import mad_std
from hypothesis import given
from hypothesis import strategies as st
from loadmaster_pipelines.imaging.alignment import image_offset
from loadmaster_pipelines.imaging.astrometry import match, pixel_offset, refine_wcs
from loadmaster_pipelines.imaging.detection import detect, estimate_background, stellar_fwhm
from loadmaster_pipelines.imaging.photometry import (
    aperture_flux,
    fit_zero_point,
    magnitude,
    magnitude_error,
    total_flux,
)
from loadmaster_pipelines.imaging.quality import DetectorQuality, Limits, judge

from loadmaster.simulation import camera, frames

SKY, NOISE, FWHM = 400.0, 20.0, 2.8


@dataclass(frozen=True)
class Scene:
    data: np.ndarray
    error: np.ndarray
    mask: np.ndarray
    x: np.ndarray
    y: np.ndarray
    flux: np.ndarray


@pytest.fixture(scope="module")
def scene() -> Scene:
    """Return stars on a loose grid, so that none has a neighbour, on a sky with a slope."""
    rng = np.random.default_rng(3)
    grid = np.arange(30.0, 380, 40)
    x, y = (axis.ravel() + rng.uniform(-4, 4, axis.size) for axis in np.meshgrid(grid, grid))
    flux = 10 ** rng.uniform(3.5, 5.5, x.size)
    stars = frames.star_image(x, y, flux, FWHM)
    slope = np.linspace(-10, 10, camera.SIZE)[None, :]
    noise = np.sqrt(NOISE**2 + stars)
    data = (SKY + slope + stars + rng.normal(0, 1, stars.shape) * noise).astype(np.float32)
    return Scene(data, noise.astype(np.float32), np.zeros(data.shape, dtype=bool), x, y, flux)


def test_the_background_is_found_below_the_stars(scene: Scene) -> None:
    found = estimate_background(scene.data, scene.mask, box_px=50)
    slope = np.linspace(-10, 10, camera.SIZE)[None, :]
    assert np.sqrt(np.mean((found.level - SKY - slope) ** 2)) < 2
    assert found.noise == pytest.approx(NOISE, rel=0.05)


def test_all_stars_are_found_and_little_else(scene: Scene) -> None:
    sources = detect(clean(scene), scene.mask, threshold_sigmas=5)
    rows, _ = match(places(sources), np.column_stack([scene.x, scene.y]), radius_px=1)
    assert len(rows) == len(scene.x)
    assert len(sources) <= len(scene.x) + 2


def test_bright_centres_are_right_to_two_hundredths_of_a_pixel(scene: Scene) -> None:
    sources = detect(clean(scene), scene.mask, threshold_sigmas=5)
    rows, partners = match(places(sources), np.column_stack([scene.x, scene.y]), radius_px=1)
    bright = scene.flux[partners] > 3e4
    error = places(sources)[rows][bright] - np.column_stack([scene.x, scene.y])[partners][bright]
    assert np.sqrt(np.mean(error**2)) < 0.02


def test_nothing_is_found_where_nothing_is() -> None:
    data = np.random.default_rng(4).normal(0, 5, (200, 200)).astype(np.float32)
    assert len(detect(data, np.zeros(data.shape, dtype=bool), threshold_sigmas=8)) == 0


def test_the_width_of_stars_is_the_seeing(scene: Scene) -> None:
    data = clean(scene)
    sources = detect(data, scene.mask, threshold_sigmas=5)
    # A Gaussian fitted to a Moffat profile that pixels have smeared comes out a tenth wider.
    assert stellar_fwhm(data, scene.mask, sources) == pytest.approx(1.1 * FWHM, rel=0.05)


def test_total_fluxes_of_bright_stars_are_right_to_a_percent(scene: Scene) -> None:
    data = clean(scene)
    sources = detect(data, scene.mask, threshold_sigmas=5)
    fluxes = total_flux(data, scene.error, scene.mask, sources, radius_px=4.5, total_radius_px=15)
    rows, partners = match(places(sources), np.column_stack([scene.x, scene.y]), radius_px=1)
    ratio = np.asarray(fluxes["flux"])[rows] / scene.flux[partners]
    bright = scene.flux[partners] > 3e4
    assert np.median(ratio[bright]) == pytest.approx(1, abs=0.01)
    assert mad_std(ratio[bright]) < 0.01


def test_flux_errors_are_the_scatter_of_fluxes(scene: Scene) -> None:
    data = clean(scene)
    fluxes = aperture_flux(data, scene.error, scene.mask, scene.x, scene.y, radius_px=12)
    pull = (np.asarray(fluxes["flux"]) - scene.flux * 0.998) / np.asarray(fluxes["flux_err"])
    assert 0.7 < mad_std(pull) < 1.4


def test_a_flux_is_flagged_where_the_mask_or_the_edge_cuts_into_it() -> None:
    data = np.ones((50, 50), dtype=np.float32)
    mask = np.zeros(data.shape, dtype=bool)
    mask[20, 22] = True
    x, y = np.array([20.0, 35.0, 1.0]), np.array([20.0, 35.0, 40.0])
    fluxes = aperture_flux(data, data, mask, x, y, radius_px=4)
    assert fluxes["flagged"].tolist() == [True, False, True]
    assert fluxes["flux"][1] == pytest.approx(np.pi * 16, rel=1e-5)


@given(st.floats(10, 35), st.floats(1, 1e6), st.floats(1e-3, 0.1))
def test_a_flux_in_magnitudes_and_back_is_the_flux(zero_point: float, flux: float, part: float) -> None:
    mag = magnitude(np.array([flux]), zero_point)[0]
    assert 10 ** (-0.4 * (mag - zero_point)) == pytest.approx(flux, rel=1e-9)
    error = magnitude_error(np.array([flux]), np.array([flux * part]))[0]
    assert error == pytest.approx(1.0857 * part, rel=1e-3)


def test_a_zero_point_is_found_in_spite_of_variable_stars() -> None:
    rng = np.random.default_rng(5)
    flux = 10 ** rng.uniform(3, 5, 40)
    reference = 30.25 - 2.5 * np.log10(flux) + rng.normal(0, 0.01, 40)
    reference[:4] += 0.7
    found = fit_zero_point(flux, flux * 0.005, reference, np.full(40, 0.01))
    assert found.value == pytest.approx(30.25, abs=0.006)
    assert found.stars <= 36


def test_without_usable_stars_there_is_no_zero_point() -> None:
    assert fit_zero_point(np.array([-1.0]), np.array([1.0]), np.array([15.0]), np.array([0.1])).stars == 0


@given(st.floats(-18, 18), st.floats(-18, 18), st.integers(0, 1000))
def test_an_offset_between_lists_is_found_though_neither_is_complete(dx: float, dy: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    stars = rng.uniform(0, 400, (70, 2))
    measured = stars[10:] + np.array([dx, dy]) + rng.normal(0, 0.1, (60, 2))
    assert pixel_offset(measured, stars[:50], search_px=20) == pytest.approx([dx, dy], abs=0.6)


@given(st.integers(0, 1000))
def test_matches_are_each_others_nearest(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.uniform(0, 30, (25, 2)), rng.uniform(0, 30, (30, 2))
    distance = np.hypot(*(a[:, None] - b[None]).transpose(2, 0, 1))
    slow = {
        (i, j)
        for i in range(25)
        for j in range(30)
        if distance[i, j] == distance[i].min() == distance[:, j].min() and distance[i, j] <= 2
    }
    assert set(zip(*map(np.ndarray.tolist, match(a, b, radius_px=2)), strict=True)) == slow


def test_a_wcs_off_by_several_pixels_is_corrected_to_hundredths() -> None:
    rng = np.random.default_rng(6)
    detector = camera.simulate_camera(rng)[2]
    truth = camera.detector_wcs(detector, 150.1, 2.2, rotation_deg=0.05)
    guess = camera.detector_wcs(detector, 150.1, 2.2)
    guess.wcs.crpix = np.asarray(guess.wcs.crpix) + np.array([6.4, -5.2])
    xy = rng.uniform(0, 400, (50, 2))
    ra, dec = truth.wcs_pix2world(xy, 0).T
    found = refine_wcs(xy[:40] + rng.normal(0, 0.05, (40, 2)), ra, dec, guess, search_px=20, radius_px=3)
    assert found is not None
    assert found.matched == 40
    assert found.rms_px == pytest.approx(0.05 * np.sqrt(2), rel=0.4)
    grid = np.column_stack([axis.ravel() for axis in np.meshgrid([0, 200, 400], [0, 200, 400])])
    back = found.wcs.wcs_world2pix(truth.wcs_pix2world(grid, 0), 0)
    assert np.abs(back - grid).max() < 0.06


def test_a_wcs_is_not_made_up_from_too_few_stars() -> None:
    wcs = camera.tangent_wcs(150.1, 2.2)
    assert (
        refine_wcs(np.array([[3.0, 4.0]]), np.array([150.1]), np.array([2.2]), wcs, search_px=20, radius_px=3)
        is None
    )
    assert (
        refine_wcs(np.empty((0, 2)), np.array([150.1]), np.array([2.2]), wcs, search_px=20, radius_px=3)
        is None
    )


@pytest.mark.parametrize(("dx", "dy"), [(0.0, 0.0), (-23.4, 7.7), (41.2, -35.9)])
def test_an_offset_between_faint_images_is_found_to_a_fifth_of_a_pixel(dx: float, dy: float) -> None:
    rng = np.random.default_rng(8)
    x, y, flux = rng.uniform(100, 300, 40), rng.uniform(100, 300, 40), np.full(40, 6000.0)
    stripes = rng.normal(0, 5, camera.SIZE)[None, :]

    def seen(shift_x: float, shift_y: float) -> np.ndarray:
        stars = frames.star_image(x + shift_x, y + shift_y, flux, 9.0)
        return (stars + stripes + rng.normal(0, 20, stars.shape)).astype(np.float32)

    mask = np.zeros((camera.SIZE, camera.SIZE), dtype=bool)
    found = image_offset(seen(dx, dy), mask, seen(0, 0), mask, smooth_px=4)
    assert found == pytest.approx([dx, dy], abs=0.2)


LIMITS = Limits(fwhm_px=5, extinction_mag=0.5, astrometric_rms_px=0.3, matched=20)
GOOD = DetectorQuality(detector=0, fwhm_px=2.7, sky=800, zero_point=30.4, astrometric_rms_px=0.05, matched=30)


def test_a_good_visit_has_no_reasons_against_it() -> None:
    assert judge([GOOD, GOOD], LIMITS, 30.5).is_good


def test_a_bad_visit_names_each_reason() -> None:
    bad = DetectorQuality(
        detector=0, fwhm_px=6.3, sky=3000, zero_point=28.9, astrometric_rms_px=0.4, matched=9
    )
    verdict = judge([bad, bad], LIMITS, 30.5)
    assert not verdict.is_good
    assert verdict.reasons == (
        "seeing 6.3 px, limit 5",
        "clouds take 1.60 mag, limit 0.5",
        "astrometry 0.40 px, limit 0.3",
        "18 stars matched, least 20",
    )


def test_clouds_are_not_judged_where_the_clear_sky_is_unknown() -> None:
    assert judge([GOOD], LIMITS, None).is_good


def clean(scene: Scene) -> np.ndarray:
    return scene.data - estimate_background(scene.data, scene.mask, box_px=50).level


def places(sources: object) -> np.ndarray:
    return np.column_stack([sources["x"], sources["y"]])  # type: ignore[index]
