"""Semi-join reduction against the slow and obvious: nested loops over everything."""

from itertools import product

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loadmaster_registry.joins import Axes, Relation, located, reduce_join

DIMENSIONS = ("a", "b", "c", "d", "e")
Rows = list[dict[str, int]]


@st.composite
def joins(draw: st.DrawFn) -> tuple[Axes, list[Relation]]:
    """Draw axes of one to three values and up to six relations over any columns, cycles included."""
    axes = Axes({d: pl.Series(range(draw(st.integers(1, 3)))) for d in DIMENSIONS})
    relations = []
    for i in range(draw(st.integers(1, 6))):
        columns = draw(st.lists(st.sampled_from(DIMENSIONS), min_size=1, max_size=3, unique=True))
        every = list(product(*(range(axes.size(c)) for c in columns)))
        rows = draw(st.lists(st.sampled_from(every), unique=True))
        frame = pl.DataFrame(rows, schema=dict.fromkeys(columns, pl.Int64), orient="row")
        relations.append(axes.relation(f"r{i}", frame))
    covered = set().union(*(r.columns for r in relations))
    relations += [axes.relation(d, axes.values[d].to_frame(d)) for d in DIMENSIONS if d not in covered]
    return axes, relations


def nested_loops(axes: Axes, relations: list[Relation], wanted: list[str]) -> set[tuple[int, ...]]:
    found = set()
    tables = [(r.frame.columns, set(r.frame.rows()), r.possible) for r in relations]
    for values in product(*(range(axes.size(d)) for d in DIMENSIONS)):
        row = dict(zip(DIMENSIONS, values, strict=True))
        if all(possible and (not c or tuple(row[d] for d in c) in rows) for c, rows, possible in tables):
            found.add(tuple(row[d] for d in wanted))
    return found


@settings(max_examples=400, deadline=None)
@given(joins(), st.lists(st.sampled_from(DIMENSIONS), min_size=1, unique=True))
def test_a_projection_is_what_nested_loops_give(case: tuple[Axes, list[Relation]], wanted: list[str]) -> None:
    axes, relations = case
    rows = reduce_join(relations, axes).data_ids(wanted).rows()
    assert rows == sorted(nested_loops(axes, relations, wanted))


@settings(max_examples=200, deadline=None)
@given(joins())
def test_every_row_left_takes_part_in_some_answer(case: tuple[Axes, list[Relation]]) -> None:
    axes, relations = case
    reduced = reduce_join(relations, axes)
    if reduced.is_empty:
        assert not nested_loops(axes, relations, ["a"])
        return
    for relation in reduced.relations:
        columns = sorted(relation.columns)
        assert (
            set(relation.frame.select(columns).rows()) == nested_loops(axes, relations, columns)
            or not columns
        )


def test_a_triangle_of_relations_is_joined_exactly() -> None:
    axes = Axes({d: pl.Series(range(2)) for d in "abc"})
    pairs = pl.DataFrame({"x": [0, 1], "y": [1, 0]})
    relations = [
        axes.relation(x + y, pairs.rename({"x": x, "y": y})) for x, y in (("a", "b"), ("b", "c"), ("c", "a"))
    ]
    assert (
        reduce_join(relations, axes).data_ids(["a"]).height == 0
    )  # pairwise consistent, yet without an answer


def test_keys_that_do_not_fit_64_bits_are_joined_all_the_same() -> None:
    big = pl.Series(range(70_000))
    axes = Axes(dict.fromkeys("abcd", big))
    frame = pl.DataFrame({"a": [3, 69_999], "b": [4, 5], "c": [6, 7], "d": [8, 9]})
    relations = [axes.relation("left", frame), axes.relation("right", frame.head(1))]
    assert axes.packed(frame) is None
    assert reduce_join(relations, axes).data_ids(list("abcd")).rows() == [(3, 4, 6, 8)]


def test_codes_keep_the_order_of_values_and_unknown_values_fall_out() -> None:
    axes = Axes({"band": pl.Series(["g", "r", "z"]), "visit": pl.Series([5, 7])})
    coded = axes.encode(pl.DataFrame({"band": ["z", "g", "q"], "visit": [5, 7, 5], "id": [1, 2, 3]}))
    assert coded.rows() == [(2, 0, 1), (0, 1, 2)]


@pytest.mark.parametrize("order", [["visit", "band"], ["band", "visit"]])
def test_rows_come_sorted_in_the_order_asked_for(order: list[str]) -> None:
    axes = Axes({"band": pl.Series(["g", "r"]), "visit": pl.Series([5, 7])})
    frame = pl.DataFrame({"band": ["r", "g", "r"], "visit": [5, 7, 7]})
    found = reduce_join([axes.relation("pairs", frame)], axes).data_ids(order)
    assert found.rows() == sorted(found.rows())


@given(
    st.lists(st.integers(-50, 50) | st.integers(-(2**62), 2**62), max_size=20),
    st.sets(st.integers(-50, 50) | st.integers(-(2**62), 2**62), max_size=20),
    st.booleans(),
)
def test_a_number_is_located_where_looking_through_all_finds_it(
    wanted: list[int], numbers: set[int], near: bool
) -> None:
    known = [n for n in numbers if abs(n) <= 50 or not near]
    found = located(np.array(wanted, dtype=np.int64), np.array(known, dtype=np.int64))
    assert found.tolist() == [known.index(n) if n in known else -1 for n in wanted]
