"""What a plan shows of itself: its tables, pages of quanta, one quantum, one job; whether it is as it was written."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any
from uuid import UUID

import numpy as np
import polars as pl
from loadmaster_registry.errors import PlanError, did_you_mean
from loadmaster_registry.names import dataset_path
from numpy.typing import NDArray

from .header import ConnectionFacts, TaskFacts, TypeFacts
from .plan import Plan, PlannedDataset, PlannedQuantum, tables_digest
from .tables import CHUNK_ROWS

_EXAMPLES = 5
_STORED: Mapping[str, type[pl.DataType]] = {
    "run": pl.String, "url": pl.String, "size_bytes": pl.Int64, "checksum": pl.String
}  # fmt: skip
_HEX = np.frombuffer(b"0123456789abcdef", dtype=np.uint8)
_DASHES = (8, 13, 18, 23)  # where the text of a UUID has them (RFC 9562)
_DIGITS = np.setdiff1d(np.arange(36), _DASHES)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a plan keeps a quantum: the task's table and the row in it."""

    task: str
    row: int


def task_facts(plan: Plan, label: str) -> TaskFacts:
    """Return what the plan says of a task.

    Raises
    ------
    PlanError
        If it has no such task.
    """
    for task in plan.header.tasks:
        if task.label == label:
            return task
    raise PlanError(
        what=f"the plan has no task {label!r}",
        where=f"plan of {plan.output_run}",
        why="no task of its pipeline is called so",
        todo=did_you_mean(label, (task.label for task in plan.header.tasks)),
    )


def type_facts(plan: Plan, name: str) -> TypeFacts:
    """Return what the plan says of a dataset type that it touches."""
    return next(t for t in plan.header.types if t.name == name)


def quanta_page(plan: Plan, label: str, start: int = 0, stop: int | None = None) -> pl.DataFrame:
    """Return some quanta of a task, in the order of its table; reads only the chunks that hold them.

    Returns
    -------
    quanta : DataFrame
        ``job``, ``id`` (text), the required, then the implied dimensions.
    """
    quanta = task_facts(plan, label).quanta
    start, stop = min(start, quanta), quanta if stop is None else min(stop, quanta)
    return _quanta(plan, label, plan.rows(f"quanta/{label}", start, stop), plan.jobs_of(label, start, stop))


def quanta_at(plan: Plan, label: str, rows: NDArray[np.int64]) -> pl.DataFrame:
    """Return the quanta in some rows of a task's table, as `quanta_page` does."""
    jobs = [plan.jobs_of(label, row, row + 1) for row in rows.tolist()]
    return _quanta(plan, label, _gathered(plan, f"quanta/{label}", rows), np.concatenate(jobs))


def shards(plan: Plan, step: str) -> pl.DataFrame:
    """Return what a step may be split into, sorted: combinations of values of its sharding dimensions.

    Returns
    -------
    shards : DataFrame
        The step's dimensions, ``quanta`` and ``jobs``. A value is null for jobs that have several, or none.

    Raises
    ------
    PlanError
        If the pipeline has no such step.
    """
    names = [s.label for s in plan.pipeline.steps]
    if step not in names:
        raise PlanError(
            what=f"the plan has no step {step!r}",
            where=f"plan of {plan.output_run}",
            why="its pipeline declares no step of this name" if names else "its pipeline declares no steps",
            todo=did_you_mean(step, names) if names else "see its tasks: loadmaster show PLAN",
        )
    jobs = plan.shards(step)
    dimensions = jobs.columns[1:]
    each = jobs.join(plan.job_table().select("job", "quanta"), on="job")
    counts = (pl.col("quanta").sum(), pl.len().cast(pl.Int64).alias("jobs"))
    if not dimensions:
        return each.select(counts)
    return each.group_by(dimensions).agg(counts).sort(dimensions, nulls_last=True)


def datasets_page(plan: Plan, dataset_type: str, start: int = 0, stop: int | None = None) -> pl.DataFrame:
    """Return some datasets of a type, in the order of its table; reads only the chunks that hold them.

    Returns
    -------
    datasets : DataFrame
        ``id`` (text), the required, then the implied dimensions, ``exists``, ``run``, ``url`` (of what exists),
        ``path`` below the backbone's root (of what is to be made), ``size_bytes`` and ``checksum`` (null where
        unknown).
    """
    facts = type_facts(plan, dataset_type)
    start, stop = min(start, facts.count), facts.count if stop is None else min(stop, facts.count)
    return _described(plan, facts, plan.rows(f"datasets/{dataset_type}", start, stop))


