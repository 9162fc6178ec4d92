"""Kill -9 anywhere: the same command finishes the run, nothing is lost, nothing is there twice."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

DRIVER = Path(__file__).with_name("kill_points.py")


@pytest.mark.parametrize("victim", ["controller", "job"])
def test_whatever_is_killed_at_any_point_the_same_command_makes_it_good(tmp_path: Path, victim: str) -> None:
    """The driver names its points; `job` covers killed workers too."""
    done = subprocess.run(
        [sys.executable, str(DRIVER), victim, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert len(found) >= 14
    assert {point: wrong for point, wrong in found.items() if wrong} == {}, done.stderr
