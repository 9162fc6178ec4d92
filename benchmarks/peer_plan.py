"""The peer's side of `plan.py`: the same survey and pipeline in lsst.daf.butler and lsst.pipe.base.

Run by `plan.py --peer PYTHON` in the peer's own environment. Prints one JSON line: quanta, edges, seconds of
building, digests of every task's quanta and edges, peak memory.
"""

import hashlib
import json
import resource
import sys
import time
import types
from collections.abc import Mapping

import astropy.time
import survey as synthetic
from lsst.daf.butler import Butler, CollectionType, DatasetType, Timespan
from lsst.pipe.base import (
    Pipeline,
    PipelineTask,
    PipelineTaskConfig,
    PipelineTaskConnections,
    connectionTypes,
)
from lsst.pipe.base.all_dimensions_quantum_graph_builder import AllDimensionsQuantumGraphBuilder
from lsst.sphgeom import ConvexPolygon, Region

MODULE = sys.modules[__name__]
STORAGE = "StructuredDataDict"


def new_class(
    name: str, bases: tuple[type, ...], keywords: dict[str, object], body: Mapping[str, object] | None = None
) -> type:
    """Make a class whose metaclass prepares its namespace."""
    return types.new_class(
        name, bases, keywords, lambda namespace: namespace.update({"__module__": __name__} | dict(body or {}))
    )


def make_tasks() -> None:
    """Make a task class for each line of the table, as attributes of this module."""
    for label, (dimensions, inputs, outputs) in synthetic.TASKS.items():
        body = {
            n: connectionTypes.Input(doc="", name=n, storageClass=STORAGE, dimensions=d, multiple=True)
            for n, d in inputs.items()
        }
        body |= {
            n: connectionTypes.PrerequisiteInput(
                doc="", name=n, storageClass=STORAGE, dimensions=d, isCalibration=True
            )
            for n, d in synthetic.PREREQUISITES.get(label, {}).items()
        }
        body |= {
            n: connectionTypes.Output(doc="", name=n, storageClass=STORAGE, dimensions=d)
            for n, d in outputs.items()
        }
        connections = new_class(
            f"{label}Connections", (PipelineTaskConnections,), {"dimensions": set(dimensions)}, body
        )
        config = new_class(f"{label}Config", (PipelineTaskConfig,), {"pipelineConnections": connections})
        task = new_class(f"{label}Task", (PipelineTask,), {}, {"ConfigClass": config, "_DefaultName": label})
        setattr(MODULE, f"{label}Config", config)
        setattr(MODULE, f"{label}Task", task)


def fill(butler: Butler, s: synthetic.Survey) -> None:
    """Register the survey."""
    registry = butler.registry
    instrument, skymap = synthetic.INSTRUMENT, synthetic.SKYMAP
    registry.insertDimensionData("instrument", {"name": instrument, "class_name": "x", "detector_max": 1000,
                                                "visit_max": 10**9, "exposure_max": 10**9})  # fmt: skip
    registry.insertDimensionData("skymap", {"name": skymap, "hash": b"0" * 20, "tract_max": 10**5})
    registry.insertDimensionData(
        "physical_filter", *({"instrument": instrument, "name": f"S-{b}", "band": b} for b in synthetic.BANDS)
    )
    registry.insertDimensionData(
        "detector",
        *({"instrument": instrument, "id": d, "full_name": str(d)} for d in range(synthetic.DETECTORS)),
    )
    registry.insertDimensionData(
        "day_obs", *({"instrument": instrument, "id": int(d)} for d in sorted(set(s.day_obs.tolist())))
    )
    registry.insertDimensionData(
        "group", *({"instrument": instrument, "name": str(v)} for v in s.visit.tolist())
    )
    fill_observations(registry, s)
    tracts = range(len(s.tract_region))
    regions = [Region.decode(b) for b in synthetic.encoded(s.tract_region)]
    registry.insertDimensionData(
        "tract", *({"skymap": skymap, "id": t, "region": regions[t]} for t in tracts)
    )
    regions = [ConvexPolygon.decode(b) for b in synthetic.encoded(s.patch_region)]
    registry.insertDimensionData(
        "patch",
        *(
            {
                "skymap": skymap,
                "tract": t,
                "id": p,
                "cell_x": p % 8,
                "cell_y": p // 8,
                "region": regions[64 * t + p],
            }
            for t in tracts
            for p in range(64)
        ),
    )


