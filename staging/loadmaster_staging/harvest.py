"""Outputs of jobs come home: verified, published, registered, freed. `machine` decides, this module acts.

Many jobs go into one transaction of the registry; each of them is in it wholly or not at all.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from uuid import UUID

import polars as pl
from loadmaster_registry import holdings
from loadmaster_registry.errors import Conflict, NotFound, StageError
from loadmaster_registry.names import run_folder
from loadmaster_registry.records import Collection, CollectionType, DatasetType
from loadmaster_registry.store import Registry
from loadmaster_registry.transaction import Transaction

from .backbone import Backbone, Gone, NameTaken, run_token
from .checksum import algorithm_of, measure
from .location import staged
from .machine import (
    Action,
    Event,
    Free,
    Freed,
    Homecoming,
    Publish,
    Published,
    Record,
    Recorded,
    Refusal,
    Refused,
    Register,
    Registered,
    Spoiled,
    Taken,
    Verified,
    Verify,
    Withdraw,
    Withdrawn,
    begin,
    step,
)
from .manifest import Manifest, Outcome, QuantumReport, QuantumSpec, Report, StagedFile
from .shards import LARGEST_BYTES, SMALL_STORAGE_CLASSES, piece_of
from .stage import REPORT_NAME, staged_signature

_QUANTUM_STATUS = {"succeeded": "succeeded", "no_work": "no_work", "missing_output": "partial"}


@dataclass(frozen=True, slots=True)
class Reported:
    """A job with its report."""

    manifest: Manifest
    report: Report
    is_resumed: bool = False  # an earlier life may have harvested it, in part or whole


@dataclass(frozen=True, slots=True)
class Harvested:
    """What the harvest made of a job."""

    manifest: Manifest
    report: Report
    outcome: Outcome  # the report's, or failed where the harvest refused
    refusal: Refusal = ""
    message: str = ""
    packed: Mapping[str, str] = field(default_factory=dict)  # path of each output that is a piece of a shard


def open_run(registry: Registry, run: str, types: Iterable[DatasetType]) -> None:
    """Make the RUN and the dataset types of its outputs known, so that jobs can be harvested into it."""
    with registry.transaction() as transaction:
        transaction.register_collection(Collection(run, CollectionType.RUN))
        for type in types:
            transaction.register_dataset_type(type)


def harvest(
    jobs: Sequence[Reported],
    registry: Registry,
    backbone: Backbone,
    types: Mapping[str, DatasetType],
    record: Callable[[Sequence[Harvested]], None],
) -> list[Harvested]:
    """Bring the outputs of jobs home; to be called again with the same jobs after any interruption.

    Parameters
    ----------
    types : mapping
        The dataset types of all outputs, by name.
    record : callable
        Writes what became of the jobs into the run's journal; from then on they are not given again.

    Raises
    ------
    StageError, RegistryError
        If storage or database cannot be written at all. Nothing is lost: the same call goes on.
    """
    harvest = _Harvest(registry, backbone, types)
    tracks = [_Track(job, types) for job in jobs]
    for track in tracks:
        harvest.begin(track)
    _go(tracks, Verify, lambda found: backbone.each(harvest.verified, found))
    _go(tracks, Publish, harvest.published)
    _go(tracks, Register, harvest.registered)
    _go(tracks, Withdraw, lambda found: backbone.each(harvest.withdrawn, found))
    harvested = [track.harvested() for track in tracks]
    record(harvested)
    _go(tracks, Record, lambda found: [Recorded() for _ in found])
    _go(tracks, Free, lambda found: backbone.each(harvest.freed, found))
    return harvested


def drop_unused_shards(registry: Registry, backbone: Backbone, run: str, owner: str) -> None:
    """Remove the shards that nobody refers to: a harvest that was killed had begun to fill them.

    Parameters
    ----------
    owner : str
        The token of a run folder: whoever calls is the only one who harvests for it, and has come to the end.
    """
    if there := backbone.shards(run_folder(run), owner):
        with registry.snapshot() as now:
            pieces = map(piece_of, holdings.packed(now, run))
        used = {piece.shard_url for piece in pieces if piece is not None}
        for path in sorted(set(there) - used):
            backbone.remove_shard(path)


class _Track:
    """One job on its way: what the machine asks for is done for many jobs at once."""

    def __init__(self, job: Reported, types: Mapping[str, DatasetType]) -> None:
        self.job = job
        self.declared = {
            file.dataset_id: file for quantum in job.manifest.quanta for file in quantum.deliverables
        }
        self.files = [file for quantum in job.report.quanta for file in quantum.outputs]
        self.small = [file for file in self.files if self._is_small(file, types)]
        small = {file.dataset_id for file in self.small}
        self.large = [file for file in self.files if file.dataset_id not in small]
        self.packed: dict[str, str] = {}  # path of each small output
        self.state: Homecoming
        self.action: Action | None

    def begin(self, *, registered: bool) -> None:
        failed = self.job.report.outcome == "failed"
        self.state, self.action = begin(failed=failed, registered=registered)

    def hear(self, event: Event) -> None:
        self.state, self.action = step(self.state, event)

    def harvested(self) -> Harvested:
        outcome = "failed" if self.state.refusal else self.job.report.outcome
        return Harvested(
            self.job.manifest,
            self.job.report,
            outcome,
            self.state.refusal,
            self.state.message,
            self.packed,
        )

    def url(self, file: StagedFile) -> str:
        return staged(self.job.manifest.staging_url, file.name)

    def path(self, file: StagedFile) -> str:
        """Return where a file belongs; "" if nobody declared it."""
        declared = self.declared.get(file.dataset_id)
        if declared is None:
            return ""
        return declared.parts.get(file.part, "") if file.part else declared.path

    def what_is_undeclared(self) -> str:
        """Say in what the report is about other things than the manifest; "" where it is not."""
        if [q.id for q in self.job.report.quanta] != [q.id for q in self.job.manifest.quanta]:
            return "the report is about other quanta than the job's"
        parts: dict[str, set[str]] = {}
        for file in self.files:
            if file.dataset_id not in self.declared:
                return f"the report names an output {file.dataset_id} that the job does not have"
            parts.setdefault(file.dataset_id, set()).add(file.part)
        for id, there in parts.items():
            if differing := there ^ {"", *self.declared[id].parts}:
                kind = self.declared[id].dataset_type
                return (
                    f"{kind!r} comes whole or not at all, and these parts do not match: {sorted(differing)}"
                )
        return ""

    def _is_small(self, file: StagedFile, types: Mapping[str, DatasetType]) -> bool:
        declared = self.declared.get(file.dataset_id)
        if declared is None or declared.parts or file.size_bytes > LARGEST_BYTES:
            return False
        return types[declared.dataset_type].storage_class in SMALL_STORAGE_CLASSES


def _go(tracks: Sequence[_Track], kind: type[Action], act: Callable[[list[_Track]], Sequence[Event]]) -> None:
    """Do an action for all jobs whose turn it is."""
    if found := [track for track in tracks if isinstance(track.action, kind)]:
        for track, event in zip(found, act(found), strict=True):
            track.hear(event)


class _Harvest:
    """Does what the machine asks for."""

    def __init__(self, registry: Registry, backbone: Backbone, types: Mapping[str, DatasetType]) -> None:
        self._registry = registry
        self._backbone = backbone
        self._types = types

    def begin(self, track: _Track) -> None:
        """Begin with a job; an earlier life may have registered it."""
        track.begin(registered=track.job.is_resumed and self._is_registered(track))

    def verified(self, track: _Track) -> Event:
        if wrong := track.what_is_undeclared():
            return Spoiled(wrong)
        for file in track.files:
            try:
                wrong = self._what_is_wrong(track, file)
            except FileNotFoundError:
                return self._missed(track, f"{file.name} is gone from the staging area")
            if wrong:
                return Spoiled(f"{file.name} is not what the job reported: {wrong}")
        return Verified()

    def published(self, tracks: Sequence[_Track]) -> list[Event]:
        """Make large outputs visible by their names, and keep the small ones of all jobs in a shard."""
        events = self._backbone.each(self._with_large_published, tracks)
        read = self._backbone.each(self._small_contents, tracks)
        groups: dict[tuple[str, str, str], list[tuple[_Track, StagedFile, bytes]]] = {}
        for i, (track, contents) in enumerate(zip(tracks, read, strict=True)):
            if contents is None:
                events[i] = self._missed(track, "a small output is gone from the staging area")
            elif isinstance(events[i], Published):
                for file, content in zip(track.small, contents, strict=True):
                    folder, owner = (
                        run_folder(track.job.manifest.run),
                        run_token(track.job.manifest.staging_url),
                    )
                    key = folder, owner, PurePosixPath(track.path(file)).suffix
                    groups.setdefault(key, []).append((track, file, content))
        for key, members in groups.items():
            paths = self._backbone.pack(*key, [content for _, _, content in members])
            for (track, file, _), path in zip(members, paths, strict=True):
                track.packed[file.dataset_id] = path
        return events

    def registered(self, tracks: Sequence[_Track]) -> list[Event]:
        """Register all jobs at once; where one of them is refused, each by itself."""
        try:
            with self._registry.transaction() as transaction:
                n_known = _insert(tracks, transaction, self._types)
        except Conflict as error:
            if len(tracks) > 1:
                return [event for track in tracks for event in self.registered([track])]
            what, _, why, _ = error.args
            return [Refused(f"{what}: {why}")]
        if n_known:  # by another harvester, who packed small outputs elsewhere
            for track in tracks:
                self._is_registered(track)
        return [Registered() for _ in tracks]

    def withdrawn(self, track: _Track) -> Event:
        for file in track.large:
            if path := track.path(file):
                self._backbone.withdraw(track.url(file), path, checksum=file.checksum)
        return Withdrawn()

    def freed(self, track: _Track) -> Event:
        """Remove what was staged: by name, or, of a job that failed, whatever there is."""
        prefix, report = track.job.manifest.staging_url, track.job.report
        if report.outcome == "failed" or track.state.refusal:
            names = self._backbone.names_staged_by(prefix)
        else:
            logs = (quantum.log for quantum in report.quanta if quantum.log)
            names = [*(file.name for file in track.files), *logs, REPORT_NAME]
        self._backbone.remove_staged(*(staged(prefix, name) for name in names))
        return Freed()

    def _is_registered(self, track: _Track) -> bool:
        """Whether the registry has a job's outputs: one stands for all, which came in one transaction."""
        with suppress(NotFound):
            for file in track.files[:1]:
                self._registry.find(UUID(file.dataset_id))
            for file in track.small:
                track.packed[file.dataset_id] = self._registry.find(UUID(file.dataset_id)).url
            return bool(track.files)
        return False

    def _missed(self, track: _Track, message: str) -> Event:
        """Say what it means that something staged is gone: another harvester was here, or it is lost."""
        return Registered() if self._is_registered(track) else Spoiled(message)

    def _with_large_published(self, track: _Track) -> Event:
        try:
            for file in track.large:
                self._backbone.publish(track.url(file), track.path(file), resumed_checksum=file.checksum)
        except NameTaken as error:
            return Taken(error.args[0])
        except Gone as error:
            return self._missed(track, f"{error.args[0]}: {error.args[2]}")
        return Published()

    def _small_contents(self, track: _Track) -> list[bytes] | None:
        """Return what small outputs hold; None where one is gone, or is not what was reported any more."""
        contents = []
        for file in track.small:
            content = self._backbone.read_staged(track.url(file))
            if content is None or len(content) != file.size_bytes:
                return None
            contents.append(content)
        return contents

    def _what_is_wrong(self, track: _Track, file: StagedFile) -> str:
        """Say how what is staged differs from what the job reported; read only what was changed since then.

        Raises
        ------
        FileNotFoundError
            If it is gone, and was not published by moving it either.
        """
        url = track.url(file)
        try:
            if file.signature and staged_signature(url) == file.signature:
                return ""
            measured = measure(url, algorithm_of(file.checksum))
        except FileNotFoundError:
            if file in track.small or not self._backbone.exists(track.path(file)):
                raise
            measured = self._backbone.measure(track.path(file), algorithm_of(file.checksum))
        except OSError as error:
            raise _unreadable(url, error) from error
        return measured.differs_from(file.size_bytes, file.checksum)


