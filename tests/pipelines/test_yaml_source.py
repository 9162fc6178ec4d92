"""Whatever is wrong with a file is said with its line and column."""

from collections.abc import Callable

import pytest
from loadmaster_pipelines.pipeline import Pipeline
from loadmaster_pipelines.yaml_source import parse_yaml
from loadmaster_registry.errors import PipelineError

Load = Callable[..., Pipeline]


def test_keys_and_items_know_where_they_stand() -> None:
    block = parse_yaml("a: 1\nb:\n  - x\n  - {c: 2}\n", "f.yaml")
    assert block.at("b") == "f.yaml:2:1"
    assert block["b"].where_of == ["f.yaml:3:5", "f.yaml:4:5"]
    assert block["b"][1].at("c") == "f.yaml:4:6"


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("a: 1\na: 2\n", "f.yaml:2:1"),
        ("a:\n  b: 1\n  c: {d: 1, d: 2}\n", "f.yaml:3:13"),
        ("- {a: 1, a: 1}", "f.yaml:1:10"),
    ],
)
def test_a_key_may_stand_once_in_each_mapping(text: str, where: str) -> None:
    with pytest.raises(PipelineError, match="stands twice") as caught:
        parse_yaml(text, "f.yaml")
    assert where in str(caught.value)


def test_broken_yaml_is_shown_with_its_place() -> None:
    with pytest.raises(PipelineError, match=r"f\.yaml:2:"):
        parse_yaml("a: [1, 2\nb: 3\n", "f.yaml")


@pytest.mark.parametrize("text", ["", "just text", "- a\n- b\n"])
def test_a_file_that_is_no_mapping_is_refused(text: str) -> None:
    with pytest.raises(PipelineError, match="the file holds no mapping"):
        parse_yaml(text, "f.yaml")


def test_merge_keys_are_followed_and_dates_stay_text() -> None:
    block = parse_yaml("base: &b {x: 1, y: 2}\nmore:\n  <<: *b\n  y: 3\n  day: 2024-05-06\n", "f.yaml")
    assert dict(block["more"]) == {"x": 1, "y": 3, "day": "2024-05-06"}


BAD = {
    "descripton: x\ntasks: {}": ("1:1", "did you mean 'description'"),
    "tasks: {}": ("1:1", "no description"),
    "description: x": ("1:1", "no tasks"),
    "description: 3\ntasks: {}": ("1:1", "is no text"),
    "description: x\ninherits: y.yaml": ("2:1", "write `imports`"),
    "description: x\ntasks: {}\nsubset: [a]": ("3:1", "write `subsets"),
    "description: x\ntasks: {}\ninstrument: [a, b]": ("3:1", "several instruments"),
    "description: x\ntasks: {}\nparameters: [a]": ("3:1", "is no mapping"),
    "description: x\ntasks:\n  parameters: a.B": ("3:3", "reserved"),
    "description: x\ntasks:\n  a b: a.B": ("3:3", "cannot be a label"),
    "description: x\ntasks:\n  on: a.B": ("3:3", "cannot be a label"),
    "description: x\ntasks:\n  a: 3": ("3:3", "neither a class nor a mapping"),
    "description: x\ntasks:\n  a: {clas: a.B}": ("3:7", "did you mean 'class'"),
    "description: x\ntasks:\n  a: {config: {x: 1}}": ("3:3", "neither a class nor connections"),
    "description: x\ntasks:\n  a: {class: a.B, command: ls}": ("3:19", "has `command` and no connections"),
    "description: x\ntasks:\n  a: {class: a.B, config: 3}": ("3:19", "neither a mapping nor a list"),
    "description: x\ntasks:\n  a: {class: a.B, config: {dataId: {visit: 1}}}": ("3:28", "not supported"),
    "description: x\ntasks:\n  a: {class: a.B, resources: {cpu: 1}}": ("3:31", "did you mean 'cpus'"),
    "description: x\ntasks:\n  a: {class: a.B, resources: {cpus: many}}": ("3:31", "is no number"),
    "description: x\ntasks: {}\nsubsets: {s: a}": ("3:11", "is no list"),
    "description: x\ntasks: {}\nsubsets: {s: {subset: [], descripton: x}}": ("3:27", "did you mean"),
    "description: x\ntasks: {}\nsubsets: {s: [a]}": ("3:11", "no task has this label"),
    "description: x\ntasks: {}\nsteps: {label: s}": ("3:1", "is no list"),
    "description: x\ntasks: {}\nsteps: [{label: s}]": ("3:9", "`label` and `dimensions`"),
    "description: x\ntasks: {}\nsteps: [{label: s, dimensions: visit}]": ("3:20", "is no list"),
    "description: x\ntasks: {}\nsteps: [{label: s, dimensions: [visit]}]": ("3:9", "is no subset"),
    "description: x\ntasks: {}\ncontracts: [3]": ("3:13", "is no contract"),
    "description: x\ntasks: {}\ncontracts: [{contrat: a}]": ("3:14", "did you mean 'contract'"),
    "description: x\nimports: [3]": ("2:11", "is no import"),
    "description: x\nimports: [{include: [a]}]": ("2:11", "no location"),
    "description: x\nimports: {location: a, include: [a], exclude: [b]}": ("2:38", "`include` and `exclude`"),
    "description: x\nimports: {location: a, labeledSubsetModifyMode: KEEP}": ("2:24", "unknown mode"),
    "description: x\nimports: {location: a, importContracts: 'no'}": ("2:24", "neither true nor false"),
    "description: x\nimports: {location: a, renames: {}}": ("2:24", "did you mean 'rename'"),
}


