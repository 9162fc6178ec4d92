"""What constrains the data IDs over a set of dimensions: records, links, overlaps on the sky, filters, datasets.

This is the one place that knows how dimensions join; queries and the planner both read their rows off what
`constrain` returns.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import polars as pl

from .errors import QueryError
from .frames import Keep
from .joins import Axes, Reduced, Relation, reduce_join
from .sky import envelope_pixels, overlapping_pairs
from .snapshot import Snapshot
from .universe import DimensionGroup, Universe
from .where import Predicate, contradiction

_FEW_ROWS = 10_000  # of a constraint, that its values are worth gathering before anything is read


@dataclass(frozen=True)
class Constraint:
    """A set of data IDs, as values: anything that admits just these (existing datasets, a table of the user)."""

    name: str
    frame: pl.DataFrame  # one column a dimension
    narrows: bool = False  # its values decide what is read at all; what the funnel counts is then less


@dataclass(frozen=True)
class Exclusion:
    """A set of data IDs that take no part, as values: observations with a flag."""

    name: str
    frame: pl.DataFrame  # one column a required dimension


@dataclass(frozen=True)
class Constrained:
    """The data IDs over `group` that everything admits, and what admitted how many."""

    group: DimensionGroup
    rows: Reduced
    funnel: tuple[tuple[str, int], ...]  # (constraint, combinations that it admits by itself)
    contradiction: str | None = None  # between conditions, whatever is registered

    def why_empty(self) -> str:
        """Say which constraint admits nothing, or that they only contradict each other."""
        if self.contradiction:
            return self.contradiction
        nothing = [name for name, n in self.funnel if not n]
        if nothing:
            return "; ".join(f"nothing matches {name}" for name in nothing)
        found = ", ".join(f"{name} ({n})" for name, n in self.funnel)
        return f"each constraint matches something, but no data ID matches all of them: {found}"


def constrain(
    registry: Snapshot,
    group: DimensionGroup,
    predicates: Sequence[Predicate] = (),
    constraints: Sequence[Constraint] = (),
    exclusions: Sequence[Exclusion] = (),
    *,
    links: bool = True,
    overlap: bool = True,
) -> Constrained:
    """Find the data IDs over `group` and what the predicates and constraints name.

    Rows over a set of dimensions are all combinations of records that agree on shared keys, are related through
    the link tables, and whose finest regions overlap where two families of regions take part, unless a predicate
    says itself which regions must overlap. Exclusions about dimensions that take no part change nothing.

    Parameters
    ----------
    links, overlap : bool
        Without them the link tables relate nothing, and regions need not overlap where no predicate says so:
        for explaining what these take away.

    Raises
    ------
    QueryError
        If more than two families of regions would have to be joined.
    """
    universe = registry.universe
    whole = _with_named(universe, group, predicates, constraints)
    exclusions = _applicable(exclusions, whole)
    keep = _narrowed(kept_values(predicates), constraints)
    own, spanning = _by_element(universe, whole, predicates)
    elements = _elements(universe, whole, own, links)
    frames = {
        e: _filtered(registry.records(e, keep, _read(universe, e, own.get(e, ()))), own.get(e, ()))
        for e in elements
    }
    pixels = _touched_pixels(registry, whole, keep, constraints)
    axes = _axes(universe, whole, frames, [*constraints, *pixels])
    relations = [
        axes.relation(_describe(e, own.get(e, ())), frame.select(_keys(universe, e)))
        for e, frame in frames.items()
    ]
    relations += [axes.relation(c.name, c.frame) for c in (*constraints, *pixels)]
    relations += [_constant(p) for p in spanning if not p.columns]
    reduced = reduce_join(relations, axes)
    later: list[Callable[[Reduced], Relation]] = [partial(_left, e) for e in exclusions]
    pairs = overlaps(universe, whole, predicates, overlap, constraints)
    later += [partial(_overlap, registry, keep, pair) for pair in pairs]
    later += [partial(_spanning, registry, p) for p in spanning if p.columns and not p.joined]
    for relation_among in later:  # what is still possible
        if not reduced.is_empty:
            relations.append(relation_among(reduced))
            reduced = reduce_join([*reduced.relations, relations[-1]], axes)
    funnel = tuple((r.name, r.admits) for r in relations)
    return Constrained(whole, reduced, funnel, contradiction(predicates))


def joined_dimensions(
    universe: Universe,
    group: DimensionGroup,
    predicates: Sequence[Predicate] = (),
    constraints: Sequence[Constraint] = (),
    exclusions: Sequence[Exclusion] = (),
) -> Mapping[object, frozenset[str]]:
    """Return the dimensions of each relation that `constrain` joins, by what makes it one; nothing is read for it."""
    whole = _with_named(universe, group, predicates, constraints)
    found: dict[object, frozenset[str]] = {p: frozenset(universe.group(p.dimensions)) for p in predicates}
    own, _ = _by_element(universe, whole, predicates)
    found |= {e: frozenset(_keys(universe, e)) for e in _elements(universe, whole, own, links=True)}
    for pair in overlaps(universe, whole, predicates, constraints=constraints):
        found[pair] = frozenset(d for element in pair for d in universe[element].required)
    for member, pixels in _touching(universe, whole, constraints):
        found[member, pixels] = frozenset((*universe[member].required, pixels))
    frames = [(c.name, c.frame) for c in constraints]
    frames += [(e.name, e.frame) for e in _applicable(exclusions, whole)]
    for name, frame in frames:
        found[name, *frame.columns] = frozenset(frame.columns)  # several can have the same name
    return found


def _with_named(
    universe: Universe,
    group: DimensionGroup,
    predicates: Iterable[Predicate],
    constraints: Iterable[Constraint],
) -> DimensionGroup:
    named = {d for p in predicates for d in p.dimensions} | {d for c in constraints for d in c.frame.columns}
    return universe.group({*group.names, *named})


def _applicable(exclusions: Iterable[Exclusion], group: DimensionGroup) -> list[Exclusion]:
    return [e for e in exclusions if e.frame.height and set(e.frame.columns) <= set(group.names)]


def kept_values(predicates: Iterable[Predicate]) -> Keep:
    """Return for each dimension the only values that the predicates admit, where they say so directly."""
    keep: dict[str, tuple[int | str, ...]] = {}
    for predicate in predicates:
        for dimension, values in predicate.equal.items():
            before = keep.get(dimension)
            keep[dimension] = values if before is None else tuple(v for v in before if v in set(values))
    return keep


def _narrowed(keep: Keep, constraints: Iterable[Constraint]) -> Keep:
    """Add to the values that predicates keep those of short constraints that narrow: less is read then."""
    narrow = dict(keep)
    for constraint in constraints:
        if constraint.narrows and constraint.frame.height <= _FEW_ROWS:
            for d in constraint.frame.columns:
                values = constraint.frame[d].unique(maintain_order=True).to_list()
                known = set(narrow.get(d, values))
                narrow[d] = tuple(v for v in values if v in known)
    return narrow


def _by_element(
    universe: Universe, group: DimensionGroup, predicates: Sequence[Predicate]
) -> tuple[Mapping[str, Sequence[Predicate]], Sequence[Predicate]]:
    """Give each predicate to the one element whose records hold all its columns; return those that span several."""
    own: dict[str, list[Predicate]] = {}
    spanning = []
    for predicate in predicates:
        home = _home(universe, group, predicate)
        if home is None:
            spanning.append(predicate)
        else:
            own.setdefault(home, []).append(predicate)
    return own, spanning


def _home(universe: Universe, group: DimensionGroup, predicate: Predicate) -> str | None:
    named = {column.split(".")[0] for column in predicate.columns if "." in column}
    plain = {column for column in predicate.columns if "." not in column}
    if not predicate.columns or len(named) > 1:
        return None
    candidates = named or [d for d in group.names if not universe[d].is_skypix]
    return next((e for e in candidates if plain <= set(_keys(universe, e))), None)


def _elements(universe: Universe, group: DimensionGroup, own: Iterable[str], links: bool) -> tuple[str, ...]:
    """Return the elements whose records constrain data IDs over `group`."""
    names = {d for d in group.names if not universe[d].is_skypix}
    joins = {e.name for e in universe.joins_of(group)} if links else set()
    return universe.ordered(names | joins | set(own))


def _keys(universe: Universe, element: str) -> tuple[str, ...]:
    return universe[element].required + universe[element].implied


def _read(universe: Universe, element: str, predicates: Iterable[Predicate]) -> tuple[str, ...]:
    """Return the columns of an element's records that take part."""
    return (*universe[element].implied, *(c.rsplit(".", 1)[-1] for p in predicates for c in p.columns))


