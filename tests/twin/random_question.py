"""Random pipelines over a random survey, and requests: one question is a survey with some of both.

Aimed at what goes wrong: gathers with too few inputs, optional inputs, what some inputs hold in part, outputs that
exist or are in the way, prerequisites by time, by place and by data ID, expressions and tables over dimensions that
a task has not.
"""

from collections.abc import Mapping, Sequence
from random import Random

from random_survey import GOVERNORS, OBSERVED, Data, Survey

# What tasks may be spread over.
AXES = (("exposure", "detector"), ("exposure",), ("visit", "detector"), ("visit",), ("patch", "visit"),
        ("tract", "visit"), ("patch", "visit", "detector"), ("patch", "band"), ("patch",), ("tract",),
        ("tract", "band"), ("detector",), ("physical_filter",), ("physical_filter", "detector"), ("instrument",),
        ("band",), ("day_obs",), ("day_obs", "detector"), ("patch", "physical_filter"), ())  # fmt: skip
WEIGHTS = (5, 2, 6, 4, 5, 2, 3, 5, 3, 2, 1, 3, 1, 2, 1, 1, 1, 1, 1, 1)


def random_pipeline(survey: Survey) -> Data:
    """Draw up to six tasks in a row, each reading some of what is there before it."""
    r = survey.random
    either = (
        "linearity",
        "sky_map",
        "table",
        "mask",
        "template",
        "tract_model",
    )  # a pipeline reads each in one way
    regular = {name for name in either if r.random() < 0.5} | {"raw", "old_image", "old_summary", "old_warp"}
    there = {name: (survey.types[name][0], False) for name in sorted(regular)}
    tasks: Data = {}
    for i in range(r.choice((1, 2, 2, 3, 3, 4, 5, 6))):
        label = f"task{i}"
        made = [n for n, (_, made) in there.items() if made]
        old = ["raw"] * 14 + [n for n, (_, made) in there.items() if not made]
        weighted = made * 8 + old
        names = list(dict.fromkeys(r.choice(weighted) for _ in range(r.choice((1, 1, 2, 3)))))
        dimensions = _axes_near(r, [there[n][0] for n in names])
        task: Data = {"dimensions": dimensions}
        task["inputs"] = {f"in_{n}": _input(r, n, there[n][0], dimensions) for n in names}
        task["prerequisites"] = _prerequisites(survey, dimensions, regular)
        task["outputs"] = {}
        for j in range(r.choice((1, 1, 1, 2))):
            finer = [a for a in AXES if set(dimensions) < set(a)]  # two quanta never make one dataset
            wide = r.choice(finer) if finer and r.random() < 0.08 else dimensions
            name = f"made{i}{'ab'[j]}"
            multiple = not set(wide) <= set(dimensions)
            task["outputs"][f"out_{name}"] = {"dataset_type": name, "dimensions": wide, "multiple": multiple}
            there[name] = (wide, True)
        there[f"{label}_metadata"] = (dimensions, True)
        if r.random() < 0.15:
            task["init_inputs"] = {"init": {"dataset_type": r.choice(("schema", *tasks_schemas(tasks)))}}
        if r.random() < 0.15:
            task["init_outputs"] = {"init_out": {"dataset_type": f"{label}_schema"}}
        places = [
            c for c in (*task["inputs"], *task["outputs"]) if c.startswith(("in_old_image", "out_made"))
        ]
        if "pre_reference" in task["prerequisites"] and r.random() < 0.3:
            sides = {**task["inputs"], **task["outputs"]}
            spatial = [c for c in places if {"visit", "tract", "patch"} & set(sides[c]["dimensions"])]
            task["spatial_bounds_from"] = [c for c in spatial if not _two_skies(sides[c]["dimensions"])][:1]
        tasks[label] = task
    return {"tasks": tasks}


def _two_skies(dimensions: Sequence[str]) -> bool:
    return "visit" in dimensions and bool({"tract", "patch"} & set(dimensions))


