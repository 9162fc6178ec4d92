"""What comes into a repository by the command line: frames, sky maps, calibrations."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits

from loadmaster import Repo

Command = Callable[..., Any]
pytestmark = pytest.mark.filterwarnings("ignore:.*datfix")  # of Astropy, about headers without MJD-OBS
CAMERA = """\
name: Cam
detectors: [{id: 0, full_name: S0}]
filters: {clear: white}
detector: {value: 0}
exposure:
  id: EXPID
  physical_filter: {value: clear}
  begin: DATE-OBS
  exposure_time: EXPTIME
day_obs: {offset_hours: 12}
"""
SKY_MAP = """\
name: small
pixel_scale: 1.0
patch_px: 100
tracts: [{id: 7, ra: 10, dec: 20, nx: 2, ny: 1}]
"""


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    """Return a folder with two frames and a file that is none."""
    folder = tmp_path / "frames"
    folder.mkdir()
    for number in (1, 2):
        header = fits.Header({"EXPID": number, "DATE-OBS": f"2026-03-01T05:0{number}:00", "EXPTIME": 30.0})
        fits.PrimaryHDU(np.full((4, 4), number, dtype=np.int16), header).writeto(folder / f"{number}.fits")
    (folder / "3.fits").write_text("a page of notes")
    (tmp_path / "camera.yaml").write_text(CAMERA)
    return folder


def test_a_file_that_is_no_frame_stops_the_ingest_or_is_skipped_and_named(
    command: Command, frames: Path
) -> None:
    command("init", "r")
    words = ("ingest", "camera.yaml", frames, "--repo", "r", "--json")
    stopped = command(*words)
    assert stopped.returncode == 1
    assert "3.fits" in stopped.stderr
    skipped = command(*words, "--on-error", "skip")
    assert skipped.returncode == 0
    report = json.loads(skipped.stdout)
    assert [Path(file).name for file in report["taken"]] == ["1.fits", "2.fits"]
    assert Path(report["problems"][0]["file"]).name == "3.fits"
    assert "skipped" in skipped.stderr


def test_the_same_frames_again_change_nothing(command: Command, frames: Path) -> None:
    command("init", "r")
    command("ingest", "camera.yaml", frames / "1.fits", "--repo", "r")
    again = json.loads(command("ingest", "camera.yaml", frames / "1.fits", "--repo", "r", "--json").stdout)
    assert (len(again["taken"]), len(again["known"])) == (0, 1)
    with Repo("r") as repo:
        image = repo.get("raw", collections="Cam/raw/all", instrument="Cam", exposure=1, detector=0)
    assert (np.asarray(image.data) == 1).all()


def test_an_unknown_camera_is_answered_with_those_that_are_shipped(command: Command, frames: Path) -> None:
    command("init", "r")
    told = command("ingest", "simcma", frames, "--repo", "r")
    assert told.returncode == 3
    assert "did you mean 'simcam'" in told.stderr


def test_a_sky_map_is_registered_and_is_a_dataset_that_tasks_can_read(
    command: Command, tmp_path: Path
) -> None:
    (tmp_path / "small.yaml").write_text(SKY_MAP)
    command("init", "r")
    for _ in range(2):  # the second time changes nothing
        assert command("register-skymap", "small.yaml", "--repo", "r").returncode == 0
    patches = json.loads(command("query-dimension-records", "patch", "--repo", "r", "--json").stdout)
    assert [(patch["tract"], patch["patch"]) for patch in patches] == [(7, 0), (7, 1)]
    with Repo("r") as repo:
        assert repo.get("skyMap", collections="skymaps", skymap="small").patch_shape(7, 0) == (100, 100)


def test_another_sky_map_of_the_same_name_is_refused(command: Command, tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(SKY_MAP)
    (tmp_path / "other.yaml").write_text(SKY_MAP.replace("ra: 10", "ra: 11"))
    command("init", "r")
    command("register-skymap", "small.yaml", "--repo", "r")
    told = command("register-skymap", "other.yaml", "--repo", "r")
    assert told.returncode == 3


def test_a_calibration_cannot_be_certified_over_another_one(survey: Repo, command: Command) -> None:
    for run in ("Cam/first", "Cam/second"):
        survey.put(
            run,
            "bias",
            {"instrument": "Cam", "detector": 0},
            run=run,
            dimensions=["detector"],
            storage_class="Text",
            is_calibration=True,
        )
    words = ("certify", "Cam/calib", "bias", "--repo", survey.place.folder, "--begin", "2026-03-01", "--end")
    assert command(*words, "2026-04-01", "-i", "Cam/first").returncode == 0
    told = command(*words, "2026-05-01", "-i", "Cam/second")
    assert told.returncode == 3
    assert "2026-04-01" in told.stderr  # both ranges are shown
    assert "2026-05-01" in told.stderr


@pytest.mark.parametrize("name", ["with blank", "ümlaut", "100%41", "what?", "a#b", "semi;colon"])
def test_a_repository_may_have_any_name(command: Command, tmp_path: Path, name: str) -> None:
    assert command("init", name).returncode == 0
    assert command("query-collections", "--repo", name).returncode == 0
    assert [path.parent for path in tmp_path.rglob("registry.sqlite3")] == [tmp_path / name]
