"""A batch file as values: which quanta run together in a job, what jobs ask for, and which go before others.

Two forms are read: ours, and what a `bps` submit file says of the same things.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import Literal

from loadmaster_registry.errors import did_you_mean

from .pipeline import Pipeline
from .resources import NOTHING_ASKED, ResourceRequest, Resources
from .yaml_source import refuse

FindMethod = Literal["", "source", "sink"]
_NEAR = 0.85  # how alike (0 to 1) two labels are of which one is perhaps a misspelling of the other


@dataclass(frozen=True, slots=True)
class Cluster:
    """One kind of job: quanta of these tasks that agree in `dimensions` run together."""

    name: str
    tasks: tuple[str, ...]
    dimensions: tuple[str, ...] = ()  # none: all quanta are one job, or with `target_s` each is a unit
    equal_dimensions: tuple[
        tuple[str, str], ...
    ] = ()  # the value of one stands for the other where that is absent
    partition_dimensions: tuple[str, ...] = ()  # their values are split, in order as text, over several jobs
    partition_max_jobs: int | None = None  # of this cluster, for all values of `dimensions` together
    partition_max_size: int | None = None  # values of `partition_dimensions` in one job
    template: str = ""  # of the job's name; jobs of one name are one job
    find_method: FindMethod = ""  # how a quantum without some of `dimensions` finds its job: along the graph
    target_s: int | None = None  # how long a job should take: units that share inputs are put together
    resources: ResourceRequest = NOTHING_ASKED  # of a job; else from its quanta
    places: Mapping[str, str] = field(default_factory=dict, compare=False)  # key or task → file:line:column

    def at(self, key: str) -> str:
        """Return where `key`, or a task's label, stands."""
        return self.places.get(key, self.places.get("", f"cluster {self.name}"))


@dataclass(frozen=True, slots=True)
class Order:
    """Jobs that run group after group: those that agree in `dimensions`, in the order of their values."""

    name: str
    labels: tuple[str, ...]  # of jobs: the name of a cluster, or of a task that is in none
    dimensions: tuple[str, ...]
    equal_dimensions: tuple[tuple[str, str], ...] = ()  # as in a cluster
    find_method: FindMethod = ""  # how a job without some of `dimensions` finds its group: along the graph
    is_blocking: bool = False  # what fails in a group keeps the groups after it from running
    places: Mapping[str, str] = field(default_factory=dict, compare=False)  # key or label → file:line:column

    def at(self, key: str) -> str:
        """Return where `key`, or the label of jobs, stands."""
        return self.places.get(key, self.places.get("", f"order {self.name}"))


