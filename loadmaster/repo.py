"""The repository as people hold it: what exists, what is asked of it, what is planned and run in it."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self, Unpack
from uuid import UUID

import loadmaster_planner.plan as planner
import polars as pl
from loadmaster_executors.run import PLAN_NAME, RunFolder
from loadmaster_pipelines.loader import load_pipeline
from loadmaster_pipelines.pipeline import Pipeline
from loadmaster_planner.explain.absence import WhyNot, why_not
from loadmaster_planner.explain.explanation import Explanation, explain, explain_query
from loadmaster_planner.plain import clustering_to_json
from loadmaster_planner.planner import make_plan
from loadmaster_planner.request import Request
from loadmaster_registry import queries
from loadmaster_registry.errors import NotFound, did_you_mean
from loadmaster_registry.exchange import ImportCounts, import_export
from loadmaster_registry.records import CollectionType, DataId, DatasetRef, DatasetType
from loadmaster_registry.skymap import load_sky_map
from loadmaster_registry.store import Registry
from loadmaster_registry.times import instant_ns, written_ns
from loadmaster_registry.timespan import MAX_NS, MIN_NS, Timespan
from loadmaster_registry.universe import load_universe
from loadmaster_registry.where import check_where
from loadmaster_staging.backbone import Backbone
from loadmaster_staging.ingest import IngestReport, Mode, OnError, ingest
from loadmaster_staging.instrument import load_instrument

from .asking import Asked, Collections, clustering_of, format_files, names_of, request_of
from .beginning import begin_repository
from .config import Site, read_repository, read_site
from .house import House
from .metadata import check_flagged, flag_table, keys_of, metadata_rows
from .objects import Objects, with_collection
from .plan import Plan
from .run import Run
from .shipped import shipped
from .submit import begin_run, request_digest, run_folders, unfinished_run

SKYMAPS = "skymaps"  # the run that holds the sky maps as datasets, as in Rubin's repositories
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
        self.house = House(self.registry, self.backbone)
        self.objects = Objects(self.registry, self.backbone, self.place.formats)

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
        begin_repository(Path(folder).expanduser(), load_universe(*universe_extensions))
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
        described = load_instrument(shipped("instruments", instrument), self.registry.universe)
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
        sky_map = load_sky_map(shipped("skymaps", description))
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
                where=", ".join(names_of(inputs)) + (f" where {where}" if where else ""),
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
        return self.objects.put(obj, type, {**(data_id or {}), **values}, run)

    def get(
        self,
        dataset_type: str,
        data_id: DataId | None = None,
        /,
        *,
        collections: Collections,
        component: str | None = None,
        parameters: Mapping[str, Any] | None = None,
        part: str = "",
        **values: int | str,
    ) -> Any:
        """Read the dataset (or a part, see `InputHandle.get`) that comes first in `collections`; see `find_dataset`."""
        found = self.find_dataset(dataset_type, data_id, collections=collections, **values)
        return self.objects.get(found, component, parameters or {}, part)

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
        found = queries.find_dataset(self.registry, dataset_type, whole, names_of(collections))
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
            names_of(dimensions),
            where=where,
            bind=bind,
            datasets=names_of(datasets),
            collections=names_of(collections),
            order_by=names_of(order_by),
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
            self.registry, dataset_type, names_of(collections), where=where, bind=bind, find_first=find_first
        )
        return found if limit is None else found.head(limit)

    def explain_query(
        self,
        dimensions: Collections,
        *,
        where: str = "",
        bind: Mapping[str, object] | None = None,
        datasets: Collections = (),
        collections: Collections = (),
    ) -> Explanation:
        """Say what takes data IDs away from `query_data_ids`, and, where none is left, what would help.

        A query for datasets is one for the data IDs of their type, for which one exists.
        """
        return explain_query(
            self.registry,
            names_of(dimensions),
            where=where,
            bind=bind,
            datasets=names_of(datasets),
            collections=names_of(collections),
        )

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

    def plan(self, pipeline: str | Path | Pipeline, **asked: Unpack[Asked]) -> Plan:
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
            Which data IDs, everywhere in the plan.
        target : str
            Or which end products: all that they need is planned, complete.
        **asked
            And more; see `loadmaster.asking.Asked`.

        Raises
        ------
        PlanError
            If a prerequisite is missing or ambiguous, an output exists already, a restriction trims what a task
            gathers, or jobs would wait for each other.
        PipelineError, ConfigError, QueryError
            If pipeline, tables or expressions are not what they should be.
        """
        loaded, request = self._read(pipeline, asked)
        clustering = clustering_of(asked)
        planned = make_plan(self.registry, loaded, request, clustering)
        return Plan(self, planned, request_digest(loaded, request, planned.header.clustering))

    def explain(self, pipeline: str | Path | Pipeline, **asked: Unpack[Asked]) -> Explanation:
        """Say what takes data IDs away, task by task, and, where nothing is left, what would help; see `plan`."""
        return explain(self.registry, *self._read(pipeline, asked))

    def why_not(self, quantum: str, pipeline: str | Path | Pipeline, **asked: Unpack[Asked]) -> WhyNot:
        """Say what took one quantum away first, as ``warp visit=1228 tract=9813 patch=40``; see `plan`."""
        return why_not(self.registry, *self._read(pipeline, asked), quantum)

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
        return Run(
            self.registry, self.backbone, folder, where, self.place.destinations, is_resumed=not is_new
        )

    def run(
        self,
        pipeline: str | Path | Pipeline,
        *,
        site: str = "local",
        jobs: int | None = None,
        rebase: bool = False,
        **asked: Unpack[Asked],
    ) -> Run:
        """Plan and submit; or, where a run of the same request was interrupted or had failures, go on.

        The same request means the same pipeline, configuration, code, inputs, `where` and so on, and output. See
        `plan` and `submit` for the parameters; `Run.is_resumed` says which it was.
        """
        loaded, request = self._read(pipeline, asked)
        clustering = clustering_of(asked)
        digest = request_digest(loaded, request, clustering_to_json(clustering, loaded))
        begun = unfinished_run(self.place.runs, digest, asked.get("output_run"))
        if begun is not None:
            plan = Plan(self, planner.Plan.open(begun / PLAN_NAME), digest)
        else:
            plan = Plan(self, make_plan(self.registry, loaded, request, clustering), digest)
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

    def set_metadata(
        self,
        table: str | Path | pl.DataFrame,
        *,
        element: str = "",
        data_id: DataId | None = None,
        source: str = "",
    ) -> int:
        """Give observations newer values, all or none; older ones stay readable.

        Parameters
        ----------
        table : str, Path or DataFrame
            Dimensions of one element, and values: columns that its records have, or new ones, which can be used
            everywhere from then on (``visit.psf_size``). A missing value leaves what is there.
        element : str
            Whose records get the values; by default the one that has just these dimensions.
        data_id : mapping, optional
            Values of dimensions that hold for all rows of a file.
        source : str
            Where the values are from, for people; the file's name by default.

        Returns
        -------
        n_new : int
            How many values are other than before; 0 where all hold already.

        Raises
        ------
        ConfigError, RegistryError
            If the file or a column is wrong, or a record does not exist.
        """
        with self.registry.transaction() as transaction:
            name, rows = metadata_rows(transaction, table, element, data_id)
            source = source or ("a data frame" if isinstance(table, pl.DataFrame) else Path(table).name)
            return transaction.set_metadata(name, rows, loaded=_now(), source=source)

    def metadata_history(self, element: str, data_id: DataId | None = None) -> pl.DataFrame:
        """List every value that an element's records were given; see `Snapshot.metadata_history`."""
        with self.registry.snapshot() as now:
            return now.metadata_history(element, {d: [v] for d, v in (data_id or {}).items()})

    def flag(self, *data_ids: DataId, reason: str) -> int:
        """Flag observations, so that plans leave them out unless told otherwise.

        Parameters
        ----------
        *data_ids : mapping
            Each names a record: ``{"visit": 1228}``, ``{"visit": 1228, "detector": 3}``, ``{"detector": 9}``.

        Returns
        -------
        n_new : int
            0 where all are flagged for this reason already.

        Raises
        ------
        ConfigError, RegistryError
            If there is no such record.
        """
        with self.registry.transaction() as transaction:
            n_new = 0
            for element, keys in keys_of(transaction, data_ids).items():
                rows = keys.with_columns(flagged=True, flag_reason=pl.lit(reason))
                n_new += transaction.set_metadata(element, rows, loaded=_now(), source="flag")
            return n_new

    def unflag(self, *data_ids: DataId, reason: str | None = None) -> None:
        """Take the flags off some observations; the history keeps them.

        Raises
        ------
        ConfigError, RegistryError
            If there is no such record, or it has no flag.
        """
        with self.registry.transaction() as transaction:
            for element, keys in keys_of(transaction, data_ids).items():
                check_flagged(transaction, element, keys)
                rows = keys.with_columns(flagged=False, flag_reason=pl.lit(reason, dtype=pl.String))
                transaction.set_metadata(element, rows, loaded=_now(), source="unflag")

    def query_flags(self) -> pl.DataFrame:
        """List what is flagged: ``element``, ``data_id``, ``reason``, ``since``."""
        with self.registry.snapshot() as now:
            return flag_table(now)

    def check_where(
        self, where: str, *, bind: Mapping[str, object] | None = None, dimensions: Collections = ()
    ) -> None:
        """Check an expression without running it.

        Parameters
        ----------
        dimensions : str or sequence of str
            Of the query: where a field that stands alone is looked for; everywhere without them.

        Raises
        ------
        QueryError
            That points at what is wrong and says what was perhaps meant.
        """
        check_where(self.registry.universe, where, bind=bind, dimensions=names_of(dimensions))

    def _run(self, folder: Path, site: Site) -> Run:
        return Run(self.registry, self.backbone, RunFolder.open(folder), site, self.place.destinations)

    def _read(self, pipeline: str | Path | Pipeline, asked: Asked) -> tuple[Pipeline, Request]:
        if not isinstance(pipeline, Pipeline):
            pipeline = load_pipeline(
                pipeline,
                universe=self.registry.universe,
                select=asked.get("select"),
                config=asked.get("config", ()),
                trusted=asked.get("trusted", False),
                formats=format_files(asked, self.place.formats),
            )
        output_run = asked.get("output_run") or self.new_run(asked["output"])
        return pipeline, request_of(self.registry, asked, output_run)

    def new_run(self, output: str) -> str:
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


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _site(name: str, jobs: int | None) -> Site:
    site = read_site(name)
    return site if jobs is None else replace(site, jobs=jobs)


def _instant_ns(instant: Instant, unbounded: int) -> int:
    if instant is None:
        return unbounded
    return written_ns(instant) if isinstance(instant, str) else instant_ns(instant)
