"""Gets the bytes of files from wherever they are, and measures them on the way: the shell around `transfer`.

Light: the job runner imports this.
"""

import errno
import hashlib
import logging
import os
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from queue import SimpleQueue
from threading import Thread
from typing import Any, Protocol

from loadmaster_registry.errors import StageError

from .checksum import Measured
from .endpoints import Endpoints, endpoint_of, steady_s
from .health import Health
from .location import local_path, remote
from .shards import piece_of, read_piece
from .transfer import Failed, Fault, GiveUp, Transfer, Wait, after, next_step

log = logging.getLogger(__name__)

REQUEST_BYTES = 16 << 20  # asked of a server at once: no more is lost when a connection breaks
_BLOCK_BYTES = 1 << 20
_N_BLOCKS = 4
_HASHED_BESIDE_BYTES = 32 << 20  # larger files are hashed by a thread of their own while they are written
_FLAKY = {errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EREMOTEIO, errno.ENOTCONN, errno.ESHUTDOWN}
_FINAL = (
    FileNotFoundError,
    PermissionError,
    IsADirectoryError,
    NotADirectoryError,
    ImportError,
    NotImplementedError,
)
_HTTP_RETRIED = {408, 425, 429}


class Part:
    """A file that is being written, and the checksum of what it has so far.

    Parameters
    ----------
    descriptor : int
        Open for reading and writing. What is in the file counts as begun.
    """

    def __init__(self, descriptor: int, algorithm: str) -> None:
        self.descriptor = descriptor
        self._algorithm = algorithm
        self._digest = hashlib.new(algorithm)
        self.offset = 0
        os.lseek(descriptor, 0, os.SEEK_SET)
        while block := os.read(descriptor, _BLOCK_BYTES):
            self.hash(block)
            self.offset += len(block)

    def write(self, block: bytes | memoryview) -> None:
        """Add bytes to the file; `hash` is to get the same."""
        left = memoryview(block)
        try:
            while left:
                left = left[os.write(self.descriptor, left) :]
        except OSError as error:
            raise _NotWritten(error) from error
        self.offset += len(block)

    def hash(self, block: bytes | memoryview) -> None:
        """Add bytes to the checksum."""
        self._digest.update(block)

    def restart(self) -> None:
        """Forget what came."""
        os.ftruncate(self.descriptor, 0)
        os.lseek(self.descriptor, 0, os.SEEK_SET)
        self._digest = hashlib.new(self._algorithm)
        self.offset = 0

    @property
    def measured(self) -> Measured:
        """What the file has now."""
        return Measured(self.offset, f"{self._algorithm}:{self._digest.hexdigest()}")


class Mover:
    """Moves bytes, within what a site allows.

    Parameters
    ----------
    patience_s : float
        How long it waits for endpoints that are paused, before it gives up.
    """

    def __init__(self, endpoints: Endpoints, patience_s: float) -> None:
        self._endpoints = endpoints
        self._patience_s = patience_s

    def fetch(self, urls: Sequence[str], promised: Measured, part: Part) -> Measured:
        """Bring the bytes that `urls` have alike into `part`; wait, try again and go on where it broke off.

        Returns
        -------
        measured : Measured
            What came: it has what was promised.

        Raises
        ------
        StageError
            If none of them has what was promised, or none answers for as long as the site is patient.
        OSError
            If the bytes cannot be written.
        """
        transfer = Transfer.begin([(url, endpoint_of(url)) for url in urls], steady_s(), self._patience_s)
        tried = ""
        while True:
            health = {r.endpoint: self._endpoints.health(r.endpoint) for r in transfer.replicas}
            step = next_step(transfer, health, steady_s())
            if isinstance(step, GiveUp):
                raise _not_had(urls[0], step)
            if isinstance(step, Wait):
                log.info("waiting until=%.0f url=%s why=%s", step.until, urls[0], step.why)
                time.sleep(max(0.0, step.until - steady_s()))
                continue
            if tried and tried != step.url and not promised.checksum:
                part.restart()  # nobody knows that the other replica has the same
            tried = step.url
            endpoint = transfer.endpoint_of(step.url)
            with self._endpoints.slot(endpoint):
                if self._endpoints.health(endpoint).until > steady_s():
                    continue  # it was paused while this one waited for its turn
                failed = _broken_off(step.url, promised, part)
                if failed is None:
                    self._endpoints.answered(endpoint)
                    return part.measured
                transfer = self._noted(transfer, failed, endpoint)

    def _noted(self, transfer: Transfer, failed: Failed, endpoint: str) -> Transfer:
        if failed.fault == "transport":
            health = self._endpoints.failed(endpoint, failed.why)
            log.warning("broke off url=%s failures=%d why=%s", failed.url, health.failures, failed.why)
        else:
            self._endpoints.answered(endpoint)
            health = Health()
        return after(transfer, failed, health)


class _NotWritten(Exception):  # noqa: N818
    """The place where the bytes go refuses them; the source is not to blame."""

    def __init__(self, why: OSError) -> None:
        super().__init__(why)
        self.why = why


