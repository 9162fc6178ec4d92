"""File names on the backbone: made from run, dataset type and data ID, and unique for them."""

from collections.abc import Mapping
from urllib.parse import quote


def run_folder(run: str) -> str:
    """Return the folder of a run below the backbone's root."""
    return "/".join(quote(part, safe="+-.,=@_~") for part in run.split("/"))


def dataset_path(run: str, dataset_type: str, data_id: Mapping[str, int | str], extension: str) -> str:
    """Return the path of a dataset below the backbone's root.

    Different (run, dataset type, required data ID) never share a path: whatever could be mistaken for a
    separator in a value is percent-encoded.

    Parameters
    ----------
    data_id : mapping
        Required dimensions in the universe's order.
    extension : str
        With its dot, as ``.fits``.
    """
    values = [quote(str(value), safe="+-.,=@").replace("_", "%5F") for value in data_id.values()]
    stem = "_".join([dataset_type, *values])
    middle = "/".join(values[1:-1]) if len(values) > 2 else ""
    return "/".join(part for part in (run_folder(run), dataset_type, middle, stem + extension) if part)
