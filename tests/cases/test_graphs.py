"""Quantum graphs that Rubin's own builder made of real registries: ours have the same quanta and edges."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from case_files import params
from case_plans import existing_inputs, n_edges, plan_of, predicted, sha256_of, tasks_of
from loadmaster_registry.errors import Error, PlanError, QueryError
from loadmaster_registry.store import Registry

# What a refusal of Rubin's builder has to become: the class of ours, and words that it must hold.
REFUSALS = {
    "FileNotFoundError": (PlanError, "lack the prerequisite"),
    "PrerequisiteMissingError": (PlanError, "lack the prerequisite"),
    "OutputExistsError": (PlanError, "exist already"),
    "InitInputMissingError": (PlanError, "init"),
    "InvalidQueryError": (QueryError, "expression"),
    "UserExpressionError": (QueryError, "expression"),
}
Tasks = Mapping[str, list[tuple[Any, ...]]]


@pytest.mark.parametrize("case", params("graphs/*.json"))
def test_quanta_edges_and_refusals_are_those_of_rubins_builder(
    case: dict[str, Any], imported: Callable[[str], Registry]
) -> None:
    if "failure" in case:
        kind, words = REFUSALS.get(kind_of(case["failure"]), (Error, ""))
        with pytest.raises(kind, match=words):
            plan_of(case, imported)
        return
    plan = plan_of(case, imported)
    told = tasks_of(plan)
    if case.get("n_edges") != n_edges(told):  # an input that the framework makes may be left out as well
        told = tasks_of(plan, automatic_inputs=False)
    assert {label: len(quanta) for label, quanta in told.items()} == positive(case["n_quanta"])
    check_quanta(case, told)
    assert n_edges(told) == case["n_edges"]
    assert positive(case["n_predicted_outputs"]) == predicted(told)
    if "existing_inputs" in case:
        asked = case["existing_inputs"].items()
        assert existing_inputs(plan) == {name: sorted(t["rows"]) for name, t in asked if t["rows"]}


def kind_of(failure: Any) -> str:
    """Return the class of a refusal, which may stand by itself, before a colon, or in a mapping."""
    if isinstance(failure, Mapping):
        failure = failure.get("type") or failure.get("class") or failure.get("error") or ""
    return str(failure).split(":")[0].split("(")[0].rpartition(".")[2].strip()


def positive(counts: Mapping[str, int]) -> dict[str, int]:
    return {name: n for name, n in counts.items() if n}


def check_quanta(case: Mapping[str, Any], told: Tasks) -> None:
    assert "tasks" in case or "sha256_of_quanta" in case or not any(case["n_quanta"].values())
    for label, task in case.get("tasks", {}).items():
        wanted = sorted(
            (q["id"], *({name: sorted(rows) for name, rows in q[side].items() if rows} for side in ("in", "out")))
            for q in task["quanta"]
        ) if task["quanta"] else []  # fmt: skip
        assert told.get(label, []) == wanted
    digests = {label: sha256_of(quanta) for label, quanta in told.items()}
    empty = sha256_of([])
    wanted = {k: v for k, v in case.get("sha256_of_quanta", {}).items() if v != empty}
    if "sha256_of_quanta" in case:
        assert digests == wanted
