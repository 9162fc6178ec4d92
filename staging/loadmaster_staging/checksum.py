"""How big bytes are and what their checksum is, measured in the one pass that reads or moves them.

Light: the job runner imports this.
"""

import hashlib
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Protocol

from loadmaster_registry.errors import StageError

from .location import as_os_errors, local_path, remote
from .shards import piece_of, read_piece

ALGORITHM = "sha256"  # of what is written; what is read is checked by the algorithm that its checksum names
BLOCK_BYTES = 1 << 20


class Reader(Protocol):
    """What bytes come out of."""

    def read(self, size: int = -1, /) -> bytes:
        """Return at most `size` bytes, none at the end."""


class Writer(Protocol):
    """What bytes go into."""

    def write(self, data: bytes, /) -> object:
        """Take all of `data`."""


@dataclass(frozen=True, slots=True)
class Measured:
    """Size and checksum of some bytes."""

    size_bytes: int
    checksum: str  # "sha256:…"

    def differs_from(self, size_bytes: int, checksum: str) -> str:
        """Say what is other than promised; "" where nothing is. -1 and "" promise nothing."""
        if size_bytes >= 0 and size_bytes != self.size_bytes:
            return f"it has {self.size_bytes} bytes, {size_bytes} were promised"
        if checksum and checksum != self.checksum:
            return f"its checksum is {self.checksum}, {checksum} was promised"
        return ""


def measure(url: str, algorithm: str = ALGORITHM) -> Measured:
    """Read all of the file, or of the piece of a shard, at `url` and return its size and checksum."""
    if (piece := piece_of(url)) is not None:
        return copy(BytesIO(read_piece(piece)), None, algorithm)
    if (path := local_path(url)) is not None:
        with open(path, "rb", buffering=0) as stream:
            digest = hashlib.file_digest(stream, algorithm)
            return Measured(stream.tell(), f"{algorithm}:{digest.hexdigest()}")
    with as_os_errors():
        fs, inner = remote(url)
        with fs.open(inner, "rb") as stream:
            return copy(stream, None, algorithm)


def copy(source: Reader, target: Writer | None, algorithm: str = ALGORITHM) -> Measured:
    """Move all bytes from `source` to `target` (None: nowhere) and measure them on the way."""
    digest = hashlib.new(algorithm)
    size_bytes = 0
    while block := source.read(BLOCK_BYTES):
        digest.update(block)
        size_bytes += len(block)
        if target is not None:
            target.write(block)
    return Measured(size_bytes, f"{algorithm}:{digest.hexdigest()}")


def pour(source: Reader, target: Any, algorithm: str = ALGORITHM) -> Measured:
    """Move all bytes from `source` to `target`, a new file of a store, and close it; broken off, it does not appear."""
    try:
        measured = copy(source, target, algorithm)
    except BaseException:
        with suppress(Exception):  # what is told is why it broke off
            target.discard()  # what stores keep of it meanwhile
        with suppress(AttributeError):  # in-memory files have no such switch
            target.closed = True  # closing, even by the garbage collector, would make it visible
        raise
    target.close()
    return measured


def algorithm_of(checksum: str) -> str:
    """Return the algorithm that a checksum names, ours where there is no checksum.

    Raises
    ------
    StageError
        If Python knows no such algorithm.
    """
    if not checksum:
        return ALGORITHM
    algorithm, _, _ = checksum.partition(":")
    if algorithm not in hashlib.algorithms_available or algorithm.startswith("shake"):
        raise StageError(
            what=f"the checksum {checksum!r} cannot be verified",
            where="a recorded checksum",
            why=f"{algorithm!r} is no algorithm that Python's hashlib has here",
            todo=f"record checksums as '{ALGORITHM}:' and hexadecimal digits",
        )
    return algorithm
