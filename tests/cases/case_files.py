"""The files of answers: which there are, and what may stand in them.

A case is a test of its own, named by file and case. Whatever key nobody here knows fails its case: an answer
that is passed over would look like one that is right.
"""

import csv
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

CASES = Path(os.environ.get("LOADMASTER_CASES", Path(__file__).parents[3] / "shared" / "data"))
EXPECTED = CASES / "expected"


def files(pattern: str) -> list[Path]:
    """Return the files of answers that match, in order of name."""
    return sorted(EXPECTED.glob(pattern))


def params(pattern: str) -> list[Any]:
    """Return one parameter for each JSON file, named by the file."""
    return [pytest.param(json.loads(file.read_text()), id=file.stem) for file in files(pattern)]


def table(file: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV file."""
    with open(file, newline="") as stream:
        return list(csv.DictReader(stream))


def check_keys(case: Mapping[str, Any], known: Iterable[str], what: str) -> None:
    """Fail if a case holds a key whose meaning is not known here."""
    unknown = set(case) - set(known)
    assert not unknown, f"{what}: what do {sorted(unknown)} mean? Known are {sorted(known)}"


def one_of(case: Mapping[str, Any], *spellings: str, default: Any = None) -> Any:
    """Return the value of the first spelling of a key that a case uses."""
    for key in spellings:
        if key in case:
            return case[key]
    return default


def listed(value: Any) -> list[Any]:
    """Return a list of what may be one value, several, or none."""
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]


def names(value: Any) -> list[str]:
    """Return a list of names, which may be written with commas between them."""
    return [n.strip() for n in value.split(",") if n.strip()] if isinstance(value, str) else listed(value)
