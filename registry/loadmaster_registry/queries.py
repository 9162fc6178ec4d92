"""Questions to a registry that return tables: data IDs, datasets, one dataset."""

from collections.abc import Mapping, Sequence

import polars as pl

from .errors import NotFound, QueryError, did_you_mean
from .identifiers import resolve
from .records import DataId
from .relations import Constrained, Constraint, constrain
from .snapshot import Snapshot
from .store import Registry
from .universe import DimensionGroup
from .where import parse


def query_data_ids(
    registry: Registry,
    dimensions: Sequence[str],
    *,
    where: str = "",
    bind: Mapping[str, object] | None = None,
    datasets: Sequence[str] = (),
    collections: Sequence[str] = (),
    order_by: Sequence[str] = (),
    limit: int | None = None,
    rubin_circles: bool = False,
) -> pl.DataFrame:
    """Find the data IDs over `dimensions` that the records, `where` and existing `datasets` admit.

    Parameters
    ----------
    datasets : sequence of str
        Dataset types of which one must exist for each data ID, in `collections`.
    order_by : sequence of str
        Columns as in `where`; a leading ``-`` means descending. By the data IDs themselves by default.
    rubin_circles : bool
        Give CIRCLE twice the radius that is written, as Rubin's code does at present.

    Returns
    -------
    data_ids : polars.DataFrame
        Required, then implied dimensions.

    Raises
    ------
    QueryError
        If `where` cannot be understood.
    """
    group = registry.universe.group(dimensions)
    with registry.snapshot() as now:
        constraints = _existing(now, datasets, collections)
        found = _matching(now, group, where, bind, constraints, rubin_circles=rubin_circles)
        return _ordered(now, found.rows.data_ids(group.names), group, order_by, limit)


def query_datasets(
    registry: Registry,
    dataset_type: str,
    collections: Sequence[str],
    *,
    where: str = "",
    bind: Mapping[str, object] | None = None,
    find_first: bool = True,
) -> pl.DataFrame:
    """Find the datasets of one type; with `find_first` the first one in search order for each data ID.

    Returns
    -------
    datasets : polars.DataFrame
        Required dimensions, then ``id`` (16 bytes), ``run``, ``url``, ``size_bytes``, ``checksum``.
    """
    with registry.snapshot() as now:
        group = now.dataset_type(dataset_type).dimensions
        keys = list(group.required)
        found = now.datasets(dataset_type, collections, find_first=find_first)
        if where:
            admitted = _matching(now, group, where, bind, [Constraint(dataset_type, found.select(keys))])
            ids = admitted.rows.data_ids(keys)
            found = found.join(ids, on=keys, how="semi") if keys else (found if ids.height else found.clear())
        files = now.files(found["dataset"])
    return found.join(files, on="dataset", how="left").sort(*group.required, "rank").drop("dataset", "rank")


def find_dataset(
    registry: Registry, dataset_type: str, data_id: DataId, collections: Sequence[str]
) -> pl.DataFrame:
    """Find the one dataset of a type and data ID that comes first in `collections`: a frame of one row.

    Dimensions that `data_id` leaves out may be implied by those it gives.

    Raises
    ------
    NotFound
        If there is none.
    QueryError
        If the data ID does not say which of several is meant, or names something unknown.
    """
    with registry.snapshot() as now:
        group = now.dataset_type(dataset_type).dimensions
        whole = _completed(now, group, data_id)
        keep = {d: [v] for d, v in whole.items() if d in group.required}
        found = now.datasets(dataset_type, collections, keep=keep)
        files = now.files(found["dataset"])
    if found.height > 1:
        raise QueryError(
            what=f"{found.height} datasets {dataset_type!r} match {dict(data_id)}",
            where=", ".join(collections),
            why=f"the data ID lacks {', '.join(d for d in group.required if d not in whole)}",
            todo="give a value for each",
        )
    if not found.height:
        raise NotFound(
            what=f"there is no {dataset_type!r} with {dict(data_id)}",
            where=", ".join(collections),
            why="no collection of the search path holds it",
            todo=f"see what there is: loadmaster query-datasets {dataset_type}",
        )
    return found.join(files, on="dataset").drop("rank")


def _matching(
    registry: Snapshot,
    group: DimensionGroup,
    where: str,
    bind: Mapping[str, object] | None = None,
    constraints: Sequence[Constraint] = (),
    *,
    rubin_circles: bool = False,
) -> Constrained:
    """Find what `where` and `constraints` admit over `group`."""
    universe = registry.universe
    predicates = parse(where, universe=universe, bind=bind, dimensions=group, rubin_circles=rubin_circles)
    return constrain(registry, group, predicates, constraints)


def _existing(
    registry: Snapshot, dataset_types: Sequence[str], collections: Sequence[str]
) -> list[Constraint]:
    """Return for each dataset type the data IDs for which `collections` hold one."""
    constraints = []
    for name in dataset_types:
        required = registry.dataset_type(name).dimensions.required
        found = registry.datasets(name, collections)
        constraints.append(Constraint(f"existing {name} in {', '.join(collections)}", found.select(required)))
    return constraints


def _completed(registry: Snapshot, group: DimensionGroup, data_id: DataId) -> dict[str, int | str]:
    """Check a data ID's names and add what its own records imply."""
    for name in data_id:
        if name not in registry.universe or not registry.universe[name].is_dimension:
            raise QueryError(
                what=f"there is no dimension {name!r}",
                where=f"data ID {dict(data_id)}",
                why="data IDs are made of dimensions",
                todo=did_you_mean(name, registry.universe.dimensions),
            )
    whole = dict(data_id)
    missing = [d for d in group.required if d not in whole]
    for name in registry.universe.ordered(data_id):
        element = registry.universe[name]
        if set(missing) & set(element.implied) and set(element.required) <= set(whole):
            record = registry.records(name, {d: [whole[d]] for d in element.required})
            whole |= {d: record[d][0] for d in element.implied if record.height and d not in whole}
    return whole


def _ordered(
    registry: Snapshot, frame: pl.DataFrame, group: DimensionGroup, order_by: Sequence[str], limit: int | None
) -> pl.DataFrame:
    order = []
    for text in order_by:
        name, descending = text.removeprefix("-"), text.startswith("-")
        frame, column = _order_column(registry, frame, group, name)
        order.append((column, descending))
    if order:
        by, descending_by = [c for c, _ in order], [d for _, d in order]
        frame = frame.sort(by, descending=descending_by, nulls_last=True, maintain_order=True)
    frame = frame.select(group.names)
    return frame if limit is None else frame.head(limit)


def _order_column(
    registry: Snapshot, frame: pl.DataFrame, group: DimensionGroup, name: str
) -> tuple[pl.DataFrame, str]:
    """Attach the column that `name` stands for (``visit.exposure_time``, ``visit.timespan.begin``, ``visit``)."""
    field = resolve(name, registry.universe, group)
    column = field.columns[0]  # a time span is ordered by its begin
    if column in frame.columns:
        return frame, column
    keys = list(registry.universe[field.element].required)
    if not set(keys) <= set(group.names):
        raise QueryError(
            what=f"cannot order by {name!r}",
            where=f"order_by of a query for {group}",
            why=f"{field.element} is no part of the data IDs that are asked for",
            todo=f"order by something of {', '.join(group.names)}, or ask for {field.element} too",
        )
    records = registry.records(field.element).select(*keys, pl.col(column.rsplit(".", 1)[-1]).alias(column))
    return frame.join(records, on=keys, how="left"), column