def _filtered(frame: pl.DataFrame, predicates: Iterable[Predicate]) -> pl.DataFrame:
    for predicate in predicates:
        frame = frame.filter(predicate.mask(_named(frame, predicate)).fill_null(False))
    return frame


def _named(frame: pl.DataFrame, predicate: Predicate) -> pl.DataFrame:
    """Return the columns that `predicate` reads, by the names it uses."""
    return frame.select(
        pl.col(column.rsplit(".", 1)[-1]).alias(column) for column in sorted(predicate.columns)
    )


def _describe(element: str, predicates: Sequence[Predicate]) -> str:
    told = " and ".join(f"`{p.text}`" for p in predicates)
    return f"{element} where {told}" if told else f"{element} records"


def _axes(
    universe: Universe,
    group: DimensionGroup,
    frames: Mapping[str, pl.DataFrame],
    constraints: Sequence[Constraint],
) -> Axes:
    values = {}
    for dimension in group.names:
        if dimension in frames:
            column = frames[dimension][dimension]
        else:  # sky pixels have no records: what exists says which take part
            given = [c.frame[dimension] for c in constraints if dimension in c.frame.columns]
            column = pl.concat(given) if given else pl.Series(dimension, [], dtype=pl.Int64)
        values[dimension] = column.drop_nulls().unique().sort()
    return Axes(values)


