"""What a person can ask of a plan, read into what the planner takes."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Required, TypedDict

from loadmaster_pipelines.batch import Clustering
from loadmaster_pipelines.batch_file import read_clustering
from loadmaster_planner.data_id_tables import DataIdTable, read_data_id_table
from loadmaster_planner.overrides import read_overrides
from loadmaster_planner.request import Request, SkipExisting
from loadmaster_registry.store import Registry

Collections = str | Sequence[str]  # one name, or several in search order


class Asked(TypedDict, total=False):
    """What `Repo.plan` takes beside the pipeline.

    inputs : str or sequence of str
        Collections in search order.
    output : str
        CHAINED collection that will show the outputs before the inputs.
    output_run : str
        RUN for the outputs; ``output/<time>`` by default.
    where, bind
        Which data IDs, everywhere in the plan, and the values of ``:name`` in it and in `target`.
    target, target_type : str
        Which end products, like `where`, and of which dataset type (that of the last tasks by default): all that
        they need is planned, every gather complete, and nothing else.
    tables : sequence of DataIdTable or path
        Only the data IDs in these tables (CSV, Parquet, or whatever Astropy reads).
    overrides : path
        A table of calibrations that are to be used whatever is valid.
    include_flagged : bool
        Let observations with a flag take part.
    allow_partial_gather : bool
        Accept that `where` or a table leaves tasks that gather with a part of their inputs.
    skip_existing : {"exists", "provenance", "content"}
        Leave out what is done: its outputs exist; and were made by the same code and configuration from the same
        datasets; or from datasets with the same content.
    skip_existing_in : str or sequence of str
        Where that may be.
    repair : str or sequence of str
        Collections in which what flagged observations went into is made anew, and nothing else.
    clusters : path or Clustering
        Which quanta run together in a job; by default each is a job of its own.
    elide : sequence of str
        Dataset types that are handed on in memory inside their jobs, and never stored.
    store_after_all : bool
        Where another job reads such a type, store it instead of refusing the plan.
    formats : path
        A file that says in which formats outputs are written (see `loadmaster_pipelines.format_file`); it counts
        before that of the repository.
    select, config, trusted
        Which tasks, with what configuration; see `loadmaster_pipelines.loader.load_pipeline`.
    """

    inputs: Required[Collections]
    output: Required[str]
    output_run: str | None
    where: str
    bind: Mapping[str, object] | None
    target: str
    target_type: str
    tables: Sequence[DataIdTable | str | Path]
    overrides: str | Path | None
    include_flagged: bool
    allow_partial_gather: bool
    skip_existing: SkipExisting | None
    skip_existing_in: Collections
    repair: Collections
    clusters: Clustering | str | Path | None
    elide: Sequence[str]
    store_after_all: bool
    formats: str | Path | None
    select: str | None
    config: Sequence[str]
    trusted: bool


def format_files(asked: Asked, ours: Sequence[Path]) -> list[str | Path]:
    """Return the formats files that count, the repository's first and what is asked for last."""
    own = asked.get("formats")
    return [*ours, *([own] if own else [])]


def names_of(names: Collections) -> tuple[str, ...]:
    """Return one name or several as a tuple."""
    return (names,) if isinstance(names, str) else tuple(names)


def request_of(registry: Registry, asked: Asked, output_run: str) -> Request:
    """Read the tables and overrides that are asked for; where done work may be is the output by default."""
    skip_existing = asked.get("skip_existing")
    known = tuple(c.name for c in registry.collections(asked["output"]) if c.name == asked["output"])
    within = names_of(asked.get("skip_existing_in", ())) or known
    with registry.snapshot() as now:
        path = asked.get("overrides")
        overrides = read_overrides(path, now) if path is not None else ()
    return Request(
        inputs=names_of(asked["inputs"]),
        output_run=output_run,
        output=asked["output"],
        where=asked.get("where", ""),
        bind=dict(asked.get("bind") or {}),
        tables=tuple(_table(table, registry) for table in asked.get("tables", ())),
        target=asked.get("target", ""),
        target_type=asked.get("target_type", ""),
        allow_partial_gather=asked.get("allow_partial_gather", False),
        include_flagged=asked.get("include_flagged", False),
        overrides=overrides,
        skip_existing=skip_existing,
        skip_existing_in=within if skip_existing else (),
        repair=names_of(asked.get("repair", ())),
    )


def _table(table: DataIdTable | str | Path, registry: Registry) -> DataIdTable:
    return table if isinstance(table, DataIdTable) else read_data_id_table(table, registry.universe)


def clustering_of(asked: Asked) -> Clustering:
    """Read how quanta become jobs."""
    clusters = asked.get("clusters")
    read = (
        clusters
        if isinstance(clusters, Clustering)
        else read_clustering(clusters)
        if clusters
        else Clustering()
    )
    more = tuple(asked.get("elide", ()))
    return replace(
        read,
        elide=tuple(dict.fromkeys((*read.elide, *more))),
        store_after_all=read.store_after_all or asked.get("store_after_all", False),
    )
