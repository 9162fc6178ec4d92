"""What a file is beside what it says of itself, as a digest: equal for equal content, whichever run made it.

It is the checksum that the file would have without the keys of its provenance, taken while it is written.
Light: jobs import it.
"""

import hashlib
from typing import IO, TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer as Buffer

ALGORITHM = "sha256"


class Content(Protocol):
    """What takes the bytes of a file in their order, and leaves the keys out."""

    def update(self, data: "Buffer", /) -> None:
        """Take more bytes."""


class Tee:
    """A new file to write to, of which `content` hears too; one can neither read it nor go back in it."""

    def __init__(self, stream: IO[bytes], content: Content) -> None:
        self._stream = stream
        self._content = content
        self.closed = False  # astropy asks

    def write(self, data: "Buffer", /) -> int:
        """Write on."""
        self._content.update(data)
        return self._stream.write(data)

    def tell(self) -> int:
        """Return how much was written."""
        return self._stream.tell()

    def flush(self) -> None:
        """Write what is held back by the stream."""
        self._stream.flush()


def digest_of(data: "Buffer") -> str:
    """Return the digest of content that is there as a whole."""
    return f"{ALGORITHM}:{hashlib.new(ALGORITHM, data).hexdigest()}"
