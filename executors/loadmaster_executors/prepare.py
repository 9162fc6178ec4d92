"""From the planner's nouns to staging's: the manifest of a job, made when the job may run."""

from collections.abc import Callable, Mapping, Sequence
from uuid import UUID

from loadmaster_planner.plan import Plan, PlannedDataset, PlannedQuantum
from loadmaster_registry.errors import RunError
from loadmaster_staging.backbone import Backbone
from loadmaster_staging.checksum import Measured
from loadmaster_staging.location import join
from loadmaster_staging.manifest import (
    InputFile,
    Manifest,
    OutputFile,
    QuantumSpec,
    Staging,
    too_few_inputs,
)

from .journal import Attempt

Made = Callable[[Sequence[UUID]], Mapping[UUID, Measured]]  # which datasets came home, with size and checksum


class Manifests:
    """Makes the manifests of one plan's jobs.

    Parameters
    ----------
    staging_url : str
        The folder with one folder an attempt.
    made : callable
        Returns which of some datasets jobs of this plan have brought home.
    """

    def __init__(
        self, plan: Plan, backbone: Backbone, staging_url: str, staging: Staging, made: Made
    ) -> None:
        self._plan = plan
        self._backbone = backbone
        self.staging_url = staging_url
        self._staging = staging
        self._made = made
        tasks = plan.pipeline.tasks.items()
        self._digests = {label: (node.config_digest, node.environment_digest) for label, node in tasks}

    def of(self, attempt: Attempt) -> Manifest:
        """Return the manifest of an attempt: what came home is an input, what never will is left out."""
        planned = self._plan.job(attempt.job)
        made_here = {d.id for q in planned.quanta for files in q.outputs.values() for d in files}
        wanted = [d.id for q in planned.quanta for d in _inputs(q) if not d.exists and d.id not in made_here]
        made = self._made(wanted)
        quanta = tuple(self._quantum(quantum, made, made_here) for quantum in planned.quanta)
        return Manifest(
            run=self._plan.output_run,
            job=attempt.job,
            attempt=attempt.attempt,
            token=attempt.token,
            staging_url=join(self.staging_url, f"{attempt.job}.{attempt.attempt}"),
            staging=self._staging,
            cpus=planned.resources.cpus,
            quanta=quanta,
        )

    def _quantum(
        self, planned: PlannedQuantum, made: Mapping[UUID, Measured], made_here: set[UUID]
    ) -> QuantumSpec:
        node = self._plan.pipeline.tasks[planned.task]
        inputs = [
            file
            for connection, datasets in planned.inputs.items()
            for dataset in datasets
            if (file := self._input(connection, dataset, made, made_here)) is not None
        ]
        outputs = [
            OutputFile(connection, str(d.id), d.dataset_type, d.data_id, d.path, d.is_elided)
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
        )

    def _input(
        self, connection: str, dataset: PlannedDataset, made: Mapping[UUID, Measured], made_here: set[UUID]
    ) -> InputFile | None:
        file = InputFile(connection, str(dataset.id), dataset.dataset_type, dataset.data_id, url="")
        if dataset.id in made_here:
            return file
        if dataset.exists:
            return _located(
                file, self._backbone.url(dataset.url), Measured(dataset.size_bytes, dataset.checksum)
            )
        if dataset.id in made:
            return _located(file, self._backbone.url(dataset.path), made[dataset.id])
        return None


def modules_of(plan: Plan) -> tuple[str, ...]:
    """Return the Python modules that the plan's tasks live in."""
    classes = (node.task_class for node in plan.pipeline.tasks.values())
    return tuple(sorted({name.rpartition(".")[0] for name in classes if name}))


def check_runnable(plan: Plan) -> None:
    """Refuse a plan with tasks that are declared for planning only, or with datasets of which there is one a run.

    Raises
    ------
    RunError
        Naming all of them.
    """
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


def _located(file: InputFile, url: str, measured: Measured) -> InputFile:
    return InputFile(
        file.connection,
        file.dataset_id,
        file.dataset_type,
        file.data_id,
        url,
        measured.size_bytes,
        measured.checksum,
    )
