"""One object at a time: written to the backbone and registered, found and read."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import UUID, uuid4

import polars as pl
from loadmaster_pipelines import storage
from loadmaster_registry.errors import Conflict, NotFound, RegistryError, did_you_mean
from loadmaster_registry.names import dataset_path
from loadmaster_registry.records import Collection, CollectionType, DataId, DatasetRef, DatasetType
from loadmaster_registry.store import Registry
from loadmaster_registry.transaction import Transaction
from loadmaster_staging.backbone import Backbone, NameTaken
from loadmaster_staging.location import join, local_path, remote
from loadmaster_staging.stage import WrittenFile, stage_out


def put_object(
    registry: Registry, backbone: Backbone, obj: Any, dataset_type: DatasetType, data_id: DataId, run: str
) -> DatasetRef:
    """Write `obj` to the backbone, and register it, its type and `run` in one transaction.

    If the process is killed just before the end of the transaction, the file stays without being registered.
    The same call again takes it for its own if the bytes are the same.

    Raises
    ------
    Conflict
        If `run` has such a dataset already.
    StageError
        If `obj` cannot be written as the type's storage class, or other bytes stand at its place.
    """
    values = _required_values(dataset_type, data_id)
    _refuse_another(registry, dataset_type, values, run)
    id = uuid4()
    path = dataset_path(run, dataset_type.name, values, storage.extension_of(dataset_type.storage_class))
    staging = backbone.staging_url(run, f"put-{id.hex}")
    try:
        with TemporaryDirectory(prefix="loadmaster-") as folder:
            written = Path(folder) / path.rsplit("/", 1)[-1]
            storage.write(obj, dataset_type.storage_class, written)
            (staged,) = stage_out([WrittenFile(str(id), written)], staging)
        facts = {"id": id.bytes, "url": path, "size_bytes": staged.size_bytes, "checksum": staged.checksum}
        with registry.transaction() as transaction:  # there is one at a time: nobody else publishes meanwhile
            _insert(transaction, dataset_type, run, {**values, **facts})
            _publish(backbone, join(staging, staged.name), path, staged.checksum)
    finally:
        backbone.remove_staged(staging)
    return DatasetRef(
        id, dataset_type.name, tuple(values.values()), run, staged.size_bytes, path, staged.checksum
    )


def read_object(backbone: Backbone, url: str, storage_class: str) -> Any:
    """Read the file at `url` (relative to the backbone's root, or absolute) as a storage class."""
    url = backbone.url(url)
    path = local_path(url)
    if path is not None:
        return storage.read(storage_class, Path(path))
    with TemporaryDirectory(prefix="loadmaster-") as folder:
        copy = Path(folder) / url.rsplit("/", 1)[-1]
        files, inner = remote(url)
        files.get_file(inner, str(copy))
        return storage.read(storage_class, copy)


def with_collection(transaction: Transaction, name: str, type: CollectionType) -> None:
    """Make sure that the collection `name` exists; one that is there stays as it is."""
    try:
        transaction.collection(name)
    except NotFound:
        transaction.register_collection(Collection(name, type))


def _insert(transaction: Transaction, dataset_type: DatasetType, run: str, row: dict[str, Any]) -> None:
    transaction.register_dataset_type(dataset_type)
    with_collection(transaction, run, CollectionType.RUN)
    transaction.insert_datasets(dataset_type.name, run, pl.DataFrame([row]))


def _publish(backbone: Backbone, staged: str, path: str, checksum: str) -> None:
    try:
        backbone.publish(staged, path)
    except NameTaken:  # by what an interrupted call left, perhaps
        if backbone.measure(path).checksum != checksum:
            raise


def _required_values(dataset_type: DatasetType, data_id: DataId) -> dict[str, int | str]:
    required = dataset_type.dimensions.required
    if set(data_id) - set(dataset_type.dimensions) or set(required) - set(data_id):
        odd = next(iter(set(data_id) - set(dataset_type.dimensions)), None)
        raise RegistryError(
            what=f"{dict(data_id)} is no data ID of {dataset_type.name!r}",
            where=f"dataset type {dataset_type}",
            why=f"it has no dimension {odd!r}" if odd else f"the type needs {', '.join(required)}",
            todo=did_you_mean(odd, dataset_type.dimensions) if odd else "give a value for each",
        )
    return {dimension: data_id[dimension] for dimension in required}


def _refuse_another(registry: Registry, dataset_type: DatasetType, values: DataId, run: str) -> None:
    try:
        keep = {dimension: [value] for dimension, value in values.items()}
        found = registry.datasets(dataset_type.name, [run], keep=keep)
    except NotFound:  # the type or the run is new
        return
    if found.height:
        there = registry.files(found["dataset"])
        raise Conflict(
            what=f"{run!r} has a {dataset_type.name!r} with {dict(values)} already",
            where=there["url"][0] or f"run {run!r}",
            why=f"its id is {UUID(bytes=there['id'][0])}; nothing is ever overwritten",
            todo="put it into another run",
        )
