"""The pipeline and its graph: tasks, the dataset types between them, and the rules they must keep."""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import networkx as nx
from loadmaster_registry.errors import PipelineError, did_you_mean

from .connections import Connection, FileFormat
from .resources import Resources

TaskKey = tuple[str, str]  # ("task", label) or ("dataset_type", name)

# What the framework itself writes for a task LABEL, as LABEL + suffix: (suffix, kind, storage class).
_AUTOMATIC = (
    ("_metadata", "output", "TaskMetadata"),
    ("_log", "output", "ButlerLogRecords"),
    ("_config", "init_output", "Config"),
)


@dataclass(frozen=True, slots=True)
class TaskNode:
    """One task of a pipeline with everything resolved: names, configuration, resources."""

    label: str
    dimensions: tuple[str, ...]  # as written
    connections: tuple[Connection, ...]
    task_class: str | None = None  # dotted path of a `Task` that can be imported
    command: str | None = None
    documented_class: str | None = None  # the name of a class that nobody imports: other software has it
    config: Mapping[str, Any] = field(default_factory=dict)
    code_digest: str = ""  # sha256 of what runs: the class's module, or the command
    resources: Resources = field(default_factory=Resources)
    spatial_bounds_from: tuple[str, ...] = ()  # connections whose regions bound the task's sky
    environment: Mapping[str, str] = field(default_factory=dict)  # declared: what else outputs depend on
    network: bool = False  # whether it may use the network while it runs

    @property
    def runnable(self) -> bool:
        """Whether there is something to run; otherwise the task can only be planned."""
        return self.task_class is not None or self.command is not None

    @property
    def config_digest(self) -> str:
        """The digest of the resolved configuration."""
        return _digest(self.config)

    @property
    def environment_digest(self) -> str:
        """The digest of the declared environment."""
        return _digest(self.environment)

    @property
    def inputs(self) -> tuple[Connection, ...]:
        """Regular inputs: their existence decides which quanta there are."""
        return self._of("input")

    @property
    def prerequisites(self) -> tuple[Connection, ...]:
        """Inputs that exist before, looked up quantum by quantum."""
        return self._of("prerequisite")

    @property
    def outputs(self) -> tuple[Connection, ...]:
        """Outputs of each quantum, automatic ones included."""
        return self._of("output")

    @property
    def init_inputs(self) -> tuple[Connection, ...]:
        """Inputs of which there is one a run."""
        return self._of("init_input")

    @property
    def init_outputs(self) -> tuple[Connection, ...]:
        """Outputs of which there is one a run."""
        return self._of("init_output")

    def connection(self, name: str) -> Connection:
        """Return the connection `name`."""
        for connection in self.connections:
            if connection.name == name:
                return connection
        raise PipelineError(
            what=f"there is no connection {name!r}",
            where=f"task {self.label}",
            why="the task does not declare it",
            todo=did_you_mean(name, (c.name for c in self.connections)),
        )

    def _of(self, kind: str) -> tuple[Connection, ...]:
        return tuple(c for c in self.connections if c.kind == kind)


@dataclass(frozen=True, slots=True)
class Subset:
    """A named set of tasks."""

    name: str
    members: tuple[str, ...]
    description: str = ""


@dataclass(frozen=True, slots=True)
class Step:
    """A subset that an operator may run by itself, split by `dimensions`."""

    label: str
    dimensions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Contract:
    """A condition over configurations that must hold."""

    expression: str
    message: str = ""

    def names_any(self, labels: Iterable[str]) -> bool:
        """Whether the expression holds a field of one of these tasks."""
        return any(re.search(rf"(?:^|[^\w-]){re.escape(label)}\.", self.expression) for label in labels)


@dataclass(frozen=True, slots=True)
class PipelineDatasetType:
    """A dataset type as the pipeline sees it: its producer's definition, or what its readers agree on."""

    name: str
    dimensions: tuple[str, ...]  # as written
    storage_class: str  # empty where only components are read
    calibration: bool
    producer: str | None
    consumers: tuple[str, ...]
    is_init: bool = False
    is_prerequisite: bool = False  # nobody reads it as a regular input, and no task makes it
    formats: tuple[FileFormat, ...] = ()  # where a formats file speaks of it


