"""Copies of what came home go to their other destinations beside the run, each tried again by itself."""

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from uuid import UUID

import polars as pl
from loadmaster_registry.errors import StageError
from loadmaster_registry.store import Registry, utc_now
from loadmaster_staging.backbone import Backbone
from loadmaster_staging.destinations import Delivery, Destination, deliver

from .journal import Journal

log = logging.getLogger(__name__)

N_TRIES = 5  # in one life of a controller; the next one begins anew
_STREAMS = 4
_DAY_S = 86_400.0
_COPIES = {"id": pl.Binary, "destination": pl.String, "url": pl.String, "until": pl.String}


class Deliverer:
    """What one life of a controller has still to bring to other destinations than the backbone.

    What is in the journal and has not arrived is tried again, by this life or the next.
    """

    def __init__(
        self,
        run: str,
        journal: Journal,
        registry: Registry,
        backbone: Backbone,
        destinations: Sequence[Destination],
    ) -> None:
        self._run = run
        self._journal = journal
        self._registry = registry
        self._backbone = backbone
        self.destinations = destinations
        self._by_name = {destination.name: destination for destination in destinations}
        known = [d for d in journal.deliveries() if d.destination in self._by_name]
        self._waiting = [replace(d, n_tries=0, due_s=0.0) for d in known]
        self._under_way: dict[Future[None], Delivery] = {}
        self._pool = ThreadPoolExecutor(_STREAMS) if destinations else None

    @property
    def is_on(self) -> bool:
        """Whether anything is under way, or will be tried again by this life."""
        return bool(self._waiting or self._under_way)

    def add(self, deliveries: Iterable[Delivery]) -> None:
        """Take more, which the journal has."""
        self._waiting += deliveries

    def tick(self, *, is_alone: bool) -> None:
        """Begin what is due and write down what has ended; where there is nothing else to do, wait a little."""
        if self._pool is None or not self.is_on:
            return
        now_s = time.monotonic()
        due = [d for d in self._waiting if d.due_s <= now_s]
        self._waiting = [d for d in self._waiting if d.due_s > now_s]
        for delivery in due:
            self._under_way[self._pool.submit(self._deliver, delivery)] = delivery
        if is_alone:
            self._pause()
        ended = [future for future in self._under_way if future.done()]
        self._write_down({self._under_way.pop(future): future for future in ended})

    def close(self) -> None:
        """Let what is under way end, and begin no more."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def _deliver(self, delivery: Delivery) -> None:
        deliver(delivery, self._backbone, self._by_name[delivery.destination], self._run)

    def _pause(self) -> None:
        if self._under_way:
            wait(self._under_way, timeout=1.0, return_when=FIRST_COMPLETED)
        else:
            time.sleep(min(1.0, max(0.0, min(d.due_s for d in self._waiting) - time.monotonic())))

    def _write_down(self, ended: Mapping[Delivery, Future[None]]) -> None:
        if not ended:
            return
        arrived = [delivery for delivery, future in ended.items() if future.exception() is None]
        failed = [
            _after_failure(delivery, future) for delivery, future in ended.items() if future.exception()
        ]
        if arrived:
            with self._registry.transaction() as transaction:
                transaction.insert_copies(self._copies(arrived))
        with self._journal.batch():
            self._journal.drop_deliveries(arrived)
            self._journal.add_deliveries(failed)
        for delivery in failed:
            log.warning(
                "copy not made dataset=%s destination=%s: %s",
                delivery.dataset,
                delivery.destination,
                delivery.error,
            )
        self._waiting += [delivery for delivery in failed if delivery.n_tries < N_TRIES]

    def _copies(self, arrived: Sequence[Delivery]) -> pl.DataFrame:
        rows = []
        for delivery in arrived:
            destination = self._by_name[delivery.destination]
            url = f"{destination.url.rstrip('/')}/{delivery.files[0].path}"
            until = None if destination.days is None else utc_now(destination.days * _DAY_S)
            rows.append((UUID(delivery.dataset).bytes, destination.name, url, until))
        return pl.DataFrame(rows, schema=_COPIES, orient="row")


def _after_failure(delivery: Delivery, future: Future[None]) -> Delivery:
    error = future.exception()
    if isinstance(error, StageError):
        what, where, why, _ = error.args
        return delivery.failed(f"{what}: {why} ({where})", time.monotonic())
    return delivery.failed(f"{type(error).__name__}: {error}", time.monotonic())
