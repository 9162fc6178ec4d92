"""How a quantum's outputs are written: with which options, and what each file says of itself.

Light: the job runner imports this.
"""

from collections.abc import Collection
from pathlib import Path

from loadmaster_pipelines.connections import Connection
from loadmaster_pipelines.file_provenance import MAX_INPUTS, FileProvenance, InputProvenance
from loadmaster_pipelines.formats import Recipe, write_label
from loadmaster_staging.manifest import OutputFile, QuantumSpec

from .folder import JobFolder


def recipes_of(
    file: OutputFile, connection: Connection, spec: QuantumSpec, folder: JobFolder
) -> dict[Path, Recipe]:
    """Return how the files of an output are written; what each says of itself is what the quantum could read."""
    told = provenance_of(file, spec, folder.readable) if connection.is_labelled else None
    own = connection.formats[0].name if connection.formats else ""
    options = {one.name: one.options for one in connection.formats}
    return {path: Recipe(options.get(part or own, {}), told) for part, path in folder.places(file).items()}


def label(spec: QuantumSpec, folder: JobFolder) -> None:
    """Write into what a command wrote, where that is asked for, what the file is and what made it."""
    labelled = {connection.name for connection in spec.connections if connection.is_labelled}
    for file in spec.outputs:
        path = folder.outputs[file.dataset_id]
        if file.connection in labelled and path.is_file():
            folder.note(path, write_label(path, provenance_of(file, spec, folder.readable)))


def provenance_of(file: OutputFile, spec: QuantumSpec, readable: Collection[str]) -> FileProvenance:
    """Return what the file of an output is to say of itself."""
    read = {one.dataset_id: one for one in spec.inputs if one.dataset_id in readable}
    told = read.values() if len(read) <= MAX_INPUTS else ()
    return FileProvenance(
        id=file.dataset_id,
        run=spec.run,
        dataset_type=file.dataset_type,
        data_id=file.data_id,
        quantum=spec.id,
        inputs=tuple(InputProvenance(f.dataset_id, f.run, f.dataset_type, f.data_id) for f in told),
        n_inputs=len(read),
    )
