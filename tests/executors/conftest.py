"""What the executors' tests share: the toy tasks where workers find them too, and a survey to run them on."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = str(Path(__file__).parent)
if HERE not in sys.path:
    sys.path.insert(0, HERE)

from toy_survey import Survey  # noqa: E402


@pytest.fixture
def survey(tmp_path: Path) -> Iterator[Survey]:
    """Return a repository with the numbers of detectors 1 to 4."""
    made = Survey.create(tmp_path, range(1, 5))
    yield made
    made.registry.close()
