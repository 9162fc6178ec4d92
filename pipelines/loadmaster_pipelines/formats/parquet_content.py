"""The content of Parquet files: their bytes as they would be if the metadata in the footer [1]_ said nothing of a run.

The footer comes last, as a structure in Thrift's compact protocol [2]_: a known list of texts can be exchanged in it.

References
----------
.. [1] https://parquet.apache.org/docs/file-format/
.. [2] https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md
"""

import hashlib
from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING

from .content import ALGORITHM

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_FOOTER_BYTES = 1 << 24  # beside the metadata: a hundred thousand columns in groups of rows
_TRAILER_BYTES = 8  # length of the footer, and the magic word
_MAGIC = b"PAR1"


class ParquetContent:
    """The digest of a Parquet file with other metadata, from all its bytes in their order.

    Parameters
    ----------
    metadata : mapping
        All that was given to the writer, in this order.
    bare : mapping
        The same without the keys.
    """

    def __init__(self, metadata: Mapping[str, str], bare: Mapping[str, str]) -> None:
        self._digest = hashlib.new(ALGORITHM)
        self._last: deque[bytes] = deque()  # what may be the footer
        self._n_last = 0
        self._written, self._bare = _texts(metadata), _texts(bare)

    def update(self, data: "ReadableBuffer", /) -> None:
        """Take more bytes."""
        self._last.append(bytes(data))
        self._n_last += len(self._last[-1])
        self._hold(_FOOTER_BYTES + len(self._written))

    def digest(self) -> str | None:
        """Return the digest of all that came; None if the metadata are not where they are looked for."""
        self._last.append(self._trailer())
        n_footer = int.from_bytes(self._last[-1][:4], "little")
        self._hold(n_footer + _TRAILER_BYTES)
        tail = b"".join(self._last)
        begin = len(tail) - n_footer - _TRAILER_BYTES
        footer = tail[begin:-_TRAILER_BYTES]
        if begin < 0 or footer.count(self._written) != 1:
            return None
        footer = footer.replace(self._written, self._bare)
        self._digest.update(tail[:begin])
        self._digest.update(footer + len(footer).to_bytes(4, "little") + _MAGIC)
        return f"{ALGORITHM}:{self._digest.hexdigest()}"

    def _hold(self, n: int) -> None:
        """Take what is surely before the last `n` bytes."""
        while self._last and self._n_last - len(self._last[0]) >= n:
            self._n_last -= len(self._last[0])
            self._digest.update(self._last.popleft())

    def _trailer(self) -> bytes:
        """Take the last bytes out of what is held, and return them."""
        last = b""
        while self._last and len(last) < _TRAILER_BYTES:
            last = self._last.pop() + last
        self._last.append(last[:-_TRAILER_BYTES])
        return last[-_TRAILER_BYTES:]


def _texts(metadata: Mapping[str, str]) -> bytes:
    """Return the field of the footer in which these metadata are: a list of pairs of texts."""
    n = len(metadata)
    head = bytes([n << 4 | 0xC]) if n < 15 else b"\xfc" + _number(n)
    pairs = (b"\x18" + _text(key) + b"\x18" + _text(value) + b"\0" for key, value in metadata.items())
    return b"\x19" + head + b"".join(pairs)


def _text(text: str) -> bytes:
    encoded = text.encode()
    return _number(len(encoded)) + encoded


def _number(value: int) -> bytes:
    """Return a number as seven bits a byte, the lowest first."""
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)
