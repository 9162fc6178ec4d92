"""Plan: from a pipeline, a registry and a request to a finished plan. Reads the registry, writes nothing."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import chain

import numpy as np
import polars as pl
from loadmaster_pipelines.batch import Clustering
from loadmaster_pipelines.pipeline import Pipeline, PipelineDatasetType
from loadmaster_pipelines.storage import extension_of
from loadmaster_registry.errors import PlanError
from loadmaster_registry.snapshot import Snapshot
from loadmaster_registry.store import Registry

from .all_done import basis_of, parts_if_all_done
from .build import build_part
from .candidates import connected_parts, group_of
from .content import reused_rows
from .flags import flag_note
from .freeze import QuantumGraph, freeze_graph
from .graph import Datasets, Part, Quanta
from .header import ConnectionFacts, PlanHeader, TaskFacts, TaskSummary, TypeFacts
from .init_inputs import refuse_missing_init_inputs
from .jobs import planned_jobs
from .overrides import unmatched
from .plain import clustering_to_json
from .plan import Plan, starts, tables_digest
from .prerequisites import Prerequisites, find_prerequisites
from .repair import check_repair
from .request import Request
from .tables import MemoryTables
from .target import check_target


def make_plan(
    registry: Registry, pipeline: Pipeline, request: Request, clustering: Clustering | None = None
) -> Plan:
    """Resolve `pipeline` against `registry`: which task runs on which data, with what, to make what.

    Parameters
    ----------
    clustering : Clustering, optional
        Which quanta run together in a job; by default each is a job of its own.

    Raises
    ------
    PlanError
        If a dataset type is unknown or contradicts the registry, a prerequisite is missing or ambiguous, or an
        output exists already (all clashes are listed).
    QueryError
        If the `where` of the request cannot be understood.
    """
    jobs = clustering or Clustering()
    with registry.snapshot() as now:
        check_target(now.universe, pipeline, request)
        check_repair(request)
        parts = parts_if_all_done(now, pipeline, request, jobs.elide)
        if parts is None:
            parts = [build_part(now, part, request, jobs.elide) for part in connected_parts(pipeline)]
        _refuse_partial_gathers(parts, request)
        found = _prerequisites(now, pipeline, request, parts)
        graph = freeze_graph(now, parts, found)
        running = [label for label, quanta in graph.quanta.items() if quanta.count]
        done = {label for part in parts for label, n in part.done.items() if n}
        refuse_missing_init_inputs(now, pipeline, running, done, request)
        notes = _notes(now, pipeline, request, found.values())
        return _finished(now, pipeline, request, parts, graph, jobs, notes)


def _prerequisites(
    registry: Snapshot, pipeline: Pipeline, request: Request, parts: list[Part]
) -> dict[tuple[str, str], Prerequisites]:
    return {
        (label, name): found
        for part in parts
        for label, quanta in part.quanta.items()
        if quanta.count
        for name, found in find_prerequisites(
            registry, pipeline.tasks[label], part, request.inputs, request.overrides
        ).items()
    }


def _notes(
    registry: Snapshot, pipeline: Pipeline, request: Request, found: Iterable[Prerequisites]
) -> tuple[str, ...]:
    """Return what a person should know: what flags left out, and overrides that match nothing."""
    group = group_of(registry.universe, pipeline)
    flags = [] if request.include_flagged else flag_note(registry, group)
    return (*flags, *unmatched(request.overrides, chain.from_iterable(p.overridden for p in found)))


def _refuse_partial_gathers(parts: list[Part], request: Request) -> None:
    """Raise if a restriction trims what tasks gather, unless this is wanted."""
    partial = [p for part in parts for p in part.partial]
    if partial and not request.allow_partial_gather:
        raise PlanError(
            what="the restriction leaves gathers with a part of their inputs",
            where=f"where `{request.where}`"
            + "".join(f", data IDs of {table.name}" for table in request.tables)
            + "".join(f"\n    {p}" for p in partial),
            why="`where` and tables restrict every data ID, also of what other data IDs need whole",
            todo="say what is wanted with --target instead, which plans all that it needs, or accept it with "
            "--allow-partial-gather",
        )


def _finished(
    registry: Snapshot,
    pipeline: Pipeline,
    request: Request,
    parts: list[Part],
    graph: QuantumGraph,
    clustering: Clustering,
    notes: tuple[str, ...],
) -> Plan:
    """Add ids, locations, jobs and the digest."""
    asked = clustering_to_json(clustering, pipeline)
    basis = basis_of(registry, pipeline, request, clustering.elide)
    job_facts, job_frames, pipeline = planned_jobs(graph, pipeline, clustering)
    order = [label for label in pipeline.tasks if label in graph.quanta]
    frames = _graph_frames(registry, graph, order)
    for name, frame in job_frames.items():
        frames[name] = frames[name].hstack(frame) if name in frames else frame
    reused = reused_rows(registry, parts, request.output_run)
    frames |= {f"reused/{name}": frame for name, frame in reused.items()}
    tasks = tuple(_task_facts(graph.quanta[label]) for label in order)
    known = pipeline.dataset_types()
    types = tuple(_type_facts(registry, known[n], graph.datasets[n]) for n in sorted(graph.datasets))
    facts = {
        "pipeline": pipeline.to_json(),
        "tasks": [asdict(t) for t in tasks],
        "types": [asdict(t) for t in types],
        "jobs": asdict(job_facts),
    }
    header = PlanHeader(
        digest=tables_digest(facts, frames),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        inputs=tuple(c.name for c in registry.flatten(request.inputs)),
        output=request.output,
        output_run=request.output_run,
        where=request.where,
        pipeline=pipeline.to_json(),
        tasks=tasks,
        types=types,
        summary=tuple(_summary(graph, parts, frames, label) for label in order),
        dropped=tuple(d for part in parts for d in part.dropped),
        why_empty="\n".join(part.why_empty for part in parts if part.why_empty),
        axes={d: len(axis) for d, axis in sorted(graph.axes.values.items())},
        jobs=job_facts,
        partial=tuple(p for part in parts for p in part.partial),
        request=request.to_json(),
        clustering=asked,
        notes=notes,
        basis=basis,
        reused={name: frame.height for name, frame in reused.items()},
    )
    return Plan(header, MemoryTables(frames))


def _graph_frames(registry: Snapshot, graph: QuantumGraph, order: list[str]) -> dict[str, pl.DataFrame]:
    """Return the plan's tables of axes, quanta, edges and datasets by name."""
    frames = {f"axes/{d}": pl.DataFrame({"value": axis}) for d, axis in sorted(graph.axes.values.items())}
    for label in order:
        frames[f"quanta/{label}"] = _quanta_frame(graph.quanta[label])
        for c, edges in (*graph.quanta[label].inputs.items(), *graph.quanta[label].outputs.items()):
            frames[f"edges/{label}/{c}"] = pl.DataFrame({"dataset": edges.dataset})
    for name in sorted(graph.datasets):
        frames[f"datasets/{name}"] = _datasets_frame(registry, graph.datasets[name])
    return frames


