"""Make anew what was made from observations that have a flag now, without these, and nothing else.

What provenance leads to from a flagged observation is contaminated. Of the planned quanta, those are run that made
something contaminated, and those whose outputs they need and nobody has. Outputs that are not contaminated serve as
they are. What only flagged observations led to has no quantum any more, and is not made anew.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache

import numpy as np
import polars as pl
from loadmaster_pipelines.pipeline import Pipeline
from loadmaster_registry.errors import PlanError
from loadmaster_registry.snapshot import Snapshot
from numpy.typing import NDArray

from .earlier import held, rows_held
from .existing import Held, is_done, take_out
from .flags import reached
from .graph import Part
from .lookups import with_implied
from .request import Request

_Rows = Mapping[str, NDArray[np.bool_]]  # which quanta, by task


def check_repair(request: Request) -> None:
    """Refuse a repair that says two things at once.

    Raises
    ------
    PlanError
    """
    for given, option in (
        (request.skip_existing, "--skip-existing"),
        (request.include_flagged, "--include-flagged"),
    ):
        if request.repair and given:
            raise PlanError(
                what=f"--repair and {option} contradict each other",
                where="the request",
                why="a repair keeps what is sound, and makes the rest anew without what has a flag",
                todo=f"leave {option} away",
            )


def without_the_sound(registry: Snapshot, pipeline: Pipeline, part: Part, request: Request) -> Part:
    """Take out all quanta but those that make anew what is contaminated in the collections of `request.repair`."""
    there: Held = cache(lambda name: rows_held(registry, name, request.repair, part))
    bad = contaminated(registry, request.repair, request.inputs)["dataset"].to_numpy()
    done = {
        label: is_done(registry, task, part, request.repair, there) for label, task in pipeline.tasks.items()
    }
    spoiled = {}
    for label, task in pipeline.tasks.items():
        spoiled[label] = np.zeros(part.quanta[label].count, dtype=bool)
        for c in task.outputs:
            edges = part.quanta[label].outputs[c.name]
            rows = there(c.dataset_type)
            spoiled[label][edges.quantum[((rows >= 0) & np.isin(rows, bad))[edges.dataset]]] = True
    needed = _with_missing_inputs(pipeline, part, spoiled, done)
    sound = {label: done[label] & ~needed[label] for label in done}
    left_out = {label: ~(done[label] | needed[label]) for label in done}
    remaining = take_out(pipeline, part, sound, there, left_out)
    if not any(rows.any() for rows in needed.values()) and not remaining.why_empty:
        return replace(remaining, why_empty=_why_empty(request, bad))
    return remaining


def contaminated(registry: Snapshot, collections: Sequence[str], inputs: Sequence[str] = ()) -> pl.DataFrame:
    """Find what observations with a flag led to: they themselves, and all that was made from them.

    Parameters
    ----------
    collections, inputs : sequence of str
        Where datasets of flagged observations are looked for: what was made, and what it was made from.

    Returns
    -------
    datasets : DataFrame
        ``dataset``, sorted: in whatever collection they are.
    """
    roots = [pl.DataFrame(schema={"dataset": pl.Int64})]
    for dataset_type in registry.dataset_types():
        for _, flags, is_direct in reached(registry, dataset_type.dimensions):
            own = set(dataset_type.dimensions.required)
            keep = {d: flags[d].unique().to_list() for d in flags.columns if d in own}
            found = registry.datasets(dataset_type.name, [*collections, *inputs], keep=keep, find_first=False)
            ids = with_implied(registry, found, dataset_type.dimensions)
            found = ids.join(flags, on=flags.columns, how="semi").select("dataset")
            if not is_direct:  # of what was made here, provenance knows better which observations went in
                found = found.filter(~pl.col("dataset").is_in(registry.made(found["dataset"]).implode()))
            roots.append(found)
    first = pl.concat(roots).unique()
    return pl.concat([first, registry.products(first["dataset"])]).unique().sort("dataset")


def contaminated_in(
    registry: Snapshot, collections: Sequence[str], inputs: Sequence[str] = ()
) -> dict[str, pl.DataFrame]:
    """Return what is contaminated in some collections, by dataset type: required dimensions, ``dataset``; sorted."""
    bad = contaminated(registry, collections, inputs)
    found = {}
    for dataset_type in registry.dataset_types():
        there = held(registry, dataset_type.name, collections)
        mine = there.join(bad, on="dataset", how="semi", maintain_order="left") if there is not None else None
        if mine is not None and mine.height:
            found[dataset_type.name] = mine.drop("rank")
    return found


def _with_missing_inputs(pipeline: Pipeline, part: Part, spoiled: _Rows, done: _Rows) -> _Rows:
    """Add to the quanta that run, task by task upstream, those whose outputs these need and nobody has."""
    wanted = {name: np.zeros(table.count, dtype=bool) for name, table in part.datasets.items()}
    needed = {}
    for task in reversed(list(pipeline.tasks.values())):
        quanta = part.quanta[task.label]
        asked = spoiled[task.label].copy()
        for c in task.outputs:
            edges = quanta.outputs[c.name]
            for_others = edges.quantum[wanted[c.dataset_type][edges.dataset]]
            asked[for_others[~done[task.label][for_others]]] = True
        for c in task.inputs:
            edges = quanta.inputs[c.name]
            wanted[c.dataset_type][edges.dataset[asked[edges.quantum]]] = True
        needed[task.label] = asked
    return needed


def _why_empty(request: Request, bad: NDArray[np.int64]) -> str:
    where = ", ".join(request.repair)
    if not bad.size:
        return f"no flagged observation has anything in {where}"
    return f"nothing that is contaminated in {where} has a quantum without flagged observations"
