"""A small survey of text files, for tests of the face."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pytest

from loadmaster import Repo
from loadmaster.cli import main

COPY = """\
import pathlib, sys, time
here, raw, copy = map(pathlib.Path, sys.argv[1:])
if (here / "slow").exists():
    time.sleep(60)
if (here / "broken").exists():
    sys.exit("no light")
copy.write_bytes(raw.read_bytes())
"""
GATHER = """\
import pathlib, sys
whole, *copies = map(pathlib.Path, sys.argv[1:])
whole.write_text("".join(copy.read_text() for copy in copies))
"""
PIPELINE = """\
description: copy, then gather
tasks:
  copy:
    dimensions: [exposure, detector]
    command: "PYTHON HERE/copy_frame.py HERE {inputs.raw.path} {outputs.copy.path}"
    inputs:
      raw: {dataset_type: raw, storage_class: Text, dimensions: [exposure, detector]}
    outputs:
      copy: {dataset_type: frame, storage_class: Text, dimensions: [exposure, detector]}
  gather:
    dimensions: [exposure]
    command: "PYTHON HERE/gather_frames.py {outputs.whole.path} {inputs.copies.path}"
    inputs:
      copies: {dataset_type: frame, storage_class: Text, dimensions: [exposure, detector], multiple: true}
    outputs:
      whole: {dataset_type: whole, storage_class: Text, dimensions: [exposure]}
"""
N_EXPOSURES, N_DETECTORS = 3, 2
MAIN = "import sys; from loadmaster.cli import main; sys.exit(main())"
Command = Callable[..., "Told"]
Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture(autouse=True)
def _own_surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the user's own aliases and repository out of the tests."""
    monkeypatch.setenv("LOADMASTER_REPOSITORIES", str(tmp_path / "repositories.yaml"))
    monkeypatch.delenv("LOADMASTER_REPO", raising=False)


@pytest.fixture
def survey(tmp_path: Path) -> Iterator[Repo]:
    """Yield a repository with 6 raw frames, which are text files."""
    with Repo.init(tmp_path / "survey") as repo:
        _insert_records(repo)
        for exposure in range(1, N_EXPOSURES + 1):
            for detector in range(N_DETECTORS):
                repo.put(
                    f"exposure {exposure} detector {detector}\n",
                    "raw",
                    run="Cam/raw",
                    dimensions=["exposure", "detector"],
                    storage_class="Text",
                    instrument="Cam",
                    exposure=exposure,
                    detector=detector,
                )
        yield repo


@pytest.fixture
def pipeline(tmp_path: Path) -> Path:
    """Return a pipeline of two commands: copy each frame, then gather the copies of each exposure.

    A file `broken` in the test's folder makes each copy fail, and one called `slow` makes it take long.
    """
    (tmp_path / "copy_frame.py").write_text(COPY)
    (tmp_path / "gather_frames.py").write_text(GATHER)
    path = tmp_path / "pipeline.yaml"
    path.write_text(PIPELINE.replace("PYTHON", sys.executable).replace("HERE", str(tmp_path)))
    return path


@dataclass(frozen=True)
class Told:
    """What a command left: its exit code, results, talk."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    """Return what runs `loadmaster` with some words, in this process: starting one a command takes long."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str | Path) -> Told:
        capfd.readouterr()
        returncode = main(list(map(str, words)))
        return Told(returncode, *capfd.readouterr())

    return run


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Return what starts `loadmaster` and does not wait; what still runs after the test is ended."""
    begun: list[subprocess.Popen[str]] = []

    def run(*words: str | Path) -> subprocess.Popen[str]:
        line = [sys.executable, "-P", "-c", MAIN, *map(str, words)]
        begun.append(
            subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
        )
        return begun[-1]

    yield run
    for process in begun:
        if process.poll() is None:
            process.kill()
        process.communicate()


def _insert_records(repo: Repo) -> None:
    names = [str(number + 1) for number in range(N_EXPOSURES)]
    detectors = range(N_DETECTORS)
    records = {
        "physical_filter": {"physical_filter": ["Cam-r"], "band": ["r"]},
        "day_obs": {"day_obs": [20260301]},
        "group": {"group": names},
        "detector": {"detector": detectors, "full_name": [f"S{number}" for number in detectors]},
        "exposure": {
            "exposure": [int(name) for name in names],
            "obs_id": names,
            "group": names,
            "physical_filter": ["Cam-r"] * N_EXPOSURES,
            "day_obs": [20260301] * N_EXPOSURES,
        },
    }
    with repo.registry.transaction() as write:
        write.insert_records("instrument", pl.DataFrame({"instrument": ["Cam"]}))
        for element, columns in records.items():
            write.insert_records(element, pl.DataFrame(columns).with_columns(instrument=pl.lit("Cam")))
