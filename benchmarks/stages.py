"""Where the time of a planning goes: a stopwatch around the functions that each stage consists of."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import loadmaster_planner.candidates
import loadmaster_planner.plan
import loadmaster_planner.planner
import loadmaster_registry.joins
import loadmaster_registry.relations
import loadmaster_registry.snapshot

_STAGES: dict[str, tuple[tuple[Any, str], ...]] = {
    "reading": ((loadmaster_registry.snapshot, "read"), (loadmaster_registry.snapshot, "read_matching")),
    "overlaps": ((loadmaster_registry.relations, "overlapping_pairs"),),
    "reduction": ((loadmaster_registry.relations, "reduce_join"),),
    "projections": (
        (loadmaster_registry.joins.Reduced, "rows"),
        (loadmaster_planner.candidates, "positions"),
    ),
    "prerequisites": ((loadmaster_planner.planner, "find_prerequisites"),),
    "freeze": ((loadmaster_planner.planner, "freeze_graph"),),
    "digest": ((loadmaster_planner.planner, "tables_digest"),),
    "write": ((loadmaster_planner.plan, "write_tables"),),
}


@contextmanager
def watched() -> Iterator[Counter[str]]:
    """Count the seconds of each stage while the block runs; what one calls of another counts there."""
    seconds: Counter[str] = Counter()
    open_stages: list[list[float]] = []
    kept = []

    def timed(stage: str, act: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **options: Any) -> Any:
            open_stages.append([0.0])
            begin = time.perf_counter()
            try:
                return act(*arguments, **options)
            finally:
                spent = time.perf_counter() - begin
                seconds[stage] += spent - open_stages.pop()[0]
                if open_stages:
                    open_stages[-1][0] += spent

        return run

    for stage, functions in _STAGES.items():
        for owner, name in functions:
            kept.append((owner, name, getattr(owner, name)))
            setattr(owner, name, timed(stage, getattr(owner, name)))
    try:
        yield seconds
    finally:
        for owner, name, act in kept:
            setattr(owner, name, act)
