"""Harvest into a real registry: all of a job or nothing, as often as it takes."""

import os
import sqlite3
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from uuid import UUID, uuid4

import polars as pl
import pytest
from loadmaster_pipelines.connections import Connection
from loadmaster_registry.errors import RegistryError
from loadmaster_registry.records import DatasetType
from loadmaster_registry.store import Registry
from loadmaster_staging.backbone import Backbone
from loadmaster_staging.checksum import Measured, measure
from loadmaster_staging.harvest import Harvested, Reported, harvest, open_run
from loadmaster_staging.location import remote, staged
from loadmaster_staging.manifest import (
    InputFile,
    Manifest,
    OutputFile,
    QuantumReport,
    QuantumSpec,
    Report,
    StagedFile,
    Staging,
    outcome_of,
)
from loadmaster_staging.stage import staged_signature

RUN = "u/run"
RAW = str(uuid4())
CLASSES = {"a": "Text", "b": "Text", "notes": "TaskMetadata"}
SUFFIXES = {"a": "", "b": "", "notes": ".json"}


@dataclass
class Yard:
    """A repository, and what its journal was told."""

    registry: Registry
    backbone: Backbone
    types: dict[str, DatasetType]
    recorded: list[Harvested] = field(default_factory=list)

    def job(self, number: int, *, without: Sequence[str] = (), types: Sequence[str] = ("a", "b")) -> Reported:
        """Return a job that made outputs of one detector, `a` and `b` at first, staged and reported."""
        url = f"{self.backbone.staging_url(RUN, 't')}/000000/{number}.1"
        files = [
            OutputFile(name, str(uuid4()), name, data_id(number), f"{RUN}/{name}/{number}{SUFFIXES[name]}")
            for name in types
        ]
        spec = QuantumSpec(
            id=str(uuid4()),
            task="work",
            task_class=None,
            command="true",
            config={},
            data_id=data_id(number),
            connections=(Connection("raw", "input", "raw", "Text"),),
            inputs=(InputFile("raw", RAW, "raw", data_id(number), "/raw"),),
            outputs=tuple(files),
            code_digest="sha256:c0de",
            config_digest="sha256:c0f6",
        )
        manifest = Manifest(RUN, number, 1, f"token{number}", url, Staging(), 1, (spec,))
        staged = tuple(self._stage(url, f) for f in files if f.dataset_type not in without)
        quantum = QuantumReport(spec.id, "missing_output" if without else "succeeded", outputs=staged)
        report = Report(
            RUN,
            number,
            1,
            manifest.token,
            outcome_of([quantum]),
            (quantum,),
            "h",
            "then",
            "now",
            1.0,
            1.0,
            1.0,
        )
        return Reported(manifest, report)

    def _stage(self, url: str, file: OutputFile) -> StagedFile:
        name = file.dataset_type
        place = staged(url, name)
        fs, path = remote(place)
        fs.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
        fs.pipe_file(path, f"{name} of {file.data_id['detector']}".encode())
        found = measure(place)
        signature = staged_signature(place)
        return StagedFile(file.dataset_id, name, found.size_bytes, found.checksum, signature=signature)

    def harvest(self, *jobs: Reported) -> list[Harvested]:
        return harvest(jobs, self.registry, self.backbone, self.types, self.recorded.extend)

    def registered(self, name: str) -> dict[int, str]:
        """Return what the registry has, by detector, read from where it says."""
        rows = self.registry.datasets(name, [RUN])
        files = self.registry.files(rows["dataset"]).to_dicts()
        return {d: self.content(f) for d, f in zip(rows["detector"], files, strict=True)}

    def content(self, file: dict[str, object]) -> str:
        found = self.backbone.measure(str(file["url"]))
        assert (found.size_bytes, found.checksum) == (file["size_bytes"], file["checksum"])
        with self.backbone.open(str(file["url"])) as stream:
            return stream.read().decode()

    def is_visible(self, job: Reported) -> list[str]:
        outputs = job.manifest.quanta[0].outputs
        return [file.dataset_type for file in outputs if self.backbone.exists(file.path)]


