"""A plan as Parquet tables for any program that reads them: quanta, datasets and edges, with values instead of codes.

In the folder, NAME percent-encoded where a file name could not hold it:

``plan.json``
    What `plan_facts` says.
``quanta/LABEL/000.parquet``, …
    ``job``, ``id``, a column a dimension.
``datasets/TYPE/000.parquet``, …
    ``id``, a column a dimension, ``exists``, ``run``, ``url``, ``path``, ``size_bytes``, ``checksum``.
``edges/LABEL/000.parquet``, …
    ``connection``, ``is_output``, ``quantum`` and ``dataset`` (ids).

Each file has up to a million rows, so that memory is bounded whatever the plan's size.
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import polars as pl
from loadmaster_registry.errors import PlanError

from .header import ConnectionFacts
from .plan import Plan
from .show import datasets_page, plan_facts, quanta_page

_ROWS = 1 << 20


def write_parquet(plan: Plan, folder: Path) -> None:
    """Write all of a plan to a new folder, which appears complete or not at all.

    Raises
    ------
    PlanError
        If there is such a file or folder already.
    """
    if folder.exists():
        raise PlanError(
            what="the folder is there already",
            where=str(folder),
            why="nothing is ever overwritten",
            todo="name a new folder, or remove this one",
        )
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        part.mkdir(parents=True)
        (part / "plan.json").write_text(json.dumps(plan_facts(plan), indent=1))
        for place, frames in _tables(plan):
            (part / place).mkdir(parents=True)
            for number, frame in enumerate(frames):
                frame.write_parquet(part / place / f"{number:03d}.parquet")
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _tables(plan: Plan) -> Iterator[tuple[str, Iterator[pl.DataFrame]]]:
    for task in plan.header.tasks:
        pages = (quanta_page(plan, task.label, *page) for page in _pages(task.quanta))
        yield f"quanta/{_file_name(task.label)}", pages
    for t in plan.header.types:
        yield (
            f"datasets/{_file_name(t.name)}",
            (datasets_page(plan, t.name, *page) for page in _pages(t.count)),
        )
    for task in plan.header.tasks:
        yield f"edges/{_file_name(task.label)}", _edges(plan, task.label, task.connections)


def _edges(plan: Plan, label: str, connections: tuple[ConnectionFacts, ...]) -> Iterator[pl.DataFrame]:
    quanta = quanta_page(plan, label)["id"]
    for connection in connections:
        if not connection.edges:
            continue
        datasets = datasets_page(plan, connection.dataset_type)["id"]
        edges = plan.edges(label, connection.name)
        for start, stop in _pages(connection.edges):
            page = edges[start:stop]
            yield pl.DataFrame(
                {
                    "connection": pl.Series([connection.name]).new_from_index(0, page.height),
                    "is_output": pl.Series([connection.is_output]).new_from_index(0, page.height),
                    "quantum": quanta.gather(page["quantum"]),
                    "dataset": datasets.gather(page["dataset"]),
                }
            )


def _pages(rows: int) -> Iterator[tuple[int, int]]:
    """Return the ranges of rows that go into one file each; an empty table has one file too."""
    starts = range(0, max(rows, 1), _ROWS)
    return ((start, min(start + _ROWS, rows)) for start in starts)


def _file_name(name: str) -> str:
    return quote(name, safe="").replace(".", "%2E") if name.strip(".") != name else quote(name, safe="")
