"""Why a quantum is run: what of its code, configuration, environment and inputs the nearest earlier one had not."""

import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any
from uuid import UUID

import polars as pl
from loadmaster_registry.errors import NotFound
from loadmaster_registry.provenance import QUANTUM_DIGESTS
from loadmaster_registry.snapshot import Snapshot

from .content import content_digest
from .earlier import WELL_ENDED
from .plan import Plan, PlannedQuantum

_LOOKED_AT = 20  # earlier quanta of one data ID, the newest


@dataclass(frozen=True, slots=True)
class InputFact:
    """One dataset that a quantum reads."""

    connection: str
    dataset_type: str  # empty, as all else, for what the registry does not hold
    data_id: tuple[tuple[str, int | str], ...]  # required dimensions
    id: str  # empty for what is to be made first
    content: str  # digest of the file without what it says of the run that made it; empty where unknown

    @property
    def place(self) -> tuple[object, ...]:
        """What stays the same when another dataset takes its place."""
        return self.connection, self.dataset_type, self.data_id or self.id


@dataclass(frozen=True, slots=True)
class QuantumFacts:
    """What decides whether another quantum can stand for one."""

    task: str
    data_id: Mapping[str, int | str]
    id: str
    run: str
    status: str  # "planned", or how it ended
    started: str  # ISO text; empty for a planned one
    ended: str
    digests: Mapping[str, str]  # by `QUANTUM_DIGESTS`
    inputs: tuple[InputFact, ...]


@dataclass(frozen=True, slots=True)
class InputDifference:
    """One input that is not the same."""

    connection: str
    dataset_type: str
    data_id: Mapping[str, int | str]
    earlier: InputFact | None
    now: InputFact | None

    @property
    def kind(self) -> str:
        """How it differs: added, gone, to be made, content, or only the dataset with the same content."""
        if self.earlier is None or self.now is None:
            return "added" if self.earlier is None else "gone"
        if not self.now.id:
            return "to be made"
        both = self.earlier.content and self.now.content
        return "same content" if both and self.earlier.content == self.now.content else "content"


@dataclass(frozen=True, slots=True)
class Why:
    """A quantum beside the nearest earlier one."""

    now: QuantumFacts
    earlier: QuantumFacts | None  # none where the registry records none of its task and data ID
    digests: Mapping[str, tuple[str, str]]  # those that differ: (earlier, now)
    inputs: tuple[InputDifference, ...]

    def stands_by(self, policy: str) -> bool:
        """Whether the earlier quantum stands for this one by ``provenance`` or by ``content``."""
        allowed = {"same content"} if policy == "content" else set()
        return (
            self.earlier is not None
            and self.earlier.status in WELL_ENDED
            and not self.digests
            and {d.kind for d in self.inputs} <= allowed
        )

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "quantum": asdict(self.now),
            "earlier": asdict(self.earlier) if self.earlier else None,
            "digests": {name: {"earlier": a, "now": b} for name, (a, b) in self.digests.items()},
            "inputs": [{"kind": d.kind, **asdict(d)} for d in self.inputs],
            "stands_by": {policy: self.stands_by(policy) for policy in ("provenance", "content")},
        }


def planned_facts(now: Snapshot, plan: Plan, quantum: PlannedQuantum) -> QuantumFacts:
    """Return the facts of a quantum of a plan."""
    task = plan.pipeline.tasks[quantum.task]
    stored = [d.id.bytes for datasets in quantum.inputs.values() for d in datasets if d.exists]
    known = now.known(pl.Series("id", stored, dtype=pl.Binary).unique())
    files = now.files(known["dataset"]).select("id", content_digest())
    contents = {UUID(bytes=id): content for id, content in files.iter_rows()}
    digests = (task.code_digest, task.config_digest, task.environment_digest)
    required = {t.name: t.dimensions for t in plan.header.types}
    return QuantumFacts(
        task=quantum.task,
        data_id=quantum.data_id,
        id=str(quantum.id),
        run=plan.output_run,
        status="planned",
        started="",
        ended="",
        digests=dict(zip(QUANTUM_DIGESTS, digests, strict=True)),
        inputs=tuple(
            InputFact(
                connection,
                d.dataset_type,
                tuple((name, d.data_id[name]) for name in required[d.dataset_type]),
                str(d.id) if d.exists else "",
                contents.get(d.id) or d.checksum,
            )
            for connection, datasets in quantum.inputs.items()
            for d in datasets
        ),
    )


def recorded_facts(now: Snapshot, row: Mapping[str, Any]) -> QuantumFacts:
    """Return the facts of a quantum that the registry records: a row of `Snapshot.recorded_quanta`."""
    return QuantumFacts(
        task=row["task"],
        data_id=json.loads(row["data_id"]),
        id=str(UUID(bytes=row["quantum"])),
        run=row["run"],
        status=row["status"],
        started=row["started"] or "",
        ended=row["ended"] or "",
        digests={name: row[name] or "" for name in QUANTUM_DIGESTS},
        inputs=_recorded_inputs(now, row["quantum"]),
    )