def data_id(number: int) -> dict[str, int | str]:
    return {"instrument": "I", "detector": number}


@pytest.fixture(params=["file system", "object store"])
def yard(request: pytest.FixtureRequest, tmp_path: Path) -> Yard:
    root = str(tmp_path / "files") if request.param == "file system" else f"memory://{uuid4().hex}"
    return make_yard(tmp_path, Backbone(root))


def make_yard(folder: Path, backbone: Backbone) -> Yard:
    registry = Registry.create(str(folder / "registry.sqlite3"))
    detectors = pl.DataFrame({"instrument": ["I"] * 20, "detector": range(20)})
    with registry.transaction() as t:
        t.insert_records("instrument", pl.DataFrame({"instrument": ["I"]}))
        t.insert_records("detector", detectors.with_columns(full_name=pl.col("detector").cast(pl.String)))
    group = registry.universe.group(("instrument", "detector"))
    types = {name: DatasetType(name, group, storage_class) for name, storage_class in CLASSES.items()}
    open_run(registry, RUN, types.values())
    open_run(registry, RUN, types.values())
    return Yard(registry, backbone, types)


def test_outputs_of_jobs_become_files_and_rows_with_their_provenance(yard: Yard) -> None:
    jobs = [yard.job(1), yard.job(2)]
    ends = yard.harvest(*jobs)
    assert [end.outcome for end in ends] == ["done", "done"]
    assert yard.recorded == ends
    assert yard.registered("a") == {1: "a of 1", 2: "a of 2"}
    assert yard.registered("b") == {1: "b of 1", 2: "b of 2"}
    assert yard.backbone.staged_names(yard.backbone.staging_url(RUN, "t")) == []
    quanta = yard.registry.quanta(RUN)
    assert sorted(quanta["data_id"]) == ['{"detector":1,"instrument":"I"}', '{"detector":2,"instrument":"I"}']
    assert set(quanta["status"]) == {"succeeded"}
    assert set(quanta["code_digest"]) == {"sha256:c0de"}
    lineage = yard.registry.lineage(UUID(jobs[0].manifest.quanta[0].outputs[0].dataset_id))
    assert UUID(RAW).bytes in set(lineage["id"])


def test_what_exists_of_a_partial_job_comes_home(yard: Yard) -> None:
    (end,) = yard.harvest(yard.job(1, without=["a"]))
    assert end.outcome == "partial"
    assert yard.registered("b") == {1: "b of 1"}
    assert yard.registered("a") == {}
    assert set(yard.registry.quanta(RUN)["status"]) == {"partial"}


def test_small_outputs_of_many_jobs_go_into_one_file(yard: Yard) -> None:
    jobs = [yard.job(number, types=("a", "notes")) for number in range(5)]
    ends = yard.harvest(*jobs)
    assert yard.registered("notes") == {number: f"notes of {number}" for number in range(5)}
    files = yard.registry.files(yard.registry.datasets("notes", [RUN])["dataset"])
    shards = {url.partition("#")[0] for url in files["url"]}
    assert len(shards) == 1
    assert shards.pop().startswith(f"{RUN}/.shards/")
    packed = {path for end in ends for path in end.packed.values()}
    assert packed == set(files["url"])
    assert all(yard.backbone.exists(path) for path in packed)
    assert not yard.backbone.exists(jobs[0].manifest.quanta[0].outputs[1].path)
    assert yard.backbone.staged_names(yard.backbone.staging_url(RUN, "t")) == []