def _constant(predicate: Predicate) -> Relation:
    true = bool(predicate.mask(pl.DataFrame({"": [0]})).fill_null(False).all())
    return Relation(f"`{predicate.text}`", pl.DataFrame(), possible=true, admits=int(true))


def overlaps(
    universe: Universe,
    group: DimensionGroup,
    predicates: Sequence[Predicate],
    finest: bool = True,
    constraints: Sequence[Constraint] = (),
) -> list[tuple[str, str]]:
    """Return the pairs of elements whose regions must overlap: those that predicates name, and the finest.

    The finest are joined where only two families of regions take part that nothing relates yet. A predicate
    relates the two that it names; a constraint that holds data IDs of the finest elements of several families says
    itself which of them belong together.

    Raises
    ------
    QueryError
        If more remains to be joined than two families that nothing relates.
    """
    named = sorted({(min(p.joined), max(p.joined)) for p in predicates if p.joined})
    members = [*universe.finest(universe.spatial_families, group).values()]
    if not finest or len(members) < 2:
        return named  # sky pixels go with the one family there is
    told = [set(universe.group(c.frame.columns).names) for c in constraints if not c.narrows]
    apart = _unrelated(universe, [*members, *_pixels(universe, group)], named, told)
    if len(apart) == 1:
        return named
    if apart == [{member} for member in members]:
        return [*named, (members[0], members[1])]
    raise QueryError(
        what=f"no rule says how {', '.join(' with '.join(sorted(a)) for a in apart)} overlap on the sky",
        where=f"dimensions {group}",
        why="only two families of regions can be joined at once, and only if nothing relates them to others",
        todo="leave one of them out, say which regions overlap (`a.region OVERLAPS b.region`), give a table of the "
        "data IDs that belong together, or look its datasets up as a prerequisite",
    )


