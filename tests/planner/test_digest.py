"""The canonical digest: equal for the same request on the same content, wherever and whenever; else another."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from random import Random

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loadmaster_pipelines.batch import Cluster, Clustering
from loadmaster_pipelines.pipeline import Pipeline
from loadmaster_pipelines.resources import Resources
from loadmaster_planner.plan import Plan
from loadmaster_planner.planner import make_plan
from loadmaster_planner.request import Request
from loadmaster_planner.show import verify
from loadmaster_planner.tables import MemoryTables
from loadmaster_registry.errors import PlanError
from loadmaster_registry.store import Registry
from night import ISR, REQUEST, STACK, make_night, pipeline
from small_worlds import CONDITIONS, World, pipelines, register, worlds


@settings(max_examples=25, deadline=None)
@given(worlds(), pipelines(), st.sampled_from(["", *CONDITIONS]), st.integers(1, 1000))
def test_the_order_of_insertion_the_database_the_run_and_the_time_do_not_matter(
    tmp_path_factory: pytest.TempPathFactory, world: World, drawn: Pipeline, condition: str, seed: int
) -> None:
    folder = tmp_path_factory.mktemp("digest")
    where = f"instrument='I' AND skymap='S'{' AND ' + condition if condition else ''}"
    request = Request(("raw", "calib"), "out", where=where, allow_partial_gather=True)
    with register(world, folder / "a") as here, register(shuffled(world, seed), folder / "b") as there:
        one = make_plan(here, drawn, request)
        other = make_plan(there, drawn, replace(request, output_run="u/somebody/else", output="u/somebody"))
    assert other.digest == one.digest
    verify(one)


def shuffled(world: World, seed: int) -> World:
    random = Random(seed)
    records = {name: random.sample(rows, len(rows)) for name, rows in world.records.items()}
    raws, biases = (random.sample(rows, len(rows)) for rows in (world.raws, world.biases))
    return World(records, world.squares, raws, biases)


@pytest.mark.parametrize("order", range(1, 4))
def test_a_plan_that_reads_files_of_known_size_digests_the_same_from_another_database(
    tmp_path: Path, order: int
) -> None:
    with make_night(tmp_path / "a") as here, make_night(tmp_path / "b", order=order) as there:
        assert digest(there) == digest(here)


def test_which_of_two_calibrations_came_first_does_not_matter(tmp_path: Path) -> None:
    """Both are of one data ID: what tells them apart is their collection."""
    exposures = [{"exposure": e, "instrument": "I", "group": str(e)} for e in (1, 5)]
    filters = {"physical_filter": "F-g", "day_obs": 20260101}
    records = {
        "instrument": [{"instrument": "I"}],
        "physical_filter": [{"instrument": "I", "physical_filter": "F-g", "band": "g"}],
        "detector": [{"instrument": "I", "detector": 1}],
        "day_obs": [{"instrument": "I", "day_obs": 20260101}],
        "group": [{"instrument": "I", "group": e["group"]} for e in exposures],
        "exposure": [{**e, **filters} for e in exposures],
    }
    raws = [{"instrument": "I", "exposure": e, "detector": 1} for e in (1, 5)]
    biases = [(1, 0, 3), (1, 3, 9)]
    request = Request(("raw", "calib"), "out", where="instrument='I'")
    digests = set()
    for number, order in enumerate((biases, biases[::-1])):
        with register(World(records, {}, raws, order), tmp_path / str(number)) as registry:
            plan = make_plan(registry, pipeline(ISR), request)
            assert plan.edges("isr", "bias")["dataset"].n_unique() == 2
            digests.add(plan.digest)
    assert len(digests) == 1


def test_writing_and_opening_keep_the_digest(tmp_path: Path) -> None:
    with make_night(tmp_path / "registry") as registry:
        plan = make_plan(registry, pipeline(), REQUEST)
    plan.write(tmp_path / "plan")
    opened = Plan.open(tmp_path / "plan")
    verify(opened)
    assert opened.digest == plan.digest
    opened.write(tmp_path / "again")
    verify(Plan.open(tmp_path / "again"))


ISR_ASKS_MORE = replace(ISR, resources=Resources(memory_mib=4096))
BY_DETECTOR = Clustering(clusters=(Cluster("both", ("isr", "stack"), ("detector",)),))
REQUESTS: dict[str, Callable[[Registry], Plan]] = {
    "a where that selects less": lambda r: make_plan(
        r, pipeline(), replace(REQUEST, where="instrument = 'I' AND exposure < 3", allow_partial_gather=True)
    ),
    "one configuration value": lambda r: make_plan(
        r, pipeline(replace(ISR, config={"x": 1}), STACK), REQUEST
    ),
    "a task's code": lambda r: make_plan(r, pipeline(replace(ISR, code_digest="sha256:new"), STACK), REQUEST),
    "a task's command": lambda r: make_plan(r, pipeline(replace(ISR, command="false"), STACK), REQUEST),
    "resources": lambda r: make_plan(r, pipeline(ISR_ASKS_MORE, STACK), REQUEST),
    "other jobs": lambda r: make_plan(r, pipeline(), REQUEST, clustering=BY_DETECTOR),
    "fewer tasks": lambda r: make_plan(r, pipeline(ISR), REQUEST),
}
REGISTRIES: dict[str, dict[str, object]] = {
    "one more exposure": {"exposures": 4},
    "the collection that a calibration is from": {"bias_run": "calib/other"},
    "the size of an input": {"raw_unit_bytes": 11},
    "the checksum of an input": {"algorithm": "blake3"},
}


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    with make_night(tmp_path / "registry") as made:
        yield made


@pytest.mark.parametrize("change", REQUESTS)
def test_the_digest_changes_with_what_is_asked(registry: Registry, change: str) -> None:
    changed = REQUESTS[change](registry)
    verify(changed)
    assert changed.digest != digest(registry)


@pytest.mark.parametrize("change", REGISTRIES)
def test_the_digest_changes_with_what_is_there(tmp_path: Path, registry: Registry, change: str) -> None:
    with make_night(tmp_path / "other", **REGISTRIES[change]) as other:  # type: ignore[arg-type]
        assert digest(other) != digest(registry)


def test_all_changes_differ_from_each_other(registry: Registry) -> None:
    digests = [make(registry).digest for make in REQUESTS.values()]
    assert len(set(digests)) == len(digests)


def test_where_files_are_does_not_matter(tmp_path: Path, registry: Registry) -> None:
    with make_night(tmp_path / "other", root="s3://bucket/") as elsewhere:
        assert digest(elsewhere) == digest(registry)


def test_a_plan_whose_content_is_not_that_of_its_digest_is_told(registry: Registry, tmp_path: Path) -> None:
    plan = make_plan(registry, pipeline(), REQUEST)
    wrong = Plan(replace(plan.header, digest="0" * 64), MemoryTables(plan_tables(plan)))
    with pytest.raises(PlanError, match="is not as it was written"):
        verify(wrong)


def plan_tables(plan: Plan) -> dict[str, pl.DataFrame]:
    return {name: plan.rows(name, 0, rows) for name, rows in plan.table_sizes()}


def digest(registry: Registry) -> str:
    return make_plan(registry, pipeline(), REQUEST).digest
