"""A site's scratch stays within its budget: jobs wait, or are refused when the run begins."""

import threading
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from loadmaster_executors.prepare import replicas_of, with_endpoints
from loadmaster_executors.run import RunFolder
from loadmaster_executors.scratch import scratch_need
from loadmaster_pipelines.resources import Resources
from loadmaster_planner.plan import Plan
from loadmaster_registry.errors import RunError
from loadmaster_registry.records import DatasetType
from loadmaster_staging.checksum import measure
from loadmaster_staging.manifest import InputFile, Staging
from toy_survey import RAWS, Survey

MIB = 1 << 20
FRAME_BYTES = 3 * MIB
PIPELINE = """
description: scratch
tasks:
  measure:
    class: counted_files.Measure
"""


@pytest.fixture
def frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Survey:
    """Return a survey with 8 frames of 3 MiB on a file system that counts what is read of it."""
    monkeypatch.setenv("COUNTED_LOG", str(tmp_path / "counted.log"))
    survey = Survey.create(tmp_path, range(1, 9))
    rows = []
    for detector in range(1, 9):
        path = tmp_path / "far" / f"{detector}.bin"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(bytes([detector]) * FRAME_BYTES)
        found = measure(str(path))
        rows.append(("Toy", detector, uuid4().bytes, f"counted://{path}", found.size_bytes, found.checksum))
    columns = ["instrument", "detector", "id", "url", "size_bytes", "checksum"]
    group = survey.registry.universe.group(("instrument", "detector"))
    with survey.registry.transaction() as t:
        t.register_dataset_type(DatasetType("frame", group, "Bytes"))
        t.insert_datasets("frame", RAWS, pl.DataFrame(rows, schema=columns, orient="row"))
    return survey


def planned(survey: Survey, **asked: int) -> Plan:
    """Plan the task, which asks for so much."""
    lines = "".join(f"      {key}: {value}\n" for key, value in asked.items())
    return survey.plan_yaml(PIPELINE + (f"    resources:\n{lines}" if lines else ""))


class Watch(threading.Thread):
    """Looks how large a folder ever is."""

    def __init__(self, folder: Path) -> None:
        super().__init__(daemon=True)
        self.folder = folder
        self.largest = 0
        self.most_jobs = 0
        self.is_over = False

    def run(self) -> None:
        while not self.is_over:
            sizes: Counter[str] = Counter()
            with suppress(FileNotFoundError):  # a job ends meanwhile
                for path in self.folder.rglob("in/*"):
                    sizes[path.parts[-3]] += path.stat().st_size
            self.largest = max(self.largest, sum(sizes.values()))
            self.most_jobs = max(self.most_jobs, len(sizes))
            time.sleep(0.005)


def test_ci3_disk_stays_within_the_budget_and_bytes_moved_are_those_declared(
    frames: Survey, tmp_path: Path
) -> None:
    run = RunFolder.create(tmp_path / "run", planned(frames, output_mib=1))
    watch = Watch(tmp_path / "run" / "scratch")
    watch.start()
    staging = Staging("copy", scratch_bytes=2 * 4 * MIB)
    report = frames.execute(run, cpus=4, staging=staging)
    watch.is_over = True
    watch.join()
    assert report.is_good
    assert frames.contents("size") == {detector: str(FRAME_BYTES) for detector in range(1, 9)}
    assert 0 < watch.largest <= 2 * 4 * MIB
    assert watch.most_jobs == 2, "as many as fit, although there are processors for four"
    read = [line.split() for line in (tmp_path / "counted.log").read_text().splitlines()]
    assert Counter(Path(path).stem for path, _ in read) == Counter(map(str, range(1, 9)))
    assert sum(int(size) for _, size in read) == 8 * FRAME_BYTES


def test_a_job_larger_than_the_budget_is_refused_when_the_run_begins(frames: Survey, tmp_path: Path) -> None:
    for i, asked in enumerate(({"disk_mib": 9}, {"output_mib": 9}, {"output_mib": 6})):
        run = RunFolder.create(tmp_path / f"run{i}", planned(frames, **asked))
        with pytest.raises(RunError, match="8 jobs need more scratch") as caught:
            frames.execute(run, staging=Staging("copy", scratch_bytes=8 * MIB))
        assert "measure" in str(caught.value)
        assert not (tmp_path / "run" / "scratch").exists()
    frames.execute(
        RunFolder.create(tmp_path / "fits", planned(frames, output_mib=5)),
        staging=Staging("copy", scratch_bytes=8 * MIB),
    )


