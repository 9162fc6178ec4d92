"""Raw frames into a repository: first the files, then, batch by batch in one transaction, all their rows.

A frame is named by its instrument, detector and exposure, and has the same uuid in every repository. The same
file again is a no-op; another file for the same frame is a `Conflict`.

A visit's region is the convex hull of its detectors' regions. Where its detectors come in several batches it
grows with each of them, in the transaction that takes them in; it never shrinks. A plan made in between knows
what was there then.
"""

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from uuid import UUID, uuid4, uuid5

import polars as pl
from loadmaster_registry.errors import Conflict, Error, NotFound, StageError
from loadmaster_registry.names import dataset_path
from loadmaster_registry.records import Collection, CollectionType, DatasetType
from loadmaster_registry.store import Registry
from loadmaster_registry.transaction import Transaction

from .backbone import Backbone, NameTaken
from .checksum import Measured, algorithm_of, copy, measure
from .frame import RawFrame, read_frame
from .instrument import Instrument, Scalar
from .location import join, local_path, remote
from .observations import insert_observations, register_instrument

RAW = "raw"
STORAGE_CLASS = "Exposure"
NAMESPACE = UUID(
    "840b31d9-05cd-5161-b2c8-00d32b280d0f"
)  # Rubin's, so that its repositories have the same ids
_EXTENSION = re.compile(r"\.(fits?|fts)(\.(gz|fz|bz2|xz))?$", re.IGNORECASE)

Mode = Literal["copy", "link", "direct"]
OnError = Literal["stop", "skip"]


@dataclass(frozen=True)
class Problem:
    """A file that was not taken, and why."""

    file: str
    error: Error


@dataclass(frozen=True)
class IngestReport:
    """What an ingest did."""

    taken: tuple[str, ...] = ()  # files that became datasets
    known: tuple[str, ...] = ()  # files that had become datasets before
    problems: tuple[Problem, ...] = ()
    exposures: int = 0  # new records of them
    visits: int = 0
    size_bytes: int = 0  # of what was taken

    def __add__(self, other: "IngestReport") -> "IngestReport":
        return IngestReport(
            self.taken + other.taken,
            self.known + other.known,
            self.problems + other.problems,
            self.exposures + other.exposures,
            self.visits + other.visits,
            self.size_bytes + other.size_bytes,
        )


def ingest(
    registry: Registry,
    backbone: Backbone | str,
    instrument: Instrument,
    files: Iterable[str | Path],
    *,
    mode: Mode = "copy",
    run: str | None = None,
    on_error: OnError = "stop",
    batch_size: int = 200,
) -> IngestReport:
    """Take raw frames into a repository.

    Parameters
    ----------
    backbone : Backbone or str
        Where files are kept; a str is the URL of its root.
    files : iterable of paths
        Files, and folders in which the instrument's pattern finds files.
    mode : {"copy", "link", "direct"}
        Whether files are copied, hard-linked (copied where that cannot be; the original must not change any
        more), or left where they are and named by their absolute path.
    run : str, optional
        The RUN collection that gets them; ``INSTRUMENT/raw/all`` by default.
    on_error : {"stop", "skip"}
        Whether a file that cannot be taken ends the ingest, with nothing of its batch taken, or is reported
        at the end. Records that contradict the registry's always end it.
    batch_size : int
        So many files are registered by one transaction.

    Raises
    ------
    StageError
        If a file cannot be read, is cut off, or its header not understood.
    Conflict
        If a frame is there already with other bytes (both files are named), or a record with other values.
    """
    target = backbone if isinstance(backbone, Backbone) else Backbone(backbone)
    order = _Order(registry, target, instrument, mode, run or f"{instrument.name}/raw/all", on_error)
    with registry.transaction() as transaction:
        register_instrument(transaction, instrument)
        transaction.register_dataset_type(_raw_type(registry))
        transaction.register_collection(Collection(order.run, CollectionType.RUN))
    report = IngestReport()
    paths = frame_files(instrument, files)
    for start in range(0, len(paths), batch_size):
        report += _ingest_batch(order, paths[start : start + batch_size])
    return report


def frame_files(instrument: Instrument, files: Iterable[str | Path]) -> list[Path]:
    """Return the files among `files`, and those that the instrument's pattern finds in folders."""
    found: dict[Path, None] = {}
    for file in files:
        path = Path(file).absolute()
        inside = sorted(path.rglob(instrument.files.pattern)) if path.is_dir() else [path]
        found |= dict.fromkeys(p for p in inside if not p.is_dir())
    return list(found)


def raw_id(data_id: Mapping[str, int | str]) -> UUID:
    """Return the uuid of the raw frame with this (required) data ID, the same in every repository."""
    values = ",".join(f"{key}={value}" for key, value in sorted(data_id.items()))
    return uuid5(NAMESPACE, f"dataset_type={RAW},{values}")