def _unrelated(
    universe: Universe,
    members: Sequence[str],
    named: Iterable[tuple[str, str]],
    told: Sequence[set[str]],
) -> list[set[str]]:
    """Return sets of members, one a family, of which predicates or constraints relate each to the others."""
    family = {e: f for f, elements in universe.spatial_families.items() for e in elements}
    member_of = {family.get(m, m): m for m in members}
    pairs = [{member_of[family.get(e, e)] for e in pair} for pair in named]
    pairs += [{m for m in members if set(universe[m].required) <= names} for names in told]
    apart = [{m} for m in members]
    for pair in pairs:
        touched = [a for a in apart if a & pair]
        if len(touched) > 1:
            apart = [a for a in apart if not a & pair] + [set[str]().union(*touched)]
    return apart


def _pixels(universe: Universe, group: DimensionGroup) -> list[str]:
    return [d for d in group.required if universe[d].is_skypix]


def _touched_pixels(
    registry: Snapshot, group: DimensionGroup, keep: Keep, constraints: Iterable[Constraint]
) -> list[Constraint]:
    """Relate sky pixels to the one family of regions that takes part: a region touches what its envelope does."""
    touched = []
    for member, pixels in _touching(registry.universe, group, constraints):
        records = registry.records(member, keep, ["region"]).drop_nulls("region")
        row, pixel = envelope_pixels(records["region"], pixels)
        keys = registry.universe[member].required
        frame = records.select(keys)[row].with_columns(pl.Series(pixels, pixel).cast(pl.Int64))
        touched.append(Constraint(f"{pixels} pixels that {member} regions touch", frame))
    return touched


def _touching(
    universe: Universe, group: DimensionGroup, constraints: Iterable[Constraint]
) -> list[tuple[str, str]]:
    """Return which element's regions relate to which sky pixels, where just one family of regions takes part.

    A constraint that holds data IDs of both says itself which of them belong together.
    """
    members = [*universe.finest(universe.spatial_families, group).values()]
    if len(members) != 1:
        return []
    told = [set(universe.group(c.frame.columns).names) for c in constraints if not c.narrows]
    both = [
        (members[0], pixels, {*universe[members[0]].required, pixels}) for pixels in _pixels(universe, group)
    ]
    return [(member, pixels) for member, pixels, named in both if not any(named <= names for names in told)]


def _left(exclusion: Exclusion, reduced: Reduced) -> Relation:
    """Make a relation of what is left without the excluded data IDs."""
    keys = exclusion.frame.columns
    left = reduced.data_ids(keys).join(exclusion.frame, on=keys, how="anti", maintain_order="left")
    return reduced.axes.relation(exclusion.name, left)


def _overlap(registry: Snapshot, keep: Keep, pair: tuple[str, str], reduced: Reduced) -> Relation:
    """Relate what overlaps on the sky, among the regions that can still take part."""
    sides = []
    for element in pair:
        keys = registry.universe[element].required
        regions = registry.records(element, keep, ["region"]).drop_nulls("region")
        sides.append(reduced.taking_part(regions, keys))
    a, b = overlapping_pairs(sides[0]["region"], sides[1]["region"])
    codes = [side[d].gather(at) for side, at in zip(sides, (a, b), strict=True) for d in side.columns[:-1]]
    frame = pl.DataFrame(codes)
    name = f"{pair[0]} regions overlapping {pair[1]} regions"
    return Relation(name, frame, possible=a.size > 0, admits=a.size)


def _spanning(registry: Snapshot, predicate: Predicate, reduced: Reduced) -> Relation:
    """Make a relation of a predicate that reads several elements, from the rows that are still possible."""
    universe = registry.universe
    keys = universe.group(predicate.dimensions).names
    frame = reduced.data_ids(keys)
    for element in universe.ordered(predicate.elements):
        fields = {c: c.rsplit(".", 1)[-1] for c in predicate.columns if c.startswith(f"{element}.")}
        records = registry.records(element).select(
            *universe[element].required, *(pl.col(field).alias(column) for column, field in fields.items())
        )
        frame = frame.join(records, on=list(universe[element].required), how="left")
    kept = frame.filter(predicate.mask(frame.select(sorted(predicate.columns))).fill_null(False))
    return reduced.axes.relation(f"`{predicate.text}`", kept.select(keys))
