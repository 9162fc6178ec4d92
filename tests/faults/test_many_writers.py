"""Sixteen processes write to one repository: each comes to its turn, nothing is lost, nothing is there twice."""

import json
import os
import subprocess
import sys
from pathlib import Path

import many_writers


def test_of_sixteen_writers_at_once_all_find_all_they_wrote(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, many_writers.__file__, str(tmp_path), "16"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found == {"n_found": [many_writers.N_EACH] * 16, "n_problems": 0, "staged": []}
