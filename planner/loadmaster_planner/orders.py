"""Orders: jobs that run group after group, whatever they read of each other.

Between a group and the next stands a barrier. It waits for the jobs of the one, those of the other wait for it: there
are as many waits as jobs, and not as many as pairs of jobs.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from loadmaster_pipelines.batch import Order
from loadmaster_registry.errors import PlanError
from numpy.typing import NDArray

from .clusters import JobCluster, Jobs, links
from .freeze import QuantumGraph
from .graph import Quanta, quantum_data_id
from .header import OrderFacts
from .jobgraph import Ints, JobGraph
from .keys import key_source, numbered, quantum_keys

_SHOWN = 6  # members of a circle
_NO_GROUP = -1
_START = "start:job"  # the column that no dimension can be called


@dataclass(frozen=True)
class Barriers:
    """What nothing passes before a group of jobs is over; barriers are numbered after all jobs of the plan."""

    node: Ints  # a job or a barrier, shape (n_waits,)
    needs: (
        Ints  # what it waits for: the barrier before its group, or a job of the group and the barrier before
    )
    is_blocking: NDArray[np.bool_]  # of each barrier: what fails before it keeps all after it from running

    @classmethod
    def between(cls, n_jobs: int, orders: Iterable[tuple[Ints, Ints, bool]]) -> "Barriers":
        """Return the barriers of some orders.

        Parameters
        ----------
        orders : iterable of (starts, jobs, is_blocking)
            Jobs are listed group after group, the groups begin at `starts`.
        """
        nodes, needs, blocking = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], []
        n_before = n_jobs
        for start, job, is_blocking in orders:
            last = start.size - 1
            if last < 1:
                continue
            group = np.repeat(np.arange(start.size), np.diff(start, append=job.size))
            barrier = np.arange(n_before, n_before + last)
            nodes += [barrier[group[group < last]], barrier[1:], job[group > 0]]
            needs += [job[group < last], barrier[:-1], barrier[group[group > 0] - 1]]
            blocking += [is_blocking] * last
            n_before += last
        return cls(np.concatenate(nodes), np.concatenate(needs), np.array(blocking, dtype=np.bool_))

    def graph(self, n_jobs: int, job: Ints, needs: Ints) -> JobGraph:
        """Return the graph of the jobs, which need others for what they read, and of the barriers among them."""
        nodes = n_jobs + self.is_blocking.size
        return JobGraph(nodes, np.concatenate([job, self.node]), np.concatenate([needs, self.needs]))


@dataclass(frozen=True)
class OrderedJobs:
    """The jobs of one order, group after group."""

    order: Order
    groups: pl.DataFrame  # of each: the values of the order's dimensions, shape (n_groups, n_dimensions)
    start: Ints  # of each group: where its jobs begin
    job: Ints

    def facts(self) -> OrderFacts:
        """Return what the plan's header says of the order."""
        order = self.order
        return OrderFacts(
            order.name, order.labels, order.dimensions, self.groups.height, self.job.size, order.is_blocking
        )

    def tables(self) -> dict[str, pl.DataFrame]:
        """Return the plan's tables of the order."""
        start = pl.Series(_START, self.start, dtype=pl.UInt32)
        return {
            f"groups/{self.order.name}": self.groups.insert_column(0, start),
            f"ordered/{self.order.name}": pl.DataFrame({"job": pl.Series(self.job, dtype=pl.UInt32)}),
        }


@dataclass(frozen=True)
class JobGroup:
    """The group of an order that a job is in."""

    order: str
    number: int  # from 1
    of: int  # groups in all
    values: Mapping[str, int | str]
    is_blocking: bool


def stored_order(groups: pl.DataFrame, ordered: pl.DataFrame) -> tuple[Ints, Ints]:
    """Return from a plan's tables where each group of an order begins, and its jobs."""
    return groups[_START].to_numpy().astype(np.int64), ordered["job"].to_numpy().astype(np.int64)


