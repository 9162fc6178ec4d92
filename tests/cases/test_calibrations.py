"""Validity ranges: certified, decertified and looked up as in Rubin's registry."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from case_files import check_keys, files, table
from case_setup import set_up
from case_values import instant_ns, span
from loadmaster_registry.calibrations import find_calibration
from loadmaster_registry.errors import Conflict, RegistryError
from loadmaster_registry.store import Registry
from loadmaster_registry.timespan import MAX_NS, MIN_NS, Timespan

LOOK_UP_NS = 90_000_000_000  # how long a look-up spans that is given by its beginning
KNOWN = {"registry", "operations", "columns_state", "state", "columns_lookup", "lookups"}
Certified = Callable[[Path], Registry]


def operated() -> list[Path]:
    return files("calibs-*.json")


def lookups() -> list[Any]:
    found = []
    for file in operated():
        content = json.loads(file.read_text())
        for row in content["lookups"]:
            case = dict(zip(content["columns_lookup"], row, strict=True))
            found.append(pytest.param(file, case, id=f"{file.stem}:{' '.join(map(str, row[:-1]))}"))
    return found


def rows() -> list[Any]:
    found = []
    for file in files("calibs-*.csv"):
        for row in table(file):
            asked = " ".join(v for k, v in row.items() if k != "answer")
            found.append(pytest.param(file.stem.partition("-")[2], row, id=f"{file.stem}:{asked}"))
    return found


@pytest.fixture(scope="session")
def certified(originals: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Certified:
    """Return a function that gives a registry after all operations of a file, each of which ended as it should."""
    made: dict[Path, Registry] = {}

    def after(file: Path) -> Registry:
        if file not in made:
            content = json.loads(file.read_text())
            check_keys(content, KNOWN, file.name)
            copy = tmp_path_factory.mktemp("certified") / "registry.sqlite3"
            copy.write_bytes(originals(content["registry"]).read_bytes())
            made[file] = Registry.open(str(copy))
            operate(made[file], content["operations"])
        return made[file]

    return after


def operate(registry: Registry, operations: list[dict[str, Any]]) -> None:
    there = {c.name for c in registry.collections()}
    new = {op["collection"] for op in operations} - there
    set_up(registry, [{"op": "calibration", "name": name} for name in sorted(new)])
    for op in operations:
        if op["result"] == "ok":
            set_up(registry, [op])
        else:
            assert op["result"] == "refused: conflict", f"how does {op} end?"
            with pytest.raises(Conflict, match=r"is valid .* was given for"):
                set_up(registry, [op])


@pytest.mark.parametrize("file", [pytest.param(f, id=f.stem) for f in operated()])
def test_operations_leave_the_ranges_that_rubins_registry_has(file: Path, certified: Certified) -> None:
    content, registry = json.loads(file.read_text()), certified(file)
    wanted = {
        (*row[:-2], instant_ns(row[-2], MIN_NS), instant_ns(row[-1], MAX_NS)) for row in content["state"]
    }
    found = set()
    for op in content["operations"]:
        collection, type = op["collection"], op["dataset_type"]
        ranges = registry.calibrations(type, [collection])
        runs = registry.files(ranges["dataset"])["run"]
        for row, run in zip(ranges.iter_rows(named=True), runs, strict=True):
            told = row | {"collection": collection, "dataset_type": type, "run": run}
            found.add(tuple(told.get(column) for column in content["columns_state"]))
    assert found == wanted


@pytest.mark.parametrize(("file", "case"), lookups())
def test_a_look_up_in_time_answers_as_rubins_registry(
    file: Path, case: dict[str, Any], certified: Certified
) -> None:
    registry = certified(file)
    data_id = {k: case[k] for k in ("detector", "physical_filter") if case[k] is not None}
    timespan = span(case["begin"], case["end"])
    assert run_of(registry, case["dataset_type"], case["collection"], data_id, timespan) == case["answer"]


@pytest.mark.parametrize(("name", "row"), rows())
def test_a_calibration_is_found_in_the_run_in_which_rubins_registry_finds_it(
    name: str, row: dict[str, str], opened: Callable[[str], Registry]
) -> None:
    check_keys(row, {"exposure", "begin", "detector", "physical_filter", "dataset_type", "answer"}, "row")
    registry = opened(name)
    data_id: dict[str, Any] = {"detector": int(row["detector"])}
    if "exposure" in row:
        number = int(row["exposure"])
        record = registry.records("exposure", {"exposure": [number]}).row(0, named=True)
        data_id["physical_filter"] = record["physical_filter"]
        timespan = Timespan(record["timespan_begin"], record["timespan_end"])
    else:
        begin = instant_ns(row["begin"], MIN_NS)
        only = registry.records("physical_filter")["physical_filter"]
        data_id["physical_filter"] = row.get("physical_filter") or only[0]
        timespan = Timespan(begin, begin + LOOK_UP_NS)
    collection = f"{instrument(registry)}/calib"
    assert run_of(registry, row["dataset_type"], collection, data_id, timespan) == row["answer"]


def instrument(registry: Registry) -> str:
    (name,) = registry.records("instrument")["instrument"]
    return str(name)


def run_of(registry: Registry, type: str, collection: str, data_id: Any, timespan: Timespan) -> str:
    data_id = data_id | {"instrument": instrument(registry)}
    try:
        found = find_calibration(registry, type, [collection], data_id, timespan)
    except RegistryError as error:
        return "AMBIGUOUS" if "valid at once" in str(error) else str(error)
    return found.run if found else "NONE"
