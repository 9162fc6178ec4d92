"""Pipelines as people see them."""

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from loadmaster_pipelines.connections import Connection
from loadmaster_pipelines.loader import load_pipeline
from loadmaster_pipelines.pipeline import Pipeline, TaskNode
from loadmaster_pipelines.show import as_mermaid, as_svg, as_text
from loadmaster_registry.universe import Universe

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def toy(folder: Path, universe: Universe) -> Pipeline:
    return load_pipeline(folder / "toy.yaml", universe=universe)


def test_text_is_a_table_in_order(toy: Pipeline) -> None:
    assert as_text(toy) == (
        "toy survey\n\n"
        "task                            dimensions                inputs → outputs\n" + "─" * 120 + "\n"
        "isr                             instrument, exposure,     raw, (bias) → post_isr\n"
        "                                detector\n"
        "detect                          instrument, visit,        post_isr ×n → deep_cat, {deep_schema}\n"
        "                                detector\n"
        "summarize                       instrument, visit         deep_cat ×n, post_isr.wcs ×n → summary\n"
        "subset perDetector: isr, detect\n"
        "subset perVisit: summarize\n"
        "step perDetector: split by visit, detector\n"
        "step perVisit: split by visit\n"
    )


def long_names(n: int) -> Pipeline:
    tasks = {}
    for i in range(n):
        label = f"task_{i}_" + "x" * 40
        reads = Connection("i", "input", f"{'d' * 100}{i}", "Config", ("visit",))
        writes = Connection("o", "output", f"{'d' * 100}{i + 1}", "Config", ("visit",))
        tasks[label] = TaskNode(label, ("visit", "detector"), (reads, writes))
    return Pipeline('a <long> & "winding" one ' * 10, None, tasks)


def test_text_never_exceeds_its_width_and_labels_stay_whole() -> None:
    pipeline = long_names(3)
    lines = as_text(pipeline).splitlines()
    assert max(map(len, lines)) <= 120
    assert set(pipeline.tasks) <= set(lines)
    assert "d" * 100 + "0" in re.sub(r"\s+", "", as_text(pipeline))


def test_mermaid_has_a_node_and_an_edge_for_everything(toy: Pipeline) -> None:
    text = as_mermaid(toy)
    assert text.startswith("flowchart TD\n")
    assert text.count("-->") + text.count("-.->") == toy.graph().number_of_edges()
    assert text.count("-.->") == 1  # the prerequisite
    assert all(f'(["{name}"])' in text for name in toy.dataset_types())
    assert all(f'["{label}<br/>' in text for label in toy.tasks)


def test_svg_is_valid_and_shows_tasks_and_dataset_types(toy: Pipeline) -> None:
    root = ElementTree.fromstring(as_svg(toy))
    tooltips = {g.findtext(f"{SVG}title") for g in root.iter(f"{SVG}g")}
    assert {"isr {instrument, exposure, detector}", "post_isr", "deep_schema"} <= tooltips
    assert len(root.findall(f"{SVG}path")) == len({(a, b) for a, b, _ in toy.graph().edges})


@pytest.mark.parametrize("n", [1, 3, 40])
def test_boxes_do_not_overlap_and_stay_on_the_page(n: int) -> None:
    root = ElementTree.fromstring(as_svg(long_names(n)))
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    rects = [
        tuple(float(r.attrib[k]) for k in ("x", "y", "width", "height")) for r in root.iter(f"{SVG}rect")
    ]
    assert len(rects) >= n
    for i, (x, y, w, h) in enumerate(rects):
        assert x >= 0
        assert y >= 0
        assert x + w <= width
        assert y + h <= height
        assert not any(
            x < x2 + w2 and x2 < x + w and y < y2 + h2 and y2 < y + h for x2, y2, w2, h2 in rects[:i]
        )


def test_edges_run_downward(toy: Pipeline) -> None:
    root = ElementTree.fromstring(as_svg(toy))
    for path in root.findall(f"{SVG}path"):
        numbers = [float(n) for n in re.findall(r"-?[\d.]+", path.attrib["d"])]
        assert numbers[1] < numbers[-1]
