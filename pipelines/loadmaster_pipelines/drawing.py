"""The pipeline graph as SVG: rows of boxes from top to bottom, each below everything that it depends on.

The order within a row follows the mean place of the neighbours above and below (barycentres [1]_), which
leaves few crossings in the graphs that pipelines are. Rows that would become too wide are broken, so that the
width is bounded whatever the pipeline.

References
----------
.. [1] K. Sugiyama, S. Tagawa and M. Toda, IEEE Transactions on Systems, Man and Cybernetics 11 (1981) 109,
   doi:10.1109/TSMC.1981.4308636
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape, quoteattr

import networkx as nx

from .pipeline import Pipeline, TaskKey

_TASKS_WITH_DATASETS = 25  # more tasks than this are drawn without the dataset types between them
_PER_ROW = 10
_CHARACTERS = 40  # longer names are shortened in the box; the tooltip has them whole
_CHARACTER_PX, _LINE_PX = 6.6, 15
_GAP_X, _GAP_Y, _MARGIN = 18, 46, 20
_SWEEPS = 8
_STYLE = """
text { font: 11px ui-monospace, Menlo, Consolas, monospace; fill: #1b1f24; text-anchor: middle; }
.dimensions { fill: #57606a; font-size: 9.5px; }
.task rect { fill: #dbeafe; stroke: #1d4ed8; rx: 4px; }
.planned rect { stroke-dasharray: 5 3; }
.data rect { fill: #f6f8fa; stroke: #8c959f; rx: 11px; }
path { fill: none; stroke: #8c959f; stroke-width: 1.1; marker-end: url(#arrow); }
.prerequisite { stroke-dasharray: 4 3; }
"""


@dataclass(frozen=True, slots=True)
class _Box:
    lines: tuple[str, ...]
    tooltip: str
    style: str
    x: float = 0.0  # of the middle
    y: float = 0.0  # of the upper edge

    @property
    def width(self) -> float:
        return 16 + _CHARACTER_PX * max(map(len, self.lines))

    @property
    def height(self) -> float:
        return 8 + _LINE_PX * len(self.lines)


def draw(pipeline: Pipeline) -> str:
    """Return the drawing of `pipeline` as an SVG document."""
    graph = _graph(pipeline)
    rows = _rows(graph)
    boxes, width, height = _placed(rows, {node: _box(node, pipeline) for node in graph})
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" '
        f'width="{width:.0f}" height="{height:.0f}">',
        f"<title>{escape(pipeline.description)}</title>",
        f"<style>{_STYLE}</style>",
        '<defs><marker id="arrow" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" '
        'orient="auto"><path d="M0,0 L8,4 L0,8 z" style="fill:#8c959f;stroke:none;marker-end:none"/>'
        "</marker></defs>",
        *(_edge(boxes[a], boxes[b], data["style"]) for a, b, data in graph.edges(data=True)),
        *(_drawn(box) for box in boxes.values()),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _graph(pipeline: Pipeline) -> nx.DiGraph:
    graph = nx.DiGraph()
    if len(pipeline.tasks) > _TASKS_WITH_DATASETS:
        graph.add_nodes_from(("task", label) for label in pipeline.tasks)
        graph.add_edges_from(
            ((("task", a), ("task", b)) for a, b in pipeline.task_graph().edges), style="regular"
        )
        return graph
    full = pipeline.graph()
    graph.add_nodes_from(full)
    for a, b, connection in full.edges(data="connection"):
        graph.add_edge(a, b, style="prerequisite" if connection.kind == "prerequisite" else "regular")
    return graph


def _rows(graph: nx.DiGraph) -> list[list[TaskKey]]:
    """Return the nodes by rows, ordered within each."""
    level = {node: i for i, nodes in enumerate(nx.topological_generations(graph)) for node in nodes}
    for node in graph:  # what nothing makes stands just above its first reader, not at the top of everything
        if graph.in_degree(node) == 0 and graph.out_degree(node):
            level[node] = min(level[n] for n in graph.successors(node)) - 1
    rows: list[list[TaskKey]] = [[] for _ in range(max(level.values()) + 1)]
    for node in graph:
        rows[level[node]].append(node)
    rows = [row for row in rows if row]
    for sweep in range(_SWEEPS):
        downward = sweep % 2 == 0
        place = {node: (i + 0.5) / len(row) for row in rows for i, node in enumerate(row)}
        for row in rows if downward else reversed(rows):
            near = graph.predecessors if downward else graph.successors
            row.sort(key=lambda node: _mean([place[n] for n in near(node)], place[node]))
            place |= {node: (i + 0.5) / len(row) for i, node in enumerate(row)}
    return [part for row in rows for part in _broken(row)]


def _mean(values: Sequence[float], default: float) -> float:
    return sum(values) / len(values) if values else default


def _broken(row: list[TaskKey]) -> Iterator[list[TaskKey]]:
    for start in range(0, len(row), _PER_ROW):
        yield row[start : start + _PER_ROW]


def _placed(
    rows: Sequence[Sequence[TaskKey]], boxes: Mapping[TaskKey, _Box]
) -> tuple[dict[TaskKey, _Box], float, float]:
    widths = [sum(boxes[n].width for n in row) + _GAP_X * (len(row) - 1) for row in rows]
    width = max(widths) + 2 * _MARGIN
    placed: dict[TaskKey, _Box] = {}
    y = float(_MARGIN)
    for row, row_width in zip(rows, widths, strict=True):
        x = (width - row_width) / 2
        for node in row:
            box = boxes[node]
            placed[node] = _Box(box.lines, box.tooltip, box.style, x + box.width / 2, y)
            x += box.width + _GAP_X
        y += max(boxes[n].height for n in row) + _GAP_Y
    return placed, width, y - _GAP_Y + _MARGIN


def _box(node: TaskKey, pipeline: Pipeline) -> _Box:
    kind, name = node
    if kind == "dataset_type":
        return _Box((_short(name),), name, "data")
    task = pipeline.tasks[name]
    dimensions = ", ".join(task.dimensions)
    return _Box(
        (_short(name), _short(dimensions)),
        f"{name} {{{dimensions}}}",
        "task" if task.runnable else "task planned",
    )


def _short(text: str) -> str:
    half = _CHARACTERS // 2
    return text if len(text) <= _CHARACTERS else f"{text[: half - 1]}…{text[-half:]}"


def _edge(a: _Box, b: _Box, style: str) -> str:
    top, bottom = a.y + a.height, b.y
    bend = max(_GAP_Y / 2, (bottom - top) / 2)
    return (
        f'<path class="{style}" d="M{a.x:.1f},{top:.1f} C{a.x:.1f},{top + bend:.1f} '
        f'{b.x:.1f},{bottom - bend:.1f} {b.x:.1f},{bottom:.1f}"/>'
    )


def _drawn(box: _Box) -> str:
    texts = "".join(
        f'<text{" class=" + quoteattr("dimensions") if i else ""} x="{box.x:.1f}" '
        f'y="{box.y + 15 + i * _LINE_PX:.1f}">{escape(line)}</text>'
        for i, line in enumerate(box.lines)
    )
    return (
        f'<g class="{box.style}"><title>{escape(box.tooltip)}</title>'
        f'<rect x="{box.x - box.width / 2:.1f}" y="{box.y:.1f}" '
        f'width="{box.width:.1f}" height="{box.height:.1f}"/>'
        f"{texts}</g>"
    )
