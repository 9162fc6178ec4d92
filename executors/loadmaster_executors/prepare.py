"""From the planner's nouns to staging's: the manifest of a job, made when the job may run."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from uuid import UUID

from loadmaster_planner.plan import Plan, PlannedDataset, PlannedQuantum
from loadmaster_registry.errors import RunError
from loadmaster_registry.records import DatasetType
from loadmaster_staging.backbone import Backbone
from loadmaster_staging.checksum import Measured
from loadmaster_staging.location import join, local_path
from loadmaster_staging.manifest import (
    InputFile,
    Manifest,
    OutputFile,
    QuantumSpec,
    Staging,
    too_few_inputs,
)

from .journal import Attempt, Made
from .junk import junk_file, junk_types
from .scratch import scratch_need

_JOBS_PER_FOLDER = 1000
FindMade = Callable[[Sequence[UUID]], Mapping[UUID, Made]]  # which of some datasets came home


class Manifests:
    """Makes the manifests of one plan's jobs.

    Parameters
    ----------
    staging_url : str
        The folder for all that attempts stage.
    made : callable
        Returns which of some datasets jobs of this plan have brought home.
    site : str
        Where jobs run: they ask for what the plan says of this site, or else in general.
    """

    def __init__(
        self,
        plan: Plan,
        backbone: Backbone,
        staging_url: str,
        staging: Staging,
        made: FindMade,
        site: str = "",
    ) -> None:
        self._plan = plan
        self._backbone = backbone
        self.staging_url = staging_url
        hidden = filter(None, (local_path(backbone.root_url),))
        self._staging = replace(staging, mirrors=(), hidden=(*staging.hidden, *map(str, hidden)))
        self._mirrors = staging.mirrors
        self._made = made
        self.site = site
        self._junk_types = junk_types(plan) if staging.junk_bytes >= 0 else {}
        tasks = plan.pipeline.tasks.items()
        self._digests = {label: (node.config_digest, node.environment_digest) for label, node in tasks}

    @property
    def dataset_types(self) -> tuple[DatasetType, ...]:
        """The types of all that jobs bring home."""
        return (*self._plan.dataset_types, *self._junk_types.values())

    def of(self, attempt: Attempt) -> Manifest:
        """Return the manifest of an attempt: what came home is an input, what never will is left out."""
        planned = self._plan.job(attempt.job, self.site)
        made_here = {d.id for q in planned.quanta for files in q.outputs.values() for d in files}
        wanted = [d.id for q in planned.quanta for d in _inputs(q) if not d.exists and d.id not in made_here]
        made = self._made(wanted)
        quanta = tuple(self._quantum(quantum, made, made_here) for quantum in planned.quanta)
        return Manifest(
            run=self._plan.output_run,
            job=attempt.job,
            attempt=attempt.attempt,
            token=attempt.token,
            staging_url=self._staging_url(attempt),
            staging=self._staging,
            cpus=planned.resources.cpus,
            quanta=quanta,
            scratch_bytes=scratch_need(
                planned.resources, (file for quantum in quanta for file in quantum.inputs), self._staging
            ),
        )

    def _staging_url(self, attempt: Attempt) -> str:
        folder = f"{attempt.job // _JOBS_PER_FOLDER:06d}"
        return join(self.staging_url, folder, f"{attempt.job}.{attempt.attempt}")

    def _quantum(
        self, planned: PlannedQuantum, made: Mapping[UUID, Made], made_here: set[UUID]
    ) -> QuantumSpec:
        node = self._plan.pipeline.tasks[planned.task]
        inputs = [
            file
            for connection, datasets in planned.inputs.items()
            for dataset in datasets
            if (file := self._input(connection, dataset, made, made_here)) is not None
        ]
        outputs = [
            OutputFile(connection, str(d.id), d.dataset_type, d.data_id, d.path, d.is_elided, d.parts)
            for connection, datasets in planned.outputs.items()
            for d in datasets
        ]
        config_digest, environment_digest = self._digests[planned.task]
        return QuantumSpec(
            id=str(planned.id),
            task=planned.task,
            task_class=node.task_class,
            command=node.command,
            config=node.config,
            data_id=planned.data_id,
            connections=node.connections,
            inputs=tuple(inputs),
            outputs=tuple(outputs),
            code_digest=node.code_digest,
            config_digest=config_digest,
            environment_digest=environment_digest,
            network=node.network,
            junk=junk_file(planned, self._junk_types, self._plan.output_run) if self._junk_types else None,
            run=self._plan.output_run,
        )

    def _input(
        self, connection: str, dataset: PlannedDataset, made: Mapping[UUID, Made], made_here: set[UUID]
    ) -> InputFile | None:
        file = InputFile(
            connection, str(dataset.id), dataset.dataset_type, dataset.data_id, url="", run=dataset.run
        )
        if dataset.id in made_here:
            return file
        if dataset.exists:
            return self._located(
                file, self._backbone.url(dataset.url), Measured(dataset.size_bytes, dataset.checksum)
            )
        if dataset.id in made:
            found = made[dataset.id]
            url = self._backbone.url(found.url or dataset.path)
            return self._located(file, url, Measured(found.size_bytes, found.checksum))
        return None

    def _located(self, file: InputFile, url: str, measured: Measured) -> InputFile:
        first, *others = replicas_of(url, self._mirrors)
        return replace(
            file,
            url=first,
            size_bytes=measured.size_bytes,
            checksum=measured.checksum,
            replicas=tuple(others),
        )


def replicas_of(url: str, mirrors: Sequence[tuple[str, Sequence[str]]]) -> list[str]:
    """Return where a file is, in the order in which the places are tried.

    By the longest prefix in `mirrors` that its URL begins with: itself first, unless that prefix stands among the
    places, which then say the whole order.
    """
    found = max(
        (pair for pair in mirrors if url.startswith(pair[0])), key=lambda pair: len(pair[0]), default=None
    )
    if found is None:
        return [url]
    prefix, places = found
    order = places if prefix in places else (prefix, *places)
    return [place + url.removeprefix(prefix) for place in order]


def with_endpoints(staging: Staging, run: Path) -> Staging:
    """Return how the site stages with a place for what is known of endpoints; `run` finds it as ``endpoints``.

    All runs that share a cache share it; any other run keeps its own.
    """
    place, link = Path(staging.endpoints or join(staging.cache, "endpoints")), run / "endpoints"
    if not (staging.endpoints or staging.cache):
        return replace(staging, endpoints=str(link.absolute()))
    if not link.exists():
        link.unlink(missing_ok=True)
        link.symlink_to(place.absolute())
    return replace(staging, endpoints=str(place))


def modules_of(plan: Plan) -> tuple[str, ...]:
    """Return the Python modules that the plan's tasks live in."""
    classes = (node.task_class for node in plan.pipeline.tasks.values())
    return tuple(sorted({name.rpartition(".")[0] for name in classes if name}))


