"""From an expression's tree to a column of true, false and null; types are checked before any row is seen.

Null means "unknown", as in SQL: a comparison with it is null, NOT null is null, null AND false is false.
"""

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import TypeVar

import polars as pl
from lsst.sphgeom import Region

from .errors import QueryError, did_you_mean
from .expression import (
    COMPARISONS,
    Binary,
    Bind,
    Call,
    Instant,
    Logical,
    Membership,
    Name,
    Node,
    Not,
    Number,
    Pair,
    Range,
    Signed,
    Span,
    Text,
    refusal,
)
from .identifiers import Field, resolve
from .literals import REGIONS, Constant, bound_constant, region_constant, span_constant
from .sky import paired_mask, pixel_regions, region_mask
from .times import written_ns
from .timespan import Timespan
from .universe import DimensionGroup, Universe

EXPANDED = 1000  # at most so many values of a range are listed one by one
_DTYPES = {"int": pl.Int64, "float": pl.Float64, "str": pl.String, "bool": pl.Boolean, "time": pl.Int64}
_ARITHMETIC: Mapping[str, Callable[[pl.Expr, pl.Expr], pl.Expr]] = {
    "+": operator.add, "-": operator.sub, "*": operator.mul,
}  # fmt: skip
_LARGEST = 2**63 - 1
_T = TypeVar("_T")
_WORDS = {
    "int": "a whole number", "float": "a number", "str": "a text", "bool": "true or false",
    "bytes": "bytes", "time": "a time", "span": "a time span", "region": "a sky region", "null": "NULL",
    "condition": "a condition",
}  # fmt: skip
_ORDERED = {"=": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt,
            ">=": operator.ge}  # fmt: skip


@dataclass(frozen=True)
class Names:
    """What an expression can refer to."""

    universe: Universe
    group: DimensionGroup | None
    bind: Mapping[str, object]
    rubin_circles: bool


@dataclass(frozen=True)
class Value:
    """What a part of an expression yields for each row."""

    type: str
    expr: pl.Expr | None = None  # of numbers, texts, times and conditions
    bounds: tuple[pl.Expr, pl.Expr] | None = None  # of a time span
    constant: Constant | None = None  # where it is known already
    source: Field | None = None  # where it is just that
    equal: Mapping[str, tuple[int | str, ...]] = field(
        default_factory=dict
    )  # what a condition admits at most


