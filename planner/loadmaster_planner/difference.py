"""How two plans differ: quanta that one has and the other has not, and quanta that read something else.

A quantum is known by its task and data ID, a dataset by its type and data ID and, where it exists, by its id.
Cost: linear in the quanta, datasets and edges of both plans.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import numpy as np
import polars as pl
from loadmaster_pipelines.pipeline import TaskNode

from .header import TaskFacts, TypeFacts
from .plan import Plan

_OLD, _NEW, _PAIR, _DATASET = "\x00old", "\x00new", "\x00pair", "\x00dataset"
_EXAMPLES = 5


@dataclass(frozen=True)
class InputChange:
    """One input of one quantum that only one of the plans has."""

    data_id: Mapping[str, int | str]  # of the quantum
    connection: str
    dataset_type: str
    input: Mapping[str, int | str]  # data ID of the dataset
    id: str  # of the dataset; empty for one that is to be made
    is_new: bool  # else only the old plan has it


@dataclass(frozen=True)
class TaskDifference:
    """How two plans differ in one task."""

    label: str
    settings: tuple[str, ...]  # what of the task itself differs: code, configuration, environment, …
    added: pl.DataFrame  # data IDs of quanta that only the new plan has
    gone: pl.DataFrame  # … that only the old plan has
    changed: pl.DataFrame  # … that both have, with other inputs
    same: int  # quanta that both have, with the same inputs
    changes: tuple[InputChange, ...]  # a few

    @property
    def is_empty(self) -> bool:
        """Whether the task is the same in both plans."""
        return not (self.settings or self.added.height or self.gone.height or self.changed.height)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values: counts, and a few examples."""
        frames = {"added": self.added, "gone": self.gone, "changed": self.changed}
        return {
            "label": self.label,
            "settings": list(self.settings),
            **{name: frame.height for name, frame in frames.items()},
            "same": self.same,
            "examples": {name: frame.head(_EXAMPLES).to_dicts() for name, frame in frames.items()},
            "inputs": [vars(change) for change in self.changes],
        }


@dataclass(frozen=True)
class Difference:
    """How two plans differ."""

    old_digest: str
    new_digest: str
    tasks: tuple[TaskDifference, ...]  # of either plan, in order of execution

    @property
    def is_empty(self) -> bool:
        """Whether both plans run the same on the same."""
        return all(task.is_empty for task in self.tasks)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        digests = {"old": self.old_digest, "new": self.new_digest}
        return {"digests": digests, "tasks": [task.to_json() for task in self.tasks]}


def difference(old: Plan, new: Plan) -> Difference:
    """Compare two plans, whatever they are of."""
    if old.digest == new.digest:
        tasks = [_alike(task) for task in new.header.tasks]
        return Difference(old.digest, new.digest, tuple(tasks))
    before, after = _facts(old), _facts(new)
    labels = [*after, *(label for label in before if label not in after)]
    datasets = _SharedDatasets(old, new)
    return Difference(
        old.digest,
        new.digest,
        tuple(_of_task(old, new, before.get(label), after.get(label), datasets) for label in labels),
    )


def _facts(plan: Plan) -> dict[str, TaskFacts]:
    return {task.label: task for task in plan.header.tasks}


def _alike(task: TaskFacts) -> TaskDifference:
    nothing = pl.DataFrame()
    return TaskDifference(task.label, (), nothing, nothing, nothing, task.quanta, ())


def _of_task(
    old: Plan, new: Plan, before: TaskFacts | None, after: TaskFacts | None, datasets: "_SharedDatasets"
) -> TaskDifference:
    if before is None or after is None or before.dimensions != after.dimensions:
        gone = old.quanta(before.label) if before else pl.DataFrame()
        added = new.quanta(after.label) if after else pl.DataFrame()
        label = (before or after).label  # type: ignore[union-attr]
        why = ("task",) if before is None or after is None else ("dimensions",)
        return TaskDifference(label, why, added, gone, pl.DataFrame(), 0, ())
    label, keys = after.label, list(after.dimensions)
    was = old.quanta(label).select(keys).with_row_index(_OLD)
    now = new.quanta(label).select(keys).with_row_index(_NEW)
    pairs = was.join(now, on=keys, how="inner", nulls_equal=True) if keys else was.join(now, how="cross")
    pairs = pairs.sort(_NEW).with_row_index(_PAIR)
    changes = [
        datasets.changes(label, name, pairs)
        for name in sorted({c.name for task in (before, after) for c in task.connections if not c.is_output})
    ]
    others = pl.concat([frame.select(_PAIR) for frame in changes]).unique() if changes else pairs.clear()
    return TaskDifference(
        label,
        _settings(old.pipeline.tasks[label], new.pipeline.tasks[label]),
        added=_without(now, pairs, _NEW),
        gone=_without(was, pairs, _OLD),
        changed=pairs.join(others, on=_PAIR, how="semi", maintain_order="left").select(keys),
        same=pairs.height - others.height,
        changes=tuple(datasets.examples(changes, pairs, keys)),
    )