def stored_group(order: OrderFacts, groups: pl.DataFrame, ordered: pl.DataFrame, job: int) -> JobGroup | None:
    """Return from a plan's tables the group of a job; None if the job is not in the order."""
    place = ordered["job"].index_of(job)
    if place is None:
        return None
    number = int(np.searchsorted(groups[_START].to_numpy(), place, side="right"))
    values = groups.select(order.dimensions).row(number - 1, named=True)
    return JobGroup(order.name, number, order.groups, values, order.is_blocking)


def make_orders(graph: QuantumGraph, jobs: Jobs, orders: Sequence[Order]) -> tuple[OrderedJobs, ...]:
    """Put jobs into groups that run one after the other.

    Raises
    ------
    PlanError
        If a job has no group, or would be in several; if one would wait for itself, because it reads what a
        later group makes.
    """
    if not orders:
        return ()
    waits = _waits(graph, jobs)
    made = [_ordered(graph, jobs, order, waits) for order in orders]
    found = tuple(ordered for ordered in made if ordered.job.size)
    barriers = Barriers.between(jobs.n_jobs, ((o.start, o.job, False) for o in found))
    if circle := barriers.graph(jobs.n_jobs, waits[:, 0], waits[:, 1]).circle():
        raise _circle(graph, jobs, found, circle)
    return found


def _waits(graph: QuantumGraph, jobs: Jobs) -> Ints:
    """Return which job reads what which other makes: distinct pairs, shape (n_pairs, 2)."""
    numbers = {label: jobs.numbers(quanta) for label, quanta in graph.quanta.items()}
    pairs = [np.zeros(0, np.int64)]
    for reader, reading, maker, making in links(graph, list(graph.quanta)):
        job, needs = numbers[reader][reading], numbers[maker][making]
        pairs.append(np.unique((job * jobs.n_jobs + needs)[job != needs]))
    return np.stack(np.divmod(np.unique(np.concatenate(pairs)), max(jobs.n_jobs, 1)), axis=1)


def _ordered(graph: QuantumGraph, jobs: Jobs, order: Order, waits: Ints) -> OrderedJobs:
    kinds = [kind for kind in jobs.clusters if kind.name in order.labels]
    quanta = [q for kind in kinds for label in kind.tasks if (q := graph.quanta[label]).count]
    told = [q for q in quanta if all(key_source(d, order.equal_dimensions, q) for d in order.dimensions)]
    if not told:
        if quanta:
            raise _lacking(graph, order, quanta[0])
        return OrderedJobs(order, pl.DataFrame(), np.zeros(0, np.int64), np.zeros(0, np.int64))
    keys, axes = quantum_keys(graph.axes, order.dimensions, order.equal_dimensions, told)
    number, distinct = numbered(keys, axes)
    group = _groups_of(graph, jobs, order, told, number, axes.decode(distinct, order.dimensions))
    for kind in kinds if order.find_method != "sink" else reversed(kinds):
        _follow(graph, jobs, order, kind, group, waits)
    job = np.flatnonzero(group != _NO_GROUP)
    used, place = np.unique(group[job], return_inverse=True)
    in_order = np.argsort(place, kind="stable")
    return OrderedJobs(
        order,
        axes.decode(distinct, order.dimensions)[used],
        np.searchsorted(place[in_order], np.arange(used.size)),
        job[in_order],
    )


def _groups_of(
    graph: QuantumGraph, jobs: Jobs, order: Order, told: Sequence[Quanta], number: Ints, values: pl.DataFrame
) -> Ints:
    """Return the group of each job of the plan of which quanta say it, −1 of others, shape (n_jobs,)."""
    job = np.concatenate([jobs.numbers(q) for q in told])
    least, most = np.full(jobs.n_jobs, values.height), np.full(jobs.n_jobs, _NO_GROUP)
    np.minimum.at(least, job, number)
    np.maximum.at(most, job, number)
    if (odd := np.flatnonzero((most != _NO_GROUP) & (least != most))).size:
        first = int(odd[0])
        kind, example = _first_of(graph, jobs, first)
        both = " and ".join(_words(values.row(int(g[first]), named=True)) for g in (least, most))
        raise PlanError(
            what=f"{odd.size} jobs would be in several groups of order {order.name!r}",
            where=order.at("dimensions"),
            why=f"that of {kind} with {example} has quanta of {both}",
            todo=f"order by dimensions of which a job of {kind} has one value each",
        )
    return most


