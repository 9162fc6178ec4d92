"""Which quantum made which dataset from what: SQL for lineage in both directions, of one dataset or of many."""

from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any
from uuid import UUID

import numpy as np
import polars as pl
import sqlalchemy as sa
from numpy.typing import NDArray

from .frames import read
from .schema import Schema

QUANTUM_DIGESTS = ("code_digest", "config_digest", "environment_digest")
_AT_ONCE = 30_000  # parameters of one statement; SQLite takes 32 766
_DENSE = 4  # reading so many rows for one that is wanted costs as much as finding that one


def lineage(connection: sa.Connection, schema: Schema, id: UUID, upstream: bool) -> pl.DataFrame:
    """Follow quanta from dataset to dataset until nothing new is found; see `Snapshot.lineage`."""
    reached = _reached(connection, schema, id, upstream)
    d, t, c, q, dead = (
        schema.dataset,
        schema.dataset_type,
        schema.collection,
        schema.quantum,
        schema.tombstone,
    )
    facts = (d.c.id.label("dataset"), t.c.name.label("dataset_type"), c.c.name.label("run"), d.c.quantum)
    there = sa.select(d.c.uuid.label("id"), *facts).join_from(d, t).join(c, c.c.id == d.c.run)
    nowhere = sa.null().cast(sa.BigInteger()).label("dataset")
    gone = sa.select(dead.c.uuid.label("id"), nowhere, dead.c.dataset_type, dead.c.run, dead.c.quantum)
    known = pl.concat(
        [
            read_of(connection, there, d.c.uuid, reached["id"], "id"),
            read_of(connection, gone, dead.c.uuid, reached["id"], "id"),
        ]
    )
    tasks = read_of(
        connection, sa.select(q.c.id.label("quantum"), q.c.task), q.c.id, known["quantum"], "quantum"
    )
    named = known.join(tasks.unique("quantum"), on="quantum", how="left")  # the same in all attempts
    found = reached.join(named, on="id", how="left")
    return found.sort("dataset_type", "dataset", "id", nulls_last=True)


def quanta(connection: sa.Connection, schema: Schema, run: int) -> pl.DataFrame:
    """Return the rows of `quantum` of one run, all columns."""
    return read(connection, sa.select(schema.quantum).where(schema.quantum.c.run == run))


def makers(
    connection: sa.Connection,
    schema: Schema,
    dataset: pl.Series,
    task: str,
    digests: Mapping[str, str],
    columns: Sequence[str],
) -> pl.DataFrame:
    """Return what made some datasets; see `Snapshot.makers`."""
    d, q = schema.dataset, schema.quantum
    query = sa.select(d.c.id.label("dataset"), d.c.quantum, d.c.run).where(d.c.quantum.is_not(None))
    made = read_of(connection, query, d.c.id, dataset, "dataset")
    runs = made["run"].unique()
    found = _quanta_of_runs(connection, schema, runs, columns, q.c.task == task, *_with(schema, digests))
    return made.drop("run").join(found, on="quantum", how="inner", maintain_order="left")


def idle_quanta(
    connection: sa.Connection,
    schema: Schema,
    task: str,
    runs: Sequence[int],
    digests: Mapping[str, str],
    columns: Sequence[str],
) -> pl.DataFrame:
    """Return the quanta of a task that had no work; see `Snapshot.idle_quanta`."""
    q = schema.quantum
    asked = (q.c.task == task, q.c.status == "no_work", *_with(schema, digests))
    return _quanta_of_runs(connection, schema, pl.Series(runs, dtype=pl.Int64), columns, *asked)


