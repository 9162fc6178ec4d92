"""Kill -9 at named points: a process that forks one victim after another, and looks at what each left.

    python kill_points.py controller|job FOLDER

It prints a JSON object: point → what was wrong afterwards ("" where nothing was).

The process itself never uses Polars, whose threads do not survive a fork; only its children do.
"""

import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from loadmaster_executors import controller
from loadmaster_executors.journal import Journal
from loadmaster_executors.local import LocalExecutor
from loadmaster_executors.run import RunFolder
from loadmaster_planner.plan import Plan
from loadmaster_registry.store import Registry
from loadmaster_staging import fsck, harvest
from loadmaster_staging.backbone import Backbone
from loadmaster_staging.shards import Shards
from toy_survey import RUN, Survey

# What the controller does that outlives it; the number says at which call to kill.
POINTS: dict[str, tuple[Any, str, int]] = {
    "the plan is written": (Plan, "write", 1),
    "the journal is made": (Journal, "create", 1),
    "the run is registered": (controller, "open_run", 1),
    "workers are made sure to be gone": (LocalExecutor, "prepare", 1),
    "jobs are given to workers": (LocalExecutor, "submit", 1),
    "a report is read": (controller, "read_report", 1),
    "what is staged is compared with the report": (harvest, "staged_signature", 1),
    "an output is published": (Backbone, "publish", 1),
    "a later job's output is published": (Backbone, "publish", 3),
    "small outputs are packed": (Backbone, "pack", 1),
    "what the run needs is leased": (Registry, "transaction", 2),
    "rows are entered": (harvest, "_insert", 1),
    "a transaction of the registry ends": (Registry, "transaction", 3),
    "a later transaction of the registry ends": (Registry, "transaction", 4),
    "the lease is given back": (Registry, "transaction", 5),
    "logs are kept": (controller, "keep_logs", 1),
    "logs are appended to a shard": (Shards, "append", 1),
    "the ends of jobs are written down": (controller, "write_endings", 1),
    "what is staged is removed": (Backbone, "remove_staged", 1),
    "more of what is staged is removed": (Backbone, "remove_staged", 2),
    "workers are told to go": (LocalExecutor, "close", 1),
    "the journal is written 1": (Journal, "batch", 1),
    "the journal is written 2": (Journal, "batch", 2),
    "the journal is written 3": (Journal, "batch", 3),
    "the journal is written 4": (Journal, "batch", 4),
    "the journal is written 5": (Journal, "batch", 5),
    "the journal is written 6": (Journal, "batch", 6),
}

# Functions that the job runner calls, where it finds them, and who dies there.
JOB_POINTS = {
    "job: inputs come": "stage_in",
    "job: an input is linked": "loadmaster_staging.links:Links.link",
    "job: an input is hashed": "loadmaster_staging.inputs:measure",
    "job: an output is hashed": "loadmaster_staging.stage:measure",
    "job: an output is moved": "loadmaster_staging.stage:_send",
    "job: a log is sent": "send_log",
    "job: the report is written aside": "pathlib:Path.write_bytes",
    "job: quanta run": "run_quanta",
    "job: outputs go": "stage_out",
    "job: the report is written": "write_report",
    "job: its folder is cleared": "clear_folder",
    "worker: inputs come": "stage_in",
    "worker: the report is written": "write_report",
}


def kill_at(owner: Any, name: str, call: int, *, before: bool) -> None:
    """Make this process kill itself before or after the n-th call of a function or end of a block."""
    real = getattr(owner, name)
    left = [call]

    def is_time() -> bool:
        left[0] -= 1
        return left[0] == 0

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if name in ("batch", "transaction"):
            return Block(real(*args, **kwargs), is_time, before)
        now = is_time()
        if now and before:
            die()
        result = real(*args, **kwargs)
        if now:
            die()
        return result

    setattr(owner, name, wrapped)


class Block:
    """A context manager that dies before or after the end of its block."""

    def __init__(self, real: Any, is_time: Callable[[], bool], before: bool) -> None:
        self._real = real
        self._now = is_time()
        self._before = before

    def __enter__(self) -> Any:
        return self._real.__enter__()

    def __exit__(self, *error: Any) -> Any:
        if self._now and self._before:
            die()
        result = self._real.__exit__(*error)
        if self._now:
            die()
        return result


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


