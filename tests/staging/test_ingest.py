"""Raw frames into a repository: files and rows together, the same again a no-op, and nothing left after a failure."""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import polars as pl
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from loadmaster_registry.errors import Conflict, NotFound, RegistryError, StageError
from loadmaster_registry.store import Registry
from loadmaster_staging import ingest as ingest_module
from loadmaster_staging.backbone import Backbone
from loadmaster_staging.ingest import IngestReport, frame_files, ingest, raw_id
from loadmaster_staging.instrument import Instrument, load_instrument
from lsst.sphgeom import ConvexPolygon, Region

RUN = "Cam/raw/all"
TEXT = """\
name: Cam
detectors: [{id: 0, full_name: S00}, {id: 1, full_name: S01}, {id: 2, full_name: S02}]
filters: {cam-g: g}
detector: DETECTOR
exposure:
  id: EXPID
  obs_id: OBSID
  physical_filter: FILTER
  begin: DATE-OBS
  exposure_time: EXPTIME
  observation_type: IMAGETYP
  target_name: {keyword: OBJECT, default: null}
visits: {}
"""


class Site:
    """A registry, a backbone, an instrument and a folder of raw frames."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.raws = folder / "raws"
        self.raws.mkdir()
        (folder / "cam.yaml").write_text(TEXT)
        self.instrument: Instrument = load_instrument(folder / "cam.yaml")
        self.registry = Registry.create(str(folder / "registry.sqlite3"))
        self.root = folder / "files"

    def frame(self, exposure: int, detector: int, *, name: str = "", value: int = 0, **cards: Any) -> Path:
        path = self.raws / (name or f"cam_{exposure}_{detector}.fits")
        wcs = WCS(naxis=2)
        wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
        wcs.wcs.crval, wcs.wcs.crpix, wcs.wcs.cdelt = (
            [150.0, 2.0],
            [1 - 20 * detector, 1],
            [-1 / 3600, 1 / 3600],
        )
        header = wcs.to_header()
        header.update(
            {
                "DETECTOR": detector, "EXPID": exposure, "OBSID": f"C{exposure}", "FILTER": "cam-g",
                "DATE-OBS": f"2026-03-01T05:{exposure % 60:02d}:00", "EXPTIME": 30.0, "IMAGETYP": "science", **cards,
            }
        )  # fmt: skip
        fits.PrimaryHDU(np.full((10, 20), value, dtype=np.int16), header).writeto(path, overwrite=True)
        return path

    def ingest(self, *files: Path, **options: Any) -> IngestReport:
        return ingest(self.registry, str(self.root), self.instrument, files or [self.raws], **options)

    def datasets(self, run: str = RUN) -> pl.DataFrame:
        try:
            found = self.registry.datasets("raw", [run])
        except NotFound:
            return pl.DataFrame({"url": [], "exposure": []})
        return found.join(self.registry.files(found["dataset"]), on="dataset")

    def published(self) -> set[str]:
        paths = (p for p in self.root.rglob("*") if p.is_file() and ".staging" not in p.parts)
        return {str(p.relative_to(self.root)) for p in paths}

    def staged(self) -> list[Path]:
        return [p for p in (self.root / ".staging").rglob("*") if p.is_file()]

    def check(self) -> None:
        """A row for a file exists if and only if the file is there with the recorded size and checksum."""
        rows = self.datasets()
        assert self.published() == set(rows["url"])
        for row in rows.iter_rows(named=True):
            content = (self.root / row["url"]).read_bytes()
            assert row["size_bytes"] == len(content)
            assert row["checksum"] == f"sha256:{hashlib.sha256(content).hexdigest()}"
        assert not self.staged()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    found = Site(tmp_path)
    yield found
    found.registry.close()


def hull_of(site: Site, visit: int) -> set[tuple[float, ...]]:
    region = Region.decode(site.registry.records("visit", {"visit": [visit]})["region"][0])
    assert isinstance(region, ConvexPolygon)
    return {tuple(round(c, 12) for c in vertex) for vertex in region.getVertices()}


# --- what is taken


def test_files_and_all_their_records_come_in(site: Site) -> None:
    for exposure in (1, 2):
        for detector in (0, 1):
            site.frame(exposure, detector)
    site.frame(3, 0, IMAGETYP="bias")
    report = site.ingest()
    assert (len(report.taken), report.known, report.problems) == (5, (), ())
    assert (report.exposures, report.visits) == (3, 2)
    assert report.size_bytes == sum(p.stat().st_size for p in site.raws.iterdir())
    site.check()
    registry = site.registry
    assert registry.records("exposure")["obs_id"].to_list() == ["C1", "C2", "C3"]
    assert registry.records("visit")["visit"].to_list() == [1, 2]
    assert registry.records("visit")["name"].to_list() == ["C1", "C2"]
    assert registry.records("visit_definition").height == 2
    assert registry.records("visit_system")["name"].to_list() == ["one-to-one"]
    assert registry.records("visit_system_membership").height == 2
    assert registry.records("visit_detector_region").height == 4
    assert registry.records("group")["group"].to_list() == ["C1", "C2", "C3"]
    assert registry.records("day_obs")["day_obs"].to_list() == [20260228]
    assert registry.records("physical_filter")["band"].to_list() == ["g"]


def test_the_same_again_changes_nothing(site: Site) -> None:
    site.frame(1, 0)
    first = site.ingest()
    before = site.datasets()
    again = site.ingest()
    assert (again.taken, again.known) == ((), first.taken)
    assert (again.exposures, again.visits) == (0, 0)
    assert site.datasets().equals(before)
    site.check()


def test_a_frame_has_the_same_uuid_in_every_repository(site: Site) -> None:
    site.frame(1, 2)
    site.ingest()
    expected = UUID("a38860b0-6d10-5097-a12d-2602af6146d9")  # what Rubin's software computes
    assert raw_id({"instrument": "Cam", "detector": 2, "exposure": 1}) == expected
    assert UUID(bytes=site.datasets()["id"][0]) == expected


def test_batches_are_taken_one_by_one(site: Site) -> None:
    for exposure in range(1, 6):
        site.frame(exposure, 0)
    site.frame(6, 0, EXPTIME="long")
    with pytest.raises(StageError, match=r"cam_6_0\.fits"):
        site.ingest(*sorted(site.raws.iterdir()), batch_size=2)
    assert site.datasets()["exposure"].sort().to_list() == [1, 2, 3, 4]
    site.check()


def test_a_visit_grows_with_its_detectors_in_whatever_batches_they_come(site: Site) -> None:
    first, second, third = (site.frame(1, detector) for detector in range(3))
    site.frame(2, 0), site.frame(2, 1), site.frame(2, 2)
    site.ingest(first)
    alone = hull_of(site, 1)
    site.ingest(third)
    outer = hull_of(site, 1)
    report = site.ingest(second)  # lies between the others
    assert report.visits == 0
    assert hull_of(site, 1) == outer != alone
    site.ingest()
    assert hull_of(site, 2) == outer
    assert site.registry.records("visit_detector_region").height == 6
    site.check()


def test_compressed_files_keep_their_extension(site: Site) -> None:
    site.frame(1, 0, name="cam.fits.gz")
    site.ingest()
    assert site.datasets()["url"][0].endswith("raw_Cam_0_1.fits.gz")
    site.check()


def test_linked_files_share_their_bytes_with_the_original(site: Site) -> None:
    path = site.frame(1, 0)
    site.ingest(mode="link")
    site.check()
    assert (site.root / site.datasets()["url"][0]).samefile(path)


def test_linking_across_file_systems_copies(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    path = site.frame(1, 0)
    link = os.link

    def elsewhere(source: Any, target: Any, **options: Any) -> None:
        if Path(source).is_relative_to(site.raws):
            raise OSError(18, "Invalid cross-device link")
        link(source, target, **options)

    monkeypatch.setattr(os, "link", elsewhere)
    site.ingest(mode="link")
    site.check()
    assert not (site.root / site.datasets()["url"][0]).samefile(path)


def test_direct_leaves_files_where_they_are(site: Site) -> None:
    path = site.frame(1, 0)
    report = site.ingest(mode="direct")
    assert report.taken == (str(path),)
    row = site.datasets().row(0, named=True)
    assert (row["url"], row["size_bytes"]) == (str(path), path.stat().st_size)
    assert site.ingest(mode="copy").known == (str(path),)
    assert not site.published()


def test_an_object_store_can_be_the_backbone(site: Site) -> None:
    site.frame(1, 0)
    backbone = Backbone("memory://ingest-test")
    report = ingest(site.registry, backbone, site.instrument, [site.raws])
    row = site.datasets().row(0, named=True)
    assert report.taken
    assert backbone.measure(row["url"]).checksum == row["checksum"]
    assert ingest(site.registry, backbone, site.instrument, [site.raws]).known == report.taken


def test_folders_are_searched_by_the_pattern(site: Site) -> None:
    inside = site.frame(1, 0)
    (site.raws / "notes.txt").write_text("cloudy")
    (site.raws / "night2").mkdir()
    deeper = Path(shutil.move(site.frame(2, 0), site.raws / "night2"))
    assert frame_files(site.instrument, [site.raws, inside]) == [inside, deeper]


# --- what is not


def test_another_file_for_the_same_frame_is_a_conflict_that_names_both(site: Site) -> None:
    path = site.frame(1, 0)
    site.ingest()
    other = site.frame(1, 0, name="other.fits", value=7)
    with pytest.raises(Conflict) as caught:
        site.ingest(other)
    assert str(other) in str(caught.value)
    assert str(site.root / site.datasets()["url"][0]) in str(caught.value)
    with pytest.raises(Conflict) as caught:
        ingest(
            Registry.create(str(site.folder / "new.sqlite3")),
            str(site.folder / "new"),
            site.instrument,
            [path, other],
        )
    assert str(path) in str(caught.value)
    assert str(other) in str(caught.value)
    site.check()


def test_the_same_file_twice_in_one_call_is_taken_once(site: Site) -> None:
    path = site.frame(1, 0)
    copy = site.raws / "copy.fits"
    shutil.copy(path, copy)
    report = site.ingest(path, copy)
    assert (report.taken, report.known) == ((str(path),), (str(copy),))
    site.check()


def test_bad_files_are_skipped_and_told_where_that_is_asked(site: Site) -> None:
    good = site.frame(1, 0)
    cut = site.frame(1, 1)
    cut.write_bytes(cut.read_bytes()[:4000])
    nameless = site.frame(2, 0, FILTER="none")
    other = site.frame(1, 2, EXPTIME=31.0)
    twin = site.frame(1, 0, name="twin.fits", value=3)
    report = site.ingest(good, cut, nameless, other, twin, on_error="skip")
    assert report.taken == (str(good),)
    assert [p.file for p in report.problems] == [str(p) for p in (cut, nameless, other, twin)]
    told = [str(p.error) for p in report.problems]
    assert "breaks off" in told[0] or "no complete FITS" in told[0]
    assert "its filter 'none' is unknown" in told[1]
    assert "exposure_time is 30.0 in one and 31.0 in the other" in told[2]
    assert "two different files" in told[3]
    site.check()


def test_a_bad_file_stops_its_batch_and_nothing_of_it_is_left(site: Site) -> None:
    site.frame(1, 0)
    site.frame(2, 0, FILTER="none")
    with pytest.raises(StageError, match=r"cam_2_0\.fits"):
        site.ingest()
    assert site.datasets().is_empty()
    site.check()


def test_rows_that_the_registry_refuses_take_their_files_with_them(site: Site) -> None:
    site.ingest(site.frame(1, 0))
    with pytest.raises(Conflict, match="exposure_time"):
        site.ingest(site.frame(1, 1, EXPTIME=31.0), site.frame(2, 0))
    assert site.datasets()["exposure"].to_list() == [1]
    site.check()


def test_another_file_in_the_way_on_the_backbone_is_left_alone(site: Site) -> None:
    path = site.frame(1, 0)
    site.ingest()
    url = site.datasets()["url"][0]
    taken = site.folder / "fresh" / url
    taken.parent.mkdir(parents=True)
    taken.write_text("someone's")
    fresh = Registry.create(str(site.folder / "fresh.sqlite3"))
    with pytest.raises(Conflict) as caught:
        ingest(fresh, str(site.folder / "fresh"), site.instrument, [path])
    assert str(taken) in str(caught.value)
    assert taken.read_text() == "someone's"


def test_another_run_cannot_have_the_same_frame_and_gets_no_file(site: Site) -> None:
    site.frame(1, 0)
    site.ingest()
    with pytest.raises(RegistryError):
        site.ingest(run="Cam/raw/again")
    site.check()


def test_a_changed_description_contradicts_the_registry(site: Site) -> None:
    site.ingest(site.frame(1, 0))
    (site.folder / "cam.yaml").write_text(TEXT.replace("cam-g: g", "cam-g: r"))
    site.instrument = load_instrument(site.folder / "cam.yaml")
    with pytest.raises(Conflict, match="physical_filter"):
        site.ingest()


# --- kills

KILLED = """
import os, signal, sys
from loadmaster_registry.store import Registry
from loadmaster_staging import ingest as module
from loadmaster_staging.instrument import load_instrument

