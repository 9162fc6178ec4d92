"""What the real pipelines' steps read, put into a registry for a few visits of one tract."""

from dataclasses import dataclass
from functools import cache
from uuid import uuid4

import polars as pl
import yaml
from case_files import CASES
from loadmaster_pipelines.loader import load_pipeline
from loadmaster_pipelines.pipeline import Pipeline
from loadmaster_planner.data_id_tables import DataIdTable
from loadmaster_planner.plan import Plan
from loadmaster_planner.planner import make_plan
from loadmaster_planner.request import Request
from loadmaster_registry.queries import query_data_ids
from loadmaster_registry.records import Collection, CollectionType, DatasetType
from loadmaster_registry.store import Registry
from lsst.sphgeom import DISJOINT, HealpixPixelization, HtmPixelization, Region

REAL = ("real-hsc-drp-rc2", "real-lsstcam-drp")
ALL = "instrument = 'HSC' AND skymap = 'hsc_rings_v1'"
SKY = f"{ALL} AND tract = 9813"
WHERE = f"{SKY} AND visit IN (1228, 11690) AND detector IN (40..47) AND patch IN (30, 31, 39, 40)"
POOL = f"{SKY} AND visit IN (1228, 11690, 318) AND detector IN (38..50) AND patch IN (29..41)"  # what exists
INPUTS = "inputs"


def steps() -> list[tuple[str, str]]:
    """Return pipeline and name of every named subset in the files."""
    found: list[tuple[str, str]] = []
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    for name in REAL:
        file = CASES / "pipelines" / f"{name}.yaml"
        if file.exists():
            found += [(name, step) for step in yaml.load(file.read_text(), loader)["subsets"]]
    return found


@dataclass(frozen=True)
class RealSurvey:
    """A real pipeline, and a registry that holds whatever any of its steps reads."""

    pipeline: Pipeline
    registry: Registry

    def step(self, name: str) -> Pipeline:
        """Return the pipeline of one named subset."""
        return self.pipeline.subset(self.pipeline.subsets[name].members)

    def plan(self, step: str, where: str = WHERE, tables: tuple[DataIdTable, ...] = ()) -> Plan:
        """Plan one step for a part of what exists."""
        request = Request((INPUTS,), "out", where=where, tables=tables, allow_partial_gather=True)
        return make_plan(self.registry, self.step(step), request)


def real_survey(name: str, registry: Registry) -> RealSurvey:
    """Load a real pipeline and insert every overall input of every step, for all data IDs of `POOL`."""
    file = CASES / "pipelines" / f"{name}.yaml"
    survey = RealSurvey(load_pipeline(str(file), universe=registry.universe), registry)
    parts = [survey.step(step) for step in survey.pipeline.subsets]
    types = survey.pipeline.dataset_types()
    data_ids = cache(lambda *dimensions: _data_ids(registry, dimensions))
    with registry.transaction() as transaction:
        transaction.register_collection(Collection(INPUTS, CollectionType.RUN))
        for wanted in sorted({n for part in parts for n in part.overall_inputs()}):
            group = registry.universe.group("htm7" if d == "skypix" else d for d in types[wanted].dimensions)
            storage = types[wanted].storage_class or "StructuredDataDict"
            transaction.register_dataset_type(DatasetType(wanted, group, storage, types[wanted].calibration))
            rows = data_ids(*group.required)
            ids = pl.Series("id", [uuid4().bytes for _ in range(rows.height or 1)], dtype=pl.Binary)
            url = pl.Series("url", [f"{INPUTS}/{wanted}"] * len(ids), dtype=pl.String)
            transaction.insert_datasets(wanted, INPUTS, pl.DataFrame([*rows.get_columns(), ids, url]))
    return survey


def _data_ids(registry: Registry, required: tuple[str, ...]) -> pl.DataFrame:
    """Return the data IDs of `POOL`, with sky pixels those that its visits touch; catalogues cover all tracts."""
    pixels = [d for d in required if registry.universe[d].is_skypix]
    if not required:
        return pl.DataFrame()
    if required == ("htm7",):
        return touched_pixels(registry, "tract", "htm7", ALL).select("htm7").unique()
    if not pixels:
        return query_data_ids(registry, required, where=POOL).select(required).unique()
    visits = query_data_ids(registry, ["visit", *(d for d in required if d not in pixels)], where=POOL)
    by_visit = touched_pixels(registry, "visit", pixels[0])
    return visits.join(by_visit, on=["instrument", "visit"]).select(required).unique()


@cache
def touched_pixels(registry: Registry, element: str, pixels: str, where: str = POOL) -> pl.DataFrame:
    """Return data IDs of an element with each sky pixel that the envelope of their region touches."""
    level = int(pixels.lstrip("htmealpix"))
    grid = HtmPixelization(level) if pixels.startswith("htm") else HealpixPixelization(level)
    keys = list(registry.universe[element].required)
    chosen = query_data_ids(registry, keys, where=where).select(keys).unique()
    records = registry.records(element).join(chosen, on=keys, how="semi")
    rows = [
        (*row[:-1], pixel)
        for row in records.select(*keys, "region").iter_rows()
        for begin, end in grid.envelope(Region.decode(row[-1])).ranges()
        for pixel in range(begin, end)
    ]
    return pl.DataFrame(rows, schema=[*keys, pixels], orient="row")


def overlapping(registry: Registry) -> pl.DataFrame:
    """Return what `WHERE` selects by trying each detector of each visit on each patch, one by one."""
    detectors = registry.records("visit_detector_region").filter(
        pl.col("visit").is_in([1228, 11690]) & pl.col("detector").is_between(40, 47)
    )
    patches = registry.records("patch").filter(tract=9813).filter(pl.col("patch").is_in([30, 31, 39, 40]))
    rows = [
        (detector["visit"], detector["detector"], patch["patch"])
        for detector in detectors.iter_rows(named=True)
        for patch in patches.iter_rows(named=True)
        if not Region.decode(detector["region"]).relate(Region.decode(patch["region"])) & DISJOINT
    ]
    found = pl.DataFrame(rows, schema=["visit", "detector", "patch"], orient="row")
    facts = registry.records("visit").select("visit", "physical_filter", "day_obs")
    bands = registry.records("physical_filter").select("physical_filter", "band")
    exposures = registry.records("visit_definition").select("visit", "exposure")
    found = found.join(facts, on="visit").join(bands, on="physical_filter").join(exposures, on="visit")
    governors = {"instrument": "HSC", "skymap": "hsc_rings_v1", "tract": 9813}
    return found.with_columns(**{d: pl.lit(v) for d, v in governors.items()})