@dataclass(frozen=True)
class Clustering:
    """How a plan's quanta become jobs; without anything said, each is a job of its own."""

    clusters: tuple[Cluster, ...] = ()
    orders: tuple[Order, ...] = ()
    tasks: Mapping[str, ResourceRequest] = field(default_factory=dict)  # of one quantum, by label
    defaults: ResourceRequest = NOTHING_ASKED  # of one quantum of any task
    sites: Mapping[str, ResourceRequest] = field(default_factory=dict)  # the same, at a site
    elide: tuple[str, ...] = ()  # dataset types that are handed on in memory and never stored
    store_after_all: bool = False  # an elided type that other jobs read is stored, and no error
    is_shared: bool = (
        False  # the file is written for several pipelines: it may name tasks that this one has not
    )
    notes: tuple[str, ...] = ()  # what a person should know
    places: Mapping[str, str] = field(
        default_factory=dict, compare=False
    )  # "tasks.LABEL", "elide.TYPE" → where

    def at(self, key: str) -> str:
        """Return where `key` stands."""
        return self.places.get(key, "the clustering")

    def of(self, pipeline: Pipeline) -> "Clustering":
        """Return what it means for `pipeline`: its tasks only.

        Raises
        ------
        PipelineError
            If it names a task that neither the pipeline has nor was selected away; in a file that is shared by
            several pipelines, only if that is probably a misspelling. If an order names a task of a cluster.
        """
        tasks, names = {*pipeline.tasks, *pipeline.left_out}, {c.name for c in self.clusters}
        unused = [
            *self._unknown(tasks, ((c.at(t), t) for c in self.clusters for t in c.tasks)),
            *self._unknown(tasks, ((self.at(f"tasks.{t}"), t) for t in self.tasks)),
            *self._unknown(tasks | names, ((o.at(label), label) for o in self.orders for label in o.labels)),
        ]
        for cluster in self.clusters:
            _check_name(cluster, pipeline)
        for order in self.orders:
            _check_labels(order, self.clusters)
        kept = [replace(c, tasks=tuple(t for t in c.tasks if t in pipeline.tasks)) for c in self.clusters]
        jobs = {*pipeline.tasks, *(c.name for c in kept if c.tasks)}
        orders = [replace(o, labels=tuple(label for label in o.labels if label in jobs)) for o in self.orders]
        lost = sorted(set(unused))
        note = f"the batch file names {len(lost)} tasks that the pipeline has not: {', '.join(lost[:10])}"
        return replace(
            self,
            clusters=tuple(c for c in kept if c.tasks),
            orders=tuple(o for o in orders if o.labels),
            tasks={label: asked for label, asked in self.tasks.items() if label in pipeline.tasks},
            notes=self.notes + ((note + (", …" if len(lost) > 10 else ""),) if lost else ()),
        )

    def applied(self, pipeline: Pipeline) -> Pipeline:
        """Return the pipeline with the resources that this asks for."""
        asked = self.resources(pipeline)
        tasks = {label: replace(task, resources=asked[label]) for label, task in pipeline.tasks.items()}
        return replace(pipeline, tasks=tasks)

    def resources(self, pipeline: Pipeline, site: str = "") -> dict[str, Resources]:
        """Return what a quantum of each task asks for, at a site or wherever nothing is known of it.

        What is said of a task here goes first, then what the task itself declares, then the site, then the defaults.
        """
        here = self.sites.get(site, NOTHING_ASKED).over(self.defaults)
        return {
            label: self.tasks.get(label, NOTHING_ASKED)
            .over(ResourceRequest.of(task.resources))
            .over(here)
            .filled(Resources())
            for label, task in pipeline.tasks.items()
        }

    def _unknown(self, here: set[str], named: Iterable[tuple[str, str]]) -> list[str]:
        """Return the labels that are not `here`; refuse what is not meant to be so."""
        entries = list(named)
        labels = {label for _, label in entries}
        unknown = []
        for where, label in entries:
            if label not in here:
                near = get_close_matches(label, here - labels, n=1, cutoff=_NEAR)
                if near or not self.is_shared:
                    refuse(
                        where, f"there is no task {label!r}", "the pipeline has none of this label",
                        did_you_mean(label, here),
                    )  # fmt: skip
                unknown.append(label)
        return unknown


def _check_name(cluster: Cluster, pipeline: Pipeline) -> None:
    if cluster.name in pipeline.tasks and cluster.name not in cluster.tasks:
        refuse(
            cluster.at(""),
            f"cluster {cluster.name!r} has the name of a task that is not in it",
            "jobs are told apart by the name of their cluster or task",
            "give the cluster another name, or add the task to it",
        )


def _check_labels(order: Order, clusters: Sequence[Cluster]) -> None:
    """Refuse a task whose jobs bear the name of its cluster."""
    home = {task: c.name for c in clusters for task in c.tasks if c.name != task}
    for label in order.labels:
        if label in home and label not in home.values():
            refuse(
                order.at(label),
                f"order {order.name!r} names task {label!r}, which has no jobs of its own",
                f"its quanta run in jobs of cluster {home[label]!r}",
                f"name {home[label]!r} instead",
            )


def one_home(clusters: Sequence[Cluster]) -> None:
    """Refuse a task that is in two clusters."""
    home: dict[str, Cluster] = {}
    for cluster in clusters:
        for task in cluster.tasks:
            if task in home:
                refuse(
                    cluster.at(task),
                    f"task {task!r} is in two clusters",
                    f"it is in {home[task].name!r} already ({home[task].at(task)})",
                    "keep it in one of them",
                )
            home[task] = cluster
