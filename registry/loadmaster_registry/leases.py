"""Leases: who needs which datasets, until when. One that nobody renews ends by itself, as no lock would.

A lease names row numbers of datasets by ranges: what was registered together is one.
"""

from dataclasses import dataclass

import numpy as np
import polars as pl
import sqlalchemy as sa

from .frames import delete, insert, read, replaced
from .snapshot import Snapshot
from .transaction import Transaction


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to find some datasets where they are."""

    id: str
    holder: str  # for people: which process, where, whose
    what: str  # for people: what it is for
    run: str  # a RUN, all of which is needed; "" for none
    until: str  # ISO, UTC


def take(write: Transaction, lease: Lease, dataset: pl.Series) -> None:
    """Take a lease on some datasets; the same id again takes its place."""
    end(write, lease.id)
    row = {
        "id": lease.id,
        "holder": lease.holder,
        "what": lease.what,
        "heartbeat": write.now,
        "until": lease.until,
    }
    number = write.catalog.ids[lease.run] if lease.run else None
    write.connection.execute(sa.insert(write.schema.lease).values(run=number, **row))
    rows = ranges(dataset).with_columns(lease=pl.lit(lease.id))
    insert(write.connection, write.schema.leased, rows)


def renew(write: Transaction, id: str, until: str) -> bool:
    """Say that a lease is still needed; False if it is there no more."""
    table = write.schema.lease
    again = sa.update(table).where(table.c.id == id).values(heartbeat=write.now, until=until)
    return bool(write.connection.execute(again).rowcount)


def end(write: Transaction, id: str) -> None:
    """End a lease; a no-op where there is none."""
    delete(write.connection, write.schema.leased, pl.DataFrame({"lease": [id]}))
    delete(write.connection, write.schema.lease, pl.DataFrame({"id": [id]}))


def forget_expired(write: Transaction) -> None:
    """Remove the leases that ended by themselves."""
    table = write.schema.lease
    for id in (
        write.connection.execute(sa.select(table.c.id).where(table.c.until < write.now)).scalars().all()
    ):
        end(write, id)


def live(now: Snapshot, at: str) -> pl.DataFrame:
    """Return the leases that hold at an instant: all columns of `lease`, ``run`` by its name."""
    table = now.schema.lease
    found = read(now.connection, sa.select(table).where(table.c.until >= at))
    return found.with_columns(replaced("run", {**now.run_names, None: None}, pl.String)).sort("id")


def ranges(dataset: pl.Series) -> pl.DataFrame:
    """Return the fewest ranges that hold just these numbers: ``first``, ``last``."""
    numbers = dataset.unique().sort().to_numpy()
    breaks = np.flatnonzero(np.diff(numbers) != 1) + 1
    begins = np.concatenate(([0], breaks))[: numbers.size]
    ends = np.concatenate((breaks, [numbers.size]))[: numbers.size] - 1
    columns = {"first": numbers[begins], "last": numbers[ends]}
    return pl.DataFrame(columns, schema={"first": pl.Int64, "last": pl.Int64})


def leased(now: Snapshot, dataset: pl.Series, at: str) -> pl.DataFrame:
    """Return which of some datasets the leases that hold at an instant name: ``dataset``, ``id`` (of the lease)."""
    leases, named = now.schema.lease, now.schema.leased
    query = sa.select(named).join(leases, leases.c.id == named.c.lease).where(leases.c.until >= at)
    found = [pl.DataFrame(schema={"dataset": pl.Int64, "id": pl.String})]
    for (id,), rows in read(now.connection, query).partition_by("lease", as_dict=True).items():
        rows = rows.sort("first")
        place = np.searchsorted(rows["first"].to_numpy(), dataset.to_numpy(), side="right") - 1
        is_in = (place >= 0) & (dataset.to_numpy() <= rows["last"].to_numpy()[place])
        held = dataset.filter(pl.Series(is_in)).rename("dataset").to_frame()
        found.append(held.with_columns(id=pl.lit(id, dtype=pl.String)))
    return pl.concat(found)
