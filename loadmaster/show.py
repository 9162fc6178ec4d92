"""A plan as people see it: its tasks and dataset types, some quanta of a task, the shards of a step, one quantum."""

from collections.abc import Mapping
from dataclasses import asdict

from loadmaster_pipelines.resources import Resources
from loadmaster_planner.plan import Plan, PlannedDataset, PlannedQuantum
from loadmaster_planner.show import quanta_page, shards, task_facts

from .plan import plan_table
from .tables import Table, format_bytes, frame_table


def plan_tables(plan: Plan) -> tuple[Table, ...]:
    """Make the tables of a whole plan: tasks, dataset types."""
    return plan_table(plan), _types_table(plan)


def task_table(plan: Plan, label: str, start: int, limit: int) -> Table:
    """Make a table of up to `limit` quanta of a task, from the one in row `start`."""
    task = task_facts(plan, label)
    page = quanta_page(plan, label, start, start + limit)
    shown = f"{start + 1} to {start + page.height}" if page.height else "none"
    notes = [f"{shown} of {task.quanta} quanta"]
    if start + page.height < task.quanta:
        notes.append(f"the next ones: --offset {start + page.height}")
    return frame_table(page, f"quanta of {label}", notes)


def step_table(plan: Plan, step: str, start: int, limit: int) -> Table:
    """Make a table of up to `limit` shards of a step, from the one in row `start`."""
    whole = shards(plan, step)
    page = whole[start : start + limit]
    n_open = sum(whole[dimension].null_count() for dimension in whole.columns[:-2])
    notes = [
        f"{start + 1} to {start + page.height} of {whole.height} shards" if page.height else "no shards",
        *((f"the next ones: --offset {start + page.height}",) if start + page.height < whole.height else ()),
        *(("without a value: jobs that have several, or of tasks without the dimension",) if n_open else ()),
    ]
    return frame_table(page, f"shards of step {step}", notes)


def job_tables(plan: Plan, index: int) -> tuple[Table, ...]:
    """Make a table for each quantum of a job."""
    job = plan.job(index)
    return tuple(quantum_table(plan, quantum, index) for quantum in job.quanta)


def quantum_table(plan: Plan, quantum: PlannedQuantum, job: int) -> Table:
    """Make the table of a quantum: a line for each dataset that it reads or makes, and where that is."""
    sides = ((quantum.inputs, "reads"), (quantum.outputs, "makes"))
    rows = (
        _file_row(word, connection, dataset)
        for side, word in sides
        for connection, datasets in side.items()
        for dataset in datasets
    )
    headings = ("", "connection", "dataset type", "data ID", "where", "size", "checksum", "id")
    notes = (
        f"quantum {quantum.id} of job {job}, which asks for {_resources(plan.resources(job))}",
        *(
            f"group {group.number} of {group.of} of order {group.order}: {_words(group.values)}"
            for group in plan.groups_of(job)
        ),
    )
    title = f"{quantum.task} {_words(quantum.data_id)}"
    return Table(headings, tuple(rows), title, numeric=frozenset(["size"]), notes=notes)


def _types_table(plan: Plan) -> Table:
    rows = tuple(
        (t.name, str(t.existing), str(t.count - t.existing), ", ".join(t.dimensions), t.storage_class)
        for t in plan.header.types
    )
    headings = ("dataset type", "existing", "to be made", "dimensions", "storage class")
    header = plan.header
    notes = (
        f"{plan.n_jobs} jobs",
        f"inputs: {', '.join(header.inputs)}",
        *((f"where: {header.where}",) if header.where else ()),
        f"digest: {header.digest}",
        f"planned: {header.created}",
    )
    return Table(headings, rows, numeric=frozenset(["existing", "to be made"]), notes=notes)


def _file_row(word: str, connection: str, dataset: PlannedDataset) -> tuple[str, ...]:
    paths = " and ".join((dataset.path, *dataset.parts.values()))
    made = "handed on in memory" if dataset.is_elided else f"to be made: {paths}"
    place = dataset.url if dataset.exists else made
    return (
        word,
        connection,
        dataset.dataset_type,
        _words(dataset.data_id),
        place,
        format_bytes(dataset.size_bytes),
        dataset.checksum or "–",
        str(dataset.id),
    )


def _resources(resources: Resources) -> str:
    return ", ".join(f"{name} {value}" for name, value in asdict(resources).items() if value is not None)


def _words(data_id: Mapping[str, int | str]) -> str:
    return " ".join(f"{name}={value}" for name, value in data_id.items())