def input_keys(inputs: pl.DataFrame, owner: str) -> pl.DataFrame:
    """Digest the inputs of each owner: equal where the same datasets are read by the same connections.

    Each input is mixed to 128 bits (the finaliser of splitmix64 [1]_), and those of one owner are added: so their
    order does not matter, and all owners are done at once.

    Parameters
    ----------
    inputs : DataFrame
        ``owner``, ``connection``, ``id`` (Binary, 16 bytes); distinct rows.

    Returns
    -------
    keys : DataFrame
        ``owner``, ``inputs_key`` (Binary, 16 bytes); owners without inputs have no row (their key is `NO_INPUTS`).

    References
    ----------
    .. [1] G. L. Steele, D. Lea and C. H. Flood, OOPSLA (2014) 453, doi:10.1145/2660193.2660195
    """
    rows = inputs.sort(owner)
    halves = np.frombuffer(b"".join(rows["id"].to_list()), dtype=">u8").reshape(-1, 2).astype(np.uint64)
    names = rows["connection"].unique()
    salts = {name: np.frombuffer(sha256(name.encode()).digest()[:16], dtype=">u8") for name in names}
    lanes = []
    for i in (0, 1):
        salt = rows["connection"].replace_strict(
            names, pl.Series([int(salts[n][i]) for n in names], dtype=pl.UInt64), return_dtype=pl.UInt64
        )
        lanes.append(_mixed(halves[:, i] ^ _mixed(halves[:, 1 - i] ^ salt.to_numpy())))
    owners = (
        rows[owner].rle().struct.unnest() if rows.height else pl.DataFrame({"len": [], "value": rows[owner]})
    )
    begins = np.cumsum(owners["len"].to_numpy(), dtype=np.int64) - owners["len"].to_numpy()
    sums = [np.add.reduceat(lane, begins) if begins.size else lane for lane in lanes]
    octets = np.stack(sums, axis=1).astype(">u8").tobytes()
    keys = [octets[i : i + 16] for i in range(0, len(octets), 16)]
    return pl.DataFrame([owners["value"].rename(owner), pl.Series("inputs_key", keys, dtype=pl.Binary)])


NO_INPUTS = bytes(16)


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _with(schema: Schema, digests: Mapping[str, str]) -> list[sa.ColumnElement[bool]]:
    return [schema.quantum.c[name] == digest for name, digest in digests.items()]


def _quanta_of_runs(
    connection: sa.Connection,
    schema: Schema,
    runs: pl.Series,
    columns: Sequence[str],
    *asked: sa.ColumnElement[bool],
) -> pl.DataFrame:
    q = schema.quantum
    query = sa.select(q.c.id.label("quantum"), q.c.attempt, *(q.c[name] for name in columns)).where(*asked)
    query = query if "run" in columns else query.add_columns(q.c.run)
    found = _last_attempts(read_of(connection, query, q.c.run, runs, "run"), "quantum")
    return found if "run" in columns else found.drop("run")


def inputs(connection: sa.Connection, schema: Schema, quantum: pl.Series) -> pl.DataFrame:
    """Return what some quanta read; see `Snapshot.inputs_of`."""
    i, d = schema.quantum_input, schema.dataset
    query = sa.select(
        i.c.quantum, i.c.connection, i.c.dataset_id.label("id"), d.c.id.label("dataset"), d.c.dataset_type
    ).join_from(i, d, d.c.uuid == i.c.dataset_id, isouter=True)
    return read_of(connection, query, i.c.quantum, quantum, "quantum")


def recorded(
    connection: sa.Connection, schema: Schema, task: str, data_id: str, id: UUID | None
) -> pl.DataFrame:
    """Return quanta, the last attempt at each, the newest first; see `Snapshot.recorded_quanta`."""
    q = schema.quantum
    more = (q.c.task, q.c.host, q.c.started, q.c.ended, q.c.sandbox, q.c.software)
    query = sa.select(*_quantum_columns(schema), *more)
    asked = {q.c.task: task, q.c.data_id: data_id, q.c.id: id.bytes if id else None}
    query = query.where(*(column == value for column, value in asked.items() if value))
    return _last_attempts(read(connection, query), "quantum").sort(
        "started", "quantum", descending=True, nulls_last=True
    )


def made(connection: sa.Connection, schema: Schema, dataset: pl.Series) -> pl.Series:
    """Return which datasets some quantum made; see `Snapshot.made`."""
    d = schema.dataset
    query = sa.select(d.c.id.label("dataset")).where(d.c.quantum.is_not(None))
    return read_of(connection, query, d.c.id, dataset, "dataset")["dataset"].sort()


