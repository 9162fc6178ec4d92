"""Small random surveys, as plain JSON from which both registries are built.

Aimed at what goes wrong: exposures without visits and visits of several exposures, detectors without regions,
datasets found in several runs, gaps in validity, outputs that exist in part, inputs that lack.
"""

from collections.abc import Iterable, Sequence
from random import Random
from typing import Any

from lsst.sphgeom import ConvexPolygon, HtmPixelization, LonLat, UnitVector3d

Data = dict[str, Any]
HOUR = 3_600_000_000_000
EPOCH = 1_735_689_600_000_000_000  # 2025-01-01 TAI
FILTERS = {"F-g": "g", "F-r": "r", "F-r2": "r"}
KEYS = {"exposure": ("exposure",), "visit": ("visit",), "detector": ("detector",), "tract": ("tract",),
        "patch": ("tract", "patch"), "physical_filter": ("physical_filter",), "band": ("band",),
        "day_obs": ("day_obs",), "instrument": (), "skymap": (), "htm7": ("htm7",)}  # fmt: skip
GOVERNORS = {"instrument": "I", "skymap": "S"}
OBSERVED = ("exposure", "visit", "detector", "physical_filter", "day_obs", "instrument")
MAPPED = ("tract", "patch", "skymap")


def square(lon: float, lat: float, width: float, height: float) -> str:
    """Return a region in hexadecimal, as exports hold it."""
    corners = [(lon, lat), (lon + width, lat), (lon + width, lat + height), (lon, lat + height)]
    polygon = ConvexPolygon([UnitVector3d(LonLat.fromDegrees(*c)) for c in corners])
    return bytes(polygon.encode()).hex()