def find_recorded(now: Snapshot, text: str) -> QuantumFacts:
    """Return the facts of the newest recorded quantum that a person named: by uuid, or by task and data ID.

    Raises
    ------
    NotFound
        If there is none, or quanta on several data IDs fit.
    """
    words = shlex.split(text)
    try:
        found = now.recorded_quanta(id=UUID(words[0]))
    except (ValueError, IndexError):
        found = now.recorded_quanta(task=words[0]) if words else pl.DataFrame()
        for name, _, value in (word.partition("=") for word in words[1:]):
            found = found.filter(pl.col("data_id").str.json_path_match(f"$.{name}") == value)
    others = found["data_id"].unique().sort().to_list() if found.height else []
    if len(others) == 1:
        return recorded_facts(now, found.row(0, named=True))
    raise NotFound(
        what=f"{'no quantum is' if not others else f'quanta on {len(others)} data IDs are'} called {text!r}",
        where=f"registry {now.place}",
        why=f"for instance {'; '.join(others[:3])}"
        if others
        else "no run that was harvested here has such a one",
        todo="name it as 'isr exposure=1228 detector=41', or by its uuid; one that was not run yet needs --plan FILE",
    )


def why(now: Snapshot, facts: QuantumFacts, collections: Sequence[str] = ()) -> Why:
    """Compare a quantum with the nearest earlier one: that with the fewest differences, of these the newest.

    For one that was run itself, earlier are those that were started before it.

    Parameters
    ----------
    collections : sequence of str
        Only quanta of the RUNs among these; of any run without it.
    """
    found = now.recorded_quanta(facts.task, data_id_text(facts.data_id))
    found = found.filter(pl.col("quantum") != UUID(facts.id).bytes)
    if facts.started:
        found = found.filter(pl.col("started") < facts.started)
    if collections:
        found = found.filter(pl.col("run").is_in([c.name for c in now.flatten(collections)]))
    rows = found.head(_LOOKED_AT).iter_rows(named=True)
    compared = [_compared(facts, recorded_facts(now, row)) for row in rows]
    if not compared:
        return Why(facts, None, {}, ())
    return min(compared, key=_distance)


def data_id_text(data_id: Mapping[str, int | str]) -> str:
    """Return a data ID as the registry records that of a quantum."""
    return json.dumps(dict(data_id), sort_keys=True, separators=(",", ":"))


def _compared(now: QuantumFacts, earlier: QuantumFacts) -> Why:
    digests = {
        name: (earlier.digests[name], now.digests[name])
        for name in QUANTUM_DIGESTS
        if earlier.digests[name] != now.digests[name]
    }
    return Why(now, earlier, digests, tuple(_input_differences(earlier.inputs, now.inputs)))


def _distance(found: Why) -> tuple[bool, int, int]:
    ended_badly = found.earlier is None or found.earlier.status not in WELL_ENDED
    other = [d for d in found.inputs if d.kind != "same content"]
    return ended_badly, len(found.digests) + len(other), len(found.inputs)


def _input_differences(earlier: Iterable[InputFact], now: Iterable[InputFact]) -> Iterable[InputDifference]:
    before = {(fact.place, fact.id): fact for fact in earlier}
    after = {(fact.place, fact.id): fact for fact in now}
    gone = [fact for key, fact in before.items() if key not in after]
    added = [fact for key, fact in after.items() if key not in before]
    for fact in gone:
        twin = next((other for other in added if other.place == fact.place), None)
        if twin is not None:
            added.remove(twin)
        yield InputDifference(fact.connection, fact.dataset_type, dict(fact.data_id), fact, twin)
    for fact in added:
        yield InputDifference(fact.connection, fact.dataset_type, dict(fact.data_id), None, fact)


def _recorded_inputs(now: Snapshot, quantum: bytes) -> tuple[InputFact, ...]:
    read = now.inputs_of(pl.Series("quantum", [quantum], dtype=pl.Binary))
    known: dict[int, tuple[tuple[tuple[str, int | str], ...], str]] = {}
    for (name,), part in read.drop_nulls("dataset").group_by("dataset_type"):
        ids = now.data_ids(str(name), part["dataset"])
        contents = now.files(ids["dataset"]).select(content_digest()).to_series()
        rows = zip(ids.iter_rows(named=True), contents, strict=True)
        known |= {row.pop("dataset"): (_ordered(now, str(name), row), digest or "") for row, digest in rows}
    return tuple(
        InputFact(
            row["connection"],
            row["dataset_type"] or "",
            *_placed(known.get(row["dataset"]), str(UUID(bytes=row["id"]))),
        )
        for row in read.sort("connection", "id").iter_rows(named=True)
    )


def _placed(
    known: tuple[tuple[tuple[str, int | str], ...], str] | None, id: str
) -> tuple[tuple[tuple[str, int | str], ...], str, str]:
    return (known[0], id, known[1]) if known else ((), id, "")


def _ordered(now: Snapshot, name: str, row: Mapping[str, Any]) -> tuple[tuple[str, int | str], ...]:
    order = now.dataset_type(name).dimensions.required
    return tuple((d, row[d]) for d in order)
