"""Provenance: what made what, recorded once, followed both ways."""

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4, uuid5

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loadmaster_registry.errors import Conflict, NotFound, RegistryError
from loadmaster_registry.records import Collection, CollectionType, DatasetType
from loadmaster_registry.store import Registry

NAMES = UUID("8d9c1a0e-3c5f-4b0e-9f53-0a3d5c1b7e11")
Steps = Sequence[tuple[str, Sequence[str], Sequence[str]]]  # quantum, what it read, what it made


def id_of(name: str) -> bytes:
    return uuid5(NAMES, name).bytes


def quanta(names: Sequence[str], **columns: Any) -> pl.DataFrame:
    ids = [id_of(name) for name in names]
    facts = {"run": "run", "task": list(names), "data_id": "{}", "attempt": 1, "status": "succeeded"}
    return pl.DataFrame({"id": ids, **facts, **columns})


def inputs(pairs: Sequence[tuple[str, str]]) -> pl.DataFrame:
    rows = [(id_of(quantum), id_of(dataset), "input") for quantum, dataset in pairs]
    schema = {"quantum": pl.Binary, "dataset_id": pl.Binary, "connection": pl.String}
    return pl.DataFrame(rows, schema=schema, orient="row")


def record(registry: Registry, steps: Steps) -> None:
    """Register a run in which each dataset is a type of its own without dimensions."""
    made = {output: quantum for quantum, _, outputs in steps for output in outputs}
    read = [(quantum, dataset) for quantum, some, _ in steps for dataset in some]
    group = registry.universe.group([])
    with registry.transaction() as transaction:
        transaction.register_collection(Collection("run", CollectionType.RUN))
        for dataset in dict.fromkeys([*made, *(dataset for _, dataset in read)]):
            transaction.register_dataset_type(DatasetType(dataset, group, "Text"))
            quantum = id_of(made[dataset]) if dataset in made else None
            row = {"id": [id_of(dataset)], "quantum": pl.Series([quantum], dtype=pl.Binary)}
            transaction.insert_datasets(dataset, "run", pl.DataFrame(row))
        transaction.insert_quanta(quanta([quantum for quantum, _, _ in steps]), inputs(read))


def reached(registry: Registry, name: str, *, upstream: bool) -> set[str]:
    return set(registry.lineage(UUID(bytes=id_of(name)), upstream=upstream)["dataset_type"])


DIAMOND: Steps = [
    ("isr", ["raw", "bias"], ["image"]),
    ("detect", ["image"], ["sources", "background"]),
    ("fit", ["sources", "background", "image"], ["summary"]),
    ("other", ["bias"], ["residual"]),
]


def test_lineage_is_followed_upstream_to_what_came_from_outside(registry: Registry) -> None:
    record(registry, DIAMOND)
    assert reached(registry, "summary", upstream=True) == {"sources", "background", "image", "raw", "bias"}
    assert reached(registry, "raw", upstream=True) == set()


def test_lineage_is_followed_downstream_to_all_that_depends_on_it(registry: Registry) -> None:
    record(registry, DIAMOND)
    assert reached(registry, "raw", upstream=False) == {"image", "sources", "background", "summary"}
    assert reached(registry, "bias", upstream=False) == {
        "image", "sources", "background", "summary", "residual",
    }  # fmt: skip
    assert reached(registry, "summary", upstream=False) == set()


def test_lineage_names_the_quantum_and_task_that_made_each_dataset(registry: Registry) -> None:
    record(registry, DIAMOND)
    rows = registry.lineage(UUID(bytes=id_of("image")))
    assert rows.select("dataset_type", "run", "quantum", "task").rows() == [
        ("bias", "run", None, None),
        ("raw", "run", None, None),
    ]
    found = registry.lineage(UUID(bytes=id_of("image")), upstream=False).filter(dataset_type="summary")
    assert found.select("quantum", "task").rows() == [(id_of("fit"), "fit")]


