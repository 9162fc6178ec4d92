"""Rubin's export files into a registry and out of it: all is read and checked before anything is written."""

import gzip
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import polars as pl

from .export import Export, RunDatasets, read_export
from .export_writer import export_text
from .records import Collection, CollectionType, DatasetType
from .snapshot import Snapshot
from .store import Registry
from .timespan import Timespan
from .transaction import Transaction

__all__ = ["Export", "ImportCounts", "import_export", "read_export", "write_export"]


@dataclass(frozen=True)
class ImportCounts:
    """What an import added; what was there already does not count."""

    records: Mapping[str, int]  # by element
    dataset_types: int
    collections: int
    datasets: int
    tags: int
    ranges: int


def import_export(registry: Registry, path: str | Path, *, file_root: str | None = None) -> ImportCounts:
    """Add the content of an export file to a registry, in one transaction; the same again adds nothing.

    Parameters
    ----------
    file_root : str, optional
        Folder or URL below which the files are; without it the folder of the export. A path in the export
        that is absolute, or a URL, stands for itself.

    Raises
    ------
    ConfigError
        If the file is not what it should be.
    Conflict, RegistryError
        If it contradicts the registry.
    """
    export = read_export(path, registry.universe, registry.dataset_types())
    root = file_root if file_root is not None else str(export.path.absolute().parent)
    with registry.transaction() as transaction:
        return ImportCounts(
            records={name: transaction.insert_records(name, rows) for name, rows in export.records.items()},
            dataset_types=sum(map(transaction.register_dataset_type, export.dataset_types)),
            collections=sum(map(transaction.register_collection, export.collections)),
            datasets=sum(_inserted(transaction, datasets, root) for datasets in export.datasets),
            tags=sum(transaction.associate(name, ids) for name, ids in export.tags),
            ranges=_certified(transaction, export),
        )


def write_export(registry: Registry, collections: Sequence[str], path: str | Path) -> None:
    """Write some collections with their datasets, and the records that these need, to an export file.

    Chains are written with all that they hold. Of a run that only tags or validity ranges lead to, just those
    datasets are written. Exposures bring their visits, visits their exposures. URLs are written as the
    registry has them: where they are relative, whoever imports the file gives the backbone's root as
    `file_root`. The file appears when it is complete; a name that ends in ``.gz`` is compressed.

    Raises
    ------
    NotFound
        If a collection does not exist.
    """
    path = Path(path)
    with registry.snapshot() as now:
        export = _gathered(now, collections, path)
    staged = path.with_name(f".{path.name}.{os.getpid()}")
    with gzip.open(staged, "wt") if path.suffix == ".gz" else open(staged, "w") as stream:
        stream.writelines(export_text(export, registry.universe))
    staged.replace(path)


def _inserted(transaction: Transaction, datasets: RunDatasets, root: str) -> int:
    url = pl.col("url")
    is_whole = url.str.contains("^(/|[A-Za-z][A-Za-z0-9+.-]*://)")
    below = pl.lit(root.rstrip("/") + "/") + url
    rows = datasets.rows.with_columns(pl.when(is_whole).then(url).otherwise(below).alias("url"))
    return transaction.insert_datasets(datasets.dataset_type, datasets.run, rows)


def _certified(transaction: Transaction, export: Export) -> int:
    types = {id: d.dataset_type for d in export.datasets for id in d.rows.get_column("id")}
    added = 0
    for collection, timespan, ids in export.ranges:
        by_type: dict[str, list[UUID]] = {}
        for id in ids:
            by_type.setdefault(types.get(id.bytes) or transaction.find(id).type, []).append(id)
        added += sum(transaction.certify(collection, name, some, timespan) for name, some in by_type.items())
    return added


