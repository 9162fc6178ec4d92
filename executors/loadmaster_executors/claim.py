"""What a run needs of the registry while it goes on: a lease on its inputs and on its own RUN.

It is in the registry, so every machine sees it; it ends with the run or, where the controller is killed, by itself.
"""

import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import polars as pl
from loadmaster_planner.plan import Plan
from loadmaster_registry import holdings, leases
from loadmaster_registry.errors import RegistryError, RunError
from loadmaster_registry.leases import Lease
from loadmaster_registry.store import Registry, user_name, utc_now
from loadmaster_registry.transaction import Transaction

from .run import RunFolder

log = logging.getLogger(__name__)

LEASE_S = 3600.0  # so long a controller that was killed keeps its inputs, to be started again
_RENEW_S = 60.0
_SHOWN = 3


class Claim:
    """A lease that somebody must renew."""

    def __init__(self, registry: Registry, lease: Lease) -> None:
        self._registry = registry
        self._lease = lease
        self._due_s = time.monotonic() + _RENEW_S

    def renew(self) -> None:
        """Say that the run goes on, if that is due; a registry that is busy is told the next time."""
        if time.monotonic() < self._due_s:
            return
        self._due_s = time.monotonic() + _RENEW_S
        try:
            with self._registry.transaction() as write:
                leases.renew(write, self._lease.id, utc_now(LEASE_S))
        except RegistryError as error:
            log.warning("lease not renewed run=%s: %s", self._lease.run, error)


@contextmanager
def claimed(registry: Registry, run: RunFolder) -> Iterator[Claim]:
    """Hold a lease on what a run reads and makes, for as long as the block.

    Raises
    ------
    RunError
        If something that it is to read was removed since it was planned, and nothing has run yet.
    """
    holder = f"process {os.getpid()} on {socket.gethostname()}, {user_name()}"
    lease = Lease(f"run {run.token}", holder, f"the run {run.run}", run.run, utc_now(LEASE_S))
    ids = input_ids(run.plan)
    with registry.transaction() as write:
        known = write.known(ids)
        if known.height < ids.len():
            _tell_missing(write, ids.filter(~ids.is_in(known["id"].implode())), run)
        leases.take(write, lease, known["dataset"])
    try:
        yield Claim(registry, lease)
    finally:
        _end(registry, lease)


def input_ids(plan: Plan) -> pl.Series:
    """Return the uuids (Binary) of all datasets that exist and that the plan's quanta read."""
    found = [pl.Series("id", [], dtype=pl.Binary)]
    for facts in plan.header.types:
        if facts.existing:
            table = plan.rows(f"datasets/{facts.name}", 0, facts.count)
            rows = table.filter(pl.col("run").is_not_null())
            halves = np.stack([rows["id_hi"].to_numpy(), rows["id_lo"].to_numpy()], axis=1).astype(">u8")
            octets = halves.tobytes()
            ids = [octets[i : i + 16] for i in range(0, len(octets), 16)]
            found.append(pl.Series("id", ids, dtype=pl.Binary))
    return pl.concat(found).unique()


def _tell_missing(write: Transaction, absent: pl.Series, run: RunFolder) -> None:
    """Refuse a run that cannot have its inputs; one that is under way perhaps needs them no more."""
    stones = holdings.tombstones(write, absent).head(_SHOWN).iter_rows(named=True)
    told = [f"{s['dataset_type']} {s['data_id']}: {s['who']}, {s['deleted']}: {s['why']}" for s in stones]
    what = f"{absent.len()} inputs of the plan were removed since it was made"
    if run.journal.attempts().any():
        log.warning("%s run=%s %s", what, run.run, "; ".join(told))
        return
    raise RunError(
        what=what,
        where=f"run {run.run}",
        why="; ".join(told) or "nobody left word why",
        todo="plan again: what is left of the inputs decides what can be made",
    )


def _end(registry: Registry, lease: Lease) -> None:
    try:
        with registry.transaction() as write:
            leases.end(write, lease.id)
    except RegistryError as error:  # it ends by itself, and the run's own end is more important
        log.warning("lease not given back run=%s: %s", lease.run, error)