def _follow(
    graph: QuantumGraph, jobs: Jobs, order: Order, kind: JobCluster, group: Ints, waits: Ints
) -> None:
    """Give jobs of one kind that have no group that of what they read (source) or of what reads them (sink)."""
    first = jobs.first_job(kind.name)
    lost = np.flatnonzero(group[first : first + kind.n_jobs] == _NO_GROUP) + first
    if not lost.size:
        return
    if not order.find_method:
        raise _lacking(graph, order, graph.quanta[kind.tasks[0]])
    own, other = waits.T if order.find_method == "source" else waits.T[::-1]
    known = np.isin(own, lost) & (group[other] != _NO_GROUP)
    least, most = np.full(group.size, group.size), np.full(group.size, _NO_GROUP)
    np.minimum.at(least, own[known], group[other[known]])
    np.maximum.at(most, own[known], group[other[known]])
    if (odd := lost[least[lost] != most[lost]]).size:
        _, example = _first_of(graph, jobs, int(odd[0]))
        side = "what they read" if order.find_method == "source" else "what reads them"
        count = "none" if most[odd[0]] == _NO_GROUP else "several"
        raise PlanError(
            what=f"{odd.size} jobs of {kind.name!r} find no group of order {order.name!r}",
            where=order.at(kind.name),
            why=f"{side} is in {count} of its groups, for instance of the job with {example}",
            todo=f"take {kind.name} out of the order",
        )
    group[lost] = most[lost]


def _lacking(graph: QuantumGraph, order: Order, quanta: Quanta) -> PlanError:
    lacking = [d for d in order.dimensions if not key_source(d, order.equal_dimensions, quanta)]
    example = quantum_data_id(quanta, graph.axes, 0)
    return PlanError(
        what=f"task {quanta.label!r} has no {' and no '.join(lacking)}, by which order {order.name!r} is made",
        where=order.at(quanta.label),
        why=f"its dimensions are {', '.join(quanta.names)}: {quanta.count} quanta, for instance {example}",
        todo="take it out of the order, take the dimension out, name one that counts as equal, or let its jobs "
        "follow what they read or are read by (source, sink)",
    )


def _circle(graph: QuantumGraph, jobs: Jobs, orders: Sequence[OrderedJobs], circle: list[int]) -> PlanError:
    """Name what waits for itself: groups and jobs, each of which waits for the one before it."""
    ends = list(_ends(orders))
    names, kinds, shown = [], [], []
    for node in circle:
        if node >= jobs.n_jobs:
            name, words = ends[node - jobs.n_jobs]
            names.append(name)
            shown.append(f"the end of group {words}")
        else:
            kind, example = _first_of(graph, jobs, node)
            kinds.append(kind)
            shown.append(f"{kind} with {example}")
    more = ["…"] if len(shown) > _SHOWN else []
    order = next(o.order for o in orders if o.order.name == names[0])
    labels = list(dict.fromkeys(kinds))
    return PlanError(
        what=f"order {' and '.join(dict.fromkeys(map(repr, names)))} would make jobs wait for themselves",
        where=order.at(""),
        why=" → ".join([*shown[:_SHOWN], *more, shown[0]]) + ": each waits for the one before it",
        todo=f"order by other dimensions, or take some of {', '.join(labels)} out of the order",
    )


def _ends(orders: Sequence[OrderedJobs]) -> Iterator[tuple[str, str]]:
    """Go through the barriers: the order of each, and the values of the group before it."""
    for ordered in orders:
        rows = ordered.groups.head(ordered.groups.height - 1)
        yield from ((ordered.order.name, _words(row)) for row in rows.iter_rows(named=True))


def _first_of(graph: QuantumGraph, jobs: Jobs, job: int) -> tuple[str, str]:
    """Return what a job is called after, and the data ID of its first quantum."""
    kind, label, row = jobs.first_quantum(job)
    return kind, _words(quantum_data_id(graph.quanta[label], graph.axes, row))


def _words(data_id: Mapping[str, int | str]) -> str:
    return " ".join(f"{name}={value}" for name, value in data_id.items())
