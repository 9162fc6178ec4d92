"""What tests of faults share: the toy survey and its tasks, and a store behind a proxy that does harm."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

for folder in (Path(__file__).parent, Path(__file__).parents[1] / "executors"):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

from proxy import Proxy, proxy_to  # noqa: E402


@pytest.fixture
def proxy(object_store: str) -> Iterator[Proxy]:
    """Return a proxy to the object store."""
    with proxy_to(os.environ["AWS_ENDPOINT_URL"]) as made:
        yield made
