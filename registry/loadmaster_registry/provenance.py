"""Which quantum made which dataset from what: SQL for lineage in both directions."""

from uuid import UUID

import polars as pl
import sqlalchemy as sa

from .frames import read
from .schema import Schema


def lineage(connection: sa.Connection, schema: Schema, id: UUID, upstream: bool) -> pl.DataFrame:
    """Follow quanta from dataset to dataset until nothing new is found; see `Snapshot.lineage`."""
    reached = _reached(schema, id, upstream)
    d, t, c, q = schema.dataset, schema.dataset_type, schema.collection, schema.quantum
    task = (
        sa.select(q.c.task).where(q.c.id == d.c.quantum).limit(1).scalar_subquery()
    )  # the same in all attempts
    query = (
        sa.select(
            reached.c.uuid.label("id"),
            d.c.id.label("dataset"),
            t.c.name.label("dataset_type"),
            c.c.name.label("run"),
            d.c.quantum,
            task.label("task"),
        )
        .select_from(reached)
        .outerjoin(d, d.c.uuid == reached.c.uuid)
        .outerjoin(t, t.c.id == d.c.dataset_type)
        .outerjoin(c, c.c.id == d.c.run)
    )
    return read(connection, query).sort("dataset_type", "dataset", "id", nulls_last=True)


def quanta(connection: sa.Connection, schema: Schema, run: int) -> pl.DataFrame:
    """Return the rows of `quantum` of one run, all columns."""
    return read(connection, sa.select(schema.quantum).where(schema.quantum.c.run == run))


def _reached(schema: Schema, id: UUID, upstream: bool) -> sa.CTE:
    """Return the uuids of all datasets that can be reached; UNION lets each be followed once only."""

    def step(start: sa.ColumnElement[bytes]) -> sa.Select[tuple[bytes]]:
        d, i = schema.dataset.alias(), schema.quantum_input.alias()
        found, known = (i.c.dataset_id, d.c.uuid) if upstream else (d.c.uuid, i.c.dataset_id)
        return (
            sa.select(found.label("uuid")).join_from(d, i, i.c.quantum == d.c.quantum).where(known == start)
        )

    reached = step(sa.literal(id.bytes, sa.LargeBinary())).cte("reached", recursive=True)
    return reached.union(step(reached.c.uuid))
