"""Outputs of jobs come home: verified, published, registered, freed. `machine` decides, this module acts.

Many jobs go into one transaction of the registry; each of them is in it wholly or not at all.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

import polars as pl
from loadmaster_registry.errors import Conflict, NotFound, StageError
from loadmaster_registry.records import Collection, CollectionType, DatasetType
from loadmaster_registry.store import Registry
from loadmaster_registry.transaction import Transaction

from .backbone import Backbone, NameTaken
from .checksum import Measured, algorithm_of, measure
from .location import join
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
from .manifest import Manifest, Outcome, OutputFile, QuantumReport, QuantumSpec, Report, StagedFile

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
    tracks = [_Track(job, backbone, registered=_is_registered(job, registry)) for job in jobs]
    for track in tracks:
        track.go()
    _register([track for track in tracks if isinstance(track.action, Register)], registry, types)
    for track in tracks:
        track.go()
    harvested = [track.harvested() for track in tracks]
    record(harvested)
    for track in tracks:
        track.hear(Recorded())
        track.go()
    return harvested


class _Track:
    """One job on its way: what the machine asks of its files is done here, what it asks of others waits."""

    def __init__(self, job: Reported, backbone: Backbone, *, registered: bool) -> None:
        self.job = job
        self._backbone = backbone
        declared = (file for quantum in job.manifest.quanta for file in quantum.outputs)
        self._declared: dict[str, OutputFile] = {file.dataset_id: file for file in declared}
        self._staged = {file.dataset_id: file for quantum in job.report.quanta for file in quantum.outputs}
        self.state: Homecoming
        self.action: Action | None
        failed = job.report.outcome == "failed"
        outputs = tuple(id for id in self._staged if id in self._declared)
        self.state, self.action = begin(outputs, failed=failed, registered=registered)

    def go(self) -> None:
        """Act until it is someone else's turn."""
        while self.action is not None and not isinstance(self.action, Register | Record):
            self.hear(self._act(self.action))

    def hear(self, event: Event) -> None:
        self.state, self.action = step(self.state, event)

    def harvested(self) -> Harvested:
        outcome = "failed" if self.state.refusal else self.job.report.outcome
        return Harvested(self.job.manifest, self.job.report, outcome, self.state.refusal, self.state.message)

    def _act(self, action: Action) -> Event:
        match action:
            case Verify():
                return self._verify()
            case Publish(output):
                return self._publish(self._staged[output])
            case Withdraw(output):
                staged = self._staged[output]
                path = self._declared[output].path
                self._backbone.withdraw(self._url(staged), path, checksum=staged.checksum)
                return Withdrawn()
            case Free():
                self._backbone.remove_staged(self.job.manifest.staging_url)
                return Freed()
        raise AssertionError(f"{action} is not an act on files")

    def _verify(self) -> Event:
        if [q.id for q in self.job.report.quanta] != [q.id for q in self.job.manifest.quanta]:
            return Spoiled("the report is about other quanta than the job's")
        for staged in self._staged.values():
            if staged.dataset_id not in self._declared:
                return Spoiled(f"the report names an output {staged.dataset_id} that the job does not have")
            if wrong := self._what_is_wrong(staged):
                return Spoiled(f"{staged.name} is not what the job reported: {wrong}")
        for staged in self._staged.values():
            path = self._declared[staged.dataset_id].path
            if self._backbone.is_taken(self._url(staged), path, resumed_checksum=staged.checksum):
                return Taken(f"there is a file at {self._backbone.url(path)} already")
        return Verified()

    def _what_is_wrong(self, staged: StagedFile) -> str:
        measured = _measured(self._url(staged), staged.checksum)
        if measured is None:  # published by moving, and perhaps freed, before an interruption
            measured = _measured(self._backbone.url(self._declared[staged.dataset_id].path), staged.checksum)
        if measured is None:
            return "it is gone"
        return measured.differs_from(staged.size_bytes, staged.checksum)

    def _publish(self, staged: StagedFile) -> Event:
        path = self._declared[staged.dataset_id].path
        try:
            self._backbone.publish(self._url(staged), path, resumed_checksum=staged.checksum)
        except NameTaken as error:
            return Taken(error.args[0])
        return Published()

    def _url(self, staged: StagedFile) -> str:
        return join(self.job.manifest.staging_url, staged.name)


def _is_registered(job: Reported, registry: Registry) -> bool:
    """Whether the registry has the outputs of a job; one stands for all, which came in one transaction."""
    ids = [file.dataset_id for quantum in job.report.quanta for file in quantum.outputs]
    if not job.is_resumed or not ids:
        return False
    try:
        registry.find(UUID(ids[0]))
    except NotFound:
        return False
    return True


def _measured(url: str, checksum: str) -> Measured | None:
    try:
        return measure(url, algorithm_of(checksum))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StageError(
            what="what a job staged cannot be read",
            where=url,
            why=str(error),
            todo="see to the storage, then run the same command again",
        ) from error


