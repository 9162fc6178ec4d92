"""How big bytes are and what their checksum is, measured in the one pass that reads or moves them.

Light: the job runner imports this.
"""

import hashlib
from dataclasses import dataclass
from typing import Protocol

from loadmaster_registry.errors import StageError

from .location import local_path, remote

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
    """Read all of the file at `url` and return its size and checksum."""
    if (path := local_path(url)) is not None:
        with open(path, "rb", buffering=0) as stream:
            return copy(stream, None, algorithm)
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
