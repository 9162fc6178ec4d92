"""Elision: datasets that a job hands on in memory from the quantum that makes them to those that read them.

A type can be elided if whoever reads one of its datasets is in the job that makes it.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from loadmaster_pipelines.batch import Clustering
from loadmaster_pipelines.pipeline import Pipeline
from loadmaster_pipelines.yaml_source import refuse
from loadmaster_registry.errors import PlanError, did_you_mean

from .clusters import Jobs
from .freeze import QuantumGraph
from .graph import quantum_data_id
from .jobgraph import Ints


@dataclass(frozen=True)
class _Outside:
    """Quanta of a task that read datasets of an elided type from other jobs."""

    dataset_type: str
    task: str
    quanta: int
    example: Mapping[str, int | str]
    maker: str

    def __str__(self) -> str:
        return (
            f"{self.dataset_type}: {self.quanta} quanta of {self.task}, for instance {dict(self.example)}, "
            f"read it from jobs of {self.maker}"
        )


def elided_types(
    graph: QuantumGraph, pipeline: Pipeline, jobs: Jobs, clustering: Clustering
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the types that are never stored, and notes on those that must be after all.

    Raises
    ------
    PipelineError
        If a type that is named for elision is none of the pipeline's, or nobody in it makes or reads it.
    PlanError
        If a quantum of another job needs one; `Clustering.store_after_all` stores the type instead.
    """
    for name in clustering.elide:
        _check_type(name, pipeline, clustering)
    outside = {name: _readers_outside(graph, jobs, name) for name in clustering.elide}
    wanted = [o for found in outside.values() for o in found]
    if wanted and not clustering.store_after_all:
        names = ", ".join(name for name, found in outside.items() if found)
        raise PlanError(
            what=f"{names} cannot be handed on in memory: other jobs need it",
            where="".join(f"\n    {o}" for o in wanted),
            why="what is elided exists only inside the job that makes it",
            todo=f"put {' and '.join(sorted({o.task for o in wanted}))} into the cluster of what they read, do not "
            "elide it, or have it stored where it is needed with --store-after-all",
        )
    kept = tuple(sorted(name for name, found in outside.items() if not found and name in graph.datasets))
    return kept, tuple(f"stored after all, because other jobs need it: {o}" for o in wanted)


def _check_type(name: str, pipeline: Pipeline, clustering: Clustering) -> None:
    where = clustering.at(f"elide.{name}")
    types = pipeline.dataset_types()
    candidates = [t.name for t in types.values() if t.producer and t.consumers and not t.is_init]
    if name not in types:
        refuse(where, f"there is no dataset type {name!r} to elide", "no task of the pipeline makes it",
               did_you_mean(name, candidates))  # fmt: skip
    if types[name].producer is None:
        refuse(where, f"{name!r} cannot be elided", "it comes from outside: no task of the pipeline makes it",
               did_you_mean(name, candidates))  # fmt: skip
    if not types[name].consumers or types[name].is_init:
        why = (
            "there is one a run"
            if types[name].is_init
            else "no task of the pipeline reads it: it is a result"
        )
        refuse(where, f"{name!r} cannot be elided", why, did_you_mean(name, candidates))


def _readers_outside(graph: QuantumGraph, jobs: Jobs, name: str) -> list[_Outside]:
    if name not in graph.datasets:
        return []
    maker, label = _makers(graph, jobs, name)
    found = []
    for quanta in graph.quanta.values():
        reading = [e for c, e in quanta.inputs.items() if quanta.types[c] == name and len(e)]
        if not reading:
            continue
        job = jobs.numbers(quanta)
        quantum = np.concatenate([e.quantum for e in reading])
        made_in = maker[np.concatenate([e.dataset for e in reading])]
        if (odd := np.unique(quantum[(made_in >= 0) & (made_in != job[quantum])])).size:
            example = quantum_data_id(quanta, graph.axes, int(odd[0]))
            found.append(_Outside(name, quanta.label, odd.size, example, label))
    return found


def _makers(graph: QuantumGraph, jobs: Jobs, name: str) -> tuple[Ints, str]:
    """Return the job that makes each dataset of a type, −1 where it exists already, and the task that does."""
    maker, label = np.full(graph.datasets[name].count, -1, dtype=np.int64), ""
    for quanta in graph.quanta.values():
        for c, edges in quanta.outputs.items():
            if quanta.types[c] == name and len(edges):
                maker[edges.dataset] = jobs.numbers(quanta)[edges.quantum]
                label = quanta.label
    return maker, label
