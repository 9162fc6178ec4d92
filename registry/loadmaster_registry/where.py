"""The `where` language: which data IDs a person wants, as predicates on columns.

Names are dimensions (``visit``), fields (``visit.exposure_time``, ``visit.timespan.begin``,
``visit.region``) and bound values (``:name``). Values are numbers, 'texts', times ``T'2026-03-01'``, time
spans (two times in parentheses, NULL being unbounded), and within IN ranges ``a..b:stride``. Operators are
``= != < <= > >= + - * / % IN OVERLAPS AND OR NOT``; functions GLOB, POINT, CIRCLE, BOX, POLYGON and REGION.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import polars as pl

from .compiler import Compiler, Names
from .expression import Binary, Logical, Node, Span, parse_expression, refusal
from .identifiers import Field
from .records import DataId
from .universe import DimensionGroup, Universe


@dataclass(frozen=True, eq=False)
class Predicate:
    """One condition that a row of values fulfils, or does not, or perhaps (null)."""

    text: str
    columns: frozenset[str]  # "visit" for a dimension's value; "visit.region" and such for fields
    elements: frozenset[str]  # whose records hold the fields among them
    dimensions: frozenset[str]  # all that it is about, required ones included
    equal: Mapping[str, tuple[int | str, ...]]  # the only values that it admits, for dimensions that it fixes
    joined: frozenset[str]  # the two elements whose regions must overlap, where it says just that
    _condition: pl.Expr = field(repr=False)

    def mask(self, frame: pl.DataFrame) -> pl.Series:
        """Return for each row of `frame`, which holds `columns`, whether it is true; null where unknown."""
        found = frame.select(self._condition.alias("mask")).to_series()
        if len(found) == frame.height:
            return found
        return found.new_from_index(0, frame.height)  # no column is in it: one answer for all


def parse(
    text: str,
    *,
    universe: Universe,
    bind: Mapping[str, object] | None = None,
    dimensions: DimensionGroup | None = None,
    given: DataId | None = None,
    rubin_circles: bool = False,
) -> tuple[Predicate, ...]:
    """Read an expression: one predicate for each condition that must hold, all types checked.

    Parameters
    ----------
    bind : mapping, optional
        Values for ``:name``: numbers, texts, times (Astropy, datetime), `Timespan`, regions and positions, or
        lists of them for IN.
    dimensions : DimensionGroup, optional
        Of the query: where a field that stands alone is looked for.
    given : mapping, optional
        Dimension values fixed by other means; they count for the rule that what belongs to an instrument or
        sky map can be named only where that is named too.
    rubin_circles : bool, optional
        Give CIRCLE twice the radius that is written, as Rubin's code does at present.

    Raises
    ------
    QueryError
        That points at the place and says what was perhaps meant.
    """
    tree = parse_expression(text)
    if tree is None:
        return ()
    names = Names(universe, dimensions, bind or {}, rubin_circles)
    conjuncts = list(_conjuncts(tree))
    compilers = [Compiler(text, names) for _ in conjuncts]
    compiled = [compiler.condition(node) for compiler, node in zip(compilers, conjuncts, strict=True)]
    _check_governors(text, [c.used for c in compilers], universe, given or {})
    predicates = []
    for node, compiler, value in zip(conjuncts, compilers, compiled, strict=True):
        assert value.expr is not None
        predicates.append(_predicate(text, node, compiler.used, value.expr, value.equal, universe))
    return tuple(predicates)


def check_where(
    universe: Universe,
    text: str,
    *,
    bind: Mapping[str, object] | None = None,
    dimensions: Iterable[str] = (),
) -> tuple[Predicate, ...]:
    """Check an expression without running it; return its conditions.

    Parameters
    ----------
    dimensions : iterable of str
        Of the query: where a field that stands alone is looked for; everywhere without them.

    Raises
    ------
    QueryError
        That points at the place and says what was perhaps meant.
    """
    names = tuple(dimensions)
    return parse(text, universe=universe, bind=bind, dimensions=universe.group(names) if names else None)


def contradiction(predicates: Iterable[Predicate]) -> str | None:
    """Return how predicates contradict each other in what they fix, as visit = 5 and visit = 6; or None."""
    admitted: dict[str, tuple[tuple[int | str, ...], str]] = {}
    for predicate in predicates:
        for dimension, values in predicate.equal.items():
            before, text = admitted.get(dimension, (values, predicate.text))
            both = tuple(value for value in before if value in set(values))
            if not both:
                other = f"{text!r} and {predicate.text!r}" if text != predicate.text else repr(text)
                return f"no value of {dimension} fulfils {other}"
            admitted[dimension] = (both, predicate.text)
    return None


def _conjuncts(node: Node) -> Iterable[Node]:
    if isinstance(node, Logical) and node.operator == "AND":
        for operand in node.operands:
            yield from _conjuncts(operand)
    else:
        yield node


def _predicate(
    text: str,
    node: Node,
    used: Iterable[Field],
    condition: pl.Expr,
    equal: Mapping[str, tuple[int | str, ...]],
    universe: Universe,
) -> Predicate:
    fields = list(used)
    is_join = isinstance(node, Binary) and [f.type for f in fields] == ["region", "region"]
    return Predicate(
        text=text[slice(*node.at)],
        columns=frozenset(column for f in fields for column in f.columns),
        elements=frozenset(f.element for f in fields if not f.is_key and not universe[f.element].is_skypix),
        dimensions=frozenset(d for f in fields for d in universe[f.element].required),
        equal=equal,
        joined=frozenset(f.element for f in fields) if is_join else frozenset(),
        _condition=condition,
    )


def _check_governors(
    text: str, used: Iterable[Mapping[Field, Span]], universe: Universe, given: DataId
) -> None:
    """Refuse names that belong to an instrument or sky map where nothing says to which."""
    fields = [(f, at) for fields in used for f, at in fields.items()]
    named = {f.element for f, _ in fields if _tells_governor(f, universe)} | set(given)
    for f, at in fields:
        others = (d for d in universe[f.element].required if d != f.element)
        owners = [d for d in others if universe[d].is_governor and d not in named]
        if owners:
            raise refusal(
                text,
                at,
                f"{f.name!r} belongs to one {owners[0]}, and nothing says which",
                f"the same number or name means other things with another {owners[0]}",
                f"add `{owners[0]} = '…'`",
            )


def _tells_governor(field: Field, universe: Universe) -> bool:
    element = universe[field.element]
    alternates = {f"{element.name}.{c.name}" for c in element.alternates}
    return element.is_governor and (field.is_key or field.name in alternates)
