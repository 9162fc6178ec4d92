"""Provenance: what made what, recorded once, followed both ways."""

from collections.abc import Sequence
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


def test_quanta_have_one_key_of_inputs_if_and_only_if_they_read_the_same_by_the_same_connections(
    registry: Registry,
) -> None:
    record(registry, [("isr", ["raw"], ["image"])])

    def keys(*read: tuple[str, str, str]) -> set[bytes]:
        """Record quanta of which each reads some datasets by connections, and return their keys."""
        frame = pl.DataFrame(
            [(id_of(q), id_of(d), c) for q, d, c in read],
            schema={"quantum": pl.Binary, "dataset_id": pl.Binary, "connection": pl.String},
            orient="row",
        )
        labels = sorted({q for q, _, _ in read})
        with registry.transaction() as transaction:
            transaction.insert_quanta(quanta(labels), frame)
        found = registry.quanta("run").filter(pl.col("id").is_in([id_of(label) for label in labels]))
        return set(found["inputs_key"])

    same = keys(("a", "x", "c"), ("a", "y", "c"), ("b", "y", "c"), ("b", "x", "c"))
    assert len(same) == 1
    assert keys(("d", "x", "c"), ("d", "y", "other")).isdisjoint(same)
    (part,) = keys(("e", "x", "c"))
    assert {part}.isdisjoint(same)
    assert keys(("e", "x", "c"), ("e", "y", "c")) == same  # what was recorded in part, and then whole
    with registry.transaction() as transaction:
        again = pl.DataFrame({"quantum": [id_of("e")], "dataset_id": [id_of("x")], "connection": ["c"]})
        transaction.insert_quanta(quanta(["e"], attempt=2), again)
    of_attempts = registry.quanta("run").filter(pl.col("id") == id_of("e")).sort("attempt")["inputs_key"]
    assert of_attempts.to_list() == [*same, part]


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
