"""Calibrations that a person wants used for some data IDs, whatever the search would find."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import numpy as np
import polars as pl
from loadmaster_registry.errors import ConfigError, NotFound, PlanError, did_you_mean
from loadmaster_registry.schema import key_column
from loadmaster_registry.snapshot import Snapshot
from loadmaster_registry.table_file import TableFile, read_table_file
from loadmaster_registry.universe import Universe

from .graph import positions
from .lookups import Integers, QuantumCodes, with_implied

_TYPE, _ID, _COLLECTION = "dataset_type", "dataset_id", "collection"
_SHOWN = 5


@dataclass(frozen=True)
class Override:
    """Rows of a file that name the same dimensions, for one dataset type."""

    dataset_type: str
    given: tuple[str, ...]  # the dimensions that the rows name: the more of them, the more specific
    frame: pl.DataFrame  # `given` and the type's required dimensions, "dataset" Int64, "row" Int64 (from 1)
    source: str  # the file, for people


def read_overrides(path: str | Path, registry: Snapshot) -> tuple[Override, ...]:
    """Read a table of overrides: CSV, TSV, Parquet, or anything that Astropy reads.

    Each row has a ``dataset_type``, values for some dimensions (an empty one does not matter), and either the
    ``dataset_id`` to use, or the ``collection`` whose datasets are used where their data ID agrees.

    Raises
    ------
    ConfigError
        If the file is no table, a column or value is wrong, or a row says too little or too much.
    PlanError
        If a row names something that does not exist or is of another dataset type; if two rows with the same
        dimensions name different datasets.
    """
    file = read_table_file(path)
    rows = _rows(file, registry.universe)
    found: dict[tuple[str, tuple[str, ...]], list[pl.DataFrame]] = {}
    for (name,), part in rows.partition_by(_TYPE, as_dict=True, maintain_order=True).items():
        for given, alike in _by_dimensions(part):
            resolved = _resolved(registry, str(name), alike, given, file.path)
            found.setdefault((str(name), given), []).append(resolved)
    overrides = []
    for (name, given), frames in found.items():
        frame = pl.concat(frames).sort("row")
        _check_contradictions(frame, file.path)
        overrides.append(Override(name, given, frame, str(file.path)))
    return tuple(overrides)


def unmatched(overrides: Iterable[Override], matched: Iterable[tuple[str, int]]) -> list[str]:
    """Return in words which overrides match no quantum, given the file and row of those that do."""
    known = set(matched)
    rows: dict[tuple[str, str], list[int]] = {}
    for override in overrides:
        idle = [r for r in override.frame["row"].unique().sort() if (override.source, r) not in known]
        rows.setdefault((override.source, override.dataset_type), []).extend(idle)
    return [
        f"{source}: {len(idle)} overrides of {name!r} match no quantum of the plan: "
        f"row{'s' * (len(idle) > 1)} {', '.join(map(str, sorted(idle)[:_SHOWN]))}{', …' * (len(idle) > _SHOWN)}"
        for (source, name), idle in rows.items()
        if idle
    ]


@dataclass(frozen=True)
class Chosen:
    """What overrides say about the quanta of one task."""

    row: Integers  # in `datasets`; −1 for quanta that no override matches
    datasets: pl.DataFrame  # required dimensions of the type, "dataset", …
    matched: frozenset[tuple[str, int]]  # file and row of all that match some quantum


def chosen_datasets(codes: QuantumCodes, label: str, overrides: Sequence[Override]) -> Chosen:
    """Choose for each quantum of a task the most specific override whose dimensions all agree with it.

    One override is more specific than another if its dimensions determine those of the other.

    Raises
    ------
    PlanError
        If two that name different datasets match one quantum, and neither is more specific.
    """
    universe = codes.registry.universe
    scopes = [frozenset(universe.group(o.given).names) for o in overrides]
    pieces = [o.frame.with_columns(source=pl.lit(o.source), override=i) for i, o in enumerate(overrides)]
    table = pl.concat(pieces, how="diagonal")
    owner, dataset = table["override"].to_numpy(), table["dataset"].to_numpy()
    begin = np.cumsum([0, *(o.frame.height for o in overrides)])
    row = np.full(codes.count, -1, dtype=np.int64)
    matched: set[tuple[str, int]] = set()
    for i in sorted(range(len(overrides)), key=lambda i: -len(scopes[i])):
        place = _places(codes, label, overrides[i])
        hit = place >= 0
        rows = overrides[i].frame["row"].to_numpy()[np.unique(place[hit])]
        matched |= {(overrides[i].source, int(n)) for n in rows}
        place += begin[i]
        equals = np.array([not scopes[i] < scope for scope in scopes])  # whom it does not give way to
        clash = hit & (row >= 0) & equals[owner[row]] & (dataset[row] != dataset[place])
        if clash.any():
            raise _tie(codes, label, table, int(clash.argmax()), row, place)
        row = np.where(hit & (row < 0), place, row)
    return Chosen(row, table, frozenset(matched))


def _places(codes: QuantumCodes, label: str, override: Override) -> Integers:
    """Return for each quantum the row of the override that agrees with it; −1 where none does."""
    nothing = np.full(codes.count, -1, dtype=np.int64)
    if not set(override.given) <= set(codes.group):
        return nothing
    keys = [d for d in override.frame.columns if d in codes.group]
    numbered = codes.axes.encode(override.frame.select(*keys, "dataset").with_row_index("at"))
    varying = codes.axes.varying(keys)
    if not numbered.height:
        return nothing
    first = numbered.unique(varying, keep="first").sort(varying) if varying else numbered.head(1)
    place = positions(codes.frame(varying), first.select(varying), codes.axes) if varying else nothing + 1
    at = np.where(place >= 0, first["at"].cast(pl.Int64).to_numpy()[place], -1)
    others = numbered.join(first, on=[*varying, "dataset"], how="anti") if varying else numbered[1:]
    if others.height:
        raise _contradiction(override, others["at"].to_list(), label)
    return at


def _contradiction(override: Override, at: Sequence[int], label: str) -> PlanError:
    rows = override.frame[at]["row"].unique().sort().to_list()[:_SHOWN]
    return PlanError(
        what=f"overrides of {override.dataset_type!r} name several datasets for one quantum of task {label}",
        where=f"{override.source}, rows {', '.join(map(str, rows))} and others with the same dimensions",
        why="the task's quanta do not have the dimensions in which these datasets differ",
        todo="leave one of them, or name dimensions that tell the quanta apart",
    )


def _tie(
    codes: QuantumCodes, label: str, table: pl.DataFrame, quantum: int, row: Integers, place: Integers
) -> PlanError:
    both = table[[int(row[quantum]), int(place[quantum])]]
    data_id = codes.values(codes.group.required, np.array([quantum])).row(0, named=True)
    where = " and ".join(f"{source}, row {n}" for source, n in both.select("source", "row").iter_rows())
    return PlanError(
        what=f"two overrides match one quantum of task {label}, and neither is more specific",
        where=f"{where}; quantum {data_id}",
        why="they name different datasets, and the dimensions of neither determine those of the other",
        todo="leave one of them out, or add a row that names the dimensions of both",
    )


def _rows(file: TableFile, universe: Universe) -> pl.DataFrame:
    """Return all columns with their types, and the number of each row."""
    known = {_TYPE, _ID, _COLLECTION}
    for name in file.frame.columns:
        if name not in known and not (name in universe and universe[name].is_dimension):
            raise ConfigError(
                what=f"column {name!r} is no dimension",
                where=str(file.path),
                why=f"an override has {_TYPE}, {_ID} or {_COLLECTION}, and dimensions",
                todo=did_you_mean(name, [*known, *universe.dimensions]),
            )
    dimensions = universe.ordered(set(file.frame.columns) - known)
    columns = [file.column(d, key_column(universe, d).type) for d in dimensions]
    for name in (_TYPE, _ID, _COLLECTION):
        given = name in file.frame.columns
        texts = file.column(name, "str") if given else pl.Series([None] * file.frame.height, dtype=pl.String)
        columns.append(texts.rename(name))
    rows = pl.DataFrame(columns).with_row_index("row", offset=1).with_columns(pl.col("row").cast(pl.Int64))
    _check_rows(rows, file.path)
    return rows


def _check_rows(rows: pl.DataFrame, path: Path) -> None:
    untyped = rows.filter(pl.col(_TYPE).is_null())["row"]
    unclear = rows.filter(pl.col(_ID).is_null() == pl.col(_COLLECTION).is_null())["row"]
    for bad, what in (
        (untyped, f"has no {_TYPE}"),
        (unclear, f"has both {_ID} and {_COLLECTION}, or neither"),
    ):
        if bad.len():
            raise ConfigError(
                what=f"row {bad[0]} {what}",
                where=str(path),
                why="an override says of which dataset type it is, and which dataset to use",
                todo=f"give each row a {_TYPE}, and either a {_ID} or a {_COLLECTION}",
            )


def _by_dimensions(rows: pl.DataFrame) -> list[tuple[tuple[str, ...], pl.DataFrame]]:
    """Part rows by the dimensions for which they have values, and by how they name the dataset."""
    dimensions = [c for c in rows.columns if c not in ("row", _TYPE, _ID, _COLLECTION)]
    has = [pl.col(c).is_not_null().alias(f"\x00{c}") for c in (*dimensions, _ID)]
    marked = rows.with_columns(has)
    marks = [f"\x00{c}" for c in (*dimensions, _ID)]
    parts = []
    for mark, part in marked.partition_by(marks, as_dict=True, maintain_order=True).items():
        given = tuple(d for d, there in zip(dimensions, mark, strict=False) if there)
        parts.append((given, part.select("row", *given, _ID, _COLLECTION)))
    return parts


def _resolved(
    registry: Snapshot, name: str, rows: pl.DataFrame, given: Sequence[str], path: Path
) -> pl.DataFrame:
    """Replace ids and collections by datasets, with the dimensions of these."""
    try:
        required = registry.dataset_type(name).dimensions.required
    except NotFound as error:
        raise _not_there(path, rows["row"], f"dataset type {name!r}", str(error.args[3])) from None
    by_id = rows[_ID].null_count() == 0
    named = _by_id(registry, name, rows, path) if by_id else _by_collection(registry, name, rows, given, path)
    return named.select(*dict.fromkeys((*given, *required)), "dataset", "row").cast({"dataset": pl.Int64})


def _by_id(registry: Snapshot, name: str, rows: pl.DataFrame, path: Path) -> pl.DataFrame:
    ids = pl.Series("id", [_uuid_bytes(text) for text in rows[_ID]], dtype=pl.Binary)
    rows = rows.drop(_ID, _COLLECTION).with_columns(ids)
    if (bad := rows.filter(pl.col("id").is_null())).height:
        raise _not_there(path, bad["row"], "the dataset_id (it is no uuid)", "copy the whole id")
    rows = rows.join(registry.known(ids.unique()), on="id", how="left", maintain_order="left")
    if (bad := rows.filter(pl.col("dataset").is_null())).height:
        todo = "check the id: loadmaster query-datasets shows those that exist with --json"
        raise _not_there(path, bad["row"], f"dataset {UUID(bytes=bad['id'][0])}", todo)
    if (bad := rows.filter(pl.col(_TYPE) != name)).height:
        raise PlanError(
            what=f"an override of {name!r} names a dataset of type {bad[_TYPE][0]!r}",
            where=f"{path}, row {bad['row'][0]}",
            why="a task that reads the one cannot be given the other",
            todo=f"name a dataset of type {name!r}",
        )
    found = registry.data_ids(name, rows["dataset"])
    both = rows.join(found, on="dataset", how="left", maintain_order="left", suffix="\x00")
    for d in found.columns:
        if f"{d}\x00" in both.columns and (bad := both.filter(pl.col(d) != pl.col(f"{d}\x00"))).height:
            raise PlanError(
                what=f"an override of {name!r} for {d} {bad[d][0]} names a dataset of {d} {bad[f'{d}' + chr(0)][0]}",
                where=f"{path}, row {bad['row'][0]}",
                why=f"the data ID of dataset {UUID(bytes=bad['id'][0])} says so",
                todo="name the dataset that was meant, or leave the dimension out",
            )
    return both


def _uuid_bytes(text: str) -> bytes | None:
    try:
        return UUID(text).bytes
    except ValueError:
        return None


def _by_collection(
    registry: Snapshot, name: str, rows: pl.DataFrame, given: Sequence[str], path: Path
) -> pl.DataFrame:
    """Find the datasets of the collections whose data IDs agree with the rows; one that has none is refused."""
    group = registry.dataset_type(name).dimensions
    pieces = []
    for (collection,), part in rows.partition_by(_COLLECTION, as_dict=True, maintain_order=True).items():
        try:
            found = registry.calibrations(name, [str(collection)])
        except NotFound as error:
            raise _not_there(path, part["row"], f"collection {collection!r}", str(error.args[3])) from None
        found = found.filter(pl.col("rank") == pl.col("rank").min().over(group.required or pl.lit(0)))
        found = found.select(*group.required, "dataset").unique()
        asked = with_implied(registry, part.drop(_ID, _COLLECTION), registry.universe.group(given))
        shared = [d for d in group.required if d in asked.columns]
        both = asked.join(found, on=shared, how="inner") if shared else asked.join(found, how="cross")
        if (lacking := part.join(both.select("row"), on="row", how="anti", maintain_order="left")).height:
            todo = f"see what it holds: loadmaster query-datasets {name} -i {collection}"
            raise _not_there(path, lacking["row"], f"{name!r} with this data ID in {collection!r}", todo)
        _check_one(
            both, [*given, *(d for d in group.required if d not in given)], name, str(collection), path
        )
        pieces.append(both.select(*dict.fromkeys((*given, *group.required)), "dataset", "row"))
    return pl.concat(pieces)


def _check_one(both: pl.DataFrame, keys: Sequence[str], name: str, collection: str, path: Path) -> None:
    several = both.filter(pl.col("dataset").n_unique().over("row", *keys) > 1)
    if several.height:
        raise PlanError(
            what=f"collection {collection!r} holds several {name!r} with one data ID",
            where=f"{path}, row {several['row'][0]}; {several.select(keys).row(0, named=True)}",
            why="they are valid at different times, and an override is for whatever time",
            todo="name the one by its dataset_id",
        )


def _not_there(path: Path, rows: pl.Series, what: str, todo: str) -> PlanError:
    shown = ", ".join(map(str, rows.head(_SHOWN))) + (", …" if rows.len() > _SHOWN else "")
    return PlanError(
        what=f"an override names something that does not exist: {what}",
        where=f"{path}, row{'s' * (rows.len() > 1)} {shown}",
        why="the registry has no such thing",
        todo=todo,
    )


def _check_contradictions(frame: pl.DataFrame, path: Path) -> None:
    """Refuse rows that name different datasets for the same dimension values."""
    keys = [c for c in frame.columns if c not in ("dataset", "row")]
    bad = frame.filter(pl.col("dataset").n_unique().over(keys or pl.lit(0)) > 1)
    if bad.height:
        same = bad.join(bad.head(1).select(keys), on=keys, how="semi") if keys else bad
        raise PlanError(
            what="two overrides contradict each other",
            where=f"{path}, rows {' and '.join(map(str, same['row'].unique().sort()[:2]))}",
            why=f"both are about {same.select(keys).row(0, named=True)}, and they name different datasets",
            todo="leave one of them out",
        )
