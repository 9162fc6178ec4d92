"""Which datasets go with which quanta: by the dimensions both have, by links and overlaps, by sky pixel.

Quanta that differ in nothing that matters share one search. Cost: linear in the quanta, and in the pairs found.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from loadmaster_registry.errors import PlanError
from loadmaster_registry.joins import Axes, reduce_join
from loadmaster_registry.sky import envelope_pixels, overlapping_pairs, pixel_regions
from loadmaster_registry.snapshot import Snapshot
from loadmaster_registry.universe import DimensionGroup, Universe
from lsst.sphgeom import IntersectionRegion, Region
from numpy.typing import NDArray

from .graph import Datasets, Edges, Quanta, positions

Integers = NDArray[np.int64]

SEARCH, DATASET = "\x00search", "\x00dataset"
_LARGEST_KEY = 1 << 62


class QuantumCodes:
    """The quanta of one task as codes of every dimension that their data IDs hold or imply."""

    def __init__(self, registry: Snapshot, quanta: Quanta, axes: Axes) -> None:
        self.registry = registry
        self.group = registry.universe.group(quanta.dimensions)
        self.count = quanta.count
        absent = {d: registry.records(d, columns=()) for d in self.group.names if d not in axes.values}
        self.axes = Axes({**axes.values, **{d: r[d].unique().sort() for d, r in absent.items()}})
        self._columns = {d: quanta.codes[d].to_numpy() for d in quanta.codes.columns}

    def column(self, dimension: str) -> NDArray[np.uint32]:
        """Return the code of a dimension for each quantum; it must vary."""
        if dimension not in self._columns:
            self._columns[dimension] = self._implied(dimension)
        return self._columns[dimension]

    def frame(self, dimensions: Iterable[str], rows: Integers | None = None) -> pl.DataFrame:
        """Return the codes of those of `dimensions` that vary, of some quanta only where `rows` says which."""
        columns = {d: self.column(d) for d in self.axes.varying(dimensions)}
        return pl.DataFrame({d: c if rows is None else c[rows] for d, c in columns.items()})

    def values(self, dimensions: Sequence[str], rows: Integers) -> pl.DataFrame:
        """Return the data IDs of some quanta."""
        codes = self.frame(dimensions, rows)
        return self.axes.decode(codes if codes.width else pl.DataFrame({"": rows}), dimensions)

    def rows_in(self, records: pl.DataFrame, keys: Sequence[str]) -> tuple[pl.DataFrame, Integers]:
        """Return coded records in order of key, and where each quantum finds its own; −1 where it has none."""
        coded = self.axes.encode(records)
        varying = self.axes.varying(keys)
        if not varying:
            return coded, np.full(self.count, 0 if coded.height else -1)
        coded = coded.sort(varying)
        return coded, positions(self.frame(varying), coded.select(varying), self.axes)

    def _implied(self, dimension: str) -> NDArray[np.uint32]:
        universe = self.registry.universe
        owner = next(e for e in map(universe.__getitem__, self.group.names) if dimension in e.implied)
        records = self.registry.records(owner.name, columns=[dimension])
        coded, place = self.rows_in(records.select(*owner.required, dimension), owner.required)
        return coded[dimension].to_numpy()[place]


@dataclass(frozen=True)
class Searches:
    """Distinct searches, each for all quanta that agree in what matters."""

    of_quantum: Integers  # shape (n_quanta,)
    example: Integers  # one quantum of each search, shape (n_searches,)

    def edges(self, search: Integers, dataset: Integers, wanted: NDArray[np.bool_]) -> Edges:
        """Give what each search found to its quanta, as far as they are `wanted`.

        Parameters
        ----------
        search, dataset : ndarray of int64, shape (n_found,)
            Sorted by search, then dataset.
        """
        n_found = np.bincount(search, minlength=self.example.size)
        if n_found.max(initial=0) <= 1:
            found = np.full(self.example.size, -1, dtype=np.int64)
            found[search] = dataset
            mine = found[self.of_quantum]
            has = wanted & (mine >= 0)
            return Edges(np.flatnonzero(has).astype(np.uint32), mine[has].astype(np.uint32))
        begin = np.cumsum(n_found) - n_found
        n_edges = np.where(wanted, n_found[self.of_quantum], 0)
        quantum = np.repeat(np.arange(wanted.size, dtype=np.uint32), n_edges)
        within = np.arange(quantum.size) - np.repeat(np.cumsum(n_edges) - n_edges, n_edges)
        return Edges(quantum, dataset[begin[self.of_quantum[quantum]] + within].astype(np.uint32))


def distinct_searches(codes: QuantumCodes, dimensions: Iterable[str], *others: Integers) -> Searches:
    """Let quanta share a search where they agree in `dimensions` and in `others` (small integers)."""
    varying = codes.axes.varying(dimensions)
    columns: list[tuple[NDArray[Any], int]] = [(codes.column(d), codes.axes.size(d)) for d in varying]
    columns += [(column, int(column.max(initial=0)) + 1) for column in others]
    key, size = np.zeros(codes.count, dtype=np.int64), 1
    for column, n_values in columns:
        if size * n_values > _LARGEST_KEY:
            first, key = _numbered(key, size)
            size = first.size
        key = key * n_values + column
        size *= n_values
    example, of_quantum = _numbered(key, size)
    return Searches(of_quantum, example)


def _numbered(key: Integers, size: int) -> tuple[Integers, Integers]:
    """Return where each distinct key stands (once), and the number of each key among the distinct ones, sorted."""
    if size > 4 * key.size + 1024:
        _, first, number = np.unique(key, return_index=True, return_inverse=True)
        return first, number
    place = np.full(size, -1, dtype=np.int64)
    place[key] = np.arange(key.size)
    found = np.flatnonzero(place >= 0)
    first = place[found]
    place[found] = np.arange(found.size)
    return first, place[key]


def related(
    codes: QuantumCodes, searches: Searches, ids: pl.DataFrame, group: DimensionGroup
) -> tuple[Integers, Integers]:
    """Pair searches with data IDs, as Rubin's queries do: all that the join over both sets of dimensions admits.

    They agree in shared dimensions, implied ones included; link tables relate the others; and the finest regions of
    two families overlap, unless quanta or datasets by themselves have both.

    Parameters
    ----------
    ids : DataFrame
        Distinct data IDs over the required dimensions of `group`, with their number (`DATASET`).

    Returns
    -------
    search, number : ndarray of int64
        Position in `searches`, number of the data ID.
    """
    universe = codes.registry.universe
    whole = universe.group({*codes.group.names, *group.names})
    links = [e.name for e in universe.joins_of(whole) if not set(e.required) <= set(codes.group)]
    overlap = needed_overlap(universe, codes.group, group)
    if links or overlap:
        return _joined(codes, searches, ids, group, links, overlap)
    shared = [d for d in group.names if d in codes.group]
    if set(group.required) - set(codes.group):
        ids = with_implied(codes.registry, ids, group)
    numbered = codes.axes.encode(ids.select(DATASET, *(d for d in shared if d in ids.columns)))
    return _matched(codes, searches, numbered)


def needed_overlap(
    universe: Universe, quanta: DimensionGroup, datasets: DimensionGroup
) -> tuple[str, str] | None:
    """Return the elements whose regions must overlap for a quantum to go with a dataset, if any.

    Raises
    ------
    PlanError
        If more than two families of regions take part.
    """
    whole = universe.group({*quanta.names, *datasets.names})
    members = sorted(universe.finest(universe.spatial_families, whole).values())
    if len(members) > 2:
        raise PlanError(
            what=f"no rule says how {', '.join(members)} overlap on the sky",
            where=f"a prerequisite over {datasets} for quanta over {quanta}",
            why="only two families of regions can be joined at once",
            todo="make the input a regular one of a task with other dimensions",
        )
    both = {d for m in members for d in universe[m].required}
    if len(members) < 2 or both <= set(quanta) or both <= set(datasets):
        return None
    return members[0], members[1]


def with_implied(registry: Snapshot, ids: pl.DataFrame, group: DimensionGroup) -> pl.DataFrame:
    """Add to data IDs the dimensions that their records imply."""
    for element, new in registry.universe.implications(ids.columns, group):
        keys = list(element.required)
        records = registry.records(element.name, columns=new)
        ids = ids.join(records.select(*keys, *new), on=keys, how="left", maintain_order="left")
    return ids


def _matched(codes: QuantumCodes, searches: Searches, numbered: pl.DataFrame) -> tuple[Integers, Integers]:
    """Join searches with coded rows on the dimensions that vary among those that the rows have."""
    varying = list(codes.axes.varying(d for d in numbered.columns if d in codes.axes.values))
    asked = codes.frame(varying, searches.example)
    asked = pl.DataFrame([pl.Series(SEARCH, np.arange(searches.example.size)), *asked.get_columns()])
    found = asked.join(numbered, on=varying, how="inner") if varying else asked.join(numbered, how="cross")
    return found[SEARCH].to_numpy(), found[DATASET].cast(pl.Int64).to_numpy()


def _joined(
    codes: QuantumCodes,
    searches: Searches,
    ids: pl.DataFrame,
    group: DimensionGroup,
    links: Sequence[str],
    overlap: tuple[str, str] | None,
) -> tuple[Integers, Integers]:
    registry, universe = codes.registry, codes.registry.universe
    frames = {"quanta": codes.values(codes.group.names, searches.example)}
    frames["datasets"] = with_implied(registry, ids, group).drop(DATASET)
    for name in links:
        required = universe[name].required
        records = registry.records(name, columns=()).select(required)
        frames[name] = with_implied(registry, records, universe.group(required))
    axes = _axes_of(frames.values())
    relations = [axes.relation(name, frame.unique()) for name, frame in frames.items() if frame.width]
    reduced = reduce_join(relations, axes)
    if overlap and not reduced.is_empty:
        sides = [_regions(registry, e, reduced.data_ids(universe[e].required)) for e in overlap]
        a, b = overlapping_pairs(sides[0]["region"], sides[1]["region"])
        pairs = pl.concat([sides[0].drop("region")[a], sides[1].drop("region")[b]], how="horizontal")
        reduced = reduce_join([*reduced.relations, axes.relation("overlapping regions", pairs)], axes)
    own = codes.group.required
    rows = reduced.data_ids((*own, *(d for d in ids.columns if d != DATASET and d not in own)))
    asked = frames["quanta"].select(codes.group.required).with_row_index(SEARCH)
    pairs = _looked_up(_looked_up(rows, asked), ids)
    return pairs[SEARCH].cast(pl.Int64).to_numpy(), pairs[DATASET].cast(pl.Int64).to_numpy()


def _looked_up(rows: pl.DataFrame, numbered: pl.DataFrame) -> pl.DataFrame:
    keys = [c for c in numbered.columns if c not in (SEARCH, DATASET)]
    return rows.join(numbered, on=keys, how="inner") if keys else rows.join(numbered, how="cross")


def _axes_of(frames: Iterable[pl.DataFrame]) -> Axes:
    values: dict[str, list[pl.Series]] = {}
    for frame in frames:
        for d in frame.columns:
            values.setdefault(d, []).append(frame[d])
    return Axes({d: pl.concat(pieces).drop_nulls().unique().sort() for d, pieces in values.items()})


def _regions(registry: Snapshot, element: str, ids: pl.DataFrame) -> pl.DataFrame:
    """Return the regions of some data IDs of an element; those without one are left out."""
    keys = list(registry.universe[element].required)
    records = registry.records(element, columns=["region"]).select(*keys, "region").drop_nulls("region")
    return records.join(ids, on=keys, how="semi", maintain_order="left")


def own_pixels(codes: QuantumCodes, searches: Searches, pixels: str) -> tuple[Integers, Integers]:
    """Return search and pixel of all sky pixels that the envelope of a search's own region touches."""
    keys = region_keys(codes.registry.universe, codes.group)
    asked = codes.values(keys, searches.example).with_row_index(SEARCH)
    ids = asked.select(keys).unique()
    row, pixel = pixels_of_data_ids(codes.registry, ids, pixels)
    touched = ids[row].with_columns(pl.Series(pixels, pixel, dtype=pl.Int64))
    found = touched.join(asked, on=list(keys), how="inner")
    return found[SEARCH].cast(pl.Int64).to_numpy(), found[pixels].to_numpy()