def _broken_off(url: str, promised: Measured, part: Part) -> Failed | None:
    """Try to get the rest; None where all came as promised."""
    fault: Fault
    is_resumed = part.offset > 0
    try:
        _receive(url, promised.size_bytes, part)
    except _NotWritten as error:
        raise error.why from None
    except Exception as error:  # whatever a protocol's library raises
        fault, why = _fault_of(error, url), str(error) or type(error).__name__
    else:
        why = part.measured.differs_from(promised.size_bytes, promised.checksum)
        if not why:
            return None
        is_read_again = local_path(url) is None or is_resumed
        fault = "wrong" if is_read_again else "final"
    offset = part.offset
    if fault in ("wrong", "final"):
        part.restart()
    return Failed(url, fault, why, steady_s(), offset, random.random())


class _Source(Protocol):
    def readinto(self, buffer: memoryview, /) -> int | None: ...


def _receive(url: str, size_bytes: int, part: Part) -> None:
    """Read what is left of the file at `url` into `part`."""
    if (piece := piece_of(url)) is not None:
        part.restart()
        content = read_piece(piece)
        part.write(content)
        part.hash(content)
        return
    if (path := local_path(url)) is not None:
        with open(path, "rb", buffering=0) as source:
            source.seek(part.offset)
            _pour(source, part, os.fstat(source.fileno()).st_size - part.offset)
        return
    try:
        fs, inner = remote(url)
    except ValueError as error:  # no such protocol
        raise NotImplementedError(str(error)) from None
    if not part.offset and 0 <= size_bytes <= REQUEST_BYTES:
        block = fs.cat_file(inner)  # one request; to open a file costs another, to ask for its size
        part.write(block)
        part.hash(block)
        return
    try:
        with _opened(fs, inner) as stream:
            if part.offset and not _is_at(stream, part.offset):
                part.restart()
            _stream(stream, part)
    except ValueError:  # a web server that cannot begin in the middle, which shows only when it is asked to
        part.restart()
        with fs.open(inner, "rb", block_size=0) as stream:
            _stream(stream, part)


@contextmanager
def _opened(fs: Any, inner: str) -> Iterator[Any]:
    """Open a file of which each read is one request."""
    try:
        stream = fs.open(inner, "rb", block_size=REQUEST_BYTES, cache_type="none")
    except TypeError:  # a file system that knows no such settings
        stream = fs.open(inner, "rb")
    with stream:
        yield stream


def _is_at(stream: Any, offset: int) -> bool:
    """Go to `offset`, if the protocol can."""
    try:
        return bool(stream.seekable()) and stream.seek(offset) == offset
    except (OSError, NotImplementedError):
        return False


def _stream(stream: Any, part: Part) -> None:
    while block := stream.read(REQUEST_BYTES):
        part.write(block)
        part.hash(block)


def _pour(source: _Source, part: Part, n_bytes: int) -> None:
    if n_bytes < _HASHED_BESIDE_BYTES:
        block = memoryview(bytearray(min(_BLOCK_BYTES, max(n_bytes, 1))))
        while n := source.readinto(block):
            part.hash(block[:n])
            part.write(block[:n])
        return
    with _hashed_beside(part) as (empty, full):
        while n := source.readinto(block := empty.get()):
            full.put((block, n))
            part.write(block[:n])


_Blocks = tuple[SimpleQueue[memoryview], SimpleQueue[tuple[memoryview, int] | None]]


@contextmanager
def _hashed_beside(part: Part) -> Iterator[_Blocks]:
    """Hash blocks in a thread, in order, and give them back; all are hashed when the block ends."""
    empty: SimpleQueue[memoryview] = SimpleQueue()
    full: SimpleQueue[tuple[memoryview, int] | None] = SimpleQueue()
    for _ in range(_N_BLOCKS):
        empty.put(memoryview(bytearray(_BLOCK_BYTES)))

    def hash_all() -> None:
        while (item := full.get()) is not None:
            block, n = item
            part.hash(block[:n])
            empty.put(block)

    thread = Thread(target=hash_all)
    thread.start()
    try:
        yield empty, full
    finally:
        full.put(None)
        thread.join()


def _fault_of(error: Exception, url: str) -> Fault:
    if isinstance(error, _FINAL):
        return "final"
    if local_path(url) is not None:
        return "transport" if isinstance(error, OSError) and error.errno in _FLAKY else "final"
    status = getattr(error, "status", None)  # of aiohttp and its like
    if isinstance(status, int) and 400 <= status < 500 and status not in _HTTP_RETRIED:
        return "final"
    return "transport"


def _not_had(url: str, step: GiveUp) -> StageError:
    return StageError(
        what="the file cannot be had",
        where=url,
        why=step.why,
        todo="see what is wrong with server or network (`loadmaster status` says since when), then give the same "
        "command again"
        if step.is_patience_over
        else "see that the file is there, whole and readable, then run the same command again",
    )
