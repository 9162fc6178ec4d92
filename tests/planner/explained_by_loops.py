"""What restricts a small survey, piece by piece, by nested loops: the slow twin of explanations."""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from itertools import product
from typing import Any

import polars as pl
from hypothesis import strategies as st
from loadmaster_pipelines.pipeline import Pipeline, TaskNode
from loadmaster_planner.data_id_tables import DataIdTable
from loadmaster_planner.request import Request
from small_worlds import CONDITIONS, NAMED, UNIVERSE, Record, World, joined, key_of, on_the_same_sky

CLAUSES: dict[str, Callable[[Record], bool]] = {
    **CONDITIONS,
    "exposure = 99": lambda row: row["exposure"] == 99,
    "visit = 12": lambda row: row["visit"] == 12,
    "detector = 1": lambda row: row["detector"] == 1,
    "tract = 1": lambda row: row["tract"] == 1,
}
ABOUT = {**NAMED, "exposure = 99": {"exposure"}, "visit = 12": {"visit"}, "detector = 1": {"detector"},
         "tract = 1": {"tract"}}  # fmt: skip
TABLE = DataIdTable("listed", pl.DataFrame({"visit": [11, 13]}))
OVERLAP = "overlap"
RAW = "raw"
LISTED = "table"
LINKS = "links"


@dataclass(frozen=True)
class Asked:
    """A request in pieces."""

    clauses: tuple[str, ...]
    has_table: bool

    def request(self) -> Request:
        where = " AND ".join(["instrument='I'", "skymap='S'", *(f"({clause})" for clause in self.clauses)])
        tables = (TABLE,) if self.has_table else ()
        return Request(
            ("raw", "calib"),
            "out",
            where=where if self.clauses else "",
            tables=tables,
            allow_partial_gather=True,
        )


@st.composite
def asked(draw: st.DrawFn) -> Asked:
    clauses = draw(st.lists(st.sampled_from(sorted(CLAUSES)), max_size=3, unique=True))
    return Asked(tuple(clauses), draw(st.booleans()))


@dataclass(frozen=True)
class Tasks:
    """Tasks that hold together."""

    members: tuple[TaskNode, ...]
    reads_raw: bool  # and some task cannot do without
    is_restricted: bool  # to data IDs with a raw: no task of the pipeline can do without

    @property
    def labels(self) -> set[str]:
        return {task.label for task in self.members}


def components(pipeline: Pipeline) -> list[Tasks]:
    minima = minima_of_raws(pipeline.tasks.values())
    found = []
    for labels in pipeline.components():
        members = tuple(pipeline.tasks[label] for label in labels)
        own = minima_of_raws(members)
        found.append(Tasks(members, any(own), bool(own) and all(minima)))
    return found


def minima_of_raws(tasks: Iterable[TaskNode]) -> list[int]:
    return [c.minimum for t in tasks for c in t.inputs if c.dataset_type == RAW]


def pieces(tasks: Tasks, asked: Asked) -> list[str]:
    """Return all that restricts some tasks, in the order in which it is told."""
    group = group_of(tasks, asked.clauses, asked.has_table)
    found = [*asked.clauses]
    found += [LISTED] if asked.has_table else []
    found += [OVERLAP] if {"visit", "tract"} <= group else []
    return found + ([RAW] if tasks.reads_raw else [])


def group_of(tasks: Tasks, clauses: Iterable[str], has_table: bool) -> set[str]:
    names = {d for t in tasks.members for d in t.dimensions}
    names |= {d for t in tasks.members for c in (*t.inputs, *t.outputs) for d in c.dimensions}
    names |= {d for clause in clauses for d in ABOUT[clause]} | ({"visit"} if has_table else set())
    names |= {"instrument", "skymap"} if clauses else set()
    return set(UNIVERSE.group(names))


def rows_with(world: World, tasks: Tasks, held: Collection[str], links: bool = True) -> list[Record]:
    """Return all combinations of records that agree and fulfil what is `held`."""
    clauses = [piece for piece in held if piece in CLAUSES]
    group = group_of(tasks, clauses, LISTED in held)
    rows: list[Record] = [{}]
    for element in UNIVERSE.elements.values():
        is_link = element.always_join and set(element.required) <= group
        if element.name in group or (links and is_link):
            rows = joined(rows, world.records.get(element.name, []))
    for clause in clauses:
        rows = [row for row in rows if CLAUSES[clause](row)]
    if LISTED in held:
        rows = [row for row in rows if row["visit"] in (11, 13)]
    if RAW in held and tasks.is_restricted:
        rows = joined(rows, world.raws)
    if OVERLAP in held and {"visit", "tract"} <= group:
        rows = [row for row in rows if on_the_same_sky(world, row)]
    return rows


def has_quanta_without(world: World, tasks: Tasks, asked: Asked, removed: Collection[str]) -> bool:
    """Whether some quantum has enough inputs; raws are taken as if they were all there where that is removed."""
    rows = rows_with(world, tasks, [piece for piece in pieces(tasks, asked) if piece not in removed])
    frames = product(world.records["exposure"], world.records["detector"])
    raws = [e | d for e, d in frames] if RAW in removed else world.raws
    return any(quanta_of(tasks, rows, raws).values())


def quanta_of(tasks: Tasks, rows: list[Record], raws: list[Record]) -> dict[str, set[Any]]:
    """Return for each task the data IDs with enough inputs."""
    there = {RAW: {key_of(r, ("exposure", "detector")) for r in raws}}
    found: dict[str, set[Any]] = {}
    for task in tasks.members:
        found[task.label] = set()
        for data_id in {key_of(row, task.dimensions) for row in rows}:
            mine = [row for row in rows if key_of(row, task.dimensions) == data_id]
            inputs = (
                {key_of(r, c.dimensions) for r in mine} & there.get(c.dataset_type, set())
                for c in task.inputs
            )
            if all(len(keys) >= c.minimum for keys, c in zip(inputs, task.inputs, strict=True)):
                found[task.label].add(data_id)
                for c in task.outputs:
                    there.setdefault(c.dataset_type, set()).update(key_of(r, c.dimensions) for r in mine)
    return found
