"""The repository as people hold it: what exists, what is asked of it, what is planned and run in it."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from uuid import UUID

import loadmaster_planner.plan as planner
import polars as pl
from loadmaster_executors.run import PLAN_NAME, RunFolder
from loadmaster_pipelines.loader import SHIPPED, load_pipeline
from loadmaster_pipelines.pipeline import Pipeline
from loadmaster_planner.planner import make_plan
from loadmaster_planner.request import Request
from loadmaster_registry import queries
from loadmaster_registry.errors import NotFound, RegistryError, did_you_mean
from loadmaster_registry.exchange import ImportCounts, import_export
from loadmaster_registry.records import CollectionType, DataId, DatasetRef, DatasetType
from loadmaster_registry.skymap import load_sky_map
from loadmaster_registry.store import Registry
from loadmaster_registry.times import instant_ns, written_ns
from loadmaster_registry.timespan import MAX_NS, MIN_NS, Timespan
from loadmaster_registry.universe import Universe, load_universe
from loadmaster_staging.backbone import Backbone
from loadmaster_staging.ingest import IngestReport, Mode, OnError, ingest
from loadmaster_staging.instrument import load_instrument

from .config import REPOSITORY_FILE, Site, read_repository, read_site, write_repository
from .objects import put_object, read_object, with_collection
from .plan import Plan
from .run import Run
from .submit import begin_run, request_digest, run_folders, unfinished_run

SKYMAPS = "skymaps"  # the run that holds the sky maps as datasets, as in Rubin's repositories
Collections = str | Sequence[str]  # one name, or several in search order
Instant = Any  # str, datetime, astropy Time, or None: Astropy has no types


class Repo:
    """A repository, opened by its folder or its alias; a context manager that closes it.

    Parameters
    ----------
    name : str or Path
        The folder with ``loadmaster.yaml``, or an alias.
    """

    def __init__(self, name: str | Path = ".") -> None:
        self.place = read_repository(name)
        self.registry = Registry.open(self.place.registry)
        self.backbone = Backbone(self.place.backbone)

    @classmethod
    def init(cls, folder: str | Path, *, universe_extensions: Sequence[str | Path] = ()) -> Self:
        """Make a new repository in `folder`, which is created where it does not exist, and open it.

        Parameters
        ----------
        universe_extensions : sequence of paths
            YAML files with dimension elements beside Rubin's.

        Raises
        ------
        RegistryError
            If `folder` holds a repository already.
        """
        folder = Path(folder).expanduser()
        universe = load_universe(*universe_extensions)
        if (folder / REPOSITORY_FILE).exists():
            raise RegistryError(
                what=f"{str(folder)!r} is a repository already",
                where=str(folder.resolve()),
                why=f"there is a {REPOSITORY_FILE}",
                todo="use it as it is, or choose another folder",
            )
        (folder / "files").mkdir(parents=True, exist_ok=True)
        _begin_registry(folder.resolve() / "registry.sqlite3", universe)
        write_repository(folder, "registry.sqlite3", "files")  # last: it makes the folder a repository
        return cls(folder)

    def close(self) -> None:
        """Let go of the registry."""
        self.registry.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Repo({str(self.place.folder)!r})"

    def import_file(self, *files: str | Path, file_root: str | None = None) -> list[ImportCounts]:
        """Load Rubin export files (YAML, plain or compressed), each in one transaction.

        Parameters
        ----------
        file_root : str, optional
            Where the datasets' files are; beside each export file by default.

        Returns
        -------
        counts : list of ImportCounts
            What was new, file by file.
        """
        return [import_export(self.registry, file, file_root=file_root) for file in files]

    def ingest(
        self,
        instrument: str | Path,
        files: Sequence[str | Path],
        *,
        run: str | None = None,
        mode: Mode = "copy",
        on_error: OnError = "stop",
    ) -> IngestReport:
        """Take raw frames into the repository, with their exposures, visits and regions; the same again is a no-op.

        Parameters
        ----------
        instrument : str or Path
            Its YAML file (see `loadmaster_staging.instrument`), or the name of a shipped one.
        files : sequence of paths
            Files, and folders in which the instrument's pattern finds files.
        run : str, optional
            RUN collection that gets the frames; ``INSTRUMENT/raw/all`` by default.
        mode : {"copy", "link", "direct"}
            Whether files are copied, hard-linked, or left where they are.
        on_error : {"stop", "skip"}
            Whether a file that cannot be taken ends the ingest, or is told in the report.

        Raises
        ------
        StageError
            If a file cannot be read or understood.
        Conflict
            If a frame is there already with other bytes, or a record with other values.
        """
        described = load_instrument(_shipped("instruments", instrument), self.registry.universe)
        return ingest(self.registry, self.backbone, described, files, mode=mode, run=run, on_error=on_error)

    def register_skymap(self, description: str | Path) -> DatasetRef:
        """Register a sky map with its tracts and patches, and store it as the dataset ``skyMap``.

        The same again changes nothing.

        Parameters
        ----------
        description : str or Path
            A YAML file (see `loadmaster_registry.skymap`), or the name of a shipped one.

        Returns
        -------
        dataset : DatasetRef
            In the run ``skymaps``; tasks can take it as an input.

        Raises
        ------
        Conflict
            If another sky map of this name is registered.
        """
        sky_map = load_sky_map(_shipped("skymaps", description))
        with self.registry.transaction() as transaction:
            for element, rows in sky_map.records().items():
                transaction.insert_records(element, rows)
        try:
            return self.find_dataset("skyMap", collections=SKYMAPS, skymap=sky_map.name)
        except NotFound:
            return self.put(
                sky_map,
                "skyMap",
                run=SKYMAPS,
                dimensions=["skymap"],
                storage_class="SkyMap",
                skymap=sky_map.name,
            )

    def certify(
        self,
        collection: str,
        dataset_type: str,
        *,
        inputs: Collections,
        begin: Instant = None,
        end: Instant = None,
        where: str = "",
        bind: Mapping[str, object] | None = None,
    ) -> int:
        """Give the datasets of a type that `inputs` hold a range of validity in a CALIBRATION collection.

        Parameters
        ----------
        collection : str
            Made where it does not exist.
        begin, end : str, datetime, astropy Time or None
            First instant, and the first one after; None is unbounded. Text as in `where`: ISO is UTC.

        Returns
        -------
        n_new : int
            How many were not valid in all of the range already.

        Raises
        ------
        Conflict
            If another dataset is valid for the same data ID at some instant of the range.
        NotFound
            If there is no such dataset.
        """
        found = self.query_datasets(dataset_type, inputs, where=where, bind=bind)
        if not found.height:
            raise NotFound(
                what=f"there is no {dataset_type!r} to certify",
                where=", ".join(_names(inputs)) + (f" where {where}" if where else ""),
                why="the search found nothing",
                todo=f"see what there is: loadmaster query-datasets {dataset_type} -i '…'",
            )
        timespan = Timespan(_instant_ns(begin, MIN_NS), _instant_ns(end, MAX_NS))
        with self.registry.transaction() as transaction:
            with_collection(transaction, collection, CollectionType.CALIBRATION)
            return transaction.certify(
                collection, dataset_type, [UUID(bytes=b) for b in found["id"]], timespan
            )

    def put(
        self,
        obj: Any,
        dataset_type: str,
        data_id: DataId | None = None,
        /,
        *,
        run: str,
        dimensions: Sequence[str] | None = None,
        storage_class: str | None = None,
        is_calibration: bool = False,
        **values: int | str,
    ) -> DatasetRef:
        """Store one object as a dataset: on the backbone and in the registry, or not at all.

        Parameters
        ----------
        dataset_type : str
            Name. A new type is registered if `dimensions` and `storage_class` are given; only with
            `is_calibration` can its datasets be certified.
        run : str
            RUN collection, made where it does not exist.
        data_id, **values
            A value for each dimension of the type.

        Raises
        ------
        Conflict
            If the run has such a dataset already: nothing is ever overwritten.
        """
        type = self._type(dataset_type, dimensions, storage_class, is_calibration)
        return put_object(self.registry, self.backbone, obj, type, {**(data_id or {}), **values}, run)

    def get(
        self,
        dataset_type: str,
        data_id: DataId | None = None,
        /,
        *,
        collections: Collections,
        **values: int | str,
    ) -> Any:
        """Read the dataset that comes first in `collections`; see `find_dataset`."""
        found = self.find_dataset(dataset_type, data_id, collections=collections, **values)
        return read_object(self.backbone, found.url, self.registry.dataset_type(dataset_type).storage_class)

    def find_dataset(
        self,
        dataset_type: str,
        data_id: DataId | None = None,
        /,
        *,
        collections: Collections,
        **values: int | str,
    ) -> DatasetRef:
        """Find the dataset that comes first in `collections`.

        Parameters
        ----------
        data_id, **values
            Values of the type's dimensions, or of others that imply them.

        Raises
        ------
        NotFound
            If there is none.
        QueryError
            If the data ID does not say which of several is meant.
        """
        whole = {**(data_id or {}), **values}
        found = queries.find_dataset(self.registry, dataset_type, whole, _names(collections))
        return self.registry.find(UUID(bytes=found["id"][0]))

    def query_data_ids(
        self,
        dimensions: Collections,
        *,
        where: str = "",
        bind: Mapping[str, object] | None = None,
        datasets: Collections = (),
        collections: Collections = (),
        order_by: Collections = (),
        limit: int | None = None,
    ) -> pl.DataFrame:
        """Find the data IDs over `dimensions`; see `loadmaster_registry.queries.query_data_ids`."""
        return queries.query_data_ids(
            self.registry,
            _names(dimensions),
            where=where,
            bind=bind,
            datasets=_names(datasets),
            collections=_names(collections),
            order_by=_names(order_by),
            limit=limit,
        )

    def query_datasets(
        self,
        dataset_type: str,
        collections: Collections,
        *,
        where: str = "",
        bind: Mapping[str, object] | None = None,
        find_first: bool = True,
        limit: int | None = None,
    ) -> pl.DataFrame:
        """Find the datasets of one type; see `loadmaster_registry.queries.query_datasets`."""
        found = queries.query_datasets(
            self.registry, dataset_type, _names(collections), where=where, bind=bind, find_first=find_first
        )
        return found if limit is None else found.head(limit)

    def query_collections(self, glob: str = "*") -> pl.DataFrame:
        """List the collections whose name matches: ``name``, ``type``, ``children`` (of chains), ``doc``."""
        found = self.registry.collections(glob)
        return pl.DataFrame(
            {
                "name": [c.name for c in found],
                "type": [c.type.value for c in found],
                "children": [list(c.children) for c in found],
                "doc": [c.doc for c in found],
            },
            schema={"name": pl.String, "type": pl.String, "children": pl.List(pl.String), "doc": pl.String},
        )

    def query_dimension_records(
        self,
        element: str,
        *,
        where: str = "",
        bind: Mapping[str, object] | None = None,
        limit: int | None = None,
    ) -> pl.DataFrame:
        """List the records of one dimension element: keys, what they imply, metadata, region, time span."""
        records = self.registry.records(element)
        if where:
            keys = list(self.registry.universe[element].required)
            admitted = self.query_data_ids(keys, where=where, bind=bind)
            records = records.join(admitted.select(keys).unique(), on=keys, how="semi", maintain_order="left")
        return records if limit is None else records.head(limit)

    def plan(
        self,
        pipeline: str | Path | Pipeline,
        *,
        inputs: Collections,
        output: str,
        where: str = "",
        bind: Mapping[str, object] | None = None,
        output_run: str | None = None,
        select: str | None = None,
        config: Sequence[str] = (),
        trusted: bool = False,
    ) -> Plan:
        """Plan what a pipeline will do; nothing is written.

        Parameters
        ----------
        pipeline : str, Path or Pipeline
            A YAML file; ``FILE#LABEL,…`` for a part of it.
        inputs : str or sequence of str
            Collections in search order.
        output : str
            CHAINED collection that will show the outputs before the inputs.
        where : str
            Which data IDs.
        bind : mapping, optional
            Values of ``:name`` in `where`.
        output_run : str, optional
            RUN for the outputs; ``output/<time>`` by default.
        select, config, trusted
            Which tasks, with what configuration; see `loadmaster_pipelines.loader.load_pipeline`.

        Raises
        ------
        PlanError
            If a prerequisite is missing or ambiguous, or an output exists already.
        PipelineError, ConfigError, QueryError
            If pipeline or `where` are not what they should be.
        """
        loaded = self._pipeline(pipeline, select, config, trusted)
        request = self._request(inputs, output, where, bind, output_run)
        return Plan(self, make_plan(self.registry, loaded, request), request_digest(loaded, request))

    def open_plan(self, path: str | Path) -> Plan:
        """Open a plan that was written to a file."""
        return Plan(self, planner.Plan.open(path))

    def submit(
        self, plan: Plan, *, site: str = "local", jobs: int | None = None, rebase: bool = False
    ) -> Run:
        """Start a run of a plan; where that was done already, go on with it.

        Parameters
        ----------
        site : str
            Where jobs run: the name of a shipped site, or a YAML file.
        jobs : int, optional
            How many at once, instead of the site's own number.
        rebase : bool
            Older runs of the output were made from other inputs, and this is wanted.

        Returns
        -------
        run : Run
            Local jobs begin when it is waited for.

        Raises
        ------
        PlanError
            If there is nothing to run.
        RunError
            If tasks of the plan cannot be run.
        Conflict
            If older runs of the output were made from other inputs.
        """
        where = _site(site, jobs)
        folder, is_new = begin_run(
            self.registry, self.place.runs, plan.planned, plan.request_digest, rebase=rebase
        )
        return Run(self.registry, self.backbone, folder, where, is_resumed=not is_new)

    def run(
        self,
        pipeline: str | Path | Pipeline,
        *,
        inputs: Collections,
        output: str,
        where: str = "",
        bind: Mapping[str, object] | None = None,
        output_run: str | None = None,
        select: str | None = None,
        config: Sequence[str] = (),
        trusted: bool = False,
        site: str = "local",
        jobs: int | None = None,
        rebase: bool = False,
    ) -> Run:
        """Plan and submit; or, where a run of the same request was interrupted or had failures, go on.

        The same request means the same pipeline, configuration, code, inputs, `where` and output. See `plan`
        and `submit` for the parameters; `Run.is_resumed` says which it was.
        """
        loaded = self._pipeline(pipeline, select, config, trusted)
        request = self._request(inputs, output, where, bind, output_run)
        digest = request_digest(loaded, request)
        begun = unfinished_run(self.place.runs, digest, output_run)
        if begun is not None:
            plan = Plan(self, planner.Plan.open(begun / PLAN_NAME), digest)
            return self.submit(plan, site=site, jobs=jobs, rebase=rebase)
        plan = Plan(self, make_plan(self.registry, loaded, request), digest)
        return self.submit(plan, site=site, jobs=jobs, rebase=rebase)

    def runs(self) -> list[Run]:
        """Return all runs that were begun here, the oldest first."""
        return [self._run(folder, read_site("local")) for folder in run_folders(self.place.runs)]

    def open_run(self, name: str, *, site: str = "local", jobs: int | None = None) -> Run:
        """Return a run by its name, or the newest run of an output collection.

        Raises
        ------
        NotFound
            If there is none.
        """
        folders = {
            folder.relative_to(self.place.runs).as_posix(): folder for folder in run_folders(self.place.runs)
        }
        found = folders.get(name) or next(
            (folder for run, folder in reversed(folders.items()) if run.startswith(f"{name}/")), None
        )
        if found is None:
            raise NotFound(
                what=f"there is no run {name!r}",
                where=str(self.place.runs),
                why="neither a run nor an output collection with runs has this name",
                todo=f"see all: loadmaster status; {did_you_mean(name, folders)}",
            )
        return self._run(found, _site(site, jobs))

    def _run(self, folder: Path, site: Site) -> Run:
        return Run(self.registry, self.backbone, RunFolder.open(folder), site)

    def _request(
        self,
        inputs: Collections,
        output: str,
        where: str,
        bind: Mapping[str, object] | None,
        output_run: str | None,
    ) -> Request:
        return Request(
            inputs=_names(inputs),
            output_run=output_run or self._new_run(output),
            output=output,
            where=where,
            bind=dict(bind or {}),
        )

    def _pipeline(
        self, pipeline: str | Path | Pipeline, select: str | None, config: Sequence[str], trusted: bool
    ) -> Pipeline:
        if isinstance(pipeline, Pipeline):
            return pipeline
        universe = self.registry.universe
        return load_pipeline(pipeline, universe=universe, select=select, config=config, trusted=trusted)

    def _new_run(self, output: str) -> str:
        """Name a run after the time (UTC), with a number where two begin in one second."""
        stem = f"{output}/{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
        taken = {c.name for c in self.registry.collections(f"{stem}*")}
        names = (stem, *(f"{stem}-{number}" for number in range(2, len(taken) + 3)))
        return next(name for name in names if name not in taken)

    def _type(
        self, name: str, dimensions: Sequence[str] | None, storage_class: str | None, is_calibration: bool
    ) -> DatasetType:
        """Return the dataset type `name`: as registered, or as given; registering compares the two."""
        known = self.registry.dataset_types(name)
        if known and dimensions is None and storage_class is None:
            return known[0]
        if dimensions is None or storage_class is None:
            raise NotFound(
                what=f"there is no dataset type {name!r}",
                where=str(self.place.folder),
                why="a new type needs dimensions and a storage class",
                todo="give both (dimensions=[…], storage_class='…'), or correct the name: "
                + did_you_mean(name, (t.name for t in self.registry.dataset_types())),
            )
        return DatasetType(name, self.registry.universe.group(dimensions), storage_class, is_calibration)


def _names(names: Collections) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names)


def _shipped(kind: str, name: str | Path) -> Path:
    """Return the path of a YAML file: as given, or of the one that Loadmaster ships under this name."""
    path, shipped = Path(name), SHIPPED / kind / f"{name}.yaml"
    if path.exists() or not shipped.is_relative_to(SHIPPED):
        return path
    if shipped.is_file():
        return shipped
    raise NotFound(
        what=f"there is no file {str(name)!r}",
        where=str(path.absolute()),
        why=f"nor is one of the shipped {kind} called so",
        todo=f"correct the path; of the shipped ones: {did_you_mean(str(name), _stems(SHIPPED / kind))}",
    )


def _stems(folder: Path) -> list[str]:
    return [path.stem for path in folder.glob("*.yaml")]


def _site(name: str, jobs: int | None) -> Site:
    site = read_site(name)
    return site if jobs is None else replace(site, jobs=jobs)


def _instant_ns(instant: Instant, unbounded: int) -> int:
    if instant is None:
        return unbounded
    return written_ns(instant) if isinstance(instant, str) else instant_ns(instant)


def _begin_registry(path: Path, universe: Universe) -> None:
    """Create the registry, or take the one that an interrupted `Repo.init` left."""
    try:
        Registry.create(str(path), universe).close()
    except RegistryError:
        with Registry.open(str(path)) as left:
            if left.universe != universe or left.collections() or left.dataset_types():
                raise
