"""Say in words how a restriction refuses a data ID, from what was left just before it."""

from collections.abc import Mapping
from typing import Any

import polars as pl
from loadmaster_registry.records import CollectionType
from loadmaster_registry.relations import Constrained, overlaps
from loadmaster_registry.snapshot import Snapshot
from loadmaster_registry.timespan import format_ns
from loadmaster_registry.universe import DimensionGroup, Universe
from loadmaster_registry.where import Predicate

from .restrictions import Problem, Restriction

_TOLD = 3  # data IDs, or values
_SOUGHT = 1000  # data IDs that are looked for in other collections
DataId = Mapping[str, int | str]


def refusal_text(
    registry: Snapshot,
    problem: Problem,
    restriction: Restriction,
    before: Constrained | None,
    data_id: DataId,
) -> str:
    """Say how `restriction` refuses the data ID to which `before`, the join of all that came first, was narrowed."""
    if before is None:
        return _no_records(registry, problem.group, data_id)
    if before.rows.is_empty:
        about = registry.universe.ordered(restriction.dimensions - set(problem.group.names))
        return f"{restriction.name} is about {', '.join(about)}, of which none goes with it"
    match restriction.kind:
        case "links":
            return _no_link(registry, problem.group, data_id)
        case "where" | "target":
            return _unfulfilled(registry, restriction, restriction.predicates[0], before)
        case "table":
            return _not_listed(restriction, before)
        case "flags":
            return _flagged(registry, restriction, before)
        case "overlap":
            return _no_overlap(registry, problem, restriction, before)
        case _:
            return _not_there(registry, problem, restriction, before)


def _no_records(registry: Snapshot, group: DimensionGroup, data_id: DataId) -> str:
    lacking = [
        d
        for d in group.names
        if not registry.universe[d].is_skypix
        and not registry.records(d, _about(registry.universe, d, data_id), columns=[]).height
    ]
    return f"there are no records of {', '.join(lacking or group.names)} that go with it"


def _no_link(registry: Snapshot, group: DimensionGroup, data_id: DataId) -> str:
    links = registry.universe.joins_of(group)
    lacking = [
        e.name
        for e in links
        if not registry.records(e.name, _about(registry.universe, e.name, data_id), columns=[]).height
    ]
    return f"no record of {' or '.join(lacking or [e.name for e in links])} links it to the rest"


def _about(universe: Universe, element: str, data_id: DataId) -> dict[str, list[int | str]]:
    """Return what a data ID says of an element's dimensions."""
    own = (*universe[element].required, *universe[element].implied)
    return {d: [data_id[d]] for d in own if d in data_id}


def _unfulfilled(
    registry: Snapshot, restriction: Restriction, predicate: Predicate, before: Constrained
) -> str:
    universe = registry.universe
    origin = " of where" if restriction.kind == "where" else ""
    where = f"the condition {restriction.name}{origin} does not hold"
    dimensions = universe.group(predicate.dimensions).names
    if not predicate.columns:
        return f"{where}, whatever the data ID"
    rows = before.rows.data_ids(dimensions)
    for element in universe.ordered(predicate.elements):
        fields = {c: c.rsplit(".", 1)[-1] for c in predicate.columns if c.startswith(f"{element}.")}
        keys = list(universe[element].required)
        records = registry.records(element, columns=list(fields.values()))
        records = records.select(*keys, *(pl.col(f).alias(c) for c, f in fields.items()))
        rows = rows.join(records, on=keys, how="left")
    shown = [c for c in sorted(predicate.columns) if c in rows.columns and rows[c].dtype != pl.Binary]
    values = rows.select(shown).unique(maintain_order=True)
    if not shown:
        return f"{where} for {_listed(rows.select(dimensions))}"
    told = "; ".join(_said(row) for row in values.head(_TOLD).iter_rows(named=True))
    more = f" and {values.height - _TOLD} more" if values.height > _TOLD else ""
    return f"{where}: here {told}{more}"