COMMANDS = """
description: commands start at once
tasks:
  copy:
    dimensions: [instrument, detector]
    command: cp {inputs.number.path} {outputs.copied.path}
    inputs: {number: {dataset_type: number, storage_class: Text, dimensions: [instrument, detector]}}
    outputs: {copied: {dataset_type: copied, storage_class: Text, dimensions: [instrument, detector]}}
  gather:
    dimensions: [instrument]
    command: sh -c 'echo gathering; exec sort -o "$@"' - {outputs.all.path} {inputs.copied.path}
    inputs:
      copied: {dataset_type: copied, storage_class: Text, dimensions: [instrument, detector], multiple: true}
      about:
        {dataset_type: copy_metadata, storage_class: TaskMetadata, dimensions: [instrument, detector], multiple: true}
    outputs:
      all: {dataset_type: all, storage_class: Text, dimensions: [instrument]}
"""
CLASSES = "description: classes\ntasks: {copy: {class: dying_tasks.Copy}}\n"


def begin(folder: Path, pipeline: str) -> None:
    """Make a survey and its plan."""
    Survey.create(folder, (1, 2)).plan_yaml(pipeline).write(folder / "planned")


def go(folder: Path) -> None:
    """Give the command: begin the run or go on with it."""
    survey = Survey.open(folder)
    run = RunFolder.create(folder / "run", Plan.open(folder / "planned"))
    survey.execute(run)


def look(folder: Path) -> None:
    """What is registered is there and right, even now."""
    survey = Survey.open(folder)
    names = {type.name for type in survey.registry.dataset_types()}
    for name in names & {"copied", "all", "copy_metadata"}:
        survey.contents(name)


def check(folder: Path) -> None:
    """All is as if nothing had happened."""
    survey = Survey.open(folder)
    run = RunFolder.open(folder / "run")
    n_jobs = run.plan.n_jobs
    assert survey.contents("copied") == {1: "1", 2: "2"}, "copied"
    if n_jobs == 3:
        assert survey.contents("all") == {-1: "1\n2\n"}, "all"
        assert set(survey.contents("copy_metadata")) == {1, 2}, "metadata"
    named = {name for name in survey.files_of_run() if not name.startswith(".shards/")}
    assert len(named) == n_jobs, f"files: {named}"
    assert survey.registry.quanta(RUN).height == n_jobs, "quanta"
    assert survey.staged() == [], f"staged: {survey.staged()}"
    assert run.journal.counts()["done"] == n_jobs, "journal"
    assert not run.is_attended, "attended"
    assert not (folder / "run" / "scratch").exists(), "scratch"
    found = fsck.check(survey.registry, survey.backbone, deep=True, grace_s=0.0)
    assert found.problems.is_empty(), f"fsck: {found.problems}"
    assert found.n_read == found.n_files >= 2 + n_jobs, "fsck read too few"


def forked(act: Callable[..., object], *args: object) -> int:
    """Run `act` in a child and return its exit code, negative for a signal."""
    child = os.fork()
    if child == 0:
        try:
            act(*args)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def controller_killed(folder: Path, point: str, when: str) -> str:
    def victim() -> None:
        owner, name, call = POINTS[point]
        kill_at(owner, name, call, before=when == "before")
        go(folder)

    if forked(begin, folder, COMMANDS):
        return "it could not begin"
    if (code := forked(victim)) != -signal.SIGKILL:
        return f"the point was never reached: exit code {code}"
    return what_is_wrong(folder)


def job_killed(folder: Path, point: str, when: str) -> str:
    def wounded() -> None:
        os.environ["TOY_DEATH"] = f"{JOB_POINTS[point]} {when} {point.partition(':')[0]} {folder}/died"
        go(folder)

    if forked(begin, folder, CLASSES) or forked(wounded):
        return "it could not begin"
    if not (folder / "died").exists():
        return "the point was never reached"
    return what_is_wrong(folder)


def what_is_wrong(folder: Path) -> str:
    for what, act in (("look", look), ("again", go), ("check", check)):
        if forked(act, folder):
            return f"{what} failed"
    return ""


def main() -> None:
    victim, root = sys.argv[1], Path(sys.argv[2])
    points, kill = (POINTS, controller_killed) if victim == "controller" else (JOB_POINTS, job_killed)
    found = {}
    for number, point in enumerate(points):
        for when in ("before", "after"):
            folder = root / f"{number}-{when}"
            folder.mkdir()
            found[f"{when} {point}"] = kill(folder, point, when)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
