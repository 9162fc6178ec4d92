"""The peer's side of the live twin: Rubin's own builder, asked by lines of JSON.

Run in the peer's environment. Reads one survey with its pipelines and requests from each line of its input and
writes one line with an answer for each request: the quanta with their edges and the existing inputs with their
runs, or the class and words of what was raised.
"""

import itertools
import json
import logging
import sys
import tempfile
import time
import types
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import astropy.table
import astropy.time
from lsst.daf.butler import Butler, CollectionType, DatasetType, Timespan
from lsst.pipe.base import PipelineTask, PipelineTaskConfig, PipelineTaskConnections, connectionTypes
from lsst.pipe.base.all_dimensions_quantum_graph_builder import AllDimensionsQuantumGraphBuilder
from lsst.pipe.base.pipeline_graph import PipelineGraph
from lsst.sphgeom import Region

STORAGE = "StructuredDataDict"
FRAMEWORK = ("_metadata", "_log", "_config")
KINDS = {
    "inputs": connectionTypes.Input,
    "prerequisites": connectionTypes.PrerequisiteInput,
    "outputs": connectionTypes.Output,
    "init_inputs": connectionTypes.InitInput,
    "init_outputs": connectionTypes.InitOutput,
}
FLAGS = {"multiple": "multiple", "minimum": "minimum", "calibration": "isCalibration", "deferred": "deferLoad",
         "no_graph_constraint": "deferGraphConstraint"}  # fmt: skip
HERE = sys.modules[__name__]
_made = itertools.count()


def timespan(begin_ns: int | None, end_ns: int | None) -> Timespan:
    """Return a span from TAI nanoseconds; None is unbounded."""

    def instant(ns: int | None) -> astropy.time.Time | None:
        if ns is None:
            return None
        whole, rest = divmod(ns, 86_400_000_000_000)
        return astropy.time.Time(whole + 2440587.5, rest / 86_400_000_000_000, format="jd", scale="tai")

    return Timespan(instant(begin_ns), instant(end_ns))


def make_repository(folder: str, survey: Mapping[str, Any]) -> Butler:
    """Make a repository that holds a survey."""
    Butler.makeRepo(folder)
    butler = Butler.from_config(folder, writeable=True, without_datastore=True)
    for element, records in survey["records"].items():
        butler.registry.insertDimensionData(element, *map(record_of, records))
    add(butler, survey)
    return butler