def datasets_at(plan: Plan, dataset_type: str, rows: NDArray[np.int64]) -> pl.DataFrame:
    """Return the datasets in some rows of a type's table, as `datasets_page` does."""
    raw = _gathered(plan, f"datasets/{dataset_type}", rows)
    return _described(plan, type_facts(plan, dataset_type), raw)


def edges_at(plan: Plan, label: str, connection: ConnectionFacts, row: int) -> NDArray[np.int64]:
    """Return the rows of the datasets that one quantum reads or makes by a connection."""
    raw = plan.rows(f"quanta/{label}", row, min(row + 2, task_facts(plan, label).quanta))
    start, stop = [*raw[f"start:{connection.name}"], connection.edges][:2]
    return plan.rows(f"edges/{label}/{connection.name}", start, stop)["dataset"].cast(pl.Int64).to_numpy()


def uuid_text(rows: pl.DataFrame) -> pl.Series:
    """Return ids as text, from the columns ``id_hi`` and ``id_lo``, their halves."""
    halves = np.stack([rows["id_hi"].to_numpy(), rows["id_lo"].to_numpy()], axis=1).astype(">u8")
    octets = halves.view(np.uint8).reshape(rows.height, 16)
    text = np.full((rows.height, 36), ord("-"), dtype=np.uint8)
    text[:, _DIGITS[0::2]] = _HEX[octets >> 4]
    text[:, _DIGITS[1::2]] = _HEX[octets & 15]
    return pl.Series("id", text.view("S36").reshape(rows.height).astype(str), dtype=pl.String)


def _quanta(plan: Plan, label: str, raw: pl.DataFrame, jobs: NDArray[np.int64]) -> pl.DataFrame:
    task = task_facts(plan, label)
    data_ids = plan.axes.decode(raw, task.dimensions + task.implied)
    return pl.DataFrame([pl.Series("job", jobs), uuid_text(raw), *data_ids.get_columns()])


def _described(plan: Plan, facts: TypeFacts, raw: pl.DataFrame) -> pl.DataFrame:
    data_ids = plan.axes.decode(raw, facts.dimensions + facts.implied)
    stored = {
        name: raw[name]
        if name in raw.columns
        else pl.Series(name, [None], dtype).new_from_index(0, raw.height)
        for name, dtype in _STORED.items()
    }
    exists = stored["run"].is_not_null().rename("exists")
    return pl.DataFrame(
        [
            uuid_text(raw),
            *data_ids.get_columns(),
            exists,
            stored["run"].fill_null(plan.output_run),
            stored["url"],
            _paths(plan, facts, raw).set(exists, None),
            stored["size_bytes"],
            stored["checksum"],
        ]
    )


def _paths(plan: Plan, facts: TypeFacts, raw: pl.DataFrame) -> pl.Series:
    """Return what `dataset_path` gives for each row, having asked it once for each value of each dimension."""
    extension = facts.extension
    if not facts.dimensions:
        one = dataset_path(plan.output_run, facts.name, {}, extension)
        return pl.Series("path", [one]).new_from_index(0, raw.height)
    folder = dataset_path(plan.output_run, facts.name, {}, "").removesuffix(f"/{facts.name}")
    values = {d: _quoted(plan, facts, d) for d in facts.dimensions}
    columns = [
        values[d].gather(raw[d]) if d in raw.columns else values[d].new_from_index(0, raw.height)
        for d in facts.dimensions
    ]
    stem = [pl.lit(facts.name), *(pl.col(d) for d in facts.dimensions)]
    middle = [pl.col(d) for d in facts.dimensions[1:-1]]
    name = pl.concat_str(stem, separator="_") + pl.lit(extension)
    parts = [pl.lit(folder), *middle, name]
    return pl.DataFrame(columns).select(pl.concat_str(parts, separator="/").alias("path"))["path"]


def _quoted(plan: Plan, facts: TypeFacts, dimension: str) -> pl.Series:
    """Return each value of a dimension as file names have it."""
    start = dataset_path(plan.output_run, facts.name, {}, "") + "_"
    texts = [
        dataset_path(plan.output_run, facts.name, {dimension: value}, "").removeprefix(start)
        for value in plan.axes.values[dimension]
    ]
    return pl.Series(dimension, texts, dtype=pl.String)


