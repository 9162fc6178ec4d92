"""Data IDs over sky pixels that no record lists: the pixels that the regions of other data IDs touch.

The rules are those of Rubin's builder. A set of dimensions with such a pixelisation gets its pixels from the
envelope of the one region that its other dimensions have; sets without a region are projections of those with one;
between two levels of one system pixels follow by arithmetic. So two tasks may see slightly different pixels, each
those of its own regions.
"""

from collections.abc import Iterable, Mapping

import polars as pl
from loadmaster_registry.errors import PlanError
from loadmaster_registry.joins import Axes, Reduced
from loadmaster_registry.sky import envelope_pixels
from loadmaster_registry.snapshot import Snapshot
from loadmaster_registry.universe import DimensionGroup, Universe

from .lookups import with_implied

PixelTables = dict[tuple[str, ...], pl.DataFrame]  # required dimensions → distinct values


def generated_pixels(universe: Universe, names: Iterable[str], listed: Iterable[str]) -> frozenset[str]:
    """Return the pixelisations among `names` whose pixels nothing lists: neither existing data nor a table."""
    return frozenset(
        d for d in names if universe[d].is_skypix and d != universe.common_skypix and d not in set(listed)
    )


def pixel_tables(
    registry: Snapshot, rows: Reduced, branches: Iterable[DimensionGroup], generated: frozenset[str]
) -> PixelTables:
    """Return the data IDs over each of `branches`, sets of dimensions with at least one generated pixelisation.

    Raises
    ------
    PlanError
        If no rule gives the pixels of some set.
    """
    universe = registry.universe
    wanted = {b.required: b for b in branches if generated & set(b.required)}
    made: PixelTables = {}
    waiting = dict(wanted)
    for required, branch in wanted.items():
        if (table := _by_region(registry, rows, branch, generated)) is not None:
            made[required] = table
            del waiting[required]
    sources = dict(made)
    while waiting:
        found = {
            required: table
            for required, branch in waiting.items()
            if (table := _projected(registry, branch, sources)) is not None
        }
        if not found:
            found = _one_scaled(universe, waiting, made)
            sources |= found
        if not found:
            raise _no_rule(next(iter(waiting.values())))
        made |= found
        waiting = {k: b for k, b in waiting.items() if k not in found}
    return made


def with_pixels(axes: Axes, tables: PixelTables, generated: frozenset[str]) -> Axes:
    """Return `axes` and those of the generated pixelisations."""
    values = dict(axes.values)
    for d in generated:
        columns = [table[d] for table in tables.values() if d in table.columns]
        values[d] = pl.concat([pl.Series(d, [], dtype=pl.Int64), *columns]).unique().sort()
    return Axes(values)


def _by_region(
    registry: Snapshot, rows: Reduced, branch: DimensionGroup, generated: frozenset[str]
) -> pl.DataFrame | None:
    """Add pixels by the envelope of the region that the other dimensions have."""
    universe = registry.universe
    pixels = [d for d in branch.required if d in generated]
    others = universe.group(d for d in branch.names if d not in generated)
    element = universe.region_of(others)
    if len(pixels) != 1 or element is None or universe[element].is_skypix:
        return None
    keys = list(universe[element].required)
    ids = rows.data_ids(others.required)
    regions = registry.records(element).select(*keys, "region").drop_nulls("region")
    regions = regions.join(ids.select(keys).unique(), on=keys, how="semi")
    row, pixel = envelope_pixels(regions["region"], pixels[0])
    touched = regions.select(keys)[row].with_columns(pl.Series(pixels[0], pixel).cast(pl.Int64))
    return ids.join(touched, on=keys, how="inner").select(branch.required).unique()


def _projected(registry: Snapshot, branch: DimensionGroup, sources: PixelTables) -> pl.DataFrame | None:
    """Project all tables that have the dimensions, be it by what their records imply."""
    universe = registry.universe
    pieces = []
    for required, table in sources.items():
        whole = universe.group(required)
        if set(branch.required) <= set(whole.names):
            pieces.append(with_implied(registry, table, whole).select(branch.required).unique())
    return pl.concat(pieces).unique() if pieces else None


def _one_scaled(
    universe: Universe, waiting: Mapping[tuple[str, ...], DimensionGroup], made: PixelTables
) -> PixelTables:
    """Add the pixels of one more level to a table of the same system's other level."""
    for required in waiting:
        for source, table in made.items():
            new = [d for d in required if d not in source]
            if len(new) == 1 and set(source) < set(required):
                known = [d for d in source if _same_system(universe, d, new[0])]
                if known:
                    return {required: _scaled(table, known[0], new[0]).select(required).unique()}
    return {}


def _same_system(universe: Universe, a: str, b: str) -> bool:
    return (
        universe[a].is_skypix and universe[b].is_skypix and a.rstrip("0123456789") == b.rstrip("0123456789")
    )


def _scaled(table: pl.DataFrame, known: str, new: str) -> pl.DataFrame:
    levels = _level(new) - _level(known)
    if levels <= 0:
        return table.with_columns((pl.col(known) // 4**-levels).alias(new))
    children = pl.DataFrame({"child": range(4**levels)}, schema={"child": pl.Int64})
    scattered = table.join(children, how="cross")
    return scattered.with_columns((pl.col(known) * 4**levels + pl.col("child")).alias(new)).drop("child")


def _level(pixels: str) -> int:
    return int(pixels[len(pixels.rstrip("0123456789")) :])


def _no_rule(branch: DimensionGroup) -> PlanError:
    return PlanError(
        what=f"no rule says which sky pixels belong to {branch}",
        where="regular inputs and outputs of the pipeline",
        why="its other dimensions have no region, and nothing that is spread over these pixels has one",
        todo="give the pixels by a data-ID table, or plan these tasks together with those that make their inputs",
    )