def fill_observations(registry: object, s: synthetic.Survey) -> None:
    """Register exposures, visits and their detectors' regions."""
    instrument = synthetic.INSTRUMENT
    times = [
        Timespan(
            astropy.time.Time(b / 1e9, format="unix_tai"), astropy.time.Time(b / 1e9 + 30, format="unix_tai")
        )
        for b in s.begin_ns.tolist()
    ]
    visits = s.visit.tolist()
    common = [
        {
            "instrument": instrument,
            "id": v,
            "physical_filter": f"S-{synthetic.BANDS[b]}",
            "day_obs": d,
            "timespan": t,
        }
        for v, b, d, t in zip(visits, s.band.tolist(), s.day_obs.tolist(), times, strict=True)
    ]
    registry.insertDimensionData(
        "exposure", *({**c, "obs_id": str(c["id"]), "group": str(c["id"])} for c in common)
    )
    regions = [Region.decode(b) for b in synthetic.encoded(s.visit_region)]
    registry.insertDimensionData(
        "visit", *({**c, "name": str(c["id"]), "region": r} for c, r in zip(common, regions, strict=True))
    )
    registry.insertDimensionData(
        "visit_definition", *({"instrument": instrument, "exposure": v, "visit": v} for v in visits)
    )
    regions = [Region.decode(b) for b in synthetic.encoded(s.detector_region)]
    rows = [
        {"instrument": instrument, "visit": v, "detector": d, "region": regions[i * synthetic.DETECTORS + d]}
        for i, v in enumerate(visits)
        for d in range(synthetic.DETECTORS)
    ]
    registry.insertDimensionData("visit_detector_region", *rows)


def fill_datasets(butler: Butler, s: synthetic.Survey) -> None:
    """Register a raw for every exposure and detector, and calibrations that are valid for ever."""
    registry, instrument = butler.registry, synthetic.INSTRUMENT
    registry.registerRun("raw")
    registry.registerRun("calib/run")
    registry.registerCollection("calib", CollectionType.CALIBRATION)
    detectors = range(synthetic.DETECTORS)
    raw = DatasetType("raw", ["exposure", "detector"], STORAGE, universe=butler.dimensions)
    registry.registerDatasetType(raw)
    ids = [
        {"instrument": instrument, "exposure": v, "detector": d} for v in s.visit.tolist() for d in detectors
    ]
    registry.insertDatasets(raw, ids, run="raw")
    filters = [f"S-{b}" for b in synthetic.BANDS]
    calibrations = {
        "bias": [{"instrument": instrument, "detector": d} for d in detectors],
        "flat": [
            {"instrument": instrument, "detector": d, "physical_filter": f}
            for d in detectors
            for f in filters
        ],
    }
    for name, ids in calibrations.items():
        dimensions = synthetic.PREREQUISITES["isr"][name]
        kind = DatasetType(name, dimensions, STORAGE, universe=butler.dimensions, isCalibration=True)
        registry.registerDatasetType(kind)
        registry.certify("calib", registry.insertDatasets(kind, ids, run="calib/run"), Timespan(None, None))


def digests(graph: object) -> tuple[dict[str, str], int, int]:
    """Return a digest of each task's quanta with their edges, and the counts of both."""
    found, edges, n = {}, 0, 0
    for label in synthetic.TASKS:
        lines = []
        for node in graph.getNodesForTask(graph.findTaskDefByLabel(label)):
            sides = []
            for side in (node.quantum.inputs, node.quantum.outputs):
                told = {
                    kind.name: sorted(list(ref.dataId.required_values) for ref in refs)
                    for kind, refs in side.items()
                    if refs and not kind.name.endswith(("_metadata", "_log"))
                }
                edges += sum(map(len, told.values()))
                sides.append(told)
            lines.append((list(node.quantum.dataId.required_values), *sides))
        n += len(lines)
        lines.sort(key=lambda line: line[0])
        digest = hashlib.sha256()
        for line in lines:
            digest.update(json.dumps(line, sort_keys=True, separators=(",", ":")).encode() + b"\n")
        found[label] = digest.hexdigest()
    return found, n, edges


def main(folder: str, quanta: int) -> None:
    """Fill a repository, plan, print."""
    s = synthetic.survey_of(quanta)
    Butler.makeRepo(folder)
    butler = Butler.from_config(folder, writeable=True)
    fill(butler, s)
    fill_datasets(butler, s)
    make_tasks()
    pipeline = Pipeline("synthetic")
    for label in synthetic.TASKS:
        pipeline.addTask(getattr(MODULE, f"{label}Task"), label)
    begin, cpu = time.perf_counter(), time.process_time()
    builder = AllDimensionsQuantumGraphBuilder(
        pipeline.to_graph(),
        butler,
        where=synthetic.WHERE,
        input_collections=["raw", "calib"],
        output_run="out",
    )
    graph = builder.build(attach_datastore_records=False)
    seconds, cpu = time.perf_counter() - begin, time.process_time() - cpu
    found, n, edges = digests(graph)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        json.dumps(
            {
                "quanta": n,
                "edges": edges,
                "seconds": seconds,
                "cpu_s": cpu,
                "peak_mib": peak,
                "digests": found,
            }
        )
    )


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
