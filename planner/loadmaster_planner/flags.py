"""Observations with a flag, as data IDs that take no part in a plan."""

from collections.abc import Iterator

import polars as pl
from loadmaster_registry.relations import Exclusion
from loadmaster_registry.snapshot import Snapshot
from loadmaster_registry.universe import DimensionGroup


def flagged(registry: Snapshot, group: DimensionGroup) -> tuple[Exclusion, ...]:
    """Return what is flagged now, in terms of `group`.

    A flag on a visit counts for its exposures where no visits take part, and the other way round: whatever the
    element, it reaches the dimensions of `group` through the join that links the two (``visit_definition``).
    """
    return tuple(Exclusion(f"no flag on {element}", frame) for element, frame, _ in reached(registry, group))


def reached(registry: Snapshot, group: DimensionGroup) -> Iterator[tuple[str, pl.DataFrame, bool]]:
    """Give each element with flags, the data IDs that they reach, and whether directly: else through a link."""
    for element, keys in registry.flagged().items():
        for frame in _in_terms_of(registry, group, keys):
            yield element, frame, frame is keys


def flag_note(registry: Snapshot, group: DimensionGroup) -> list[str]:
    """Say in words what is left out of a plan over `group` because of flags."""
    told = [
        f"{keys.height} {element}"
        for element, keys in registry.flagged().items()
        if keys.height and any(True for _ in _in_terms_of(registry, group, keys))
    ]
    if not told:
        return []
    return [f"flagged, and left out: {', '.join(told)}; see them: loadmaster query-flags"]


def _in_terms_of(registry: Snapshot, group: DimensionGroup, keys: pl.DataFrame) -> Iterator[pl.DataFrame]:
    if set(keys.columns) <= set(group.names):
        yield keys
        return
    (absent, *more) = [d for d in keys.columns if d not in group.names]
    for link in registry.universe.elements.values():
        if more or link.is_dimension or not link.always_join or absent not in link.required:
            continue
        others = [d for d in link.required if d not in keys.columns]
        if others and set(others) <= set(group.names):
            shared = [d for d in link.required if d in keys.columns]
            linked = keys.join(registry.records(link.name), on=shared, how="inner")
            yield linked.select(*(d for d in keys.columns if d != absent), *others).unique()