def _not_listed(restriction: Restriction, before: Constrained) -> str:
    return f"{restriction.name} has no row for {_listed(before.rows.data_ids(restriction.columns))}"


def _flagged(registry: Snapshot, restriction: Restriction, before: Constrained) -> str:
    told = []
    for exclusion in restriction.exclusions:
        keys = exclusion.frame.columns
        if set(keys) <= set(before.group.names):
            hit = before.rows.data_ids(keys).join(exclusion.frame, on=keys, how="semi")
            if hit.height:
                reasons = "; ".join(_flag_reasons(registry, hit))
                told.append(_listed(hit) + (f" ({reasons})" if reasons else ""))
    return f"there is a flag on {' and on '.join(told)}; what is flagged takes part with --include-flagged"


def _flag_reasons(registry: Snapshot, ids: pl.DataFrame) -> list[str]:
    """Return why data IDs, or what links relate them to, are flagged; a few reasons at most."""
    universe = registry.universe
    found: dict[str, None] = {}
    for element, flagged in registry.flagged().items():
        known = registry.records(element, columns=["flag_reason"])
        if "flag_reason" not in known.columns:
            continue
        known = known.join(flagged, on=flagged.columns, how="semi").drop_nulls("flag_reason")
        about = ids
        for link in universe.elements.values():
            if link.always_join and not set(flagged.columns) <= set(about.columns):
                shared = [d for d in link.required if d in about.columns]
                if set(flagged.columns) <= {*about.columns, *link.required} and len(shared) > 1:
                    about = about.join(registry.records(link.name), on=shared, how="inner")
        if set(flagged.columns) <= set(about.columns):
            reasons = known.join(about, on=flagged.columns, how="semi")["flag_reason"].unique().sort()
            found |= dict.fromkeys(reasons.head(_TOLD).to_list())
    return list(found)[:_TOLD]


def _no_overlap(registry: Snapshot, problem: Problem, restriction: Restriction, before: Constrained) -> str:
    for pair in overlaps(registry.universe, before.group, restriction.predicates):
        sides = []
        for element in pair:
            keys = list(registry.universe[element].required)
            ids = before.rows.data_ids(keys)
            regions = registry.records(element, columns=["region"])
            known = ids.join(regions, on=keys, how="inner").drop_nulls("region")
            if not known.height:
                return f"there is no {element} region for {_listed(ids)}"
            sides.append(f"{element} {_listed(known.select(keys))}")
        return f"on the sky {sides[0]} does not overlap {sides[1]}"
    return f"{restriction.name} leaves nothing"


def _not_there(registry: Snapshot, problem: Problem, restriction: Restriction, before: Constrained) -> str:
    name, searched = restriction.dataset_type, ", ".join(problem.request.inputs)
    ids = before.rows.data_ids(restriction.columns)
    text = f"there is no {name!r} in {searched} for {_listed(ids)}"
    if ids.height > _SOUGHT:
        return text
    runs = [c.name for c in registry.collections() if c.type is CollectionType.RUN]
    keep = {d: ids[d].unique().to_list() for d in ids.columns}
    held = registry.datasets(name, runs, keep=keep, find_first=False)
    if ids.width:
        held = held.join(ids, on=ids.columns, how="semi")
    elsewhere = [runs[rank] for rank in held["rank"].unique().sort()]
    return f"{text}; there is in run {', '.join(elsewhere[:_TOLD])}" if elsewhere else text


def _listed(ids: pl.DataFrame) -> str:
    """Name a few data IDs."""
    shown = " or ".join(_said(row) for row in ids.head(_TOLD).iter_rows(named=True))
    return shown + (f" or {ids.height - _TOLD} more" if ids.height > _TOLD else "")


def _said(row: Mapping[str, Any]) -> str:
    return " ".join(f"{name}={_value(name, value)}" for name, value in row.items())


def _value(name: str, value: Any) -> str:
    if isinstance(value, int) and name.endswith((".timespan_begin", ".timespan_end")):
        return format_ns(value)
    return "null" if value is None else repr(value) if isinstance(value, str) else str(value)
