"""The simulated survey: what it promises as truth is what is in its pixels and headers."""

from pathlib import Path

import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS

from loadmaster.simulation import SimulatedSurvey, camera, frames, simulate_survey, sky
from loadmaster.simulation.survey import true_wcs


@pytest.fixture(scope="module")
def survey(tmp_path_factory: pytest.TempPathFactory) -> SimulatedSurvey:
    return simulate_survey(tmp_path_factory.mktemp("survey") / "sim")


def test_the_survey_has_two_bands_with_three_good_visits_each_and_one_bad_visit(
    survey: SimulatedSurvey,
) -> None:
    good = [visit.band for visit in survey.visits if not visit.is_bad]
    assert {band: good.count(band) for band in sky.BANDS} == {"g": 3, "r": 3}
    assert sum(visit.is_bad for visit in survey.visits) == 1


def test_every_exposure_has_a_frame_of_each_detector(survey: SimulatedSurvey) -> None:
    headers = [fits.getheader(path) for path in survey.raws]
    found = {(h["EXPID"], h["DETECTOR"]) for h in headers}
    assert len(found) == len(survey.raws) == 4 * len(survey.exposures)
    assert {h["OBSTYPE"] for h in headers} == {"bias", "dark", "flat", "science"}


def test_the_same_seed_gives_the_same_pixels(survey: SimulatedSurvey, tmp_path: Path) -> None:
    again = simulate_survey(tmp_path / "again")
    assert [p.name for p in again.raws] == [p.name for p in survey.raws]
    assert all(
        a.read_bytes() == b.read_bytes() for a, b in zip(again.raws[::7], survey.raws[::7], strict=True)
    )


def test_a_header_looks_a_few_pixels_beside_the_truth(survey: SimulatedSurvey) -> None:
    detectors = {d.id: d for d in camera.simulate_camera(np.random.default_rng(2026))}
    exposures = {e.id: e for e in survey.exposures}
    for path in [p for p in survey.raws if fits.getheader(p)["OBSTYPE"] == "science"]:
        header = fits.getheader(path)
        truth = true_wcs(exposures[header["EXPID"]], detectors[header["DETECTOR"]])
        middle = truth.pixel_to_world(camera.SIZE / 2, camera.SIZE / 2)
        x, y = WCS(header).world_to_pixel(middle)
        distance = np.hypot(x - camera.SIZE / 2, y - camera.SIZE / 2)
        assert 3 < distance < 12


def test_calibration_frames_have_no_place_on_the_sky(survey: SimulatedSurvey) -> None:
    dark = next(h for h in map(fits.getheader, survey.raws) if h["OBSTYPE"] == "dark")
    assert not WCS(dark).has_celestial


def test_a_star_image_holds_the_flux_it_was_given() -> None:
    x, y, flux = np.array([100.3, 250.0]), np.array([80.7, 300.5]), np.array([1000.0, 500.0])
    image = frames.star_image(x, y, flux, fwhm_px=2.6)
    assert image.sum() == pytest.approx(1500, rel=2e-3)


def test_a_star_image_has_its_centre_and_width_where_it_was_told() -> None:
    image = frames.star_image(np.array([200.25]), np.array([150.75]), np.array([1e5]), fwhm_px=4.0)
    rows, columns = np.indices(image.shape)
    box = (slice(141, 161), slice(190, 210))
    total = image[box].sum()
    assert (image[box] * columns[box]).sum() / total == pytest.approx(200.25, abs=0.02)
    assert (image[box] * rows[box]).sum() / total == pytest.approx(150.75, abs=0.02)
    above_half = (image > image.max() / 2).sum()
    assert 2 * np.sqrt(above_half / np.pi) == pytest.approx(4.0, rel=0.1)


def test_the_reference_knows_most_bright_stars_to_its_errors(survey: SimulatedSurvey) -> None:
    reference, stars = Table.read(survey.folder / "reference.fits"), Table.read(survey.folder / "truth.fits")
    assert 0.8 < len(reference) / (stars["mag_r"] < 20.5).sum() < 1
    truth = stars[reference["id"]]
    place = SkyCoord(truth["ra"], truth["dec"], unit="deg")
    apart = place.separation(SkyCoord(reference["ra"], reference["dec"], unit="deg")).mas
    assert np.sqrt(np.mean(apart**2)) == pytest.approx(15 * np.sqrt(2), rel=0.2)
    assert np.std(reference["mag_r"] - truth["mag_r"]) == pytest.approx(0.01, rel=0.3)


def test_bad_columns_show_in_raw_frames(survey: SimulatedSurvey) -> None:
    detector = camera.simulate_camera(np.random.default_rng(2026))[0]
    flat = next(
        fits.getdata(p) for p in survey.raws if fits.getval(p, "OBSTYPE") == "flat" and "S00" in p.name
    )
    level = np.median(flat[:, : camera.SIZE])
    dead = [c for c in detector.bad_columns if np.median(flat[:, c]) < level / 2]
    assert len(dead) == 1
