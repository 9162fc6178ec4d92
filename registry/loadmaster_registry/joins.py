"""Natural joins of many relations by semi-join reduction, columnar and exact, without ever making the full join.

The method is Yannakakis' [1]_: over a join tree, two sweeps of semi-joins leave in every relation just the rows
that take part in some answer; any projection of the answer is then read off the few relations that hold its
columns. Join graphs with cycles get a join tree after the relations of a cycle are joined (found by the reduction
of Graham, Yu and Ozsoyoglu [2]_). Cost: linear in the rows of the relations and of the projections asked for.

References
----------
.. [1] M. Yannakakis, Proc. VLDB (1981) 82
.. [2] C. T. Yu and M. Z. Ozsoyoglu, Proc. IEEE COMPSAC (1979) 306
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from math import prod

import numpy as np
import polars as pl
from numpy.typing import NDArray
from polars._typing import JoinStrategy

_KEY = "\x00key"
CODE = pl.UInt32
_PIECE_ROWS = 1 << 15


@dataclass(frozen=True)
class Axes:
    """The values of each dimension that can take part, sorted; a code is a position among them.

    Codes keep the order of the values, so that sorting by code sorts by value. A dimension with one value needs
    no column anywhere.
    """

    values: Mapping[str, pl.Series]

    def size(self, dimension: str) -> int:
        """Return how many values `dimension` has."""
        return len(self.values[dimension])

    def varying(self, dimensions: Iterable[str]) -> tuple[str, ...]:
        """Return those of `dimensions` that have not just one value."""
        return tuple(d for d in dimensions if self.size(d) != 1)

    def encode(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Replace the dimensions in `frame` by codes; rows with a value that is on no axis are left out."""
        codes = {d: self._codes(d, frame[d]) for d in frame.columns if d in self.values}
        known = np.ones(frame.height, dtype=bool)
        for column in codes.values():
            known &= column >= 0
        coded = frame.with_columns(pl.Series(d, c.clip(min=0).astype(np.uint32)) for d, c in codes.items())
        return coded if known.all() else coded.filter(pl.Series(known))

    def relation(self, name: str, frame: pl.DataFrame) -> "Relation":
        """Make a relation of a frame of values; columns that cannot vary say only whether there is any row.

        Rows should be distinct: repeated ones change no answer, but are carried along.
        """
        coded = self.encode(frame)
        columns = self.varying(d for d in coded.columns if d in self.values)
        return Relation(name, _picked(coded, columns), possible=coded.height > 0, admits=frame.height)

    def decode(self, frame: pl.DataFrame, dimensions: Sequence[str]) -> pl.DataFrame:
        """Return the values of `dimensions` for each row of codes; those without a column have their one value."""
        columns = []
        for d in dimensions:
            axis = self.values[d].rename(d)
            columns.append(
                axis.gather(frame[d]) if d in frame.columns else axis.new_from_index(0, frame.height)
            )
        return pl.DataFrame(columns)

    def packed(self, frame: pl.DataFrame) -> NDArray[np.int64] | None:
        """Return one integer for each row of codes, ordered as the rows are; None if 64 bits do not hold it."""
        if prod(self.size(d) for d in frame.columns) >= 2**63:
            return None
        key = np.zeros(frame.height, dtype=np.int64)
        columns = [(frame[d].to_numpy(), self.size(d)) for d in frame.columns]
        for part in pieces(frame.height):
            for codes, size in columns:
                key[part] *= size
                key[part] += codes[part]
        return key

    def _codes(self, dimension: str, column: pl.Series) -> NDArray[np.int64]:
        axis = self.values[dimension]
        if not len(axis):
            return np.full(len(column), -1)
        if len(axis) == 1:
            return np.where((column == axis[0]).fill_null(False).to_numpy(), 0, -1)
        if axis.dtype == pl.String:
            coded = column.cast(pl.Enum(axis), strict=False).to_physical().cast(pl.Int64)
            return coded.fill_null(-1).to_numpy()
        given = column.cast(axis.dtype).fill_null(axis[0] - 1) if column.null_count() else column
        return located(given.to_numpy(), axis.to_numpy())


