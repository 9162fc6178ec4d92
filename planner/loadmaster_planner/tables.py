"""Many tables in one file, each readable by row range: a zip archive whose members are Arrow chunks.

A member ``NAME/K`` holds rows ``K × CHUNK_ROWS`` onward of table NAME. Opening reads the archive's directory only,
and a range of rows only the chunks that hold it, whatever the size of the file.
"""

import errno
import io
import json
import os
import zipfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Protocol

import polars as pl
from loadmaster_registry.errors import PlanError

CHUNK_ROWS = 1 << 16
_EPOCH = (1980, 1, 1, 0, 0, 0)  # a fixed time stamp, so that equal content makes equal bytes


class Tables(Protocol):
    """Tables by name, in memory or in a file."""

    def rows(self, name: str, start: int, stop: int) -> pl.DataFrame:
        """Return rows `start` to `stop` (not included) of a table."""
        ...


class MemoryTables:
    """Tables that were just made."""

    def __init__(self, frames: Mapping[str, pl.DataFrame]) -> None:
        self.frames = frames

    def rows(self, name: str, start: int, stop: int) -> pl.DataFrame:
        """Return rows `start` to `stop` (not included) of a table."""
        return self.frames[name][start:stop]


class FileTables:
    """Tables in a file, read a chunk at a time; the last chunks read are kept."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with _reading(path, "its directory"):
            self._archive = zipfile.ZipFile(path)
            self.header: dict[str, Any] = json.loads(self._archive.read("header.json"))
        self._chunk = lru_cache(maxsize=256)(self._read_chunk)

    def rows(self, name: str, start: int, stop: int) -> pl.DataFrame:
        """Return rows `start` to `stop` (not included) of a table."""
        if start >= stop:
            return self._chunk(name, 0).clear()
        first, last = start // CHUNK_ROWS, (stop - 1) // CHUNK_ROWS
        chunks = [self._chunk(name, k) for k in range(first, last + 1)]
        whole = chunks[0] if len(chunks) == 1 else pl.concat(chunks)
        return whole[start - first * CHUNK_ROWS : stop - first * CHUNK_ROWS]

    def _read_chunk(self, name: str, k: int) -> pl.DataFrame:
        with _reading(self.path, f"table {name}, chunk {k}"):
            return pl.read_ipc(io.BytesIO(self._archive.read(f"{name}/{k}")))


@contextmanager
def _reading(path: Path, what: str) -> Iterator[None]:
    """Turn all that damaged bytes make the readers of archive, JSON and Arrow stumble over into one error."""
    try:
        yield
    except FileNotFoundError as error:
        raise PlanError("there is no such plan file", str(path), str(error), "check the path") from None
    except OSError as error:
        if error.errno not in (None, errno.EINVAL):  # the system's own, and not of a place that no file has
            raise
        raise damaged(path, f"{what}: {error}") from None
    except Exception as error:
        raise damaged(path, f"{what}: {error}") from None


def damaged(path: Path, why: str) -> PlanError:
    """Say that a plan file is not what was written."""
    return PlanError(
        "the plan file is damaged, or no plan file", str(path), why, "copy it again, or plan again"
    )


def write_tables(path: Path, header: Mapping[str, Any], frames: Mapping[str, pl.DataFrame]) -> None:
    """Write all tables to `path`, which appears complete or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
            _add(archive, "header.json", json.dumps(header, sort_keys=True).encode())
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                for name, frame in frames.items():
                    chunks = range(max(1, -(-frame.height // CHUNK_ROWS)))
                    for k, content in enumerate(pool.map(partial(_chunk, frame), chunks)):
                        _add(archive, f"{name}/{k}", content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _chunk(frame: pl.DataFrame, k: int) -> memoryview:
    chunk = io.BytesIO()
    frame[k * CHUNK_ROWS : (k + 1) * CHUNK_ROWS].write_ipc(chunk, compression="lz4")
    return chunk.getbuffer()


def _add(archive: zipfile.ZipFile, name: str, content: bytes | memoryview) -> None:
    archive.writestr(zipfile.ZipInfo(name, _EPOCH), content)
