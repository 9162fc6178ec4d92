"""Look up what exists before a run: calibrations by time, reference data by sky pixel, the rest by data ID.

Set-based, for all quanta of a task at once. The rules are those of Rubin's builder.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from loadmaster_pipelines.connections import Connection
from loadmaster_pipelines.pipeline import TaskNode
from loadmaster_registry.errors import NotFound, PlanError
from loadmaster_registry.frames import Keep
from loadmaster_registry.records import DatasetType
from loadmaster_registry.snapshot import Snapshot
from loadmaster_registry.timespan import Timespan
from numpy.typing import NDArray

from .graph import Datasets, Edges, Part, Quanta, counts, quantum_data_id, refuse_several
from .lookups import (
    DATASET,
    Integers,
    QuantumCodes,
    Searches,
    bounding_pixels,
    by_pixel,
    distinct_searches,
    own_pixels,
    region_elements,
    region_keys,
    related,
)
from .overrides import Chosen, Override, chosen_datasets
from .validity_search import quantum_times, valid_rows

_KEPT = 1000  # so many values of a dimension are worth naming when datasets are read
_NO_EDGES = Edges(np.zeros(0, np.uint32), np.zeros(0, np.uint32))


@dataclass(frozen=True)
class Prerequisites:
    """What one connection found."""

    dataset_type: str
    datasets: pl.DataFrame  # required dimensions of the type, "dataset" Int64: the registry's row id; sorted
    edges: Edges  # their `dataset` is a row of `datasets`
    overridden: frozenset[tuple[str, int]] = (
        frozenset()
    )  # file and row of the overrides that match some quantum


@dataclass(frozen=True)
class _Search:
    """All that the search of one connection needs to know."""

    registry: Snapshot
    task: TaskNode
    connection: Connection
    part: Part
    codes: QuantumCodes
    dataset_type: DatasetType
    collections: Sequence[str]

    @property
    def quanta(self) -> Quanta:
        """The task's quanta."""
        return self.part.quanta[self.task.label]


def find_prerequisites(
    registry: Snapshot,
    task: TaskNode,
    part: Part,
    collections: Sequence[str],
    overrides: Sequence[Override] = (),
) -> Mapping[str, Prerequisites]:
    """Search `collections` for what each quantum of a task needs by its prerequisite connections.

    Parameters
    ----------
    part : Part
        Has the task's quanta, with the regular inputs that are left to them.

    Returns
    -------
    found : mapping
        By name of the connection.

    Raises
    ------
    PlanError
        If a quantum has fewer datasets than the connection's minimum, more than one where it takes one, or if
        several calibrations of one collection are valid at its time; if two overrides that contradict each other
        match one quantum; or if a dataset type contradicts the registry.
    """
    quanta = part.quanta[task.label]
    codes = QuantumCodes(registry, quanta, part.axes)
    found = {}
    for c in task.prerequisites:
        try:
            dataset_type = registry.dataset_type(c.dataset_type)
        except NotFound as error:
            found[c.name] = _unknown(task, c, part, error)
            continue
        _check_type(task, c, registry, dataset_type)
        search = _Search(registry, task, c, part, codes, dataset_type, collections)
        found[c.name] = _found(search, [o for o in overrides if o.dataset_type == dataset_type.name])
    return found


def _unknown(task: TaskNode, connection: Connection, part: Part, error: NotFound) -> Prerequisites:
    quanta = part.quanta[task.label]
    if connection.minimum and quanta.count:
        everyone = np.ones(quanta.count, dtype=bool)
        raise _missing(task, connection, part, everyone, str(error.args[0]))
    return Prerequisites(connection.dataset_type, pl.DataFrame(schema={"dataset": pl.Int64}), _NO_EDGES)


