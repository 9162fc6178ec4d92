"""Resampling and averaging: fluxes stay, masked pixels stay out, and so does what only one image has seen."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loadmaster_pipelines.imaging.coaddition import coadd, paste
from loadmaster_pipelines.imaging.detection import detect
from loadmaster_pipelines.imaging.photometry import aperture_flux
from loadmaster_pipelines.imaging.resampling import Resampled, fill, translate, warp

from loadmaster.simulation import camera, frames

SHAPE = (220, 220)


def source_wcs() -> camera.WCS:
    return camera.tangent_wcs(150.1, 2.2, rotation_deg=3.0, reference_pixel=(200.3, 201.1))


def target_wcs(scale_arcsec: float) -> camera.WCS:
    return camera.tangent_wcs(150.1, 2.2, scale_arcsec=scale_arcsec, reference_pixel=(110.0, 110.0))


@pytest.mark.parametrize("scale_arcsec", [0.4, 0.5, 0.62])
def test_a_warp_keeps_fluxes_and_places_whatever_the_size_of_its_pixels(scale_arcsec: float) -> None:
    x, y = np.array([180.2, 230.6]), np.array([190.4, 221.3])
    image = frames.star_image(x, y, np.array([2e4, 1e4]), 3.0)
    nothing = np.zeros(image.shape, dtype=bool)
    warped = warp(image, np.ones_like(image), nothing, source_wcs(), target_wcs(scale_arcsec), SHAPE)
    at = target_wcs(scale_arcsec).wcs_world2pix(source_wcs().wcs_pix2world(np.column_stack([x, y]), 0), 0)
    there = aperture_flux(
        warped.data, warped.data, warped.mask, at[:, 0], at[:, 1], radius_px=7 / scale_arcsec
    )
    here = aperture_flux(image, image, nothing, x, y, radius_px=7 / 0.5)
    assert np.asarray(there["flux"]) == pytest.approx(np.asarray(here["flux"]), rel=2e-3)
    found = detect(np.nan_to_num(warped.data) + 0.01, warped.mask, threshold_sigmas=50)
    assert np.column_stack([found["x"], found["y"]]) == pytest.approx(at, abs=0.02)


def test_a_warp_scales_variance_by_the_square_of_the_area() -> None:
    flat = np.ones((400, 400), dtype=np.float32)
    nothing = np.zeros(flat.shape, dtype=bool)
    warped = warp(flat, flat, nothing, source_wcs(), target_wcs(1.0), (90, 90))
    assert warped.data[45, 45] == pytest.approx(4, rel=1e-4)
    assert warped.variance[45, 45] == pytest.approx(16, rel=1e-4)


def test_a_warp_hides_masked_pixels_and_lets_them_spoil_nothing() -> None:
    image = np.ones((400, 400), dtype=np.float32)
    mask = np.zeros(image.shape, dtype=bool)
    mask[:, 200] = True
    image[mask] = 1e6
    warped = warp(image, np.ones_like(image), mask, source_wcs(), target_wcs(0.5), SHAPE)
    assert 0.004 < warped.mask.mean() < 0.03
    assert np.abs(warped.data[~warped.mask] - 1).max() < 1e-3


def test_outside_the_image_a_warp_is_masked() -> None:
    image = np.ones((400, 400), dtype=np.float32)
    far = camera.tangent_wcs(151.0, 2.2)
    warped = warp(image, image, np.zeros(image.shape, dtype=bool), source_wcs(), far, (50, 50))
    assert warped.mask.all()


def test_filling_takes_masked_pixels_from_those_around_them() -> None:
    data = np.full((40, 40), 7.0, dtype=np.float32)
    mask = np.zeros(data.shape, dtype=bool)
    mask[:, 12] = True
    data[mask] = np.nan
    assert np.allclose(fill(data, mask), 7.0)


def test_a_translation_moves_a_star_by_a_fraction_of_a_pixel() -> None:
    image = frames.star_image(np.array([150.0]), np.array([160.0]), np.array([1e4]), 4.0)
    moved = translate(image, np.zeros(image.shape, dtype=bool), 3.3, -7.6)
    truth = frames.star_image(np.array([153.3]), np.array([152.4]), np.array([1e4]), 4.0)
    seen = ~moved.mask
    assert np.abs(moved.data - truth)[seen].max() < 0.02 * truth.max()


def image(data: np.ndarray, variance: float = 1.0, mask: np.ndarray | None = None) -> Resampled:
    hidden = np.zeros(data.shape, dtype=bool) if mask is None else mask
    return Resampled(data.astype(np.float32), np.full(data.shape, variance, dtype=np.float32), hidden)


def test_a_coadd_weighs_images_by_their_variance() -> None:
    result = coadd([image(np.full((5, 5), 10.0), 1), image(np.full((5, 5), 13.0), 2)], seeing_tolerance=10)
    assert result.data[2, 2] == pytest.approx(11.0)
    assert result.variance[2, 2] == pytest.approx(2 / 3)


def test_a_coadd_turns_out_what_one_image_alone_has_seen() -> None:
    flat = [np.full((6, 6), 10.0) for _ in range(3)]
    flat[1][3, 4] = 500
    result = coadd([image(f) for f in flat], seeing_tolerance=0.5)
    assert result.data[3, 4] == pytest.approx(10)
    assert result.depth[3, 4] == 2
    assert result.clipped == 1


def test_a_coadd_keeps_the_cores_of_stars_seen_in_different_seeing() -> None:
    at, flux = np.array([200.0]), np.array([1e5])
    stars = [frames.star_image(at, at, flux, fwhm)[150:250, 150:250] for fwhm in (2.4, 2.7, 3.1)]
    result = coadd([image(s, 100.0) for s in stars], seeing_tolerance=0.6)
    assert result.clipped == 0
    assert result.data.sum() == pytest.approx(np.mean([s.sum() for s in stars]), rel=1e-4)


def test_two_images_have_no_majority_and_nothing_is_turned_out() -> None:
    result = coadd([image(np.full((3, 3), 0.0)), image(np.full((3, 3), 900.0))], seeing_tolerance=0.0)
    assert result.clipped == 0


@settings(max_examples=30)
@given(st.integers(0, 10_000), st.integers(1, 6))
def test_a_coadd_is_the_average_of_what_is_not_masked(seed: int, number: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.normal(100, 1, (number, 8, 8))
    masks = rng.uniform(size=values.shape) < 0.3
    result = coadd([image(v, 1.0, m) for v, m in zip(values, masks, strict=True)], seeing_tolerance=1.0)
    slow = np.ma.array(values, mask=masks).mean(axis=0).filled(np.nan)
    np.testing.assert_allclose(result.data, slow, rtol=1e-5)
    np.testing.assert_array_equal(result.depth, (~masks).sum(axis=0))


def test_pasting_takes_each_pixel_from_the_first_image_that_has_it() -> None:
    left, right = np.zeros((4, 4), dtype=bool), np.zeros((4, 4), dtype=bool)
    left[:, 2:], right[:, :1] = True, True
    merged = paste([image(np.full((4, 4), 1.0), 1, left), image(np.full((4, 4), 2.0), 2, right)])
    assert merged.data[0].tolist() == [1, 1, 2, 2]
    assert merged.variance[0].tolist() == [1, 1, 2, 2]
    assert not merged.mask.any()
