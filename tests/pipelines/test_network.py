"""Whether a task may use the network: never, unless its definition says so."""

from pathlib import Path

import pytest
from loadmaster_pipelines.loader import load_pipeline
from loadmaster_pipelines.pipeline import Pipeline, TaskNode
from loadmaster_pipelines.show import as_yaml
from loadmaster_registry.errors import PipelineError
from loadmaster_registry.universe import load_universe

TASK = """\
description: one
tasks:
  fetch:
    dimensions: [instrument]
    command: "cp {inputs.a.path} {outputs.b.path}"
    inputs: {a: {dataset_type: a, storage_class: Text, dimensions: [instrument]}}
    outputs: {b: {dataset_type: b, storage_class: Text, dimensions: [instrument]}}
"""


def load(folder: Path, said: str, refined: str = "") -> TaskNode:
    (folder / "base.yaml").write_text(TASK + said)
    path = folder / "base.yaml"
    if refined:
        path = folder / "own.yaml"
        path.write_text(
            f"description: own\nimports: [{{location: base.yaml}}]\ntasks: {{fetch: {{network: {refined}}}}}\n"
        )
    pipeline = load_pipeline(path, universe=load_universe())
    assert Pipeline.from_json(pipeline.to_json()).tasks["fetch"] == pipeline.tasks["fetch"]
    assert ("network: true" in as_yaml(pipeline)) == pipeline.tasks["fetch"].network
    return pipeline.tasks["fetch"]


def test_a_task_has_no_network_unless_it_says_so(tmp_path: Path) -> None:
    assert load(tmp_path, "").network is False
    assert load(tmp_path, "    network: true\n").network is True


def test_whoever_imports_a_task_can_give_it_the_network_or_take_it_away(tmp_path: Path) -> None:
    assert load(tmp_path, "", "true").network is True
    assert load(tmp_path, "    network: true\n", "false").network is False


def test_what_is_neither_true_nor_false_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match="`network` is neither true nor false"):
        load(tmp_path, "    network: sometimes\n")