def _check_type(task: TaskNode, connection: Connection, registry: Snapshot, known: DatasetType) -> None:
    """Refuse a dataset type that is another one in the registry; the placeholder ``skypix`` is any sky pixel."""
    universe = registry.universe
    said = universe.group(d for d in connection.dimensions if d != "skypix").required
    there = known.dimensions.required
    if "skypix" in connection.dimensions:
        there = tuple(d for d in there if not universe[d].is_skypix)
    if said != there or connection.calibration != known.is_calibration:
        which = "a calibration" if known.is_calibration else "no calibration"
        raise PlanError(
            what=f"dataset type {known.name!r} has dimensions {known.dimensions} in the registry and is {which}",
            where=f"task {task.label}, connection {connection.name}",
            why=f"the pipeline says {{{', '.join(connection.dimensions)}}}"
            + (", a calibration" if connection.calibration else ", no calibration"),
            todo="declare the connection as the registry has it, or name another dataset type",
        )


def _found(search: _Search, overrides: Sequence[Override]) -> Prerequisites:
    connection, quanta = search.connection, search.quanta
    chosen = chosen_datasets(search.codes, search.task.label, overrides) if overrides else None
    wanted = np.ones(quanta.count, dtype=bool)
    if chosen is not None and not connection.multiple:
        wanted = chosen.row < 0  # the others have theirs, whatever is valid
    calibration = search.dataset_type.is_calibration
    datasets, edges = (_by_time if calibration else _by_data_id)(search, wanted)
    if chosen is not None:
        datasets, edges = _with_chosen(search, datasets, edges, chosen)
    _check_counts(search, edges)
    return Prerequisites(
        search.dataset_type.name, datasets, edges, chosen.matched if chosen is not None else frozenset()
    )


def _by_data_id(search: _Search, wanted: NDArray[np.bool_]) -> tuple[pl.DataFrame, Edges]:
    name, required = search.dataset_type.name, search.dataset_type.dimensions.required
    found = search.registry.datasets(name, search.collections, keep=_keep(search))
    found = found.select(*required, "dataset").sort(*required, "dataset").with_row_index(DATASET)
    searches, pairs = _pairs(search, found.drop("dataset"))
    return _edges(found, searches, *pairs, wanted)


def _by_time(search: _Search, wanted: NDArray[np.bool_]) -> tuple[pl.DataFrame, Edges]:
    """Find what is valid at each quantum's time: in the first collection that has anything, and there just one."""
    required = search.dataset_type.dimensions.required
    ranges = search.registry.calibrations(search.dataset_type.name, search.collections, keep=_keep(search))
    ids = ranges.select(required).unique() if required else pl.DataFrame({"": ranges["rank"].head(1)})
    ids = ids.with_row_index(DATASET).select(*required, DATASET)
    ranges = ranges.join(ids, on=list(required), how="left") if required else ranges.join(ids, how="cross")
    times = quantum_times(search.registry, search.codes, ranges)
    searches, (asked, data_id) = _pairs(search, ids, times.of_quantum)
    row, several = valid_rows(ranges, times, data_id, times.of_quantum[searches.example[asked]])
    _refuse_rivals(search, ranges, (searches, asked, data_id), several, wanted)
    hit = row >= 0
    used = ranges.select(*required, "dataset")[row[hit]]
    datasets = used.unique().sort(*required, "dataset").with_row_index(DATASET)
    number = used.join(datasets.select("dataset", DATASET), on="dataset", how="left", maintain_order="left")
    return _edges(datasets, searches, asked[hit], number[DATASET].cast(pl.Int64).to_numpy(), wanted)


def _keep(search: _Search) -> Keep:
    """Return the few values of a dimension that any quantum has: no other dataset needs to be read."""
    axes, group = search.codes.axes, search.codes.group
    shared = [d for d in search.dataset_type.dimensions.required if d in group]
    return {d: axes.values[d].to_list() for d in shared if axes.size(d) <= _KEPT}


