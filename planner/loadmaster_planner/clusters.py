"""From a quantum graph to jobs: which quanta run together. Jobs never wait for each other in a circle.

The rules of clustering by dimensions are those of Rubin's batch tools, so that a batch file means here what it means
there. Clusters are told apart by the values of their dimensions.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import networkx as nx
import numpy as np
import polars as pl
from loadmaster_pipelines.batch import Cluster, Clustering
from loadmaster_pipelines.pipeline import Pipeline
from loadmaster_pipelines.resources import NOTHING_ASKED
from loadmaster_registry.errors import PlanError
from loadmaster_registry.joins import CODE, Axes
from numpy.typing import NDArray

from .freeze import QuantumGraph
from .graph import Quanta, quantum_data_id
from .header import ClusterFacts
from .jobgraph import Ints, JobGraph
from .keys import key_source, numbered, quantum_keys
from .packing import packed_units

_NO_TASK = np.zeros(0, dtype=np.uint16)
_NO_ROWS = np.zeros(0, dtype=np.uint32)


@dataclass(frozen=True)
class JobCluster:
    """The jobs of one cluster, or of one task whose quanta are a job each.

    Members are sorted by job, and in a job by execution: by task, then by row. A job a quantum has none listed.
    """

    name: str
    tasks: tuple[str, ...]  # in order of execution
    n_jobs: int
    cluster: Cluster | None
    task: NDArray[np.uint16]  # of each member: place in `tasks`
    row: NDArray[np.uint32]  # of each member: row in the task's table
    start: NDArray[np.uint32]  # of each job: where its members begin, shape (n_jobs,)
    part: NDArray[
        np.uint32
    ]  # of each job: its number among those of the same values, from 1; empty if not split

    @classmethod
    def singly(cls, quanta: Quanta) -> "JobCluster":
        """Return the jobs of a task whose quanta are a job each."""
        return cls(quanta.label, (quanta.label,), quanta.count, None, _NO_TASK, _NO_ROWS, _NO_ROWS, _NO_ROWS)


@dataclass(frozen=True)
class Jobs:
    """All jobs of a graph, numbered through its clusters in order."""

    clusters: tuple[JobCluster, ...]

    def listed(self, label: str) -> Ints | None:
        """Return the job of each quantum of a task, counted within its cluster; None where each is one, in order."""
        cluster = self.clusters[self._place(label)]
        if not cluster.row.size:
            return None
        mine = cluster.task == cluster.tasks.index(label)
        job = np.repeat(np.arange(cluster.n_jobs), np.diff(cluster.start, append=cluster.row.size))
        found = np.empty(int(mine.sum()), dtype=np.int64)
        found[cluster.row[mine]] = job[mine]
        return found

    def numbers(self, quanta: Quanta) -> Ints:
        """Return the job of each quantum of a task, shape (n_quanta,)."""
        listed = self.listed(quanta.label)
        before = sum(cluster.n_jobs for cluster in self.clusters[: self._place(quanta.label)])
        return (np.arange(quanta.count) if listed is None else listed) + before

    @property
    def n_jobs(self) -> int:
        """How many jobs there are."""
        return sum(cluster.n_jobs for cluster in self.clusters)

    def first_job(self, name: str) -> int:
        """Return the number of the first job of a cluster, or of a task whose quanta are a job each."""
        place = next(i for i, cluster in enumerate(self.clusters) if cluster.name == name)
        return sum(cluster.n_jobs for cluster in self.clusters[:place])

    def first_quantum(self, job: int) -> tuple[str, str, int]:
        """Return the name of a job's cluster, and of its first quantum the task and the row in its table."""
        for cluster in self.clusters:
            if job < cluster.n_jobs:
                break
            job -= cluster.n_jobs
        if not cluster.row.size:
            return cluster.name, cluster.name, job
        first = int(cluster.start[job])
        return cluster.name, cluster.tasks[int(cluster.task[first])], int(cluster.row[first])

    def facts(self) -> tuple[ClusterFacts, ...]:
        """Return what the plan's header says of each kind of job."""
        return tuple(
            ClusterFacts(
                name=jobs.name,
                jobs=jobs.n_jobs,
                tasks=jobs.tasks,
                members=jobs.row.size,
                dimensions=jobs.cluster.dimensions if jobs.cluster else (),
                equal_dimensions=jobs.cluster.equal_dimensions if jobs.cluster else (),
                is_split=bool(jobs.part.size),
                resources=jobs.cluster.resources if jobs.cluster else NOTHING_ASKED,
            )
            for jobs in self.clusters
        )

    def tables(self) -> dict[str, pl.DataFrame]:
        """Return the plan's tables of jobs; none where each quantum is one."""
        tables = {}
        for jobs in self.clusters:
            if jobs.row.size:
                part = [pl.Series("part", jobs.part)] if jobs.part.size else []
                tables[f"jobs/{jobs.name}"] = pl.DataFrame([pl.Series("start", jobs.start), *part])
                tables[f"members/{jobs.name}"] = pl.DataFrame({"task": jobs.task, "row": jobs.row})
        return tables

    def _place(self, label: str) -> int:
        return next(i for i, cluster in enumerate(self.clusters) if label in cluster.tasks)