class Compiler:
    """Compiles one expression, and remembers which fields it used where."""

    def __init__(self, text: str, names: Names) -> None:
        self._text = text
        self._names = names
        self.used: dict[Field, Span] = {}

    def condition(self, node: Node) -> Value:
        """Return what `node` yields, which must be true, false or null.

        Raises
        ------
        QueryError
            If a name is unknown, or types do not go together; it points at the place.
        """
        value = self._value(node)
        if value.type == "bool":
            return replace(value, type="condition")
        if value.type != "condition":
            raise self._refused(
                node.at,
                f"a condition is wanted here, and this is {_WORDS[value.type]}",
                _because("only comparisons and boolean fields are true or false", value),
                "compare it with something",
            )
        return value

    def _value(self, node: Node) -> Value:
        match node:
            case Number() | Text() | Instant():
                return _known(self._literal(node))
            case Name() | Bind():
                return self._named(node)
            case Logical():
                return self._logical(node)
            case Not():
                expr = self.condition(node.operand).expr
                assert expr is not None
                return Value("condition", ~expr)
            case Binary() if node.operator in COMPARISONS:
                return self._comparison(node)
            case Binary():
                return self._arithmetic(node)
            case Signed():
                return self._signed(node)
            case Membership():
                return self._membership(node)
            case Pair():
                return self._pair(node)
            case Call():
                return self._glob(node) if node.function == "GLOB" else self._region(node)
            case Range():
                raise self._refused(
                    node.at, "a range cannot stand here", "ranges are items of IN", "write `x IN (a..b)`"
                )

    # --- values

    def _literal(self, node: Number | Text | Instant) -> Constant:
        if isinstance(node, Text):
            return Constant("str", node.value)
        if isinstance(node, Instant):
            return Constant("time", self._placed(node.at, lambda: written_ns(node.text)))
        if isinstance(node.value, int) and node.value > _LARGEST:
            raise self._refused(
                node.at, "this number is too large", "no column holds it", f"at most {_LARGEST}"
            )
        return Constant("int" if isinstance(node.value, int) else "float", node.value)

    def _named(self, node: Name | Bind) -> Value:
        found = self._bound(node)
        if isinstance(found, tuple):
            raise self._refused(
                node.at,
                "several values are bound to this name",
                "only IN takes several",
                "write `x IN (:name)`",
            )
        if found is not None:
            return _known(found)
        assert isinstance(node, Name)
        if node.text.upper() == "NULL":
            return Value("null", constant=Constant("null", None))
        return self._field(node)

    def _bound(self, node: Name | Bind) -> Constant | tuple[Constant, ...] | None:
        """Return what is bound to the name, if anything is."""
        name = node.name if isinstance(node, Bind) else node.text
        bind = self._names.bind
        if name in bind:
            return self._placed(node.at, lambda: bound_constant(name, bind[name]))
        if isinstance(node, Bind):
            raise self._refused(
                node.at,
                f"nothing is bound to {name!r}",
                "a name after : is a bound value",
                did_you_mean(name, bind) if bind else f"bind a value to it: {name}=…",
            )
        return None

    def _field(self, node: Name) -> Value:
        names = self._names
        found = self._placed(node.at, lambda: resolve(node.text, names.universe, names.group))
        self.used.setdefault(found, node.at)
        columns = [pl.col(name) for name in found.columns]
        if found.type == "span":
            return Value("span", bounds=(columns[0], columns[1]), source=found)
        return Value(found.type, columns[0], source=found)

    def _signed(self, node: Signed) -> Value:
        value = self._number(node.operand)
        if node.sign == "+":
            return value
        if value.constant is not None:
            known = value.constant.value
            assert isinstance(known, int | float)
            return _known(Constant(value.constant.type, -known))
        assert value.expr is not None
        return Value(value.type, -value.expr)

    def _arithmetic(self, node: Binary) -> Value:
        left, right = self._number(node.left), self._number(node.right)
        if node.operator == "%" and "float" in (left.type, right.type):
            raise self._refused(
                node.at, "% works on whole numbers", "one side is not whole", "compare with < and > instead"
            )
        kind = "int" if left.type == right.type == "int" else "float"
        assert left.expr is not None
        assert right.expr is not None
        expr = _calculated(node.operator, left.expr, right.expr, kind)
        if left.constant is None or right.constant is None:
            return Value(kind, expr)
        known = pl.select(expr).item()
        if known is None:
            raise self._refused(
                node.at, "this divides by zero", "the result is no number", "correct the divisor"
            )
        return _known(Constant("int" if kind == "int" else "float", known))

    def _number(self, node: Node) -> Value:
        value = self._value(node)
        if value.type not in ("int", "float"):
            raise self._refused(
                node.at,
                f"arithmetic needs numbers, and this is {_WORDS[value.type]}",
                _because("only numbers can be calculated with", value),
                "compare it as it is",
            )
        return value

    def _pair(self, node: Pair) -> Value:
        ends = [self._value(part).constant for part in (node.begin, node.end)]
        if ends[0] is None or ends[1] is None or (span := span_constant(ends[0], ends[1])) is None:
            raise self._refused(
                node.at,
                "this pair is no time span",
                "both ends must be times or NULL",
                "write (T'2026-03-01', T'2026-03-08'), with T before each time",
            )
        return _known(span)

    def _region(self, node: Call) -> Value:
        constants = [self._value(argument).constant for argument in node.arguments]
        known = [c.value for c in constants if c is not None and isinstance(c.value, int | float | str)]
        if node.function in REGIONS and len(known) < len(node.arguments):
            bad = next(
                a for a, c in zip(node.arguments, constants, strict=True) if c is None or c.value not in known
            )
            raise self._refused(
                bad.at,
                f"{node.function} needs its arguments before any row is seen",
                "this one is no number",
                "give numbers or bound values; a column has its own region, as visit.region",
            )
        circles = self._names.rubin_circles
        return _known(self._placed(node.at, lambda: region_constant(node.function, known, circles)))

    # --- conditions

    def _logical(self, node: Logical) -> Value:
        parts = [self.condition(operand) for operand in node.operands]
        exprs = [part.expr for part in parts if part.expr is not None]
        if node.operator == "AND":
            return Value("condition", pl.all_horizontal(exprs), equal=_both([p.equal for p in parts]))
        return Value("condition", pl.any_horizontal(exprs), equal=_either([p.equal for p in parts]))

    def _comparison(self, node: Binary) -> Value:
        left, right = self._value(node.left), self._value(node.right)
        if "null" in (left.type, right.type):
            return self._null_test(node, right if left.type == "null" else left)
        if node.operator == "OVERLAPS":
            return self._overlap(node, left, right)
        if left.type == right.type == "span" and node.operator in ("=", "!="):
            return _same_span(node.operator, left, right)
        kinds = {"float" if kind == "int" else kind for kind in (left.type, right.type)}
        if len(kinds) > 1:
            raise self._mismatch(node, left, right)
        kind = kinds.pop()
        if kind not in ("float", "str", "time") and not (kind == "bool" and node.operator in ("=", "!=")):
            raise self._refused(
                node.at,
                f"{node.operator} does not work on {_WORDS[kind]}",
                "only numbers, texts and times can be compared so",
                "use OVERLAPS for time spans and regions, AND, OR and NOT for conditions",
            )
        assert left.expr is not None
        assert right.expr is not None
        equal = _equality(left, right) if node.operator == "=" else {}
        return Value("condition", _ORDERED[node.operator](left.expr, right.expr), equal=equal)

    def _null_test(self, node: Binary, other: Value) -> Value:
        if node.operator not in ("=", "!=") or other.source is None:
            raise self._refused(
                node.at,
                f"NULL cannot be used with {node.operator} here",
                "it can only be asked whether a field is NULL",
                "write `field = NULL` or `field != NULL`",
            )
        expr = pl.col(other.source.columns[0])
        return Value("condition", expr.is_null() if node.operator == "=" else expr.is_not_null())

    def _mismatch(self, node: Binary, left: Value, right: Value) -> QueryError:
        kinds = {left.type, right.type}
        todo = "compare values of one type"
        if kinds == {"str", "time"}:
            todo = "put T before a time: T'2026-03-01'"
        elif kinds & {"int", "float"} and "str" in kinds:
            todo = "write numbers without quotes, and texts in quotes"
        elif kinds == {"span", "time"}:
            todo = "use OVERLAPS, or compare timespan.begin or timespan.end"
        return self._refused(
            node.at,
            f"{node.operator} compares {_WORDS[left.type]} with {_WORDS[right.type]}",
            _because("they are never equal, nor one before the other", left, right),
            todo,
        )

    def _overlap(self, node: Binary, left: Value, right: Value) -> Value:
        kinds = (left.type, right.type)
        if kinds == ("region", "region"):
            if left.source is None and right.source is None:
                raise self._refused(
                    node.at,
                    "neither of these regions belongs to a row",
                    "an overlap of two fixed regions selects nothing",
                    "name a field, as visit.region",
                )
            return Value("condition", _sky_overlap(left, right))
        if "span" in kinds and set(kinds) <= {"span", "time"}:
            return Value("condition", _time_overlap(left, right))
        raise self._refused(
            node.at,
            f"OVERLAPS compares {_WORDS[left.type]} with {_WORDS[right.type]}",
            _because("it takes two regions, two time spans, or a time span and a time", left, right),
            "name a region or timespan field, as visit.region or visit.timespan",
        )

    def _membership(self, node: Membership) -> Value:
        operand = self._value(node.operand)
        if operand.expr is None or operand.type not in ("int", "float", "str", "time"):
            raise self._refused(
                node.operand.at,
                f"IN looks for numbers, texts and times, and this is {_WORDS[operand.type]}",
                "values of this type are not listed",
                "use OVERLAPS or a comparison",
            )
        parts = [self._item(operand, item) for item in node.items]
        hit = reduce(operator.or_, [part.expr for part in parts if part.expr is not None])
        if node.negated:
            return Value("condition", ~hit)
        return Value("condition", hit, equal=_either([part.equal for part in parts]))

    def _item(self, operand: Value, item: Node) -> Value:
        if isinstance(item, Range):
            return self._range(operand, item)
        several = self._bound(item) if isinstance(item, Name | Bind) else None
        if isinstance(several, tuple):
            return self._one_of(operand, several, item)
        value = self._value(item)
        assert operand.expr is not None
        if value.type == "null":
            return Value("condition", operand.expr.is_null())
        if value.constant is not None:
            return self._one_of(operand, (value.constant,), item)
        if value.expr is None or not _comparable(operand.type, value.type):
            raise self._wrong_item(operand, value.type, item)
        return Value("condition", operand.expr == value.expr)

    def _range(self, operand: Value, item: Range) -> Value:
        if operand.type != "int":
            raise self._wrong_item(operand, "int", item)
        if item.stop < item.start - 1:
            raise self._refused(
                item.at,
                "this range runs backwards",
                "its end is before its begin",
                "write the smaller number first",
            )
        assert operand.expr is not None
        hit = operand.expr.is_between(item.start, item.stop)
        if item.stride > 1:
            hit = hit & ((operand.expr - item.start) % item.stride == 0)
        values = range(item.start, item.stop + 1, item.stride)
        key = (
            operand.source.name
            if operand.source and operand.source.is_key and len(values) <= EXPANDED
            else None
        )
        return Value("condition", hit, equal={key: tuple(values)} if key else {})

    def _one_of(self, operand: Value, constants: Sequence[Constant], item: Node) -> Value:
        for constant in constants:
            if not _comparable(operand.type, constant.type):
                raise self._wrong_item(operand, constant.type, item)
        assert operand.expr is not None
        values = [c.value for c in constants if isinstance(c.value, int | float | str)]
        keys = [v if isinstance(v, int | str) else int(v) for v in values if _can_be_key(v)]
        # A fraction equals no whole number, and is_in would round large ones.
        listed = pl.Series(
            keys if operand.type == "int" else values, dtype=_DTYPES[operand.type], strict=False
        )
        hit = operand.expr.is_in(listed.implode())
        key = operand.source.name if operand.source and operand.source.is_key else None
        return Value("condition", hit, equal={key: tuple(dict.fromkeys(keys))} if key else {})

    def _wrong_item(self, operand: Value, kind: str, item: Node) -> QueryError:
        return self._refused(
            item.at,
            f"this is {_WORDS[kind]}, and is looked for among values that are each {_WORDS[operand.type]}",
            _because("they are never equal", operand),
            "list values of one type; ranges are for whole numbers",
        )

    def _glob(self, node: Call) -> Value:
        values = [self._value(argument) for argument in node.arguments]
        pattern = values[1].constant if len(values) == 2 else None
        if not values or values[0].source is None or values[0].type != "str":
            problem = "its first argument is no text field"
        elif pattern is None or not isinstance(pattern.value, str):
            problem = "its second argument is no text"
        else:
            assert values[0].expr is not None
            return Value("condition", values[0].expr.str.contains(_regex(pattern.value)))
        raise self._refused(
            node.at,
            "this GLOB cannot be read",
            _because(problem, *values),
            "write GLOB(visit.target_name, 'cosmos*')",
        )

    # --- errors

    def _placed(self, at: Span, found: Callable[[], _T]) -> _T:
        """Return what `found` returns; give its error the place in the expression."""
        try:
            return found()
        except QueryError as error:
            what, _, why, todo = error.args
            raise self._refused(at, what, why, todo) from error

    def _refused(self, at: Span, what: str, why: str, todo: str) -> QueryError:
        return refusal(self._text, at, what, why, todo)


