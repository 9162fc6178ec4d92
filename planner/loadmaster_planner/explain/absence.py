"""Why one quantum is not in a plan: the first thing that removed it, and what removed what it needs.

The quantum is held fixed, and everything that restricts data IDs is joined to it one by one, in the order of the
funnel. If all admit it, what was planned is searched for it. Cost: a few small joins, and making the graph once.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import polars as pl
from loadmaster_pipelines.pipeline import Pipeline
from loadmaster_registry.errors import PlanError
from loadmaster_registry.frames import DTYPES
from loadmaster_registry.relations import Constrained, Constraint
from loadmaster_registry.schema import key_column
from loadmaster_registry.snapshot import Snapshot
from loadmaster_registry.store import Registry
from loadmaster_registry.universe import DimensionGroup

from ..build import without_the_impossible
from ..graph import Part, keep_quanta, positions
from ..prerequisites import find_prerequisites
from ..request import Request
from ..target import check_target
from .funnel import Outcome, joins_by_step, outcome_of
from .hints import no_such_value
from .loss import done_text, dropped_texts
from .quantum import WantedQuantum, read_quantum
from .refusal import refusal_text
from .restrictions import (
    Component,
    Kind,
    Restriction,
    component_of,
    done_name,
    joined,
    upstream_problem,
)

AbsenceKind = Literal["planned", "record", "closure", "missing", "prerequisite"] | Kind


@dataclass(frozen=True)
class WhyNot:
    """What became of one quantum."""

    quantum: str
    kind: AbsenceKind  # "planned" says that it is in the plan
    reasons: tuple[str, ...]  # what removed it; then what removed what was missing, down to the root
    removed_by: Restriction | None = None  # where one restriction did

    @property
    def is_planned(self) -> bool:
        """Whether the quantum is in the plan."""
        return self.kind == "planned"

    def lines(self) -> list[str]:
        """Return what a person reads."""
        told = [f"{self.quantum}: {'in the plan' if self.is_planned else 'not in the plan'}"]
        return told + [f"  {'because ' if i else ''}{reason}" for i, reason in enumerate(self.reasons)]

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "quantum": self.quantum,
            "is_planned": self.is_planned,
            "kind": self.kind,
            "reasons": list(self.reasons),
            "removed_by": None if self.removed_by is None else self.removed_by.name,
        }


def why_not(registry: Registry, pipeline: Pipeline, request: Request, quantum: str) -> WhyNot:
    """Say whether a quantum is in the plan, and if not, what removed it first.

    Parameters
    ----------
    quantum : str
        ``LABEL key=value …``, as ``warp visit=1228 tract=9813 patch=40``; an instrument or sky map may be left out
        where only one can be meant.

    Raises
    ------
    PlanError
        If there is no such task, or the request cannot be planned at all.
    QueryError
        If `quantum` is written otherwise, or is no data ID of the task.
    """
    with registry.snapshot() as now:
        check_target(now.universe, pipeline, request)
        wanted = read_quantum(quantum, now, pipeline, request)
        found = _without_record(now, wanted) or _not_admitted(now, pipeline, request, wanted)
        return found or _lost(now, pipeline, request, wanted)


def _without_record(registry: Snapshot, wanted: WantedQuantum) -> WhyNot | None:
    """Answer if the data ID itself is impossible."""
    for d in wanted.data_id:
        if (hint := no_such_value(registry, d, wanted.data_id)) is not None:
            return WhyNot(str(wanted), "record", (hint.text,))
    known = registry.universe.group(wanted.task.dimensions)
    record = _implied(registry, known, wanted.data_id)
    for d, value in wanted.implied.items():
        if record.get(d) != value:
            return WhyNot(str(wanted), "record", (f"its {d} is {record.get(d)!r}, not {value!r}",))
    return None


def _implied(
    registry: Snapshot, group: DimensionGroup, data_id: Mapping[str, int | str]
) -> Mapping[str, Any]:
    whole: dict[str, Any] = dict(data_id)
    for name in reversed(registry.universe.ordered(group.names)):
        element = registry.universe[name]
        if element.implied and set(element.required) <= set(whole):
            keep = {d: [whole[d]] for d in element.required}
            records = registry.records(name, keep, columns=element.implied)
            whole |= {d: records[d][0] for d in element.implied if records.height}
    return whole


def _not_admitted(
    registry: Snapshot, pipeline: Pipeline, request: Request, wanted: WantedQuantum
) -> WhyNot | None:
    """Answer if something does not admit the data ID; what came before it did."""
    keep = {d: [value] for d, value in wanted.data_id.items()}
    component = component_of(registry, pipeline, request, wanted.task.label, keep)
    problem = next((p for p in component.problems if p.last in ("", wanted.task.label)), None)
    if problem is None:
        problem = upstream_problem(registry, component, wanted.task.label, keep)
    ids = _frame(registry, wanted).select(d for d in wanted.data_id if d in problem.group)
    # Dimension by dimension: data IDs of both families of regions would say themselves what overlaps.
    only = [Constraint(f"the quantum's {d}", ids.select(d), narrows=True) for d in ids.columns]
    held: list[Restriction] = []
    before: Constrained | None = None
    for restriction, after in joins_by_step(registry, problem.group, problem.restrictions, only):
        if after.rows.is_empty:
            if before is not None and not restriction.dimensions <= set(before.group.names):
                wider = registry.universe.group({*before.group.names, *restriction.dimensions})
                before = joined(registry, wider, held, only)
            text = refusal_text(registry, problem, restriction, before, wanted.data_id)
            return WhyNot(str(wanted), restriction.kind, (text,), restriction)
        before = after
        held.append(restriction)
    return None


def _frame(registry: Snapshot, wanted: WantedQuantum) -> pl.DataFrame:
    types = {d: key_column(registry.universe, d).type for d in wanted.data_id}
    return pl.DataFrame(
        {d: [v] for d, v in wanted.data_id.items()}, schema={d: DTYPES[t] for d, t in types.items()}
    )


def _lost(registry: Snapshot, pipeline: Pipeline, request: Request, wanted: WantedQuantum) -> WhyNot:
    """Answer for a data ID that everything admits."""
    label = wanted.task.label
    component = component_of(registry, pipeline, request, label, {})
    outcome = outcome_of(registry, component)
    frame = _frame(registry, wanted)
    if _row(outcome.candidates, label, frame) < 0:
        text = "its region does not touch that sky pixel"
        if request.target:
            text = f"nothing that the target `{request.target}` asks for needs it"
        return WhyNot(str(wanted), "closure" if request.target else "overlap", (text,))
    if request.skip_existing in ("provenance", "content"):  # what cannot run falls away before what is done
        possible = without_the_impossible(component.pipeline, outcome.candidates)
        if _row(possible, label, frame) < 0:
            outcome = Outcome(outcome.candidates, outcome.candidates, possible)
    if _row(outcome.remaining, label, frame) < 0:
        text = done_text(registry, component, label, wanted.data_id)
        return WhyNot(str(wanted), "done", (text,), Restriction("done", done_name(request)))
    if _row(outcome.finished, label, frame) < 0:
        row = _row(outcome.remaining, label, frame)
        return WhyNot(str(wanted), "missing", dropped_texts(component, outcome, label, row))
    return _with_prerequisites(registry, component, outcome.finished, wanted, frame)


def _row(part: Part, label: str, data_id: pl.DataFrame) -> int:
    """Return where a task's quanta have a data ID; −1 where they do not."""
    quanta = part.quanta[label]
    coded = part.axes.encode(data_id) if data_id.width else pl.DataFrame({"": [0]})
    if not quanta.count or not coded.height:
        return -1
    return int(positions(coded, quanta.codes, part.axes)[0])


def _with_prerequisites(
    registry: Snapshot, component: Component, part: Part, wanted: WantedQuantum, frame: pl.DataFrame
) -> WhyNot:
    """Answer for a quantum that is planned unless it lacks a prerequisite."""
    label, request = wanted.task.label, component.request
    quanta = part.quanta[label]
    alone = np.zeros(quanta.count, dtype=bool)
    alone[_row(part, label, frame)] = True
    one = replace(part, quanta={**part.quanta, label: keep_quanta(quanta, alone)})
    try:
        find_prerequisites(registry, wanted.task, one, request.inputs, request.overrides)
    except PlanError as error:
        what, where, why, _ = error.args
        return WhyNot(str(wanted), "prerequisite", (f"{what} ({where}): {why}",))
    return WhyNot(str(wanted), "planned", ())
