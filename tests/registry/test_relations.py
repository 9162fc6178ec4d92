"""What is joined to find data IDs, told before anything is read."""

from collections.abc import Callable

import polars as pl
import pytest
from loadmaster_registry.relations import Constraint, Exclusion, constrain, joined_dimensions
from loadmaster_registry.store import Registry
from loadmaster_registry.where import parse


@pytest.mark.parametrize(
    ("dimensions", "where"),
    [
        (["exposure", "detector", "visit"], ""),
        (["exposure", "detector", "visit"], "visit.exposure_time > 10 AND detector IN (40..42)"),
        (["visit", "detector", "patch"], "skymap='hsc_rings_v1' AND tract=9813"),
        (["visit", "tract"], "skymap='hsc_rings_v1' AND visit.region OVERLAPS tract.region"),
        (["visit", "htm7"], ""),
    ],
)
def test_every_relation_that_is_joined_is_told_with_its_dimensions(
    opened: Callable[[str], Registry], dimensions: list[str], where: str
) -> None:
    with opened("rc2-small").snapshot() as now:
        universe = now.universe
        group = universe.group(dimensions)
        predicates = parse(
            f"instrument='HSC'{' AND ' if where else ''}{where}", universe=universe, dimensions=group
        )
        known = now.records("visit", columns=()).select("instrument", "visit")
        table, left_out = Constraint("a table", known), Exclusion("the first", known.head(1))
        asked = (predicates, [table], [left_out])
        told = joined_dimensions(universe, group, *asked)
        found = constrain(now, group, *asked)
        relations = [name for name in told if name not in predicates]
        assert len(relations) == len(found.funnel)
        assert frozenset().union(*told.values()) == set(found.group)
        assert all(told[p] >= p.dimensions for p in predicates)


def test_tables_of_the_same_name_are_both_told(opened: Callable[[str], Registry]) -> None:
    universe = opened("rc2-small").universe
    one, two = pl.DataFrame({"visit": [1]}), pl.DataFrame({"visit": [1], "detector": [2]})
    tables = [Constraint("mine", one), Constraint("mine", two)]
    told = joined_dimensions(universe, universe.group(["visit", "detector"]), (), tables)
    assert {"visit"} in told.values()
    assert {"visit", "detector"} in told.values()