@dataclass(frozen=True)
class _Order:
    """What is asked for."""

    registry: Registry
    backbone: Backbone
    instrument: Instrument
    mode: Mode
    run: str
    on_error: OnError


@dataclass(frozen=True)
class _Placed:
    """A frame whose bytes are on their way, or there."""

    frame: RawFrame
    data_id: Mapping[str, int | str]
    id: UUID
    measured: Measured
    url: str  # as the registry will have it
    staged: str  # "" where nothing is moved


@dataclass
class _Batch:
    """What is known of a batch so far."""

    placed: list[_Placed] = field(default_factory=list)
    known: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def _ingest_batch(order: _Order, paths: Sequence[Path]) -> IngestReport:
    """Take some files in: all that can be taken becomes visible, or, where an error is raised, nothing."""
    batch = _Batch()
    frames = list(_readable(order, batch, paths))
    folder = order.backbone.staging_url(order.run, uuid4().hex)
    published: list[_Placed] = []
    try:
        _stage(order, batch, frames, folder)
        _publish(order, batch, published)
        exposures, visits = _register(order, batch.placed)
    except BaseException:
        _take_back(order, published)
        raise
    finally:
        order.backbone.remove_staged(folder)
    return IngestReport(
        taken=tuple(str(p.frame.path) for p in batch.placed),
        known=tuple(batch.known),
        problems=tuple(batch.problems),
        exposures=exposures,
        visits=visits,
        size_bytes=sum(p.measured.size_bytes for p in batch.placed),
    )


@contextmanager
def _judged(order: _Order, batch: _Batch, path: Path) -> Iterator[None]:
    """Note what is wrong with a file, or let it end the batch, as the order says."""
    try:
        yield
    except (StageError, Conflict) as error:
        if order.on_error == "stop":
            raise
        batch.problems.append(Problem(str(path), error))


def _readable(order: _Order, batch: _Batch, paths: Sequence[Path]) -> Iterator[RawFrame]:
    """Return the frames that can be read and agree with each other on their exposures."""
    seen: dict[Scalar, RawFrame] = {}
    for path in paths:
        with _judged(order, batch, path):
            frame = read_frame(path, order.instrument)
            _check_agree(seen.setdefault(frame.exposure["exposure"], frame), frame)
            yield frame


def _check_agree(first: RawFrame, second: RawFrame) -> None:
    different = [key for key, value in second.exposure.items() if first.exposure.get(key) != value]
    if different:
        key = different[0]
        raise Conflict(
            what=f"two frames of exposure {first.exposure['exposure']} contradict each other",
            where=f"{first.path} and {second.path}",
            why=f"{key} is {first.exposure.get(key)!r} in one and {second.exposure[key]!r} in the other",
            todo="correct the headers or the instrument's description: an exposure has one record",
        )


def _stage(order: _Order, batch: _Batch, frames: Iterable[RawFrame], folder: str) -> None:
    """Bring the bytes of new frames next to where they will be, and measure them."""
    frames = list(frames)
    there = _there(order, frames)
    for number, frame in enumerate(frames):
        with _judged(order, batch, frame.path):
            data_id = _data_id(order, frame)
            id = raw_id(data_id)
            if id in there:
                _check_same(order, frame.path, there[id])
                batch.known.append(str(frame.path))
                continue
            extension = _extension(frame.path)
            staged = join(folder, f"{number}{extension}") if order.mode != "direct" else ""
            measured = _moved(frame.path, staged, order.mode)
            url = dataset_path(order.run, RAW, data_id, extension) if staged else str(frame.path)
            batch.placed.append(_Placed(frame, data_id, id, measured, url, staged))
            there[id] = (str(frame.path), measured.checksum)


def _there(order: _Order, frames: Sequence[RawFrame]) -> dict[UUID, tuple[str, str]]:
    """Return url and checksum ("" unknown) of the exposures' frames that the run has already."""
    exposures = sorted({f.exposure["exposure"] for f in frames})  # type: ignore[type-var]
    keep = {"instrument": [order.instrument.name], "exposure": exposures}
    with order.registry.snapshot() as snapshot:
        rows = snapshot.datasets(RAW, [order.run], keep=keep)  # type: ignore[arg-type]
        files = snapshot.files(rows["dataset"])
    return {
        UUID(bytes=row["id"]): (row["url"] or "", row["checksum"] or "")
        for row in files.iter_rows(named=True)
    }


def _check_same(order: _Order, path: Path, there: tuple[str, str]) -> None:
    """Refuse a file for a frame whose file, registered or just before in the batch, has other bytes."""
    url, checksum = order.backbone.url(there[0]), there[1]
    if not checksum:
        checksum = order.backbone.measure(there[0]).checksum
    if _measured(path, algorithm_of(checksum)).checksum != checksum:
        raise Conflict(
            what="two different files claim to be one frame",
            where=f"{path} and {url}",
            why="instrument, exposure and detector are the same in both, the bytes are not",
            todo="find out which one is right; the first one stays as it is",
        )