def _because(reason: str, *values: Value) -> str:
    """Say what the fields among some values are, then the reason why these do not do."""
    told = []
    for value in values:
        if value.source is not None:
            holder = "dimension" if value.source.is_key else f"records of {value.source.element}"
            told.append(f"{value.source.name} is {_WORDS[value.source.type]} ({holder})")
    return "; ".join([*dict.fromkeys(told), reason])


def _known(constant: Constant) -> Value:
    """Return a constant as a value."""
    if isinstance(constant.value, Timespan):
        ends = (constant.value.begin_ns, constant.value.end_ns)
        bounds = pl.lit(ends[0], dtype=pl.Int64), pl.lit(ends[1], dtype=pl.Int64)
        return Value("span", bounds=bounds, constant=constant)
    if isinstance(constant.value, int | float | str):
        return Value(constant.type, pl.lit(constant.value, dtype=_DTYPES[constant.type]), constant=constant)
    return Value(constant.type, constant=constant)


def _calculated(sign: str, a: pl.Expr, b: pl.Expr, kind: str) -> pl.Expr:
    """Calculate as SQL does: whole numbers divide towards zero, and what is divided by zero is null."""
    if sign in _ARITHMETIC:
        return _ARITHMETIC[sign](a, b)
    divisor = pl.when(b != 0).then(b)
    if sign == "%":
        return a.sign() * (a.abs() % divisor.abs())
    return a.sign() * b.sign() * (a.abs() // divisor.abs()) if kind == "int" else a / divisor


def _comparable(a: str, b: str) -> bool:
    return a == b or {a, b} == {"int", "float"}


def _equality(left: Value, right: Value) -> Mapping[str, tuple[int | str, ...]]:
    """Return the dimension that an equality fixes, and its value."""
    key, other = (left, right) if right.constant is not None else (right, left)
    if key.source is None or not key.source.is_key or other.constant is None:
        return {}
    value = other.constant.value
    if isinstance(value, float):
        return {key.source.name: (int(value),) if _can_be_key(value) else ()}
    return {key.source.name: (value,)} if isinstance(value, int | str) else {}


def _can_be_key(value: int | float | str) -> bool:
    """Whether a dimension can have this value."""
    return isinstance(value, int | str) or value.is_integer()


def _both(parts: Sequence[Mapping[str, tuple[int | str, ...]]]) -> dict[str, tuple[int | str, ...]]:
    """Return what is admitted where all of several conditions hold."""
    found: dict[str, tuple[int | str, ...]] = {}
    for part in parts:
        for key, values in part.items():
            found[key] = tuple(v for v in found[key] if v in values) if key in found else values
    return found


def _either(parts: Sequence[Mapping[str, tuple[int | str, ...]]]) -> dict[str, tuple[int | str, ...]]:
    """Return what is admitted where one of several conditions holds."""
    shared = [key for key in parts[0] if all(key in part for part in parts)]
    return {key: tuple(dict.fromkeys(value for part in parts for value in part[key])) for key in shared}


def _same_span(sign: str, left: Value, right: Value) -> Value:
    assert left.bounds is not None
    assert right.bounds is not None
    same = (left.bounds[0] == right.bounds[0]) & (left.bounds[1] == right.bounds[1])
    return Value("condition", same if sign == "=" else ~same)


def _time_overlap(left: Value, right: Value) -> pl.Expr:
    span, other = (left, right) if left.type == "span" else (right, left)
    assert span.bounds is not None
    if other.bounds is None:
        assert other.expr is not None
        return (span.bounds[0] <= other.expr) & (other.expr < span.bounds[1])
    met = (span.bounds[0] < other.bounds[1]) & (other.bounds[0] < span.bounds[1])
    return met & pl.lit(not (_is_empty(left) or _is_empty(right)))


def _is_empty(span: Value) -> bool:
    known = span.constant.value if span.constant is not None else None
    return isinstance(known, Timespan) and known.begin_ns >= known.end_ns


def _sky_overlap(left: Value, right: Value) -> pl.Expr:
    if left.source is not None and right.source is not None:
        pair = pl.struct(_regions(left.source).alias("left"), _regions(right.source).alias("right"))
        return pair.map_batches(
            lambda rows: paired_mask(rows.struct.field("left"), rows.struct.field("right")),
            return_dtype=pl.Boolean,
        )
    column, fixed = (left, right) if left.source is not None else (right, left)
    assert column.source is not None
    assert fixed.constant is not None
    region = fixed.constant.value
    assert isinstance(region, Region)
    return _regions(column.source).map_batches(
        lambda rows: region_mask(rows, region), return_dtype=pl.Boolean
    )


def _regions(field: Field) -> pl.Expr:
    """Return the column of regions; those of sky pixels follow from their numbers."""
    column = pl.col(field.columns[0])
    if field.columns[0] != field.element:
        return column
    return column.map_batches(lambda rows: pixel_regions(rows, field.element), return_dtype=pl.Binary)


def _regex(pattern: str) -> str:
    """Return a GLOB pattern as a regular expression for the whole text."""
    parts = {"*": ".*", "?": "."}
    return "(?s)^" + "".join(parts.get(c, f"\\x{{{ord(c):x}}}") for c in pattern) + "$"