folder, function = sys.argv[1:]
whole = getattr(module, function)

def killed(*arguments):
    if function != "_register":
        whole(*arguments)
    os.kill(os.getpid(), signal.SIGKILL)

setattr(module, function, killed)
instrument = load_instrument(f"{folder}/cam.yaml")
module.ingest(Registry.open(f"{folder}/registry.sqlite3"), f"{folder}/files", instrument, [f"{folder}/raws"])
"""


@pytest.mark.parametrize("function", ["_stage", "_publish", "_register"])
def test_the_same_command_completes_an_ingest_that_was_killed(site: Site, function: str) -> None:
    site.frame(1, 0)
    site.frame(1, 1)
    ended = subprocess.run([sys.executable, "-c", KILLED, str(site.folder), function], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert site.datasets().is_empty()
    report = site.ingest()
    assert len(report.taken) == 2
    assert site.published() == set(site.datasets()["url"])


def test_what_another_ingest_has_registered_meanwhile_is_not_taken_back(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.frame(1, 0)
    register = ingest_module._register

    def late(order: Any, placed: Any) -> tuple[int, int]:
        monkeypatch.setattr(ingest_module, "_register", register)
        assert site.ingest().taken  # finds the file there, with the same bytes
        raise RegistryError(what="full", where="disk", why="full", todo="free some")

    monkeypatch.setattr(ingest_module, "_register", late)
    with pytest.raises(RegistryError, match="full"):
        site.ingest()
    site.check()
    assert site.datasets().height == 1


# --- real frames

SHIPPED = Path(__file__).parents[2] / "pipelines" / "loadmaster_pipelines" / "shipped" / "instruments"


def taken(cases: Path, folder: Path, instrument: str, raws: str) -> tuple[Registry, IngestReport]:
    registry = Registry.create(str(folder / "registry.sqlite3"))
    files = [cases / "fits" / raws]
    return registry, ingest(registry, str(folder / "files"), load_instrument(SHIPPED / instrument), files)


def test_real_frames_without_coordinates_come_in(cases: Path, tmp_path: Path) -> None:
    registry, report = taken(cases, tmp_path, "orion-ssdsi.yaml", "m13")
    assert (len(report.taken), report.exposures) == (5, 5)
    exposures = registry.records("exposure")
    assert exposures["exposure_time"].to_list() == [5.0] * 5
    assert exposures["day_obs"].unique().to_list() == [20130504]
    assert registry.records("visit_detector_region").is_empty()


def test_real_images_with_coordinates_come_in_with_their_regions(cases: Path, tmp_path: Path) -> None:
    registry, report = taken(cases, tmp_path, "twomass.yaml", "gc2mass")
    assert (len(report.taken), report.visits) == (3, 3)
    assert registry.records("visit").sort("visit")["physical_filter"].to_list() == ["J", "H", "K"]
    for encoded in registry.records("visit")["region"]:
        centre = Region.decode(encoded).getBoundingCircle().getCenter()
        ra = np.degrees(np.arctan2(centre.y(), centre.x())) % 360
        place = (ra, np.degrees(np.arcsin(centre.z())))
        assert place == pytest.approx((266.4, -28.933), abs=0.01)
