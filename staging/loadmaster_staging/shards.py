"""Small files in few large ones, the shards: appended to, and read by range.

The URL of what a shard holds is the shard's with the range behind it: ``RUN/.shards/1f0c.shard.json#512+86``.

Light: the job runner imports this.
"""

import errno
import os
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from .location import as_os_errors, join, local_path, remote

SHARD_FOLDER = ".shards"
LARGEST_BYTES = 1 << 20  # what is larger stays a file of its own
ROLL_BYTES = 128 << 20  # a shard that has so much is closed
# What the framework itself writes for each quantum, and nobody opens with other software.
SMALL_STORAGE_CLASSES = frozenset({"TaskMetadata", "ButlerLogRecords", "Config", "Packages"})

_PIECE = re.compile(r"(.+\.shard(\.\w+))#(\d+)\+(\d+)")


@dataclass(frozen=True, slots=True)
class Piece:
    """A range of a shard that is a file of its own for whoever reads it."""

    shard_url: str
    extension: str  # of the file that it would be, with the dot
    offset: int
    size_bytes: int


def piece_of(url: str) -> Piece | None:
    """Return the piece that a URL names; None for a file."""
    found = _PIECE.fullmatch(url) if "#" in url else None
    return Piece(found[1], found[2], int(found[3]), int(found[4])) if found else None


def read_piece(piece: Piece) -> bytes:
    """Return the bytes of a piece.

    Raises
    ------
    FileNotFoundError
        If there is no such shard, or it ends before the piece does.
    OSError
        If it cannot be read.
    """
    path = local_path(piece.shard_url)
    if path is None:
        with as_os_errors():
            fs, inner = remote(piece.shard_url)
            content = bytes(fs.cat_file(inner, start=piece.offset, end=piece.offset + piece.size_bytes))
    else:
        with open(path, "rb", buffering=0) as stream:
            content = os.pread(stream.fileno(), piece.size_bytes, piece.offset)
    if len(content) != piece.size_bytes:
        raise FileNotFoundError(
            errno.ENOENT,
            f"the shard ends {piece.size_bytes - len(content)} bytes before this piece does",
            piece.shard_url,
        )
    return content


class Shards:
    """Where one process puts small files of one kind; no other one writes to its shards.

    What a killed process had begun to append is referred to by nobody.

    Parameters
    ----------
    folder_url : str
        Where its shards are.
    extension : str
        Of the files that are put into them, with the dot.
    prefix : str
        With what the names of its shards begin.
    """

    def __init__(self, folder_url: str, extension: str, prefix: str = "") -> None:
        self._folder_url = folder_url
        self._prefix = prefix
        self._extension = extension
        self._name = ""
        self._size_bytes = 0

    def append(self, contents: Sequence[bytes]) -> list[str]:
        """Put files into a shard, and return for each the URL below the folder.

        Raises
        ------
        OSError
            If they cannot be written; none of them counts then.
        """
        if not contents:
            return []
        folder = local_path(self._folder_url)
        name, begin = self._name, self._size_bytes
        self._name = ""  # after a failure nobody knows where the file ends: the next one begins another
        is_new = folder is None or not name or begin >= ROLL_BYTES
        if is_new:
            name, begin = f"{self._prefix}{secrets.token_hex(8)}.shard{self._extension}", 0
        whole = b"".join(contents)
        if folder is None:
            with as_os_errors():
                fs, inner = remote(join(self._folder_url, name))
                fs.pipe_file(inner, whole)
        else:
            folder.mkdir(parents=True, exist_ok=True)
            with open(folder / name, "xb" if is_new else "ab", buffering=0) as stream:
                if stream.seek(0, os.SEEK_END) != begin or stream.write(whole) != len(whole):
                    raise OSError(errno.EIO, "the shard could not be written whole", str(folder / name))
            self._name, self._size_bytes = name, begin + len(whole)
        urls = []
        for content in contents:
            urls.append(f"{name}#{begin}+{len(content)}")
            begin += len(content)
        return urls
