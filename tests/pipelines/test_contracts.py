"""Contracts compare configurations, and nothing else."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from loadmaster_pipelines.contracts import check_contract
from loadmaster_pipelines.pipeline import Contract, Pipeline
from loadmaster_registry.errors import PipelineError

CONFIGS: dict[str, dict[str, Any]] = {
    "isr": {"dark": True, "flat": False, "gain": 1.5, "connections": {"image": "post_isr"}},
    "detect": {
        "threshold": 5.0,
        "kernel": {"size": 7},
        "bands": ["g", "r"],
        "connections": {"image": "post_isr"},
    },
}


@pytest.mark.parametrize(
    "expression",
    [
        "isr.dark",
        "isr.dark or isr.nonsense",
        "not isr.flat",
        "detect.threshold == 5",
        "4 < detect.threshold <= detect.kernel.size",
        "'r' in detect.bands and 'z' not in detect.bands",
        "len(detect.bands) == 2",
        "detect.bands[0] == 'g'",
        "isr.gain * 2 + 1 - -1 == 5",
        "max(detect.kernel.size, 3) // 2 % 2 == 1",
        "isr.dark if detect.threshold > 4 else isr.flat",
        "detect.kernel.size in (5, 7)",
        "set(detect.bands) == {'r', 'g'}",
        "isr.gain is not None",
        "isr.connections.image == detect.connections.image",
        " isr.dark ",
    ],
)
def test_contracts_that_hold_say_nothing(expression: str) -> None:
    check_contract(Contract(expression), CONFIGS, "f.yaml:1:1")


def test_a_broken_contract_shows_its_message_its_place_and_the_values() -> None:
    contract = Contract("detect.threshold < isr.gain or detect.kernel.size == 3", "use a lower threshold")
    with pytest.raises(PipelineError, match="use a lower threshold") as caught:
        check_contract(contract, CONFIGS, "f.yaml:4:5")
    for words in ("f.yaml:4:5", "detect.threshold is 5.0", "isr.gain is 1.5", "detect.kernel.size is 7"):
        assert words in str(caught.value)


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("isr.drak", "did you mean 'dark'"),
        ("irs.dark", "did you mean 'isr'"),
        ("isr.gain.value", "isr.gain has no parts"),
        ("isr.dark ==", "invalid syntax"),
        ("detect.bands[7]", "index out of range"),
        ("isr.gain + 'a'", "unsupported operand"),
        ("isr.gain / 0", "division by zero"),
        ("__import__('os').system('true')", "no part of what contracts may say"),
        ("isr.__class__", "there is no '__class__'"),
        ("open('/etc/passwd')", "no part of what contracts may say"),
        ("[x for x in detect.bands]", "no part of what contracts may say"),
        ("(lambda: 1)()", "no part of what contracts may say"),
        ("9 ** 9 ** 9", "no part of what contracts may say"),
        ("f'{isr.dark}'", "no part of what contracts may say"),
        ("(x := 1)", "no part of what contracts may say"),
        ("len(obj=detect.bands)", "no part of what contracts may say"),
        ("isr.dark.real", "has no parts"),
        ("'a'.join(detect.bands)", "no part of what contracts may say"),
    ],
)
def test_what_is_no_contract_is_refused_and_nothing_runs(expression: str, words: str) -> None:
    with pytest.raises(PipelineError, match=words):
        check_contract(Contract(expression), CONFIGS, "f.yaml:1:1")


numbers = st.integers(-20, 20)
atoms = numbers.map(str) | st.sampled_from(["t.a", "t.b.c"])
terms = st.recursive(
    atoms,
    lambda e: st.builds("({} {} {})".format, e, st.sampled_from(["+", "-", "*", "<", "==", "and", "or", ">="]), e)
    | e.map("(not {})".format)
    | e.map("(-{})".format),
    max_leaves=10,
)  # fmt: skip


class Namespace:
    def __init__(self, **values: Any) -> None:
        vars(self).update(values)


@given(terms, numbers, numbers)
def test_contracts_mean_what_python_means(expression: str, a: int, c: int) -> None:
    holds = bool(eval(expression, {"t": Namespace(a=a, b=Namespace(c=c))}))
    told = pytest.raises(PipelineError, match="is broken") if not holds else nullcontext()
    with told:
        check_contract(Contract(expression), {"t": {"a": a, "b": {"c": c}}}, "here")


def test_contracts_are_checked_after_all_overrides(load: Callable[..., Pipeline]) -> None:
    text = "description: x\nimports: toy.yaml\n"
    load(text, config=["isr:dark=False", "detect:reuse=False"])
    with pytest.raises(PipelineError, match="reuse needs darks") as caught:
        load(text, config=["isr:dark=False"])
    assert "toy.yaml:17:5" in str(caught.value)
    load(text, "#isr", config=["isr:dark=False"])  # without detect, nobody needs the darks