def _gathered(now: Snapshot, collections: Sequence[str], path: Path) -> Export:
    """Return what there is to export of some collections."""
    members = {c.name: c for c in now.flatten(collections)}
    types = {t: found for t in now.dataset_types() if (found := _datasets(now, t, list(members)))}
    datasets = tuple(some for found in types.values() for some in found)
    runs = {d.run: now.collection(d.run) for d in datasets}
    chains = {c.name: c for c in _chains(now, collections)}
    return Export(
        path=path,
        records=_records(now, types),
        dataset_types=tuple(types),
        collections=tuple((runs | members | chains).values()),
        datasets=datasets,
        tags=tuple(_tags(now, types, members.values())),
        ranges=tuple(_ranges(now, types, members.values())),
    )


def _datasets(now: Snapshot, type: DatasetType, collections: Sequence[str]) -> list[RunDatasets]:
    found = now.datasets(type.name, collections, find_first=False).drop("rank").unique(maintain_order=True)
    rows = found.join(now.files(found.get_column("dataset")), on="dataset", maintain_order="left")
    by_run = rows.drop("dataset").partition_by("run", as_dict=True, include_key=False, maintain_order=True)
    return [RunDatasets(type.name, str(run), some) for (run,), some in by_run.items()]


def _chains(now: Snapshot, names: Sequence[str]) -> Iterator[Collection]:
    """Yield the chains among `names` and in them, each after its children."""
    for collection in map(now.collection, names):
        yield from _chains(now, collection.children)
        if collection.type is CollectionType.CHAINED:
            yield collection


def _tags(
    now: Snapshot, types: Mapping[DatasetType, object], collections: Iterable[Collection]
) -> Iterator[tuple[str, tuple[UUID, ...]]]:
    for name in (c.name for c in collections if c.type is CollectionType.TAGGED):
        for type in types:
            if ids := _ids(now, now.datasets(type.name, [name])):
                yield name, ids


def _ranges(
    now: Snapshot, types: Mapping[DatasetType, object], collections: Iterable[Collection]
) -> Iterator[tuple[str, Timespan, tuple[UUID, ...]]]:
    for name in (c.name for c in collections if c.type is CollectionType.CALIBRATION):
        for type in types:
            found = now.calibrations(type.name, [name])
            spans = found.partition_by("begin", "end", as_dict=True, maintain_order=True)
            for (begin, end), some in spans.items():
                yield name, Timespan(begin, end), _ids(now, some)


def _ids(now: Snapshot, members: pl.DataFrame) -> tuple[UUID, ...]:
    return tuple(UUID(bytes=id) for id in now.files(members.get_column("dataset")).get_column("id"))


def _records(now: Snapshot, types: Mapping[DatasetType, Sequence[RunDatasets]]) -> dict[str, pl.DataFrame]:
    """Return the records that data IDs name, those that these depend on, and those that link or join them."""
    universe = now.universe
    named: dict[str, list[pl.DataFrame]] = {}

    def note(rows: pl.DataFrame, dimensions: Iterable[str]) -> None:
        for d in dimensions:
            if universe[d].has_table:
                named.setdefault(d, []).append(rows.select(universe[d].required).unique())

    def restricted(rows: pl.DataFrame, by: Iterable[str]) -> pl.DataFrame:
        for d in by:
            if d in named:
                keys = pl.concat(named[d]).unique()
                rows = rows.join(keys, on=universe[d].required, how="semi", maintain_order="left")
        return rows

    for type, some in types.items():
        for datasets in some:
            note(datasets.rows, type.dimensions.required)
    elements = list(universe.elements.values())
    for element in (e for e in elements if e.always_join):
        for d in [d for d in element.required if d in named and not universe[d].is_governor]:
            note(restricted(now.records(element.name), [d]), element.required)
    found = {}
    for element in (e for e in reversed(elements) if e.is_dimension and e.name in named):
        found[element.name] = restricted(now.records(element.name), [element.name])
        note(found[element.name], (*element.required, *element.implied))
    for element in (e for e in elements if e.has_table and not e.is_dimension):
        if all(d in named for d in element.required):
            found[element.name] = restricted(now.records(element.name), element.required)
    return {
        name: found[name].drop(c.name for c in element.versioned)  # Rubin's records have no such columns
        for name, element in universe.elements.items()
        if name in found and found[name].height
    }
