"""A run of the toy survey by a process of its own, to be disturbed and then begun again by the same command.

python toy_run.py begin FOLDER BACKBONE | go FOLDER | check FOLDER
"""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from loadmaster_executors.run import RunFolder
from loadmaster_planner.plan import Plan
from loadmaster_registry.errors import Error
from loadmaster_staging import fsck
from toy_survey import RUN, Survey

PIPELINE = """
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
    inputs: {copied: {dataset_type: copied, storage_class: Text, dimensions: [instrument, detector], multiple: true}}
    outputs:
      all: {dataset_type: all, storage_class: Text, dimensions: [instrument]}
"""
DETECTORS = (1, 2, 3)
REFUSED = 3  # exit code: an error in words


def begin(folder: Path, backbone: str) -> None:
    """Make a survey and its plan."""
    Survey.create(folder, DETECTORS, backbone).plan_yaml(PIPELINE).write(folder / "planned")


def go(folder: Path) -> None:
    """Begin the run or go on with it."""
    report = Survey.open(folder).execute(RunFolder.create(folder / "run", Plan.open(folder / "planned")))
    assert report.is_good, report


def check(folder: Path) -> None:
    """All is as if nothing had happened, in registry and store alike."""
    survey = Survey.open(folder)
    run = RunFolder.open(folder / "run")
    n_jobs = len(DETECTORS) + 1
    assert survey.contents("copied") == {detector: str(detector) for detector in DETECTORS}
    assert survey.contents("all") == {-1: "".join(f"{detector}\n" for detector in DETECTORS)}
    assert survey.registry.quanta(RUN).height == n_jobs
    assert survey.staged() == [], survey.staged()
    assert run.journal.counts()["done"] == n_jobs
    found = fsck.check(survey.registry, survey.backbone, deep=True, grace_s=0.0)
    assert found.problems.is_empty(), found.problems
    assert found.n_read == found.n_files == len(DETECTORS) + n_jobs


def command(
    what: str, *words: str | Path, env: Mapping[str, str] | None = None, timeout_s: float = 120
) -> subprocess.CompletedProcess[str]:
    """Run this file as a process, and return how it ended."""
    with started(what, *words, env=env) as process:
        try:
            out, err = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def started(what: str, *words: str | Path, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    """Start this file as a process."""
    return subprocess.Popen(
        [sys.executable, __file__, what, *map(str, words)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **(env or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


if __name__ == "__main__":
    act, place, *rest = sys.argv[1:]
    try:
        {"begin": begin, "go": go, "check": check}[act](Path(place), *rest)
    except Error as error:
        print(error, file=sys.stderr)
        sys.exit(REFUSED)
