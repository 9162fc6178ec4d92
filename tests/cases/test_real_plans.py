"""Every step of Rubin's own pipelines is planned over real visits, and the plan holds what it promises."""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from loadmaster_planner.data_id_tables import DataIdTable
from loadmaster_planner.plan import Plan
from loadmaster_registry.errors import QueryError
from loadmaster_registry.queries import query_datasets
from loadmaster_registry.store import Registry
from lsst.sphgeom import HealpixPixelization, HtmPixelization
from numpy.typing import NDArray
from real_inputs import INPUTS, WHERE, RealSurvey, overlapping, real_survey, steps, touched_pixels

# Detectors, tracts and pixels are three families of regions: Rubin's builder asks for a word on them, too.
REFUSED = [(name, step) for name, step in steps() if step == "step2d-recalibrate-visits"]
STEPS = pytest.mark.parametrize(("name", "step"), [s for s in steps() if s not in REFUSED])
Survey = Callable[[str], RealSurvey]
Planned = Callable[[str, str], Plan]
Flags = NDArray[np.bool_]


@pytest.fixture(scope="module")
def survey(originals: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Survey]:
    """Return a function that gives a real pipeline with a registry that holds what it reads; made once."""
    with ExitStack() as stack:

        @cache
        def made(name: str) -> RealSurvey:
            path = shutil.copy(originals("rc2-full"), tmp_path_factory.mktemp(name) / "registry.sqlite3")
            return real_survey(name, stack.enter_context(Registry.open(str(path))))

        yield made


@pytest.fixture(scope="module")
def planned(survey: Survey) -> Planned:
    """Return a function that plans a step, once."""
    return cache(lambda name, step: survey(name).plan(step))


@pytest.fixture(scope="module")
def selected(survey: Survey) -> Callable[[str], pl.DataFrame]:
    """Return a function that gives all data IDs that the plans are about, found one by one."""
    return cache(lambda name: overlapping(survey(name).registry))


@STEPS
def test_a_step_has_the_quanta_that_regions_and_records_give(
    name: str, step: str, survey: Survey, planned: Planned, selected: Callable[[str], pl.DataFrame]
) -> None:
    plan, universe = planned(name, step), survey(name).registry.universe
    for task in survey(name).step(step).tasks.values():
        required = universe.group(task.dimensions).required
        pixels = [d for d in required if universe[d].is_skypix]
        table = (
            with_pixels(selected(name), survey(name).registry, required, pixels) if pixels else selected(name)
        )
        wanted = set(table.select(required).rows()) if required else {()}
        found = (
            plan.quanta(task.label).select(required).rows() if required else [()] * count_of(plan, task.label)
        )
        assert len(found) == len(wanted), task.label
        assert set(found) == wanted, task.label


def count_of(plan: Plan, label: str) -> int:
    return next(task.quanta for task in plan.header.tasks if task.label == label)


