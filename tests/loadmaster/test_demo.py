"""The demos, from nothing to the truth check, through everything that Loadmaster is."""

import hashlib
import io
import json
import shutil
from pathlib import Path
from uuid import UUID

import numpy as np
import pytest
from astropy.nddata import CCDData
from astropy.table import Table
from rich.console import Console

from loadmaster import NotFound, RegistryError, Repo
from loadmaster.demo import run_demo, run_real_demo
from loadmaster.demo.preview import mosaic, write_preview
from loadmaster.demo.real import TOOLS, RealDemoResult
from loadmaster.demo.simulated import CALIBRATIONS, OUTPUT, DemoResult
from loadmaster.demo.truth import compare

PNG = b"\x89PNG\r\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo") / "demo"


@pytest.fixture(scope="module")
def told() -> io.StringIO:
    return io.StringIO()


@pytest.fixture(scope="module")
def result(folder: Path, told: io.StringIO) -> DemoResult:
    return run_demo(folder, jobs=2, console=Console(file=told, width=200))


def test_objects_are_where_the_stars_are_to_a_tenth_of_a_pixel(result: DemoResult) -> None:
    assert [check.band for check in result.checks] == ["g", "r"]
    assert all(check.astrometry_px <= 0.1 for check in result.checks)


def test_bright_objects_are_as_bright_as_the_stars_to_two_percent(result: DemoResult) -> None:
    assert all(check.photometry <= 0.02 for check in result.checks)
    assert all(check.stars >= 20 for check in result.checks)


def test_the_visit_under_clouds_is_named_with_reasons_and_no_other(result: DemoResult) -> None:
    assert tuple(result.bad_visits) == result.true_bad_visits
    assert all(any("clouds" in reason for reason in reasons) for reasons in result.bad_visits.values())
    assert result.is_good


def test_the_bad_visit_has_no_warp_and_the_others_have_one_in_each_patch(
    result: DemoResult, folder: Path
) -> None:
    with Repo(folder) as repo:
        warps = repo.query_datasets("warp", OUTPUT)
        coadds = repo.query_datasets("coadd", OUTPUT)
    assert not set(warps["visit"]) & set(result.true_bad_visits)
    assert warps.height == 6 * 8
    assert coadds.height == 2 * 8


def test_calibrations_are_certified_for_every_detector(result: DemoResult, folder: Path) -> None:
    with Repo(folder) as repo:
        counts = {
            name: repo.query_datasets(name, CALIBRATIONS).height
            for name in ("bias", "dark", "flat", "defects")
        }
    assert counts == {"bias": 4, "dark": 4, "flat": 8, "defects": 4}


def test_every_registered_output_is_there_with_its_size_and_checksum(
    result: DemoResult, folder: Path
) -> None:
    with Repo(folder) as repo:
        found = repo.query_datasets("calibrated_image", OUTPUT)
        files = [repo.registry.find(UUID(bytes=value)) for value in found["id"]]
        assert len(files) == 28
        for ref in files:
            content = Path(repo.backbone.url(ref.url).removeprefix("file://")).read_bytes()
            assert len(content) == ref.size_bytes
            assert f"sha256:{hashlib.sha256(content).hexdigest()}" == ref.checksum


def test_the_story_shows_plans_reports_truth_picture_and_the_next_step(
    result: DemoResult, folder: Path, told: io.StringIO
) -> None:
    story = told.getvalue()
    for words in (
        "plan of u/demo/drp/",
        "staged and harvested",
        "Left out of the coadds: visit",
        "photometry rms",
        "Next: loadmaster ",
    ):
        assert words in story
    assert str(result.preview) in story
    assert result.preview.read_bytes().startswith(PNG)


