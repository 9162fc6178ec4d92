"""Who needs datasets and collections, in words: what must be answered before any of them is removed."""

from collections.abc import Iterable, Iterator, Sequence

import polars as pl

from . import holdings, leases
from .records import CollectionType
from .retention import policies
from .snapshot import Snapshot

_NEEDED = {"dataset": pl.Int64, "by": pl.String}


def of_datasets(now: Snapshot, dataset: pl.Series, who: str, at: str) -> pl.DataFrame:
    """Return who needs some datasets, one row for each reason.

    Those are TAGGED and CALIBRATION collections, leases, owners of RUNs other than `who`, permanent RUNs, and
    chains of other owners.

    Returns
    -------
    needed : DataFrame
        ``dataset``, ``by`` (for people).
    """
    rows = holdings.stored(now, dataset).select("dataset", "run")
    held = holdings.holders(now, dataset).select(
        "dataset", by=pl.format("collection {} holds it", "collection")
    )
    runs = rows["run"].unique().to_list()
    words = [(run, by) for run in runs for by in _of_run(now, run, who, at)]
    by_run = pl.DataFrame(words, schema={"run": pl.String, "by": pl.String}, orient="row")
    found = [held, of_leases(now, dataset, at), rows.join(by_run, on="run").select("dataset", "by")]
    return pl.concat([pl.DataFrame(schema=_NEEDED), *found]).sort("dataset", "by")


def of_collection(now: Snapshot, name: str, who: str, at: str, removed: Sequence[str] = ()) -> list[str]:
    """Return who needs a collection, for people; chains of `who` itself, see `own_chains`, do not count.

    Parameters
    ----------
    removed : sequence of str
        Collections that go with it, and whose needs do not count.
    """
    found = list(_of_run(now, name, who, at, removed))
    if now.catalog[name].type is CollectionType.RUN:
        found += of_leases(now, members(now, [name]), at)["by"].unique().sort().to_list()
    return found


def own_chains(now: Snapshot, name: str, who: str) -> list[str]:
    """Return the chains of `who`, or of nobody, that hold a collection."""
    owners = dict(policies(now).select("name", "owner").iter_rows())
    return [chain for chain in parents(now, name) if owners[chain] in (None, who)]


def members(now: Snapshot, runs: Sequence[str]) -> pl.Series:
    """Return the datasets of some RUNs, removed ones too, in order."""
    numbers = {name: number for number, name in now.run_names.items()}
    return holdings.in_runs(now, [numbers[run] for run in runs])


def of_leases(now: Snapshot, dataset: pl.Series, at: str) -> pl.DataFrame:
    """Return which leases name some datasets: ``dataset``, ``by`` (for people)."""
    holds = leases.live(now, at)
    by = pl.format("{} ({}), last heard from {}, until {}", "what", "holder", "heartbeat", "until")
    return leases.leased(now, dataset, at).join(holds.select("id", by=by), on="id").select("dataset", "by")


def _of_run(now: Snapshot, name: str, who: str, at: str, removed: Sequence[str] = ()) -> Iterator[str]:
    """Say who needs all of a collection: leases on it, its owner, its retention, chains of other owners."""
    for lease in leases.live(now, at).filter(pl.col("run") == name).iter_rows(named=True):
        yield f"{lease['what']} ({lease['holder']}), last heard from {lease['heartbeat']}, until {lease['until']}"
    if name not in now.catalog.collections:
        return  # removed already
    policy = policies(now, name).row(0, named=True)
    if policy["owner"] not in (None, who):
        yield f"{name!r} is {policy['owner']}'s"
    if policy["retention"] == "permanent":
        yield f"{name!r} is permanent"
    owners = dict(policies(now).select("name", "owner").iter_rows())
    for chain in _chains(now, name):
        if chain not in removed and owners[chain] not in (None, who):
            yield f"chain {chain!r} of {owners[chain]} shows it"


def parents(now: Snapshot, name: str) -> list[str]:
    """Return the chains that hold a collection themselves."""
    return sorted(c.name for c in now.catalog.collections.values() if name in c.children)


def _chains(now: Snapshot, name: str) -> Iterable[str]:
    """Return the chains that show a collection, directly or by other chains."""
    found: dict[str, None] = {}
    open_names = [name]
    while open_names:
        for chain in parents(now, open_names.pop()):
            if chain not in found:
                found[chain] = None
                open_names.append(chain)
    return sorted(found)