@dataclass(frozen=True)
class Pipeline:
    """Tasks in an order in which each follows those whose outputs it reads."""

    description: str
    instrument: str | None
    tasks: Mapping[str, TaskNode]
    subsets: Mapping[str, Subset] = field(default_factory=dict)
    steps: tuple[Step, ...] = ()
    contracts: tuple[Contract, ...] = ()
    parameters: Mapping[str, Any] = field(default_factory=dict)
    left_out: frozenset[str] = field(default=frozenset(), compare=False)  # labels that a selection took away

    def graph(self) -> nx.MultiDiGraph:
        """Return the graph of tasks and dataset types.

        Nodes are ``("task", label)`` and ``("dataset_type", name)``; each edge has the connection's name as
        key and the `Connection` as attribute ``connection``.
        """
        return graph_of(self.tasks.values())

    def task_graph(self) -> nx.DiGraph:
        """Return the graph of task labels, an edge where one reads what the other makes."""
        return task_graph_of(self.tasks.values())

    def dataset_types(self) -> Mapping[str, PipelineDatasetType]:
        """Return all dataset types by name, in the order in which tasks first touch them."""
        touching: dict[str, list[tuple[str, Connection]]] = {}
        for task in self.tasks.values():
            for connection in task.connections:
                touching.setdefault(connection.dataset_type, []).append((task.label, connection))
        return {name: _dataset_type(name, edges) for name, edges in touching.items()}

    def overall_inputs(self) -> tuple[str, ...]:
        """Return the names of dataset types that no task makes, init and prerequisite ones included."""
        return tuple(name for name, d in self.dataset_types().items() if d.producer is None)

    def components(self) -> list[tuple[str, ...]]:
        """Return the labels of each connected part: tasks one of which makes what the other reads are in one.

        Overall inputs in common connect nothing: such tasks do not constrain each other's data IDs.
        """
        linked = nx.Graph()
        linked.add_nodes_from(self.tasks)
        makers = {c.dataset_type: task.label for task in self.tasks.values() for c in task.outputs}
        for task in self.tasks.values():
            linked.add_edges_from(
                (makers[c.dataset_type], task.label) for c in task.inputs if c.dataset_type in makers
            )
        parts = list(nx.connected_components(linked))
        return [tuple(label for label in self.tasks if label in part) for part in parts]

    def subset(self, labels: Iterable[str]) -> "Pipeline":
        """Return the pipeline of these tasks; subsets and steps keep what is left of them.

        Outputs of the framework (``LABEL_metadata``) stay, because tasks outside may read them later.
        """
        keep = set(labels)
        if unknown := keep - set(self.tasks):
            name = min(unknown)
            raise PipelineError(
                what=f"there is no task {name!r}",
                where=f"pipeline {self.description!r}",
                why="no task has this label",
                todo=did_you_mean(name, self.tasks),
            )
        left = {
            s.name: replace(s, members=tuple(m for m in s.members if m in keep))
            for s in self.subsets.values()
        }
        subsets = {name: s for name, s in left.items() if s.members}
        return replace(
            self,
            tasks={label: task for label, task in self.tasks.items() if label in keep},
            subsets=subsets,
            steps=tuple(s for s in self.steps if s.label in subsets),
            contracts=tuple(c for c in self.contracts if not c.names_any(set(self.tasks) - keep)),
            left_out=self.left_out | (self.tasks.keys() - keep),
        )

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON from which `from_json` makes an equal pipeline."""
        return {
            "description": self.description,
            "instrument": self.instrument,
            "parameters": dict(self.parameters),
            "tasks": [asdict(task) for task in self.tasks.values()],
            "subsets": [asdict(subset) for subset in self.subsets.values()],
            "steps": [asdict(step) for step in self.steps],
            "contracts": [asdict(contract) for contract in self.contracts],
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "Pipeline":
        """Return the pipeline that `to_json` wrote."""
        tasks = [_task_from_json(task) for task in document["tasks"]]
        return cls(
            description=document["description"],
            instrument=document["instrument"],
            tasks={task.label: task for task in tasks},
            subsets={s["name"]: Subset(**_tupled(s, "members")) for s in document["subsets"]},
            steps=tuple(Step(**_tupled(s, "dimensions")) for s in document["steps"]),
            contracts=tuple(Contract(**c) for c in document["contracts"]),
            parameters=document["parameters"],
        )


def _digest(values: Mapping[str, Any]) -> str:
    text = json.dumps(dict(values), sort_keys=True, separators=(",", ":"))
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def graph_of(tasks: Iterable[TaskNode]) -> nx.MultiDiGraph:
    """Return the graph of these tasks and their dataset types, as `Pipeline.graph` does."""
    graph = nx.MultiDiGraph()
    for task in tasks:
        node: TaskKey = ("task", task.label)
        graph.add_node(node, task=task)
        for connection in task.connections:
            other: TaskKey = ("dataset_type", connection.dataset_type)
            ends = (other, node) if connection.is_read else (node, other)
            graph.add_edge(*ends, key=connection.name, connection=connection)
    return graph


def task_graph_of(tasks: Iterable[TaskNode]) -> nx.DiGraph:
    """Return the graph of labels, an edge from each producer to each reader."""
    graph = nx.DiGraph()
    producers: dict[str, list[str]] = {}
    tasks = list(tasks)
    for task in tasks:
        graph.add_node(task.label)
        for connection in task.connections:
            if not connection.is_read:
                producers.setdefault(connection.dataset_type, []).append(task.label)
    for task in tasks:
        for connection in task.connections:
            if connection.is_read:
                graph.add_edges_from((p, task.label) for p in producers.get(connection.dataset_type, ()))
    return graph


def in_order(tasks: Sequence[TaskNode], where: str) -> dict[str, TaskNode]:
    """Sort tasks so that each follows those whose outputs it reads; otherwise the order given stays.

    Raises
    ------
    PipelineError
        If tasks wait for each other in a circle, which is shown.
    """
    graph = task_graph_of(tasks)
    position = {task.label: i for i, task in enumerate(tasks)}
    by_label = {task.label: task for task in tasks}
    try:
        order = list(nx.lexicographical_topological_sort(graph, key=position.__getitem__))
    except nx.NetworkXUnfeasible:
        circle = [edge[0] for edge in nx.find_cycle(graph)]
        raise PipelineError(
            what="tasks wait for each other in a circle",
            where=where,
            why=" → ".join((*circle, circle[0])),
            todo="rename an output, or read the dataset of an earlier run under another name",
        ) from None
    return {label: by_label[label] for label in order}


def with_automatic(tasks: Iterable[TaskNode]) -> list[TaskNode]:
    """Add to each task the outputs of the framework (``LABEL_metadata`` and so on) that some task reads."""
    tasks = list(tasks)
    read = {c.dataset_type for task in tasks for c in (*task.inputs, *task.init_inputs)}
    made = {c.dataset_type for task in tasks for c in task.connections if not c.is_read}
    return [_with_automatic(task, read - made) for task in tasks]


def _with_automatic(task: TaskNode, wanted: set[str]) -> TaskNode:
    added = tuple(
        Connection(
            name=suffix,
            kind=kind,  # type: ignore[arg-type]
            dataset_type=task.label + suffix,
            storage_class=storage_class,
            dimensions=task.dimensions if kind == "output" else (),
            automatic=True,
        )
        for suffix, kind, storage_class in _AUTOMATIC
        if task.label + suffix in wanted
    )
    return replace(task, connections=task.connections + added) if added else task


def _dataset_type(name: str, edges: Sequence[tuple[str, Connection]]) -> PipelineDatasetType:
    producer = next(((label, c) for label, c in edges if not c.is_read), None)
    readers = [(label, c) for label, c in edges if c.is_read]
    whole = [c for _, c in readers if c.component is None]
    definition = producer[1] if producer else (whole or [readers[0][1]])[0]
    return PipelineDatasetType(
        name=name,
        dimensions=definition.dimensions,
        storage_class=definition.storage_class if definition.component is None else "",
        calibration=any(c.calibration for _, c in edges),
        producer=producer[0] if producer else None,
        consumers=tuple(dict.fromkeys(label for label, _ in readers)),
        is_init=definition.is_init,
        is_prerequisite=producer is None and all(c.kind == "prerequisite" for _, c in readers),
        formats=definition.formats,
    )


def _task_from_json(body: Mapping[str, Any]) -> TaskNode:
    connections = tuple(map(Connection.from_json, body["connections"]))
    task = _tupled(body, "dimensions", "spatial_bounds_from")
    return TaskNode(**{**task, "connections": connections, "resources": Resources(**body["resources"])})


def _tupled(body: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    return {k: tuple(v) if k in keys else v for k, v in body.items()}
