"""The shipped tasks run on simulated frames, through their handles and files, one after the other."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
from astropy.io import fits
from loadmaster_pipelines import storage
from loadmaster_pipelines.handles import InputHandle, Inputs, OutputHandle, Outputs
from loadmaster_pipelines.imaging import source_digest
from loadmaster_pipelines.imaging.alignment import image_offset
from loadmaster_pipelines.imaging.detection import estimate_background
from loadmaster_pipelines.imaging.detrending import mask_hot_pixels
from loadmaster_pipelines.loader import SHIPPED, load_pipeline
from loadmaster_pipelines.task import NoWork, Task
from loadmaster_pipelines.tasks.calibrate import Calibrate
from loadmaster_pipelines.tasks.calibrations import CombineBias, CombineDark, CombineFlat, FindDefects
from loadmaster_pipelines.tasks.coadds import Coadd, Measure, Warp
from loadmaster_pipelines.tasks.isr import BiasFrame, DarkFrame, FlatFrame, Isr
from loadmaster_pipelines.tasks.stacks import AlignAndStack, PrepareFrame, ScaleFrame
from loadmaster_pipelines.tasks.text import WriteText
from loadmaster_pipelines.tasks.visits import SummarizeVisit
from loadmaster_registry.skymap import SkyMap, Tract
from loadmaster_registry.universe import load_universe

from loadmaster.simulation import SimulatedSurvey, simulate_survey

DETECTOR = 1
CLEAR = {"clear_zero_points": {"g": 30.3, "r": 30.5}}


class Bench:
    """A folder of datasets, and tasks run on them as a job would."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def store(self, obj: Any, storage_class: str) -> Path:
        path = self.folder / f"{uuid4()}{storage.extension_of(storage_class)}"
        storage.write(obj, storage_class, path)
        return path

    def run(
        self,
        task: type[Task],
        quantum: Mapping[str, int | str],
        config: Mapping[str, Any] | None = None,
        **inputs: Any,
    ) -> dict[str, Path]:
        """Run a task; an input is a path, or a list of paths or of (path, data ID)."""
        handles: dict[str, Any] = {}
        for name, given in inputs.items():
            connection = task.connections[name]
            pairs = [
                x if isinstance(x, tuple) else (x, quantum)
                for x in (given if isinstance(given, list) else [given])
            ]
            found = [
                InputHandle(connection.dataset_type, data_id, uuid4(), path, connection.storage_class)
                for path, data_id in pairs
            ]
            handles[name] = found if connection.multiple else found[0]
        paths = {
            c.name: self.folder / f"{uuid4()}{storage.extension_of(c.storage_class)}"
            for c in task.connections.values()
            if c.kind == "output"
        }
        outputs = {
            name: OutputHandle(
                task.connections[name].dataset_type,
                quantum,
                uuid4(),
                path,
                task.connections[name].storage_class,
            )
            for name, path in paths.items()
        }
        task(task.Config.model_validate(config or {})).run(
            Inputs(quantum, handles), Outputs(quantum, outputs)
        )
        return paths


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("bench"))


@pytest.fixture(scope="module")
def survey(tmp_path_factory: pytest.TempPathFactory) -> SimulatedSurvey:
    return simulate_survey(tmp_path_factory.mktemp("survey") / "sim")


@pytest.fixture(scope="module")
def raws(survey: SimulatedSurvey) -> dict[int, Path]:
    """Return the raw frames of one detector by exposure."""
    headers = {path: fits.getheader(path) for path in survey.raws}
    return {h["EXPID"]: path for path, h in headers.items() if h["DETECTOR"] == DETECTOR}


@pytest.fixture(scope="module")
def products(bench: Bench, survey: SimulatedSurvey, raws: dict[int, Path]) -> dict[str, Path]:
    """Return bias, dark, flat_g, flat_r and defects."""

    def prepared(task: type[Task], kind: str, band: str | None = None, **more: Path) -> list[Path]:
        wanted = [e for e in survey.exposures if e.kind == kind and band in (None, e.band)]
        return [bench.run(task, {"exposure": e.id}, raw=raws[e.id], **more)["image"] for e in wanted]

    bias = bench.run(CombineBias, {}, frames=prepared(BiasFrame, "bias"))["bias"]
    dark = bench.run(CombineDark, {}, frames=prepared(DarkFrame, "dark", bias=bias))["dark"]
    flats = {
        f"flat_{band}": bench.run(
            CombineFlat, {}, frames=prepared(FlatFrame, "flat", band, bias=bias, dark=dark)
        )["flat"]
        for band in "gr"
    }
    defects = bench.run(FindDefects, {}, dark=dark, flats=list(flats.values()))["defects"]
    return {"bias": bias, "dark": dark, **flats, "defects": defects}