@dataclass(frozen=True)
class Relation:
    """Distinct combinations of codes that records, a link, an overlap, existing datasets or a filter admit."""

    name: str  # in the user's words, for explanations
    frame: pl.DataFrame  # UInt32 codes, a column a dimension
    possible: bool = True  # false when it admits nothing at all (needed where it has no columns)
    admits: int = 0  # how many combinations, before any other relation is considered

    @property
    def columns(self) -> frozenset[str]:
        """The dimensions that it constrains."""
        return frozenset(self.frame.columns)


@dataclass(frozen=True)
class Reduced:
    """Relations of which every row takes part in some row of their natural join, on a join tree."""

    axes: Axes
    relations: tuple[Relation, ...]
    parent: tuple[int, ...]  # −1 at a root; several roots have nothing in common
    _linked: dict[tuple[int, frozenset[str]], pl.DataFrame] = field(
        default_factory=dict, compare=False, repr=False
    )

    @property
    def is_empty(self) -> bool:
        """Whether the join has no row."""
        return any(not r.possible or (r.frame.width > 0 and not r.frame.height) for r in self.relations)

    def data_ids(self, dimensions: Sequence[str]) -> pl.DataFrame:
        """Project the join on `dimensions`: distinct values, sorted by them in the order given."""
        if self.is_empty or self.axes.varying(dimensions):
            return self.axes.decode(self.rows(dimensions), dimensions)
        return pl.DataFrame([self.axes.values[d].rename(d) for d in dimensions])

    def taking_part(self, values: pl.DataFrame, dimensions: Sequence[str]) -> pl.DataFrame:
        """Return the rows whose `dimensions` are in the projection of the join on them, by codes.

        Returns
        -------
        rows : DataFrame
            A code for each of `dimensions` that varies, then the other columns of `values`, in its order.
        """
        coded = self.axes.encode(values)
        varying = self.axes.varying(dimensions)
        coded = _picked(coded, [*varying, *(c for c in values.columns if c not in dimensions)])
        if self.is_empty or not varying:
            return coded.clear() if self.is_empty else coded
        known = self.axes.packed(self.rows(dimensions))
        given = self.axes.packed(_picked(coded, varying))
        if known is None or given is None:
            return coded.join(self.rows(dimensions), on=varying, how="semi", maintain_order="left")
        kept = _are_in(given, known)
        return coded if kept.all() else coded.filter(pl.Series(kept))

    def rows(self, dimensions: Iterable[str]) -> pl.DataFrame:
        """Project the join on `dimensions`: distinct codes of those that vary, sorted by them in the order given.

        Where none of them varies the frame has no column, and the projection one row unless the join is empty.
        """
        wanted = self.axes.varying(dimensions)
        if self.is_empty:
            return pl.DataFrame(schema=dict.fromkeys(wanted, CODE))
        if not wanted:
            return pl.DataFrame()
        needed = frozenset(wanted)
        parts = [
            self._rows_below(self._lowest(i, needed), needed) for i, p in enumerate(self.parent) if p < 0
        ]
        parts = [part for part in parts if part.width]
        whole = parts[0]
        for part in parts[1:]:
            whole = _distinct(whole, self.axes).join(_distinct(part, self.axes), how="cross")
        return _distinct(_picked(whole, wanted), self.axes)

    def _lowest(self, root: int, wanted: frozenset[str]) -> int:
        """Return the lowest node whose subtree has all of `wanted` that the tree at `root` has."""
        here = wanted & self._columns_below(root)
        node: int | None = root
        while node is not None:
            root = node
            node = next((c for c in self._children(root) if here <= self._columns_below(c)), None)
        return root

    def _rows_below(self, node: int, wanted: frozenset[str]) -> pl.DataFrame:
        """Project the join of the subtree at `node` on `wanted`; rows may repeat where this drops columns."""
        own = self.relations[node]
        links = {
            child: self.relations[child].columns & own.columns
            for child in self._children(node)
            if (self._columns_below(child) & wanted) - own.columns  # others are reduced already
        }
        columns = own.columns & wanted.union(*links.values())
        frame = _picked(own.frame, sorted(columns))
        if links and columns < own.columns:
            frame = _distinct(frame, self.axes)
        for child, link in links.items():
            below = self._rows_to_link(child, link | ((self._columns_below(child) & wanted) - own.columns))
            frame = _join(frame, below, sorted(link), "inner", self.axes)
        return _picked(frame, sorted(wanted & set(frame.columns)))

    def _rows_to_link(self, child: int, columns: frozenset[str]) -> pl.DataFrame:
        """Project the join of the subtree at `child` on `columns`, once: other projections ask for the same."""
        if columns == self.relations[child].columns:
            return self.relations[child].frame
        key = (child, columns)
        if key not in self._linked:
            self._linked[key] = _distinct(self._rows_below(child, columns), self.axes)
        return self._linked[key]

    def _children(self, node: int) -> list[int]:
        return [i for i, p in enumerate(self.parent) if p == node]

    def _columns_below(self, node: int) -> frozenset[str]:
        below = [self._columns_below(child) for child in self._children(node)]
        return self.relations[node].columns.union(*below)