def test_an_input_that_never_was_a_dataset_here_has_only_its_id(registry: Registry) -> None:
    record(registry, [("isr", ["raw"], ["image"])])
    elided = uuid4().bytes
    with registry.transaction() as transaction:
        rows = pl.DataFrame({"quantum": [id_of("isr")], "dataset_id": [elided], "connection": ["extra"]})
        assert transaction.insert_quanta(quanta(["isr"]), rows) == 0
    found = registry.lineage(UUID(bytes=id_of("image")))
    assert found.filter(pl.col("dataset").is_null())["id"].to_list() == [elided]


def test_the_same_quanta_again_change_nothing(registry: Registry) -> None:
    record(registry, DIAMOND)
    before = registry.quanta("run")
    with registry.transaction() as transaction:
        assert transaction.insert_quanta(quanta(["isr", "detect"]), inputs([("isr", "raw")])) == 0
    assert registry.quanta("run").equals(before)


def test_each_attempt_at_a_quantum_is_kept(registry: Registry) -> None:
    record(registry, [])
    with registry.transaction() as transaction:
        transaction.insert_quanta(quanta(["isr"], status="failed"), inputs([]))
        assert transaction.insert_quanta(quanta(["isr"], attempt=2, host="node7"), inputs([])) == 1
    found = registry.quanta("run").select("task", "attempt", "status", "host").rows()
    assert found == [("isr", 1, "failed", None), ("isr", 2, "succeeded", "node7")]


def test_other_facts_about_the_same_attempt_are_a_conflict(registry: Registry) -> None:
    record(registry, DIAMOND)
    said = "there status='succeeded', given status='failed'"
    with pytest.raises(Conflict, match=said), registry.transaction() as transaction:
        transaction.insert_quanta(quanta(["isr"], status="failed"), inputs([]))


def test_quanta_are_checked_before_they_are_recorded(registry: Registry) -> None:
    record(registry, [])
    with registry.transaction() as transaction:
        with pytest.raises(RegistryError, match="did you mean 'succeeded'"):
            transaction.insert_quanta(quanta(["isr"], status="suceeded"), inputs([]))
        with pytest.raises(RegistryError, match="1 inputs are of quanta that are not recorded"):
            transaction.insert_quanta(quanta(["isr"]), inputs([("detect", "image")]))
        with pytest.raises(NotFound, match="there is no collection 'rum'"):
            transaction.insert_quanta(quanta(["isr"], run="rum"), inputs([]))
    with pytest.raises(NotFound, match="there is no collection"):
        registry.quanta("rum")


Dataset = tuple[Any, ...]  # type, then the values of its data ID


def quantum_id(label: str, data_id: Sequence[Any]) -> bytes:
    return id_of(json.dumps([label, *data_id]))


def record_graph(registry: Registry, graph: dict[str, Any]) -> set[Dataset]:
    """Record a real graph as if all of it had run; return its datasets."""
    made: dict[Dataset, bytes | None] = {}
    rows, read = [], []
    for label, task in graph["tasks"].items():
        for quantum in task["quanta"]:
            id = quantum_id(label, quantum["id"])
            rows.append((id, label, json.dumps(quantum["id"])))
            made |= {(type, *row): id for type, some in quantum["out"].items() for row in some}
            read += [(id, (type, *row), type) for type, some in quantum["in"].items() for row in some]
    made = dict.fromkeys((dataset for _, dataset, _ in read), None) | made
    with registry.transaction() as transaction:
        transaction.register_collection(Collection("run", CollectionType.RUN))
        for type, keys in graph["dataset_keys"].items():
            if type not in {t.name for t in transaction.dataset_types()}:
                transaction.register_dataset_type(DatasetType(type, registry.universe.group(keys), "Text"))
            some = [d for d in made if d[0] == type]
            columns = dict(zip(keys, zip(*(d[1:] for d in some), strict=True), strict=True))
            quanta_ = pl.Series([made[d] for d in some], dtype=pl.Binary)
            frame = pl.DataFrame({**columns, "id": [id_of(json.dumps(d)) for d in some], "quantum": quanta_})
            transaction.insert_datasets(type, "run", frame)
        facts = {"run": "run", "attempt": 1, "status": "succeeded"}
        ran = pl.DataFrame(rows, schema=["id", "task", "data_id"], orient="row")
        inputs_ = [(id, id_of(json.dumps(dataset)), connection) for id, dataset, connection in read]
        transaction.insert_quanta(
            ran.with_columns(**{k: pl.lit(v) for k, v in facts.items()}),
            pl.DataFrame(inputs_, schema=["quantum", "dataset_id", "connection"], orient="row"),
        )
    return set(made)


