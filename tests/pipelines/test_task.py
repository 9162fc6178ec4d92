"""Task classes collect their connections; handles give what was declared."""

import copy
import pickle
from pathlib import Path
from uuid import uuid4

import pytest
from loadmaster_pipelines.connections import InitInput, InitOutput, Input, Output, Prerequisite
from loadmaster_pipelines.handles import InputHandle, Inputs, OutputHandle, Outputs
from loadmaster_pipelines.task import NoWork, Task, TaskConfig
from loadmaster_registry.errors import PipelineError, StageError


class Copy(Task):
    dimensions = ("instrument",)

    source = Input("a", "StructuredDataDict", ("instrument",))
    helper = Prerequisite("b.wcs", "Wcs", ("instrument",), calibration=True, minimum=0)
    before = InitInput("c", "Config")
    target = Output("d", "StructuredDataDict", ("instrument",))
    schema = InitOutput("e", "Config")

    def run(self, inputs: Inputs, outputs: Outputs) -> None:
        content = inputs.source.get()
        if not content:
            raise NoWork("the source is empty")
        outputs.target.put(content)


def test_connections_take_their_names_from_the_class_body_in_order() -> None:
    assert list(Copy.connections) == ["source", "helper", "before", "target", "schema"]
    assert Copy.connections["source"].name == "source"
    assert [c.kind for c in Copy.connections.values()] == [
        "input", "prerequisite", "init_input", "output", "init_output",
    ]  # fmt: skip


def test_a_component_is_written_behind_a_dot() -> None:
    helper = Copy.connections["helper"]
    assert (helper.dataset_type, helper.component) == ("b", "wcs")


def test_a_subclass_inherits_replaces_and_takes_away_connections() -> None:
    class Shorter(Copy):
        source = Input("other", "StructuredDataDict", ("instrument",))
        helper = None  # type: ignore[assignment]

    assert list(Shorter.connections) == ["source", "before", "target", "schema"]
    assert Shorter.connections["source"].dataset_type == "other"
    assert Copy.connections["source"].dataset_type == "a"


@pytest.mark.parametrize("name", ["quantum", "config", "run", "resources"])
def test_a_connection_may_not_take_a_name_that_every_task_has(name: str) -> None:
    with pytest.raises(PipelineError, match=f"may not be called '{name}'"):
        type("Bad", (Copy,), {name: Input("x", "Config", ())})


def test_a_configuration_has_no_fields_that_it_does_not_declare() -> None:
    with pytest.raises(ValueError, match="Extra inputs are not permitted"):
        TaskConfig(anything=1)  # type: ignore[call-arg]


def quantum(folder: Path) -> tuple[Inputs, Outputs]:
    data_id = {"instrument": "ToyCam"}
    source = InputHandle("a", data_id, uuid4(), folder / "a.json", "StructuredDataDict")
    target = OutputHandle("d", data_id, uuid4(), folder / "d.json", "StructuredDataDict")
    return Inputs(data_id, {"source": source, "helper": None}), Outputs(data_id, {"target": target})


def test_a_task_reads_and_writes_through_its_handles(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"x": 1}')
    inputs, outputs = quantum(tmp_path)
    Copy(TaskConfig()).run(inputs, outputs)
    assert (tmp_path / "d.json").read_text().split() == ["{", '"x":', "1", "}"]
    assert inputs.helper is None
    assert inputs.quantum == {"instrument": "ToyCam"}
    assert set(inputs) == {"source", "helper"}


def test_a_task_without_anything_to_do_says_so(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{}")
    with pytest.raises(NoWork, match="the source is empty") as caught:
        Copy(TaskConfig()).run(*quantum(tmp_path))
    assert caught.value.reason == "the source is empty"


def test_an_output_is_put_once(tmp_path: Path) -> None:
    _, outputs = quantum(tmp_path)
    outputs.target.put({"x": 1})
    with pytest.raises(StageError, match=r"d\.json is there already"):
        outputs.target.put({"x": 2})
    assert "1" in (tmp_path / "d.json").read_text()


def test_a_misspelt_connection_is_suggested(tmp_path: Path) -> None:
    inputs, _ = quantum(tmp_path)
    with pytest.raises(PipelineError, match="did you mean 'source'"):
        inputs.sourse  # noqa: B018
    assert not hasattr(inputs, "nothing")


def test_handles_survive_copying_and_pickling(tmp_path: Path) -> None:
    inputs, _ = quantum(tmp_path)
    assert copy.deepcopy(inputs).source == inputs.source
    assert pickle.loads(pickle.dumps(inputs)).source == inputs.source
