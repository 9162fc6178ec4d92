"""What FITS files say of themselves, in the header of their first HDU."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from astropy.io import fits

from ..file_provenance import FileProvenance, provenance_keys
from . import Recipe, unreadable
from .content import ALGORITHM, Tee

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_CARD, _BLOCK = 80, 2880
_FIRST, _END = b"SIMPLE  =", b"END".ljust(_CARD)
_READ_BYTES = 1 << 20


class FitsContent:
    """The digest of a FITS file without the keys, from all its bytes in their order."""

    def __init__(self) -> None:
        self._digest = hashlib.new(ALGORITHM)
        self._header = bytearray()  # the first, as far as it has come
        self._is_over = False

    def update(self, data: "ReadableBuffer", /) -> None:
        """Take more bytes."""
        if self._is_over:
            self._digest.update(data)
            return
        before = len(self._header) // _BLOCK * _BLOCK
        self._header += memoryview(data).cast("B")
        end = _end_of_header(self._header, before)
        if end or not self._header.startswith(_FIRST[: len(self._header)]):
            self._digest.update(without_keys(bytes(self._header[:end])))
            self._digest.update(self._header[end:])
            self._header.clear()
            self._is_over = True

    def digest(self) -> str:
        """Return the digest of all that came."""
        whole = self._digest.copy()
        whole.update(self._header)
        return f"{ALGORITHM}:{whole.hexdigest()}"


def read_header(path: Path) -> Mapping[str, Any]:
    """Return the header of the first HDU; nothing else of the file is read."""
    header: Mapping[str, Any] = dict(fits.getheader(path, 0))
    return header


def add_provenance(header: Any, provenance: FileProvenance | None) -> None:
    """Write the keys into a header, in place of any that speak of another file."""
    drop_provenance(header)
    if provenance is None:
        return
    for key, value in provenance.keys(" ").items():
        header[f"HIERARCH {key}"] = _printable(value)


def write_told(hdus: Any, stream: IO[bytes], recipe: Recipe) -> str | None:
    """Write a file that says of itself what it is to say; return the digest of its content if it says anything."""
    add_provenance(hdus[0].header, recipe.provenance)
    if recipe.provenance is None:
        hdus.writeto(stream)
        return None
    content = FitsContent()
    hdus.writeto(Tee(stream, content))
    return content.digest()


def label(path: Path, provenance: FileProvenance) -> str:
    """Write the keys into the first header of a file that is there, and return the digest of its content."""
    content = FitsContent()
    with open(path, "rb", buffering=0) as stream:
        while block := stream.read(_READ_BYTES):
            content.update(block)
    try:
        with fits.open(path, mode="update", memmap=False) as hdus:
            add_provenance(hdus[0].header, provenance)
    except OSError as error:
        raise unreadable(path, f"it is no FITS file: {error}") from error
    return content.digest()


def drop_provenance(header: Any) -> None:
    """Take the keys out of a header: they speak of the file, not of the object that was in it."""
    for key in provenance_keys(header):
        del header[key]


def without_keys(header: bytes) -> bytes:
    """Return a header, as a file has it, without the keys, and without blank cards at its end: keys fill them."""
    cards = [header[at : at + _CARD] for at in range(0, len(header), _CARD)]
    kept: list[bytes] = []
    is_key = False
    for card in cards[: cards.index(_END)] if _END in cards else ():
        if not (is_key and card.startswith(b"CONTINUE")):
            is_key = card.startswith(b"HIERARCH ") and bool(
                provenance_keys([card[9:].partition(b"=")[0].strip().decode("ascii", "replace")])
            )
        if not is_key:
            kept.append(card)
    while kept and not kept[-1].strip():
        kept.pop()
    whole = b"".join([*kept, _END]) if cards else b""
    return whole.ljust(-(-len(whole) // _BLOCK) * _BLOCK)


def _end_of_header(data: bytearray, begin: int) -> int:
    """Return where the first header ends, at or after `begin`; 0 if it has not come yet."""
    for block in range(begin, len(data) - _BLOCK + 1, _BLOCK):
        last = data[block : block + _BLOCK].rstrip()
        if last.endswith(b"END") and (len(last) - 3) % _CARD == 0:
            return block + _BLOCK
    return 0


def _printable(value: int | str) -> int | str:
    """Return the value as FITS can hold it: printable ASCII."""
    return value.encode("ascii", "backslashreplace").decode() if isinstance(value, str) else value
