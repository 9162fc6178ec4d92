"""Datasets and collections go: their rows at once, their files by way of the trash.

A file is trashed in the transaction in which its last row goes, and taken away after it. So a crash between the two
leaves an entry in the trash, never a row without a file.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl
import sqlalchemy as sa

from . import holdings, needs
from .frames import delete, insert, read, read_matching
from .leases import forget_expired
from .provenance import read_of
from .records import CollectionType
from .retention import policies
from .snapshot import DATASETS, Snapshot, members_of
from .transaction import Transaction

_REMOVED = "~removed-"  # in the name of a RUN that was removed: its own is free again


@dataclass(frozen=True, slots=True)
class Removed:
    """What went from the registry, and what of it goes from storage."""

    n_datasets: int
    n_files: int  # that go with them; others are not the repository's own, or still used
    n_bytes: int  # of these, as far as sizes are known
    n_tombstones: int


@dataclass(frozen=True)
class Garbage:
    """What nobody needs any more."""

    collections: tuple[str, ...]  # that have expired
    kept: dict[str, list[str]]  # that have expired too, but somebody needs them: who
    datasets: pl.Series  # of RUNs that are removed, or to be
    copies: pl.DataFrame  # at other destinations, whose time is over


def garbage(now: Snapshot, who: str, at: str) -> Garbage:
    """Find the collections that have expired, and the datasets that no collection and no lease uses any more."""
    due = policies(now).filter(pl.col("expires") <= at)["name"].to_list()
    kept = {}
    for name in due:
        owner = policies(now, name)["owner"][0] or who  # its own chains just lose it
        by = needs.of_collection(now, name, owner, at, due)
        if by:
            kept[name] = by
    going = [name for name in due if name not in kept]
    runs = [name for name in going if now.catalog[name].type is CollectionType.RUN]
    removed = needs.members(now, [*runs, *now.catalog.removed_runs.values()])
    held = holdings.holders(now, removed).filter(~pl.col("collection").is_in(going))["dataset"]
    leased = needs.of_leases(now, removed, at)["dataset"]
    free = removed.filter(~removed.is_in(pl.concat([held, leased]).implode()))
    c = now.schema.dataset_copy
    copies = read(now.connection, sa.select(c).where(c.c.until <= at))
    return Garbage(tuple(going), kept, free, copies)


def remembered(now: Snapshot, dataset: pl.Series) -> pl.Series:
    """Return which of some datasets must leave a tombstone when they go: something that stays was made from them."""
    rows = holdings.stored(now, dataset).select("dataset", "id", "quantum")
    i, d, t = now.schema.quantum_input, now.schema.dataset, now.schema.tombstone
    edges = read_of(
        now.connection, sa.select(i.c.quantum, i.c.dataset_id.label("id")), i.c.dataset_id, rows["id"], "id"
    )
    made = sa.select(d.c.id.label("dataset"), d.c.quantum)
    staying = read_of(now.connection, made, d.c.quantum, edges["quantum"], "quantum").join(
        rows, on="dataset", how="anti"
    )
    dead = read_of(now.connection, sa.select(t.c.quantum), t.c.quantum, edges["quantum"], "quantum")
    live = pl.concat([staying.select("quantum"), dead]).unique()
    found = rows.clear()
    while live.height:
        new = (
            edges.join(live, on="quantum", how="semi").join(found, on="id", how="anti").select("id").unique()
        )
        reached = rows.join(new, on="id", how="semi")
        found = pl.concat([found, reached])
        live = reached.select("quantum").drop_nulls().unique()
    return found["dataset"]


def own_files(now: Snapshot, dataset: pl.Series) -> pl.DataFrame:
    """Return the files that are the repository's own and that only some datasets use.

    Returns
    -------
    files : DataFrame
        ``path``, ``size_bytes`` (of what the datasets have in it), ``last`` (the last of the datasets that uses it).
    """
    own = holdings.files(now, dataset).select("dataset", "url", "size_bytes")
    own = own.filter(~pl.col("url").str.contains(r"^/|://"))
    copies = now.copies(dataset).select("dataset", "url", size_bytes=pl.lit(0, dtype=pl.Int64))
    used = pl.concat([own, copies]).with_columns(path=path_of("url"))
    files = used.group_by("path").agg(pl.col("size_bytes").sum(), n=pl.len(), last=pl.col("dataset").max())
    if files.is_empty():
        return files.drop("n")
    everywhere = _references(now).join(files, on="path", how="semi").group_by("path").agg(n_all=pl.len())
    unshared = files.join(everywhere, on="path").filter(pl.col("n") == pl.col("n_all"))
    return unshared.select("path", "size_bytes", "last").sort("path")


def remove_datasets(
    write: Transaction, dataset: pl.Series, *, why: str, files: pl.DataFrame, since: int, tombs: pl.Series
) -> Removed:
    """Remove datasets, whoever needs them; what is removed already is passed over.

    Parameters
    ----------
    why : str
        For their tombstones.
    files : DataFrame
        Of `own_files`, those that no dataset uses when these are gone, with ``signature``.
    since : int
        `highest` when `own_files` looked: what was registered later may use one of them after all.
    tombs : Series
        Which of the datasets leave a tombstone.
    """
    rows = holdings.stored(write, dataset)
    buried = rows.filter(pl.col("dataset").is_in(tombs.implode()))
    _bury(write, buried, why)
    _keep_numbers(write)
    _delete_rows(write, rows)
    # What another process removed meanwhile is not ours to take away: its place may be a new file's by now.
    own = files.filter(pl.col("last").is_in(rows["dataset"].implode()))
    free = own.join(_references(write, since), on="path", how="anti")
    _trash(write, free.select("signature", url="path"))
    return Removed(rows.height, free.height, int(free["size_bytes"].sum()), buried.height)


def highest(now: Snapshot) -> int:
    """Return the number of the newest dataset; those to come have higher ones."""
    return int(now.connection.execute(sa.select(sa.func.max(now.schema.dataset.c.id))).scalar() or 0)


def remove_copies(write: Transaction, copies: pl.DataFrame, signatures: pl.DataFrame) -> None:
    """Forget copies at other destinations and trash their files.

    Parameters
    ----------
    copies, signatures : DataFrame
        As `Garbage` has them; ``url``, ``signature``.
    """
    delete(write.connection, write.schema.dataset_copy, copies.select("dataset", "destination"))
    _trash(write, signatures.join(_references(write), left_on="url", right_on="path", how="anti"))


def remove_collections(write: Transaction, names: Sequence[str]) -> None:
    """Remove collections, whoever needs them; chains lose them.

    The datasets of a RUN stay as long as other collections or leases use them; `garbage` names those that nobody does.
    """
    for name in names:
        for parent in needs.parents(write, name):
            children = [child for child in write.catalog[parent].children if child != name]
            write.set_chain(parent, children)
    for name in names:
        collection, number = write.catalog[name], write.catalog.ids[name]
        key = pl.DataFrame({"collection": [number]})
        for tables in {t.tables.tag.name: t.tables for t in write.stored_types.values()}.values():
            for table in (tables.tag, tables.calib):
                delete(write.connection, table, key)
        delete(write.connection, write.schema.chain, key.rename({"collection": "parent"}))
        delete(write.connection, write.schema.planned_run, key.rename({"collection": "run"}))
        write.touch(members_of(number))
        table = write.schema.collection
        if collection.type is CollectionType.RUN:
            gone = {"removed": write.now, "name": f"{name}{_REMOVED}{number}-{write.now}"}
            write.connection.execute(sa.update(table).where(table.c.id == number).values(gone))
        else:
            delete(write.connection, table, pl.DataFrame({"id": [number]}))
        write.forget_catalog()


def drop_empty_runs(write: Transaction) -> list[str]:
    """Forget removed RUNs that have no datasets, with their quanta; return the names that nobody has now.

    As long as a tombstone leads to one of their quanta, so that lineage passes through it, they stay.
    """
    forget_expired(write)
    d, q, t = write.schema.dataset, write.schema.quantum, write.schema.tombstone
    dropped = []
    for number, name in write.catalog.removed_runs.items():
        has = [sa.select(d.c.id).where(d.c.run == number)]
        has.append(sa.select(q.c.id).join(t, t.c.quantum == q.c.id).where(q.c.run == number))
        leases = write.schema.lease
        has.append(sa.select(leases.c.id).where(leases.c.run == number))
        if any(write.connection.execute(query.limit(1)).first() for query in has):
            continue
        inputs = write.schema.quantum_input
        own = sa.select(q.c.id).where(q.c.run == number)
        write.connection.execute(sa.delete(inputs).where(inputs.c.quantum.in_(own)))
        write.connection.execute(sa.delete(q).where(q.c.run == number))
        delete(write.connection, write.schema.collection, pl.DataFrame({"id": [number]}))
        dropped.append(name.rpartition(_REMOVED)[0])
    write.forget_catalog()
    return [name for name in dropped if name not in write.catalog.collections]


def empty(write: Transaction, urls: Sequence[str]) -> None:
    """Forget entries of the trash: their files are gone."""
    delete(write.connection, write.schema.trash, pl.DataFrame({"url": urls}, schema={"url": pl.String}))


def path_of(url: str) -> pl.Expr:
    """Return the file that a URL names, without the range in it."""
    return pl.col(url).str.replace(r"#\d+\+\d+$", "")


def _references(now: Snapshot, since: int = 0) -> pl.DataFrame:
    """Return the file of each row of datasets above a number, once for each time that one names it: ``path``."""
    tables = (now.schema.file, now.schema.dataset_part, now.schema.dataset_copy)
    queries = (sa.select(table.c.url).where(table.c.dataset > since) for table in tables)
    return pl.concat([read(now.connection, query) for query in queries]).select(path=path_of("url"))


def _keep_numbers(write: Transaction) -> None:
    """Remember the highest number of a dataset: it is never given to another one."""
    table = write.schema.change
    key = pl.DataFrame({"area": [DATASETS]})
    before = write.connection.execute(sa.select(table.c.number).where(table.c.area == DATASETS)).scalar() or 0
    delete(write.connection, table, key)
    insert(write.connection, table, key.with_columns(number=pl.lit(max(before, highest(write)))))


def _trash(write: Transaction, files: pl.DataFrame) -> None:
    new = files.filter(pl.col("signature") != "").with_columns(since=pl.lit(write.now))
    delete(write.connection, write.schema.trash, new.select("url"))
    insert(write.connection, write.schema.trash, new)


def _delete_rows(write: Transaction, rows: pl.DataFrame) -> None:
    """Delete datasets from all tables; what stays changes with them is noted."""
    ids = write.catalog.ids
    numbers = {name: number for number, name in write.run_names.items()}
    changed = {numbers[run] for run in rows["run"].unique()}
    changed |= {ids[name] for name in holdings.holders(write, rows["dataset"])["collection"].unique()}
    for number in sorted(changed):
        write.touch(members_of(number))
    delete(
        write.connection,
        write.schema.planned_run,
        pl.DataFrame({"run": sorted(changed)}, schema={"run": pl.Int64}),
    )
    for (type,), part in rows.partition_by("dataset_type", as_dict=True).items():
        tables = write.stored_types[str(type)].tables
        for table in (tables.tag, tables.calib, tables.data_id):
            delete(write.connection, table, part.select("dataset"))
    for table in (write.schema.dataset_part, write.schema.dataset_copy, write.schema.file):
        delete(write.connection, table, rows.select("dataset"))
    delete(write.connection, write.schema.dataset, rows.select(id="dataset"))


def _bury(write: Transaction, rows: pl.DataFrame, why: str) -> None:
    """Write tombstones."""
    for (type,), part in rows.partition_by("dataset_type", as_dict=True).items():
        stored = write.stored_types[str(type)]
        columns = ("dataset", *stored.dims)
        data_ids = read_matching(write.connection, stored.tables.data_id, columns, part.select("dataset"))
        named = part.join(data_ids, on="dataset")
        data_id = pl.struct(stored.dims).struct.json_encode() if stored.dims else pl.lit("{}")
        stones = named.select(
            "dataset_type", "run", "quantum", "url", uuid="id", data_id=data_id,
            who=pl.lit(write.who), deleted=pl.lit(write.now), why=pl.lit(why),
        )  # fmt: skip
        delete(write.connection, write.schema.tombstone, stones.select("uuid"))
        insert(write.connection, write.schema.tombstone, stones)
