"""Storage that fails: full, read-only, and bytes that change in flight or at rest."""

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from loadmaster_executors import controller
from loadmaster_executors.controller import execute
from loadmaster_executors.local import LocalExecutor
from loadmaster_executors.run import RunFolder
from loadmaster_registry.errors import Error, RunError
from loadmaster_staging import fsck
from loadmaster_staging.harvest import Reported
from loadmaster_staging.location import staged
from toy_survey import RUN, Survey

TOTAL = {-1: "12"}


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Callable[[str, str], Path]]:
    """Return what mounts a file system in memory, of a size as "1m", at a folder below the test's."""
    mounted: list[Path] = []

    def mount(name: str, size: str) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        call = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
        done = subprocess.run(call, capture_output=True, check=False)
        if done.returncode:
            pytest.skip(f"cannot mount a file system here: {done.stderr.decode().strip()}")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


Mount = Callable[[str, str], Path]


def remount(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)


def fill(path: Path) -> None:
    """Write until nothing more can be written."""
    with open(path, "wb", buffering=0) as ballast, suppress(OSError):
        while ballast.write(b"x" * 4096):
            pass


def what_it_says(survey: Survey, run: RunFolder) -> str:
    """Return how a run that cannot end well explains itself."""
    try:
        found = survey.execute(run)
    except (Error, OSError) as error:
        return str(error)
    assert not found.is_good
    return str(found.failures)


def problems(survey: Survey) -> list[tuple[str, str]]:
    """Return what `fsck --deep` finds, by kind and file."""
    found = fsck.check(survey.registry, survey.backbone, deep=True, grace_s=0.0).problems
    return list(found.select("kind", "url").iter_rows())


def test_a_backbone_that_became_read_only_is_told_of_and_the_same_command_goes_on_later(
    tmp_path: Path, mount: Mount
) -> None:
    files = mount("files", "4m")
    survey = Survey.create(tmp_path, (1, 2, 3))
    run = survey.begin(survey.plan("Total"))
    remount(files, "ro")
    found = survey.execute(run)
    assert found.counts["done"] == 0
    assert {group.class_ for group in found.failures} == {"stage_out_failed"}
    assert all("Read-only" in group.message for group in found.failures)
    remount(files, "rw")
    assert survey.execute(run).is_good
    assert survey.contents("total") == TOTAL
    assert problems(survey) == []


def test_a_disk_that_fills_up_under_the_runs_own_folder_loses_nothing(tmp_path: Path, mount: Mount) -> None:
    home = mount("home", "2m")
    survey = Survey.create(tmp_path, (1, 2, 3))
    plan = survey.plan("Total")
    survey.folder = home
    run = survey.begin(plan)
    fill(home / "ballast")
    told = what_it_says(survey, run)
    assert "full" in told or "No space" in told
    (home / "ballast").unlink()
    assert survey.execute(run).is_good
    assert survey.contents("total") == TOTAL
    assert survey.staged() == []
    assert problems(survey) == []


@pytest.mark.parametrize("damage", ["truncated", "flipped"])
def test_what_was_damaged_after_the_job_reported_it_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    survey = Survey.create(tmp_path, (1, 2, 3))
    run = survey.begin(survey.plan("Total"))
    damaged = damage_staged(monkeypatch, damage, times=1)
    found = survey.execute(run)
    assert len(damaged) == 1
    assert found.is_good
    assert survey.contents("total") == TOTAL
    assert problems(survey) == []


def test_what_is_damaged_again_and_again_never_comes_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    survey = Survey.create(tmp_path, (1, 2, 3))
    run = survey.begin(survey.plan())
    with monkeypatch.context() as bad_disk:
        damage_staged(bad_disk, "flipped", times=-1)
        found = survey.execute(run)
    assert {group.class_ for group in found.failures} == {"checksum_mismatch"}
    assert survey.contents("doubled") == {}
    assert survey.staged() == []
    assert survey.execute(run).is_good
    assert survey.contents("doubled") == {1: "2", 2: "4", 3: "6"}
    assert problems(survey) == []


@pytest.mark.parametrize(
    ("damage", "kind"), [("truncated", "wrong_size"), ("flipped", "wrong_checksum"), ("removed", "missing")]
)
def test_what_is_damaged_at_rest_is_found_and_not_used(tmp_path: Path, damage: str, kind: str) -> None:
    survey = Survey.create(tmp_path, (1, 2, 3))
    run = survey.begin(survey.plan("Total"))
    assert survey.execute(run).is_good
    victim = tmp_path / "files" / "raw" / "2.txt"
    hurt(victim, damage)
    assert problems(survey) == [(kind, "raw/2.txt")]
    again = survey.plan("Total", run=f"{RUN}2")
    survey.folder = tmp_path / "again"
    found = survey.execute(survey.begin(again))
    assert [(group.class_, group.count) for group in found.failures] == [("stage_in_failed", 1)]
    assert set(survey.contents("doubled", f"{RUN}2")) == {1, 3}


def hurt(path: Path, damage: str) -> None:
    """Damage a file as a disk, or a person, does."""
    content = path.read_bytes()
    if damage == "removed":
        path.unlink()
    elif damage == "truncated":
        os.truncate(path, len(content) - 1)
    else:
        path.chmod(0o644)
        path.write_bytes(bytes([content[0] ^ 1]) + content[1:])


def damage_staged(monkeypatch: pytest.MonkeyPatch, damage: str, *, times: int) -> list[str]:
    """Let files be damaged between a job's report and the harvest; return the list of those that were."""
    done: list[str] = []
    real = controller.harvest

    def harvest(jobs: list[Reported], *rest: object) -> object:
        for job in jobs:
            for quantum in job.report.quanta:
                for file in quantum.outputs:
                    if len(done) != times:
                        done.append(file.name)
                        hurt(Path(staged(job.manifest.staging_url, file.name)), damage)
        return real(jobs, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(controller, "harvest", harvest)
    return done


def test_of_two_controllers_of_one_run_one_works_and_the_other_says_who(tmp_path: Path) -> None:
    survey = Survey.create(tmp_path, (1, 2, 3))
    run = survey.begin(survey.plan("Total"))
    told: list[str] = []

    def another(_: object) -> None:
        if not told:
            with pytest.raises(RunError, match="another process") as refused:
                execute(run, LocalExecutor(1), survey.registry, survey.backbone)
            told.append(str(refused.value))

    assert survey.execute(run, progress=another).is_good
    assert str(os.getpid()) in told[0]
    assert survey.contents("total") == TOTAL


def test_of_shards_that_nobody_refers_to_a_run_removes_its_own_at_its_end(tmp_path: Path) -> None:
    survey = Survey.create(tmp_path, (1, 2, 3))
    run = survey.begin(survey.plan())
    for owner in (run.token, "another"):
        survey.backbone.pack(RUN, owner, ".json", [b"{}"])
    assert len(problems(survey)) == 2
    assert survey.execute(run).is_good
    ((kind, left),) = problems(survey)
    assert kind == "orphan"
    assert left in survey.backbone.shards(RUN, "another")
    assert survey.backbone.shards(RUN, run.token) == []
