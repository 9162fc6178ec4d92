"""Astropy tables whose metadata hold what their file says of itself."""

from typing import Any

from ..file_provenance import FileProvenance, provenance_keys


def with_keys(table: Any, provenance: FileProvenance | None) -> Any:
    """Return the same table with these keys in its metadata, and none that speak of another file."""
    told = table.copy(copy_data=False)
    told.meta = {**without_keys(table.meta), **(provenance.keys(".") if provenance else {})}
    return told


def without_keys(meta: Any) -> dict[str, Any]:
    """Return metadata of a table without the keys: they speak of the file, not of the table that was in it."""
    keys = set(provenance_keys(key for key in meta if isinstance(key, str)))
    return {key: value for key, value in meta.items() if key not in keys}
