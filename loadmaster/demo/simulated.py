"""The demo on a simulated sky: from raw frames to coadds and catalogues, checked against the truth."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from astropy.table import Table as Catalogue
from astropy.table import vstack
from loadmaster_registry.errors import RegistryError
from loadmaster_registry.skymap import SkyMap, unit_vectors
from lsst.sphgeom import HtmPixelization, UnitVector3d
from numpy.typing import NDArray
from rich.console import Console

from ..repo import Repo
from ..simulation import SimulatedSurvey, simulate_survey
from ..simulation.sky import BANDS
from ..tables import Table
from .guide import Guide
from .preview import Pixels, mosaic, write_preview
from .truth import TruthCheck, compare

RAW = "SimCam/raw/all"
CALIBRATIONS = "SimCam/calib"
REFERENCE = "refcats/sim"
OUTPUT = "u/demo/drp"

_HTM_LEVEL = 7


@dataclass(frozen=True, slots=True)
class DemoResult:
    """What the demo found."""

    checks: tuple[TruthCheck, ...]
    bad_visits: dict[int, tuple[str, ...]]  # visit → why it was left out
    true_bad_visits: tuple[int, ...]
    preview: Path

    @property
    def is_good(self) -> bool:
        """Whether the truth came out, and the bad visit was told from the good ones."""
        return all(check.is_good for check in self.checks) and tuple(self.bad_visits) == self.true_bad_visits


def run_demo(folder: Path, *, jobs: int | None = None, console: Console | None = None) -> DemoResult:
    """Simulate a survey, and take it from raw frames to catalogues in a new repository.

    Parameters
    ----------
    folder : Path
        Where the repository is made; nothing may be there.
    jobs : int, optional
        How many jobs at once; as many as there are cores by default.
    console : Console, optional
        Where the story is told; stdout by default.

    Raises
    ------
    RegistryError
        If `folder` exists.
    RunError
        If a job fails.
    """
    if folder.exists():
        raise RegistryError(
            what=f"{str(folder)!r} exists already",
            where=str(folder.resolve()),
            why="the demo starts from nothing and overwrites nothing",
            todo=f"take it away (rm -r {folder}), or name another folder",
        )
    with Repo.init(folder) as repo:
        guide = Guide(repo, jobs) if console is None else Guide(repo, jobs, console)
        survey = _simulated(guide, folder)
        sky_map = _take_in(guide, survey)
        _calibrate(guide)
        _process(guide)
        result = _check(guide, survey, sky_map, folder)
        _conclude(guide, folder, result)
    return result


def _simulated(guide: Guide, folder: Path) -> SimulatedSurvey:
    survey = simulate_survey(folder / "simulated")
    guide.say(
        f"Simulated {len(survey.raws)} raw frames of {len(survey.exposures)} exposures with 4 detectors, "
        f"{len(survey.visits)} of them of the sky in {len(BANDS)} bands; one was taken through clouds."
    )
    return survey


def _take_in(guide: Guide, survey: SimulatedSurvey) -> SkyMap:
    """Register frames, sky map and reference catalogue."""
    repo = guide.repo
    report = repo.ingest("simcam", survey.raws, mode="link")
    stored = repo.register_skymap("simsky")
    htm, pixels = f"htm{_HTM_LEVEL}", _htm_pixels(survey.reference)
    for pixel in np.unique(pixels):
        repo.put(
            survey.reference[pixels == pixel],
            "reference_stars",
            {htm: int(pixel)},
            run=REFERENCE,
            dimensions=[htm],
            storage_class="Catalog",
        )
    guide.say(
        f"Ingested {len(report.taken)} frames of {report.exposures} exposures, {report.visits} of them visits, into "
        f"{RAW}; put {len(survey.reference)} reference stars into {REFERENCE}."
    )
    sky_map: SkyMap = repo.get("skyMap", collections=stored.run, skymap="simsky")
    return sky_map


def _htm_pixels(reference: Catalogue) -> NDArray[np.int64]:
    pixelization = HtmPixelization(_HTM_LEVEL)
    vectors = unit_vectors(np.asarray(reference["ra"]), np.asarray(reference["dec"]))
    return np.array([pixelization.index(UnitVector3d(*vector)) for vector in vectors.tolist()])


def _calibrate(guide: Guide) -> None:
    """Build bias, dark, flat and defects, each certified before the next step uses it."""
    inputs: tuple[str, ...] = (RAW,)
    for kind, products in (("bias", ["bias"]), ("dark", ["dark"]), ("flat", ["flat", "defects"])):
        guide.say(f"\nCalibrations: {kind}")
        run = guide.process(
            f"sim-calib.yaml#{kind}",
            inputs=inputs,
            output=f"u/demo/{kind}",
            where=f"instrument='SimCam' AND exposure.observation_type='{kind}'",
            allow_partial_gather=True,  # of all frames just those of one kind
        )
        for product in products:
            count = guide.repo.certify(
                CALIBRATIONS, product, inputs=run.name, begin="2026-03-01", end="2026-04-01"
            )
            guide.say(f"Certified {count} {product} in {CALIBRATIONS} for March 2026.")
        inputs = (run.name, *inputs)


def _process(guide: Guide) -> None:
    guide.say("\nData release processing: raw frames to catalogues")
    guide.process(
        "sim-drp.yaml",
        inputs=(RAW, CALIBRATIONS, REFERENCE, "skymaps"),
        output=OUTPUT,
        where="instrument='SimCam' AND skymap='simsky'",
    )


def _check(guide: Guide, survey: SimulatedSurvey, sky_map: SkyMap, folder: Path) -> DemoResult:
    visits = [visit.id for visit in survey.visits]
    summaries = {
        visit: guide.repo.get("visit_summary", collections=OUTPUT, instrument="SimCam", visit=visit)
        for visit in visits
    }
    guide.show(_visits_table(summaries))
    checks = tuple(
        compare(_objects(guide.repo, sky_map, band), survey.stars, band, pixel_arcsec=sky_map.pixel_scale)
        for band in BANDS
    )
    preview = folder / "coadd.png"
    write_preview(preview, _mosaics(guide.repo, sky_map))
    return DemoResult(
        checks=checks,
        bad_visits={visit: tuple(s["reasons"]) for visit, s in summaries.items() if not s["good"]},
        true_bad_visits=tuple(visit.id for visit in survey.visits if visit.is_bad),
        preview=preview,
    )


def _patches(sky_map: SkyMap) -> list[tuple[int, int]]:
    return [(tract.id, patch) for tract in sky_map.tracts for patch in range(tract.nx * tract.ny)]


def _objects(repo: Repo, sky_map: SkyMap, band: str) -> Catalogue:
    return vstack(
        [
            repo.get(
                "object_catalog", collections=OUTPUT, skymap=sky_map.name, tract=tract, patch=patch, band=band
            )
            for tract, patch in _patches(sky_map)
        ],
        metadata_conflicts="silent",
    )


def _mosaics(repo: Repo, sky_map: SkyMap) -> dict[str, Pixels]:
    """Return a picture of each tract in each band."""
    images = {}
    for band in BANDS:
        for tract in sky_map.tracts:
            patches = {}
            for patch in range(tract.nx * tract.ny):
                box = sky_map.patch_bbox(tract.id, patch)
                patches[box.x_begin, box.y_begin] = repo.get(
                    "coadd", collections=OUTPUT, skymap=sky_map.name, tract=tract.id, patch=patch, band=band
                )
            shape = (tract.ny * sky_map.patch_px, tract.nx * sky_map.patch_px)
            images[f"tract {tract.id}, band {band}"] = mosaic(patches, shape)
    return images


def _visits_table(summaries: Mapping[int, Mapping[str, Any]]) -> Table:
    rows = tuple(
        (
            str(visit),
            s["band"],
            f"{s['fwhm_px']:.2f}",
            f"{s['zero_point']:.2f}",
            f"{s['astrometric_rms_px']:.3f}",
            str(s["matched"]),
            "good" if s["good"] else "BAD",
        )
        for visit, s in summaries.items()
    )
    headings = ("visit", "band", "seeing px", "zero point", "astrometry px", "stars", "verdict")
    return Table(headings, rows, "visits", frozenset(headings[2:6]))


def _conclude(guide: Guide, folder: Path, result: DemoResult) -> None:
    """Show what was checked, where things are, and what to do next."""
    rows = tuple(
        (
            check.band,
            str(check.stars),
            f"{check.astrometry_px:.3f}",
            f"{100 * check.photometry:.2f}",
            "ok" if check.is_good else "NOT AS GOOD AS PROMISED",
        )
        for check in result.checks
    )
    headings = ("band", "bright stars", "astrometry rms px (≤ 0.1)", "photometry rms % (≤ 2)", "verdict")
    guide.show(Table(headings, rows, "measured objects against the true stars", frozenset(headings[1:4])))
    for visit, reasons in result.bad_visits.items():
        guide.say(f"Left out of the coadds: visit {visit} ({'; '.join(reasons)}).")
    data_id: dict[str, int | str] = {"skymap": "simsky", "tract": 0, "patch": 0, "band": "r"}
    coadd = guide.repo.find_dataset("coadd", data_id, collections=OUTPUT)
    where = " AND ".join(f"{name}={value!r}" for name, value in data_id.items())
    guide.say(f"One of the coadds: {guide.repo.backbone.url(coadd.url)}")
    guide.say(f"A picture of all:  {result.preview}")
    guide.say(f'Next: loadmaster query-datasets coadd -i {OUTPUT} --where "{where}" --repo {folder}')
