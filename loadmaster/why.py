"""Why quanta are run, and how plans differ, as people see it."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from loadmaster_executors.run import PLAN_NAME
from loadmaster_planner.difference import Difference, InputChange
from loadmaster_planner.plan import Plan
from loadmaster_planner.show import find_quantum
from loadmaster_planner.why import InputDifference, QuantumFacts, Why, find_recorded, planned_facts, why

from .repo import Repo
from .tables import Table

_WORDS = {"code_digest": "code", "config_digest": "configuration", "environment_digest": "environment"}
_ABSENT = "–"
_SHOWN = 12  # characters of a digest


def explained(repo: Repo, quantum: str, plan: Plan | None, collections: tuple[str, ...]) -> Why:
    """Compare a quantum, of a plan or else one that was run, with the nearest earlier one.

    Raises
    ------
    PlanError, NotFound
        If there is no such quantum.
    """
    with repo.registry.snapshot() as now:
        if plan is None:
            return why(now, find_recorded(now, quantum), collections)
        place = find_quantum(plan, quantum)
        return why(now, planned_facts(now, plan, plan.quantum(place.task, place.row)), collections)


def setting_changes(repo: Repo, found: Why, plan: Plan | None) -> dict[str, dict[str, tuple[Any, Any]]]:
    """Return the fields of configuration and environment that differ, as (earlier, now).

    The registry keeps digests; what stood behind them is read from the plans of the runs, where they still are.
    """
    if found.earlier is None:
        return {}
    then = _settings(_plan_of(repo, found.earlier), found.now.task)
    now = _settings(plan or _plan_of(repo, found.now), found.now.task)
    changes = {}
    for name in found.digests:
        if name in then and name in now:
            changes[name] = dict(_changed(then[name], now[name]))
    return changes


def why_table(found: Why, settings: Mapping[str, Mapping[str, tuple[Any, Any]]]) -> Table:
    """Make a table with a line for each difference."""
    title = f"{found.now.task} {_data_id(found.now.data_id)}"
    headings = ("what", "which", "earlier", "now")
    if found.earlier is None:
        note = "the registry records no earlier quantum of this task and data ID"
        return Table(headings, (), title, notes=(note,))
    rows = [*_setting_rows(found, settings), *map(_input_row, found.inputs)]
    return Table(headings, tuple(rows), title, notes=tuple(_verdict(found, found.earlier)))


def difference_table(found: Difference) -> Table:
    """Make a table of how two plans differ: a line a task, then a few examples."""
    headings = ("task", "added", "gone", "other inputs", "same", "other settings")
    rows = tuple(
        (
            t.label,
            *(str(n) for n in (t.added.height, t.gone.height, t.changed.height, t.same)),
            ", ".join(t.settings),
        )
        for t in found.tasks
    )
    notes = list(_examples(found)) or ["both plans run the same on the same"]
    notes.append(f"digest: {found.old_digest[:_SHOWN]} → {found.new_digest[:_SHOWN]}")
    return Table(headings, rows, "difference", numeric=frozenset(headings[1:5]), notes=tuple(notes))


def _plan_of(repo: Repo, quantum: QuantumFacts) -> Plan | None:
    path: Path = repo.place.runs / quantum.run / PLAN_NAME
    return Plan.open(path) if path.is_file() else None


def _settings(plan: Plan | None, task: str) -> dict[str, Mapping[str, Any]]:
    if plan is None or task not in plan.pipeline.tasks:
        return {}
    node = plan.pipeline.tasks[task]
    return {"config_digest": node.config, "environment_digest": node.environment}


def _changed(
    then: Mapping[str, Any], now: Mapping[str, Any], prefix: str = ""
) -> Iterator[tuple[str, tuple[Any, Any]]]:
    for name in sorted({*then, *now}):
        a, b = then.get(name), now.get(name)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            yield from _changed(a, b, f"{prefix}{name}.")
        elif a != b:
            yield f"{prefix}{name}", (a, b)


def _setting_rows(
    found: Why, settings: Mapping[str, Mapping[str, tuple[Any, Any]]]
) -> Iterator[tuple[str, str, str, str]]:
    for name, (earlier, now) in found.digests.items():
        if fields := settings.get(name):
            yield from ((_WORDS[name], field, str(a), str(b)) for field, (a, b) in fields.items())
        else:
            yield _WORDS[name], "digest", _digest(earlier), _digest(now)


def _input_row(found: InputDifference) -> tuple[str, str, str, str]:
    def side(fact: Any) -> str:
        if fact is None:
            return _ABSENT
        return f"{fact.id} ({_digest(fact.content)})" if fact.id else "to be made first"

    which = f"{found.connection}: {found.dataset_type} {_data_id(found.data_id)}"
    what = "input (same content)" if found.kind == "same content" else "input"
    return what, which, side(found.earlier), side(found.now)


def _verdict(found: Why, earlier: QuantumFacts) -> Iterator[str]:
    yield f"nearest earlier quantum: {earlier.id} of run {earlier.run}, {earlier.status} {earlier.ended}".rstrip()
    if not found.digests and not found.inputs:
        yield "nothing differs" if earlier.status != "partial" else "nothing differs, but it left outputs out"
    policies = [p for p in ("provenance", "content") if found.stands_by(p)]
    yield f"it stands for this one by: {', '.join(policies)}" if policies else "it cannot stand for this one"


def _examples(found: Difference) -> Iterator[str]:
    for task in found.tasks:
        for word, frame in (("added", task.added), ("gone", task.gone)):
            if frame.height:
                more = f", and {frame.height - 1} more" if frame.height > 1 else ""
                yield f"{word}: {task.label} {_data_id(frame.row(0, named=True))}{more}"
        for change in task.changes[:2]:
            yield _told(task.label, change)


def _told(label: str, change: InputChange) -> str:
    word = "reads now" if change.is_new else "no longer reads"
    which = change.id or "to be made"
    return (
        f"{label} {_data_id(change.data_id)} {word} {change.connection}: "
        f"{change.dataset_type} {_data_id(change.input)} ({which})"
    )


def _digest(text: str) -> str:
    algorithm, colon, value = text.rpartition(":")
    return f"{algorithm}{colon}{value[:_SHOWN]}" if value else _ABSENT


def _data_id(data_id: Mapping[str, int | str]) -> str:
    return " ".join(f"{name}={value}" for name, value in data_id.items())
