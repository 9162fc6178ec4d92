"""A small survey of text files, for tests of the face."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import polars as pl
import pytest

from loadmaster import Repo

N_EXPOSURES, N_DETECTORS = 3, 2
Command = Callable[..., subprocess.CompletedProcess[str]]


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

    A file called `broken` in the test's folder makes each copy fail, and one called `slow` makes it take long.
    """
    gather = "import sys; open(sys.argv[1], 'w').write(''.join(open(p).read() for p in sys.argv[2:]))"
    copy = (
        "import pathlib, sys, time; here = pathlib.Path(sys.argv[3]);"
        "time.sleep(30 if (here / 'slow').exists() else 0);"
        "sys.exit('no light') if (here / 'broken').exists() else"
        " pathlib.Path(sys.argv[2]).write_bytes(pathlib.Path(sys.argv[1]).read_bytes())"
    )
    path = tmp_path / "pipeline.yaml"
    path.write_text(f"""\
description: copy, then gather
tasks:
  copy:
    dimensions: [exposure, detector]
    command: '{sys.executable} -c "{copy}" {{inputs.raw.path}} {{outputs.copy.path}} {tmp_path}'
    inputs:
      raw: {{dataset_type: raw, storage_class: Text, dimensions: [exposure, detector]}}
    outputs:
      copy: {{dataset_type: frame, storage_class: Text, dimensions: [exposure, detector]}}
  gather:
    dimensions: [exposure]
    command: '{sys.executable} -c "{gather}" {{outputs.whole.path}} {{inputs.copies.path}}'
    inputs:
      copies: {{dataset_type: frame, storage_class: Text, dimensions: [exposure, detector], multiple: true}}
    outputs:
      whole: {{dataset_type: whole, storage_class: Text, dimensions: [exposure]}}
""")
    return path


@pytest.fixture
def command(tmp_path: Path) -> Command:
    """Return what runs `loadmaster` as a person would, in a process of its own."""

    def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
        line = [
            sys.executable,
            "-c",
            "import sys; from loadmaster.cli import main; sys.exit(main())",
            *map(str, words),
        ]
        return subprocess.run(line, capture_output=True, text=True, cwd=tmp_path, check=False)

    return run


def _insert_records(repo: Repo) -> None:
    exposures = range(1, N_EXPOSURES + 1)
    camera = pl.lit("Cam").alias("instrument")
    with repo.registry.transaction() as write:
        write.insert_records("instrument", pl.DataFrame({"instrument": ["Cam"]}))
        write.insert_records(
            "physical_filter",
            pl.DataFrame({"physical_filter": ["Cam-r"], "band": ["r"]}).select(camera, pl.all()),
        )
        write.insert_records("day_obs", pl.DataFrame({"day_obs": [20260301]}).select(camera, pl.all()))
        write.insert_records(
            "group", pl.DataFrame({"group": [str(e) for e in exposures]}).select(camera, pl.all())
        )
        detectors = pl.DataFrame(
            {"detector": range(N_DETECTORS), "full_name": [f"S{d}" for d in range(N_DETECTORS)]}
        )
        write.insert_records("detector", detectors.select(camera, pl.all()))
        frames = pl.DataFrame(
            {
                "exposure": exposures,
                "obs_id": [str(e) for e in exposures],
                "group": [str(e) for e in exposures],
            }
        )
        night = (pl.lit("Cam-r").alias("physical_filter"), pl.lit(20260301).alias("day_obs"))
        write.insert_records("exposure", frames.select(camera, pl.all(), *night))
