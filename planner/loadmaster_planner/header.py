"""All of a plan that is small: what it says of its tasks, dataset types, jobs, and of what was asked."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from loadmaster_pipelines.resources import NOTHING_ASKED, ResourceRequest, Resources
from loadmaster_registry.errors import PlanError

from .graph import Dropped, PartialGather

FORMAT = 3  # of the plan file; a reader refuses any other


@dataclass(frozen=True)
class ConnectionFacts:
    """What a plan says of one connection of one task."""

    name: str
    dataset_type: str
    is_output: bool
    edges: int


@dataclass(frozen=True)
class TaskFacts:
    """What a plan says of one task."""

    label: str
    quanta: int
    dimensions: tuple[str, ...]
    implied: tuple[str, ...]
    connections: tuple[ConnectionFacts, ...]


@dataclass(frozen=True)
class ClusterFacts:
    """What a plan says of one kind of job: a cluster's, or one task's where each quantum is a job."""

    name: str
    jobs: int
    tasks: tuple[str, ...]  # in order of execution
    members: int = 0  # quanta that are listed; 0 where each quantum of its one task is a job, in order
    dimensions: tuple[str, ...] = ()  # by whose values the jobs are told apart
    equal_dimensions: tuple[tuple[str, str], ...] = ()
    is_split: bool = False  # jobs of the same values are numbered parts
    resources: ResourceRequest = NOTHING_ASKED  # of a job; else from its quanta


@dataclass(frozen=True)
class OrderFacts:
    """What a plan says of jobs that run group after group."""

    name: str
    labels: tuple[str, ...]  # the clusters whose jobs these are
    dimensions: tuple[str, ...]  # by whose values jobs are in a group, and groups are sorted
    groups: int
    jobs: int
    is_blocking: bool  # what fails in a group keeps the groups after it from running


@dataclass(frozen=True)
class JobFacts:
    """What a plan says of its jobs as a whole."""

    clusters: tuple[ClusterFacts, ...]  # the kinds of jobs, in the order in which jobs are numbered
    elided: tuple[str, ...] = ()  # dataset types that are handed on in memory inside their jobs
    sites: Mapping[str, Mapping[str, Resources]] = field(
        default_factory=dict
    )  # of a quantum, by task, at a site
    notes: tuple[str, ...] = ()  # what a person should know of them
    orders: tuple[OrderFacts, ...] = ()

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "JobFacts":
        """Read what `PlanHeader.to_json` wrote of it."""
        sites = {
            site: {label: Resources(**r) for label, r in tasks.items()}
            for site, tasks in values["sites"].items()
        }
        clusters = tuple(_cluster_facts(c) for c in values["clusters"])
        orders = tuple(OrderFacts(**_tuples(o)) for o in values["orders"])
        return cls(clusters, tuple(values["elided"]), sites, tuple(values["notes"]), orders)


@dataclass(frozen=True)
class TypeFacts:
    """What a plan says of one dataset type that it touches."""

    name: str
    count: int
    existing: int
    dimensions: tuple[str, ...]
    implied: tuple[str, ...]
    storage_class: str
    is_calibration: bool
    extension: str  # of each file that is to be made, with its dot
    parts: Mapping[str, str] = field(
        default_factory=dict
    )  # the same in other formats: name of each → extension


@dataclass(frozen=True)
class TaskSummary:
    """One line of the plan's table."""

    label: str
    quanta: int
    inputs_found: int  # distinct existing datasets that its quanta read
    inputs_missing: int  # uses of regular inputs that neither exist nor will be made
    dropped: int  # quanta that would lack an input
    done: int  # quanta that count as done already
    bytes_in: int  # of the existing datasets whose size is known
    outputs: int


@dataclass(frozen=True)
class PlanHeader:
    """All of a plan that is small."""

    digest: str
    created: str
    inputs: tuple[str, ...]
    output: str
    output_run: str
    where: str
    pipeline: Mapping[str, Any]
    tasks: tuple[TaskFacts, ...]
    types: tuple[TypeFacts, ...]
    summary: tuple[TaskSummary, ...]
    dropped: tuple[Dropped, ...]
    why_empty: str
    axes: Mapping[str, int]  # how many values each dimension has
    jobs: JobFacts
    notes: tuple[str, ...] = ()  # what a person should know
    partial: tuple[PartialGather, ...] = ()  # gathers that a restriction trims, which was accepted
    request: Mapping[str, Any] = field(default_factory=dict)  # all that was asked, for planning again
    clustering: Mapping[str, Any] = field(default_factory=dict)  # what was said of jobs and resources
    basis: Mapping[str, str] = field(
        default_factory=dict
    )  # digests of what was asked, and of what it rests on
    reused: Mapping[str, int] = field(default_factory=dict)  # type → earlier datasets that stand for outputs

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {"format": FORMAT, **asdict(self)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any], origin: str) -> "PlanHeader":
        """Read what `to_json` wrote; a newer format is refused."""
        rest = dict(values)
        _check_format(rest.pop("format", 0), origin)
        tasks = tuple(
            TaskFacts(**{**_tuples(t), "connections": tuple(ConnectionFacts(**c) for c in t["connections"])})
            for t in rest.pop("tasks")
        )
        types = tuple(TypeFacts(**_tuples(t)) for t in rest.pop("types"))
        summary = tuple(TaskSummary(**t) for t in rest.pop("summary"))
        dropped = tuple(Dropped(**d) for d in rest.pop("dropped"))
        partial = tuple(PartialGather(**p) for p in rest.pop("partial"))
        rest["jobs"] = JobFacts.from_json(rest.pop("jobs"))
        return cls(
            **_tuples(rest), tasks=tasks, types=types, summary=summary, dropped=dropped, partial=partial
        )


def _check_format(version: int, origin: str) -> None:
    if version == FORMAT:
        return
    newer = version > FORMAT
    raise PlanError(
        what=f"the plan has format {version}, and this Loadmaster reads {FORMAT}",
        where=origin,
        why=f"{'a newer' if newer else 'an older'} Loadmaster wrote it",
        todo="upgrade with: pip install --upgrade loadmaster" if newer else "plan again",
    )


def _cluster_facts(values: Mapping[str, Any]) -> ClusterFacts:
    pairs = tuple((a, b) for a, b in values["equal_dimensions"])
    resources = ResourceRequest(**values["resources"])
    return ClusterFacts(**{**_tuples(values), "equal_dimensions": pairs, "resources": resources})


def _tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
