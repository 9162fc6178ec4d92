"""A plan as a graph to look at or to compute with: Mermaid, DOT and GraphML, of tasks with counts or of quanta."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import networkx as nx
import numpy as np
import polars as pl
from loadmaster_registry.errors import PlanError
from numpy.typing import NDArray

from .header import ConnectionFacts, TypeFacts
from .plan import Plan
from .show import Place, datasets_at, edges_at, quanta_at, task_facts

NODES_AT_MOST = 20_000  # of a graph of quanta and datasets: what programs that lay out graphs still can
MERMAID_EDGES = 500  # Mermaid refuses to draw more, and a page cannot change that
_DRAWABLE_EDGES = 150  # up to so many, quanta are drawn where nobody says which level is wanted

Chosen = Mapping[str, NDArray[np.int64]]  # rows of quanta, by task


@dataclass(frozen=True, slots=True)
class Node:
    """A task or a quantum, a dataset type or a dataset."""

    id: str
    is_data: bool
    lines: tuple[str, ...]  # what is written in it
    facts: Mapping[str, str | int | bool] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Link:
    """Data that goes into a task or quantum, or comes out of it."""

    source: str
    target: str
    connection: str
    count: int  # of edges between quanta and datasets that it stands for


@dataclass(frozen=True)
class Diagram:
    """Nodes and links, in order."""

    nodes: Sequence[Node]
    links: Sequence[Link]
    has_counts: bool  # it is of tasks and dataset types, and each link stands for many


def task_diagram(plan: Plan, labels: Sequence[str] = ()) -> Diagram:
    """Return the graph of tasks and dataset types, with how many quanta, datasets and edges each stands for.

    Parameters
    ----------
    labels : sequence of str
        Only these tasks, and what they read and make; all by default.
    """
    tasks = [task_facts(plan, label) for label in labels] or list(plan.header.tasks)
    used = {c.dataset_type for task in tasks for c in task.connections if c.edges}
    types = {t.name: (f"d{i}", t) for i, t in enumerate(plan.header.types) if t.name in used}
    nodes = [Node(f"t{i}", False, (task.label, f"{task.quanta} quanta")) for i, task in enumerate(tasks)] + [
        Node(id, True, (t.name, _counted(t))) for id, t in types.values()
    ]
    links = [
        _link(f"t{i}", types[c.dataset_type][0], c, c.edges)
        for i, task in enumerate(tasks)
        for c in task.connections
        if c.edges
    ]
    return Diagram(nodes, links, has_counts=True)


def quantum_diagram(plan: Plan, chosen: Chosen) -> Diagram:
    """Return the graph of some quanta with the datasets that they read and make.

    Raises
    ------
    PlanError
        If it has more than `NODES_AT_MOST` nodes.
    """
    edges = {
        (label, c.name): _edges(plan, label, c, rows)
        for label, rows in chosen.items()
        for c in task_facts(plan, label).connections
    }
    wanted = _datasets(plan, edges)
    n_nodes = sum(map(len, chosen.values())) + sum(map(len, wanted.values()))
    if n_nodes > NODES_AT_MOST:
        raise _too_many(plan, n_nodes)
    quanta = {label: _quantum_nodes(plan, label, rows) for label, rows in chosen.items()}
    datasets = {name: _dataset_nodes(plan, name, rows) for name, rows in wanted.items()}
    links = []
    for (label, _), (connection, quantum, dataset) in edges.items():
        ends = datasets.get(connection.dataset_type, {})
        for q, d in zip(quantum.tolist(), dataset.tolist(), strict=True):
            links.append(_link(quanta[label][q].id, ends[d].id, connection, 1))
    nodes = [node for group in (*quanta.values(), *datasets.values()) for node in group.values()]
    return Diagram(nodes, links, has_counts=False)


def all_quanta(plan: Plan, labels: Sequence[str] = ()) -> Chosen:
    """Return all quanta of some tasks, or of all.

    Raises
    ------
    PlanError
        If a graph of them could not be drawn; or if there is no such task.
    """
    tasks = [task_facts(plan, label) for label in labels] or list(plan.header.tasks)
    if (n_quanta := sum(task.quanta for task in tasks)) > NODES_AT_MOST:
        raise _too_many(plan, n_quanta)
    return {task.label: np.arange(task.quanta) for task in tasks}


def some_quanta(places: Sequence[Place]) -> Chosen:
    """Return the quanta in these places."""
    labels = dict.fromkeys(place.task for place in places)
    return {label: np.array([p.row for p in places if p.task == label]) for label in labels}


def is_drawable(plan: Plan) -> bool:
    """Whether a person could still look at a graph of all quanta."""
    return sum(c.edges for task in plan.header.tasks for c in task.connections) <= _DRAWABLE_EDGES


def as_mermaid(diagram: Diagram) -> str:
    """Write a Mermaid flow chart; where it had more links than Mermaid draws, of tasks only, or refused.

    Raises
    ------
    PlanError
        If quanta have too many links, or tasks alone have.
    """
    drawn = diagram
    if len(drawn.links) > MERMAID_EDGES and drawn.has_counts:
        drawn = _without_data(drawn)
    if len(drawn.links) > MERMAID_EDGES:
        raise PlanError(
            what=f"the graph has {len(drawn.links)} edges, and Mermaid draws up to {MERMAID_EDGES}",
            where="the Mermaid flow chart of a plan",
            why="Mermaid refuses to draw more",
            todo="take --format dot, or show less: --level task, --task LABEL, --job N, --quantum …",
        )
    lines = ["flowchart TD"]
    for node in drawn.nodes:
        text = "<br/>".join(map(_mermaid, node.lines))
        lines.append(f'    {node.id}(["{text}"])' if node.is_data else f'    {node.id}["{text}"]')
    for link in drawn.links:
        arrow = f"-->|{link.count}|" if drawn.has_counts else "-->"
        lines.append(f"    {link.source} {arrow} {link.target}")
    return "\n".join(lines) + "\n"


def as_dot(diagram: Diagram) -> str:
    """Write the graph in Graphviz' language."""
    lines = ["digraph plan {", "    rankdir=TB;", "    node [fontname=monospace, fontsize=10];"]
    for node in diagram.nodes:
        shape = "ellipse" if node.is_data else "box"
        lines.append(f"    {node.id} [shape={shape}, label={_dot(*node.lines)}];")
    for link in diagram.links:
        text = _dot(f"{link.count}" if diagram.has_counts else link.connection)
        lines.append(f"    {link.source} -> {link.target} [label={text}];")
    return "\n".join([*lines, "}"]) + "\n"


