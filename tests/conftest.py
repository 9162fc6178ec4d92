"""What several parts' tests need: the folder of real cases."""

import os
from pathlib import Path

import pytest

CASES = Path(os.environ.get("LOADMASTER_CASES", Path(__file__).parents[2] / "shared" / "data"))


@pytest.fixture(scope="session")
def cases() -> Path:
    """Return the folder with real registries, pipelines and answers, or skip."""
    if not (CASES / "registry").is_dir():
        pytest.skip(f"no real cases at {CASES}; set LOADMASTER_CASES to the folder that holds them")
    return CASES