def products(connection: sa.Connection, schema: Schema, dataset: pl.Series) -> pl.DataFrame:
    """Return all that was made from some datasets, generation by generation; see `Snapshot.products`."""
    d, i, made = schema.dataset, schema.quantum_input, schema.dataset.alias("made")
    query = (
        sa.select(d.c.id.label("source"), made.c.id.label("dataset"))
        .select_from(d)
        .join(i, i.c.dataset_id == d.c.uuid)
        .join(made, made.c.quantum == i.c.quantum)
    )
    found = pl.DataFrame(schema={"dataset": pl.Int64})
    newest = dataset.cast(pl.Int64).rename("dataset").to_frame()
    while newest.height:
        newest = read_of(connection, query, d.c.id, newest["dataset"], "source")
        newest = newest.select("dataset").unique().join(found, on="dataset", how="anti")
        found = pl.concat([found, newest])
    return found.sort("dataset")


def _quantum_columns(schema: Schema) -> list[sa.ColumnElement[Any]]:
    q = schema.quantum
    named = (q.c[name] for name in ("attempt", "run", "status", "data_id", *QUANTUM_DIGESTS))
    return [q.c.id.label("quantum"), *named]


def _last_attempts(found: pl.DataFrame, key: str) -> pl.DataFrame:
    if found["attempt"].n_unique() > 1:
        found = found.sort("attempt").unique(key, keep="last", maintain_order=True)
    return found.drop("attempt")


def read_of(
    connection: sa.Connection, query: sa.Select[Any], column: sa.Column[Any], values: pl.Series, name: str
) -> pl.DataFrame:
    """Run a query, in which `column` is called `name`, for the rows where that is one of `values`.

    Where most of a range of row ids is wanted, the range is read.
    """
    wanted = values.drop_nulls().unique().sort()
    low, high = (wanted.min(), wanted.max()) if wanted.dtype == pl.Int64 else (None, None)
    if isinstance(low, int) and isinstance(high, int) and high - low < _DENSE * wanted.len() > _AT_ONCE:
        found = read(connection, query.where(column.between(low, high)))
        return found.join(wanted.rename(name).to_frame(), on=name, how="semi", maintain_order="left")
    parts = [
        read(connection, query.where(column.in_(wanted[start : start + _AT_ONCE].to_list())))
        for start in range(0, max(1, wanted.len()), _AT_ONCE)
    ]
    return pl.concat(parts)


def _reached(connection: sa.Connection, schema: Schema, id: UUID, upstream: bool) -> pl.DataFrame:
    """Return the uuids (``id``) of all that can be reached, by generations; removed datasets are on the way too."""
    found = pl.DataFrame(schema={"id": pl.Binary})
    newest = pl.DataFrame({"id": [id.bytes]}, schema={"id": pl.Binary})
    step = _read_by if upstream else _made_from
    while newest.height:
        newest = step(connection, schema, newest["id"]).unique().join(found, on="id", how="anti")
        found = pl.concat([found, newest])
    return found


def _read_by(connection: sa.Connection, schema: Schema, made: pl.Series) -> pl.DataFrame:
    """Return what was read to make some datasets: ``id``."""
    tables, i = (schema.dataset, schema.tombstone), schema.quantum_input
    makers = [
        read_of(connection, sa.select(t.c.uuid, t.c.quantum), t.c.uuid, made, "uuid")["quantum"]
        for t in tables
    ]
    query = sa.select(i.c.quantum, i.c.dataset_id.label("id"))
    return read_of(connection, query, i.c.quantum, pl.concat(makers), "quantum").select("id")


def _made_from(connection: sa.Connection, schema: Schema, source: pl.Series) -> pl.DataFrame:
    """Return what was made by reading some datasets: ``id``."""
    i = schema.quantum_input
    readers = read_of(
        connection, sa.select(i.c.dataset_id, i.c.quantum), i.c.dataset_id, source, "dataset_id"
    )
    parts = [
        read_of(
            connection,
            sa.select(t.c.quantum, t.c.uuid.label("id")),
            t.c.quantum,
            readers["quantum"],
            "quantum",
        )
        for t in (schema.dataset, schema.tombstone)
    ]
    return pl.concat(parts).select("id")
