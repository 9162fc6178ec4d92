"""What a registry holds of datasets beside their data IDs: files, origin, the collections that show them; in bulk."""

from collections.abc import Sequence

import polars as pl
import sqlalchemy as sa

from .frames import read, replaced
from .provenance import read_of
from .snapshot import Snapshot


def stored(now: Snapshot, dataset: pl.Series | None = None) -> pl.DataFrame:
    """Return all that is recorded of some datasets, or of all, in order of their rows.

    Returns
    -------
    rows : DataFrame
        ``dataset`` (Int64), ``id`` (Binary, uuid bytes), ``dataset_type``, ``run`` (names), ``quantum`` (Binary;
        null where it came from outside), and of its file ``url``, ``size_bytes``, ``checksum``, ``content``,
        ``created`` (null without one).
    """
    d, f = now.schema.dataset, now.schema.file
    facts = (f.c.url, f.c.size_bytes, f.c.checksum, f.c.content, f.c.created)
    query = sa.select(
        d.c.id.label("dataset"), d.c.uuid.label("id"), d.c.dataset_type, d.c.run, d.c.quantum, *facts
    )
    query = query.join_from(d, f, f.c.dataset == d.c.id, isouter=True)
    found = (
        read(now.connection, query)
        if dataset is None
        else read_of(now.connection, query, d.c.id, dataset, "dataset")
    )
    types = {t.id: t.type.name for t in now.stored_types.values()}
    return found.with_columns(
        replaced("dataset_type", types, pl.String), replaced("run", now.run_names, pl.String)
    ).sort("dataset")


def holders(now: Snapshot, dataset: pl.Series) -> pl.DataFrame:
    """Return the TAGGED and CALIBRATION collections that hold some datasets: ``dataset``, ``collection`` (name)."""
    names = {number: name for name, number in now.catalog.ids.items()}
    tables = {t.tables.tag.name: t.tables for t in now.stored_types.values()}.values()
    parts = [pl.DataFrame(schema={"dataset": pl.Int64, "collection": pl.Int64})]
    for table in (table for group in tables for table in (group.tag, group.calib)):
        query = sa.select(table.c.dataset, table.c.collection).distinct()
        parts.append(read_of(now.connection, query, table.c.dataset, dataset, "dataset"))
    found = pl.concat(parts).with_columns(replaced("collection", names, pl.String))
    return found.sort("dataset", "collection")


def files(now: Snapshot, dataset: pl.Series | None = None) -> pl.DataFrame:
    """Return all files of some datasets, or of all, in order of datasets.

    Returns
    -------
    files : DataFrame
        ``dataset``, ``id``, ``dataset_type``, ``run``, ``part`` (empty for the first file), ``url``, ``size_bytes``,
        ``checksum``.
    """
    names = ("dataset", "id", "dataset_type", "run", "part", "url", "size_bytes", "checksum")
    all_rows = stored(now, dataset)
    whole = all_rows.filter(pl.col("url").is_not_null()).with_columns(part=pl.lit(""))
    part = now.schema.dataset_part
    query = sa.select(
        part.c.dataset, part.c.name.label("part"), part.c.url, part.c.size_bytes, part.c.checksum
    )
    parts = (
        read(now.connection, query)
        if dataset is None
        else read_of(now.connection, query, part.c.dataset, dataset, "dataset")
    )
    owners = all_rows.select("dataset", "id", "dataset_type", "run")
    with_owners = parts.join(owners, on="dataset").select(names)
    return pl.concat([whole.select(names), with_owners]).sort("dataset", "part")


def packed(now: Snapshot, run: str) -> list[str]:
    """Return the URLs of a run's datasets, and their parts, that are ranges of larger files."""
    d, number = now.schema.dataset, now.catalog.ids[run]
    found: list[str] = []
    for table in (now.schema.file, now.schema.dataset_part):
        query = sa.select(table.c.url).join_from(d, table, table.c.dataset == d.c.id)
        found += now.connection.execute(query.where(d.c.run == number, table.c.url.contains("#"))).scalars()
    return found


def trash(now: Snapshot) -> pl.DataFrame:
    """Return the files that wait to be taken away: ``url``, ``signature``, ``since``."""
    return read(now.connection, sa.select(now.schema.trash)).sort("url")


def tombstones(now: Snapshot, ids: pl.Series) -> pl.DataFrame:
    """Return what is remembered of removed datasets among some uuids (Binary): all columns of `tombstone`."""
    table = now.schema.tombstone
    return read_of(now.connection, sa.select(table), table.c.uuid, ids, "uuid").sort("uuid")


def in_runs(now: Snapshot, runs: Sequence[int]) -> pl.Series:
    """Return the datasets of some RUNs, by their rows, in order."""
    d = now.schema.dataset
    query = sa.select(d.c.id, d.c.run)
    wanted = pl.Series(runs, dtype=pl.Int64)
    found = (
        read(now.connection, query.where(d.c.run.in_(runs)))
        if len(runs) == 1
        else read(now.connection, query)
    )
    return found.filter(pl.col("run").is_in(wanted.implode()))["id"].sort()
