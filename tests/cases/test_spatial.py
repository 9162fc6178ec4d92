"""What overlaps on the real sky, as computed elsewhere: pairs of regions, sky pixels, visits of a patch, counts."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from case_files import files, table
from loadmaster_registry.queries import query_data_ids
from loadmaster_registry.sky import envelope_pixels
from loadmaster_registry.store import Registry

PIXELS = re.compile(r"(htm|healpix)\d+")
ELEMENTS = {("visit", "detector"): "visit_detector_region", ("tract", "patch"): "patch"}  # by columns


def answers() -> list[Any]:
    return [pytest.param(file, id=file.stem) for file in files("spatial/*.csv")]


@pytest.mark.parametrize("file", answers())
def test_the_sky_overlaps_as_computed_elsewhere(file: Path, opened: Callable[[str], Registry]) -> None:
    name, kind = file.stem.rsplit(".", 1)
    rows = table(file)
    columns = list(rows[0])
    if kind == "visits-per-patch-band":
        check_visits_per_band(opened(name), rows)
    elif kind.startswith("counts-per-"):
        check_counts(opened(name), rows)
    elif PIXELS.fullmatch(columns[-1]):
        assert pixels(opened(name), columns) == {tuple(map(int, row.values())) for row in rows}
    else:
        assert {"visit", "detector", "tract", "patch"} >= set(columns), f"what does {file.name} hold?"
        found = query_data_ids(opened(name), columns).select(columns)
        assert set(found.rows()) == {tuple(map(int, row.values())) for row in rows}


def pixels(registry: Registry, columns: list[str]) -> set[tuple[int, ...]]:
    """Return the keys of each region of an element with the pixels that its envelope touches."""
    keys = columns[:-1]
    element = ELEMENTS.get(tuple(keys), keys[-1])
    records = registry.records(element).filter(pl.col("region").is_not_null())
    row, pixel = envelope_pixels(records["region"], columns[-1])
    touched = records.select(keys)[row].with_columns(pl.Series("pixel", pixel))
    return set(touched.rows())


def check_visits_per_band(registry: Registry, rows: list[dict[str, str]]) -> None:
    found = query_data_ids(registry, ["visit", "detector", "patch", "band"])
    visits = found.group_by("tract", "patch", "band").agg(pl.col("visit").unique().sort())
    assert {tuple(row[:3]): row[3] for row in visits.rows()} == {
        (int(row["tract"]), int(row["patch"]), row["band"]): sorted(map(int, row["visits"].split()))
        for row in rows
    }
    assert all(int(row["n_visits"]) == len(row["visits"].split()) for row in rows)


def check_counts(registry: Registry, rows: list[dict[str, str]]) -> None:
    """Check the counts for each tract (or whatever the first columns are): of pairs, of patches touched."""
    counts = [c for c in rows[0] if c.startswith("n_")]
    keys = [c for c in rows[0] if c not in counts]
    found = query_data_ids(registry, ["visit", "detector", "patch"])
    kinds = {
        "n_visit_detector_patch": pl.len(),
        "n_visit_detector": pl.struct("visit", "detector").n_unique(),
        "n_visit_patch": pl.struct("visit", "tract", "patch").n_unique(),
        "n_visits": pl.col("visit").n_unique(),
        "n_patches_touched": pl.struct("tract", "patch").n_unique(),
    }
    assert set(counts) <= set(kinds), f"what do {counts} count?"
    told = found.group_by(keys).agg(*(kinds[c].alias(c) for c in counts)).select(*keys, *counts)
    assert set(told.rows()) == {
        tuple(int(v) if v.isdigit() else v for v in row.values())
        for row in rows
        if any(int(row[c]) for c in counts)
    }
