"""Small files brought many at once: what costs the same for one as for many is paid once.

Files of one endpoint come in turns, each with the streams that are free then. From a server they come by the
concurrency of fsspec's event loop, and where the store's library signs URLs, by those: it takes several times as
long for a request as for a signature and a plain request. What does not come so, whatever the reason, is left to
`Mover.fetch`, which tries again, waits, turns to replicas and tells what is wrong. Light: the job runner imports this.
"""

import hashlib
import os
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from loadmaster_registry.errors import StageError

from .checksum import Measured, algorithm_of
from .endpoints import Endpoints, endpoint_of, steady_s
from .health import FAILURES
from .location import local_path
from .shards import piece_of

SMALL_BYTES = 1 << 20
MANY = 16  # so few come as quickly one by one
_TURN_FILES = 256  # then others have their turn
_TURN_BYTES = 32 << 20  # held in memory
_SLOW_S = 0.001  # to wait for one file of this machine
_TIMEOUT_S = 30
_SIGNED_S = 900  # for so long a signed URL is good


@dataclass(frozen=True, slots=True)
class Wanted:
    """A small file, where it is to be."""

    url: str
    promised: Measured  # its size at least is known
    target: Path

    @property
    def is_small(self) -> bool:
        """Whether it is a file that may come with others."""
        return 0 <= self.promised.size_bytes <= SMALL_BYTES and piece_of(self.url) is None


class Batch:
    """Brings small files within what a site allows."""

    def __init__(self, endpoints: Endpoints) -> None:
        self._endpoints = endpoints
        self._unsigned: set[str] = set()  # endpoints where signed URLs lead nowhere

    def brought(self, files: Sequence[Wanted]) -> set[Path]:
        """Bring what can come with others; return which targets are there, verified and read only."""
        by_endpoint: dict[str, list[Wanted]] = {}
        for file in files:
            by_endpoint.setdefault(endpoint_of(file.url), []).append(file)
        came: set[Path] = set()
        for endpoint, group in by_endpoint.items():
            if len(group) < MANY:
                continue
            for turn in _turns(group):
                came_now = self._brought_in_turn(endpoint, turn)
                if not came_now:
                    break  # the endpoint is down, or this is no way to ask it
                came |= came_now
        return came

    def _brought_in_turn(self, endpoint: str, files: Sequence[Wanted]) -> set[Path]:
        with self._endpoints.slots(endpoint) as n_streams:
            if self._endpoints.health(endpoint).until > steady_s():
                return set()
            if local_path(files[0].url) is not None:
                came = _copied(files, n_streams)
            else:
                contents = self._contents(endpoint, [file.url for file in files], n_streams)
                pairs = zip(files, contents, strict=True)
                came = {f.target for f, content in pairs if content is not None and _is_kept(content, f)}
            if came:
                self._endpoints.answered(endpoint)
        return came

    def _contents(self, endpoint: str, urls: Sequence[str], n_at_once: int) -> list[bytes | None]:
        """Ask a server for files; None for each that did not come."""
        from fsspec.core import url_to_fs  # here: see `location.remote`

        nothing: list[bytes | None] = [None] * len(urls)
        try:
            places = [url_to_fs(url) for url in urls]
        except (ImportError, ValueError):  # no such protocol
            return nothing
        fs = places[0][0]
        if not fs.async_impl or any(other is not fs for other, _ in places):
            return nothing
        paths = [path for _, path in places]
        if endpoint not in self._unsigned and (signed := _signed(fs, paths)):
            contents = _read(signed, n_at_once)
            if any(content is not None for content in contents):
                return contents
        self._unsigned.add(endpoint)
        return _gathered(fs, paths, n_at_once)


def _turns(files: Sequence[Wanted]) -> list[list[Wanted]]:
    turns: list[list[Wanted]] = []
    left_bytes = 0
    for file in files:
        left_bytes -= file.promised.size_bytes
        if not turns or left_bytes < 0 or len(turns[-1]) == _TURN_FILES:
            turns.append([])
            left_bytes = _TURN_BYTES - file.promised.size_bytes
        turns[-1].append(file)
    return turns


