"""Plans of the graphs in the files of answers, told in the files' own form."""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from case_files import CASES, check_keys, names, one_of
from case_setup import set_up
from case_values import bound
from loadmaster_pipelines.loader import load_pipeline
from loadmaster_pipelines.pipeline import Pipeline
from loadmaster_planner.data_id_tables import DataIdTable
from loadmaster_planner.plan import Plan
from loadmaster_planner.planner import make_plan
from loadmaster_planner.request import Request
from loadmaster_registry.store import Registry

_TABLES = ("data_id_tables", "data_id_table", "tables")
_ASKED = {"registry", "pipeline", "where", "bind", "input_collections", "output_run", "subset", "setup",
          "skip_existing_in", "clobber", *_TABLES}  # fmt: skip
_ANSWERED = {"id", "description", "peer_seconds", "n_quanta", "n_edges", "n_predicted_outputs", "dataset_keys",
             "existing_inputs", "tasks", "sha256_of_quanta", "failure", "reason"}  # fmt: skip
Sides = tuple[dict[str, list[Any]], dict[str, list[Any]]]


def pipeline_of(case: Mapping[str, Any], registry: Registry) -> tuple[Pipeline, Pipeline]:
    """Return the whole pipeline of a case, and the part of it that is planned."""
    whole = load_pipeline(CASES / "pipelines" / f"{case['pipeline']}.yaml", universe=registry.universe)
    if not case.get("subset"):
        return whole, whole
    labels: list[str] = []
    for name in names(case["subset"]):
        labels += whole.subsets[name].members if name in whole.subsets else (name,)
    return whole, whole.subset(labels)


def plan_of(case: Mapping[str, Any], registry_copy: Callable[[str], Registry], **more: Any) -> Plan:
    """Set a case's registry up and plan what it asks for."""
    check_keys(case, _ASKED | _ANSWERED, f"graph {case['id']}")
    registry = registry_copy(case["registry"])
    whole, part = pipeline_of(case, registry)
    inputs = tuple(names(case["input_collections"]))
    set_up(registry, case.get("setup", ()), whole, inputs)
    skip = tuple(names(case.get("skip_existing_in")))
    request = Request(
        inputs,
        case["output_run"],
        where=case["where"] or "",
        bind=bound(case.get("bind")),
        tables=tuple(_tables(one_of(case, *_TABLES), registry)),
        allow_partial_gather=True,
        skip_existing="exists" if skip else None,
        skip_existing_in=skip,
        clobber=bool(case.get("clobber", False)),
    )
    return make_plan(registry, part, request, **more)


def _tables(spelled: Any, registry: Registry) -> Iterable[DataIdTable]:
    """Return data-ID tables: one or several, each of keys (or columns) and rows, or of one mapping a row."""
    if not spelled:
        return
    single = isinstance(spelled, Mapping) or not _is_table(spelled[0])
    for i, table in enumerate([spelled] if single else spelled):
        if isinstance(table, Mapping):
            keys = one_of(table, "keys", "columns", "dimensions")
            assert keys is not None or "rows" not in table, f"what does the table {table} mean?"
            frame = pl.DataFrame(table) if keys is None else pl.DataFrame(table["rows"], keys, orient="row")
        else:
            frame = pl.DataFrame(table)
        types = {c: pl.String if registry.universe[c].key.type == "str" else pl.Int64 for c in frame.columns}
        yield DataIdTable(f"table {i}", frame.cast(types).unique(maintain_order=True))


def _is_table(value: Any) -> bool:
    """Whether an item of a list is a table itself, not one row of one."""
    if isinstance(value, Mapping):
        return any(isinstance(v, (list, tuple)) for v in value.values())
    return True


def tasks_of(plan: Plan, automatic_inputs: bool = True) -> dict[str, list[tuple[Any, ...]]]:
    """Return for each task with quanta its (id, in, out), in order; what the framework makes is left out."""
    kinds = {(t.label, c.name): c for t in plan.pipeline.tasks.values() for c in t.connections}
    made_by_framework = {c.dataset_type for c in kinds.values() if c.automatic}
    rows = {t.name: _rows(plan.datasets(t.name), t.dimensions, t.count) for t in plan.header.types}
    told = {}
    for task in plan.header.tasks:
        ids = _rows(plan.quanta(task.label), task.dimensions, task.quanta)
        sides: list[Sides] = [({}, {}) for _ in ids]
        for c in task.connections:
            left_out = c.is_output or not automatic_inputs
            if not c.edges or (left_out and c.dataset_type in made_by_framework):
                continue
            _add(sides, plan.edges(task.label, c.name), rows[c.dataset_type], c.dataset_type, c.is_output)
        quanta = [
            (id, *({name: _distinct(found) for name, found in side.items()} for side in both))
            for id, both in zip(ids, sides, strict=True)
        ]
        if quanta:
            told[task.label] = sorted(quanta, key=lambda quantum: quantum[0])
    return told


def _add(sides: list[Sides], edges: pl.DataFrame, rows: list[Any], name: str, output: bool) -> None:
    for quantum, dataset in edges.select("quantum", "dataset").iter_rows():
        sides[quantum][output].setdefault(name, []).append(rows[dataset])


def _rows(frame: pl.DataFrame, dimensions: Sequence[str], count: int) -> list[list[Any]]:
    return [list(row) for row in frame.select(dimensions).iter_rows()] if dimensions else [[]] * count


def _distinct(rows: list[list[Any]]) -> list[list[Any]]:
    return [list(row) for row in sorted({tuple(row) for row in rows})]


def n_edges(tasks: Mapping[str, list[tuple[Any, ...]]]) -> int:
    """Count the links between quanta and datasets."""
    return sum(
        len(rows)
        for quanta in tasks.values()
        for _, *both in quanta
        for side in both
        for rows in side.values()
    )


def predicted(tasks: Mapping[str, list[tuple[Any, ...]]]) -> dict[str, int]:
    """Count the datasets of each type that quanta make."""
    found: dict[str, int] = {}
    for quanta in tasks.values():
        for _, _, out in quanta:
            for name, rows in out.items():
                found[name] = found.get(name, 0) + len(rows)
    return found


def sha256_of(quanta: Iterable[tuple[Any, ...]]) -> str:
    """Return the digest of one line a quantum, as the files of answers define it."""
    digest = hashlib.sha256()
    for quantum in quanta:
        line = json.dumps(list(quantum), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        digest.update(line.encode() + b"\n")
    return digest.hexdigest()


def existing_inputs(plan: Plan) -> dict[str, list[list[Any]]]:
    """Return for each type its existing datasets that some quantum reads, each with its run."""
    found = {}
    for t in plan.header.types:
        used = np.zeros(t.count, dtype=bool)
        for task in plan.header.tasks:
            for c in task.connections:
                if not c.is_output and c.dataset_type == t.name:
                    used[plan.edges(task.label, c.name)["dataset"].to_numpy()] = True
        frame = plan.datasets(t.name).filter(pl.Series(used)).filter("exists")
        if frame.height:
            found[t.name] = sorted(list(row) for row in frame.select(*t.dimensions, "run").rows())
    return found