def as_graphml(diagram: Diagram) -> str:
    """Write the graph in GraphML, with all that is known of each node; ``networkx.read_graphml`` reads it."""
    graph = nx.MultiDiGraph()
    for node in diagram.nodes:
        facts = {"kind": _kind(node, diagram), "name": node.lines[0], **node.facts}
        graph.add_node(node.id, **{key: _xml(value) for key, value in facts.items()})
    for link in diagram.links:
        graph.add_edge(link.source, link.target, connection=_xml(link.connection), count=link.count)
    return "\n".join(nx.generate_graphml(graph)) + "\n"


def _kind(node: Node, diagram: Diagram) -> str:
    if diagram.has_counts:
        return "dataset type" if node.is_data else "task"
    return "dataset" if node.is_data else "quantum"


def _counted(facts: TypeFacts) -> str:
    made = facts.count - facts.existing
    parts = ((facts.existing, "existing"), (made, "to be made"))
    return ", ".join(f"{count} {word}" for count, word in parts if count)


def _link(task: str, data: str, connection: ConnectionFacts, count: int) -> Link:
    ends = (task, data) if connection.is_output else (data, task)
    return Link(*ends, connection.name, count)


def _edges(
    plan: Plan, label: str, connection: ConnectionFacts, rows: NDArray[np.int64]
) -> tuple[ConnectionFacts, NDArray[np.int64], NDArray[np.int64]]:
    """Return the edges of some quanta of a task by one connection: rows of quanta, rows of datasets."""
    none = np.zeros(0, dtype=np.int64)
    if not connection.edges or not rows.size:
        return connection, none, none
    if rows.size == task_facts(plan, label).quanta:
        frame = plan.edges(label, connection.name)
        quantum, dataset = (frame[name].cast(pl.Int64).to_numpy() for name in ("quantum", "dataset"))
        return connection, quantum, dataset
    found = [edges_at(plan, label, connection, row) for row in rows.tolist()]
    return connection, np.repeat(rows, list(map(len, found))), np.concatenate(found)


