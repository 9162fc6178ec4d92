"""A backbone in an object store behind a bad line: a run ends well, or goes on when it is there again."""

import os
import signal
import time
from pathlib import Path
from uuid import uuid4

import pytest
from proxy import IMPATIENT, Proxy
from toy_run import REFUSED, command, started

pytestmark = pytest.mark.integration


@pytest.fixture
def env(proxy: Proxy) -> dict[str, str]:
    """Return the environment of processes that reach the store through the proxy."""
    return {"AWS_ENDPOINT_URL": proxy.url, "FSSPEC_S3": IMPATIENT}


@pytest.fixture
def run(tmp_path: Path, object_store: str) -> Path:
    """Return the folder of a survey with a plan that nobody has begun to do."""
    done = command("begin", tmp_path, f"{object_store}/{uuid4().hex}")
    assert done.returncode == 0, done.stderr
    return tmp_path


def test_a_run_lives_through_a_bad_line_and_goes_on_after_it_lost_its_store_or_its_life(
    run: Path, proxy: Proxy, env: dict[str, str]
) -> None:
    passing = [
        proxy.add("GET .*raw/1", cut_reply_after=200),  # inputs
        proxy.add("GET .*raw/2", status=503, code="SlowDown"),
        proxy.add("GET .*raw/3", bytes_per_s=2000),
        proxy.add("PUT .*staging.*copied", cut_sent_after=0),  # outputs
        proxy.add("PUT .*staging.*report", cut_reply_after=0, times=2),
        proxy.add("PUT .*u/me/run/all", cut_reply_after=0),  # published, and the reply is lost
        proxy.add("PUT .*u/me/run/all", status=500),
        proxy.add("PUT .*u/me/run/all", status=409, code="ConditionalRequestConflict"),
        proxy.add("DELETE .*staging", cut_reply_after=0),
    ]
    gone = proxy.add("GET .*report", status=500, times=-1)
    broken = command("go", run, env=env)
    assert broken.returncode == REFUSED, broken.stderr
    assert "do: see that the storage" in broken.stderr
    assert "Traceback" not in broken.stderr
    assert os.environ["AWS_SECRET_ACCESS_KEY"] not in broken.stderr
    gone.times = 0
    stuck = proxy.add("PUT .*u/me/run/copied", delay_s=600)
    with started("go", run, env=env) as victim:
        while not stuck.n_met and victim.poll() is None:
            time.sleep(0.02)
        victim.kill()
    assert victim.returncode == -signal.SIGKILL
    again = command("go", run, env=env)
    assert again.returncode == 0, again.stderr
    assert [fault.match for fault in passing if not fault.n_met] == []
    checked = command("check", run)
    assert checked.returncode == 0, checked.stderr
