"""Rubin's own pipelines load as they are, print, and can be selected from."""

import json
from functools import cache
from pathlib import Path
from xml.etree import ElementTree

import networkx as nx
import pytest
import yaml
from loadmaster_pipelines.loader import load_pipeline
from loadmaster_pipelines.pipeline import Pipeline
from loadmaster_pipelines.show import as_mermaid, as_svg, as_text, as_yaml
from loadmaster_registry.universe import Universe

REAL = ["real-hsc-drp-rc2", "real-lsstcam-drp"]
SMALL = ["isr", "drp-mini", "fringe", "bias-build"]


@cache
def source(path: Path) -> dict:  # type: ignore[type-arg]
    loaded = yaml.load(path.read_text(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    assert isinstance(loaded, dict)
    return loaded


@cache
def loaded(path: Path, universe: Universe, fragment: str = "", select: str | None = None) -> Pipeline:
    return load_pipeline(f"{path}{fragment}", universe=universe, select=select)


@pytest.fixture(params=REAL)
def path(request: pytest.FixtureRequest, cases: Path) -> Path:
    return cases / "pipelines" / f"{request.param}.yaml"


@pytest.fixture
def pipeline(path: Path, universe: Universe) -> Pipeline:
    return loaded(path, universe)


def test_all_tasks_and_connections_are_there(path: Path, pipeline: Pipeline) -> None:
    facts = source(path)
    assert len(pipeline.tasks) == facts["n_tasks"] == len(facts["tasks"])
    own = sum(not c.automatic for t in pipeline.tasks.values() for c in t.connections)
    assert own == facts["n_connections"]


def test_each_task_can_be_planned_and_not_run(path: Path, pipeline: Pipeline) -> None:
    for label, task in pipeline.tasks.items():
        assert not task.runnable
        assert task.documented_class == source(path)["tasks"][label]["class"]


def test_the_graph_is_acyclic(pipeline: Pipeline) -> None:
    assert nx.is_directed_acyclic_graph(pipeline.graph())
    assert nx.is_directed_acyclic_graph(pipeline.task_graph())


def test_overall_inputs_are_those_that_the_pipeline_is_known_to_have(path: Path, pipeline: Pipeline) -> None:
    assert sorted(pipeline.overall_inputs()) == sorted(source(path)["overall_inputs"])


def test_metadata_that_others_read_are_made_automatically(path: Path, pipeline: Pipeline) -> None:
    automatic = {c.dataset_type for t in pipeline.tasks.values() for c in t.connections if c.automatic}
    assert automatic == set(source(path)["automatic_inputs"])
    found = pipeline.dataset_types()
    for name in automatic:
        assert found[name].producer == name.removesuffix("_metadata")
        assert found[name].storage_class == "TaskMetadata"


def test_every_subset_is_an_acyclic_pipeline_of_its_own(
    path: Path, pipeline: Pipeline, universe: Universe
) -> None:
    for name, members in source(path)["subsets"].items():
        part = loaded(path, universe, f"#{name}")
        assert set(part.tasks) == set(members)
        assert nx.is_directed_acyclic_graph(part.graph())
        assert part.tasks == pipeline.subset(members).tasks


def test_labels_ranges_and_sets_select(path: Path, pipeline: Pipeline, universe: Universe) -> None:
    graph = pipeline.task_graph()
    assert list(loaded(path, universe, "#isr,calibrateImage").tasks) == ["isr", "calibrateImage"]
    between = loaded(path, universe, "#isr..updateVisitSummary")
    wanted = {"isr", *nx.descendants(graph, "isr")} & {
        "updateVisitSummary",
        *nx.ancestors(graph, "updateVisitSummary"),
    }
    assert set(between.tasks) == wanted
    assert len(wanted) > 5
    same = loaded(path, universe, "", ">=isr & <=updateVisitSummary")
    assert same.tasks == between.tasks
    rest = loaded(path, universe, "", "~(>=fgcmFitCycle)")
    assert set(rest.tasks) == set(pipeline.tasks) - {"fgcmFitCycle"} - nx.descendants(graph, "fgcmFitCycle")


def test_the_plan_file_can_hold_it(pipeline: Pipeline) -> None:
    assert Pipeline.from_json(json.loads(json.dumps(pipeline.to_json()))) == pipeline


def test_it_prints_as_text_that_fits(pipeline: Pipeline) -> None:
    text = as_text(pipeline)
    assert max(map(len, text.splitlines())) <= 120
    firsts = [line.split()[0] for line in text.splitlines() if line and line[0] != " "]
    assert [word for word in firsts if word in pipeline.tasks] == list(pipeline.tasks)


def test_it_prints_as_a_flow_chart_that_mermaid_accepts(pipeline: Pipeline) -> None:
    assert 0 < as_mermaid(pipeline).count("-->") <= 500


def test_it_is_drawn_within_bounds(pipeline: Pipeline) -> None:
    root = ElementTree.fromstring(as_svg(pipeline))
    assert float(root.attrib["width"]) < 3500
    assert float(root.attrib["height"]) < 6000
    assert len(list(root.iter("{http://www.w3.org/2000/svg}rect"))) == len(pipeline.tasks)


def test_it_comes_back_from_its_own_yaml(pipeline: Pipeline, universe: Universe, tmp_path: Path) -> None:
    (tmp_path / "again.yaml").write_text(as_yaml(pipeline))
    assert load_pipeline(tmp_path / "again.yaml", universe=universe) == pipeline


def test_it_can_be_imported_and_changed(path: Path, universe: Universe, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(
        f"description: mine\nimports:\n  - location: {path}\n    include: [isr, calibrateImage]\n"
        "    labeledSubsetModifyMode: EDIT\n"
        "tasks:\n  isr: {config: {connections.bias: master_bias}, resources: {memory_mib: 9000}}\n"
    )
    mine = load_pipeline(tmp_path / "mine.yaml", universe=universe)
    assert list(mine.tasks) == ["isr", "calibrateImage"]
    assert mine.tasks["isr"].connection("bias").dataset_type == "master_bias"
    assert mine.tasks["isr"].resources.memory_mib == 9000


@pytest.mark.parametrize("name", SMALL)
def test_the_small_ones_load_draw_and_come_back(
    name: str, cases: Path, universe: Universe, tmp_path: Path
) -> None:
    pipeline = load_pipeline(cases / "pipelines" / f"{name}.yaml", universe=universe)
    ElementTree.fromstring(as_svg(pipeline))
    assert len(as_text(pipeline).splitlines()) > len(pipeline.tasks)
    (tmp_path / "again.yaml").write_text(as_yaml(pipeline))
    assert load_pipeline(tmp_path / "again.yaml", universe=universe) == pipeline