def make_jobs(graph: QuantumGraph, pipeline: Pipeline, clustering: Clustering) -> Jobs:
    """Put the quanta of a graph into jobs.

    Parameters
    ----------
    pipeline : Pipeline
        With the resources that the clustering asks for (`Clustering.applied`).
    clustering : Clustering
        As it is for this pipeline (`Clustering.of`).

    Raises
    ------
    PlanError
        If a quantum lacks a value that tells its job, jobs would wait for each other in a circle, or a cluster
        spans steps that run one after the other.
    """
    _check_steps(clustering, pipeline)
    clusters: list[JobCluster] = []
    for name, tasks, cluster in _in_order(clustering, pipeline):
        quanta = [graph.quanta[label] for label in tasks if label in graph.quanta]
        if cluster is None or not sum(q.count for q in quanta):
            clusters += map(JobCluster.singly, quanta)
        else:
            clusters.append(_clustered(graph, pipeline, replace(cluster, name=name), quanta))
    return Jobs(tuple(clusters))


def links(graph: QuantumGraph, labels: Sequence[str]) -> Iterator[tuple[str, Ints, str, Ints]]:
    """Go through what quanta of these tasks read of each other: reader, its rows, maker, its rows, one an edge."""
    makers: dict[str, list[tuple[str, Ints]]] = {}
    for label in labels:
        for c, edges in graph.quanta[label].outputs.items():
            name = graph.quanta[label].types[c]
            if len(edges):
                maker = np.full(graph.datasets[name].count, -1, dtype=np.int64)
                maker[edges.dataset] = edges.quantum
                makers.setdefault(name, []).append((label, maker))
    for label in labels:
        for c, edges in graph.quanta[label].inputs.items():
            for other, maker in makers.get(graph.quanta[label].types[c], ()) if len(edges) else ():
                made = maker[edges.dataset]
                here = made >= 0
                yield label, edges.quantum[here].astype(np.int64), other, made[here]


def _in_order(
    clustering: Clustering, pipeline: Pipeline
) -> list[tuple[str, tuple[str, ...], Cluster | None]]:
    """Return name, tasks in order of execution and cluster of each kind of job, each after those it reads from."""
    position = {label: i for i, label in enumerate(pipeline.tasks)}
    home = {label: c for c in clustering.clusters for label in c.tasks}
    name_of = {label: home[label].name if label in home else label for label in position}
    tasks: dict[str, list[str]] = {}
    for label in position:
        tasks.setdefault(name_of[label], []).append(label)
    between = nx.DiGraph()
    between.add_nodes_from(tasks)
    links = pipeline.task_graph().edges
    between.add_edges_from((name_of[a], name_of[b]) for a, b in links if name_of[a] != name_of[b])
    try:
        order = list(nx.lexicographical_topological_sort(between, key=lambda n: position[tasks[n][0]]))
    except nx.NetworkXUnfeasible:
        raise _circle_of_tasks(between, tasks, home, pipeline) from None
    return [(name, tuple(tasks[name]), home.get(tasks[name][0])) for name in order]


def _circle_of_tasks(
    between: nx.DiGraph, tasks: Mapping[str, list[str]], home: Mapping[str, Cluster], pipeline: Pipeline
) -> PlanError:
    circle = [edge[0] for edge in nx.find_cycle(between)]
    names = [name for name in circle if tasks[name][0] in home]
    circle = circle[circle.index(names[0]) :] + circle[: circle.index(names[0])]
    mine = set(tasks[names[0]])
    others = {label for name in circle[1:] for label in tasks[name]}
    graph = pipeline.task_graph()
    between_them = sorted(others & {d for t in mine for d in nx.descendants(graph, t)} & {
        a for t in mine for a in nx.ancestors(graph, t)
    }, key=list(pipeline.tasks).index)  # fmt: skip
    return PlanError(
        what=f"cluster {names[0]!r} would wait for itself",
        where=home[tasks[names[0]][0]].at(""),
        why=" → ".join((*circle, names[0])) + f": {', '.join(between_them)} of the others reads what "
        f"{', '.join(tasks[names[0]])} make, and makes what they read",
        todo=f"put {', '.join(between_them)} into cluster {names[0]!r}, or take tasks out of it",
    )


