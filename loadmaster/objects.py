"""One object at a time: written to the backbone and registered, found and read."""

import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import UUID, uuid4

import polars as pl
from loadmaster_pipelines import storage
from loadmaster_pipelines.connections import FileFormat
from loadmaster_pipelines.file_provenance import FileProvenance
from loadmaster_pipelines.format_file import FormatRules, check_holds, read_format_rules
from loadmaster_pipelines.formats import Recipe
from loadmaster_registry.errors import Conflict, NotFound, RegistryError, StageError, did_you_mean
from loadmaster_registry.names import dataset_path
from loadmaster_registry.records import Collection, CollectionType, DataId, DatasetRef, DatasetType
from loadmaster_registry.store import Registry
from loadmaster_registry.transaction import Transaction
from loadmaster_staging.backbone import Backbone, NameTaken
from loadmaster_staging.location import local_path, staged
from loadmaster_staging.manifest import StagedFile
from loadmaster_staging.shards import piece_of
from loadmaster_staging.stage import WrittenFile, stage_out

from .cache import SiteCache, file_of, site_cache


class Objects:
    """Objects of a repository.

    Parameters
    ----------
    formats : sequence of paths
        Files that say in which formats datasets are written.
    """

    def __init__(self, registry: Registry, backbone: Backbone, formats: Sequence[Path]) -> None:
        self._registry = registry
        self._backbone = backbone
        self._formats = formats

    @cached_property
    def rules(self) -> FormatRules:
        """What the formats files say."""
        return read_format_rules(self._formats)

    @cached_property
    def _cache(self) -> SiteCache | None:
        """The site's cache, through which datasets that are elsewhere come, if there is one."""
        return site_cache()

    def put(self, obj: Any, dataset_type: DatasetType, data_id: DataId, run: str) -> DatasetRef:
        """Write `obj` to the backbone, and register it, its type and `run` in one transaction.

        If the process is killed just before the end of the transaction, files stay without being registered.
        The same call again takes them for its own if the bytes are the same.

        Raises
        ------
        Conflict
            If `run` has such a dataset already.
        StageError
            If `obj` cannot be written as the type's storage class, or other bytes stand at its place.
        """
        values = _required_values(dataset_type, data_id)
        self._refuse_another(dataset_type, values, run)
        formats = self._formats_of(dataset_type)
        paths = {
            part: dataset_path(run, dataset_type.name, values, one.extension) for part, one in formats.items()
        }
        order = _Order(dataset_type, values, run, self._id_for(run, dataset_type, paths[""]), formats, paths)
        staging = self._backbone.staging_url(run, f"put-{order.id.hex}")
        try:
            with TemporaryDirectory(prefix="loadmaster-") as folder:
                type_ = self.rules.classes.get(dataset_type.storage_class, "")
                made = stage_out(order.written(obj, Path(folder), type_), staging)
            files = {file.part: file for file in made}
            self._register(order, staging, files)
        except BaseException:
            with suppress(StageError):  # what is told is why it failed
                self._remove_staged(staging)
            raise
        self._remove_staged(staging)
        own = files[""]
        return DatasetRef(
            order.id,
            dataset_type.name,
            tuple(values.values()),
            run,
            own.size_bytes,
            paths[""],
            own.checksum,
        )

    def get(self, found: DatasetRef, component: str | None, parameters: Mapping[str, Any], part: str) -> Any:
        """Read a dataset, or a part of it, as the storage class of its type says.

        Where the file lies on a file system only what is asked for is read; from elsewhere it is fetched first.

        Parameters
        ----------
        part : str
            Name of the format that is read, of several in which the dataset is; "" for the first.
        """
        storage_class = self._registry.dataset_type(found.type).storage_class
        url = self._backbone.url(self._part_url(found, part) if part else found.url)
        asked: dict[str, Any] = {
            "type_": self.rules.classes.get(storage_class, ""),
            "component": component,
            "parameters": parameters,
        }
        path = local_path(url)
        if path is not None and piece_of(url) is None:
            return storage.read(storage_class, Path(path), **asked)
        with TemporaryDirectory(prefix="loadmaster-") as folder:
            copy = Path(folder) / url.partition("#")[0].rsplit("/", 1)[-1]
            cached = None if part or self._cache is None else self._cache.path(file_of(found, url))
            if cached is not None:
                copy.symlink_to(cached)
            else:
                with self._backbone.open(url) as reader, open(copy, "wb") as writer:
                    shutil.copyfileobj(reader, writer)
            return storage.read(storage_class, copy, **asked)

    def _part_url(self, found: DatasetRef, part: str) -> str:
        with self._registry.snapshot() as now:
            there = now.parts(now.known(pl.Series([found.id.bytes], dtype=pl.Binary))["dataset"])
        if part not in there["name"]:
            raise NotFound(
                what=f"there is no {part!r} of this dataset",
                where=f"{found.type} {found.id}",
                why="it was not written in this format" if there.height else "it is one file",
                todo=did_you_mean(part, there["name"]),
            )
        return str(there.row(by_predicate=pl.col("name") == part, named=True)["url"])

    def _formats_of(self, dataset_type: DatasetType) -> dict[str, FileFormat]:
        """Return the formats in which a dataset is written; "" is its own."""
        name = dataset_type.storage_class
        found = self.rules.formats(dataset_type.name, name)
        if not found:
            return {"": FileFormat("", storage.extension_of(name))}
        type_, rule = self.rules.python_type(name), self.rules.rule(dataset_type.name)
        if type_ and rule:
            check_holds(type_, found, f"dataset type {dataset_type.name!r}", self.rules.places[rule])
        return {"": found[0], **{one.name: one for one in found[1:]}}

    def _id_for(self, run: str, dataset_type: DatasetType, path: str) -> UUID:
        """Return a new id, or the one that the file of an interrupted call carries."""
        left = local_path(self._backbone.url(path))
        if left is not None and left.exists():
            with suppress(StageError):
                told = storage.read_provenance(left)
                if told is not None and (told.run, told.dataset_type) == (run, dataset_type.name):
                    return UUID(told.id)
        return uuid4()

    def _register(self, order: "_Order", staging: str, files: Mapping[str, StagedFile]) -> None:
        """Publish the files and register them, all or none."""
        own = files[""]
        facts = {
            "id": order.id.bytes,
            "url": order.paths[""],
            "size_bytes": own.size_bytes,
            "checksum": own.checksum,
            "content": own.content or None,
        }
        others = [
            {
                "id": order.id.bytes,
                "name": part,
                "url": order.paths[part],
                "size_bytes": file.size_bytes,
                "checksum": file.checksum,
                "content": file.content or None,
            }
            for part, file in files.items()
            if part
        ]
        with self._registry.transaction() as transaction:  # one at a time: nobody else publishes meanwhile
            transaction.register_dataset_type(order.dataset_type)
            with_collection(transaction, order.run, CollectionType.RUN)
            transaction.insert_datasets(
                order.dataset_type.name,
                order.run,
                pl.DataFrame([{**order.values, **facts}]),
                pl.DataFrame(others) if others else None,
            )
            for part, file in files.items():
                self._publish(staged(staging, file.name), order.paths[part], file.checksum)

    def _publish(self, staged_url: str, path: str, checksum: str) -> None:
        try:
            self._backbone.publish(staged_url, path)
        except NameTaken:  # by what an interrupted call left, perhaps
            if self._backbone.measure(path).checksum != checksum:
                raise

    def _remove_staged(self, staging: str) -> None:
        for name in self._backbone.names_staged_by(staging):
            self._backbone.remove_staged(staged(staging, name))

    def _refuse_another(self, dataset_type: DatasetType, values: DataId, run: str) -> None:
        try:
            keep = {dimension: [value] for dimension, value in values.items()}
            found = self._registry.datasets(dataset_type.name, [run], keep=keep)
        except NotFound:  # the type or the run is new
            return
        if found.height:
            there = self._registry.files(found["dataset"])
            raise Conflict(
                what=f"{run!r} has a {dataset_type.name!r} with {dict(values)} already",
                where=there["url"][0] or f"run {run!r}",
                why=f"its id is {UUID(bytes=there['id'][0])}; nothing is ever overwritten",
                todo="put it into another run",
            )


@dataclass(frozen=True, slots=True)
class _Order:
    """What is put where."""

    dataset_type: DatasetType
    values: Mapping[str, int | str]
    run: str
    id: UUID
    formats: Mapping[str, FileFormat]  # "" is the dataset's own
    paths: Mapping[str, str]  # below the backbone's root, of each format

    def written(self, obj: Any, folder: Path, type_: str) -> list[WrittenFile]:
        """Write all files into a folder."""
        told = FileProvenance(str(self.id), self.run, self.dataset_type.name, self.values)
        files = []
        for part, path in self.paths.items():
            place = folder / path.rsplit("/", 1)[-1]
            recipe = Recipe(self.formats[part].options, told)
            content = storage.write(obj, self.dataset_type.storage_class, place, type_=type_, recipe=recipe)
            files.append(WrittenFile(str(self.id), place, part, content))
        return files


def with_collection(transaction: Transaction, name: str, type: CollectionType) -> None:
    """Make sure that the collection `name` exists; one that is there stays as it is."""
    try:
        transaction.collection(name)
    except NotFound:
        transaction.register_collection(Collection(name, type))


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