@pytest.fixture(scope="module")
def visits(
    bench: Bench, survey: SimulatedSurvey, raws: dict[int, Path], products: dict[str, Path]
) -> dict[int, dict[str, Path]]:
    """Return what calibration and summary made of each r-band visit."""
    reference = bench.store(survey.reference, "Catalog")
    made = {}
    for visit in (v for v in survey.visits if v.band == "r"):
        quantum = {"instrument": "SimCam", "visit": visit.id, "detector": DETECTOR, "band": "r"}
        calibrations = {"bias": products["bias"], "dark": products["dark"], "flat": products["flat_r"]}
        clean = bench.run(Isr, quantum, raw=raws[visit.id], defects=products["defects"], **calibrations)[
            "image"
        ]
        found = bench.run(Calibrate, quantum, exposures=[clean], reference=[reference, reference])
        summary = bench.run(SummarizeVisit, quantum, CLEAR | {"min_matched": 5}, qualities=[found["quality"]])
        made[visit.id] = found | summary | {"clean": clean}
    return made


@pytest.fixture(scope="module")
def sky_map(bench: Bench) -> Path:
    middle = Tract(0, 150.1 - 206 * 0.5 / 3600, 2.2 - 206 * 0.5 / 3600, 1, 1)
    return bench.store(SkyMap("one", 0.45, 240, 0, (middle,)), "SkyMap")


@pytest.fixture(scope="module")
def coadd(
    bench: Bench, survey: SimulatedSurvey, visits: dict[int, dict[str, Path]], sky_map: Path
) -> dict[str, Path]:
    quantum = {"skymap": "one", "tract": 0, "patch": 0}
    good = [v.id for v in survey.visits if v.id in visits and not v.is_bad]
    warps = [
        (
            bench.run(
                Warp, quantum, images=[visits[v]["image"]], summary=visits[v]["summary"], sky_map=sky_map
            )["warp"],
            {"visit": v},
        )
        for v in good
    ]
    merged = bench.run(Coadd, quantum, warps=warps)
    return merged | bench.run(Measure, quantum, coadd=merged["coadd"])


def test_a_frame_of_another_kind_is_left_alone(
    bench: Bench, survey: SimulatedSurvey, raws: dict[int, Path]
) -> None:
    flat = next(e.id for e in survey.exposures if e.kind == "flat")
    with pytest.raises(NoWork, match="a flat frame is no bias"):
        bench.run(BiasFrame, {"exposure": flat}, raw=raws[flat])


def test_calibration_finds_the_sky_the_camera_looked_at(
    visits: dict[int, dict[str, Path]], survey: SimulatedSurvey
) -> None:
    for visit in (v for v in survey.visits if v.id in visits and not v.is_bad):
        quality = storage.read("StructuredDataDict", visits[visit.id]["quality"])
        assert quality["astrometric_rms_px"] < 0.1
        assert quality["sky"] == pytest.approx(visit.sky_e, rel=0.02)
        assert quality["zero_point"] == pytest.approx(30.5 + 2.5 * np.log10(visit.transparency), abs=0.03)
        assert quality["fwhm_px"] == pytest.approx(visit.fwhm_px, rel=0.2)


def test_a_calibrated_image_has_no_sky_and_its_background_is_the_sky(
    visits: dict[int, dict[str, Path]],
) -> None:
    made = next(iter(visits.values()))
    image, background = (storage.read("ExposureF", made[name]) for name in ("image", "background"))
    assert abs(np.median(image.data)) < 1
    assert np.median(background.data) > 700
    assert image.header["MAGZERO"] == pytest.approx(30.4, abs=0.1)


def test_stars_have_the_magnitudes_of_the_truth(
    visits: dict[int, dict[str, Path]], survey: SimulatedSurvey
) -> None:
    stars = storage.read("SourceCatalog", next(iter(visits.values()))["stars"])
    assert truth_scatter(stars, survey) < 0.02


def test_the_visit_under_clouds_is_bad_and_says_why(
    visits: dict[int, dict[str, Path]], survey: SimulatedSurvey
) -> None:
    verdicts = {v: storage.read("StructuredDataDict", made["summary"]) for v, made in visits.items()}
    bad = [v.id for v in survey.visits if v.is_bad]
    assert [v for v, verdict in verdicts.items() if not verdict["good"]] == bad
    assert any("clouds" in reason for reason in verdicts[bad[0]]["reasons"])


def test_a_bad_visit_is_not_warped(
    bench: Bench, visits: dict[int, dict[str, Path]], survey: SimulatedSurvey, sky_map: Path
) -> None:
    bad = next(v.id for v in survey.visits if v.is_bad)
    with pytest.raises(NoWork, match=f"visit {bad} is bad: .*clouds"):
        bench.run(
            Warp,
            {"tract": 0, "patch": 0},
            images=[visits[bad]["image"]],
            summary=visits[bad]["summary"],
            sky_map=sky_map,
        )