def test_a_demo_overwrites_nothing(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    with pytest.raises(RegistryError, match="exists already"):
        run_demo(tmp_path / "precious")


def sky(n: int, seed: int = 1) -> Table:
    """Return bright stars far from each other."""
    rng = np.random.default_rng(seed)
    steps = np.arange(n)
    return Table({"ra": 150 + steps * 0.01, "dec": rng.uniform(2, 2.1, n), "mag_r": rng.uniform(17, 19, n)})


def seen(stars: Table, dx_arcsec: float = 0.0, dmag: float = 0.0) -> Table:
    ra = stars["ra"] + dx_arcsec / 3600 / np.cos(np.radians(stars["dec"]))
    flagged = np.zeros(len(stars), dtype=bool)
    return Table({"ra": ra, "dec": stars["dec"], "mag": stars["mag_r"] + dmag, "flagged": flagged})


def test_perfect_measurements_are_no_distance_from_the_truth() -> None:
    check = compare(seen(sky(20)), sky(20), "r", pixel_arcsec=0.5)
    assert (check.stars, check.is_good) == (20, True)
    assert check.astrometry_px == pytest.approx(0, abs=1e-6)


def test_errors_are_told_in_pixels_and_in_parts_of_the_flux() -> None:
    check = compare(seen(sky(20), dx_arcsec=0.1, dmag=0.05), sky(20), "r", pixel_arcsec=0.5)
    assert check.astrometry_px == pytest.approx(0.2, rel=1e-3)
    assert check.photometry == pytest.approx(0.045, abs=1e-3)
    assert not check.is_good


def test_a_star_with_a_neighbour_says_nothing() -> None:
    stars = sky(5)
    stars.add_row([stars["ra"][0] + 2 / 3600, stars["dec"][0], 20.5])
    assert compare(seen(stars[:5], dmag=0.001), stars, "r", pixel_arcsec=0.5).stars == 4


def test_without_objects_the_check_fails() -> None:
    assert not compare(seen(sky(3))[:0], sky(3), "r", pixel_arcsec=0.5).is_good


def test_a_mosaic_lays_patches_where_they_belong_and_leaves_out_masked_pixels(tmp_path: Path) -> None:
    left, right = (
        CCDData(np.full((4, 5), v, dtype=np.float32), unit="nJy", mask=np.zeros((4, 5), bool)) for v in (1, 2)
    )
    right.mask[0, 0] = True
    canvas = mosaic({(0, 0): left, (4, 0): right}, (4, 9))
    assert canvas[0].tolist() == [1, 1, 1, 1, 1, 2, 2, 2, 2]
    write_preview(tmp_path / "p.png", {"both": canvas})
    assert (tmp_path / "p.png").read_bytes().startswith(PNG)


def test_a_real_demo_without_images_says_where_it_looked(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="there are no images"):
        run_real_demo(tmp_path / "nowhere", tmp_path / "demo")


@pytest.fixture(scope="module")
def real(cases: Path, tmp_path_factory: pytest.TempPathFactory) -> RealDemoResult:
    if lacking := [package for program, package in TOOLS.items() if shutil.which(program) is None]:
        pytest.skip(f"apt-get install {' '.join(lacking)}")
    folder = tmp_path_factory.mktemp("real") / "demo"
    return run_real_demo(cases / "fits", folder, jobs=2, console=Console(file=io.StringIO()))


@pytest.mark.integration
def test_without_the_debian_tools_their_packages_are_named_and_the_rest_is_done(
    cases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    told = io.StringIO()
    found = run_real_demo(cases / "fits", tmp_path / "demo", jobs=2, console=Console(file=told, width=200))
    assert found.missing_packages == ("source-extractor", "swarp")
    assert "apt-get install swarp" in told.getvalue()
    assert not found.sources
    assert len(found.offsets_px) == 5
    assert found.preview.read_bytes().startswith(PNG)


@pytest.mark.integration
def test_the_frames_of_m13_drift_as_a_telescope_drifts(real: RealDemoResult) -> None:
    """A mount that does not track well carries the field steadily one way, here by a pixel a second."""
    dx, dy = np.array([real.offsets_px[str(number)] for number in range(1, 6)]).T
    assert np.abs([dx[0], dy[0]]).max() < 1e-3
    assert ((np.diff(dx) > -15) & (np.diff(dx) < -8)).all()
    assert np.abs(np.diff(dy)).max() < 4


@pytest.mark.integration
def test_source_extractor_finds_the_stars(real: RealDemoResult) -> None:
    assert real.sources["stack_sources"] > 30
    assert real.sources["mosaic_sources"] > 1000


@pytest.mark.integration
def test_the_real_survey_is_planned_to_the_expected_graph(real: RealDemoResult, cases: Path) -> None:
    expected = json.loads((cases / "expected" / "graphs" / "g10-drp-one-patch-one-band.json").read_text())
    assert real.survey_plan is not None
    planned = real.survey_plan.planned
    for task in planned.header.tasks:
        ids = planned.quanta(task.label).select(expected["tasks"][task.label]["keys"]).rows()
        assert sorted(map(list, ids)) == sorted(q["id"] for q in expected["tasks"][task.label]["quanta"])
    assert {task.label for task in planned.header.tasks} == set(expected["tasks"])
    assert sum(c.edges for task in planned.header.tasks for c in task.connections) == expected["n_edges"]