def test_who_comes_late_finds_small_outputs_where_the_first_packed_them(yard: Yard) -> None:
    job = yard.job(1, types=("a", "notes"))
    (first,) = yard.harvest(job)
    (late,) = yard.harvest(job)  # the report in memory still, all that was staged gone
    (again,) = yard.harvest(replace(job, is_resumed=True))
    assert (late.outcome, again.outcome) == ("done", "done")
    assert first.packed == late.packed == again.packed
    assert yard.registered("a") == {1: "a of 1"}
    assert yard.registered("notes") == {1: "notes of 1"}


def test_a_small_output_that_is_gone_keeps_all_of_the_job_out(yard: Yard) -> None:
    job = yard.job(1, types=("a", "notes"))
    yard.backbone.remove_staged(staged(job.manifest.staging_url, "notes"))
    (end,) = yard.harvest(job)
    assert (end.outcome, end.refusal) == ("failed", "checksum_mismatch")
    assert "gone" in end.message
    assert yard.is_visible(job) == []
    assert yard.registered("notes") == {}


def with_parts(yard: Yard, job: Reported, *, staged_parts: Sequence[str]) -> Reported:
    """Give the job's first output two more formats, of which some are staged."""
    (spec,), (quantum,) = job.manifest.quanta, job.report.quanta
    whole = spec.outputs[0]
    whole = replace(whole, parts={"preview": f"{whole.path}.png", "table": f"{whole.path}.parq"})
    more = [
        replace(yard._stage(job.manifest.staging_url, replace(whole, dataset_type=part)), part=part)
        for part in staged_parts
    ]
    spec = replace(spec, outputs=(whole, *spec.outputs[1:]))
    quantum = replace(quantum, outputs=(*quantum.outputs, *more))
    manifest, report = (
        replace(job.manifest, quanta=(spec,)),
        replace(job.report, quanta=(quantum,)),
    )
    return Reported(manifest, report)


def test_a_dataset_in_several_formats_comes_home_with_all_of_them(yard: Yard) -> None:
    job = with_parts(yard, yard.job(1), staged_parts=["preview", "table"])
    (end,) = yard.harvest(job)
    assert end.outcome == "done"
    assert yard.registered("a") == {1: "a of 1"}
    with yard.registry.snapshot() as now:
        parts = now.parts(yard.registry.datasets("a", [RUN])["dataset"]).sort("name")
    assert parts["name"].to_list() == ["preview", "table"]
    assert [yard.content(row) for row in parts.to_dicts()] == ["preview of 1", "table of 1"]
    assert yard.backbone.staged_names(yard.backbone.staging_url(RUN, "t")) == []


@pytest.mark.parametrize("there", [["preview"], [], ["preview", "table", "other"]])
def test_a_dataset_of_which_a_format_is_missing_keeps_all_of_the_job_out(
    yard: Yard, there: Sequence[str]
) -> None:
    job = with_parts(yard, yard.job(1), staged_parts=there)
    (end,) = yard.harvest(job)
    assert (end.outcome, end.refusal) == ("failed", "checksum_mismatch")
    assert "whole or not at all" in end.message
    assert yard.is_visible(job) == []
    assert yard.registered("a") == {}


def test_a_format_whose_name_is_taken_keeps_all_of_the_dataset_out(yard: Yard) -> None:
    job = with_parts(yard, yard.job(1), staged_parts=["preview", "table"])
    fs, path = remote(yard.backbone.url(job.manifest.quanta[0].outputs[0].parts["table"]))
    fs.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
    fs.pipe_file(path, b"mine")
    (end,) = yard.harvest(job)
    assert (end.outcome, end.refusal) == ("failed", "output_exists")
    assert yard.is_visible(job) == []
    assert fs.cat_file(path) == b"mine"


def test_bytes_are_read_again_only_where_the_staged_file_was_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    yard = make_yard(tmp_path, Backbone(str(tmp_path / "files")))
    read: list[str] = []

    def counted(url: str, algorithm: str) -> Measured:
        read.append(url)
        return measure(url, algorithm)

    monkeypatch.setattr("loadmaster_staging.harvest.measure", counted)
    jobs = [yard.job(number) for number in range(3)]
    touched = staged(jobs[1].manifest.staging_url, "b")
    os.utime(touched)
    assert {end.outcome for end in yard.harvest(*jobs)} == {"done"}
    assert read == [touched]


