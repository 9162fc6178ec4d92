"""What a job needs (Manifest) and what it did (Report): the values that travel between controller and job.

Light: the job runner imports this.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, Literal, get_args

from loadmaster_pipelines.connections import Connection
from loadmaster_registry.errors import StageError

Transfer = Literal[
    "direct",  # reflink, hard link, symbolic link or copy, whichever the file systems allow first
    "copy",
    "cache",  # through the site's cache, in which each object is once
]
Verify = Literal[
    "always",  # whatever a job is given was read through and is what was recorded
    "moved",  # bytes that stay where they are keep to their size, and are taken on trust
]
SandboxMode = Literal["enforce", "audit", "off"]
Status = Literal[
    "succeeded",
    "no_work",  # nothing to do: the task said so, or too little came from upstream
    "missing_output",
    "code_error",
    "signal",
    "stage_in_failed",
    "stage_out_failed",
    "overwrite_attempt",
    "undeclared_read",
    "node_lost",  # the job left no report, and nobody saw it end
    "blocked",  # an earlier quantum of the same job failed
]
Outcome = Literal["done", "no_work", "partial", "failed"]
HARMLESS: frozenset[Status] = frozenset({"succeeded", "no_work"})
# After one of these nobody knows what the files are worth: nothing of the job comes home.
FATAL: frozenset[Status] = frozenset(get_args(Status)) - HARMLESS - {"missing_output", "blocked"}


@dataclass(frozen=True, slots=True)
class Staging:
    """How a site brings inputs to jobs and outputs home: the same for all jobs that run there."""

    transfer: Transfer = "direct"
    cache: str = ""  # folder of the site's cache
    cache_bytes: int = -1  # what it may hold; -1 for no limit
    streams: int = 8  # transfers at once from or to one endpoint
    checksum: str = "sha256"  # of what is written
    sandbox: SandboxMode = "enforce"
    software: tuple[str, ...] = ()  # folders that jobs may read beside the system's and Python's
    junk_bytes: int = (
        -1
    )  # how much of undeclared files is brought home for each quantum; -1: none is asked for
    hidden: tuple[str, ...] = ()  # folders of data, which stay closed even where software is around them
    verify: Verify = "always"
    endpoints: str = ""  # folder for what its processes know of endpoints; the job's own where it is empty
    patience_s: float = 3600.0  # how long a job waits for inputs from endpoints that do not answer
    pause_s: float = 30.0  # how long such an endpoint is left alone at first
    is_offline: bool = False  # nothing is fetched from elsewhere: what the cache has not is not there
    # Where else files are: URL prefix → prefixes, in the order in which they are tried. Empty in a job's manifest,
    # in which each input has its replicas.
    mirrors: tuple[tuple[str, tuple[str, ...]], ...] = ()
    scratch_bytes: int = -1  # what the folders of all its jobs may hold at once; -1 for no limit


@dataclass(frozen=True, slots=True)
class InputFile:
    """One dataset that a quantum reads."""

    connection: str
    dataset_id: str
    dataset_type: str
    data_id: Mapping[str, int | str]  # required dimensions, then implied ones
    url: str  # "" where an earlier quantum of the same job makes it
    size_bytes: int = -1  # -1 unknown
    checksum: str = ""  # "" unknown
    replicas: tuple[str, ...] = ()  # where else the same bytes are, tried in this order after `url`
    run: str = ""


@dataclass(frozen=True, slots=True)
class OutputFile:
    """One dataset that a quantum must write."""

    connection: str
    dataset_id: str
    dataset_type: str
    data_id: Mapping[str, int | str]
    path: str  # below the backbone's root
    is_elided: bool = False  # handed on in memory to later quanta of the job, and not brought out
    parts: Mapping[str, str] = field(default_factory=dict)  # the same in other formats: name → path


@dataclass(frozen=True, slots=True)
class QuantumSpec:
    """One task on one data ID, complete: its code by name, its configuration, its files."""

    id: str
    task: str  # the label
    task_class: str | None  # either a class
    command: str | None  # or a command's template
    config: Mapping[str, Any]
    data_id: Mapping[str, int | str]
    connections: tuple[Connection, ...]
    inputs: tuple[InputFile, ...]
    outputs: tuple[OutputFile, ...]
    code_digest: str = ""
    config_digest: str = ""
    environment_digest: str = ""
    junk: OutputFile | None = None  # where undeclared files go, if they are wanted
    network: bool = False  # whether the task may use the network

    @property
    def deliverables(self) -> tuple[OutputFile, ...]:
        """What may come home: the outputs, and undeclared files where they are wanted."""
        return self.outputs if self.junk is None else (*self.outputs, self.junk)

    run: str = ""  # of its outputs


@dataclass(frozen=True, slots=True)
class Manifest:
    """All that one attempt at a job needs; its quanta run in order."""

    run: str
    job: int
    attempt: int
    token: str  # of this attempt; a report with another one is not its report
    staging_url: str  # with what all begins that this attempt stages; see `location.staged`
    staging: Staging
    cpus: int
    quanta: tuple[QuantumSpec, ...]
    scratch_bytes: int = -1  # what the job's folder will hold at most; -1 where nobody said


@dataclass(frozen=True, slots=True)
class StagedFile:
    """One output as it lies in the staging area."""

    dataset_id: str
    name: str
    size_bytes: int
    checksum: str
    # What would change if somebody wrote or replaced it after its checksum was taken; () where nothing tells.
    signature: tuple[int | str, ...] = ()
    part: str = ""  # name of the part of the dataset that it is; "" for the dataset's own file
    content: str = ""  # checksum that it would have without the keys of its provenance; "" where it has none


@dataclass(frozen=True, slots=True)
class QuantumReport:
    """What became of one quantum."""

    id: str
    status: Status
    error: str = ""  # the exception's class, the signal's name
    message: str = ""
    first_frame: str = ""  # the innermost line of the task's own code: "module.py:12 in run"
    traceback: str = ""
    log: str = ""  # file name beside the report; "" where nothing was said
    wall_s: float = 0.0
    cpu_s: float = 0.0
    outputs: tuple[StagedFile, ...] = ()
    undeclared: tuple[str, ...] = ()  # files that the task wrote and nobody declared, below the job's folder


@dataclass(frozen=True, slots=True)
class Report:
    """The job's word that all that it lists is in the staging area, written last."""

    run: str
    job: int
    attempt: int
    token: str
    outcome: Outcome
    quanta: tuple[QuantumReport, ...]
    host: str
    started: str  # ISO, UTC
    ended: str
    wall_s: float
    cpu_s: float
    peak_memory_mib: float
    bytes_read: int = 0
    bytes_written: int = 0
    sandbox: str = "off"  # the mode that was in force: enforce, audit or off
    software: str = ""  # digest of the versions of all that Python could import