def _without(quanta: pl.DataFrame, pairs: pl.DataFrame, row: str) -> pl.DataFrame:
    return quanta.join(pairs, on=row, how="anti", maintain_order="left").drop(row)


def _settings(old: TaskNode, new: TaskNode) -> tuple[str, ...]:
    compared = {
        "code": (old.code_digest, new.code_digest),
        "configuration": (old.config_digest, new.config_digest),
        "environment": (old.environment_digest, new.environment_digest),
        "connections": (old.connections, new.connections),
    }
    return tuple(name for name, (a, b) in compared.items() if a != b)


class _SharedDatasets:
    """Numbers for the datasets of two plans, equal where these are the same."""

    def __init__(self, old: Plan, new: Plan) -> None:
        self._plans = (old, new)
        self._types = [{t.name: t for t in plan.header.types} for plan in self._plans]
        self._numbers: dict[str, tuple[pl.DataFrame, list[np.ndarray[Any, Any]]]] = {}

    def changes(self, label: str, connection: str, pairs: pl.DataFrame) -> pl.DataFrame:
        """Return the edges of a connection that only one plan has: pair of quanta, dataset, `is_new`, connection."""
        sides = []
        for plan, side, row in zip(self._plans, (0, 1), (_OLD, _NEW), strict=True):
            facts = next(t for t in plan.header.tasks if t.label == label)
            found = [c for c in facts.connections if c.name == connection and not c.is_output and c.edges]
            edges = pl.DataFrame(schema={_PAIR: pl.UInt32, _DATASET: pl.Int64, "type": pl.String})
            for c in found:
                _, numbers = self._numbered(c.dataset_type)
                raw = plan.edges(label, connection)
                coded = pl.DataFrame(
                    {row: raw["quantum"], _DATASET: numbers[side][raw["dataset"].to_numpy()]}
                )
                paired = coded.join(pairs.select(row, _PAIR), on=row).select(_PAIR, _DATASET)
                edges = paired.with_columns(type=pl.lit(c.dataset_type))
            sides.append(edges)
        key = [_PAIR, _DATASET, "type"]
        return pl.concat(
            [
                sides[0].join(sides[1], on=key, how="anti").with_columns(is_new=False),
                sides[1].join(sides[0], on=key, how="anti").with_columns(is_new=True),
            ]
        ).with_columns(connection=pl.lit(connection))

    def examples(
        self, changes: Sequence[pl.DataFrame], pairs: pl.DataFrame, keys: Sequence[str]
    ) -> list[InputChange]:
        """Return the first few changed inputs with all that a person needs to know."""
        if not changes:
            return []
        few = pl.concat(changes).sort(_PAIR, "connection", _DATASET, "is_new").head(_EXAMPLES)
        found = []
        for row in few.iter_rows(named=True):
            table, _ = self._numbered(row["type"])
            dataset = table.row(row[_DATASET], named=True)
            id = (dataset.pop("id_hi") << 64) | dataset.pop("id_lo")
            found.append(
                InputChange(
                    data_id=pairs.select(keys).row(row[_PAIR], named=True),
                    connection=row["connection"],
                    dataset_type=row["type"],
                    input=dataset,
                    id=str(UUID(int=id)) if id else "",
                    is_new=row["is_new"],
                )
            )
        return found

    def _numbered(self, name: str) -> tuple[pl.DataFrame, list[np.ndarray[Any, Any]]]:
        """Return the distinct datasets of a type in both plans, and for each plan where its own stand there."""
        if name not in self._numbers:
            tables = [
                _identities(plan, types[name]) if name in types else None
                for plan, types in zip(self._plans, self._types, strict=True)
            ]
            whole = pl.concat([t for t in tables if t is not None], how="diagonal").unique(
                maintain_order=True
            )
            numbered = whole.with_row_index(_DATASET)
            places = [
                t.join(numbered, on=t.columns, how="left", nulls_equal=True, maintain_order="left")[_DATASET]
                .cast(pl.Int64)
                .to_numpy()
                if t is not None
                else np.zeros(0, dtype=np.int64)
                for t in tables
            ]
            self._numbers[name] = whole, places
        return self._numbers[name]


def _identities(plan: Plan, facts: TypeFacts) -> pl.DataFrame:
    """Return what tells the datasets of a type apart: required data ID, and halves of the id (0 if to be made)."""
    table = plan.rows(f"datasets/{facts.name}", 0, facts.count)
    exists = table["run"].is_not_null() if facts.existing else pl.repeat(False, table.height, eager=True)
    ids = plan.axes.decode(table, facts.dimensions) if facts.dimensions else pl.DataFrame()
    halves = [pl.Series(h, np.where(exists.to_numpy(), table[h].to_numpy(), 0)) for h in ("id_hi", "id_lo")]
    return pl.DataFrame([*ids.get_columns(), *halves])