def reduce_join(relations: Sequence[Relation], axes: Axes) -> Reduced:
    """Reduce `relations` against each other until every row takes part in some row of their natural join."""
    remaining = _absorb(list(relations), axes)
    while (tree := _join_tree(remaining)) is None:
        remaining = _absorb(_merge_in_cycle(remaining, axes), axes)
    order, parent = tree
    reduced = list(remaining)
    for child in order:
        if parent[child] >= 0:
            reduced[parent[child]] = _semi(reduced[parent[child]], reduced[child], axes)
    for child in reversed(order):
        if parent[child] >= 0:
            reduced[child] = _semi(reduced[child], reduced[parent[child]], axes)
    return Reduced(axes, tuple(reduced), tuple(parent))


def located(given: NDArray[np.int64], known: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return where each number is among those `known`, which are distinct; −1 where it is not.

    Cost: linear where the known ones lie close together.
    """
    if not known.size:
        return np.full(given.size, -1)
    low, high = int(known.min()), int(known.max())
    if high - low < 4 * (known.size + given.size):
        place = np.full(high - low + 2, -1, dtype=np.int32)  # the last for what is beyond
        place[known - low] = np.arange(known.size)
        found = np.empty(given.size, dtype=np.int64)
        for part in pieces(given.size):
            some = given[part]
            found[part] = place[np.where((some >= low) & (some <= high), some - low, -1)]
        return found
    order = np.argsort(known, kind="stable")  # quick where they are in order
    place = order[np.searchsorted(known, given, sorter=order).clip(max=known.size - 1)]
    return np.where(known[place] == given, place, -1)


def _absorb(relations: list[Relation], axes: Axes) -> list[Relation]:
    """Use each relation whose columns another one has as a filter of that one, and drop it."""
    kept: list[Relation] = []
    for relation in sorted(relations, key=lambda r: -len(r.columns)):
        host = next((i for i, k in enumerate(kept) if relation.columns <= k.columns), None)
        if host is None:
            kept.append(relation)
        else:
            kept[host] = _semi(kept[host], relation, axes)
    return kept


def _join_tree(relations: Sequence[Relation]) -> tuple[list[int], list[int]] | None:
    """Return the order in which ears come off, and each one's parent; None if a cycle remains."""
    alive = set(range(len(relations)))
    order: list[int] = []
    parent = [-1] * len(relations)
    while len(alive) > 1:
        ear = next(
            ((i, j) for i in sorted(alive) for j in sorted(alive - {i}) if _is_ear(i, j, alive, relations)),
            None,
        )
        if ear is None:
            lonely = next((i for i in sorted(alive) if not _shared(i, alive, relations)), None)
            if lonely is None:
                return None
            alive.remove(lonely)
            order.append(lonely)
            continue
        child, parent[child] = ear
        alive.remove(child)
        order.append(child)
    return order + sorted(alive), parent


def _shared(i: int, alive: set[int], relations: Sequence[Relation]) -> frozenset[str]:
    """Return the columns of relation i that others have too."""
    others = frozenset[str]().union(*(relations[k].columns for k in alive if k != i))
    return relations[i].columns & others


def _is_ear(i: int, j: int, alive: set[int], relations: Sequence[Relation]) -> bool:
    shared = _shared(i, alive, relations)
    return bool(shared) and shared <= relations[j].columns


def _merge_in_cycle(relations: Sequence[Relation], axes: Axes) -> list[Relation]:
    """Join that pair of the cyclic core which gives the fewest rows."""
    core = _cyclic_core(relations)
    pairs = [(a, b) for a, b in combinations(core, 2) if relations[a].columns & relations[b].columns]
    sizes = {(a, b): _join_size(relations[a], relations[b], axes) for a, b in pairs}
    a, b = min(pairs, key=lambda pair: (sizes[pair], pair))
    on = sorted(relations[a].columns & relations[b].columns)
    joined = Relation(
        f"{relations[a].name} with {relations[b].name}",
        _join(relations[a].frame, relations[b].frame, on, "inner", axes),
    )
    return [r for i, r in enumerate(relations) if i not in (a, b)] + [joined]


def _cyclic_core(relations: Sequence[Relation]) -> list[int]:
    alive = set(range(len(relations)))
    while True:
        off = {i for i in alive if not _shared(i, alive, relations)}
        off |= {
            next((i for i in sorted(alive) for j in alive - {i} if _is_ear(i, j, alive, relations)), -1)
        } - {-1}
        if not off:
            return sorted(alive)
        alive -= off


def _join_size(a: Relation, b: Relation, axes: Axes) -> int:
    on = sorted(a.columns & b.columns)
    left, right = axes.packed(_picked(a.frame, on)), axes.packed(_picked(b.frame, on))
    if left is None or right is None:
        return int(a.frame.select(on).join(b.frame.select(on), on=on, how="inner").height)
    space = prod(axes.size(d) for d in on)
    if space <= 16 * (left.size + right.size) + 65_536:
        n, m = (np.bincount(keys, minlength=space) for keys in (left, right))
        return int(n @ m)
    right = np.sort(right)
    found = np.searchsorted(right, np.sort(left), "right") - np.searchsorted(right, np.sort(left), "left")
    return int(found.sum())


def _semi(a: Relation, b: Relation, axes: Axes) -> Relation:
    on = sorted(a.columns & b.columns)
    possible = a.possible and b.possible and (b.frame.width == 0 or b.frame.height > 0)
    if not possible:
        return replace(a, frame=a.frame.clear(), possible=False)
    if not on:
        return a
    return replace(a, frame=_join(a.frame, b.frame, on, "semi", axes))


def _join(a: pl.DataFrame, b: pl.DataFrame, on: Sequence[str], how: JoinStrategy, axes: Axes) -> pl.DataFrame:
    if not on:
        return a.join(b, how="cross")
    left, right = axes.packed(_picked(a, on)), axes.packed(_picked(b, on))
    if left is None or right is None:
        return a.join(b, on=list(on), how=how)
    new = [c for c in b.columns if c not in on] if how == "inner" else []
    space = prod(axes.size(d) for d in on)
    if space <= 8 * (left.size + right.size) + 65_536:  # a place for each key: no hashing, no search
        if how == "semi":
            taken = np.zeros(space, dtype=bool)
            taken[right] = True
            return _where(a, taken[left])
        if (found := _numbered(left, right, space)) is not None:
            return _beside(a, _picked(b, new), found)
        if (found := _numbered(right, left, space)) is not None:
            return _picked(
                _beside(b, _picked(a, [c for c in a.columns if c not in on]), found), [*a.columns, *new]
            )
    keys = pl.Series(_KEY, left), pl.Series(_KEY, right)
    joined = pl.DataFrame([*a.get_columns(), keys[0]]).join(
        pl.DataFrame([*(b[c] for c in new), keys[1]]), on=_KEY, how=how
    )
    return _picked(joined, [*a.columns, *new])


def _numbered(keys: NDArray[np.int64], known: NDArray[np.int64], space: int) -> NDArray[np.int32] | None:
    """Return for each key its position among those `known`, −1 where it is not; None if `known` repeats one."""
    if known.size > space:
        return None
    place = np.full(space, -1, dtype=np.int32)
    place[known] = np.arange(known.size, dtype=np.int32)
    return place[keys] if np.count_nonzero(place >= 0) == known.size else None


def _beside(frame: pl.DataFrame, other: pl.DataFrame, place: NDArray[np.int32]) -> pl.DataFrame:
    """Put beside each row that row of `other` which is at its `place`; leave out those with a place below 0."""
    found = place >= 0
    if not found.all():
        frame, place = _where(frame, found), place[found]
    columns = {c.name: (c.to_numpy(), np.empty(place.size, dtype=np.uint32)) for c in other}
    for part in pieces(place.size):
        for codes, beside in columns.values():
            beside[part] = codes[place[part]]
    return pl.DataFrame(
        [*frame.get_columns(), *(pl.Series(name, beside) for name, (_, beside) in columns.items())]
    )


def _where(frame: pl.DataFrame, kept: NDArray[np.bool_]) -> pl.DataFrame:
    return frame if kept.all() else frame.filter(pl.Series(kept))


def _are_in(given: NDArray[np.int64], known: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Say which keys are among those `known`, which are sorted."""
    if not known.size:
        return np.zeros(given.size, dtype=bool)
    found: NDArray[np.bool_] = known[np.searchsorted(known, given).clip(max=known.size - 1)] == given
    return found


def _picked(frame: pl.DataFrame, columns: Iterable[str]) -> pl.DataFrame:
    """Return some columns; `select` would plan a query for it."""
    return pl.DataFrame([frame.get_column(c) for c in columns])


def _distinct(frame: pl.DataFrame, axes: Axes) -> pl.DataFrame:
    """Return the distinct rows, sorted."""
    if frame.width == 0:
        return frame
    keys = axes.packed(frame)
    if keys is None:
        return frame.unique().sort(frame.columns)
    if (keys[1:] > keys[:-1]).all():
        return frame
    space = prod(axes.size(d) for d in frame.columns)
    if space <= 16 * keys.size + 65_536:  # marking is cheaper than hashing or sorting
        taken = np.zeros(space, dtype=bool)
        taken[keys] = True
        distinct = np.flatnonzero(taken)
    else:
        keys.sort()
        first = np.append(True, keys[1:] != keys[:-1])
        distinct = keys if first.all() else keys[first]
    return _unpacked(distinct, frame.columns, axes)


def _unpacked(keys: NDArray[np.int64], columns: Sequence[str], axes: Axes) -> pl.DataFrame:
    """Return the codes that `Axes.packed` packed."""
    codes = {column: np.empty(keys.size, dtype=np.uint32) for column in columns}
    for part in pieces(keys.size):
        left = keys[part].view(np.uint64)  # NumPy divides by one number quickly, and quicker without a sign
        for column in reversed(columns):
            size = np.uint64(axes.size(column))
            above = left // size  # it has no such way for the remainder
            codes[column][part] = left - above * size
            left = above
    return pl.DataFrame([pl.Series(column, codes[column]) for column in columns])


def pieces(n: int) -> Iterator[slice]:
    """Cut so many rows into ranges whose numbers stay near the processor between one step and the next."""
    return (slice(start, start + _PIECE_ROWS) for start in range(0, n, _PIECE_ROWS))
