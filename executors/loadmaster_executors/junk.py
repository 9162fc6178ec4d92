"""Where undeclared files of quanta belong: a dataset type for each task, and a file for each quantum."""

from collections.abc import Mapping
from uuid import UUID, uuid5

from loadmaster_planner.plan import Plan, PlannedQuantum
from loadmaster_registry.names import dataset_path
from loadmaster_registry.records import DatasetType
from loadmaster_registry.universe import DimensionGroup
from loadmaster_staging.manifest import OutputFile

STORAGE_CLASS = "Tar"
CONNECTION = "junk"


def junk_types(plan: Plan) -> dict[str, DatasetType]:
    """Return the dataset type of undeclared files for each task, by its label."""
    return {
        task.label: DatasetType(
            f"{task.label.replace('-', '_')}_junk",
            DimensionGroup(task.dimensions, task.implied),
            STORAGE_CLASS,
        )
        for task in plan.header.tasks
    }


def junk_file(quantum: PlannedQuantum, types: Mapping[str, DatasetType], run: str) -> OutputFile:
    """Return the file for the undeclared files of a quantum."""
    type = types[quantum.task]
    required = {name: quantum.data_id[name] for name in type.dimensions.required}
    path = dataset_path(run, type.name, required, ".tar")
    id = uuid5(UUID(str(quantum.id)), CONNECTION)
    return OutputFile(CONNECTION, str(id), type.name, quantum.data_id, path)