def test_nothing_of_a_failed_job_comes_home(yard: Yard) -> None:
    job = yard.job(1)
    (end,) = yard.harvest(replace(job, report=replace(job.report, outcome="failed")))
    assert end.outcome == "failed"
    assert yard.is_visible(job) == []
    assert yard.registry.quanta(RUN).is_empty()
    assert yard.backbone.staged_names(yard.backbone.staging_url(RUN, "t")) == []


def test_a_name_that_is_taken_keeps_all_of_the_job_out_and_is_not_touched(yard: Yard) -> None:
    job, other = yard.job(1), yard.job(2)
    fs, path = remote(yard.backbone.url(job.manifest.quanta[0].outputs[1].path))
    fs.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
    fs.pipe_file(path, b"mine")
    ends = yard.harvest(job, other)
    assert [(end.outcome, end.refusal) for end in ends] == [("failed", "output_exists"), ("done", "")]
    assert "already" in ends[0].message
    assert yard.is_visible(job) == ["b"]
    assert fs.cat_file(path) == b"mine"
    assert yard.registered("a") == {2: "a of 2"}


def test_another_dataset_with_the_same_data_id_keeps_all_of_the_job_out(yard: Yard) -> None:
    first = yard.job(1)
    yard.harvest(first)
    rival = yard.job(1)
    outputs = tuple(replace(f, path=f"{f.path}.rival") for f in rival.manifest.quanta[0].outputs)
    spec = replace(rival.manifest.quanta[0], outputs=outputs)
    rival = replace(rival, manifest=replace(rival.manifest, quanta=(spec,)))
    ends = yard.harvest(yard.job(2), rival, yard.job(3))
    assert [end.refusal for end in ends] == ["", "output_exists", ""]
    assert yard.is_visible(rival) == []
    assert yard.registered("a") == {1: "a of 1", 2: "a of 2", 3: "a of 3"}


@pytest.mark.parametrize("spoil", ["flipped", "truncated", "gone"])
def test_a_file_that_is_not_what_the_job_reported_keeps_all_of_it_out(yard: Yard, spoil: str) -> None:
    job = yard.job(1)
    fs, path = remote(staged(job.manifest.staging_url, "b"))
    if spoil == "gone":
        fs.rm(path)
    else:
        fs.pipe_file(path, b"b of 9" if spoil == "flipped" else b"b")
    (end,) = yard.harvest(job)
    assert (end.outcome, end.refusal) == ("failed", "checksum_mismatch")
    assert yard.is_visible(job) == []
    assert yard.registered("a") == {}


def test_a_report_with_an_output_that_the_job_does_not_have_is_refused(yard: Yard) -> None:
    job = yard.job(1)
    quantum = job.report.quanta[0]
    stray = replace(quantum.outputs[0], dataset_id=str(uuid4()))
    report = replace(job.report, quanta=(replace(quantum, outputs=(*quantum.outputs, stray)),))
    (end,) = yard.harvest(replace(job, report=report))
    assert end.refusal == "checksum_mismatch"
    assert yard.is_visible(job) == []


class Killed(BaseException):
    """Stands for a kill: nothing catches it."""


STEPS: dict[str, tuple[str, str]] = {
    "before the first file is visible": ("publish", "before"),
    "after the first file is visible": ("publish", "after"),
    "before the registry has it": ("transaction", "before"),
    "after the registry has it": ("transaction", "after"),
    "before the journal has it": ("record", "before"),
    "after the journal has it": ("record", "after"),
    "before it is freed": ("remove_staged", "before"),
}