def _check_steps(clustering: Clustering, pipeline: Pipeline) -> None:
    step_of = {m: s.label for s in pipeline.steps for m in pipeline.subsets[s.label].members}
    for cluster in clustering.clusters:
        steps = list(dict.fromkeys(step_of[t] for t in cluster.tasks if t in step_of))
        if len(steps) > 1:
            raise PlanError(
                what=f"cluster {cluster.name!r} spans steps {' and '.join(steps)}",
                where=cluster.at(""),
                why="steps run one after the other, and a job is in one of them",
                todo="make a cluster for each step",
            )


def _clustered(
    graph: QuantumGraph, pipeline: Pipeline, cluster: Cluster, quanta: Sequence[Quanta]
) -> JobCluster:
    """Return the jobs of one cluster, acyclic, sorted by the values of its dimensions."""
    task = np.repeat(np.arange(len(quanta), dtype=np.uint16), [q.count for q in quanta])
    row = np.concatenate([np.arange(q.count, dtype=np.uint32) for q in quanta])
    if cluster.target_s is not None:
        job, part = _packed(graph, pipeline, cluster, quanta), _NO_ROWS
    else:
        job, part = _by_dimensions(graph, cluster, quanta)
    job, part = _acyclic(graph, cluster, quanta, job, part)
    order = np.argsort(job, kind="stable")
    n_jobs = int(job.max()) + 1
    return JobCluster(
        name=cluster.name,
        tasks=tuple(q.label for q in quanta),
        n_jobs=n_jobs,
        cluster=cluster,
        task=task[order],
        row=row[order],
        start=np.searchsorted(job[order], np.arange(n_jobs)).astype(np.uint32),
        part=part,
    )


def _by_dimensions(
    graph: QuantumGraph, cluster: Cluster, quanta: Sequence[Quanta]
) -> tuple[Ints, NDArray[np.uint32]]:
    """Return the job of each quantum, one task after another, and the part that each job is; −1 is never left."""
    whole = [all(_source(d, cluster, q) for d in _all_dimensions(cluster)) for q in quanta]
    for q, has_all in zip(quanta, whole, strict=True):
        if not has_all and q.count and not cluster.find_method:
            raise _lacking(graph, cluster, q)
    told = [q for q, has_all in zip(quanta, whole, strict=True) if has_all]
    if not told:
        raise _lacking(graph, cluster, quanta[0])
    keys, axes = quantum_keys(graph.axes, _all_dimensions(cluster), cluster.equal_dimensions, told)
    group = _groups(cluster, keys, axes, told)
    job, part = _partitioned(cluster, keys, axes, group)
    if all(whole):
        return job, part
    jobs = dict(
        zip((q.label for q in told), np.split(job, np.cumsum([q.count for q in told])[:-1]), strict=True)
    )
    return _grown(graph, cluster, quanta, jobs), part


def _all_dimensions(cluster: Cluster) -> tuple[str, ...]:
    return tuple(dict.fromkeys(cluster.dimensions + cluster.partition_dimensions))


def _source(dimension: str, cluster: Cluster, quanta: Quanta) -> str:
    return key_source(dimension, cluster.equal_dimensions, quanta)


def _groups(cluster: Cluster, keys: pl.DataFrame, axes: Axes, quanta: Sequence[Quanta]) -> Ints:
    """Return for each quantum the number of its values of the cluster's dimensions, or of its job's name."""
    if not cluster.template and not cluster.dimensions:
        return np.zeros(sum(q.count for q in quanta), dtype=np.int64)
    if not cluster.template:
        return numbered(keys.select(cluster.dimensions), axes)[0]
    label = np.repeat(np.arange(len(quanta)), [q.count for q in quanta])
    frame = pl.DataFrame([*keys.get_columns(), pl.Series("\x00task", label, dtype=CODE)])
    whole = Axes({**axes.values, "\x00task": pl.Series([q.label for q in quanta])})
    number, distinct = numbered(frame, whole)
    names = [
        _named(cluster, {**row, "node_label": row.pop("\x00task")})
        for row in whole.decode(distinct, distinct.columns).iter_rows(named=True)
    ]
    place = {name: i for i, name in enumerate(sorted(set(names)))}
    return np.array([place[name] for name in names], dtype=np.int64)[number]


