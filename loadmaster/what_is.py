"""What files say of themselves, without a registry: which dataset each is, what made it, and from what."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from loadmaster_pipelines.file_provenance import FileProvenance
from loadmaster_pipelines.storage import read_provenance
from loadmaster_registry.errors import StageError

from .tables import Table


def what_is(path: Path) -> FileProvenance:
    """Return what the header of a file says of it.

    Raises
    ------
    StageError
        If it cannot be read, or says nothing.
    """
    found = read_provenance(path)
    if found is None:
        raise StageError(
            what=f"{path.name} does not say what made it",
            where=str(path),
            why="its header has no keys LSST BUTLER …; JSON, text, pictures and what other programs write have none",
            todo="find it by its name: loadmaster query-datasets TYPE -i RUN",
        )
    return found


def file_facts(told: FileProvenance) -> dict[str, Any]:
    """Return the same as plain values for JSON."""
    return asdict(told)


def file_table(told: FileProvenance, path: Path) -> Table:
    """Return the same for people: the dataset first, then each input."""
    rows = [
        ("this file", told.dataset_type, _shown(told.data_id), told.run, told.id),
        *(("made from", one.dataset_type, _shown(one.data_id), one.run, one.id) for one in told.inputs),
    ]
    notes = [f"made by quantum {told.quantum}" if told.quantum else "put by hand: no quantum made it"]
    if told.n_inputs > len(told.inputs):
        notes.append(f"it was made from {told.n_inputs} datasets, too many to list in a file")
    return Table(
        ("", "dataset type", "data ID", "run", "id"), tuple(rows), title=str(path), notes=tuple(notes)
    )


def _shown(data_id: Any) -> str:
    return " ".join(f"{name}={value}" for name, value in data_id.items())