def region_keys(universe: Universe, group: DimensionGroup) -> tuple[str, ...]:
    """Return the dimensions that say which region a data ID has; none where it has no region."""
    return universe.ordered({d for m in region_elements(universe, group) for d in universe[m].required})


def region_elements(universe: Universe, group: DimensionGroup) -> tuple[str, ...]:
    """Return the finest element of each family of regions; each system of sky pixels is a family of its own."""
    pixels = sorted((d for d in group.required if universe[d].is_skypix), key=lambda d: (len(d), d))
    deepest = {d.rstrip("0123456789"): d for d in pixels}
    return (*universe.finest(universe.spatial_families, group).values(), *deepest.values())


def pixels_of_data_ids(registry: Snapshot, ids: pl.DataFrame, pixels: str) -> tuple[Integers, Integers]:
    """Return row and pixel of all sky pixels that the region of a data ID touches.

    The region of a data ID with several families of regions is where all overlap.

    Raises
    ------
    PlanError
        If data IDs over these dimensions have no region.
    """
    universe = registry.universe
    members = region_elements(universe, universe.group(ids.columns))
    if not members:
        raise PlanError(
            what=f"data IDs over {', '.join(ids.columns)} have no region",
            where="a connection that `spatial_bounds_from` names",
            why="none of these dimensions has one",
            todo="name connections whose datasets lie on the sky",
        )
    return envelope_pixels(_intersections([_region_column(registry, ids, m) for m in members]), pixels)