class Survey:
    """A random survey under construction."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.records: dict[str, list[Data]] = {}
        self.runs: list[str] = []
        self.types: dict[str, tuple[tuple[str, ...], bool]] = {}
        self.datasets: list[tuple[str, str, list[Data]]] = []
        self.tags: dict[str, list[Any]] = {}
        self.ranges: list[tuple[str, str, str, list[Data], int | None, int | None]] = []
        self.chains: list[tuple[str, list[str]]] = []
        self.places: dict[str, str] = {}
        self._observations()
        self._sky()
        self._inputs()

    def json(self) -> Data:
        """Return plain values."""
        return {"records": self.records, "runs": self.runs, "dataset_types": self.types,
                "datasets": self.datasets, "tags": self.tags, "ranges": self.ranges,
                "chains": self.chains}  # fmt: skip

    def some(self, values: Sequence[Any], least: float = 0.5) -> list[Any]:
        """Return a random part of some values, all of them rather often."""
        share = self.random.choice((least, 0.85, 1.0, 1.0))
        return [v for v in values if self.random.random() < share]

    def _place(self) -> str:
        """Return a region on a grid whose lines no two kinds of regions share."""
        r = self.random
        return square(
            r.randint(0, 5) + 0.25, r.randint(0, 2) + 0.25, r.randint(1, 3) - 0.5, r.randint(1, 2) - 0.5
        )

    def _observations(self) -> None:
        r, instrument = self.random, {"instrument": "I"}
        detectors = range(1, r.randint(1, 4) + 1)
        numbers = range(1, r.randint(2, 6) + 1)
        days = (20250101, 20250102)
        filters = {e: r.choice(sorted(FILTERS)) for e in numbers}
        day = {e: r.choice(days) for e in numbers}
        times = {e: [EPOCH + e * HOUR, EPOCH + e * HOUR + HOUR // 2] for e in numbers}
        visits: dict[int, list[int]] = {}
        for e in self.some(list(numbers), 0.6):
            mine = [v for v, es in visits.items() if filters[es[0]] == filters[e] and day[es[0]] == day[e]]
            if mine and r.random() < 0.3:
                visits[r.choice(mine)].append(e)
            else:
                visits[100 + e] = [e]
        fields = ("instrument", "visit_max", "exposure_max", "detector_max", "class_name")
        self.records = {
            "instrument": [dict(zip(("name", *fields[1:]), ("I", 1000, 1000, 100, "x"), strict=True))],
            "physical_filter": [{**instrument, "name": f, "band": b} for f, b in FILTERS.items()],
            "detector": [{**instrument, "id": d, "full_name": f"D{d}"} for d in detectors],
            "day_obs": [{**instrument, "id": d} for d in days],
            "group": [{**instrument, "name": f"g{e}"} for e in numbers],
            "exposure": [
                {**instrument, "id": e, "obs_id": f"e{e}", "group": f"g{e}", "physical_filter": filters[e],
                 "day_obs": day[e], "timespan": times[e], "exposure_time": 10.0 * (e % 3),
                 "observation_type": r.choice(("science", "bias"))}
                for e in numbers
            ],
            "visit": [
                {**instrument, "id": v, "name": f"v{v}", "physical_filter": filters[es[0]], "day_obs": day[es[0]],
                 "timespan": [times[es[0]][0], times[es[-1]][1]], "exposure_time": 10.0 * (v % 3),
                 "region": self._place()}
                for v, es in visits.items()
            ],
            "visit_definition": [
                {**instrument, "exposure": e, "visit": v} for v, es in visits.items() for e in es
            ],
            "visit_detector_region": [
                {**instrument, "visit": v, "detector": d, "region": self._place()}
                for v in visits for d in self.some(detectors, 0.7)
            ],
        }  # fmt: skip

    def _sky(self) -> None:
        r = self.random
        tracts = range(r.randint(1, 2))
        self.records["skymap"] = [{"name": "S", "hash": "00" * 20, "tract_max": 10, "patch_nx_max": 9,
                                   "patch_ny_max": 9}]  # fmt: skip
        sky = [square(0.5 + 3 * t, 0.5, 3, 2) for t in tracts]
        self.records["tract"] = [{"skymap": "S", "id": t, "region": sky[t]} for t in tracts]
        self.records["patch"] = [
            {"skymap": "S", "tract": t, "id": p, "cell_x": p % 2, "cell_y": p // 2,
             "region": square(0.5 + 3 * t + 1.5 * (p % 2), 0.5 + (p // 2), 1.5, 1)}
            for t in tracts for p in range(r.randint(1, 4))
        ]  # fmt: skip

    def data_ids(self, dimensions: Iterable[str]) -> list[Data]:
        """Return all data IDs over some dimensions: every combination of records that agree."""
        rows: list[Data] = [{}]
        for dimension in dimensions:
            rows = [a | b for a in rows for b in self._values(dimension)
                    if all(a.get(k, v) == v for k, v in b.items())]  # fmt: skip
        for kind, members in (("instrument", OBSERVED), ("skymap", MAPPED)):
            if set(dimensions) & set(members):
                rows = [{kind: GOVERNORS[kind], **row} for row in rows]
        return rows

    def _values(self, dimension: str) -> list[Data]:
        if dimension in GOVERNORS:
            return [{dimension: GOVERNORS[dimension]}]
        if dimension == "band":
            return [{"band": b} for b in sorted(set(FILTERS.values()))]
        if dimension == "htm7":
            return [{"htm7": int(p)} for p in self.pixels()]
        records = self.records[dimension]
        key = "name" if dimension == "physical_filter" else "id"
        return [
            {dimension: r[key], **({"tract": r["tract"]} if dimension == "patch" else {})} for r in records
        ]

    def pixels(self) -> list[int]:
        """Return the sky pixels that any region touches."""
        found = set()
        for records in self.records.values():
            for record in records:
                if "region" in record:
                    region = ConvexPolygon.decode(bytes.fromhex(record["region"]))
                    found |= {
                        p for begin, end in HtmPixelization(7).envelope(region) for p in range(begin, end)
                    }
        return sorted(found)

    def insert(self, name: str, run: str, ids: list[Data]) -> None:
        """Put datasets into a run."""
        if run not in self.runs:
            self.runs.append(run)
        if ids:
            self.datasets.append((name, run, ids))

    def _inputs(self) -> None:
        """Register what pipelines may read."""
        r = self.random
        plain: dict[str, tuple[str, ...]] = {
            "old_image": ("visit", "detector"), "old_summary": ("visit",), "old_warp": ("patch", "visit"),
            "template": ("patch", "band"), "mask": ("patch", "band"), "sky_map": ("skymap",), "table": (),
            "schema": (), "reference": ("htm7",), "linearity": ("detector",), "tract_model": ("tract",),
        }  # fmt: skip
        calibrations = {
            "bias": ("detector",),
            "flat": ("physical_filter", "detector"),
            "camera": ("instrument",),
        }
        self.types = {
            name: (dims, False) for name, dims in {"raw": ("exposure", "detector"), **plain}.items()
        }
        self.types |= {name: (dims, True) for name, dims in calibrations.items()}
        self.insert("raw", "raw/a", raws := self.some(self.data_ids(("exposure", "detector")), 0.6))
        self.insert("raw", "raw/b", self.some(raws, 0.2) if r.random() < 0.3 else [])
        for name, dimensions in plain.items():
            ids = self.data_ids(dimensions)
            self.insert(name, "other/a", self.some(ids, 0.6))
            self.insert(name, "other/b", self.some(ids, 0.3) if r.random() < 0.2 else [])
        for name in calibrations:
            self._calibrations(name)
        if r.random() < 0.3 and raws:
            self.tags["picked"] = [("raw", "raw/a", i) for i in self.some(raws)]
        self.chains.append(("inputs", ["raw/a", "raw/b", "other/a", "other/b", "calib"]))
        self.chains.append(
            ("picked/inputs", [*(["picked"] if self.tags else []), "other/b", "calib", "other/a"])
        )

    def _calibrations(self, name: str) -> None:
        """Certify two epochs with a border somewhere, at times a gap, at times one for ever."""
        r = self.random
        kind = r.choice(("for ever", "two", "two", "gap", "none of some"))
        border = EPOCH + r.randint(0, 7) * HOUR + (HOUR // 4 if r.random() < 0.2 else HOUR * 3 // 4)
        ids = self.data_ids(self.types[name][0])
        first, second = (f"calib/{name}/{epoch}" for epoch in (1, 2))
        for run in (first, second):
            self.insert(name, run, ids)
        valid = ids[1::2] if kind == "none of some" else ids
        if kind == "for ever":
            self.ranges.append(("calib", name, first, valid, None, None))
        elif valid:
            gap = HOUR if kind == "gap" else 0
            self.ranges.append(("calib", name, first, valid, None, border))
            self.ranges.append(("calib", name, second, valid, border + gap, None))
