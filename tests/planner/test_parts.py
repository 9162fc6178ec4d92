"""Parts of a pipeline and what they share: overall inputs constrain, init inputs must exist."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import polars as pl
import pytest
from loadmaster_pipelines.connections import Connection
from loadmaster_pipelines.pipeline import Pipeline, TaskNode
from loadmaster_planner.planner import make_plan
from loadmaster_planner.request import Request
from loadmaster_registry.errors import PlanError
from loadmaster_registry.records import Collection, CollectionType, DatasetType
from loadmaster_registry.store import Registry

REQUEST = Request(("in",), "out")


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    """Three detectors; `some` exists for the first two of them, `last` for the third."""
    with Registry.create(str(tmp_path / "registry.sqlite3")) as made:
        group = made.universe.group(["detector"])
        with made.transaction() as txn:
            txn.insert_records("instrument", pl.DataFrame({"instrument": ["I"]}))
            detectors = pl.DataFrame({"instrument": "I", "detector": [1, 2, 3]})
            txn.insert_records(
                "detector", detectors.with_columns(full_name=pl.col("detector").cast(pl.String))
            )
            txn.register_collection(Collection("in", CollectionType.RUN))
            for name, numbers in (("some", [1, 2]), ("last", [3])):
                txn.register_dataset_type(DatasetType(name, group, "Text"))
                ids = [UUID(int=10 * len(name) + n).bytes for n in numbers]
                rows = pl.DataFrame({"instrument": "I", "detector": numbers, "id": ids, "url": "there"})
                txn.insert_datasets(name, "in", rows)
            txn.register_dataset_type(DatasetType("schema", made.universe.group([]), "Text"))
        yield made


def task(label: str, read: str, made: str, *more: Connection, **flags: Any) -> TaskNode:
    reads = Connection(read, "input", read, "Text", ("detector",), **flags)
    makes = Connection(made, "output", made, "Text", ("detector",))
    return TaskNode(label, ("detector",), (reads, makes, *more), command="true")


def quanta(registry: Registry, *tasks: TaskNode) -> dict[str, list[int]]:
    plan = make_plan(registry, Pipeline("drawn", None, {t.label: t for t in tasks}), REQUEST)
    return {t.label: plan.quanta(t.label)["detector"].to_list() for t in tasks}


def test_tasks_that_only_read_the_same_do_not_constrain_each_other(registry: Registry) -> None:
    both = TaskNode("both", ("detector",), (*task("x", "some", "b").connections[:1],
                    *task("x", "last", "c").connections), command="true")  # fmt: skip
    assert quanta(registry, task("a", "some", "a"), both) == {"a": [1, 2], "both": []}


def test_what_one_task_can_do_without_constrains_no_part(registry: Registry) -> None:
    alone = task("a", "some", "a", minimum=0)
    assert quanta(registry, alone) == {"a": [1, 2, 3]}
    needy = task("b", "some", "b")
    assert quanta(registry, needy, alone) == {"b": [1, 2], "a": [1, 2, 3]}


def test_a_missing_init_input_is_refused_by_name(registry: Registry) -> None:
    schema = Connection("schema", "init_input", "schema", "Text")
    with pytest.raises(PlanError, match=r"init input 'schema' does not exist\n  where: task a"):
        quanta(registry, task("a", "some", "a", schema))
    with registry.transaction() as txn:
        txn.insert_datasets("schema", "in", pl.DataFrame({"id": [UUID(int=99).bytes], "url": ["there"]}))
    assert quanta(registry, task("a", "some", "a", schema)) == {"a": [1, 2]}


def test_an_init_input_comes_from_a_task_that_runs(registry: Registry) -> None:
    made = Connection("made", "init_output", "made", "Text")
    reader = task("b", "some", "b", Connection("made", "init_input", "made", "Text"))
    assert quanta(registry, task("a", "some", "a", made), reader) == {"a": [1, 2], "b": [1, 2]}
    idle = task("a", "some", "a", made, minimum=2, multiple=True)
    with pytest.raises(PlanError, match="task a, which makes it, has no quanta"):
        quanta(registry, idle, reader)


def test_an_earlier_init_dataset_does_not_stand_for_one_of_a_task_of_which_nothing_is_done(
    registry: Registry,
) -> None:
    made = Connection("made", "init_output", "made", "Text")
    idle = task("a", "some", "a", made, minimum=2, multiple=True)
    reader = task("b", "some", "b", Connection("made", "init_input", "made", "Text"))
    with registry.transaction() as txn:
        txn.register_collection(Collection("prev", CollectionType.RUN))
        txn.register_dataset_type(DatasetType("made", registry.universe.group(()), "Text"))
        txn.insert_datasets("made", "prev", pl.DataFrame({"id": [UUID(int=98).bytes], "url": ["there"]}))
    drawn = Pipeline("drawn", None, {t.label: t for t in (idle, reader)})
    request = replace(REQUEST, skip_existing="exists", skip_existing_in=("prev",))
    with pytest.raises(PlanError, match="task a, which makes it, has no quanta"):
        make_plan(registry, drawn, request)
