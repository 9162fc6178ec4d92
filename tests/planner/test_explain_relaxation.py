"""The smallest sets that hit all conflicts, against trying every set."""

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st
from loadmaster_planner.explain.relaxation import smallest_relaxations

NAMES = "abcdefg"
CONFLICTS = st.lists(st.frozensets(st.sampled_from(NAMES), min_size=1, max_size=4), max_size=6)


def hits(removed: frozenset[str], conflicts: list[frozenset[str]]) -> bool:
    return all(removed & conflict for conflict in conflicts)


@given(CONFLICTS)
def test_all_sets_of_the_smallest_size_that_help_are_found_and_no_other(
    conflicts: list[frozenset[str]],
) -> None:
    sizes = range(len(NAMES) + 1)
    helping = ([s for s in map(frozenset, combinations(NAMES, n)) if hits(s, conflicts)] for n in sizes)
    expected = next(sets for sets in helping if sets)
    assert list(smallest_relaxations(NAMES, lambda removed: hits(removed, conflicts))) == expected


def test_where_nothing_helps_there_is_no_set() -> None:
    assert smallest_relaxations(NAMES, lambda removed: False) == ()


def test_many_restrictions_that_do_not_matter_cost_few_trials() -> None:
    names, asked = range(200), []

    def helps(removed: frozenset[int]) -> bool:
        asked.append(removed)
        return hits(removed, [frozenset({17, 140}), frozenset({63})])  # type: ignore[arg-type, list-item]

    assert smallest_relaxations(names, helps) == (frozenset({17, 63}), frozenset({63, 140}))
    assert len(asked) < 60


def test_the_search_ends_with_what_it_has_when_it_has_asked_enough() -> None:
    pairs = [frozenset(NAMES[i : i + 2]) for i in (0, 2, 4)]
    found = smallest_relaxations(NAMES, lambda removed: hits(removed, pairs), most_trials=30)
    assert 0 < len(found) <= 8
    assert all(hits(removed, pairs) for removed in found)
