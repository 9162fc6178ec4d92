"""Datasets, collections and their files go: refused where somebody needs them, finished whatever is killed.

Rows go in transactions that trash the files; the files go after. Each entry of the trash has the signature of its file,
so that another one that was published at the same place later is never taken for it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from uuid import UUID

import polars as pl
from loadmaster_registry import holdings, needs, removal
from loadmaster_registry.errors import Conflict, NotFound, RegistryError
from loadmaster_registry.removal import Removed
from loadmaster_registry.snapshot import Snapshot
from loadmaster_registry.store import Registry, user_name, utc_now
from loadmaster_registry.transaction import Transaction

from .backbone import Backbone
from .inventory import each, remove, remove_empty_folders, signature

_AT_ONCE = 2000  # datasets that go in one transaction, so that others wait for moments only
_FILES_AT_ONCE = 500  # files that go in one
_SHOWN = 5
_BY_GC = "nobody used it any more"


@dataclass(frozen=True)
class Emptied:
    """What became of the trash."""

    n_files: int  # taken away
    left: tuple[tuple[str, str], ...]  # URLs of what could not be, with why; the next time tries again


@dataclass(frozen=True)
class Collected:
    """What `collect` removed, or would remove."""

    collections: tuple[str, ...]
    kept: dict[str, list[str]]  # expired collections that somebody needs: who
    removed: Removed
    n_copies: int  # at other destinations, whose time is over
    emptied: Emptied


def delete_datasets(
    registry: Registry,
    backbone: Backbone,
    ids: Sequence[UUID],
    *,
    force: bool = False,
    reason: str = "",
    dry_run: bool = False,
) -> tuple[Removed, Emptied]:
    """Remove datasets with their files; the same call again goes on where it was cut off.

    Parameters
    ----------
    force : bool
        Even what somebody needs. Each dataset then leaves a tombstone, with `reason`.

    Raises
    ------
    NotFound
        If one of them is not there, and was not removed by force before.
    Conflict
        If somebody needs one of them, and not `force`; nothing was removed. It says who.
    """
    if force and not reason:
        raise RegistryError(
            what="removal by force needs a reason",
            where=f"{len(ids)} datasets",
            why="the tombstones tell others why the datasets are gone",
            todo="give --reason TEXT",
        )
    with registry.snapshot() as now:
        dataset = _known(now, ids)
        tombs = dataset if force else removal.remembered(now, dataset)
        if not force:
            _refuse(now, dataset)  # all of it, before anything goes
        files = _Files.of(now, dataset)
    if dry_run:
        return _foretold(dataset, files, tombs), Emptied(0, ())
    done = []
    for part in _parts(dataset):
        signed = files.signed(part, backbone)
        with registry.transaction() as write:
            if not force:
                _refuse(write, part)
            why = reason or f"removed by {write.who}"
            done.append(_remove(write, part, why, signed, files, tombs))
    return _sum(done), empty_trash(registry, backbone)


def remove_collections(
    registry: Registry, names: Sequence[str], *, unlink: bool = False, force: bool = False
) -> None:
    """Remove collections; files of RUNs go with the next `collect`, but for those that others use.

    Parameters
    ----------
    unlink : bool
        Take them out of one's own chains.
    force : bool
        Even what somebody needs.

    Raises
    ------
    NotFound
        If there is none of this name.
    Conflict
        If somebody needs one, and not `force`; it says who. Nothing was removed.
    """
    with registry.transaction() as write:
        for name in names:
            _ = write.catalog[name]
        if not force:
            _refuse_collections(write, names, unlink)
        removal.remove_collections(write, names)


def collect(registry: Registry, backbone: Backbone, *, dry_run: bool = False) -> Collected:
    """Remove what nobody needs any more, and empty the trash; the same call again goes on where it was cut off.

    That is: collections that have expired, datasets of removed RUNs that no other collection and no lease uses, copies
    at other destinations whose time is over.
    """
    with registry.snapshot() as now:
        found = removal.garbage(now, user_name(), utc_now())
        dataset = found.datasets
        tombs = removal.remembered(now, dataset)
        files = _Files.of(now, dataset)
        waiting = Emptied(holdings.trash(now).height, ())
    if dry_run:
        removed = _foretold(dataset, files, tombs)
        return Collected(found.collections, found.kept, removed, found.copies.height, waiting)
    if found.collections:
        with registry.transaction() as write:
            found = removal.garbage(write, write.who, write.now)
            removal.remove_collections(write, found.collections)
            dataset, files = found.datasets, _Files.of(write, found.datasets)
            tombs = removal.remembered(write, dataset)
    done = list(_collected(registry, backbone, dataset, files, tombs))
    _forget_copies(registry, backbone, found.copies)
    emptied = empty_trash(registry, backbone)
    with registry.transaction() as write:
        dropped = removal.drop_empty_runs(write)
    for run in dropped:
        remove_empty_folders(backbone.root_url, run)
    return Collected(found.collections, found.kept, _sum(done), found.copies.height, emptied)


def empty_trash(registry: Registry, backbone: Backbone) -> Emptied:
    """Take away the files in the trash; what cannot be taken away stays in it.

    One process at a time does it, inside the transaction that forgets the entries: else one could take a file away that
    was published after another had made the place free.
    """
    n_files, left = 0, dict[str, str]()
    while True:
        with registry.transaction() as write:
            entries = holdings.trash(write).filter(~pl.col("url").is_in(list(left))).head(_FILES_AT_ONCE)
            if entries.is_empty():
                return Emptied(n_files, tuple(left.items()))
            told = each(
                backbone.root_url,
                lambda e: _taken_away(backbone, *e),
                entries.select("url", "signature").rows(),
            )
            failed = {url: why for url, why in zip(entries["url"], told, strict=True) if why}
            left |= failed
            removal.empty(write, [url for url in entries["url"] if url not in failed])
            n_files += entries.height - len(failed)


def _taken_away(backbone: Backbone, url: str, signed: str) -> str:
    """Take a file away; return why it could not be, "" where it is gone."""
    try:
        remove(backbone.url(url), signed)
    except OSError as error:
        return str(error)
    return ""


def _known(now: Snapshot, ids: Sequence[UUID]) -> pl.Series:
    """Return the rows of datasets; refuse ids that are of none, and were never removed by force either."""
    wanted = pl.Series("id", [id.bytes for id in ids], dtype=pl.Binary)
    known = now.known(wanted)
    absent = wanted.filter(~wanted.is_in(known["id"].implode()))
    absent = absent.filter(~absent.is_in(holdings.tombstones(now, absent)["uuid"].implode()))
    if absent.len():
        raise NotFound(
            what=f"{absent.len()} of {len(ids)} datasets do not exist",
            where=f"registry {now.place}",
            why=f"no dataset has {', '.join(str(UUID(bytes=id)) for id in absent[:_SHOWN])}",
            todo="leave them out; nothing was removed",
        )
    return known["dataset"].unique().sort()


def _parts(dataset: pl.Series) -> list[pl.Series]:
    return [dataset.slice(start, _AT_ONCE) for start in range(0, dataset.len(), _AT_ONCE)]


@dataclass(frozen=True)
class _Files:
    """The files that go with some datasets."""

    own: pl.DataFrame  # see `removal.own_files`
    since: int  # the highest dataset when that was read

    @classmethod
    def of(cls, now: Snapshot, dataset: pl.Series) -> "_Files":
        return cls(removal.own_files(now, dataset), removal.highest(now))

    def signed(self, part: pl.Series, backbone: Backbone) -> pl.DataFrame:
        """Look at the files that go with a part of the datasets: before the transaction in which others wait."""
        files = self.own.filter(pl.col("last").is_in(part.implode()))
        return files.with_columns(signature=_signatures(files["path"], backbone))


def _signatures(paths: pl.Series, backbone: Backbone) -> pl.Series:
    found = each(backbone.root_url, lambda path: signature(backbone.url(path)), paths.to_list())
    return pl.Series("signature", found, dtype=pl.String)


def _remove(
    write: Transaction, part: pl.Series, why: str, signed: pl.DataFrame, files: _Files, tombs: pl.Series
) -> Removed:
    return removal.remove_datasets(write, part, why=why, files=signed, since=files.since, tombs=tombs)


def _refuse(now: Snapshot, dataset: pl.Series) -> None:
    """Refuse to remove datasets that somebody needs, and say who."""
    needed = needs.of_datasets(now, dataset, user_name(), utc_now())
    if needed.is_empty():
        return
    counts = needed.group_by("by").len().sort("len", "by", descending=[True, False])
    shown = [f"{by} ({n} of them)" for by, n in counts.head(_SHOWN).iter_rows()]
    more = [f"and {counts.height - _SHOWN} more"] if counts.height > _SHOWN else []
    raise Conflict(
        what=f"{needed['dataset'].n_unique()} of {dataset.len()} datasets are needed; none of them was removed",
        where=f"registry {now.place}",
        why="; ".join([*shown, *more]),
        todo="ask them, or wait; --force --reason TEXT removes them all the same, and leaves tombstones",
    )


def _refuse_collections(write: Transaction, names: Sequence[str], unlink: bool) -> None:
    reasons = []
    for name in names:
        by = needs.of_collection(write, name, write.who, write.now, names)
        chains = [] if unlink else [c for c in needs.own_chains(write, name, write.who) if c not in names]
        reasons += [
            f"{name!r}: {reason}" for reason in (*by, *(f"chain {chain!r} holds it" for chain in chains))
        ]
    if reasons:
        raise Conflict(
            what="collections are needed; nothing was removed",
            where=f"registry {write.place}",
            why="; ".join(reasons),
            todo="--unlink takes them out of your own chains; for the rest ask, wait, or use --force",
        )


def _collected(
    registry: Registry, backbone: Backbone, dataset: pl.Series, files: _Files, tombs: pl.Series
) -> Iterator[Removed]:
    """Remove datasets that nobody used a moment ago; as soon as somebody uses one, stop: the next time looks again."""
    for part in _parts(dataset):
        signed = files.signed(part, backbone)
        with registry.transaction() as write:
            if holdings.holders(write, part).height or needs.of_leases(write, part, write.now).height:
                return
            removed = _remove(write, part, _BY_GC, signed, files, tombs)
        yield removed


def _forget_copies(registry: Registry, backbone: Backbone, copies: pl.DataFrame) -> None:
    if copies.is_empty():
        return
    urls = copies["url"].unique()
    signed = pl.DataFrame([urls, _signatures(urls, backbone)])
    with registry.transaction() as write:
        removal.remove_copies(write, copies, signed)


def _foretold(dataset: pl.Series, files: _Files, tombs: pl.Series) -> Removed:
    """Say what would go."""
    return Removed(dataset.len(), files.own.height, int(files.own["size_bytes"].sum()), tombs.len())


def _sum(parts: Sequence[Removed]) -> Removed:
    return Removed(
        sum(part.n_datasets for part in parts),
        sum(part.n_files for part in parts),
        sum(part.n_bytes for part in parts),
        sum(part.n_tombstones for part in parts),
    )
