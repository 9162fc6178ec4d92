"""Configuration: defaults, blocks in order, parameters, the command line; checked, with places."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from loadmaster_pipelines.pipeline import Pipeline
from loadmaster_registry.errors import PipelineError

Load = Callable[..., Pipeline]
HEAD = "description: x\ntasks:\n  detect:\n    class: sketch_tasks.Detect\n    config:\n"


def config(load: Load, *lines: str, **options: Any) -> dict[str, Any]:
    """Return the configuration of `detect` after `lines` of its `config`, which begin at line 6, column 7."""
    text = HEAD + "".join(f"      {line}\n" for line in lines)
    return dict(load(text, **options).tasks["detect"].config)


def test_fields_that_nobody_sets_keep_their_defaults(load: Load) -> None:
    assert config(load, "seed: 1") == {
        "threshold": 5.0,
        "kernel": {"name": "gauss", "size": 5, "weights": []},
        "reuse": True,
        "columns": [],
        "method": "peak",
        "seed": 1,
    }


def test_dotted_fields_reach_into_nested_models(load: Load) -> None:
    got = config(load, "seed: 1", "kernel.name: moffat", "kernel.size: 7")
    assert got["kernel"] == {"name": "moffat", "size": 7, "weights": []}


def test_a_mapping_sets_a_nested_model_as_dots_do(load: Load) -> None:
    dotted = config(load, "seed: 1", "kernel.name: moffat")
    assert config(load, "seed: 1", "kernel: {name: moffat}") == dotted


def test_later_blocks_go_before_earlier_ones(load: Load) -> None:
    got = config(load, "- {seed: 1, threshold: 3}", "- {threshold: 4, kernel.size: 9}", "- kernel.size: 11")
    assert (got["threshold"], got["kernel"]["size"]) == (4.0, 11)


@pytest.mark.parametrize(
    ("line", "field", "value"),
    [
        ("threshold: 1e-3", "threshold", 0.001),  # text for YAML
        ("threshold: '4.5'", "threshold", 4.5),
        ("seed: '0x10'", "seed", 16),
        ("columns: \"['a', 'b']\"", "columns", ["a", "b"]),
        ("columns: [a, b]", "columns", ["a", "b"]),
        ("reuse: 'False'", "reuse", False),
        ("method: isophote", "method", "isophote"),
        ("kernel.weights: ['1', 2e0]", "kernel", {"name": "gauss", "size": 5, "weights": [1.0, 2.0]}),
        ("kernel.name: '12'", "kernel", {"name": "12", "size": 5, "weights": []}),  # a text field takes text
    ],
)
def test_text_is_read_as_the_field_needs_it(load: Load, line: str, field: str, value: Any) -> None:
    lines = [line] if field == "seed" else [line, "seed: 1"]
    assert config(load, *lines)[field] == value


def test_none_as_text_means_nothing_where_nothing_is_allowed(load: Load) -> None:
    text = "description: x\ntasks:\n  isr:\n    class: sketch_tasks.Isr\n    config: {gain: 'None', comment: 'None'}\n"
    got = load(text).tasks["isr"].config
    assert (got["gain"], got["comment"]) == (None, "None")


@pytest.mark.parametrize(
    ("lines", "place", "words"),
    [
        (["seed: 1", "treshold: 3"], "7:7", "did you mean 'threshold'"),
        (["seed: 1", "kernel.nam: x"], "7:7", "did you mean 'name'"),
        (["seed: 1", "kernel: {nam: x}"], "7:7", "did you mean 'name'"),
        (["seed: 1", "threshold: high"], "7:7", "threshold: input should be a valid number.*given: 'high'"),
        (["seed: 1", "kernel.size: 0"], "7:7", "kernel.size: input should be greater than or equal to 1"),
        (["seed: 1", "method: random"], "7:7", "method: input should be 'peak' or 'isophote'"),
        (["seed: [1, 2]"], "6:7", "seed: "),
        (["threshold: 3"], "3:3", "seed: field required"),
        (["seed: 1", "kernel..size: 3"], "7:7", "cannot name a field"),
        (["seed: 1", "threshold.value: 3"], "7:7", "threshold"),
    ],
)
def test_a_refused_setting_names_file_line_and_column(
    load: Load, lines: list[str], place: str, words: str
) -> None:
    with pytest.raises(PipelineError, match=words) as caught:
        config(load, *lines)
    assert f"pipeline.yaml:{place}" in str(caught.value)


def test_all_wrong_settings_of_a_task_are_told_together(load: Load) -> None:
    with pytest.raises(PipelineError) as caught:
        config(load, "seed: x", "threshold: y", "kernel.nam: z")
    assert all(f"pipeline.yaml:{line}:7" in str(caught.value) for line in (6, 7, 8))


PARAMETERS = "parameters: {deep: 5, kernel_name: box, list: [a, b]}\n"


def test_parameters_are_substituted_where_a_value_begins_with_them(load: Load) -> None:
    text = (
        PARAMETERS
        + HEAD
        + (
            "      seed: parameters.deep\n"
            "      kernel.name: parameters.kernel_name\n"
            "      columns: parameters.list\n"
            "      connections.kind: parameters.kernel_name\n"
        )
    )
    detect = load(text).tasks["detect"]
    assert (detect.config["seed"], detect.config["kernel"]["name"]) == (5, "box")
    assert detect.config["columns"] == ["a", "b"]
    assert detect.connection("sources").dataset_type == "box_cat"


def test_an_unknown_parameter_is_an_error_with_its_place(load: Load) -> None:
    with pytest.raises(PipelineError, match="did you mean 'deep'") as caught:
        load(PARAMETERS + HEAD + "      seed: parameters.deap\n")
    assert "pipeline.yaml:7:7" in str(caught.value)


def test_the_command_line_has_the_last_word(load: Load) -> None:
    text = PARAMETERS + HEAD + "      seed: parameters.deep\n      threshold: 3\n"
    overrides = ["detect:threshold=4", "detect:kernel.size=9", "detect:threshold=2.5", "parameters:deep=7"]
    got = load(text, config=overrides).tasks["detect"].config
    assert (got["threshold"], got["kernel"]["size"], got["seed"]) == (2.5, 9, 7)


def test_the_command_line_may_name_parameters_and_connections(load: Load) -> None:
    text = PARAMETERS + HEAD + "      seed: 1\n"
    detect = load(text, config=["detect:seed=parameters.deep", "detect:connections.kind=diff"]).tasks[
        "detect"
    ]
    assert detect.config["seed"] == 5
    assert detect.connection("sources").dataset_type == "diff_cat"


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("detct:seed=1", "did you mean 'detect'"),
        ("detect:sed=1", "did you mean 'seed'"),
        ("parameters:deap=1", "did you mean 'deep'"),
        ("seed=1", "write LABEL:FIELD=VALUE"),
        ("detect:seed=many", "given: 'many'"),
    ],
)
def test_a_wrong_override_is_refused_by_name(load: Load, override: str, words: str) -> None:
    with pytest.raises(PipelineError, match=words) as caught:
        load(PARAMETERS + HEAD + "      seed: 1\n", config=[override])
    assert "command line" in str(caught.value)


PYTHON = [
    "- {seed: 1, threshold: 1e-1}",
    "- python: |",
    "    limit = 7",
    "    config.kernel.size = limit",
    "    config.kernel.weights.append(0.5)",
    "    if config.threshold < 1 and parameters.deep > 4:",
    "        config.reuse = False",
    "    config.connections.kind = 'diff'",
    "- python: config.seed = limit + 1",
]


def test_python_runs_where_the_source_is_trusted(load: Load) -> None:
    text = PARAMETERS + HEAD + "".join(f"      {line}\n" for line in PYTHON)
    detect = load(text, trusted=True).tasks["detect"]
    assert detect.config["kernel"] == {"name": "gauss", "size": 7, "weights": [0.5]}
    assert (detect.config["reuse"], detect.config["seed"]) == (False, 8)
    assert detect.connection("sources").dataset_type == "diff_cat"


@pytest.mark.parametrize("line", ["python: raise SystemExit", "file: change.py"])
def test_python_does_not_run_elsewhere_and_the_error_says_how_to_allow_it(load: Load, line: str) -> None:
    with pytest.raises(PipelineError, match="trusted=True") as caught:
        config(load, "seed: 1", line)
    assert "pipeline.yaml:7:7" in str(caught.value)


def test_python_sees_the_module_of_the_class_but_changes_nothing_there(load: Load) -> None:
    assert (
        config(load, "- python: config.seed = len(FRAME)", "- python: FRAME = 3", trusted=True)["seed"] == 3
    )
    assert load("description: x\ntasks: {isr: sketch_tasks.Isr}\n").tasks["isr"].dimensions[1] == "exposure"


def test_files_run_before_python_and_python_before_fields_of_a_block(load: Load, folder: Path) -> None:
    (folder / "a.py").write_text("config.threshold = 1\nconfig.seed = 1\nconfig.kernel.size = 1\n")
    (folder / "b.py").write_text("config.threshold = config.threshold + 1\n")
    got = config(
        load,
        "kernel.size: 3",
        "python: config.kernel.size = 2; config.seed = 2",
        "file: [a.py, b.py]",
        trusted=True,
    )
    assert (got["threshold"], got["seed"], got["kernel"]["size"]) == (2.0, 2, 3)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("config.treshold = 3", "did you mean 'threshold'"),
        ("config.kernel.siz = 3", "did you mean 'size'"),
        ("parameters.deep = 3", "parameters are fixed"),
        ("config.seed + 1", "'seed' has no default and is not set yet"),
        ("1 / 0", "ZeroDivisionError"),
        ("config.seed = ", "SyntaxError"),
        ("config.seed = 1 if {parameters.deep} else 2", r"the condition \{parameters.deep\} never changes"),
        ("config.threshold = 'x'", "threshold: input should be a valid number"),
    ],
)
def test_python_that_fails_is_told_with_its_place(load: Load, code: str, words: str) -> None:
    text = f"{PARAMETERS}{HEAD}      - python: {code}\n      - seed: 1\n"
    with pytest.raises(PipelineError, match=words) as caught:
        load(text, trusted=True)
    assert "pipeline.yaml:7:9" in str(caught.value)


def test_a_declared_task_has_plain_values(load: Load) -> None:
    text = """
description: x
parameters: {n: 3}
tasks:
  a:
    dimensions: [visit]
    outputs:
      out: {dataset_type: b, storage_class: Text, dimensions: [visit]}
    config: {n: parameters.n, word: "12", deep.er: [1, 2]}
    command: echo {config.n} {config.word} {config.deep.er} {outputs.out.path}
"""
    assert load(text).tasks["a"].config == {"n": 3, "word": "12", "deep": {"er": [1, 2]}}
    got = load(text, config=["a:word=other", "a:n=5", "a:connections.out=c"])
    assert got.tasks["a"].config["word"] == "other"
    assert got.tasks["a"].config["n"] == 5
    assert got.tasks["a"].connection("out").dataset_type == "c"
    with pytest.raises(PipelineError, match="did you mean 'word'"):
        load(text, config=["a:wrd=1"])