def with_pixels(
    selected: pl.DataFrame, registry: Registry, required: tuple[str, ...], pixels: list[str]
) -> pl.DataFrame:
    """Add the pixels that the visits touch, or of what has no visit, the patches; coarse ones by the fine."""
    if "instrument" in required:
        touched = touched_pixels(registry, "visit", pixels[0])
        return selected.join(touched, on=["instrument", "visit"])
    fine = touched_pixels(registry, "patch", "healpix8").join(selected, on=["skymap", "tract", "patch"])
    return fine if pixels == ["healpix8"] else fine.select(healpix3=pl.col("healpix8") // 4**5)


@STEPS
def test_every_input_exists_or_is_made_before(name: str, step: str, planned: Planned, survey: Survey) -> None:
    plan, made = planned(name, step), dict[str, Flags]()
    for task in survey(name).step(step).tasks.values():
        for c in (*task.inputs, *task.prerequisites):
            there = plan.datasets(c.dataset_type)["exists"].to_numpy()
            there = there | made.get(c.dataset_type, np.zeros_like(there))
            assert there[plan.edges(task.label, c.name)["dataset"]].all(), (task.label, c.name)
        for c in task.outputs:
            rows = plan.edges(task.label, c.name)["dataset"].to_numpy()
            assert len(np.unique(rows)) == len(rows) > 0, f"several quanta make one {c.dataset_type}"
            table = made.setdefault(
                c.dataset_type, np.zeros(plan.datasets(c.dataset_type).height, dtype=bool)
            )
            table[rows] = True


@STEPS
def test_every_quantum_has_as_many_inputs_as_it_needs_and_they_share_its_data_id(
    name: str, step: str, planned: Planned, survey: Survey
) -> None:
    plan = planned(name, step)
    for task in survey(name).step(step).tasks.values():
        quanta = plan.quanta(task.label)
        for c in (*task.inputs, *task.prerequisites):
            edges = plan.edges(task.label, c.name)
            n = np.bincount(edges["quantum"].to_numpy(), minlength=count_of(plan, task.label))
            assert n.min() >= c.minimum, (task.label, c.name)
            assert c.multiple or n.max() <= 1, (task.label, c.name)
            datasets = plan.datasets(c.dataset_type)
            for d in set(quanta.columns) & set(datasets.columns):
                own, its = quanta[d][edges["quantum"]], datasets[d][edges["dataset"]]
                assert (own == its).all(), (task.label, c.name, d)


@STEPS
def test_regular_inputs_are_all_that_go_with_the_quantum(
    name: str, step: str, survey: Survey, planned: Planned, selected: Callable[[str], pl.DataFrame]
) -> None:
    plan, universe = planned(name, step), survey(name).registry.universe
    for task in survey(name).step(step).tasks.values():
        own = universe.group(task.dimensions).required
        for c in task.inputs:
            theirs = universe.group(c.dimensions).required
            if not any(universe[d].is_skypix for d in (*own, *theirs)):
                both = list(dict.fromkeys((*own, *theirs)))
                wanted = selected(name).select(both).n_unique() if both else 1
                assert plan.edges(task.label, c.name).height == wanted, (task.label, c.name)


@STEPS
def test_reference_catalogues_are_those_that_the_region_touches(
    name: str, step: str, survey: Survey, planned: Planned
) -> None:
    plan, registry = planned(name, step), survey(name).registry
    for task in survey(name).step(step).tasks.values():
        element = registry.universe.region_of(registry.universe.group(task.dimensions))
        for c in task.prerequisites:
            if "skypix" in c.dimensions and element is not None and not task.spatial_bounds_from:
                held = query_datasets(registry, c.dataset_type, [INPUTS]).select("htm7")
                touched = touched_pixels(registry, element, "htm7").join(held, on="htm7")
                quanta = plan.quanta(task.label).with_row_index("quantum")
                wanted = quanta.join(touched, on=registry.universe[element].required)
                edges = plan.edges(task.label, c.name)
                pixel = plan.datasets(c.dataset_type)["htm7"].gather(edges["dataset"])
                found = list(zip(edges["quantum"], pixel, strict=True))
                assert sorted(found) == sorted(wanted.select("quantum", "htm7").rows()), (task.label, c.name)
                assert found


@pytest.mark.parametrize(("name", "step"), [s for s in steps() if s[1] == "step2c-recalibrate-healpix"])
def test_an_astrometric_fit_reads_the_catalogue_below_its_own_pixel_and_below_its_visits(
    name: str, step: str, survey: Survey, planned: Planned
) -> None:
    plan, registry = planned(name, step), survey(name).registry
    label, catalogue = "gbdesHealpix3AstrometricFit", "the_monster_20250219"
    held = set(query_datasets(registry, catalogue, [INPUTS])["htm7"])
    below = touched_pixels(registry, "visit", "htm7")
    visit_of = plan.datasets("preliminary_visit_summary")["visit"]
    visits = plan.edges(label, "inputVisitSummaries")
    pixel_of = plan.datasets(catalogue)["htm7"]
    read = plan.edges(label, "referenceCatalog")
    for row, pixel in enumerate(plan.quanta(label)["healpix3"]):
        its_visits = visit_of.gather(visits.filter(quantum=row)["dataset"])
        by_visits = set(below.filter(pl.col("visit").is_in(its_visits.implode()))["htm7"])
        ranges = HtmPixelization(7).envelope(HealpixPixelization(3).pixel(pixel)).ranges()
        by_pixel = {p for p in held if any(begin <= p < end for begin, end in ranges)}
        found = pixel_of.gather(read.filter(quantum=row)["dataset"])
        assert set(found) == (by_visits & held) | by_pixel


@STEPS
def test_a_plan_file_gives_the_plan_back(name: str, step: str, planned: Planned, tmp_path: Path) -> None:
    plan = planned(name, step)
    plan.write(tmp_path / "step.plan")
    again = Plan.open(tmp_path / "step.plan")
    assert again.digest == plan.digest
    assert json.dumps(again.header.to_json(), sort_keys=True) == json.dumps(
        plan.header.to_json(), sort_keys=True
    )
    sizes = dict(plan.table_sizes())
    assert dict(again.table_sizes()) == sizes
    for table, rows in sizes.items():
        assert again.rows(table, 0, rows).equals(plan.rows(table, 0, rows)), table


@pytest.mark.parametrize(("name", "step"), REFUSED)
def test_a_step_over_three_families_of_regions_is_refused_with_their_names(
    name: str, step: str, survey: Survey
) -> None:
    with pytest.raises(QueryError, match=r"visit_detector_region.*overlap on the sky"):
        survey(name).plan(step)


@pytest.mark.parametrize(("name", "step"), REFUSED)
def test_a_step_over_three_families_of_regions_is_planned_once_all_are_related(
    name: str, step: str, survey: Survey, selected: Callable[[str], pl.DataFrame]
) -> None:
    keys = ["instrument", "visit", "detector", "healpix3"]
    pixels = selected(name).join(
        touched_pixels(survey(name).registry, "visit", "healpix3"), on=["instrument", "visit"]
    )
    table = DataIdTable("pixels", pixels.select(keys).unique())
    related = f"{WHERE} AND visit_detector_region.region OVERLAPS patch.region"
    plan = survey(name).plan(step, related, (table,))
    fits = plan.quanta("gaussianProcessesTurbulenceFit").select("visit", "healpix3")
    assert set(fits.rows()) == set(pixels.select("visit", "healpix3").rows())
    detectors = plan.quanta("refitPsfModelDetector").select("visit", "detector")
    assert set(detectors.rows()) == set(selected(name).select("visit", "detector").rows())
