"""What one bad visit contaminated in a recorded real graph, and the plan that makes it anew without the visit."""

import json
from collections.abc import Callable
from typing import Any

import polars as pl
import pytest
from case_files import EXPECTED, params
from case_plans import pipeline_of
from loadmaster_planner.plan import Plan
from loadmaster_planner.planner import make_plan
from loadmaster_planner.repair import contaminated_in
from loadmaster_planner.request import Request
from loadmaster_registry.store import Registry
from test_provenance import RUN, by_type_of, record


@pytest.mark.parametrize("case", params("provenance-*.json"))
def test_what_a_flagged_visit_contaminated_is_found_and_made_anew_without_it(
    case: dict[str, Any], imported: Callable[[str], Registry]
) -> None:
    graph = json.loads((EXPECTED / "graphs" / f"{case['graph']}.json").read_text())
    for visit, expected in case.get("contaminated", {}).items():
        registry = imported(graph["registry"])
        record(registry, graph)
        flag_visit(registry, int(visit))
        with registry.snapshot() as now:
            found = contaminated_in(now, [RUN])
        raw = found.pop("raw")
        assert set(raw["exposure"]) == {int(visit)}
        keys = case["dataset_keys"]
        assert {name: set(frame.select(keys[name]).rows()) for name, frame in found.items()} == by_type_of(
            expected["datasets"]
        )
        _, pipeline = pipeline_of(graph, registry)
        inputs = tuple(graph["input_collections"])
        asked = Request(inputs, "u/me/anew", where=graph["where"], allow_partial_gather=True)
        rebuilt = quanta(make_plan(registry, pipeline, asked))
        repaired = quanta(
            make_plan(
                registry,
                pipeline,
                Request(inputs, "u/me/anew", where=graph["where"], allow_partial_gather=True, repair=(RUN,)),
            )
        )
        spoiled = {(name, key) for name, rows in by_type_of(expected["datasets"]).items() for key in rows}
        anew = {
            quantum: made
            for quantum, made in rebuilt.items()
            if any((name, tuple(d[k] for k in keys[name])) in spoiled for name, d in made)
        }
        assert repaired.keys() == anew.keys()
        assert repaired


def flag_visit(registry: Registry, visit: int) -> None:
    rows = pl.DataFrame(
        {"instrument": ["HSC"], "visit": [visit], "flagged": [True], "flag_reason": ["clouds"]}
    )
    with registry.transaction() as t:
        t.set_metadata("visit", rows, loaded="2026-01-01", source="a test")


def quanta(plan: Plan) -> dict[Any, list[tuple[str, dict[str, Any]]]]:
    """Return each quantum (task and data ID) with what it makes."""
    return {
        (q.task, tuple(q.data_id.items())): [
            (d.dataset_type, d.data_id) for found in q.outputs.values() for d in found
        ]
        for job in plan.jobs()
        for q in job.quanta
    }