def outcome_of(quanta: Sequence[QuantumReport]) -> Outcome:
    """Return what the quanta of a job make of it.

    Outputs that exist come home although others are missing (partial). Where code failed nothing does, and the
    whole job can be tried again.
    """
    statuses = {quantum.status for quantum in quanta}
    if statuses & FATAL:
        return "failed"
    if "missing_output" in statuses:
        return "partial" if any(quantum.outputs for quantum in quanta) else "failed"
    return "no_work" if statuses == {"no_work"} else "done"


def too_few_inputs(quantum: QuantumSpec, available: Iterable[str]) -> str:
    """Say which connection has too few of the `available` datasets for the quantum to run; "" if none has."""
    there = set(available)
    for connection in quantum.connections:
        if connection.is_read and not connection.is_init:
            n = sum(f.connection == connection.name and f.dataset_id in there for f in quantum.inputs)
            if n < connection.minimum:
                return f"{connection.name}: {n} of at least {connection.minimum} {connection.dataset_type!r}"
    return ""


def local_names(paths: Sequence[str]) -> list[str]:
    """Return a file name for each path, that of the path where no other has it; extensions stay."""
    names = [path.rsplit("/", 1)[-1] for path in paths]
    seen: set[str] = set()
    for i, name in enumerate(names):
        while name in seen:
            name = f"{i}-{name}"
        seen.add(name)
        names[i] = name
    return names


def to_json(value: Manifest | Report) -> str:
    """Write a manifest or report as one line of JSON."""
    return json.dumps(_plain(value), separators=(",", ":"))


def manifest_from_json(text: str | bytes) -> Manifest:
    """Read what `to_json` wrote."""
    try:
        body = json.loads(text)
        quanta = tuple(_quantum_spec(quantum) for quantum in body.pop("quanta"))
        staging = body.pop("staging")
        staging.update({name: tuple(staging[name]) for name in ("software", "hidden")})
        staging["mirrors"] = tuple((prefix, tuple(places)) for prefix, places in staging["mirrors"])
        return Manifest(**body, staging=Staging(**staging), quanta=quanta)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise _unreadable("manifest", error) from error


def report_from_json(text: str | bytes) -> Report:
    """Read what `to_json` wrote."""
    try:
        body = json.loads(text)
        quanta = tuple(_quantum_report(quantum) for quantum in body.pop("quanta"))
        return Report(**body, quanta=quanta)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise _unreadable("report", error) from error


def _quantum_spec(body: dict[str, Any]) -> QuantumSpec:
    connections = tuple(map(Connection.from_json, body.pop("connections")))
    inputs = tuple(InputFile(**{**f, "replicas": tuple(f["replicas"])}) for f in body.pop("inputs"))
    outputs = tuple(OutputFile(**file) for file in body.pop("outputs"))
    junk = body.pop("junk")
    return QuantumSpec(
        **body,
        connections=connections,
        inputs=inputs,
        outputs=outputs,
        junk=None if junk is None else OutputFile(**junk),
    )


def _quantum_report(body: dict[str, Any]) -> QuantumReport:
    for file in (files := body.pop("outputs")):
        file["signature"] = tuple(file["signature"])
    outputs = tuple(StagedFile(**file) for file in files)
    return QuantumReport(**{**body, "undeclared": tuple(body["undeclared"])}, outputs=outputs)


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return dict(value) if isinstance(value, Mapping) else value


def _unreadable(what: str, error: Exception) -> StageError:
    return StageError(
        what=f"this {what} cannot be read",
        where=f"a job's {what}",
        why=f"{type(error).__name__}: {error}",
        todo=f"it was written by another version of loadmaster, or is no {what}: run the job again",
    )
