"""What a task declares of its environment, and what it is worth: a digest of its own."""

from pathlib import Path

import pytest
from loadmaster_pipelines.loader import load_pipeline
from loadmaster_pipelines.pipeline import Pipeline
from loadmaster_registry.errors import PipelineError
from loadmaster_registry.universe import load_universe

TASK = """\
description: one
tasks:
  copy:
    dimensions: [instrument]
    command: "cp {inputs.a.path} {outputs.b.path}"
    inputs: {a: {dataset_type: a, storage_class: Text, dimensions: [instrument]}}
    outputs: {b: {dataset_type: b, storage_class: Text, dimensions: [instrument]}}
"""


def load(folder: Path, environment: str, refined: str = "") -> Pipeline:
    (folder / "base.yaml").write_text(TASK + f"    environment: {environment}\n")
    path = folder / "base.yaml"
    if refined:
        path = folder / "own.yaml"
        path.write_text(
            "description: own\nimports: [{location: base.yaml}]\n"
            f"tasks: {{copy: {{environment: {refined}}}}}\n"
        )
    return load_pipeline(path, universe=load_universe())


def test_the_environment_is_kept_and_refined_name_by_name(tmp_path: Path) -> None:
    pipeline = load(tmp_path, "{swarp: '2.41', libc: '2.36'}", "{swarp: '2.42'}")
    assert pipeline.tasks["copy"].environment == {"swarp": "2.42", "libc": "2.36"}
    assert Pipeline.from_json(pipeline.to_json()).tasks["copy"] == pipeline.tasks["copy"]


def test_another_version_changes_the_digest_of_the_environment_only(tmp_path: Path) -> None:
    old, new = (load(tmp_path, f"{{swarp: '{v}'}}").tasks["copy"] for v in ("2.41", "2.42"))
    assert old.environment_digest != new.environment_digest
    assert (old.code_digest, old.config_digest) == (new.code_digest, new.config_digest)


def test_a_version_that_yaml_takes_for_a_number_is_refused_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match=r"version of 'swarp' is no text\n  where: .*base\.yaml:8"):
        load(tmp_path, "{swarp: 2.40}")
