"""Pipelines as values: what is written as JSON or as YAML comes back equal."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from loadmaster_pipelines.connections import Connection
from loadmaster_pipelines.loader import load_pipeline
from loadmaster_pipelines.pipeline import (
    Contract,
    Pipeline,
    Step,
    Subset,
    TaskNode,
    in_order,
    with_automatic,
)
from loadmaster_pipelines.resources import Resources
from loadmaster_pipelines.show import as_yaml
from loadmaster_registry.universe import Universe

words = st.from_regex(r"[a-z][a-z_]{0,6}", fullmatch=True).filter(
    lambda w: w not in ("quantum", "file", "python")
)
texts = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=20)
plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
plain |= texts.filter(lambda t: not t.startswith("parameters."))
values = st.recursive(plain, lambda v: st.lists(v, max_size=3), max_leaves=5)


@st.composite
def connections(draw: st.DrawFn, kind: Any, name: str, dataset_type: str) -> Connection:
    reads = kind in ("input", "prerequisite")
    init = kind.startswith("init")
    return Connection(
        name=name,
        kind=kind,
        dataset_type=dataset_type,
        storage_class="StructuredDataDict",
        dimensions=() if init else ("visit", "detector"),
        multiple=not init and draw(st.booleans()),
        deferred=reads and draw(st.booleans()),
        minimum=draw(st.integers(0, 3)) if reads else 1,
        calibration=not init and draw(st.booleans()),
        no_graph_constraint=kind == "input" and draw(st.booleans()),
        component=draw(st.none() | words) if reads else None,
        custom_lookup=reads and draw(st.booleans()),
    )


@st.composite
def task_nodes(draw: st.DrawFn, i: int) -> TaskNode:
    """Return task i, which reads what earlier ones make, perhaps their metadata, and writes for later ones."""
    found = [draw(connections("output", "out", f"d{i}"))]
    for j in sorted(draw(st.sets(st.integers(0, i - 1)))) if i else []:
        found.append(draw(connections("input", f"in{j}", f"d{j}")))
    if draw(st.booleans()):
        found.append(draw(connections("prerequisite", "pre", "ref")))
    if draw(st.booleans()):
        found.append(draw(connections("init_output", "schema", f"s{i}")))
    if i and draw(st.booleans()):
        found.append(Connection("meta", "input", f"t{i - 1}_metadata", "TaskMetadata", ("visit", "detector")))
    order = ("input", "prerequisite", "output", "init_input", "init_output")
    return TaskNode(
        label=f"t{i}",
        dimensions=("visit", "detector"),
        connections=tuple(sorted(found, key=lambda c: order.index(c.kind))),
        documented_class=draw(st.none() | st.just("some.other.Task")),
        config=draw(st.dictionaries(words, values, max_size=3)),
        resources=draw(
            st.builds(Resources, st.integers(1, 9), st.integers(1, 9), st.none() | st.integers(1, 9))
        ),
        spatial_bounds_from=("out",) if draw(st.booleans()) else (),
    )


@st.composite
def pipelines(draw: st.DrawFn) -> Pipeline:
    nodes = with_automatic([draw(task_nodes(i)) for i in range(draw(st.integers(1, 4)))])
    tasks = in_order(nodes, "here")
    members = st.sets(st.sampled_from(sorted(tasks)), min_size=1).map(lambda s: tuple(sorted(s)))
    subsets = [
        Subset(name, draw(members), draw(texts)) for name in draw(st.sets(st.sampled_from(["x", "y"])))
    ]
    whole = Subset("all", tuple(tasks))
    steps = (Step("all", ("visit",)),) if draw(st.booleans()) else ()
    return Pipeline(
        description=draw(texts),
        instrument=draw(st.none() | st.just("my.Cam")),
        tasks=tasks,
        subsets={s.name: s for s in [whole, *subsets]},
        steps=steps,
        contracts=(Contract("1 < 2", draw(texts)),) if draw(st.booleans()) else (),
        parameters=draw(st.dictionaries(words, values, max_size=2)),
    )


@given(pipelines())
def test_json_gives_the_pipeline_back(pipeline: Pipeline) -> None:
    assert Pipeline.from_json(json.loads(json.dumps(pipeline.to_json()))) == pipeline


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pipeline=pipelines())
def test_yaml_gives_the_pipeline_back(tmp_path: Path, universe: Universe, pipeline: Pipeline) -> None:
    path = tmp_path / "again.yaml"
    path.write_text(as_yaml(pipeline))
    assert load_pipeline(path, universe=universe) == pipeline


@given(pipelines(), st.data())
def test_a_part_of_a_part_is_the_part(pipeline: Pipeline, data: st.DataObject) -> None:
    labels = st.sets(st.sampled_from(sorted(pipeline.tasks)), min_size=1)
    one = data.draw(labels)
    two = data.draw(st.sets(st.sampled_from(sorted(one)), min_size=1))
    assert pipeline.subset(one).subset(two) == pipeline.subset(two)
    assert pipeline.subset(pipeline.tasks) == pipeline


@given(pipelines())
def test_each_task_follows_what_it_reads(pipeline: Pipeline) -> None:
    position = {label: i for i, label in enumerate(pipeline.tasks)}
    assert all(position[a] < position[b] for a, b in pipeline.task_graph().edges)


@given(pipelines())
def test_components_part_the_tasks(pipeline: Pipeline) -> None:
    labels = [label for part in pipeline.components() for label in part]
    assert sorted(labels) == sorted(pipeline.tasks)


def test_a_pipeline_of_classes_comes_back_from_yaml(
    folder: Path, universe: Universe, load: Callable[..., Pipeline]
) -> None:
    toy = load_pipeline(folder / "toy.yaml", universe=universe, config=["detect:connections.kind=deep"])
    toy = replace(toy, contracts=tuple(sorted(toy.contracts, key=lambda c: c.expression)))
    assert load(as_yaml(toy)) == toy


def test_yaml_stands_in_the_order_of_a_dump_with_text_of_several_lines_as_blocks(
    folder: Path, universe: Universe
) -> None:
    toy = load_pipeline(folder / "toy.yaml", universe=universe)
    text = as_yaml(replace(toy, description="two\nlines\n", instrument="my.Cam", parameters={"n": 1}))
    tops = [line.split(":")[0] for line in text.splitlines() if line and line[0].isalpha()]
    assert tops == ["description", "instrument", "parameters", "tasks", "contracts", "subsets", "steps"]
    assert "description: |\n  two\n  lines\n" in text


def test_a_missing_connection_is_suggested(folder: Path, universe: Universe) -> None:
    toy = load_pipeline(folder / "toy.yaml", universe=universe)
    with pytest.raises(Exception, match="did you mean 'image'"):
        toy.tasks["isr"].connection("imge")