def tasks_schemas(tasks: Mapping[str, Data]) -> list[str]:
    """Return the init outputs of some tasks."""
    return [c["dataset_type"] for t in tasks.values() for c in t.get("init_outputs", {}).values()]


def _axes_near(r: Random, inputs: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """Return dimensions for a task: those of an input, what it may gather over, or any."""
    kind = r.random()
    if kind < 0.3:
        return tuple(r.choice(inputs))
    if kind < 0.6:
        near = [a for a in AXES if set(a) < set(inputs[0]) or set(inputs[0]) < set(a)]
        if near:
            return r.choice(near)
    return r.choices(AXES, WEIGHTS)[0]


def _input(r: Random, name: str, dimensions: Sequence[str], task: Sequence[str]) -> Data:
    single = set(dimensions) <= set(task)
    c: Data = {"dataset_type": name, "dimensions": dimensions, "multiple": not single or r.random() < 0.3}
    if not single and r.random() < 0.05:
        c["multiple"] = False
    if c["multiple"]:
        c["minimum"] = r.choice((0, 1, 1, 1, 1, 1, 1, 2, 3))
    elif r.random() < 0.25:
        c["minimum"] = 0
    if not name.startswith(("made", "task")) and r.random() < 0.15:
        c["no_graph_constraint"] = True
    if name.endswith("_metadata"):
        c["storage_class"] = "TaskMetadata"
    return c


def _prerequisites(survey: Survey, task: Sequence[str], regular: set[str]) -> Data:
    """Draw calibrations, reference data and datasets looked up by data ID or by where they are on the sky."""
    r = survey.random
    spatial = set(task) & {"visit", "patch", "tract"}
    suitable = ["linearity", "camera", "bias", "flat", "sky_map", "table"]
    suitable += ["reference", "mask", "template", "tract_model"] if spatial else []
    suitable = [name for name in suitable if name not in regular]
    found: Data = {}
    for name in r.sample(suitable, min(len(suitable), r.choice((0, 0, 1, 1, 2)))):
        dimensions, calibration = survey.types[name]
        closed = set(task) | (
            {"physical_filter", "band", "day_obs"} if {"visit", "exposure"} & set(task) else set()
        )
        closed |= {"instrument"} if set(task) & set(OBSERVED) else set()
        closed |= {"tract"} if "patch" in task else set()
        closed |= {"band"} if "physical_filter" in closed else set()
        single = set(dimensions) <= closed
        if calibration and not single and r.random() < 0.9:
            continue  # the peer does not support it where the task has a time
        found[f"pre_{name}"] = {
            "dataset_type": name,
            "dimensions": dimensions,
            "calibration": calibration,
            "multiple": not single or r.random() < 0.2,
            "minimum": r.choice((0, 0, 0, 1, 1, 1 if single else 2)),
        }
    return found


CONDITIONS = (
    "detector > 1", "detector IN (1..3:2)", "band = 'g'", "band = 'r'", "physical_filter = 'F-r2'",
    "NOT (detector = 1 OR band = 'r')", "exposure IN (1..3)", "exposure > 2", "visit IN (101..103)",
    "visit = 101 OR detector = 2", "patch = 0", "patch IN (0, 1)", "tract = 0", "tract = patch", "tract = 1",
    "visit.exposure_time > 5", "exposure.exposure_time >= 10", "exposure.observation_type = 'science'",
    "day_obs = 20250101", "patch.cell_x = 0", "exposure < detector", "visit % 2 = 1",
    "detector.full_name = 'D1'", "visit.timespan.begin > T'2025-01-01T02:10:00/tai'",
    "exposure.timespan OVERLAPS (T'2025-01-01T01:10:00/tai', T'2025-01-01T03:20:00/tai')",
    "visit_detector_region.region OVERLAPS POINT(1.5, 1.5)", "patch.region OVERLAPS REGION('CIRCLE 2 1 1')",
    "detector IN (:few)", "band = 'g' AND detector = 1", "visit = 999", "exposure != 1 AND detector != 2",
    "(exposure = 1 AND detector = 1) OR (exposure = 2 AND detector = 2)",
)  # fmt: skip
TABLES = (("detector",), ("exposure",), ("exposure", "detector"), ("visit",), ("visit", "detector"), ("band",),
          ("tract", "patch"), ("patch", "visit", "tract"), ("tract",))  # fmt: skip


def random_request(survey: Survey, pipeline: str) -> Data:
    """Draw what is asked of a pipeline."""
    r = survey.random
    conditions = r.sample(CONDITIONS, r.choice((0, 0, 1, 1, 1, 2)))
    joined = " AND ".join(["instrument = 'I'", "skymap = 'S'", *(f"({c})" for c in conditions)])
    request: Data = {"pipeline": pipeline, "where": joined if conditions or r.random() < 0.6 else ""}
    request |= {"inputs": [r.choice(("inputs", "inputs", "inputs", "picked/inputs"))], "output_run": "out"}
    if ":few" in joined:
        request["bind"] = {"few": r.sample(range(1, 5), 2)}
    if r.random() < 0.5:
        there = [["prev"], ["prev"], ["out"], ["prev", "out"], ["out", "prev"]]
        request["skip_existing_in"] = r.choice([names for names in there if set(names) <= set(survey.runs)])
    if r.random() < 0.4:
        request["clobber"] = True
    if r.random() < 0.2:
        keys = r.choice(TABLES)
        ids = survey.some(survey.data_ids(keys), 0.3)
        governors = [g for g in GOVERNORS if ids and g in ids[0]]
        if ids:
            request["tables"] = [[[*governors, *keys], [[i[k] for k in (*governors, *keys)] for i in ids]]]
    return request


def add_existing_outputs(survey: Survey, pipelines: Mapping[str, Data]) -> None:
    """Let parts of what the pipelines make exist: in an earlier run, and in the way in the output run."""
    r = survey.random
    survey.runs += ["prev", *(["out"] if r.random() < 0.8 else [])]
    for pipeline in pipelines.values():
        for label, task in pipeline["tasks"].items():
            if r.random() < 0.5:
                continue
            made = {c["dataset_type"]: tuple(c["dimensions"]) for c in task["outputs"].values()}
            made[f"{label}_metadata"] = tuple(task["dimensions"])
            once = [f"{label}_config", *(c["dataset_type"] for c in task.get("init_outputs", {}).values())]
            for name, dimensions in {**made, **dict.fromkeys(once, ())}.items():
                survey.types[name] = (dimensions, False)
                ids = survey.data_ids(dimensions)
                if name in once or r.random() < 0.7:  # the peer wants the former where all quanta are done
                    survey.insert(name, "prev", ids if name in once else survey.some(ids, 0.5))
                if "out" in survey.runs and name not in once and r.random() < 0.15:
                    survey.insert(name, "out", survey.some(ids, 0.1))


def random_question(seed: int, pipelines: int = 3, requests: int = 3) -> Data:
    """Return a survey with some pipelines and, for each, some requests."""
    survey = Survey(Random(seed))
    drawn = {f"p{i}": prefixed(random_pipeline(survey), f"p{i}_") for i in range(pipelines)}
    add_existing_outputs(survey, drawn)
    asked = [random_request(survey, name) for name in drawn for _ in range(requests)]
    return {"survey": survey.json(), "pipelines": drawn, "requests": asked}


def prefixed(pipeline: Data, prefix: str) -> Data:
    """Return a pipeline whose labels and made dataset types are its own."""
    mine = set(pipeline["tasks"]) | {
        c["dataset_type"] for t in pipeline["tasks"].values()
        for kind in ("outputs", "init_outputs") for c in t.get(kind, {}).values()
    }  # fmt: skip
    mine |= {f"{label}_metadata" for label in pipeline["tasks"]}
    tasks = {}
    for label, task in pipeline["tasks"].items():
        tasks[prefix + label] = task
        for kind in ("inputs", "prerequisites", "outputs", "init_inputs", "init_outputs"):
            for c in task.get(kind, {}).values():
                if c["dataset_type"] in mine:
                    c["dataset_type"] = prefix + c["dataset_type"]
    return {"tasks": tasks}