def _named(cluster: Cluster, values: Mapping[str, int | str]) -> str:
    known = defaultdict(str, {"label": cluster.name, **values})
    try:
        return re.sub("_+", "_", cluster.template.format_map(known)).replace("/", "_")
    except (ValueError, IndexError, AttributeError, KeyError) as error:
        raise PlanError(
            what=f"the name of cluster {cluster.name!r} cannot be made",
            where=cluster.at("template"),
            why=f"{cluster.template!r}: {error}",
            todo="write it with {dimension} in braces, as {visit}_{detector}",
        ) from error


def _partitioned(
    cluster: Cluster, keys: pl.DataFrame, axes: Axes, group: Ints
) -> tuple[Ints, NDArray[np.uint32]]:
    """Split groups by the values of the partition dimensions, which are dealt out alike in all groups."""
    if not cluster.partition_dimensions:
        return _dense(group), _NO_ROWS
    number, distinct = numbered(keys.select(cluster.partition_dimensions), axes)
    rows = axes.decode(distinct, cluster.partition_dimensions).iter_rows()
    texts = np.array(["==".join(map(str, row)) for row in rows], dtype=object)
    order = np.argsort(texts, kind="stable")  # by text, as Rubin's tools do: 1, 10, 2
    part = np.empty(order.size, dtype=np.int64)
    part[order] = np.repeat(*_chunks(cluster, order.size, np.unique(group).size))
    n_parts = int(part.max()) + 1
    both, job = np.unique(group * n_parts + part[number], return_inverse=True)
    return job.astype(np.int64), (both % n_parts + 1).astype(np.uint32)