def test_a_coadd_names_its_visits_and_knows_its_depth(
    coadd: dict[str, Path], survey: SimulatedSurvey
) -> None:
    image, depth = (storage.read("ExposureF", coadd[name]) for name in ("coadd", "depth"))
    named = {image.header[f"VISIT{n:03d}"] for n in (1, 2, 3)}
    assert named == {v.id for v in survey.visits if v.band == "r" and not v.is_bad}
    assert depth.data.max() == 3
    assert image.mask.mean() < 0.1


def test_objects_of_the_coadd_have_the_magnitudes_of_the_truth(
    coadd: dict[str, Path], survey: SimulatedSurvey
) -> None:
    objects = storage.read("SourceCatalog", coadd["catalogue"])
    assert len(objects) > 20
    assert truth_scatter(objects, survey) < 0.02


def test_stars_that_no_reference_knows_leave_nothing_to_calibrate(
    bench: Bench, survey: SimulatedSurvey, visits: dict[int, dict[str, Path]]
) -> None:
    elsewhere = survey.reference.copy()
    elsewhere["dec"] += 1
    far = bench.store(elsewhere, "Catalog")
    clean = next(iter(visits.values()))["clean"]
    with pytest.raises(NoWork, match="too few"):
        bench.run(Calibrate, {"band": "r", "detector": DETECTOR}, exposures=[clean], reference=[far])


def test_frames_are_stacked_star_upon_star(
    bench: Bench, survey: SimulatedSurvey, raws: dict[int, Path]
) -> None:
    visits = [v.id for v in survey.visits if v.band == "r" and not v.is_bad]
    frames = [(bench.run(PrepareFrame, {}, raw=raws[v])["frame"], {"exposure": v}) for v in visits]
    stacked = bench.run(AlignAndStack, {}, {"smooth_px": 1.5}, frames=frames)
    offsets = storage.read("StructuredDataDict", stacked["offsets"])
    # The second visit was dithered by (+14.3, -9.6) pixels, east being to the left.
    assert offsets[str(visits[0])] == pytest.approx([0, 0], abs=1e-3)
    assert offsets[str(visits[1])] == pytest.approx([14.3, 9.6], abs=0.5)
    stack, weight = (storage.read("ImageF", stacked[name]) for name in ("stack", "weight"))
    assert np.isfinite(stack.data).all()
    assert (weight.data >= 0).all()


def test_offsets_between_real_frames_add_up(cases: Path) -> None:
    frames = []
    for path in sorted((cases / "fits" / "m13").glob("*.fits.gz"))[:3]:
        pixels = storage.read("Exposure", path).data.astype(np.float32)
        mask = mask_hot_pixels(pixels)
        frames.append((pixels - estimate_background(pixels, mask, box_px=128).level, mask))
    first, second, third = frames
    one, two, both = (
        image_offset(*a, *b, smooth_px=4) for a, b in ((second, first), (third, second), (third, first))
    )
    assert one + two == pytest.approx(both, abs=0.2)
    assert np.hypot(*both) > 20


def test_a_scaled_frame_tells_swarp_its_zero_point(
    bench: Bench, raws: dict[int, Path], survey: SimulatedSurvey
) -> None:
    raw = storage.read("Exposure", raws[survey.visits[0].id])
    raw.header["MAGZP"] = 20.0
    made = bench.run(ScaleFrame, {}, raw=bench.store(raw, "Exposure"))["frame"]
    assert fits.getheader(made)["FLXSCALE"] == pytest.approx(100)
    assert len(fits.open(made)) == 1


def test_a_text_is_written_as_it_stands(bench: Bench) -> None:
    made = bench.run(WriteText, {"instrument": "X"}, {"text": "NUMBER\nX_IMAGE\n"})["text"]
    assert made.read_text() == "NUMBER\nX_IMAGE\n"


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_shipped_pipeline_loads_and_every_task_can_run(path: Path) -> None:
    pipeline = load_pipeline(path, universe=load_universe())
    assert all(task.runnable for task in pipeline.tasks.values())
    for subset in pipeline.subsets:
        assert load_pipeline(f"{path}#{subset}", universe=load_universe()).tasks


def test_the_code_of_imaging_is_part_of_a_tasks_code() -> None:
    assert Warp.version == Isr.version == source_digest()


def truth_scatter(catalogue: Any, survey: SimulatedSurvey) -> float:
    """Return the rms difference to the true magnitudes of bright, clean, lonely stars."""
    stars = survey.stars
    cos = np.cos(np.radians(2.2))
    here = np.column_stack([catalogue["ra"] * cos, catalogue["dec"]])
    there = np.column_stack([stars["ra"] * cos, stars["dec"]])
    apart = np.hypot(*(here[:, None] - there[None]).transpose(2, 0, 1)) * 3600
    nearest, second = np.sort(apart, axis=1)[:, :2].T
    true = np.asarray(stars["mag_r"])[apart.argmin(axis=1)]
    use = (nearest < 0.5) & (second > 6) & (true < 19.5) & ~np.asarray(catalogue["flagged"])
    assert use.sum() >= 3
    return float(np.sqrt(np.mean((np.asarray(catalogue["mag"])[use] - true[use]) ** 2)))