def _gathered(plan: Plan, table: str, rows: NDArray[np.int64]) -> pl.DataFrame:
    """Return some rows of a table: all between the first and the last at once, if these are not many."""
    low, high = int(rows.min()), int(rows.max()) + 1
    if high - low <= CHUNK_ROWS:
        return plan.rows(table, low, high)[rows - low]
    return pl.concat([plan.rows(table, row, row + 1) for row in rows.tolist()])


def find_quantum(plan: Plan, text: str) -> Place:
    """Return where a quantum is that a person named.

    Parameters
    ----------
    text : str
        ``isr exposure=1228 detector=41`` (what is left out may be anything, if only one quantum is left), its
        uuid, or the number of a job that has one quantum.

    Raises
    ------
    PlanError
        If none is so named, or several are; it lists some.
    """
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise _no_quantum(plan, text, str(error), "close the quotation, or escape the quote") from None
    if len(words) == 1 and words[0].isdecimal():
        return _only_one(plan, int(words[0]))
    if len(words) == 1 and (id := _uuid(words[0])) is not None:
        return _by_id(plan, id)
    if not words:
        raise _no_quantum(plan, text, "nothing is named", _FORMS)
    return _by_data_id(plan, task_facts(plan, words[0]), words[1:], text)


_FORMS = "name it as 'isr exposure=1228 detector=41', by its uuid, or by its job's number"


def _only_one(plan: Plan, job: int) -> Place:
    places = places_of(plan, job)
    if len(places) > 1:
        why = f"job {job} has {len(places)} quanta"
        raise _no_quantum(plan, str(job), why, f"see all of them with --job {job}")
    return places[0]


def _by_id(plan: Plan, id: UUID) -> Place:
    """Look through the ids of all tasks, chunk by chunk, until it is found."""
    hi, lo = id.int >> 64, id.int & (2**64 - 1)
    for task in plan.header.tasks:
        for start in range(0, task.quanta, CHUNK_ROWS):
            rows = plan.rows(f"quanta/{task.label}", start, min(start + CHUNK_ROWS, task.quanta))
            found = ((rows["id_hi"] == hi) & (rows["id_lo"] == lo)).arg_true()
            if found.len():
                return Place(task.label, start + int(found[0]))
    raise _no_quantum(plan, str(id), "no quantum of the plan has this id", _FORMS)


def _by_data_id(plan: Plan, task: TaskFacts, pairs: Sequence[str], text: str) -> Place:
    wanted = _wanted(plan, task, pairs, text)
    table = plan.rows(f"quanta/{task.label}", 0, task.quanta)
    kept = np.ones(task.quanta, dtype=bool)
    for dimension, value in wanted.items():
        axis = plan.axes.values[dimension]
        code = axis.index_of(value)
        same = table[dimension].to_numpy() == code if dimension in table.columns else kept
        kept = kept & same if code is not None else np.zeros_like(kept)
        if not kept.any():
            raise _no_quantum(plan, text, _why_none(task, dimension, value, wanted), _see(task))
    found = np.flatnonzero(kept)
    if found.size == 1:
        return Place(task.label, int(found[0]))
    if not found.size:
        raise _no_quantum(
            plan, text, f"the plan has no quanta of {task.label}", "loadmaster show PLAN says why"
        )
    some = plan.axes.decode(table[found[:_EXAMPLES]], task.dimensions).rows(named=True)
    more = "; …" if found.size > _EXAMPLES else ""
    why = f"{found.size} quanta are so: {'; '.join(map(_words, some))}{more}"
    raise _no_quantum(plan, text, why, "name more of its dimensions")


def _wanted(plan: Plan, task: TaskFacts, pairs: Sequence[str], text: str) -> dict[str, int | str]:
    known, wanted = task.dimensions + task.implied, {}
    for pair in pairs:
        dimension, equals, value = pair.rstrip(",").partition("=")
        if not equals:
            raise _no_quantum(plan, text, f"{pair!r} is not DIMENSION=VALUE", _FORMS)
        if dimension not in known:
            raise _no_quantum(
                plan, text, f"{task.label} has no dimension {dimension!r}", did_you_mean(dimension, known)
            )
        wanted[dimension] = _value(plan, dimension, value, text)
    return wanted


