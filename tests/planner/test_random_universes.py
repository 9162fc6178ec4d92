"""The planner over random universes, records, collections and expressions, against nested loops a page long."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count, product
from typing import Any
from uuid import UUID

import polars as pl
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from loadmaster_pipelines.connections import Connection
from loadmaster_pipelines.pipeline import Pipeline, TaskNode
from loadmaster_planner.plan import Plan
from loadmaster_planner.planner import make_plan
from loadmaster_planner.request import Request
from loadmaster_registry.records import Collection, CollectionType, DatasetType
from loadmaster_registry.store import Registry
from loadmaster_registry.universe import Universe, build_universe
from small_worlds import examples

Row = dict[str, int]
VALUES = (0, 1, 2)
RUNS = ("one", "two", "three")


@dataclass(frozen=True)
class Survey:
    """A universe of its own, its records, and the existing datasets of two types by RUN."""

    universe: Universe
    records: Mapping[str, list[Row]]
    held: Mapping[str, Mapping[str, list[Row]]]  # type → run → data IDs
    dimensions: Mapping[str, tuple[str, ...]]  # of these types


@st.composite
def universes(draw: st.DrawFn) -> Universe:
    """Draw dimensions that require and imply earlier ones, and tables that link two of them."""
    elements: dict[str, Any] = {}
    for i in range(draw(st.integers(2, 5))):
        names = [f"d{k}" for k in range(i)]
        some = st.lists(st.sampled_from(names), unique=True, max_size=2) if names else st.just([])
        requires = draw(some | st.just([]))
        known = {d for name in requires for d in everything(elements, name)}
        implies: set[str] = set()
        for name in draw(some):  # nothing both required and implied: its value would be told twice
            if not known & everything(elements, name):
                implies |= needed(elements, name)
        elements[f"d{i}"] = {"key": {"id": "int"}, "requires": requires, "implies": sorted(implies)}
    pairs = [(a, b) for a in elements for b in elements if a < b]
    for n, (a, b) in enumerate(draw(st.lists(st.sampled_from(pairs), unique=True, max_size=2))):
        elements[f"link{n}"] = {"requires": [a, b], "always_join": True}
    document = {
        "namespace": "drawn",
        "version": 1,
        "skypix": {"common": "htm7", "systems": {"htm": 24}},
        "spatial_families": {},
        "temporal_families": {},
        "elements": elements,
    }
    return build_universe([("drawn", document)])


def needed(elements: Mapping[str, Any], name: str) -> set[str]:
    """Return a dimension and all that it requires."""
    return {name}.union(*(needed(elements, other) for other in elements[name]["requires"]))


def everything(elements: Mapping[str, Any], name: str) -> set[str]:
    """Return a dimension and all that follows from it."""
    more = (*elements[name]["requires"], *elements[name]["implies"])
    return {name}.union(*(everything(elements, other) for other in more))


@st.composite
def surveys(draw: st.DrawFn) -> Survey:
    universe = draw(universes())
    records: dict[str, list[Row]] = {}
    for element in universe.elements.values():
        others = [d for d in element.required if d != element.name]
        possible = joined_records(universe, records, others)
        if element.is_dimension:
            possible = [row | {element.name: v} for row, v in product(possible, VALUES)]
        keys = draw(st.lists(st.sampled_from(possible), unique_by=repr, max_size=5)) if possible else []
        records[element.name] = []
        for key in keys:
            implied = joined_records(universe, records, element.implied)
            implied = [row for row in implied if all(key.get(d, v) == v for d, v in row.items())]
            if implied or not element.implied:
                chosen = draw(st.sampled_from(implied)) if element.implied else {}
                own = (*element.required, *element.implied)
                records[element.name].append({d: (key | chosen)[d] for d in own})
    names = st.lists(st.sampled_from(universe.dimensions), unique=True, min_size=1, max_size=3)
    dimensions = {f"in{n}": tuple(draw(names)) for n in range(2)}
    held = {}
    for name, own in dimensions.items():
        required = universe.group(own).required
        ids = distinct(joined_records(universe, records, own), required)
        some = st.lists(st.sampled_from(ids), unique_by=repr) if ids else st.just([])
        held[name] = {run: draw(some) for run in RUNS}
    return Survey(universe, records, held, dimensions)


@st.composite
def pipelines(draw: st.DrawFn, survey: Survey) -> Pipeline:
    there, tasks = dict(survey.dimensions), {}
    names = st.lists(st.sampled_from(survey.universe.dimensions), unique=True, max_size=3)
    for i in range(draw(st.integers(1, 3))):
        read = draw(st.lists(st.sampled_from(sorted(there)), min_size=1, max_size=2, unique=True))
        inputs = [
            Connection(n, "input", n, "Text", there[n], multiple=True, minimum=draw(st.integers(0, 2)))
            for n in read
        ]
        dimensions = tuple(draw(names))
        made = Connection("made", "output", f"made{i}", "Text", dimensions)
        tasks[f"task{i}"] = TaskNode(f"task{i}", dimensions, (*inputs, made), command="true")
        there[made.dataset_type] = dimensions
    return Pipeline("drawn", None, tasks)


# ------------------------------------------------------------------------------------------ slow and obvious


def joined_records(universe: Universe, records: Mapping[str, list[Row]], names: Any) -> list[Row]:
    group = set(universe.group(names).names)
    rows: list[Row] = [{}]
    for element in universe.elements.values():
        if element.name in group or (element.always_join and set(element.required) <= group):
            rows = joined(rows, records.get(element.name, []))
    return rows


def joined(rows: list[Row], others: list[Row]) -> list[Row]:
    return [a | b for a in rows for b in others if all(a.get(k, v) == v for k, v in b.items())]


def distinct(rows: list[Row], names: tuple[str, ...]) -> list[Row]:
    return [
        dict(zip(names, key, strict=True)) for key in {tuple(row[d] for d in names): None for row in rows}
    ]


def slow_plan(survey: Survey, pipeline: Pipeline, searched: list[str], clause: tuple[str, str, int]) -> Any:
    universe, result = survey.universe, {}
    optional = {c.dataset_type for t in pipeline.tasks.values() for c in t.inputs if not c.minimum}

    def key(row: Row, names: Any) -> tuple[int, ...]:
        return tuple(row[d] for d in universe.group(names).required)

    for labels in pipeline.components():
        tasks = [pipeline.tasks[label] for label in labels]
        names = {d for t in tasks for d in t.dimensions} | {clause[0]}
        names |= {d for t in tasks for c in (*t.inputs, *t.outputs) for d in c.dimensions}
        rows = joined_records(universe, survey.records, names)
        rows = [r for r in rows if {"=": r[clause[0]] == clause[2], ">": r[clause[0]] > clause[2]}[clause[1]]]
        there: dict[str, dict[tuple[int, ...], str]] = {}
        for name in {c.dataset_type for t in tasks for c in t.inputs} & set(survey.held):
            there[name] = {}
            for run in reversed(searched):
                ids = survey.held[name][run]
                there[name] |= {key(row, survey.dimensions[name]): run for row in ids}
            if name not in optional:
                rows = joined(rows, [row for run in searched for row in survey.held[name][run]])
        for task in tasks:
            quanta = {}
            for data_id in {key(row, task.dimensions) for row in rows}:
                mine = [row for row in rows if key(row, task.dimensions) == data_id]
                links = [
                    {(c.dataset_type, k, there[c.dataset_type][k])
                     for k in {key(r, c.dimensions) for r in mine} if k in there.get(c.dataset_type, {})}
                    for c in task.inputs
                ]  # fmt: skip
                if all(len(found) >= c.minimum for found, c in zip(links, task.inputs, strict=True)):
                    quanta[data_id] = frozenset[Any]().union(*links)
            for c in task.outputs:
                made = {key(r, c.dimensions) for r in rows if key(r, task.dimensions) in quanta}
                there[c.dataset_type] = dict.fromkeys(made, "out")
            result[task.label] = quanta
    return result


# ------------------------------------------------------------------------------------------ the comparison


def register(survey: Survey, path: Any) -> Registry:
    registry = Registry.create(f"sqlite:///{path}", survey.universe)
    numbers = count(1)
    with registry.transaction() as txn:
        for element in survey.universe.elements.values():
            if rows := survey.records[element.name]:
                txn.insert_records(element.name, pl.DataFrame(rows))
        for run in RUNS:
            txn.register_collection(Collection(run, CollectionType.RUN))
        for name, dimensions in survey.dimensions.items():
            txn.register_dataset_type(DatasetType(name, survey.universe.group(dimensions), "Text"))
            for run, rows in survey.held[name].items():
                if rows:
                    ids = [UUID(int=next(numbers)).bytes for _ in rows]
                    frame = pl.DataFrame(rows).with_columns(
                        pl.Series("id", ids), pl.lit("there").alias("url")
                    )
                    txn.insert_datasets(name, run, frame)
    return registry


def told(plan: Plan) -> dict[str, Any]:
    dimensions = {t.label: t.dimensions for t in plan.header.tasks}
    types = {t.name: t.dimensions for t in plan.header.types}
    result: dict[str, Any] = {label: {} for label in dimensions}
    for job in plan.jobs():
        for q in job.quanta:
            inputs = {
                (d.dataset_type, tuple(d.data_id[k] for k in types[d.dataset_type]), d.run)
                for datasets in q.inputs.values()
                for d in datasets
            }
            result[q.task][tuple(q.data_id[k] for k in dimensions[q.task])] = frozenset(inputs)
    return result


@settings(
    max_examples=examples(100),
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=set(Phase) - {Phase.shrink},
)
@given(st.data())
def test_over_any_universe_a_plan_is_what_nested_loops_give(
    tmp_path_factory: Any, data: st.DataObject
) -> None:
    survey = data.draw(surveys())
    pipeline = data.draw(pipelines(survey))
    searched = data.draw(st.lists(st.sampled_from(RUNS), unique=True, min_size=1))
    named = data.draw(st.sampled_from(survey.universe.dimensions))
    clause = (named, data.draw(st.sampled_from("=>")), data.draw(st.sampled_from(VALUES)))
    with register(survey, tmp_path_factory.mktemp("universe") / "registry.sqlite3") as registry:
        where = f"{clause[0]} {clause[1]} {clause[2]}"
        request = Request(tuple(searched), "out", where=where, allow_partial_gather=True)
        assert told(make_plan(registry, pipeline, request)) == slow_plan(survey, pipeline, searched, clause)