def _unreadable(url: str, error: OSError) -> StageError:
    return StageError(
        what="what a job staged cannot be read",
        where=url,
        why=str(error),
        todo="see to the storage, then run the same command again",
    )


def _insert(tracks: Sequence[_Track], transaction: Transaction, types: Mapping[str, DatasetType]) -> int:
    """Insert quanta and datasets of jobs, and return how many of the datasets were there already."""
    transaction.insert_quanta(*_provenance([track.job for track in tracks]))
    n_known = 0
    parts = _parts(tracks)
    for (run, name), rows in _datasets(tracks, types).items():
        own = parts.join(rows.select("id"), on="id", how="semi") if parts.height else None
        n_known += rows.height - transaction.insert_datasets(name, run, rows, own)
    return n_known


def _provenance(jobs: Sequence[Reported]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the rows of quanta that ran, and of what they read."""
    quanta, inputs = [], []
    for job in jobs:
        ran = [(spec, report) for spec, report in _pairs(job) if report.status in _QUANTUM_STATUS]
        quanta += [_quantum_row(job, spec, report) for spec, report in ran]
        inputs += _input_rows(job, ran)
    return (
        _with_uuids(pl.DataFrame(quanta, schema=_QUANTUM_COLUMNS, orient="row"), "id"),
        _with_uuids(pl.DataFrame(inputs, schema=_INPUT_COLUMNS, orient="row"), "quantum", "dataset_id"),
    )


def _input_rows(
    job: Reported, ran: Sequence[tuple[QuantumSpec, QuantumReport]]
) -> list[tuple[str, str, str]]:
    """Return what quanta of a job read.

    A dataset that was handed on in memory is named by its id, to which no dataset belongs; what it was made from
    is read by way of it, so that no lineage ends there.
    """
    made = {file.dataset_id for quantum in job.report.quanta for file in quantum.outputs}
    own = {file.dataset_id for quantum in job.manifest.quanta for file in quantum.outputs}
    succeeded = (spec for spec, report in ran if report.status == "succeeded")
    elided = {file.dataset_id for spec in succeeded for file in spec.outputs if file.is_elided}
    # Of elided datasets: id and way of what they were made from.
    origin: dict[str, list[tuple[str, str]]] = {}
    rows: list[tuple[str, str, str]] = []
    for spec, _ in ran:
        read: dict[tuple[str, str], None] = {}
        for file in spec.inputs:
            if file.dataset_id in made or file.dataset_id in elided or file.dataset_id not in own:
                read[file.dataset_id, file.connection] = None
                ways = ((id, f"{file.connection} via {way}") for id, way in origin.get(file.dataset_id, ()))
                read.update(dict.fromkeys(ways))
        rows += [(spec.id, id, way) for id, way in read]
        stored = [(id, f"{spec.task}.{way}") for id, way in read if id not in elided]
        origin |= {file.dataset_id: stored for file in spec.outputs if file.is_elided}
    return rows


_QUANTUM_COLUMNS = {
    "id": pl.String,
    "run": pl.String,
    "task": pl.String,
    "data_id": pl.String,
    "attempt": pl.Int64,
    "status": pl.String,
    "host": pl.String,
    "started": pl.String,
    "ended": pl.String,
    "code_digest": pl.String,
    "config_digest": pl.String,
    "environment_digest": pl.String,
    "sandbox": pl.String,
    "software": pl.String,
}
_INPUT_COLUMNS = {"quantum": pl.String, "dataset_id": pl.String, "connection": pl.String}
_PART_COLUMNS = {
    "id": pl.String,
    "name": pl.String,
    "url": pl.String,
    "size_bytes": pl.Int64,
    "checksum": pl.String,
    "content": pl.String,
}
_FILE_COLUMNS = {
    "id": pl.String,
    "url": pl.String,
    "size_bytes": pl.Int64,
    "checksum": pl.String,
    "content": pl.String,
    "quantum": pl.String,
}


def _quantum_row(job: Reported, spec: QuantumSpec, report: QuantumReport) -> tuple[object, ...]:
    return (
        spec.id,
        job.manifest.run,
        spec.task,
        json.dumps(dict(spec.data_id), sort_keys=True, separators=(",", ":")),
        job.manifest.attempt,
        _QUANTUM_STATUS[report.status],
        job.report.host,
        job.report.started,
        job.report.ended,
        spec.code_digest,
        spec.config_digest,
        spec.environment_digest,
        job.report.sandbox,
        job.report.software,
    )


def _datasets(
    tracks: Sequence[_Track], types: Mapping[str, DatasetType]
) -> dict[tuple[str, str], pl.DataFrame]:
    """Return the rows of outputs that came home, by run and dataset type."""
    data_ids: dict[tuple[str, str], list[Mapping[str, int | str]]] = {}
    files: dict[tuple[str, str], list[tuple[object, ...]]] = {}
    for track in tracks:
        run, declared, packed = track.job.manifest.run, track.declared, track.packed
        for spec, report in _pairs(track.job):
            for made in report.outputs:
                if made.part:
                    continue
                file = declared[made.dataset_id]
                key = run, file.dataset_type
                data_ids.setdefault(key, []).append(file.data_id)
                url = packed.get(made.dataset_id, file.path)
                facts = (made.size_bytes, made.checksum, made.content or None)
                row = (made.dataset_id, url, *facts, spec.id)
                files.setdefault(key, []).append(row)
    return {key: _dataset_frame(types[key[1]], data_ids[key], rows) for key, rows in files.items()}


def _parts(tracks: Sequence[_Track]) -> pl.DataFrame:
    """Return the rows of the files that datasets have beside their own."""
    rows = [
        (
            *(file.dataset_id, file.part, track.path(file)),
            *(file.size_bytes, file.checksum, file.content or None),
        )
        for track in tracks
        for file in track.files
        if file.part
    ]
    return _with_uuids(pl.DataFrame(rows, schema=_PART_COLUMNS, orient="row"), "id")


def _dataset_frame(
    type: DatasetType, data_ids: Sequence[Mapping[str, int | str]], files: Sequence[tuple[object, ...]]
) -> pl.DataFrame:
    required = type.dimensions.required
    keys = [pl.Series(name, [data_id[name] for data_id in data_ids]) for name in required]
    found = _with_uuids(pl.DataFrame(files, schema=_FILE_COLUMNS, orient="row"), "id", "quantum")
    return pl.DataFrame([*keys, *found])


def _with_uuids(rows: pl.DataFrame, *columns: str) -> pl.DataFrame:
    """Return the rows with ids as the 16 bytes that they stand for."""
    return rows.with_columns(pl.col(columns).str.replace_all("-", "", literal=True).str.decode("hex"))


def _pairs(job: Reported) -> Iterable[tuple[QuantumSpec, QuantumReport]]:
    return zip(job.manifest.quanta, job.report.quanta, strict=True)