def _quanta_frame(quanta: Quanta) -> pl.DataFrame:
    edges = {**quanta.inputs, **quanta.outputs}
    return pl.DataFrame(
        [
            *quanta.codes.get_columns(),
            *_random_ids(quanta.count),
            *(pl.Series(f"start:{c}", starts(e.quantum, quanta.count)) for c, e in edges.items()),
        ]
    )


def _datasets_frame(registry: Snapshot, table: Datasets) -> pl.DataFrame:
    hi, lo = _random_ids(table.count)
    known = table.existing >= 0
    if not known.any():
        return pl.DataFrame([*table.codes.get_columns(), hi, lo])
    files = registry.files(pl.Series("dataset", table.existing[known]))
    if not known.all():
        wanted = pl.DataFrame({"dataset": table.existing})
        files = wanted.join(files, on="dataset", how="left", maintain_order="left")
    stored = files["id"].fill_null(b"\0" * 16).cast(pl.List(pl.UInt8)).list.explode()
    ids = stored.to_numpy().view(">u8").reshape(-1, 2)
    hi = pl.Series("id_hi", np.where(known, ids[:, 0].astype(np.uint64), hi.to_numpy()))
    lo = pl.Series("id_lo", np.where(known, ids[:, 1].astype(np.uint64), lo.to_numpy()))
    facts = files.select("run", "url", "size_bytes", "checksum")
    return pl.DataFrame([*table.codes.get_columns(), hi, lo, *facts.get_columns()])


def _random_ids(count: int) -> tuple[pl.Series, pl.Series]:
    """Return the halves of `count` random UUIDs of version 4 (RFC 9562), made in bulk."""
    random = np.random.default_rng()  # seeded by the system
    hi, lo = (random.integers(2**64, size=count, dtype=np.uint64) for _ in range(2))
    hi &= np.uint64(0xFFFF_FFFF_FFFF_0FFF)
    hi |= np.uint64(0x4000)
    lo &= np.uint64(0x3FFF_FFFF_FFFF_FFFF)
    lo |= np.uint64(0x8000_0000_0000_0000)
    return pl.Series("id_hi", hi), pl.Series("id_lo", lo)


def _task_facts(quanta: Quanta) -> TaskFacts:
    sides = ((quanta.inputs, False), (quanta.outputs, True))
    return TaskFacts(
        quanta.label,
        quanta.count,
        quanta.dimensions,
        quanta.implied,
        tuple(
            ConnectionFacts(c, quanta.types[c], made, len(e)) for side, made in sides for c, e in side.items()
        ),
    )


def _type_facts(registry: Snapshot, used: PipelineDatasetType, table: Datasets) -> TypeFacts:
    existing = int((table.existing >= 0).sum())
    storage_class = used.storage_class if used.producer else registry.dataset_type(table.name).storage_class
    own, *others = used.formats or (None,)
    return TypeFacts(
        table.name,
        table.count,
        existing,
        table.dimensions,
        table.implied,
        storage_class,
        used.calibration,
        own.extension if own else extension_of(storage_class),
        {other.name: other.extension for other in others if other},
    )


def _summary(
    graph: QuantumGraph, parts: list[Part], frames: Mapping[str, pl.DataFrame], label: str
) -> TaskSummary:
    quanta = graph.quanta[label]
    found, size = 0, 0
    for name in sorted({quanta.types[c] for c in quanta.inputs}):
        used = np.zeros(graph.datasets[name].count if name in graph.datasets else 0, dtype=bool)
        for c, edges in quanta.inputs.items():
            if quanta.types[c] == name:
                used[edges.dataset] = True
        if used.size and (here := used & (graph.datasets[name].existing >= 0)).any():
            found += int(here.sum())
            size += int(frames[f"datasets/{name}"].filter(pl.Series(here))["size_bytes"].sum())
    part = next(p for p in parts if label in p.quanta)
    return TaskSummary(
        label=label,
        quanta=quanta.count,
        inputs_found=found,
        inputs_missing=part.missing.get(label, 0),
        dropped=sum(d.count for d in part.dropped if d.task == label),
        done=part.done.get(label, 0),
        bytes_in=size,
        outputs=sum(len(e) for e in quanta.outputs.values()),
    )