def _value(plan: Plan, dimension: str, text: str, asked: str) -> int | str:
    if plan.axes.values[dimension].dtype == pl.String:
        return text
    try:
        return int(text)
    except ValueError:
        why = f"{dimension} is a whole number, and {text!r} is none"
        raise _no_quantum(plan, asked, why, "correct the value") from None


def _why_none(task: TaskFacts, dimension: str, value: int | str, wanted: Mapping[str, int | str]) -> str:
    before = dict(list(wanted.items())[: list(wanted).index(dimension)])
    return f"no quantum of {task.label} has {dimension}={value}" + (
        f" beside {_words(before)}" if before else ""
    )


def _see(task: TaskFacts) -> str:
    return f"see the quanta of the task: loadmaster show PLAN --task {task.label}"


def _no_quantum(plan: Plan, text: str, why: str, todo: str) -> PlanError:
    return PlanError(f"{text!r} names no single quantum", f"plan of {plan.output_run}", why, todo)


def _words(data_id: Mapping[str, int | str]) -> str:
    return " ".join(f"{name}={value}" for name, value in data_id.items())


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


def plan_facts(plan: Plan) -> dict[str, Any]:
    """Return the summary as plain values: of the whole, of each task, of each dataset type."""
    header = plan.header
    lines = {line.label: line for line in header.summary}
    return {
        **{name: getattr(header, name) for name in ("digest", "created", "output_run", "output", "where")},
        "inputs": list(header.inputs),
        "n_quanta": sum(task.quanta for task in header.tasks),
        "n_jobs": plan.n_jobs,
        "tasks": [{**asdict(task), **asdict(lines[task.label])} for task in header.tasks],
        "dataset_types": [{**asdict(t), "to_be_made": t.count - t.existing} for t in header.types],
        "clusters": [asdict(cluster) for cluster in header.jobs.clusters],
        "orders": [asdict(order) for order in header.jobs.orders],
        "dropped": [asdict(dropped) for dropped in header.dropped],
        "why_empty": header.why_empty,
    }


def job_facts(plan: Plan, index: int) -> dict[str, Any]:
    """Return one job with its quanta as plain values."""
    job = plan.job(index)
    return {
        "job": index,
        **{name: getattr(job, name) for name in ("name", "cluster", "step", "shard")},
        "resources": asdict(job.resources),
        "groups": [asdict(group) for group in plan.groups_of(index)],
        "quanta": [quantum_facts(quantum) for quantum in job.quanta],
    }


def quantum_facts(quantum: PlannedQuantum) -> dict[str, Any]:
    """Return a quantum as plain values: what it reads, and where that is; what it makes, and its name."""
    return {
        "id": str(quantum.id),
        "task": quantum.task,
        "data_id": quantum.data_id,
        "inputs": {name: [_dataset_facts(d) for d in files] for name, files in quantum.inputs.items()},
        "outputs": {name: [_dataset_facts(d) for d in files] for name, files in quantum.outputs.items()},
    }


def _dataset_facts(dataset: PlannedDataset) -> dict[str, Any]:
    facts = {**asdict(dataset), "id": str(dataset.id)}
    if dataset.size_bytes < 0:
        facts["size_bytes"] = None
    return facts


def verify(plan: Plan) -> None:
    """Read all of a plan, and compute its digest again.

    Raises
    ------
    PlanError
        If it is damaged, or its digest is another than the one it carries.
    """
    header = plan.header.to_json()
    facts = {name: header[name] for name in ("pipeline", "tasks", "types", "jobs")}
    if (found := tables_digest(facts, _TablesOf(plan))) != plan.digest:
        raise PlanError(
            what="the plan is not as it was written",
            where=f"plan of {plan.output_run}",
            why=f"its content has the digest {found}, and it says {plan.digest}",
            todo="plan again; if this stays, report it: nothing but a program can have done this",
        )


class _TablesOf(Mapping[str, pl.DataFrame]):
    """All tables of a plan by name, each read when it is asked for."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._sizes = dict(plan.table_sizes())

    def __getitem__(self, name: str) -> pl.DataFrame:
        return self._plan.rows(name, 0, self._sizes[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._sizes)

    def __len__(self) -> int:
        return len(self._sizes)


def places_of(plan: Plan, job: int) -> list[Place]:
    """Return where the quanta of a job are, in the order in which they run."""
    return [Place(*member) for member in plan.members(job)]


def job_of(plan: Plan, place: Place) -> int:
    """Return the job of which a quantum is part."""
    return int(plan.jobs_of(place.task, place.row, place.row + 1)[0])
