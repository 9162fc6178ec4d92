"""Quantum graphs made by hand or at random, without a registry, for tests of what jobs are made of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from random import Random

import numpy as np
import polars as pl
from loadmaster_pipelines.batch import Cluster, Clustering
from loadmaster_pipelines.connections import Connection
from loadmaster_pipelines.pipeline import Pipeline, TaskNode
from loadmaster_pipelines.resources import Resources
from loadmaster_planner.clusters import Jobs
from loadmaster_planner.freeze import QuantumGraph
from loadmaster_planner.graph import Datasets, Edges, Quanta
from loadmaster_registry.joins import CODE, Axes

Values = Mapping[str, Sequence[int | str]]
AXES: Values = {
    "instrument": ["Toy"],
    "exposure": [3, 9, 10, 21],
    "visit": [9, 10, 21],
    "detector": [1, 2, 10, 11],
    "band": ["g", "r"],
    "patch": [0, 7, 30],
}
Quantum = tuple[str, int]  # label and row


@dataclass(frozen=True)
class Task:
    """A task, the data IDs of its quanta, and which quanta read what which earlier ones make."""

    label: str
    dimensions: tuple[str, ...]
    rows: list[dict[str, int | str]]
    reads: Mapping[str, list[tuple[int, int]]]  # maker → pairs of own row and the maker's
    shares: list[tuple[int, int]]  # own row and existing dataset
    run_time_s: int | None = None


@dataclass(frozen=True)
class World:
    """Tasks in order of execution, and the graph and pipeline that they make."""

    tasks: tuple[Task, ...]
    n_stored: int = 5  # datasets that exist already

    @property
    def graph(self) -> QuantumGraph:
        axes = Axes({d: pl.Series(d, values) for d, values in AXES.items()})
        datasets = {
            t.label: Datasets(t.label, t.dimensions, codes(t, axes), len(t.rows), new(t)) for t in self.tasks
        }
        stored = np.arange(self.n_stored)
        datasets["stored"] = Datasets("stored", (), pl.DataFrame(), self.n_stored, stored)
        return QuantumGraph(axes, {t.label: quanta(t, axes) for t in self.tasks}, datasets)

    @property
    def pipeline(self) -> Pipeline:
        return Pipeline("for tests", None, {t.label: node(t) for t in self.tasks})

    @property
    def quanta(self) -> list[Quantum]:
        return [(t.label, row) for t in self.tasks for row in range(len(t.rows))]

    @property
    def links(self) -> set[tuple[Quantum, Quantum]]:
        """Return pairs of maker and reader."""
        return {
            ((maker, made), (t.label, row))
            for t in self.tasks
            for maker, pairs in t.reads.items()
            for row, made in pairs
        }

    def value(self, quantum: Quantum, dimension: str) -> int | str | None:
        task = next(t for t in self.tasks if t.label == quantum[0])
        return task.rows[quantum[1]].get(dimension)


def codes(task: Task, axes: Axes) -> pl.DataFrame:
    varying = axes.varying(task.dimensions)
    return pl.DataFrame(
        [pl.Series(d, [list(AXES[d]).index(row[d]) for row in task.rows], dtype=CODE) for d in varying]
    )


def new(task: Task) -> np.ndarray:
    return np.full(len(task.rows), -1, dtype=np.int64)


def edges(pairs: Sequence[tuple[int, int]]) -> Edges:
    both = np.array(sorted(pairs), dtype=np.uint32).reshape(-1, 2)
    return Edges(both[:, 0], both[:, 1])


def quanta(task: Task, axes: Axes) -> Quanta:
    inputs = {maker: edges(pairs) for maker, pairs in task.reads.items()}
    return Quanta(
        task.label,
        task.dimensions,
        codes(task, axes),
        len(task.rows),
        {**{maker: maker for maker in task.reads}, "stored": "stored", "out": task.label},
        {**inputs, "stored": edges(task.shares)},
        {"out": edges([(i, i) for i in range(len(task.rows))])},
    )


def node(task: Task) -> TaskNode:
    read = [Connection(m, "input", m, "Text", multiple=True, minimum=0) for m in (*task.reads, "stored")]
    out = Connection("out", "output", task.label, "Text", task.dimensions)
    resources = Resources(run_time_s=task.run_time_s)
    return TaskNode(task.label, task.dimensions, (*read, out), command="true", resources=resources)


def random_world(seed: int, is_local: bool) -> World:
    """Return up to five tasks with random data IDs; where local, quanta read only what agrees in shared dimensions."""
    random = Random(seed)
    tasks: list[Task] = []
    for i in range(random.randint(1, 5)):
        varying = random.sample([d for d in AXES if d != "instrument"], random.randint(1, 2))
        dimensions = tuple(d for d in AXES if d in ("instrument", *varying))
        every = [dict(zip(dimensions, v, strict=True)) for v in product(*(AXES[d] for d in dimensions))]
        rows = [row for row in every if random.random() < 0.8]
        makers = [t for t in tasks if random.random() < 0.5]
        reads = {t.label: _pairs(random, rows, t.rows, is_local) for t in makers}
        shares = [(row, dataset) for row in range(len(rows)) for dataset in range(5) if random.random() < 0.2]
        tasks.append(Task(f"t{i}", dimensions, rows, reads, shares, random.randint(1, 9)))
    return World(tuple(tasks))


def _pairs(random: Random, rows: list[dict[str, int | str]], made: list[dict[str, int | str]], is_local: bool
) -> list[tuple[int, int]]:  # fmt: skip
    alike = {"exposure": "visit", "visit": "exposure"}
    return [
        (i, j)
        for i, own in enumerate(rows)
        for j, other in enumerate(made)
        if (
            all(v in (other.get(d, v), other.get(alike.get(d, d), v)) for d, v in own.items())
            if is_local
            else random.random() < 0.1
        )
    ]


def random_clustering(world: World, seed: int) -> Clustering:
    """Return up to three clusters of tasks that stand next to each other, now and then of any."""
    random = Random(seed)
    labels = [t.label for t in world.tasks]
    if random.random() < 0.2:
        random.shuffle(labels)
    clusters = []
    while labels and len(clusters) < 3:
        size = random.randint(1, 3)
        mine, labels = labels[:size], labels[size:]
        pool = list(AXES) if random.random() < 0.1 else _common(world, mine)
        dimensions = tuple(random.sample(pool, min(len(pool), random.randint(0, 2))))
        n_split = random.choice([0, 0, 1, 2])
        split = tuple(random.sample(pool, min(len(pool), n_split)))
        by_jobs = random.random() < 0.5
        cluster = Cluster(
            f"c{len(clusters)}",
            tuple(sorted(mine)),
            dimensions,
            (("visit", "exposure"),) if random.random() < 0.95 else (),
            split,
            random.randint(4, 60) if split and by_jobs else None,
            random.randint(1, 5) if split and not by_jobs else None,
        )
        clusters.append(cluster)
    return Clustering(tuple(clusters))


def _common(world: World, labels: list[str]) -> list[str]:
    """Return the dimensions that tasks have in common; visit and exposure count as one."""
    alike = {"visit": {"visit", "exposure"}, "exposure": {"visit", "exposure"}}
    own = [set(t.dimensions) for t in world.tasks if t.label in labels]
    return [d for d in AXES if all(alike.get(d, {d}) & dimensions for dimensions in own)]


def numbers(jobs: Jobs, world: World) -> dict[Quantum, int]:
    found = {}
    for label, quanta in world.graph.quanta.items():
        found |= {(label, row): job for row, job in enumerate(jobs.numbers(quanta).tolist())}
    return found
