"""What the processes of a site know together of the servers and file systems that bytes come from.

Small files below one folder: an endpoint's health while something is wrong with it, and slots, one for each stream
that it may serve at once. Who uses a slot has locked it, and the kernel unlocks it whatever becomes of them.
Light: the job runner imports this.
"""

import json
import os
import random
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from urllib.parse import quote, unquote

from .health import LONGEST_PAUSE_S, Health, after_failure
from .location import local_path
from .locks import is_free, locked, open_shared

_FIRST_POLL_S, _LONGEST_POLL_S = 0.005, 0.25
_HEALTH = ".health"


class Endpoints:
    """The endpoints of a site.

    Parameters
    ----------
    folder : Path
        Where what is known of them is kept, for all processes of the site; made when it is needed.
    streams : int
        How many transfers at once an endpoint may serve.
    first_pause_s : float
        How long an endpoint is left alone after failures in a row; twice as long each further time.
    """

    def __init__(self, folder: Path, streams: int, first_pause_s: float) -> None:
        self._folder = folder
        self._streams = streams
        self._first_pause_s = first_pause_s

    def health(self, endpoint: str) -> Health:
        """Return how an endpoint is; a pause longer than any was begun before the clock was set back, and is over."""
        found = _read(self._file(endpoint, _HEALTH))
        return found if found.until - steady_s() <= 2 * LONGEST_PAUSE_S else replace(found, until=0.0)

    def failed(self, endpoint: str, why: str) -> Health:
        """Take note of a failure; return how the endpoint is then."""
        with locked(self._file(endpoint, ".lock")):
            known = self.health(endpoint)
            health = after_failure(
                known, why, steady_s(), first_pause_s=self._first_pause_s, jitter=random.random()
            )
            _write(self._file(endpoint, _HEALTH), health)
        return health

    def answered(self, endpoint: str) -> None:
        """Take note that an endpoint does what it should."""
        if self._file(endpoint, _HEALTH).exists():
            with locked(self._file(endpoint, ".lock")):
                self._file(endpoint, _HEALTH).unlink(missing_ok=True)

    @contextmanager
    def slot(self, endpoint: str) -> Iterator[None]:
        """Have one of the endpoint's streams, as soon as one is free; of a suspect one there is one in all."""
        descriptor, poll_s = None, _FIRST_POLL_S
        while (descriptor := self._free_slot(endpoint)) is None:
            time.sleep(poll_s * (0.5 + random.random()))
            poll_s = min(2 * poll_s, _LONGEST_POLL_S)
        try:
            yield
        finally:
            os.close(descriptor)

    @contextmanager
    def slots(self, endpoint: str) -> Iterator[int]:
        """Have all of the endpoint's streams that are free, at least one, and yield how many they are."""
        with self.slot(endpoint), ExitStack() as others:
            n_streams = 1
            while (descriptor := self._free_slot(endpoint)) is not None:
                others.callback(os.close, descriptor)
                n_streams += 1
            yield n_streams

    def _free_slot(self, endpoint: str) -> int | None:
        n_slots = 1 if self.health(endpoint).is_suspect else self._streams
        for i in range(n_slots):
            descriptor = open_shared(self._file(endpoint, f".slot-{i}"))
            if is_free(descriptor):
                return descriptor
            os.close(descriptor)
        return None

    def _file(self, endpoint: str, kind: str) -> Path:
        return self._folder / f"{quote(endpoint, safe='')}{kind}"


def steady_s() -> float:
    """Return the seconds since 1970 by the clock as this process found it, counted on evenly, whoever sets it."""
    return _FOUND_S + time.monotonic()


_FOUND_S = time.time() - time.monotonic()


def troubled(folder: Path) -> dict[str, Health]:
    """Return the endpoints that something is wrong with, from the folder of an `Endpoints`."""
    return {
        unquote(path.name.removesuffix(_HEALTH)): _read(path) for path in sorted(folder.glob(f"*{_HEALTH}"))
    }


def endpoint_of(url: str) -> str:
    """Return the server that serves a URL, as ``s3://bucket``, or the file system that holds a file."""
    path = local_path(url)
    if path is None:
        return "/".join(url.split("/", 3)[:3])
    try:
        device = path.stat().st_dev
    except OSError:  # it is not there, which is told when it is read
        return f"file://{_mount_of(path.absolute().parent)}"
    if device not in _MOUNTS:
        _MOUNTS[device] = _mount_of(path.resolve().parent)
    return f"file://{_MOUNTS[device]}"


_MOUNTS: dict[int, Path] = {}  # by device; where file systems are mounted does not change under a job


@cache
def _mount_of(folder: Path) -> Path:
    return folder if folder.is_mount() else _mount_of(folder.parent)


def _read(path: Path) -> Health:
    with suppress(FileNotFoundError, ValueError, TypeError):  # damaged by a crash of the machine: start anew
        return Health(**json.loads(path.read_bytes()))
    return Health()


def _write(path: Path, health: Health) -> None:
    part = path.with_suffix(f".{os.getpid()}.part")
    part.write_text(json.dumps(asdict(health)))
    part.rename(path)