def check_runnable(plan: Plan) -> None:
    """Refuse a plan that would overwrite, has tasks for planning only, or datasets of which there is one a run.

    Raises
    ------
    RunError
        Naming all of them.
    """
    if plan.header.request.get("clobber"):
        raise RunError(
            what="the plan only says what would run if outputs that are in its way were gone",
            where=f"run {plan.output_run}",
            why="it was asked for with `clobber`, and nothing is ever overwritten",
            todo="plan without it, into a new run",
        )
    tasks = [plan.pipeline.tasks[s.label] for s in plan.summary if s.quanta]
    idle = [task.label for task in tasks if not task.runnable]
    if idle:
        raise RunError(
            what=f"{len(idle)} tasks of the plan have nothing to run",
            where=", ".join(idle[:10]),
            why="they have neither a class that can be imported nor a command",
            todo="give them a `command:`, or plan only the other tasks of the pipeline",
        )
    init = [f"{task.label}.{c.name}" for task in tasks for c in (*task.init_inputs, *task.init_outputs)]
    if init:
        raise RunError(
            what=f"{len(init)} connections are init-inputs or init-outputs, which nobody makes or reads in a run yet",
            where=", ".join(init[:10]),
            why="jobs are given what their quantum reads and writes, and these belong to no quantum",
            todo="declare them as inputs and outputs with dimensions, for instance [instrument]",
        )


def why_starved(manifest: Manifest) -> str:
    """Say why no quantum of a job can run with the inputs that there are; "" if one can."""
    available = {file.dataset_id for quantum in manifest.quanta for file in quantum.inputs if file.url}
    reasons = []
    for quantum in manifest.quanta:
        too_few = too_few_inputs(quantum, available)
        if not too_few:
            return ""
        reasons.append(too_few)
    return f"no_work upstream: {reasons[0]}" if reasons else ""


def _inputs(quantum: PlannedQuantum) -> list[PlannedDataset]:
    return [dataset for datasets in quantum.inputs.values() for dataset in datasets]