def test_a_job_whose_inputs_turn_out_too_large_fails_before_a_byte_is_moved(
    frames: Survey, tmp_path: Path
) -> None:
    run = RunFolder.create(tmp_path / "run", planned(frames, output_mib=1))
    report = frames.execute(run, staging=Staging("direct", scratch_bytes=3 * MIB))
    (group,) = report.failures
    assert (group.class_, group.count) == ("stage_in_failed", 8)
    assert "more scratch than the site has" in group.message
    assert not (tmp_path / "counted.log").exists()


def test_jobs_of_which_nobody_said_what_they_need_share_the_budget(frames: Survey, tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run", planned(frames))
    report = frames.execute(run, cpus=2, staging=Staging("copy", scratch_bytes=8 * MIB))
    assert report.is_good


def input_file(size_bytes: int, url: str = "/x") -> InputFile:
    return InputFile("c", uuid4().hex, "raw", {}, url, size_bytes, "")


@pytest.mark.parametrize(
    ("asked", "staging", "need"),
    [
        ({}, Staging("copy"), -1),
        ({"disk_mib": 5}, Staging("copy"), 5 * MIB),
        ({"output_mib": 2}, Staging("copy"), 9 * MIB),
        ({"output_mib": 2, "disk_mib": 20}, Staging("copy"), 20 * MIB),
        ({"output_mib": 2, "disk_mib": 3}, Staging("copy"), 9 * MIB),
        ({"output_mib": 2}, Staging("direct"), 5 * MIB),
        ({"output_mib": 2}, Staging("cache", cache="/c"), 2 * MIB),
        ({"output_mib": 2}, Staging("cache", cache="/c", cache_bytes=3 * MIB), 6 * MIB),
    ],
)
def test_what_a_job_needs_is_what_is_copied_and_what_it_makes(
    asked: Mapping[str, int], staging: Staging, need: int
) -> None:
    files = [input_file(4 * MIB), input_file(3 * MIB, "s3://b/x")]
    assert scratch_need(Resources(**asked), [*files, files[0], input_file(-1, "")], staging) == need


def test_an_input_of_unknown_size_makes_the_need_unknown() -> None:
    assert scratch_need(Resources(output_mib=1), [input_file(-1)], Staging("copy")) == -1
    assert scratch_need(Resources(output_mib=1), [input_file(-1)], Staging()) == MIB


MIRRORS = (("s3://us/", ("s3://fr/", "/mirror/")), ("s3://us/hot/", ("/ssd/", "s3://us/hot/")))


@pytest.mark.parametrize(
    ("url", "places"),
    [
        ("s3://us/raw/1", ["s3://us/raw/1", "s3://fr/raw/1", "/mirror/raw/1"]),
        ("s3://us/hot/1", ["/ssd/1", "s3://us/hot/1"]),
        ("/local/1", ["/local/1"]),
    ],
)
def test_mirrors_follow_a_file_unless_they_say_the_whole_order(url: str, places: list[str]) -> None:
    assert replicas_of(url, MIRRORS) == places


@given(
    st.text(st.characters(codec="ascii", categories=["L", "N"]), max_size=9),
    st.sampled_from(["s3://us/", "/x/"]),
)
def test_a_file_is_always_among_its_replicas(name: str, root: str) -> None:
    assert root + name in replicas_of(root + name, MIRRORS)


def test_runs_that_share_a_cache_share_what_is_known_of_endpoints(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    own = with_endpoints(Staging(), tmp_path / "run")
    assert own.endpoints == str(tmp_path / "run" / "endpoints")
    shared = with_endpoints(Staging("cache", cache=str(tmp_path / "cache")), tmp_path / "run")
    assert shared.endpoints == str(tmp_path / "cache" / "endpoints")
    assert (tmp_path / "run" / "endpoints").resolve() == tmp_path / "cache" / "endpoints"
    assert with_endpoints(shared, tmp_path / "run") == shared


def test_a_job_reads_from_the_first_mirror_that_has_the_file(frames: Survey, tmp_path: Path) -> None:
    (tmp_path / "near").mkdir()
    for detector in (1, 2, 3):
        (tmp_path / "near" / f"{detector}.bin").write_bytes(bytes([detector]) * FRAME_BYTES)
    mirrors = ((f"counted://{tmp_path}/far/", (f"{tmp_path}/near/", f"counted://{tmp_path}/far/")),)
    run = RunFolder.create(tmp_path / "run", planned(frames))
    assert frames.execute(run, staging=Staging("copy", mirrors=mirrors)).is_good
    read = [Path(line.split()[0]).stem for line in (tmp_path / "counted.log").read_text().splitlines()]
    assert sorted(read) == ["4", "5", "6", "7", "8"]