def test_a_real_graph_is_followed_both_ways_as_it_should(
    cases: Path, imported: Callable[[str], Registry]
) -> None:
    answer = json.loads((cases / "expected" / "provenance-g10.json").read_text())
    graph = json.loads((cases / "expected" / "graphs" / f"{answer['graph']}.json").read_text())
    registry = imported("rc2-small")
    datasets = record_graph(registry, graph)
    names = {id_of(json.dumps(d)): d for d in datasets}

    def followed(start: Dataset, upstream: bool) -> pl.DataFrame:
        return registry.lineage(UUID(bytes=id_of(json.dumps(start))), upstream=upstream)

    for visit, expected in answer["contaminated"].items():
        bad = [d for d in datasets if d[0] == "raw" and d[-1] == int(visit)]
        found = pl.concat(followed(d, upstream=False) for d in bad).unique("id")
        assert by_type(names[id] for id in found["id"]) == by_type_of(expected["datasets"])
        assert found["quantum"].n_unique() == expected["n_quanta"]
    for text, expected in answer["needed"].items():
        type, _, data_id = text.partition(" ")
        start = (type, *json.loads(data_id.replace("'", '"')))
        found = followed(start, upstream=True)
        existing = found.filter(pl.col("quantum").is_null())
        assert by_type(names[id] for id in existing["id"]) == by_type_of(expected["existing"])
        assert 1 + found["quantum"].drop_nulls().n_unique() == expected["n_quanta"]


def by_type(datasets: Iterable[Dataset]) -> dict[str, set[Dataset]]:
    found: dict[str, set[Dataset]] = {}
    for type, *data_id in datasets:
        found.setdefault(type, set()).add(tuple(data_id))
    return found


def by_type_of(answer: dict[str, list[list[Any]]]) -> dict[str, set[Dataset]]:
    return {type: set(map(tuple, rows)) for type, rows in answer.items()}


@st.composite
def runs(draw: st.DrawFn) -> Steps:
    """Draw quanta each of which reads some of what earlier ones made."""
    known, steps = ["d0"], []
    for i in range(draw(st.integers(0, 6))):
        made = [f"d{len(known) + j}" for j in range(draw(st.integers(0, 2)))]
        steps.append((f"q{i}", draw(st.lists(st.sampled_from(known), unique=True, max_size=3)), made))
        known += made
    return steps


def ancestors(steps: Steps, name: str) -> set[str]:
    """The slow and obvious twin."""
    parents = {p for _, read, made in steps if name in made for p in read}
    return parents.union(*(ancestors(steps, p) for p in parents))


@settings(max_examples=15, deadline=None)
@given(steps=runs())
def test_lineage_is_the_closure_of_what_was_read(
    steps: Steps, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with Registry.create(str(tmp_path_factory.mktemp("run") / "registry.sqlite3")) as registry:
        record(registry, steps)
        datasets = {d for _, read, made in steps for d in (*read, *made)}
        up = {d: reached(registry, d, upstream=True) for d in datasets}
        assert up == {d: ancestors(steps, d) for d in datasets}
        for d in datasets:
            assert reached(registry, d, upstream=False) == {other for other in datasets if d in up[other]}