def _register(tracks: Sequence[_Track], registry: Registry, types: Mapping[str, DatasetType]) -> None:
    """Register all jobs at once; where one of them is refused, each by itself."""
    if not tracks:
        return
    try:
        with registry.transaction() as transaction:
            _insert([track.job for track in tracks], transaction, types)
    except Conflict as error:
        if len(tracks) == 1:
            what, _, why, _ = error.args
            tracks[0].hear(Refused(f"{what}: {why}"))
            return
        for track in tracks:
            _register([track], registry, types)
        return
    for track in tracks:
        track.hear(Registered())


def _insert(jobs: Sequence[Reported], transaction: Transaction, types: Mapping[str, DatasetType]) -> None:
    quanta, inputs = _provenance(jobs)
    transaction.insert_quanta(quanta, inputs)
    for (run, name), rows in _datasets(jobs, types).items():
        transaction.insert_datasets(name, run, rows)


def _provenance(jobs: Sequence[Reported]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the rows of quanta that ran, and of what they read."""
    quanta, inputs = [], []
    for job in jobs:
        ran = [(spec, report) for spec, report in _pairs(job) if report.status in _QUANTUM_STATUS]
        quanta += [_quantum_row(job, spec, report) for spec, report in ran]
        inputs += _input_rows(job, ran)
    return (
        pl.DataFrame(quanta, schema=_QUANTUM_SCHEMA, orient="row"),
        pl.DataFrame(inputs, schema=_INPUT_SCHEMA, orient="row"),
    )


def _input_rows(
    job: Reported, ran: Sequence[tuple[QuantumSpec, QuantumReport]]
) -> list[tuple[bytes, bytes, str]]:
    """Return what quanta of a job read.

    A dataset that was handed on in memory is named by its id, to which no dataset belongs; what it was made from
    is read by way of it, so that no lineage ends there.
    """
    made = {file.dataset_id for quantum in job.report.quanta for file in quantum.outputs}
    own = {file.dataset_id for quantum in job.manifest.quanta for file in quantum.outputs}
    succeeded = (spec for spec, report in ran if report.status == "succeeded")
    elided = {file.dataset_id for spec in succeeded for file in spec.outputs if file.is_elided}
    origin: dict[
        str, list[tuple[str, str]]
    ] = {}  # of elided datasets: id and way of what they were made from
    rows: list[tuple[bytes, bytes, str]] = []
    for spec, _ in ran:
        read: dict[tuple[str, str], None] = {}
        for file in spec.inputs:
            if file.dataset_id in made or file.dataset_id in elided or file.dataset_id not in own:
                read[file.dataset_id, file.connection] = None
                ways = ((id, f"{file.connection} via {way}") for id, way in origin.get(file.dataset_id, ()))
                read.update(dict.fromkeys(ways))
        rows += [(UUID(spec.id).bytes, UUID(id).bytes, way) for id, way in read]
        stored = [(id, f"{spec.task}.{way}") for id, way in read if id not in elided]
        origin |= {file.dataset_id: stored for file in spec.outputs if file.is_elided}
    return rows


_QUANTUM_SCHEMA = {
    "id": pl.Binary,
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
}
_INPUT_SCHEMA = {"quantum": pl.Binary, "dataset_id": pl.Binary, "connection": pl.String}


def _quantum_row(job: Reported, spec: QuantumSpec, report: QuantumReport) -> tuple[object, ...]:
    return (
        UUID(spec.id).bytes,
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
    )


def _datasets(
    jobs: Sequence[Reported], types: Mapping[str, DatasetType]
) -> dict[tuple[str, str], pl.DataFrame]:
    """Return the rows of outputs that came home, by run and dataset type."""
    rows: dict[tuple[str, str], list[tuple[object, ...]]] = {}
    for job in jobs:
        for spec, report in _pairs(job):
            declared = {file.dataset_id: file for file in spec.outputs}
            for staged in report.outputs:
                file = declared[staged.dataset_id]
                row = _dataset_row(spec, file, staged, types[file.dataset_type])
                rows.setdefault((job.manifest.run, file.dataset_type), []).append(row)
    return {key: _dataset_frame(types[key[1]], found) for key, found in rows.items()}


def _dataset_row(
    spec: QuantumSpec, file: OutputFile, staged: StagedFile, type: DatasetType
) -> tuple[object, ...]:
    data_id = (file.data_id[dimension] for dimension in type.dimensions.required)
    made_by = UUID(spec.id).bytes
    return (*data_id, UUID(file.dataset_id).bytes, file.path, staged.size_bytes, staged.checksum, made_by)


def _dataset_frame(type: DatasetType, rows: Sequence[tuple[object, ...]]) -> pl.DataFrame:
    columns = (*type.dimensions.required, "id", "url", "size_bytes", "checksum", "quantum")
    return pl.DataFrame(rows, schema=columns, orient="row")


def _pairs(job: Reported) -> Iterable[tuple[QuantumSpec, QuantumReport]]:
    return zip(job.manifest.quanta, job.report.quanta, strict=True)
