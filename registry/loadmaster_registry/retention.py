"""How long collections stay, and whose they are."""

import polars as pl
import sqlalchemy as sa

from .errors import RegistryError, did_you_mean
from .frames import read
from .snapshot import Snapshot
from .transaction import Transaction

RETENTION = {
    "permanent": "never removed, unless by force",
    "standard": "kept until somebody removes it, or it expires",
    "temporary": "kept until it expires",
}


def policies(now: Snapshot, glob: str = "*") -> pl.DataFrame:
    """Return the policies of the collections whose name matches, in order of name.

    Returns
    -------
    policies : DataFrame
        ``name``, ``type``, ``owner`` (null: nobody's), ``retention``, ``expires`` (ISO, UTC; null: never).
    """
    c = now.schema.collection
    names = [collection.name for collection in now.collections(glob)]
    query = sa.select(c.c.name, c.c.type, c.c.owner, c.c.retention, c.c.expires).where(c.c.removed.is_(None))
    found = read(now.connection, query).filter(pl.col("name").is_in(names))
    return found.with_columns(pl.col("retention").fill_null("standard")).sort("name")


def set_policy(
    write: Transaction,
    name: str,
    *,
    retention: str | None = None,
    expires: str | None = None,
    owner: str | None = None,
) -> None:
    """Change what is given of a collection's policy.

    Parameters
    ----------
    retention : {"permanent", "standard", "temporary"}, optional
    expires : str, optional
        ISO, UTC, after which `gc` may remove it; "" for never.
    owner : str, optional
        Whose it is; "" for nobody's.

    Raises
    ------
    NotFound, RegistryError
        If there is no such collection or class, or the two contradict each other.
    """
    _ = write.catalog[name]
    before = policies(write, name).filter(pl.col("name") == name).row(0, named=True)
    given = {"retention": retention, "expires": expires, "owner": owner}
    changed = {key: value or None for key, value in given.items() if value is not None}
    after = {**before, **changed}
    _check(name, after["retention"] or "standard", after["expires"])
    if changed:
        table = write.schema.collection
        write.connection.execute(
            sa.update(table).where(table.c.id == write.catalog.ids[name]).values(changed)
        )


def _check(name: str, retention: str, expires: str | None) -> None:
    if retention not in RETENTION:
        raise RegistryError(
            what=f"there is no retention class {retention!r}",
            where=f"collection {name!r}",
            why="; ".join(f"{key}: {means}" for key, means in RETENTION.items()),
            todo=did_you_mean(retention, RETENTION),
        )
    if (retention == "permanent" and expires) or (retention == "temporary" and not expires):
        raise RegistryError(
            what=f"collection {name!r} cannot be {retention} and expire {expires or 'never'}",
            where=f"collection {name!r}",
            why=f"{retention}: {RETENTION[retention]}",
            todo="give --expires with temporary collections, and `--expires never` with permanent ones",
        )