def _pairs(
    search: _Search, ids: pl.DataFrame, *others: Integers
) -> tuple[Searches, tuple[Integers, Integers]]:
    """Pair quanta, as few as differ in what matters, with data IDs of the dataset type."""
    universe, codes, group = search.registry.universe, search.codes, search.dataset_type.dimensions
    pixels = [d for d in group.required if universe[d].is_skypix and d not in codes.group]
    if pixels:
        return _pairs_by_pixel(search, ids, pixels, *others)
    inside = set(group.required) <= set(codes.group)
    # Whatever else joins in may depend on any dimension of the quantum.
    matters = group.required if inside else codes.group.required
    searches = distinct_searches(codes, matters, *others)
    return searches, related(codes, searches, ids, group)


def _pairs_by_pixel(
    search: _Search, ids: pl.DataFrame, pixels: Sequence[str], *others: Integers
) -> tuple[Searches, tuple[Integers, Integers]]:
    """Pair quanta with data IDs by the sky pixels that bound the quantum, and by shared dimensions."""
    universe, codes, group = search.registry.universe, search.codes, search.dataset_type.dimensions
    families = region_elements(universe, codes.group)
    bounds = search.task.spatial_bounds_from
    if len(pixels) > 1 or (len(families) > 1 and not bounds):
        raise PlanError(
            what=f"no rule says which {search.dataset_type.name!r} a quantum of {search.task.label} needs",
            where=f"connection {search.connection.name}",
            why=f"its region could be that of {' or '.join(families)}"
            if len(pixels) == 1
            else f"{' and '.join(pixels)} cannot be searched together",
            todo="name the connections whose datasets bound it on the sky: `spatial_bounds_from`",
        )
    shared = [d for d in group.required if d in codes.group]
    if bounds:
        searches = Searches(np.arange(codes.count), np.arange(codes.count))
        touched = bounding_pixels(codes, _bounding_edges(search), pixels[0])
    elif not families:  # nothing says where on the sky the quantum is
        rest = universe.group(d for d in group.required if d not in pixels)
        searches = distinct_searches(codes, codes.group.required, *others)
        return searches, related(codes, searches, ids.drop(pixels), rest)
    else:
        keys = region_keys(universe, codes.group)
        searches = distinct_searches(codes, {*shared, *keys}, *others)
        touched = own_pixels(codes, searches, pixels[0])
    return searches, by_pixel(codes, searches, ids, shared, pixels[0], touched)


def _bounding_edges(search: _Search) -> list[tuple[Edges, Datasets]]:
    """Return the edges of all connections whose dataset type bounds the task on the sky."""
    quanta, datasets = search.quanta, search.part.datasets
    types = {quanta.types[name] for name in search.task.spatial_bounds_from}
    sides = {**quanta.inputs, **quanta.outputs}
    return [(edges, datasets[quanta.types[c]]) for c, edges in sides.items() if quanta.types[c] in types]


def _edges(
    datasets: pl.DataFrame, searches: Searches, asked: Integers, number: Integers, wanted: NDArray[np.bool_]
) -> tuple[pl.DataFrame, Edges]:
    """Give to the wanted quanta what their searches found; return the datasets that are used, too."""
    order = np.lexsort((number, asked))
    edges = searches.edges(asked[order], number[order], wanted)
    return _only_used(datasets.drop(DATASET), edges)


def _only_used(datasets: pl.DataFrame, edges: Edges) -> tuple[pl.DataFrame, Edges]:
    used = np.zeros(datasets.height, dtype=bool)
    used[edges.dataset] = True
    place = np.cumsum(used, dtype=np.uint32) - np.uint32(1)
    return datasets.filter(pl.Series(used)), Edges(edges.quantum, place[edges.dataset])


