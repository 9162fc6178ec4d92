"""The Arrow schema in a Parquet file, with metadata: where pyarrow, and with it Rubin's readers, look for them.

Polars writes the schema without metadata [1]_, and readers that find a schema ignore what stands beside it. So
ours goes in: a schema message of the Arrow format [2]_, whose tables are put in front of those that there are.

References
----------
.. [1] https://arrow.apache.org/docs/format/Columnar.html#custom-application-metadata
.. [2] https://flatbuffers.dev/internals: tables refer forwards to what they hold, and back to their vtable
"""

import base64
import struct
from collections.abc import Mapping

KEY = "ARROW:schema"
_MARKER = 8  # bytes before the message: a mark of continuation, and its length
_SCHEMA, _FIELDS = 2, 1  # places of the header in a message, and of the fields in a schema


def with_metadata(schema: str, metadata: Mapping[str, str]) -> str:
    """Return a schema (base64, as the file has it) with these texts added."""
    old = base64.b64decode(schema)[_MARKER:]
    fields = _follow(old, _follow(old, struct.unpack_from("<I", old)[0], _SCHEMA), _FIELDS)
    texts = [(key.encode(), value.encode()) for key, value in metadata.items()]
    front = _front(texts)
    # Where the fields are is known only now: their place is written into the slot that waits for it.
    struct.pack_into("<I", front, 44, len(front) + fields - 44)
    message = bytes(front) + old
    message += b"\0" * (-len(message) % 8)
    return base64.b64encode(struct.pack("<Ii", 0xFFFFFFFF, len(message)) + message).decode()


def _front(texts: list[tuple[bytes, bytes]]) -> bytearray:
    """Return a message with a schema with a list of texts; bytes 44 to 48 wait for the place of its fields."""
    front = bytearray()
    front += struct.pack("<I", 16)  # the message is at 16
    front += struct.pack("<5H2x", 10, 12, 8, 10, 4)  # at 4, its vtable: version at 8, type at 10, header at 4
    front += struct.pack("<iIhBx", 12, 20, 4, 1)  # version 5 (counted from 0), a schema, which is at 40
    front += struct.pack("<5H2x", 10, 12, 0, 4, 8)  # at 28, the schema's vtable: fields at 4, metadata at 8
    front += struct.pack("<iII", 12, 0, 12)  # the schema; its list of metadata is at 60
    front += struct.pack("<4H", 8, 12, 4, 8)  # at 52, the vtable of all texts: key at 4, value at 8
    front += struct.pack("<I", len(texts))
    pairs_at = len(front) + 4 * len(texts)
    bodies = [_text(key) + _text(value) for key, value in texts]
    texts_at = pairs_at + 12 * len(texts)
    pairs = bytearray()
    for number, ((key, _), body) in enumerate(zip(texts, bodies, strict=True)):
        pair_at = pairs_at + 12 * number
        slot = 60 + 4 + 4 * number
        front += struct.pack("<I", pair_at - slot)
        value_at = texts_at + len(_text(key))
        pairs += struct.pack("<iII", pair_at - 52, texts_at - pair_at - 4, value_at - pair_at - 8)
        texts_at += len(body)
    front += pairs + b"".join(bodies)
    front += b"\0" * (-len(front) % 8)
    return front


def _text(text: bytes) -> bytes:
    return struct.pack("<I", len(text)) + text + b"\0" * (4 - len(text) % 4)


def _follow(buffer: bytes, table: int, field: int) -> int:
    """Return where the value is to which a field of the table at `table` refers."""
    vtable = table - struct.unpack_from("<i", buffer, table)[0]
    slot = table + struct.unpack_from("<H", buffer, vtable + 4 + 2 * field)[0]
    return int(slot + struct.unpack_from("<I", buffer, slot)[0])
