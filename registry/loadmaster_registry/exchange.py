"""Rubin's export files into a registry and out of it: all is read and checked before anything is written."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import polars as pl

from .export import Export, read_export
from .store import Registry
from .transaction import Transaction

__all__ = ["Export", "ImportCounts", "import_export", "read_export"]


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
        Folder or URL below which the files are; without it the folder of the export. A path in the export that is
        absolute, or a URL, stands for itself.

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
            datasets=sum(
                transaction.insert_datasets(d.dataset_type, d.run, _with_urls(d.rows, root))
                for d in export.datasets
            ),
            tags=sum(transaction.associate(name, ids) for name, ids in export.tags),
            ranges=_certified(transaction, export),
        )


def _with_urls(rows: pl.DataFrame, root: str) -> pl.DataFrame:
    url = pl.col("url")
    whole = url.str.starts_with("/") | url.str.contains("^[A-Za-z][A-Za-z0-9+.-]*://")
    return rows.with_columns(
        pl.when(whole).then(url).otherwise(pl.lit(root.rstrip("/") + "/") + url).alias("url")
    )


def _certified(transaction: Transaction, export: Export) -> int:
    types = {UUID(bytes=id): d.dataset_type for d in export.datasets for id in d.rows.get_column("id")}
    added = 0
    for collection, timespan, ids in export.ranges:
        by_type: dict[str, list[UUID]] = {}
        for id in ids:
            by_type.setdefault(types.get(id) or transaction.find(id).type, []).append(id)
        added += sum(transaction.certify(collection, name, some, timespan) for name, some in by_type.items())
    return added