def _copied(files: Sequence[Wanted], n_at_once: int) -> set[Path]:
    """Copy files of this machine; several at once where they are waited for, as on a network's file system.

    Elsewhere threads are only in each other's way.
    """
    started_s = time.perf_counter() - time.thread_time()
    came = {file.target for file in files[:MANY] if _is_copied(file)}
    waited_s = time.perf_counter() - time.thread_time() - started_s
    if waited_s < MANY * _SLOW_S or n_at_once < 2:
        return came | {file.target for file in files[MANY:] if _is_copied(file)}
    from concurrent.futures import ThreadPoolExecutor  # here: few jobs need it

    with ThreadPoolExecutor(n_at_once) as pool:
        done = pool.map(_is_copied, files[MANY:])
        return came | {file.target for file, is_done in zip(files[MANY:], done, strict=True) if is_done}


def _is_copied(file: Wanted) -> bool:
    """Copy a file of this machine, if it is what was promised."""
    path = local_path(file.url)
    assert path is not None
    with suppress(OSError), open(path, "rb", buffering=0) as stream:
        return _is_kept(stream.read(file.promised.size_bytes + 1), file)
    return False


def _is_kept(content: bytes, file: Wanted) -> bool:
    """Write the file, if these bytes are what was promised; what cannot be written is not there."""
    promised = file.promised
    with suppress(OSError, StageError):
        algorithm = algorithm_of(promised.checksum)
        measured = Measured(len(content), f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}")
        if measured.differs_from(promised.size_bytes, promised.checksum):
            return False
        descriptor = os.open(file.target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o444)
        try:
            if os.write(descriptor, content) == len(content):
                return True
        finally:
            os.close(descriptor)
    file.target.unlink(missing_ok=True)
    return False


def _signed(fs: Any, paths: Sequence[str]) -> list[str]:
    """Return URLs by which anybody can read these for a while; none where they cannot be had or are of no use."""
    from urllib.request import getproxies

    from fsspec.asyn import sync

    async def sign_all() -> list[str]:
        return [await fs._url(path, expires=_SIGNED_S) for path in paths]

    try:
        urls: list[str] = sync(fs.loop, sign_all)
    except Exception:  # most file systems sign none; else whatever a protocol's library raises
        return []
    scheme = urlsplit(urls[0]).scheme
    return urls if scheme in ("http", "https") and scheme not in getproxies() else []


def _read(urls: Sequence[str], n_at_once: int) -> list[bytes | None]:
    """Read files of one web server whole, so many at once; after a few failures no more are asked for.

    By Python's own client: each other one, the event loop's too, takes several times as long for a small file.
    """
    from concurrent.futures import ThreadPoolExecutor
    from http.client import HTTPConnection, HTTPException, HTTPSConnection

    contents: list[bytes | None] = [None] * len(urls)
    left = iter(enumerate(urls))
    n_failed = 0
    server = urlsplit(urls[0])
    root_url = f"{server.scheme}://{server.netloc}"

    def read_on() -> None:
        nonlocal n_failed
        kind = HTTPSConnection if server.scheme == "https" else HTTPConnection
        with closing(kind(server.netloc, timeout=_TIMEOUT_S)) as connection:
            for i, url in left:
                try:
                    connection.request("GET", url.removeprefix(root_url))
                    reply = connection.getresponse()
                    content = reply.read()
                except (OSError, HTTPException):
                    connection.close()
                else:
                    contents[i] = content if reply.status == HTTPStatus.OK else None
                n_failed += contents[i] is None
                if n_failed >= FAILURES:
                    return

    with ThreadPoolExecutor(n_at_once) as pool:
        for done in [pool.submit(read_on) for _ in range(n_at_once)]:
            done.result()
    return contents


def _gathered(fs: Any, paths: Sequence[str], n_at_once: int) -> list[bytes | None]:
    """Read files whole, so many at once; after a few failures no more are asked for."""
    from asyncio import gather

    from fsspec.asyn import sync

    contents: list[bytes | None] = [None] * len(paths)
    left = iter(enumerate(paths))
    n_failed = 0

    async def read_on() -> None:
        nonlocal n_failed
        for i, path in left:
            if n_failed >= FAILURES:
                return
            try:
                contents[i] = bytes(await fs._cat_file(path))
            except Exception:  # whatever a protocol's library raises
                n_failed += 1

    async def read_all() -> None:
        await gather(*(read_on() for _ in range(n_at_once)))

    sync(fs.loop, read_all)
    return contents