@pytest.mark.parametrize(
    ("text", "expected"), BAD.items(), ids=lambda x: x[:40] if isinstance(x, str) else ""
)
def test_what_a_file_may_not_say_is_refused_with_line_and_column(
    load: Load, text: str, expected: tuple[str, str]
) -> None:
    with pytest.raises(PipelineError) as caught:
        load(text)
    place, words = expected
    assert f"pipeline.yaml:{place}" in str(caught.value)
    assert words in str(caught.value)


CONNECTION = "description: x\ntasks:\n  a:\n    dimensions: [visit]\n    {table}:\n      c: {body}\n"
GOOD = "dataset_type: d, storage_class: Config"
BAD_CONNECTIONS = [
    ("inputs", "{dataset_typ: d}", "6:11", "did you mean 'dataset_type'"),
    ("inputs", "{dataset_type: d, dimensions: [visit]}", "6:7", "no storage_class"),
    ("inputs", f"{{{GOOD}}}", "6:7", "no dimensions"),
    ("inputs", f"{{{GOOD}, dimensions: visit}}", "6:51", "is no list of names"),
    ("inputs", f"{{{GOOD}, dimensions: [vist]}}", "6:7", "did you mean 'visit'"),
    ("inputs", f"{{{GOOD}, dimensions: [visit_definition]}}", "6:7", "is not a dimension"),
    (
        "inputs",
        "{dataset_type: 'd-e', storage_class: Config, dimensions: [visit]}",
        "6:11",
        "cannot name a dataset",
    ),
    ("inputs", f"{{{GOOD}, dimensions: [visit], minimum: -1}}", "6:72", "is no number from 0"),
    ("inputs", f"{{{GOOD}, dimensions: [visit], multiple: maybe}}", "6:72", "neither true nor false"),
    ("outputs", f"{{{GOOD}, dimensions: [visit], minimum: 1}}", "6:72", "unknown key 'minimum'"),
    ("prerequisites", f"{{{GOOD}, dimensions: [visit], no_graph_constraint: true}}", "6:72", "unknown key"),
    ("init_outputs", f"{{{GOOD}, dimensions: [visit]}}", "6:51", "unknown key 'dimensions'"),
    ("inputs", "just_a_name", "6:7", "is no mapping"),
]


@pytest.mark.parametrize(("table", "body", "place", "words"), BAD_CONNECTIONS)
def test_a_connection_that_cannot_be_is_refused_with_line_and_column(
    load: Load, table: str, body: str, place: str, words: str
) -> None:
    with pytest.raises(PipelineError) as caught:
        load(CONNECTION.replace("{table}", table).replace("{body}", body))
    assert f"pipeline.yaml:{place}" in str(caught.value)
    assert words in str(caught.value)


def test_a_task_that_runs_has_storage_classes_that_are_known_and_another_any(load: Load) -> None:
    misspelt = "{dataset_type: d, storage_class: ExposreF, dimensions: [visit]}"
    text = CONNECTION.replace("{table}", "inputs").replace("{body}", misspelt)
    assert load(text).tasks["a"].connections[0].storage_class == "ExposreF"
    with pytest.raises(PipelineError, match="did you mean 'ExposureF'") as caught:
        load(text.replace("    dimensions", "    command: 'true {inputs.c.path}'\n    dimensions"))
    assert "pipeline.yaml:" in str(caught.value)


@pytest.mark.parametrize("name", ["_x", "quantum", "a-b", "3"])
def test_a_connection_is_called_by_a_plain_identifier(load: Load, name: str) -> None:
    text = CONNECTION.replace("{table}", "inputs").replace("{body}", f"{{{GOOD}, dimensions: [visit]}}")
    with pytest.raises(PipelineError, match="cannot name a connection"):
        load(text.replace("c: {", f"{name}: {{"))


def test_a_connection_name_stands_once_in_a_task(load: Load) -> None:
    text = CONNECTION.replace("{table}", "inputs").replace("{body}", f"{{{GOOD}, dimensions: [visit]}}")
    with pytest.raises(PipelineError, match="connection 'c' stands twice"):
        load(text + f"    outputs:\n      c: {{{GOOD}, dimensions: [visit]}}\n")


def test_a_file_that_is_not_there_is_named(load: Load) -> None:
    with pytest.raises(PipelineError, match=r"nowhere\.yaml"):
        load("description: x\nimports: nowhere.yaml")
