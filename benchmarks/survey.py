"""A synthetic survey of any size, as plain arrays: what planning benchmarks run on, ours and the peer's alike.

Tracts of 2° × 2° with 8 × 8 patches lie in rows around the sky, too far apart for a visit to reach two; each is
covered by 40 visits in 5 bands, dithered.
Needs numpy only, so that the peer's environment can import it.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

INSTRUMENT, SKYMAP = "SynCam", "syn"
BANDS = ("g", "r", "i", "z", "y")
DETECTORS = 50  # 10 × 5 in a field of 1.25° × 1.25°
VISITS_PER_TRACT = 40
TRACTS_PER_ROW = 170  # there is room for 180: the last is no neighbour of the first
QUANTA_PER_VISIT = 2 * DETECTORS + 1 + 33  # isr and calibrate a detector, one summary, the warps
DAY_NS = 86_400_000_000_000
FIRST_NS = 1_700_000_000_000_000_000
WHERE = f"instrument='{INSTRUMENT}' AND skymap='{SKYMAP}'"

Corners = NDArray[np.float64]  # shape (n, 4, 3): unit vectors, counter-clockwise seen from outside


@dataclass(frozen=True)
class Survey:
    """The survey's records as arrays, one row a record."""

    visit: NDArray[np.int64]
    band: NDArray[np.int64]  # position in BANDS
    day_obs: NDArray[np.int64]
    begin_ns: NDArray[np.int64]
    visit_region: Corners
    detector_region: Corners  # visits × DETECTORS rows, detector quickest
    tract_region: Corners
    patch_region: Corners  # tracts × 64 rows, patch quickest


def survey_of(quanta: int) -> Survey:
    """Make the survey whose nine-task plan has about `quanta` quanta."""
    n = max(5, round(quanta / QUANTA_PER_VISIT))
    n_tracts = -(-n // VISITS_PER_TRACT)
    random = np.random.default_rng(20261124)
    number = np.arange(n)
    tract = number // VISITS_PER_TRACT
    left, bottom = _corner(np.arange(n_tracts))
    ra = left[tract] + random.uniform(0.3, 1.7, n)
    dec = bottom[tract] + random.uniform(0.3, 1.7, n)
    day = number // 100
    return Survey(
        visit=1000 + 2 * number,
        band=number % len(BANDS),
        day_obs=20240101 + (day // 28) * 100 + day % 28,
        begin_ns=FIRST_NS + day * DAY_NS + (number % 100) * 40_000_000_000,
        visit_region=_boxes(ra - 0.625, ra + 0.625, dec - 0.625, dec + 0.625),
        detector_region=_grid(ra - 0.625, dec - 0.625, 1.25, 10, 5),
        tract_region=_boxes(left, left + 2.0, bottom, bottom + 2.0),
        patch_region=_grid(left, bottom, 2.0, 8, 8),
    )


def _corner(tract: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return where tracts begin, in degrees: rows at 0°, 4°, −4°, 8°…"""
    row, column = np.divmod(tract, TRACTS_PER_ROW)
    return 2.0 * column, 4.0 * np.where(row % 2, row // 2 + 1, -(row // 2))


def _grid(ra: NDArray[np.float64], dec: NDArray[np.float64], size: float, nx: int, ny: int) -> Corners:
    """Cut each square into nx × ny boxes, with a margin of a thousandth so that neighbours do not touch."""
    x, y = np.meshgrid(np.arange(nx), np.arange(ny))
    left = (ra[:, None] + size * x.ravel() / nx).ravel()
    bottom = (dec[:, None] + size * y.ravel() / ny).ravel()
    margin = size / 1000
    return _boxes(left + margin, left + size / nx - margin, bottom + margin, bottom + size / ny - margin)


def _boxes(
    left: NDArray[np.float64],
    right: NDArray[np.float64],
    bottom: NDArray[np.float64],
    top: NDArray[np.float64],
) -> Corners:
    left, right, bottom, top = np.broadcast_arrays(left, right, bottom, top)
    lon = np.radians(np.stack([left, right, right, left], axis=-1))
    lat = np.radians(np.stack([bottom, bottom, top, top], axis=-1))
    return np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=-1)


def encoded(corners: Corners) -> list[bytes]:
    """Return each polygon in the sky library's binary form: the letter p, then the corners as doubles."""
    rows = np.ascontiguousarray(corners, dtype="<f8").reshape(len(corners), 12)
    return [b"p" + row.tobytes() for row in rows]


TASKS = {
    "isr": (
        ("exposure", "detector"),
        {"raw": ("exposure", "detector")},
        {"post_isr": ("exposure", "detector")},
    ),
    "calibrate": (
        ("visit", "detector"),
        {"post_isr": ("exposure", "detector")},
        {"calibrated_image": ("visit", "detector"), "star_catalog": ("visit", "detector")},
    ),
    "summarize": (("visit",), {"calibrated_image": ("visit", "detector")}, {"visit_summary": ("visit",)}),
    "warp": (
        ("patch", "visit"),
        {"calibrated_image": ("visit", "detector"), "visit_summary": ("visit",)},
        {"warp": ("patch", "visit")},
    ),
    "coadd": (("patch", "band"), {"warp": ("patch", "visit")}, {"coadd": ("patch", "band")}),
    "detect": (("patch", "band"), {"coadd": ("patch", "band")}, {"peaks": ("patch", "band")}),
    "merge": (("patch",), {"peaks": ("patch", "band")}, {"merged": ("patch",)}),
    "measure": (
        ("patch", "band"),
        {"coadd": ("patch", "band"), "merged": ("patch",)},
        {"measurements": ("patch", "band")},
    ),
    "table": (("tract",), {"measurements": ("patch", "band")}, {"object_table": ("tract",)}),
}
PREREQUISITES = {"isr": {"bias": ("detector",), "flat": ("detector", "physical_filter")}}
