"""Commands are filled in word by word: no value can become more, or other, words than it is."""

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from loadmaster_pipelines.command import CommandLine, check_command, fill, parse_command
from loadmaster_pipelines.connections import Connection
from loadmaster_registry.errors import PipelineError

CONNECTIONS = (
    Connection("image", "input", "a", "ExposureF", ("visit",)),
    Connection("weights", "prerequisite", "b", "ExposureF", ("visit",), multiple=True),
    Connection("catalog", "output", "c", "SourceCatalog", ("visit",)),
)


def filled(command: str, **changes: Any) -> CommandLine:
    inputs: Mapping[str, Sequence[Path]] = {
        "image": [Path("/job/a b.fits")],
        "weights": [Path("/job/w1.fits"), Path("/job/w2.fits")],
        "absent": [],
    }
    parts: dict[str, Any] = {
        "inputs": inputs,
        "outputs": {"catalog": [Path("/job/c.fits")]},
        "config": {
            "threshold": 1.5,
            "keys": ["A", "B"],
            "deep": {"er": 3},
            "none": None,
            "text": "a; rm -rf ' \"$x",
        },
        "data_id": {"visit": 42, "band": "r"},
        "folder": Path("/job"),
    }
    return fill(command, **(parts | changes))


@pytest.mark.parametrize(
    ("command", "argv"),
    [
        (
            "sex {inputs.image.path} -c '{outputs.catalog.path}'",
            ["sex", "/job/a b.fits", "-c", "/job/c.fits"],
        ),
        ("swarp {inputs.weights.path}", ["swarp", "/job/w1.fits", "/job/w2.fits"]),
        ("swarp -w={inputs.weights.path}", ["swarp", "-w=/job/w1.fits /job/w2.fits"]),
        ("x {inputs.absent.path} y", ["x", "y"]),
        ("x -t {config.threshold:.3f} {config.deep.er}", ["x", "-t", "1.500", "3"]),
        ("x {config.keys} -k{config.keys}", ["x", "A", "B", "-kA B"]),
        ("x {config.none}-{config.none}", ["x", "-"]),
        ("x {config.text}", ["x", "a; rm -rf ' \"$x"]),
        ("x v{data_id.visit:08d}_{data_id.band}", ["x", "v00000042_r"]),
        ("awk '{{print $1}}' \"a  b\" ''", ["awk", "{print $1}", "a  b", ""]),
        ("x $HOME `id` | y > z", ["x", "$HOME", "`id`", "|", "y", ">", "z"]),
    ],
)
def test_words_are_filled_in_by_themselves(command: str, argv: list[str]) -> None:
    assert list(filled(command).argv) == argv


def test_a_list_is_a_file_with_one_path_a_line() -> None:
    line = filled("swarp @{inputs.weights.list}")
    assert line.argv == ("swarp", "@/job/weights.list")
    assert line.lists == {Path("/job/weights.list"): "/job/w1.fits\n/job/w2.fits\n"}


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\0")))
def test_a_value_stays_one_word_whatever_it_holds(value: str) -> None:
    line = filled(
        "prog --text {config.text} -x{data_id.band}", config={"text": value}, data_id={"band": value}
    )
    assert line.argv == ("prog", "--text", value, "-x" + value)


def test_a_program_gets_the_very_words() -> None:
    code = "import sys; print(ascii(sys.argv[1:]))"
    line = filled(f'"{sys.executable}" -c "{code}" {{config.text}} {{inputs.image.path}}')
    said = subprocess.run(line.argv, capture_output=True, text=True, check=True).stdout
    assert said.strip() == ascii(["a; rm -rf ' \"$x", "/job/a b.fits"])


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("", "it is empty"),
        ("x 'y", "No closing quotation"),
        ("x {inputs.image.path", "expected '}'"),
        ("x }", "Single '}'"),
        ("x {}", "there is no ''"),
        ("x {0}", "there is no '0'"),
        ("x {image}", "there is no 'image'"),
        ("x {inputs}", "the field has another form"),
        ("x {inputs.image}", "the field has another form"),
        ("x {inputs.image.pth}", "did you mean 'path'"),
        ("x {inputs.image.path.parent}", "the field has another form"),
        ("x {outputs.catalog.list}", "outputs have no 'list'"),
        ("x {inputs.imag.path}", "did you mean 'image'"),
        ("x {inputs.catalog.path}", "no such name among its inputs"),
        ("x {outputs.image.path}", "no such name among its outputs"),
        ("x {config.treshold}", "did you mean 'threshold'"),
        ("x {config.threshold.x}", "has no 'x' there"),
        ("x {config.deep}", "it is a group of settings"),
        ("x {config.threshold:d}", "Unknown format code 'd'"),
        ("x {data_id.vist}", "did you mean 'visit'"),
        ("x {data_id.band:08d}", "Unknown format code 'd'"),
        ("x {inputs.image.path:d}", "Unknown format code 'd'"),
        ("x {config.threshold!r}", "conversions"),
        ("x {config.threshold:{config.deep.er}}", "nested fields"),
        ("x {config.__class__}", "has no '__class__' there"),
        ("x {data_id.visit.__class__}", "the field has another form"),
        ("x {inputs[image].path}", "there is no 'inputs\\[image\\]'"),
    ],
)
def test_a_command_with_a_field_that_is_not_there_is_refused(command: str, words: str) -> None:
    with pytest.raises(PipelineError, match=words) as caught:
        check_command(
            parse_command(command, "f.yaml:3:5"),
            connections=CONNECTIONS,
            config={"threshold": 1.5, "deep": {"er": 3}},
            dimensions={"visit": int, "band": str},
            where="f.yaml:3:5",
        )
    assert "f.yaml:3:5" in str(caught.value)