def _chunks(cluster: Cluster, n_values: int, n_groups: int) -> tuple[Ints, Ints]:
    """Return the numbers of the parts, and how many values each gets; the first ones get what is left over."""
    if cluster.partition_max_size is not None:
        n_full, rest = divmod(n_values, cluster.partition_max_size)
        sizes = np.full(n_full + (rest > 0), cluster.partition_max_size)
        if rest:
            sizes[-1] = rest
        return np.arange(sizes.size), sizes
    limit = cluster.partition_max_jobs or 0
    if n_groups > limit:
        raise PlanError(
            what=f"cluster {cluster.name!r} cannot have at most {limit} jobs",
            where=cluster.at("partition_max_jobs"),
            why=f"its dimensions have {n_groups} values before any is split",
            todo=f"allow {n_groups} or more, or take dimensions out of it",
        )
    n_parts = min(limit // n_groups, n_values)
    size, rest = divmod(n_values, n_parts)
    return np.arange(n_parts), np.where(np.arange(n_parts) < rest, size + 1, size)


def _dense(numbers: Ints) -> Ints:
    """Number anew without gaps, in the same order."""
    return np.unique(numbers, return_inverse=True)[1].astype(np.int64)


def _grown(graph: QuantumGraph, cluster: Cluster, quanta: Sequence[Quanta], jobs: dict[str, Ints]) -> Ints:
    """Give quanta without values of their own the job of what they read (source) or what reads them (sink)."""
    edges = list(links(graph, [q.label for q in quanta]))
    from_source = cluster.find_method == "source"
    for q in quanta if from_source else reversed(quanta):
        if q.label in jobs:
            continue
        least, most = np.full(q.count, np.iinfo(np.int64).max), np.full(q.count, -1, dtype=np.int64)
        for reader, reading, maker, making in edges:
            own, mine, other, theirs = (
                (reader, reading, maker, making) if from_source else (maker, making, reader, reading)
            )
            if own == q.label and other in jobs:
                np.minimum.at(least, mine, jobs[other][theirs])
                np.maximum.at(most, mine, jobs[other][theirs])
        if (odd := np.flatnonzero(least != most)).size:
            raise _homeless(graph, cluster, q, odd, is_split=bool(most[odd[0]] >= 0))
        jobs[q.label] = most
    return np.concatenate([jobs[q.label] for q in quanta])


def _packed(graph: QuantumGraph, pipeline: Pipeline, cluster: Cluster, quanta: Sequence[Quanta]) -> Ints:
    """Put units (quanta, or those that agree in the cluster's dimensions) together until a job is long enough."""
    times = [pipeline.tasks[q.label].resources.run_time_s for q in quanta]
    if unknown := [q.label for q, t in zip(quanta, times, strict=True) if t is None]:
        raise PlanError(
            what=f"cluster {cluster.name!r} cannot be made by run time",
            where=cluster.at("target_s"),
            why=f"nothing says how long {', '.join(unknown)} runs",
            todo=f"give it: `resources: {{{unknown[0]}: {{run_time_s: …}}}}` in the batch file or in the task",
        )
    if cluster.dimensions:
        unit = _by_dimensions(graph, replace(cluster, target_s=None), quanta)[0]
    elif len(quanta) == 1:
        unit = np.arange(quanta[0].count)
    else:
        raise PlanError(
            what=f"cluster {cluster.name!r} does not say which quanta belong together",
            where=cluster.at("target_s"),
            why=f"it has {len(quanta)} tasks and no dimensions",
            todo="give `dimensions`, whose values make one unit of work",
        )
    each = np.repeat(np.array(times, dtype=np.float64), [q.count for q in quanta])
    seconds = np.bincount(unit, each).astype(np.float64)
    return packed_units(graph, quanta, unit, seconds, float(cluster.target_s or 0))


def _acyclic(
    graph: QuantumGraph,
    cluster: Cluster,
    quanta: Sequence[Quanta],
    job: Ints,
    part: NDArray[np.uint32],
) -> tuple[Ints, NDArray[np.uint32]]:
    """Number the jobs anew where some wait for later ones of the same cluster; refuse circles.

    Other clusters cannot take part in a circle: clusters as a whole have an order.
    """
    first = dict(zip((q.label for q in quanta), np.cumsum([0, *(q.count for q in quanta)]), strict=False))
    pairs = [np.zeros((0, 2), dtype=np.int64)]
    for reader, reading, maker, making in links(graph, [q.label for q in quanta]):
        both = np.stack([job[first[reader] + reading], job[first[maker] + making]], axis=1)
        pairs.append(np.unique(both[both[:, 0] != both[:, 1]], axis=0))
    waits = np.unique(np.concatenate(pairs), axis=0)
    if not waits.size:
        return job, part
    between = JobGraph(int(job.max()) + 1, waits[:, 0], waits[:, 1])
    if circle := between.circle():
        raise _circle_of_jobs(graph, cluster, quanta, job, circle)
    order = between.order()
    new = np.empty_like(order)
    new[order] = np.arange(order.size)
    return new[job], part[order] if part.size else part


def _circle_of_jobs(
    graph: QuantumGraph, cluster: Cluster, quanta: Sequence[Quanta], job: Ints, circle: list[int]
) -> PlanError:
    firsts = [int(np.flatnonzero(job == j)[0]) for j in circle[:3]]
    bounds = np.cumsum([0, *(q.count for q in quanta)])
    examples = []
    for member in firsts:
        place = int(np.searchsorted(bounds, member, side="right")) - 1
        data_id = quantum_data_id(quanta[place], graph.axes, member - int(bounds[place]))
        examples.append(f"that of {quanta[place].label} {data_id}")
    return PlanError(
        what=f"{len(circle)} jobs of cluster {cluster.name!r} would wait for each other in a circle",
        where=cluster.at(""),
        why=f"of its tasks {', '.join(q.label for q in quanta)}, some read what several jobs make: "
        + "; ".join(examples),
        todo="take dimensions out of the cluster, so that these are one job, or take tasks out of it",
    )


def _lacking(graph: QuantumGraph, cluster: Cluster, quanta: Quanta) -> PlanError:
    lacking = [d for d in _all_dimensions(cluster) if not _source(d, cluster, quanta)]
    example = quantum_data_id(quanta, graph.axes, 0) if quanta.count else {}
    return PlanError(
        what=f"task {quanta.label!r} has no {' and no '.join(lacking)}, by which cluster {cluster.name!r} is made",
        where=cluster.at(quanta.label),
        why=f"its dimensions are {', '.join(quanta.names)}"
        + (f": {quanta.count} quanta, for instance {example}" if example else ""),
        todo="take the task out of the cluster, take the dimension out, name one that counts as equal, or let the "
        "task follow what it reads or is read by (source, sink)",
    )


def _homeless(
    graph: QuantumGraph, cluster: Cluster, quanta: Quanta, rows: Ints, *, is_split: bool
) -> PlanError:
    side = "what they read" if cluster.find_method == "source" else "what reads them"
    return PlanError(
        what=f"{rows.size} quanta of {quanta.label!r} find no job of cluster {cluster.name!r}",
        where=cluster.at(quanta.label),
        why=f"{side} is in {'several of its jobs' if is_split else 'none of its jobs'}, "
        f"for instance of {quantum_data_id(quanta, graph.axes, int(rows[0]))}",
        todo="take the task out of the cluster",
    )
