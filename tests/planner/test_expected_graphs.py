"""Quantum graphs that Rubin's own builder made of real registries: ours must have the same quanta and edges."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from loadmaster_pipelines.loader import load_pipeline
from loadmaster_planner.plan import Plan
from loadmaster_planner.planner import make_plan
from loadmaster_planner.request import Request
from loadmaster_registry.exchange import import_export
from loadmaster_registry.store import Registry
from loadmaster_registry.universe import load_universe

CASES = Path(os.environ.get("LOADMASTER_CASES", Path(__file__).parents[3] / "shared" / "data"))
ASKED_FOR = {"registry", "pipeline", "where", "input_collections", "output_run", "subset"}
ANSWERED = {
    "id",
    "peer_seconds",
    "n_quanta",
    "n_edges",
    "n_predicted_outputs",
    "dataset_keys",
    "existing_inputs",
    "tasks",
}


def plain_cases() -> list[Any]:
    """Return the graphs that ask for nothing but a plan of what the registry holds."""
    files = sorted((CASES / "expected" / "graphs").glob("*.json"))
    graphs = [json.loads(file.read_text()) for file in files]
    return [pytest.param(g, id=g["id"]) for g in graphs if set(g) <= ASKED_FOR | ANSWERED]


@pytest.fixture(scope="session")
def registries(cases: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Registry]:
    return {}


def registry_of(name: str, cases: Path, made: dict[str, Registry], folder: Path) -> Registry:
    if name not in made:
        made[name] = Registry.create(f"sqlite:///{folder}/{name}.sqlite3", load_universe())
        for file in json.loads((cases / "registry" / "registries.json").read_text())[name]:
            import_export(made[name], cases / "registry" / file)
    return made[name]


def told(plan: Plan) -> dict[str, list[dict[str, Any]]]:
    """Return each task's quanta in the form of the expected files."""
    keys = {t.name: t.dimensions for t in plan.header.types}
    tasks: dict[str, list[dict[str, Any]]] = {}
    for job in plan.jobs():
        (quantum,) = job.quanta
        dimensions = next(t.dimensions for t in plan.header.tasks if t.label == quantum.task)
        entry: dict[str, Any] = {"id": [quantum.data_id[d] for d in dimensions], "in": {}, "out": {}}
        for side, connections in (("in", quantum.inputs), ("out", quantum.outputs)):
            for datasets in connections.values():
                for d in datasets:
                    entry[side].setdefault(d.dataset_type, []).append(
                        [d.data_id[k] for k in keys[d.dataset_type]]
                    )
        tasks.setdefault(quantum.task, []).append(entry)
    return tasks


def in_order(tasks: dict[str, list[dict[str, Any]]]) -> dict[str, list[Any]]:
    return {
        label: sorted(
            [q["id"], *({name: sorted(rows) for name, rows in q[side].items()} for side in ("in", "out"))]
            for q in quanta
        )
        for label, quanta in tasks.items()
        if quanta
    }


@pytest.mark.parametrize("expected", plain_cases())
def test_quanta_and_edges_are_those_of_rubins_builder(
    expected: dict[str, Any],
    cases: Path,
    registries: dict[str, Registry],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    registry = registry_of(expected["registry"], cases, registries, tmp_path_factory.mktemp("registry"))
    pipeline = load_pipeline(cases / "pipelines" / f"{expected['pipeline']}.yaml", universe=registry.universe)
    if "subset" in expected:
        pipeline = pipeline.subset(expected["subset"])
    request = Request(tuple(expected["input_collections"]), expected["output_run"], where=expected["where"])
    plan = make_plan(registry, pipeline, request)
    wanted = {label: task["quanta"] for label, task in expected["tasks"].items()}
    assert in_order(told(plan)) == in_order(wanted)
    assert sum(c.edges for task in plan.header.tasks for c in task.connections) == expected["n_edges"]
    assert used_inputs(plan) == {
        name: sorted(table["rows"]) for name, table in expected["existing_inputs"].items() if table["rows"]
    }


def used_inputs(plan: Plan) -> dict[str, list[list[Any]]]:
    found: dict[str, list[list[Any]]] = {}
    for t in plan.header.types:
        if t.existing:
            frame = plan.datasets(t.name).filter("exists").select(*t.dimensions, "run")
            found[t.name] = sorted(list(row) for row in frame.rows())
    return found