def _datasets(
    plan: Plan, edges: Mapping[tuple[str, str], tuple[ConnectionFacts, NDArray[np.int64], NDArray[np.int64]]]
) -> dict[str, NDArray[np.int64]]:
    """Return by type the rows of the datasets at these edges."""
    rows: dict[str, list[NDArray[np.int64]]] = {}
    for connection, _, dataset in edges.values():
        if dataset.size:
            rows.setdefault(connection.dataset_type, []).append(dataset)
    return {name: np.unique(np.concatenate(parts)) for name, parts in rows.items()}


def _quantum_nodes(plan: Plan, label: str, rows: NDArray[np.int64]) -> dict[int, Node]:
    if not rows.size:
        return {}
    place = [task.label for task in plan.header.tasks].index(label)
    facts = quanta_at(plan, label, rows)
    return dict(zip(rows.tolist(), _nodes(f"q{place}_", label, rows, facts, is_data=False), strict=True))


def _dataset_nodes(plan: Plan, name: str, rows: NDArray[np.int64]) -> dict[int, Node]:
    place = [t.name for t in plan.header.types].index(name)
    facts = datasets_at(plan, name, rows)
    return dict(zip(rows.tolist(), _nodes(f"d{place}_", name, rows, facts, is_data=True), strict=True))


def _nodes(
    prefix: str, name: str, rows: NDArray[np.int64], frame: pl.DataFrame, *, is_data: bool
) -> Iterator[Node]:
    for row, facts in zip(rows.tolist(), frame.iter_rows(named=True), strict=True):
        data_id = {n: v for n, v in facts.items() if n not in _OWN}
        known = {n: v for n, v in facts.items() if v is not None}
        yield Node(f"{prefix}{row}", is_data, (name, " ".join(f"{n}={v}" for n, v in data_id.items())), known)


_OWN = ("job", "id", "exists", "run", "url", "path", "size_bytes", "checksum")  # what is no dimension


def _without_data(diagram: Diagram) -> Diagram:
    """Return the tasks alone, linked where one makes what another reads; a link stands for the edges read."""
    data = {node.id for node in diagram.nodes if node.is_data}
    makers: dict[str, list[str]] = {}
    for link in diagram.links:
        if link.target in data:
            makers.setdefault(link.target, []).append(link.source)
    counts: dict[tuple[str, str], int] = {}
    for link in diagram.links:
        for maker in makers.get(link.source, ()) if link.source in data else ():
            counts[maker, link.target] = counts.get((maker, link.target), 0) + link.count
    links = [Link(a, b, "", count) for (a, b), count in counts.items()]
    return Diagram([node for node in diagram.nodes if not node.is_data], links, has_counts=True)


def _too_many(plan: Plan, n_nodes: int) -> PlanError:
    return PlanError(
        what=f"a graph of {n_nodes} quanta and datasets is too large to draw",
        where=f"plan of {plan.output_run}",
        why=f"{NODES_AT_MOST} are as many as programs that lay out graphs can do",
        todo="show less: --level task, --task LABEL, --job N, --quantum …; or take --format parquet, of any size",
    )


def _mermaid(text: str) -> str:
    """Write a text so that nothing in it is Mermaid's: entities, quotes, HTML, Markdown."""
    return re.sub('[#&"<>`]', lambda found: f"#{ord(found[0])};", _one_line(text))


def _dot(*lines: str) -> str:
    escaped = (_one_line(line).replace("\\", "\\\\").replace('"', '\\"') for line in lines)
    return '"' + "\\n".join(escaped) + '"'


def _one_line(text: str) -> str:
    return re.sub(r"[\x00-\x1f\x7f\x85\u2028\u2029]", " ", text)


def _xml(value: str | int | bool) -> str | int | bool:
    """Replace what XML 1.0 cannot hold, not even escaped."""
    return _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", value) if isinstance(value, str) else value


_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
