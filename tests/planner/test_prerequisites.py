"""Prerequisites of every kind, on a tiny survey: what lsst-pipe-base 30.2026.500 finds for the same tasks and data.

`prerequisite_answers.json` holds its answers (or that it refuses) to one task and one prerequisite a case.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from uuid import UUID

import polars as pl
import pytest
from loadmaster_pipelines.connections import Connection
from loadmaster_pipelines.pipeline import Pipeline, TaskNode
from loadmaster_planner.overrides import Override, read_overrides, unmatched
from loadmaster_planner.plan import Plan
from loadmaster_planner.planner import make_plan
from loadmaster_planner.request import Request
from loadmaster_registry.errors import ConfigError, PlanError
from loadmaster_registry.records import Collection, CollectionType, DatasetType
from loadmaster_registry.store import Registry
from loadmaster_registry.timespan import MAX_NS, MIN_NS, Timespan
from lsst.sphgeom import ConvexPolygon, HtmPixelization, LonLat, UnitVector3d

ANSWERS = json.loads(Path(__file__).with_name("prerequisite_answers.json").read_text())
HOUR = 3_600_000_000_000
START = 1_700_000_000_000_000_000


def box(ra: float, dec: float, width: float, height: float) -> bytes:
    corners = [(ra, dec), (ra + width, dec), (ra + width, dec + height), (ra, dec + height)]
    encoded: bytes = ConvexPolygon([UnitVector3d(LonLat.fromDegrees(*c)) for c in corners]).encode()
    return encoded


EXPOSURES = [  # exposure, filter, night, first hour, end hour
    (1, "r1", 20230101, 0, 1),
    (2, "r2", 20230101, 2, 3),
    (3, "g1", 20230102, 30, 31),
    (4, "r1", 20230102, 32, 40),
]
NIGHTS = {20230101: (-2, 20), 20230102: (22, 44)}
VISITS = {1: (10.0, 0.0), 2: (10.5, 0.2), 4: (11.5, 0.0)}  # exposure 3 has none
PATCHES = {
    (0, 0): (9.5, -0.5), (0, 1): (10.3, -0.5), (0, 2): (9.5, 0.3), (0, 3): (10.3, 0.3),
    (1, 0): (11.0, -0.5), (1, 1): (11.8, -0.5),
}  # fmt: skip
TRACTS = {0: box(9.5, -0.5, 1.6, 1.6), 1: box(11.0, -0.5, 1.6, 1.6)}
VISIT_REGIONS = {v: box(ra, dec, 0.6, 0.3) for v, (ra, dec) in VISITS.items()}
TYPES = {  # name → dimensions
    "raw": ("instrument", "exposure", "detector"), "vin": ("instrument", "visit", "detector"),
    "vis": ("instrument", "visit"), "pin": ("skymap", "tract", "patch"), "tin": ("skymap", "tract"),
    "bin_": ("skymap", "tract", "patch", "band"), "ref": ("htm7",), "ref9": ("htm9",), "refb": ("band", "htm7"),
    "bias": ("instrument", "detector"), "cam": ("instrument",), "pf": ("instrument", "physical_filter"),
    "pfx": ("instrument", "physical_filter"), "patchy": ("skymap", "tract", "patch"),
    "vdthing": ("instrument", "visit", "detector"), "expthing": ("instrument", "exposure"),
    "dayd": ("instrument", "day_obs"), "bandd": ("band",), "g": (),
    "warpy": ("instrument", "skymap", "tract", "patch", "visit"),
}  # fmt: skip
CALIBRATIONS = ("bias", "cam", "pf")
CERTIFIED = [  # collection, type, run, first hour, end hour
    ("calA", "bias", "c1", None, 10), ("calA", "bias", "c2", 35, None), ("calB", "bias", "c2", None, None),
    ("calA", "pf", "c1", None, None), ("calA", "cam", "c1", None, 36), ("calA", "cam", "c2", 36, None),
]  # fmt: skip


def pixels(level: int) -> list[int]:
    found: set[int] = set()
    for region in (*VISIT_REGIONS.values(), *TRACTS.values()):
        for begin, end in HtmPixelization(level).envelope(ConvexPolygon.decode(region)).ranges():
            found |= set(range(begin, end))
    return sorted(found)


def datasets() -> Mapping[str, Mapping[str, list[tuple[Any, ...]]]]:
    patches = [("S", *p) for p in PATCHES]
    calibrations = {
        "bias": [("Cam", d) for d in (0, 1)],
        "cam": [("Cam",)],
        "pf": [("Cam", f) for f in ("r1", "r2", "g1")],
    }
    pairs = [("Cam", v, d) for v in VISITS for d in (0, 1)]
    ours = {
        "raw": [("Cam", e[0], d) for e in EXPOSURES for d in (0, 1)], "vin": pairs, "vdthing": pairs,
        "vis": [("Cam", v) for v in VISITS], "pin": patches, "patchy": patches,
        "tin": [("S", t) for t in TRACTS], "bin_": [(*p, b) for p in patches for b in "rg"],
        "ref": [(p,) for p in pixels(7)], "ref9": [(p,) for p in pixels(9)],
        "refb": [(b, p) for b in "rg" for p in pixels(7)], "expthing": [("Cam", e[0]) for e in EXPOSURES],
        "dayd": [("Cam", d) for d in NIGHTS], "bandd": [("r",)], "pfx": calibrations["pf"], "g": [()],
        "warpy": [("Cam", *p, v) for p in patches for v in VISITS],
    }  # fmt: skip
    return {"in": ours, "c1": {**calibrations, "pfx": calibrations["pf"]}, "c2": calibrations}


def records() -> Mapping[str, list[dict[str, Any]]]:
    cam, sky = {"instrument": "Cam"}, {"skymap": "S"}

    def span(begin: int, end: int) -> dict[str, int]:
        return {"timespan_begin": START + begin * HOUR, "timespan_end": START + end * HOUR}

    facts = {e: {"physical_filter": f, "day_obs": d, **span(b, x)} for e, f, d, b, x in EXPOSURES}
    return {
        "instrument": [cam],
        "skymap": [{**sky, "hash": b"0"}],
        "physical_filter": [{**cam, "physical_filter": f, "band": f[0]} for f in ("r1", "r2", "g1")],
        "detector": [{**cam, "detector": d, "full_name": str(d)} for d in (0, 1)],
        "day_obs": [{**cam, "day_obs": d, **span(*hours)} for d, hours in NIGHTS.items()],
        "group": [{**cam, "group": str(e)} for e in facts],
        "exposure": [{**cam, "exposure": e, "obs_id": str(e), "group": str(e), **f} for e, f in facts.items()],
        "visit": [{**cam, "visit": v, "name": str(v), "region": r, **facts[v]} for v, r in VISIT_REGIONS.items()],
        "visit_definition": [{**cam, "exposure": v, "visit": v} for v in VISITS],
        "visit_detector_region": [
            {**cam, "visit": v, "detector": d, "region": box(ra + 0.3 * d, dec, 0.3, 0.3)}
            for v, (ra, dec) in VISITS.items()
            for d in (0, 1)
        ],
        "tract": [{**sky, "tract": t, "region": r} for t, r in TRACTS.items()],
        "patch": [
            {**sky, "tract": t, "patch": p, "cell_x": p, "cell_y": 0, "region": box(*at, 0.8, 0.8)}
            for (t, p), at in PATCHES.items()
        ],
    }  # fmt: skip


@pytest.fixture(scope="module")
def survey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with Registry.create(str(tmp_path_factory.mktemp("survey") / "registry.sqlite3")) as registry:
        with registry.transaction() as transaction:
            for element, rows in records().items():
                transaction.insert_records(element, pl.DataFrame(rows))
            for name, dimensions in TYPES.items():
                group = registry.universe.group(dimensions)
                transaction.register_dataset_type(DatasetType(name, group, "Any", name in CALIBRATIONS))
            ids: dict[tuple[str, str], list[UUID]] = {}
            for run, types in datasets().items():
                transaction.register_collection(Collection(run, CollectionType.RUN))
                for name, rows in types.items():
                    ids[run, name] = [UUID(int=len(ids) << 64 | i) for i in range(len(rows))]
                    columns = {d: [row[i] for row in rows] for i, d in enumerate(TYPES[name])}
                    uuids = [id.bytes for id in ids[run, name]]
                    frame = pl.DataFrame({**columns, "id": uuids, "url": [f"{run}/{name}"] * len(rows)})
                    transaction.insert_datasets(name, run, frame)
            for name in ("calA", "calB"):
                transaction.register_collection(Collection(name, CollectionType.CALIBRATION))
            for collection, name, run, begin, end in CERTIFIED:
                low = MIN_NS if begin is None else START + begin * HOUR
                high = MAX_NS if end is None else START + end * HOUR
                transaction.certify(collection, name, ids[run, name], Timespan(low, high))
        yield registry


def one_task(case: Mapping[str, Any]) -> Pipeline:
    def read(name: str, kind: Any, type: str, **more: Any) -> Connection:
        return Connection(name, kind, type, "Any", TYPES[type], calibration=type in CALIBRATIONS, **more)

    several = {"multiple": case.get("multiple", True), "minimum": case.get("minimum", 0)}
    connections = [read(name, "input", name, multiple=True) for name in case["inputs"]]
    connections.append(read("needed", "prerequisite", case["prerequisite"], **several))
    connections.append(Connection("made", "output", "made", "Any", tuple(case["task"])))
    bounds = tuple(case.get("spatial_bounds_from", ()))
    task = TaskNode("t", tuple(case["task"]), tuple(connections), spatial_bounds_from=bounds)
    return Pipeline("one task", None, {"t": task})


def planned(registry: Registry, case: Mapping[str, Any], **more: Any) -> Plan:
    request = Request(
        tuple(case["collections"]), "out", where=case["where"], allow_partial_gather=True, **more
    )
    return make_plan(registry, one_task(case), request)


def found(plan: Plan, registry: Registry) -> list[list[Any]]:
    """Return for each quantum its data ID, and data ID and run of what its prerequisite found."""
    told = []
    for task in plan.header.tasks:
        for row in range(task.quanta):
            quantum = plan.quantum("t", row)
            required = (
                registry.universe.group(TYPES[quantum.inputs["needed"][0].dataset_type]).required
                if (quantum.inputs["needed"])
                else ()
            )
            rows = [[[d.data_id[k] for k in required], d.run] for d in quantum.inputs["needed"]]
            told.append([[quantum.data_id[d] for d in task.dimensions], sorted(rows)])
    return sorted(told)


@pytest.mark.parametrize("case", ANSWERS, ids=[case["name"] for case in ANSWERS])
def test_prerequisites_are_those_that_rubins_builder_finds(case: dict[str, Any], survey: Registry) -> None:
    if "refused" in case:
        with pytest.raises(PlanError, match=case["refused"]):
            planned(survey, case)
        return
    assert found(planned(survey, case), survey) == case["found"]


ABSENT = UUID(int=1 << 127)
BIAS = {
    "task": ["exposure", "detector"],
    "inputs": ["raw"],
    "prerequisite": "bias",
    "where": "instrument='Cam'",
}


def test_sky_pixels_of_another_level_are_found_by_the_envelope_too(survey: Registry) -> None:
    case = {
        "task": ["visit"],
        "inputs": ["vis"],
        "prerequisite": "ref9",
        "where": "instrument='Cam' AND visit=2",
    }
    ((_, rows),) = found(planned(survey, {**case, "collections": ["in"]}), survey)
    region = ConvexPolygon.decode(VISIT_REGIONS[2])
    wanted = [p for b, e in HtmPixelization(9).envelope(region).ranges() for p in range(b, e)]
    assert [data_id for (data_id,), _ in rows] == wanted


def test_an_unknown_dataset_type_is_missing_only_where_something_is_needed(survey: Registry) -> None:
    case = {**BIAS, "collections": ["in"]}
    pipeline = one_task(case)
    task = pipeline.tasks["t"]
    for minimum in (0, 1):
        unknown = Connection("needed", "prerequisite", "never", "Any", ("detector",), minimum=minimum)
        changed = TaskNode("t", task.dimensions, (*task.inputs, unknown, *task.outputs))
        request = Request(("in",), "out", where=case["where"])
        if minimum:
            with pytest.raises(PlanError, match="lack the prerequisite 'never'"):
                make_plan(survey, Pipeline("", None, {"t": changed}), request)
        else:
            plan = make_plan(survey, Pipeline("", None, {"t": changed}), request)
            assert {rows for _, rows in map(tuple, _with_tuples(found(plan, survey)))} == {()}


def _with_tuples(told: list[list[Any]]) -> list[tuple[Any, Any]]:
    return [(tuple(data_id), tuple(rows)) for data_id, rows in told]


def test_a_dataset_type_that_the_registry_knows_otherwise_is_refused(survey: Registry) -> None:
    task = one_task({**BIAS, "collections": ["in"]}).tasks["t"]
    for dimensions, calibration in ((("instrument",), True), (("detector",), False)):
        wrong = Connection("needed", "prerequisite", "bias", "Any", dimensions, calibration=calibration)
        changed = TaskNode("t", task.dimensions, (*task.inputs, wrong, *task.outputs))
        with pytest.raises(PlanError, match=r"'bias' has dimensions .* in the registry and is a calibration"):
            make_plan(survey, Pipeline("", None, {"t": changed}), Request(("in", "calB"), "out"))


def test_two_valid_calibrations_are_refused_with_both_ranges(survey: Registry) -> None:
    case = {**BIAS, "prerequisite": "cam", "collections": ["in", "calA"]}
    with pytest.raises(PlanError, match=r"collection calA(?s:.*)'exposure': 4(?s:.*) in c1; .* in c2"):
        planned(survey, case)


def overrides_of(text: str, survey: Registry, folder: Path) -> tuple[Override, ...]:
    (folder / "overrides.csv").write_text(text)
    with survey.snapshot() as now:
        return read_overrides(folder / "overrides.csv", now)


def id_of(registry: Registry, name: str, run: str, **data_id: Any) -> UUID:
    with registry.snapshot() as now:
        rows = now.datasets(name, [run]).filter(pl.lit(True), **data_id)
        return UUID(bytes=now.files(rows["dataset"])["id"][0])


def runs_of(told: list[list[Any]]) -> dict[tuple[int, int], str]:
    """Return for exposure and detector the run of the one bias."""
    return {(exposure, detector): rows[0][1] for (_, detector, exposure), rows in told}


def test_the_most_specific_override_wins_and_the_others_take_what_is_valid(
    survey: Registry, tmp_path: Path
) -> None:
    case = {**BIAS, "multiple": False, "minimum": 1, "collections": ["in", "calB"]}  # calB: all from c2
    by_id = id_of(survey, "bias", "c2", detector=1)
    text = (
        "dataset_type,instrument,exposure,detector,physical_filter,collection,dataset_id\n"
        "bias,Cam,,,r1,c1,\n"  # exposures 1 and 4, by what they imply
        f"bias,Cam,4,1,,,{by_id}\n"  # but this one
        "bias,Cam,2,,,c1,\n"
    )
    overrides = overrides_of(text, survey, tmp_path)
    plan = planned(survey, case, overrides=overrides)
    assert runs_of(found(plan, survey)) == {
        (1, 0): "c1", (1, 1): "c1", (2, 0): "c1", (2, 1): "c1", (3, 0): "c2", (3, 1): "c2",
        (4, 0): "c1", (4, 1): "c2",
    }  # fmt: skip


def test_an_override_decides_where_several_calibrations_are_valid_or_none(
    survey: Registry, tmp_path: Path
) -> None:
    overrides = overrides_of("dataset_type,exposure,collection\ncam,4,c2\n", survey, tmp_path)
    case = {**BIAS, "prerequisite": "cam", "multiple": False, "minimum": 1, "collections": ["in", "calA"]}
    told = found(planned(survey, case, overrides=overrides), survey)
    assert {data_id[2]: rows for data_id, rows in told}[4] == [[["Cam"], "c2"]]
    overrides = overrides_of("dataset_type,exposure,collection\nbias,3,c2\n", survey, tmp_path)
    case = {**BIAS, "multiple": False, "minimum": 1, "collections": ["in", "calA"]}
    assert runs_of(found(planned(survey, case, overrides=overrides), survey))[3, 0] == "c2"


def test_overrides_apply_to_prerequisites_that_are_no_calibrations(survey: Registry, tmp_path: Path) -> None:
    case = {"task": ["exposure"], "inputs": ["raw"], "prerequisite": "pfx", "where": "instrument='Cam'"}
    other = id_of(survey, "pfx", "c1", physical_filter="r1")
    overrides = overrides_of(f"dataset_type,exposure,dataset_id\npfx,1,{other}\n", survey, tmp_path)
    told = found(planned(survey, {**case, "collections": ["in"]}, overrides=overrides), survey)
    assert [rows[0][1] for _, rows in told] == ["c1", "in", "in", "in"]


def test_two_overrides_of_which_neither_is_more_specific_are_refused(
    survey: Registry, tmp_path: Path
) -> None:
    text = "dataset_type,exposure,detector,collection\nbias,1,,c1\nbias,,0,c2\n"
    overrides = overrides_of(text, survey, tmp_path)
    with pytest.raises(
        PlanError, match=r"two overrides match one quantum(?s:.*)row 1(?s:.*)row 2|row 2(?s:.*)row 1"
    ):
        planned(survey, {**BIAS, "collections": ["in", "calB"]}, overrides=overrides)


def test_an_override_that_matches_nothing_is_told_by_its_row(survey: Registry, tmp_path: Path) -> None:
    text = "dataset_type,exposure,collection\nbias,1,c1\nbias,99,c1\n"
    overrides = overrides_of(text, survey, tmp_path)
    (told,) = unmatched(overrides, [(str(tmp_path / "overrides.csv"), 1)])
    assert "1 overrides of 'bias' match no quantum of the plan: row 2" in told


@pytest.mark.parametrize(
    ("text", "kind", "words"),
    [
        ("dataset_type,exposur,collection\nbias,1,c1\n", ConfigError, "'exposur' is no dimension(?s:.*)'exposure'"),
        ("dataset_type,exposure,collection\nbias,one,c1\n", ConfigError, "whole number in row 1"),
        ("dataset_type,exposure,collection\nbias,1,\n", ConfigError, "row 1 has both"),
        ("dataset_type,exposure,collection\n,1,c1\n", ConfigError, "row 1 has no dataset_type"),
        ("dataset_type,exposure,collection\nbia,1,c1\n", PlanError, "does not exist(?s:.*)row 1(?s:.*)'bias'"),
        ("dataset_type,exposure,collection\nbias,1,c3\n", PlanError, "collection 'c3'"),
        ("dataset_type,exposure,detector,collection\nbias,1,0,c1\nbias,1,9,c1\n", PlanError, "row 2"),
        ("dataset_type,exposure,collection\ncam,1,calA\n", PlanError, "holds several 'cam' with one data ID"),
        ("dataset_type,exposure,dataset_id\nbias,1,no-uuid\n", PlanError, "it is no uuid"),
        (f"dataset_type,exposure,dataset_id\nbias,1,{ABSENT}\n", PlanError, f"dataset {ABSENT}"),
        ("dataset_type,exposure,collection\nbias,1,c1\nbias,1,c2\n", PlanError, "rows 1 and 2"),
    ],
)  # fmt: skip
def test_an_override_that_cannot_be_meant_is_refused_by_its_row(
    text: str, kind: type[Exception], words: str, survey: Registry, tmp_path: Path
) -> None:
    with pytest.raises(kind, match=words):
        overrides_of(text, survey, tmp_path)


def test_an_override_with_a_dataset_of_another_type_or_data_id_is_refused(
    survey: Registry, tmp_path: Path
) -> None:
    flat, bias = id_of(survey, "pfx", "in"), id_of(survey, "bias", "c1", detector=1)
    with pytest.raises(PlanError, match=r"override of 'bias' names a dataset of type 'pfx'(?s:.*)row 1"):
        overrides_of(f"dataset_type,dataset_id\nbias,{flat}\n", survey, tmp_path)
    with pytest.raises(PlanError, match=r"for detector 0 names a dataset of detector 1(?s:.*)row 1"):
        overrides_of(f"dataset_type,detector,dataset_id\nbias,0,{bias}\n", survey, tmp_path)