def record_of(columns: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record with its region and its time span as objects."""
    found = dict(columns)
    if "region" in found:
        found["region"] = Region.decode(bytes.fromhex(found["region"]))
    if "timespan" in found:
        found["timespan"] = timespan(*found["timespan"])
    if "hash" in found:
        found["hash"] = bytes.fromhex(found["hash"])
    return found


def add(butler: Butler, survey: Mapping[str, Any]) -> None:
    """Add dataset types, datasets and collections to a repository."""
    registry = butler.registry
    for name, (dimensions, calibration) in survey["dataset_types"].items():
        storage = {"_metadata": "TaskMetadata", "_config": "Config"}.get(name[name.rfind("_") :], STORAGE)
        kind = DatasetType(name, dimensions, storage, universe=butler.dimensions, isCalibration=calibration)
        registry.registerDatasetType(kind)
    for name in survey["runs"]:
        registry.registerRun(name)
    for name, run, ids in survey["datasets"]:
        registry.insertDatasets(name, ids, run=run)
    for name, members in survey["tags"].items():
        registry.registerCollection(name, CollectionType.TAGGED)
        registry.associate(
            name, [ref for kind, run, row in members for ref in found(registry, kind, run, [row])]
        )
    for collection, kind, run, rows, begin, end in survey["ranges"]:
        registry.registerCollection(collection, CollectionType.CALIBRATION)
        registry.certify(collection, found(registry, kind, run, rows), timespan(begin, end))
    for name, children in survey["chains"]:
        registry.registerCollection(name, CollectionType.CHAINED)
        registry.setCollectionChain(name, children)


def found(registry: Any, name: str, run: str, rows: list[Mapping[str, Any]]) -> list[Any]:
    """Return the datasets of one type and run with these data IDs."""
    wanted = {frozenset(row.items()) for row in rows}
    refs = registry.queryDatasets(name, collections=[run])
    return [ref for ref in refs if frozenset(dict(ref.dataId.required).items()) in wanted]


def task_class(label: str, task: Mapping[str, Any]) -> tuple[type, Any]:
    """Make a task class of a neutral definition; return it and its configuration."""
    body: dict[str, Any] = {}
    for kind, make in KINDS.items():
        for name, c in task.get(kind, {}).items():
            keywords = {FLAGS[k]: v for k, v in c.items() if k in FLAGS}
            if not kind.startswith("init"):
                keywords["dimensions"] = c["dimensions"]
            whole = c["dataset_type"] + (f".{c['component']}" if c.get("component") else "")
            storage = c.get("storage_class", STORAGE)
            body[name] = make(doc="", name=whole, storageClass=storage, **keywords)
    if bounds := task.get("spatial_bounds_from"):
        body["getSpatialBoundsConnections"] = lambda self: tuple(bounds)
    number = next(_made)
    connections = new_class(
        f"Connections{number}", (PipelineTaskConnections,), {"dimensions": set(task["dimensions"])}, body
    )
    config = new_class(f"Config{number}", (PipelineTaskConfig,), {"pipelineConnections": connections})
    made = new_class(f"Task{number}", (PipelineTask,), {}, {"ConfigClass": config, "_DefaultName": label})
    return made, config()


def new_class(
    name: str, bases: tuple[type, ...], keywords: dict[str, Any], body: Mapping[str, Any] = {}
) -> type:
    """Make a class whose metaclass prepares its namespace; pickles find it here."""
    made = types.new_class(
        name, bases, keywords, lambda namespace: namespace.update({"__module__": __name__} | dict(body))
    )
    setattr(HERE, name, made)
    return made


def plan(butler: Butler, pipeline: Mapping[str, Any], request: Mapping[str, Any]) -> dict[str, Any]:
    """Build one quantum graph and tell it."""
    graph = PipelineGraph(universe=butler.dimensions)
    for label, task in pipeline["tasks"].items():
        graph.add_task(label, *task_class(label, task))
    builder = AllDimensionsQuantumGraphBuilder(
        graph,
        butler,
        where=request.get("where", ""),
        bind=request.get("bind") or None,
        data_id_tables=[
            astropy.table.Table(rows=rows, names=keys) for keys, rows in request.get("tables", ())
        ],
        input_collections=request["inputs"],
        output_run=request["output_run"],
        skip_existing_in=request.get("skip_existing_in", ()),
        clobber=request.get("clobber", False),
    )
    return told(builder.build(attach_datastore_records=False), list(pipeline["tasks"]))


def told(graph: Any, labels: Iterable[str]) -> dict[str, Any]:
    """Return each task's quanta with their edges, and the existing inputs with their runs."""
    tasks: dict[str, list[Any]] = {}
    inputs, made = set(), set()
    for label in labels:
        definition = graph.findTaskDefByLabel(label)
        for node in graph.getNodesForTask(definition) if definition is not None else ():
            quantum = node.quantum
            sides = []
            for side in (quantum.inputs, quantum.outputs):
                names: dict[str, set[tuple[Any, ...]]] = {}
                for kind, refs in side.items():
                    name = kind.nameAndComponent()[0]
                    if side is quantum.outputs and kind.name in [label + suffix for suffix in FRAMEWORK]:
                        made |= {(name, ref.dataId.required_values) for ref in refs}
                        continue
                    if refs:
                        names.setdefault(name, set()).update(ref.dataId.required_values for ref in refs)
                    for ref in refs:
                        key = (name, ref.dataId.required_values)
                        if side is quantum.outputs:
                            made.add(key)
                        else:
                            inputs.add((*key, ref.run))
                sides.append({name: sorted(rows) for name, rows in names.items()})
            tasks.setdefault(label, []).append([list(quantum.dataId.required_values), *sides])
    existing: dict[str, list[Any]] = {}
    for name, values, run in inputs:
        if (name, values) not in made:
            existing.setdefault(name, []).append([*values, run])
    return {
        "tasks": {label: sorted(quanta, key=lambda q: q[0]) for label, quanta in tasks.items()},
        "existing": {name: sorted(rows) for name, rows in existing.items()},
    }


def answer(question: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Answer all requests of one question."""
    answers = []
    with tempfile.TemporaryDirectory() as folder:
        butler = make_repository(str(Path(folder) / "repo"), question["survey"])
        for request in question["requests"]:
            begin = time.perf_counter()
            try:
                found = plan(butler, question["pipelines"][request["pipeline"]], request)
            except Exception as error:
                kind = type(error)
                found = {"failure": kind.__name__, "message": str(error)[:2000]}
            answers.append(found | {"seconds": round(time.perf_counter() - begin, 3)})
    return answers


def main() -> None:
    """Answer line by line until the input ends."""
    logging.disable(logging.CRITICAL)
    channel, sys.stdout = sys.stdout, sys.stderr  # nothing but answers goes there
    for line in sys.stdin:
        channel.write(json.dumps(answer(json.loads(line))) + "\n")
        channel.flush()


if __name__ == "__main__":
    main()
