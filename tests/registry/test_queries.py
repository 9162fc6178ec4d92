"""Questions in the `where` language, answered as Rubin's own registry answers them."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from loadmaster_registry.errors import NotFound, QueryError
from loadmaster_registry.exchange import import_export
from loadmaster_registry.queries import find_dataset, query_data_ids, query_datasets
from loadmaster_registry.store import Registry
from loadmaster_registry.universe import load_universe

CASES = Path(os.environ.get("LOADMASTER_CASES", Path(__file__).parents[3] / "shared" / "data"))
WHERE = CASES / "expected" / "where.json"


def where_cases() -> list[Any]:
    cases = json.loads(WHERE.read_text()) if WHERE.exists() else []
    return [pytest.param(case, id=case["id"]) for case in cases]


@pytest.fixture(scope="session")
def registries(cases: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Registry]:
    folder = tmp_path_factory.mktemp("registries")
    made = {}
    for name, files in json.loads((cases / "registry" / "registries.json").read_text()).items():
        made[name] = Registry.create(f"sqlite:///{folder}/{name}.sqlite3", load_universe())
        for file in files:
            import_export(made[name], cases / "registry" / file)
    return made


@pytest.mark.parametrize("case", where_cases())
def test_an_expression_selects_what_rubins_registry_selects(
    case: dict[str, Any], registries: dict[str, Registry]
) -> None:
    registry = registries[case["registry"]]
    asked = {
        "where": case["where"],
        "bind": case.get("bind"),
        "limit": case.get("limit"),
        "rubin_circles": True,
    }
    if "refused" in case:
        with pytest.raises(QueryError):
            query_data_ids(registry, case["dimensions"], **asked)
        return
    found = query_data_ids(registry, case["dimensions"], order_by=case.get("order_by", ()), **asked)
    rows = [list(row) for row in found.select(case["keys"]).rows()] if case["keys"] else found.rows()
    assert len(rows) == case["n"]
    assert rows == case["data_ids"] if "order_by" in case else sorted(rows) == sorted(case["data_ids"])


def test_existing_datasets_restrict_data_ids(registries: dict[str, Registry]) -> None:
    registry = registries["rc2-small"]
    everything = query_data_ids(registry, ["exposure", "detector"], where="instrument='HSC'")
    with_raw = query_data_ids(
        registry,
        ["exposure", "detector"],
        where="instrument='HSC'",
        datasets=["raw"],
        collections=["HSC/raw/all"],
    )
    assert everything.height == 40 * 112
    assert with_raw.height == 240


def test_datasets_of_a_type_come_with_where_they_are(registries: dict[str, Registry]) -> None:
    found = query_datasets(
        registries["rc2-small"], "raw", ["HSC/raw/all"], where="instrument='HSC' AND exposure = 322"
    )
    assert found.height == 6
    assert found["url"].null_count() == 0
    assert found["id"].n_unique() == 6


def test_a_data_id_may_name_what_implies_the_missing_dimension(registries: dict[str, Registry]) -> None:
    registry = registries["rc2-small"]
    raw = find_dataset(
        registry, "raw", {"instrument": "HSC", "exposure": 322, "detector": 41}, ["HSC/raw/all"]
    )
    assert raw.height == 1
    with pytest.raises(QueryError, match="lacks detector"):
        find_dataset(registry, "raw", {"instrument": "HSC", "exposure": 322}, ["HSC/raw/all"])
    with pytest.raises(NotFound, match="there is no 'raw'"):
        find_dataset(registry, "raw", {"instrument": "HSC", "exposure": 5, "detector": 41}, ["HSC/raw/all"])
    with pytest.raises(QueryError, match="did you mean 'detector'"):
        find_dataset(registry, "raw", {"detektor": 41}, ["HSC/raw/all"])


def test_an_overlap_that_is_written_takes_the_place_of_the_finest_one(
    registries: dict[str, Registry],
) -> None:
    where = "instrument='HSC' AND skymap='hsc_rings_v1'"
    finest = query_data_ids(registries["rc2-visits"], ["visit", "detector", "patch"], where=where)
    written = query_data_ids(
        registries["rc2-visits"],
        ["visit", "detector", "patch"],
        where=f"{where} AND visit.region OVERLAPS patch.region",
    )
    assert finest.height == 1132  # each of the registered detector regions is on one patch
    assert written.height == 160 * 111  # as Rubin's registry: every detector of every visit


def test_data_ids_are_ordered_by_what_a_name_stands_for(registries: dict[str, Registry]) -> None:
    registry = registries["rc2-visits"]
    asked = {"where": "instrument='HSC' AND band = 'i'"}
    plain = query_data_ids(registry, ["visit"], order_by=["-exposure_time", "visit"], **asked)["visit"]
    in_full = query_data_ids(registry, ["visit"], order_by=["-visit.exposure_time", "visit.id"], **asked)[
        "visit"
    ]
    assert plain.to_list() == in_full.to_list() != sorted(plain)
    with pytest.raises(QueryError, match="exposure_time"):
        query_data_ids(registry, ["visit"], order_by=["visit.exposure_tim"], **asked)
    with pytest.raises(QueryError, match="tract is no part of the data IDs"):
        query_data_ids(registry, ["visit"], order_by=["tract"], **asked)
