"""Records that exist get other values, and nothing else changes."""

from pathlib import Path

import polars as pl
import pytest
from loadmaster_registry.errors import RegistryError
from loadmaster_registry.store import Registry

DETECTORS = pl.DataFrame(
    {"instrument": ["Cam"] * 2, "detector": [0, 1], "full_name": ["S0", "S1"], "purpose": ["SCIENCE"] * 2}
)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    found = Registry.create(str(tmp_path / "registry.sqlite3"))
    with found.transaction() as transaction:
        transaction.insert_records("instrument", pl.DataFrame({"instrument": ["Cam"]}))
        transaction.insert_records("detector", DETECTORS)
    return found


def replace(registry: Registry, **columns: list[object]) -> int:
    rows = pl.DataFrame({"instrument": ["Cam"] * len(columns["detector"]), **columns})
    with registry.transaction() as transaction:
        return transaction.replace_records("detector", rows)


def test_only_the_columns_given_change(registry: Registry) -> None:
    assert replace(registry, detector=[1], purpose=["GUIDER"]) == 1
    found = registry.records("detector")
    assert found["purpose"].to_list() == ["SCIENCE", "GUIDER"]
    assert found["full_name"].to_list() == ["S0", "S1"]


def test_records_that_do_not_exist_are_refused_and_nothing_changes(registry: Registry) -> None:
    with pytest.raises(RegistryError, match="1 of 2 records of 'detector' do not exist"):
        replace(registry, detector=[1, 7], purpose=["GUIDER", "GUIDER"])
    assert registry.records("detector")["purpose"].to_list() == ["SCIENCE", "SCIENCE"]


def test_a_column_that_is_not_there_is_refused(registry: Registry) -> None:
    with pytest.raises(RegistryError, match="unknown column 'porpoise'"):
        replace(registry, detector=[1], porpoise=["GUIDER"])
