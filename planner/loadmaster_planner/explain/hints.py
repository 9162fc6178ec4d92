"""What exists near to what was asked for: conditions that no record fulfils, with the nearest valid values."""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl
from loadmaster_registry.expression import (
    COMPARISONS,
    Binary,
    Bind,
    Call,
    Instant,
    Logical,
    Membership,
    Name,
    Node,
    Number,
    Pair,
    Range,
    Signed,
    Text,
    parse_expression,
)
from loadmaster_registry.frames import Keep
from loadmaster_registry.identifiers import Field, resolve
from loadmaster_registry.literals import bound_constant
from loadmaster_registry.snapshot import Snapshot
from loadmaster_registry.times import written_ns
from loadmaster_registry.timespan import MAX_NS, MIN_NS, format_ns
from loadmaster_registry.universe import DimensionGroup, Universe
from loadmaster_registry.where import parse

_TOLD = 3  # nearest values
_LISTED = 5  # values where none is near
_NEAR = 0.4  # similarity of texts, of 1
Value = int | float | str


@dataclass(frozen=True)
class Hint:
    """Something that explains an empty result, and what there is instead."""

    about: str  # the condition or the input, as written
    text: str  # a sentence for people
    nearest: tuple[Value, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {"about": self.about, "text": self.text, "nearest": list(self.nearest)}


def unmatched_conditions(
    registry: Snapshot, where: str, bind: Mapping[str, object], group: DimensionGroup
) -> list[Hint]:
    """Return a hint for each comparison in an expression that no record fulfils.

    What belongs to an instrument, a sky map or a tract is looked for in that one, where the expression fixes it.
    """
    tree = parse_expression(where)
    if tree is None:
        return []
    fixed = _fixed(registry, where, bind, group)
    hints = []
    for node in _comparisons(tree):
        text = where[slice(*node.at)]
        hint = _hint(registry, node, text, bind, group, fixed)
        if hint is not None and hint not in hints:
            hints.append(hint)
    return hints


def no_such_value(registry: Snapshot, dimension: str, data_id: Mapping[str, int | str]) -> Hint | None:
    """Return a hint if no record has the value that `data_id` gives to `dimension`, within what it belongs to."""
    element = registry.universe[dimension]
    if element.is_skypix:
        return None
    keep = {d: [data_id[d]] for d in element.required if d in data_id and d != dimension}
    column = registry.records(dimension, keep, columns=[])[dimension]
    value = data_id[dimension]
    if (column == value).any():
        return None
    inside = " and ".join(f"{d}={v[0]!r}" for d, v in keep.items())
    told, nearest = _nearest(column, [value], "str" if isinstance(value, str) else "int", dimension)
    among = f" in {inside}" if inside else ""
    return Hint(f"{dimension}={value!r}", f"there is no {dimension}={value!r}{among}; {told}", nearest)


def _comparisons(node: Node) -> Iterator[Binary | Membership | Call]:
    """Return the comparisons that can make an expression true; what is negated is no wish for a value."""
    if isinstance(node, Logical):
        for operand in node.operands:
            yield from _comparisons(operand)
    elif isinstance(node, Membership):
        yield from () if node.negated else (node,)
    elif isinstance(node, Call) or (
        isinstance(node, Binary) and node.operator in COMPARISONS and node.operator != "!="
    ):
        yield node


def _fixed(
    registry: Snapshot, where: str, bind: Mapping[str, object], group: DimensionGroup
) -> dict[str, tuple[Value, ...]]:
    """Return the values to which the expression fixes dimensions, as far as records have them."""
    fixed: dict[str, tuple[Value, ...]] = {}
    universe = registry.universe
    given = _any_governor(universe)
    for predicate in parse(where, universe=universe, bind=bind, dimensions=group, given=given):
        for dimension, values in predicate.equal.items():
            if not universe[dimension].is_skypix:
                known = registry.records(dimension, {dimension: [*values]}, columns=[])[dimension].to_list()
                fixed[dimension] = tuple(known)
    return {d: values for d, values in fixed.items() if values}


def _any_governor(universe: Universe) -> dict[str, str]:
    """Let names stand without an instrument or sky map: whether these are told was checked before."""
    return {d: "" for d in universe.dimensions if universe[d].is_governor}


def _hint(
    registry: Snapshot,
    node: Node,
    text: str,
    bind: Mapping[str, object],
    group: DimensionGroup,
    fixed: Mapping[str, tuple[Value, ...]],
) -> Hint | None:
    universe = registry.universe
    fields = {f.columns: f for f in _fields(node, bind, universe, group)}
    if len(fields) != 1:
        return None
    (field,) = fields.values()
    if universe[field.element].is_skypix:
        return None
    given = _any_governor(universe)
    (predicate,) = parse(text, universe=universe, bind=bind, dimensions=group, given=given)
    records, inside = _records(registry, field, fixed)
    columns = [pl.col(c.rsplit(".", 1)[-1]).alias(c) for c in field.columns]
    if predicate.mask(records.select(columns)).fill_null(False).any():
        return None
    told, nearest = _told(records, field, node, bind)
    among = f" in {inside}" if inside else ""
    return Hint(text, f"no record{among} has {text}; {told}", nearest)


def _fields(
    node: Node, bind: Mapping[str, object], universe: Universe, group: DimensionGroup
) -> Iterator[Field]:
    """Return the fields that a comparison reads."""
    if isinstance(node, Name) and node.text not in bind and node.text.upper() != "NULL":
        yield resolve(node.text, universe, group)
    for part in _parts(node):
        yield from _fields(part, bind, universe, group)


def _values(node: Node, bind: Mapping[str, object]) -> Iterator[Value]:
    """Return the values that stand in a comparison; instants in TAI ns."""
    if isinstance(node, Number | Text):
        yield node.value
    elif isinstance(node, Instant):
        yield written_ns(node.text)
    elif isinstance(node, Range):
        yield from (node.start, node.stop)
    elif isinstance(node, Signed) and isinstance(node.operand, Number):
        yield -node.operand.value if node.sign == "-" else node.operand.value
    elif isinstance(node, Bind) or (isinstance(node, Name) and node.text in bind):
        name = node.name if isinstance(node, Bind) else node.text
        bound = bound_constant(name, bind[name])
        for constant in bound if isinstance(bound, tuple) else (bound,):
            if isinstance(constant.value, int | float | str):
                yield constant.value
    else:
        for part in _parts(node):
            yield from _values(part, bind)


def _parts(node: Node) -> tuple[Node, ...]:
    match node:
        case Binary():
            return (node.left, node.right)
        case Membership():
            return (node.operand, *node.items)
        case Signed():
            return (node.operand,)
        case Pair():
            return (node.begin, node.end)
        case Call():
            return node.arguments
        case _:
            return ()


def _records(
    registry: Snapshot, field: Field, fixed: Mapping[str, tuple[Value, ...]]
) -> tuple[pl.DataFrame, str]:
    """Read a field, within the instrument and so on that is fixed; say within which."""
    element = registry.universe[field.element]
    columns = [c.rsplit(".", 1)[-1] for c in field.columns]
    keep: Keep = {}
    records = registry.records(element.name, keep, columns=columns)
    for d in element.required:
        if d in fixed and d != element.name:
            closer = {**keep, d: [v for v in fixed[d] if not isinstance(v, float)]}
            inside = registry.records(element.name, closer, columns=columns)
            if inside.height:
                keep, records = closer, inside
    named = (f"{d} {', '.join(map(str, values[:_LISTED]))}" for d, values in keep.items())
    return records, " and ".join(named)


def _told(
    records: pl.DataFrame, field: Field, node: Node, bind: Mapping[str, object]
) -> tuple[str, tuple[Value, ...]]:
    """Say what a field has instead."""
    columns = [records[c.rsplit(".", 1)[-1]].drop_nulls() for c in field.columns]
    if not records.height:
        return f"there are no {field.element} records", ()
    if not columns[0].len():
        return f"{field.name} has no value in any record", ()
    if field.type == "span":
        first, last = _instants(columns[0].min()), _instants(columns[1].max())
        return f"the time spans lie between {first} and {last}", ()
    if field.type == "region":
        return f"none of the {columns[0].len()} regions does", ()
    return _nearest(columns[0], list(_values(node, bind)), field.type, field.name)


def _nearest(
    column: pl.Series, wanted: Sequence[Value], type_: str, name: str
) -> tuple[str, tuple[Value, ...]]:
    """Return a phrase about the values nearest to those wanted, and these values."""
    values = column.drop_nulls().unique().sort()
    if not values.len():
        return f"there are no values of {name}", ()
    if type_ == "str":
        return _nearest_texts(values, [w for w in wanted if isinstance(w, str)])
    if type_ == "time":
        return f"{name} runs from {_instants(values[0])} to {_instants(values[-1])}", ()
    if type_ not in ("int", "float"):
        return f"{name} is always {', '.join(map(str, values[:_LISTED]))}", ()
    numbers = [w for w in wanted if isinstance(w, int | float)]
    near = sorted({v for w in numbers for v in _around(values, w)})
    near = near if len(near) <= _TOLD else sorted(near, key=lambda v: _distance(v, numbers))[:_TOLD]
    span = f"{values.len()} from {values[0]} to {values[-1]}" if values.len() > 1 else f"just {values[0]}"
    if not near:
        return f"there are {span}", ()
    return f"nearest: {', '.join(map(str, sorted(near)))}; there are {span}", tuple(sorted(near))


def _nearest_texts(values: pl.Series, wanted: Sequence[str]) -> tuple[str, tuple[Value, ...]]:
    known = values.to_list()
    near = [
        text
        for w in wanted
        for text in difflib.get_close_matches(w.strip("*?"), known, n=_TOLD, cutoff=_NEAR)
    ]
    near = list(dict.fromkeys(near))[:_TOLD]
    if near:
        return f"there is {' and '.join(map(repr, near))}", tuple(near)
    more = f" and {len(known) - _LISTED} more" if len(known) > _LISTED else ""
    shown = known[:_LISTED]
    return f"there is {', '.join(map(repr, shown))}{more}", tuple(shown)


def _around(values: pl.Series, wanted: float) -> list[Any]:
    """Return the present values just below and just above one that is wanted."""
    at = int(values.search_sorted(wanted))
    return [values[i] for i in (at - 1, at) if 0 <= i < values.len()]


def _distance(value: float, wanted: Sequence[float]) -> float:
    return min(abs(value - w) for w in wanted)


def _instants(ns: Any) -> str:
    return format_ns(int(ns)) if isinstance(ns, int) and MIN_NS < ns < MAX_NS else "unbounded"
