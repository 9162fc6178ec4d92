"""The records that raw frames bring: instrument, nights, exposures, and the visits that these define."""

from collections.abc import Iterable, Mapping, Sequence

import polars as pl
from loadmaster_registry.sky import contains_all, hull
from loadmaster_registry.transaction import Transaction
from loadmaster_registry.universe import ColumnType

from .frame import RawFrame
from .instrument import Instrument, Scalar

ONE_TO_ONE = 0  # the visit system in which each exposure is a visit of its own
_DTYPES: Mapping[ColumnType, type[pl.DataType]] = {
    "int": pl.Int64, "float": pl.Float64, "str": pl.String, "bool": pl.Boolean, "bytes": pl.Binary,
}  # fmt: skip


def register_instrument(transaction: Transaction, instrument: Instrument) -> None:
    """Insert the records of an instrument, its filters and detectors; the same again is a no-op.

    Raises
    ------
    Conflict
        If the registry knows one of them with other values.
    """
    name = instrument.name
    filters = [{"instrument": name, "physical_filter": f, "band": b} for f, b in instrument.filters.items()]
    detectors = [
        {
            "instrument": name,
            "detector": d.id,
            "full_name": d.full_name,
            "raft": d.raft,
            "name_in_raft": d.name_in_raft,
            "purpose": d.purpose,
        }
        for d in instrument.detectors
    ]
    _insert(transaction, "instrument", [{"instrument": name}])
    _insert(transaction, "physical_filter", filters)
    _insert(transaction, "detector", detectors)
    if instrument.visits:
        _insert(
            transaction,
            "visit_system",
            [{"instrument": name, "visit_system": ONE_TO_ONE, "name": "one-to-one"}],
        )


def insert_observations(
    transaction: Transaction, instrument: Instrument, frames: Sequence[RawFrame]
) -> tuple[int, int]:
    """Insert all records of frames but their detectors'; return how many exposures and visits are new.

    Raises
    ------
    Conflict
        If the registry knows one of them with other values.
    """
    name = instrument.name
    first = {f.exposure["exposure"]: f for f in frames}
    groups = {f.exposure["group"]: {"instrument": name, "group": f.exposure["group"]} for f in first.values()}
    _insert_missing(transaction, "group", groups)
    _insert_missing(transaction, "day_obs", {f.exposure["day_obs"]: _night(name, f) for f in first.values()})
    exposures = _insert(transaction, "exposure", [f.exposure for f in first.values()])
    return exposures, _insert_visits(transaction, name, [f for f in frames if f.is_visit])


def _night(instrument: str, frame: RawFrame) -> Mapping[str, Scalar]:
    begin, end = frame.day_span or (None, None)
    return {
        "instrument": instrument,
        "day_obs": frame.exposure["day_obs"],
        "timespan_begin": begin,
        "timespan_end": end,
    }


def _insert_missing(
    transaction: Transaction, element: str, rows: Mapping[Scalar, Mapping[str, Scalar]]
) -> None:
    """Insert the records that are not there; what others have said of those that are stays."""
    instruments = {row["instrument"] for row in rows.values()}
    known = transaction.records(element, {"instrument": list(instruments), element: list(rows)})  # type: ignore[arg-type]
    there = set(known[element])
    _insert(transaction, element, [row for key, row in rows.items() if key not in there])


def _insert_visits(transaction: Transaction, instrument: str, frames: Sequence[RawFrame]) -> int:
    """Insert the visits that frames belong to, or let their regions grow; return how many are new."""
    if not frames:
        return 0
    exposures = {f.exposure["exposure"]: f.exposure for f in frames}
    there = transaction.records("visit", {"instrument": [instrument], "visit": list(exposures)})  # type: ignore[arg-type]
    before: dict[Scalar, bytes | None] = dict(zip(there["visit"], there["region"], strict=True))
    regions = {
        visit: _grown(before.get(visit), [f.region for f in frames if f.exposure["exposure"] == visit])
        for visit in exposures
    }
    columns = _visit_columns(transaction)
    visits = {visit: _visit(exposure, columns) for visit, exposure in exposures.items()}
    new = [{**row, "region": regions[visit]} for visit, row in visits.items() if visit not in before]
    inserted = _insert(transaction, "visit", new)
    _insert(transaction, "visit", [row for visit, row in visits.items() if visit in before])
    _replace_regions(transaction, instrument, {v: regions[v] for v in before if regions[v] != before[v]})
    _insert_links(transaction, instrument, frames, list(exposures))
    return inserted


def _grown(before: bytes | None, regions: Iterable[bytes | None]) -> bytes | None:
    """Return the convex hull of a visit's region so far and those of more detectors."""
    more = [region for region in regions if region is not None]
    if before is not None and all(contains_all(before, region) for region in more):
        return before
    known = ([before] if before is not None else []) + more
    return hull(known) if known else None


def _visit_columns(transaction: Transaction) -> set[str]:
    universe = transaction.universe
    shared = {c.name for c in universe["visit"].metadata} & {c.name for c in universe["exposure"].metadata}
    return shared | {*universe["visit"].implied, "instrument", "timespan_begin", "timespan_end"}


def _visit(exposure: Mapping[str, Scalar], columns: set[str]) -> dict[str, Scalar]:
    """Return the record of the visit that is just this exposure."""
    shared = {key: value for key, value in exposure.items() if key in columns}
    return {**shared, "visit": exposure["exposure"], "name": exposure["obs_id"]}


def _replace_regions(
    transaction: Transaction, instrument: str, regions: Mapping[Scalar, bytes | None]
) -> None:
    if regions:
        rows = {"visit": list(regions), "region": list(regions.values())}
        frame = pl.DataFrame(rows, schema={"visit": pl.Int64, "region": pl.Binary})
        transaction.replace_records("visit", frame.with_columns(instrument=pl.lit(instrument)))


def _insert_links(
    transaction: Transaction, instrument: str, frames: Sequence[RawFrame], visits: Sequence[Scalar]
) -> None:
    """Insert which exposures a visit has, in which system it is, and where its detectors look."""
    definitions = [{"instrument": instrument, "exposure": visit, "visit": visit} for visit in visits]
    memberships = [{"instrument": instrument, "visit_system": ONE_TO_ONE, "visit": visit} for visit in visits]
    _insert(transaction, "visit_definition", definitions)
    _insert(transaction, "visit_system_membership", memberships)
    detectors = [
        {
            "instrument": instrument,
            "visit": f.exposure["exposure"],
            "detector": f.detector,
            "region": f.region,
        }
        for f in frames
        if f.region is not None
    ]
    _insert(transaction, "visit_detector_region", detectors)


def _insert(transaction: Transaction, element: str, rows: Sequence[Mapping[str, Scalar | bytes]]) -> int:
    """Insert records given row by row; a batch has hundreds, not millions."""
    if not rows:
        return 0
    columns = {key: [row.get(key) for row in rows] for key in rows[0]}
    types = _types(transaction, element)
    frame = pl.DataFrame([pl.Series(key, values, dtype=types[key]) for key, values in columns.items()])
    return transaction.insert_records(element, frame)


def _types(transaction: Transaction, element: str) -> dict[str, type[pl.DataType]]:
    universe = transaction.universe
    definition = universe[element]
    keys = {d: universe[d].key for d in (*definition.required, *definition.implied)}
    types = {d: _DTYPES[key.type] for d, key in keys.items() if key is not None}
    types |= {c.name: _DTYPES[c.type] for c in (*definition.alternates, *definition.metadata)}
    return types | {"region": pl.Binary, "timespan_begin": pl.Int64, "timespan_end": pl.Int64}
