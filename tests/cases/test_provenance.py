"""Lineage over real graphs: what one bad visit reaches, and which existing datasets an output needs."""

import ast
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from uuid import UUID, uuid5

import polars as pl
import pytest
from case_files import EXPECTED, check_keys, params
from loadmaster_registry.records import Collection, CollectionType, DatasetType
from loadmaster_registry.store import Registry

NAMES = UUID("8d9c1a0e-3c5f-4b0e-9f53-0a3d5c1b7e11")
RUN = "provenance/run"
Dataset = tuple[Any, ...]  # type, then the values of its data ID


def id_of(*name: Any) -> bytes:
    return uuid5(NAMES, json.dumps(name)).bytes


@pytest.mark.parametrize("case", params("provenance-*.json"))
def test_a_real_graph_is_followed_both_ways_as_it_should(
    case: dict[str, Any], imported: Callable[[str], Registry]
) -> None:
    check_keys(case, {"graph", "dataset_keys", "contaminated", "needed"}, "provenance")
    graph = json.loads((EXPECTED / "graphs" / f"{case['graph']}.json").read_text())
    registry = imported(graph["registry"])
    names = {id_of(*d): d for d in record(registry, graph)}

    def followed(start: Dataset, upstream: bool) -> pl.DataFrame:
        return registry.lineage(UUID(bytes=id_of(*start)), upstream=upstream)

    for visit, expected in case.get("contaminated", {}).items():
        check_keys(expected, {"n_datasets", "n_quanta", "datasets"}, visit)
        exposure = 1 + graph["dataset_keys"]["raw"].index("exposure")
        bad = [d for d in names.values() if d[0] == "raw" and d[exposure] == int(visit)]
        found = pl.concat(followed(d, upstream=False) for d in bad).unique("id")
        assert by_type(names[id] for id in found["id"]) == by_type_of(expected["datasets"])
        assert found.height == expected["n_datasets"]
        assert found["quantum"].n_unique() == expected["n_quanta"]
    for text, expected in case.get("needed", {}).items():
        check_keys(expected, {"n_existing", "n_quanta", "existing"}, text)
        type, _, data_id = text.partition(" ")
        found = followed((type, *ast.literal_eval(data_id)), upstream=True)
        existing = found.filter(pl.col("quantum").is_null())
        assert by_type(names[id] for id in existing["id"]) == by_type_of(expected["existing"])
        assert existing.height == expected["n_existing"]
        assert 1 + found["quantum"].drop_nulls().n_unique() == expected["n_quanta"]


def record(registry: Registry, graph: Mapping[str, Any]) -> list[Dataset]:
    """Record a real graph as if all of it had run, existing datasets of all runs in one; return its datasets."""
    made: dict[Dataset, bytes | None] = {}
    quanta, read = [], []
    for label, task in graph["tasks"].items():
        for quantum in task["quanta"]:
            id = id_of(label, *quantum["id"])
            quanta.append((id, label, json.dumps(quantum["id"])))
            made |= {(type, *row): id for type, rows in quantum["out"].items() for row in rows}
            read += [(id, (type, *row), type) for type, rows in quantum["in"].items() for row in rows]
    made = dict.fromkeys((dataset for _, dataset, _ in read), None) | made
    with registry.transaction() as transaction:
        transaction.register_collection(Collection(RUN, CollectionType.RUN))
        known = {t.name for t in transaction.dataset_types()}
        for type, keys in graph["dataset_keys"].items():
            if type not in known:
                transaction.register_dataset_type(DatasetType(type, registry.universe.group(keys), "Text"))
            some = [d for d in made if d[0] == type]
            columns = dict(zip(keys, zip(*(d[1:] for d in some), strict=True), strict=True))
            makers = pl.Series([made[d] for d in some], dtype=pl.Binary)
            frame = pl.DataFrame({**columns, "id": [id_of(*d) for d in some], "quantum": makers})
            transaction.insert_datasets(type, RUN, frame)
        facts = {"run": RUN, "attempt": 1, "status": "succeeded"}
        ran = pl.DataFrame(quanta, schema=["id", "task", "data_id"], orient="row")
        inputs = [(id, id_of(*dataset), connection) for id, dataset, connection in read]
        transaction.insert_quanta(
            ran.with_columns(**{k: pl.lit(v) for k, v in facts.items()}),
            pl.DataFrame(inputs, schema=["quantum", "dataset_id", "connection"], orient="row"),
        )
    return list(made)


def by_type(datasets: Iterable[Dataset]) -> dict[str, set[Dataset]]:
    found: dict[str, set[Dataset]] = {}
    for type, *data_id in datasets:
        found.setdefault(type, set()).add(tuple(data_id))
    return found


def by_type_of(answer: Mapping[str, list[list[Any]]]) -> dict[str, set[Dataset]]:
    return {type: set(map(tuple, rows)) for type, rows in answer.items() if rows}