def _measured(path: Path, algorithm: str) -> Measured:
    try:
        return measure(str(path), algorithm)
    except OSError as error:
        raise _lost(path, error) from error


def _moved(path: Path, staged: str, mode: Mode) -> Measured:
    """Link or copy a file to `staged` and measure it; only measure it where nothing is staged."""
    try:
        target = local_path(staged) if staged else None
        if target is None:
            return _sent(path, staged) if staged else measure(str(path))
        target.parent.mkdir(parents=True, exist_ok=True)
        if mode == "link" and _is_linked(path, target):
            return measure(str(target))
        with open(path, "rb", buffering=0) as source, open(target, "xb", buffering=0) as sink:
            return copy(source, sink)
    except OSError as error:
        raise _lost(path, error) from error


def _is_linked(path: Path, target: Path) -> bool:
    try:
        os.link(path.resolve(), target)
    except FileNotFoundError:
        raise
    except OSError:  # another file system, or one without hard links
        return False
    return True


def _sent(path: Path, staged: str) -> Measured:
    fs, inner = remote(staged)
    fs.makedirs(inner.rpartition("/")[0], exist_ok=True)
    with open(path, "rb", buffering=0) as source, fs.open(inner, "wb") as sink:
        return copy(source, sink)


def _publish(order: _Order, batch: _Batch, published: list[_Placed]) -> None:
    """Make staged files visible; what this call made so is added to `published`."""
    for placed in [p for p in batch.placed if p.staged]:
        with _judged(order, batch, placed.frame.path):
            try:
                order.backbone.publish(placed.staged, placed.url)
                published.append(placed)
            except NameTaken:
                _check_left_over(order, placed)
    refused = {problem.file for problem in batch.problems}
    batch.placed = [p for p in batch.placed if str(p.frame.path) not in refused]


def _check_left_over(order: _Order, placed: _Placed) -> None:
    """Accept a file that a killed ingest of the same bytes has left behind; refuse another one."""
    _check_same(order, placed.frame.path, (placed.url, ""))


def _register(order: _Order, placed: Sequence[_Placed]) -> tuple[int, int]:
    """Insert all rows of a batch; return how many exposures and visits are new."""
    if not placed:
        return 0, 0
    with order.registry.transaction() as transaction:
        counts = insert_observations(transaction, order.instrument, [p.frame for p in placed])
        rows = [
            {
                **p.data_id,
                "id": p.id.bytes,
                "url": p.url,
                "size_bytes": p.measured.size_bytes,
                "checksum": p.measured.checksum,
            }
            for p in placed
        ]
        transaction.insert_datasets(RAW, order.run, pl.DataFrame(rows))
        for p in placed:
            if p.staged and not order.backbone.exists(
                p.url
            ):  # taken back by the ingest that had made it visible
                raise _vanished(p)
        return counts


def _take_back(order: _Order, published: Sequence[_Placed]) -> None:
    """Remove what this call made visible, except what another call has registered since.

    A writing transaction keeps others from registering these files in between.
    """
    if not published:
        return
    with order.registry.transaction() as transaction:
        for placed in published:
            if not _is_registered(transaction, placed):
                order.backbone.withdraw(placed.staged, placed.url, checksum=placed.measured.checksum)


def _is_registered(transaction: Transaction, placed: _Placed) -> bool:
    try:
        return transaction.find(placed.id).url == placed.url
    except NotFound:
        return False


def _raw_type(registry: Registry) -> DatasetType:
    return DatasetType(RAW, registry.universe.group(("exposure", "detector")), STORAGE_CLASS)


def _data_id(order: _Order, frame: RawFrame) -> dict[str, int | str]:
    """Return the frame's required dimensions in the universe's order."""
    values = {**frame.exposure, "detector": frame.detector}
    found = {}
    for dimension in _raw_type(order.registry).dimensions.required:
        value = values[dimension]
        assert isinstance(value, int | str)
        found[dimension] = value
    return found


def _extension(path: Path) -> str:
    match = _EXTENSION.search(path.name)
    return match[0].lower() if match else path.suffix


def _lost(path: Path, error: OSError) -> StageError:
    return StageError(
        what=f"{path.name} could not be brought to the backbone",
        where=str(path),
        why=str(error),
        todo="see that the storage is there, writable and not full, then run the same command again",
    )


def _vanished(placed: _Placed) -> StageError:
    return StageError(
        what=f"the file of {placed.frame.path.name} is gone from the backbone",
        where=placed.url,
        why="another ingest of the same frame had put it there, failed, and took it back",
        todo="run the same command again",
    )