def _region_column(registry: Snapshot, ids: pl.DataFrame, element: str) -> pl.Series:
    """Return the region that an element gives to each data ID."""
    definition = registry.universe[element]
    if definition.is_skypix:
        return pixel_regions(ids[element], element)
    keys = list(definition.required)
    records = registry.records(element, columns=["region"]).select(*keys, "region")
    return ids.join(records, on=keys, how="left", maintain_order="left")["region"]


def _intersections(regions: Sequence[pl.Series]) -> pl.Series:
    if len(regions) == 1:
        return regions[0]
    found = [
        None if None in parts else _intersection([Region.decode(part) for part in parts])
        for parts in zip(*regions, strict=True)
    ]
    return pl.Series(found, dtype=pl.Binary)


def _intersection(parts: Sequence[Region]) -> bytes:
    whole = parts[0]
    for part in parts[1:]:
        whole = IntersectionRegion(whole, part)
    encoded: bytes = whole.encode()
    return encoded


def bounding_pixels(
    codes: QuantumCodes, bounds: Sequence[tuple[Edges, Datasets]], pixels: str
) -> tuple[Integers, Integers]:
    """Return quantum and pixel of all sky pixels that a quantum's own region touches, or one of its datasets."""
    found = []
    for edges, datasets in bounds:
        used = np.unique(edges.dataset).astype(np.int64)
        drawn = datasets.codes[used] if datasets.codes.width else pl.DataFrame({"": used})
        row, pixel = pixels_of_data_ids(codes.registry, codes.axes.decode(drawn, datasets.dimensions), pixels)
        linked = pl.DataFrame(
            {DATASET: edges.dataset.astype(np.int64), SEARCH: edges.quantum.astype(np.int64)}
        )
        touched = linked.join(pl.DataFrame({DATASET: used[row], "pixel": pixel}), on=DATASET)
        found.append(touched.select(SEARCH, "pixel"))
    if region_keys(codes.registry.universe, codes.group):
        everyone = Searches(np.arange(codes.count), np.arange(codes.count))
        quantum, pixel = own_pixels(codes, everyone, pixels)
        found.append(pl.DataFrame({SEARCH: quantum, "pixel": pixel}))
    whole = pl.concat(found).unique()
    return whole[SEARCH].to_numpy(), whole["pixel"].to_numpy()


def by_pixel(
    codes: QuantumCodes,
    searches: Searches,
    ids: pl.DataFrame,
    shared: Sequence[str],
    pixels: str,
    touched: tuple[Integers, Integers],
) -> tuple[Integers, Integers]:
    """Pair searches with the data IDs that agree in `shared` dimensions and whose pixel they touch."""
    numbered = codes.axes.encode(ids.select(DATASET, *shared, pixels))
    varying = list(codes.axes.varying(shared))
    asked = codes.frame(varying, searches.example[touched[0]])
    asked = pl.DataFrame([pl.Series(SEARCH, touched[0]), pl.Series(pixels, touched[1]), *asked.get_columns()])
    found = asked.join(numbered.select(DATASET, pixels, *varying), on=[pixels, *varying], how="inner")
    return found[SEARCH].to_numpy(), found[DATASET].cast(pl.Int64).to_numpy()