@pytest.mark.parametrize("point", STEPS)
def test_a_harvest_that_is_cut_off_is_finished_by_doing_it_again(
    yard: Yard, point: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [yard.job(1), yard.job(2, without=["a"])]
    act, when = STEPS[point]
    with monkeypatch.context() as cut:
        record = cut_off(cut, yard, act, when)
        with pytest.raises(Killed):
            harvest(jobs, yard.registry, yard.backbone, yard.types, record)
    again = [replace(job, is_resumed=True) for job in jobs]
    if not yard.recorded:
        assert [end.outcome for end in yard.harvest(*again)] == ["done", "partial"]
    assert yard.registered("a") == {1: "a of 1"}
    assert yard.registered("b") == {1: "b of 1", 2: "b of 2"}
    assert yard.registry.quanta(RUN).height == 2


def cut_off(
    monkeypatch: pytest.MonkeyPatch, yard: Yard, act: str, when: str
) -> Callable[[Sequence[Harvested]], None]:
    """Make one act of the harvest its last."""

    def last(real: Callable[..., object]) -> Callable[..., object]:
        def cut(*args: object, **kwargs: object) -> object:
            if when == "after":
                real(*args, **kwargs)
            raise Killed

        return cut

    if act == "record":
        return last(yard.recorded.extend)  # type: ignore[return-value]
    if act == "transaction":
        real = yard.registry.transaction

        class Cut:
            def __enter__(self) -> object:
                self.real = real()
                return self.real.__enter__()

            def __exit__(self, *error: object) -> None:
                if when == "before":
                    self.real.__exit__(Killed, Killed(), None)
                else:
                    self.real.__exit__(None, None, None)
                raise Killed

        monkeypatch.setattr(yard.registry, "transaction", Cut)
    else:
        monkeypatch.setattr(yard.backbone, act, last(getattr(yard.backbone, act)))
    return yard.recorded.extend


def test_files_that_were_spoilt_after_they_were_registered_are_no_reason_to_withdraw(tmp_path: Path) -> None:
    yard = make_yard(tmp_path, Backbone(str(tmp_path / "files")))
    job = yard.job(1)
    yard.harvest(job)
    path = tmp_path / "files" / job.manifest.quanta[0].outputs[0].path
    path.chmod(0o644)
    path.write_text("spoilt")
    (end,) = yard.harvest(replace(job, is_resumed=True))
    assert end.outcome == "done"
    assert path.exists()


def test_a_registry_that_is_locked_stops_the_harvest_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    yard = make_yard(tmp_path, Backbone(str(tmp_path / "files")))
    job = yard.job(1)
    yard.registry.close()
    monkeypatch.setattr("loadmaster_registry.database._BUSY_TIMEOUT_S", 0.1)
    yard.registry = Registry.open(str(tmp_path / "registry.sqlite3"))
    other = sqlite3.connect(tmp_path / "registry.sqlite3", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(RegistryError, match="refused"):
        yard.harvest(job)
    assert not yard.recorded
    other.execute("ROLLBACK")
    other.close()
    assert yard.harvest(replace(job, is_resumed=True))[0].outcome == "done"
    assert yard.registered("a") == {1: "a of 1"}


def test_two_harvests_of_one_report_make_one(tmp_path: Path) -> None:
    yard = make_yard(tmp_path, Backbone(str(tmp_path / "files")))
    job = yard.job(1)
    outcomes = []

    def other() -> None:
        with Registry.open(str(tmp_path / "registry.sqlite3")) as registry:
            outcomes.append(Yard(registry, yard.backbone, yard.types).harvest(job)[0].outcome)

    thread = threading.Thread(target=other)
    thread.start()
    outcomes.append(yard.harvest(job)[0].outcome)
    thread.join()
    assert outcomes == ["done", "done"]
    assert yard.registered("a") == {1: "a of 1"}
    assert yard.registry.quanta(RUN).height == 1
