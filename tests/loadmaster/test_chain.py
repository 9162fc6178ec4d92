"""The output chain: this run, older runs of the same output, the inputs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from loadmaster_registry.errors import Conflict

from loadmaster.chain import output_chain

INPUTS = st.lists(st.sampled_from(["raw/all", "calib", "refcats", "skymaps", "u/y/1"]), unique=True)


def test_a_first_run_stands_before_its_inputs() -> None:
    assert output_chain("u/x", "u/x/1", ["raw", "calib"]) == ("u/x/1", "raw", "calib")


@given(INPUTS)
def test_a_second_run_stands_before_the_first(inputs: list[str]) -> None:
    first = output_chain("u/x", "u/x/1", inputs)
    assert output_chain("u/x", "u/x/2", inputs, first) == ("u/x/2", *first)


@given(INPUTS, st.integers(0, 3))
def test_starting_the_same_run_again_changes_nothing(inputs: list[str], n_older: int) -> None:
    chain: tuple[str, ...] = ()
    for number in range(n_older + 1):
        chain = output_chain("u/x", f"u/x/{number + 1}", inputs, chain)
    assert output_chain("u/x", f"u/x/{n_older + 1}", inputs, chain) == chain


def test_an_output_may_be_among_its_own_inputs() -> None:
    chain = output_chain("u/x", "u/x/1", ["raw"])
    assert output_chain("u/x", "u/x/2", chain, chain) == ("u/x/2", "u/x/1", "raw")


def test_other_inputs_are_refused_and_both_are_named() -> None:
    with pytest.raises(Conflict, match=r"raw, calib.*inputs raw, calib2") as caught:
        output_chain("u/x", "u/x/2", ["raw", "calib2"], ("u/x/1", "raw", "calib"))
    assert "--rebase" in str(caught.value)


def test_inputs_in_another_order_are_other_inputs() -> None:
    with pytest.raises(Conflict):
        output_chain("u/x", "u/x/2", ["calib", "raw"], ("u/x/1", "raw", "calib"))


def test_a_rebase_keeps_older_runs_and_takes_the_new_inputs() -> None:
    chain = output_chain("u/x", "u/x/2", ["raw2"], ("u/x/1", "raw"), rebase=True)
    assert chain == ("u/x/2", "u/x/1", "raw2")
