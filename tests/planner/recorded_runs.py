"""Runs that never ran: their quanta and outputs in a registry as the harvest of a real run would have put them."""

import hashlib
import json
from typing import Any

import polars as pl
from loadmaster_planner.plan import Plan, PlannedQuantum
from loadmaster_registry.records import Collection, CollectionType
from loadmaster_registry.store import Registry


def record_run(registry: Registry, plan: Plan, *, started: str = "2026-01-01T00:00:00Z") -> None:
    """Record that all quanta of a plan succeeded; equal inputs gave equal outputs, whatever the code."""
    checksums: dict[Any, str] = {}
    quanta, inputs, outputs = [], [], {t.name: [] for t in plan.dataset_types}
    for job in plan.jobs():
        for quantum in job.quanta:
            quanta.append(_quantum_row(plan, quantum, started))
            read = [(name, d) for name, found in quantum.inputs.items() for d in found]
            inputs += [(quantum.id.bytes, d.id.bytes, name) for name, d in read]
            seen = sorted((name, str(d.data_id), checksums.get(d.id, d.checksum)) for name, d in read)
            for d in (d for found in quantum.outputs.values() for d in found):
                text = json.dumps([quantum.task, d.dataset_type, str(d.data_id), seen])
                checksums[d.id] = hashlib.sha256(text.encode()).hexdigest()
                key = {k: d.data_id[k] for k in _required(plan, d.dataset_type)}
                facts = {"id": d.id.bytes, "url": d.path, "size_bytes": 1, "checksum": checksums[d.id]}
                outputs[d.dataset_type].append({**key, **facts, "quantum": quantum.id.bytes})
    with registry.transaction() as t:
        t.register_collection(Collection(plan.output_run, CollectionType.RUN))
        schema = ["quantum", "dataset_id", "connection"]
        if quanta:
            t.insert_quanta(
                pl.DataFrame(quanta),
                pl.DataFrame(
                    inputs,
                    schema={name: pl.String if name == "connection" else pl.Binary for name in schema},
                    orient="row",
                ),
            )
        for dataset_type in plan.dataset_types:
            t.register_dataset_type(dataset_type)
            if outputs[dataset_type.name]:
                t.insert_datasets(
                    dataset_type.name, plan.output_run, pl.DataFrame(outputs[dataset_type.name])
                )


def _required(plan: Plan, dataset_type: str) -> tuple[str, ...]:
    return next(t.dimensions for t in plan.header.types if t.name == dataset_type)


def _quantum_row(plan: Plan, quantum: PlannedQuantum, started: str) -> dict[str, Any]:
    task = plan.pipeline.tasks[quantum.task]
    return {
        "id": quantum.id.bytes,
        "run": plan.output_run,
        "task": quantum.task,
        "data_id": json.dumps(quantum.data_id, sort_keys=True, separators=(",", ":")),
        "attempt": 1,
        "status": "succeeded",
        "started": started,
        "code_digest": task.code_digest,
        "config_digest": task.config_digest,
        "environment_digest": task.environment_digest,
    }


def inputs_by_quantum(plan: Plan) -> dict[Any, frozenset[Any]]:
    """Return for each quantum (task and data ID) what it reads: {(connection, type, data ID)}."""
    return {
        (q.task, tuple(q.data_id.items())): frozenset(
            (name, d.dataset_type, tuple(d.data_id.items()))
            for name, found in q.inputs.items()
            for d in found
        )
        for job in plan.jobs()
        for q in job.quanta
    }