def _with_chosen(
    search: _Search, datasets: pl.DataFrame, edges: Edges, chosen: Chosen
) -> tuple[pl.DataFrame, Edges]:
    """Add what overrides say; it takes the place of whatever was found with the same data ID."""
    required = list(search.dataset_type.dimensions.required)
    quantum = np.flatnonzero(chosen.row >= 0)
    added = chosen.datasets[chosen.row[quantum]].with_columns(quantum=pl.Series(quantum, dtype=pl.UInt32))
    found = datasets[edges.dataset].with_columns(quantum=pl.Series(edges.quantum))
    kept = found.join(added, on=["quantum", *required], how="anti")
    whole = pl.concat([kept, added.select(kept.columns)]).sort("quantum", *required, "dataset")
    table = whole.drop("quantum").unique().sort(*required, "dataset").with_row_index(DATASET)
    number = whole.join(table.select("dataset", DATASET), on="dataset", how="left", maintain_order="left")
    return table.drop(DATASET), Edges(whole["quantum"].to_numpy(), number[DATASET].to_numpy())


def _refuse_rivals(
    search: _Search,
    ranges: pl.DataFrame,
    pairs: tuple[Searches, Integers, Integers],
    several: Integers,
    wanted: NDArray[np.bool_],
) -> None:
    """Raise if a quantum that takes what is valid has several to choose from."""
    searches, asked, data_id = pairs
    serves = np.bincount(searches.of_quantum[wanted], minlength=searches.example.size) > 0
    several = several[serves[asked[several]]]
    if not several.size:
        return
    quantum = int(searches.example[asked[several[0]]])
    mine = ranges.filter(pl.col(DATASET) == int(data_id[several[0]])).sort("rank", "begin")
    mine = mine.filter(_overlaps(search, quantum))
    mine = mine.filter(pl.col("rank") == mine["rank"].min())
    files = search.registry.files(mine["dataset"])
    shown = "; ".join(
        f"{Timespan(begin, end)} in {run}"
        for begin, end, run in zip(mine["begin"], mine["end"], files["run"], strict=True)
    )
    names = search.dataset_type.dimensions.required
    collection = search.registry.flatten(search.collections)[mine["rank"][0]].name
    raise PlanError(
        what=f"several {search.dataset_type.name!r} are valid at once for task {search.task.label}",
        where=f"collection {collection}, {mine.select(names).row(0, named=True)}, "
        f"for instance quantum {quantum_data_id(search.quanta, search.part.axes, quantum)}",
        why=f"their ranges overlap the time of the quantum: {shown}",
        todo="decertify one of them, search a collection that holds only one, or say which by an override",
    )


def _overlaps(search: _Search, quantum: int) -> pl.Expr:
    """Return the condition on ranges that they overlap the time of a quantum."""
    universe, codes = search.registry.universe, search.codes
    element = universe.timespan_of(codes.group)
    if element is None:
        return pl.lit(True)
    keys = universe[element].required
    own = codes.values(keys, np.array([quantum])).row(0, named=True)
    record = search.registry.records(element, {d: [v] for d, v in own.items()}).row(0, named=True)
    begin, end = pl.lit(record["timespan_begin"]), pl.lit(record["timespan_end"])
    return pl.all_horizontal(pl.col("begin") < end, pl.col("end") > begin)


def _check_counts(search: _Search, edges: Edges) -> None:
    connection, quanta = search.connection, search.quanta
    n = counts(edges, quanta.count)
    if (short := n < connection.minimum).any():
        why = f"nothing in {', '.join(search.collections)} matches"
        if connection.minimum > 1:
            why = f"fewer than {connection.minimum} datasets in {', '.join(search.collections)} match"
        raise _missing(search.task, connection, search.part, short, why)
    if not connection.multiple:
        refuse_several(search.task, connection, quanta, search.part.axes, n > 1)


def _missing(
    task: TaskNode, connection: Connection, part: Part, short: NDArray[np.bool_], why: str
) -> PlanError:
    quanta = part.quanta[task.label]
    examples = [quantum_data_id(quanta, part.axes, int(row)) for row in np.flatnonzero(short)[:3]]
    return PlanError(
        what=f"{int(short.sum())} quanta of {task.label} lack the prerequisite {connection.dataset_type!r}",
        where=f"connection {connection.name}; for instance {'; '.join(map(str, examples))}",
        why=why,
        todo="add the collection that holds it to the inputs, leave these data IDs out by `where`, or make the input "
        "optional with `minimum: 0`",
    )
