"""The floor under planning: the same quanta and edges by bare Polars joins of tables that lie in memory.

No registry, no expression, no regions (which overlap is given), no prerequisites, no checks, no file.
"""

from typing import Any

import numpy as np
import polars as pl
import survey as synthetic
from loadmaster_registry.sky import overlapping_pairs
from numpy.typing import NDArray

Tables = dict[str, pl.DataFrame]


def tables(survey: synthetic.Survey) -> Tables:
    """Return the survey as integer columns: raws, what a visit is, what overlaps what."""
    detectors = synthetic.DETECTORS
    detector_region, patch_region = (
        pl.Series(synthetic.encoded(corners)) for corners in (survey.detector_region, survey.patch_region)
    )
    a, b = overlapping_pairs(detector_region, patch_region)
    n = np.arange(survey.visit.size, dtype=np.uint32)
    return {
        "raw": _frame(exposure=np.repeat(n, detectors), detector=np.tile(np.arange(detectors), n.size)),
        "visit": _frame(exposure=n, visit=n, band=survey.band),
        "overlap": _frame(visit=a // detectors, detector=a % detectors, tract=b // 64, patch=b % 64),
    }


def joined(given: Tables) -> tuple[int, int]:
    """Make the tables of quanta and of edges; return how many rows both have."""
    base = given["raw"].join(given["visit"], on="exposure")
    rows = given["overlap"].join(base, on=["visit", "detector"])
    base = base.join(given["overlap"], on=["visit", "detector"], how="semi")
    relations = {
        "exposure": base.select("exposure", "visit", "detector"),
        "patch": rows.select("tract", "patch", "visit", "detector", "band"),
    }
    keyed: Tables = {}

    def table(dimensions: tuple[str, ...]) -> pl.DataFrame:
        keys = sorted({*dimensions, *(("tract",) if "patch" in dimensions else ())})
        name = f"row of {' '.join(keys)}"
        if name not in keyed:
            home = next(r for r in relations.values() if set(keys) <= set(r.columns))
            keyed[name] = home.select(keys).unique().sort(keys).with_row_index(name)
        return keyed[name]

    quanta = edges = 0
    for dimensions, inputs, outputs in synthetic.TASKS.values():
        own = table(dimensions)
        quanta += own.height
        for other in (*inputs.values(), *outputs.values()):
            theirs = table(other)
            both = table(tuple(dict.fromkeys((*own.columns[1:], *theirs.columns[1:]))))
            edge = both[:, 1:]
            for side in {own.columns[0]: own, theirs.columns[0]: theirs}.values():
                edge = edge.join(side, on=side.columns[1:], how="left")
            edges += edge.height
    return quanta, edges


def _frame(**columns: NDArray[Any]) -> pl.DataFrame:
    return pl.DataFrame({name: values.astype(np.uint32) for name, values in columns.items()})
