"""The clock is set while a run goes on: nobody waits for a time that was, and none is taken for over before its end."""

import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from loadmaster_staging.checksum import measure
from loadmaster_staging.endpoints import Endpoints, endpoint_of
from loadmaster_staging.inputs import stage_in
from loadmaster_staging.manifest import Staging

sys.path.insert(0, str(Path(__file__).parents[1] / "staging"))

from staged_files import web_server
from toy_survey import Survey

DAY_S = 86_400.0
Set = Callable[[float], None]


@pytest.fixture
def set_clock(monkeypatch: pytest.MonkeyPatch) -> Set:
    """Return what moves the wall clock of this process by so many seconds."""
    real, offset = time.time, [0.0]
    monkeypatch.setattr(time, "time", lambda: real() + offset[0])

    def move(seconds: float) -> None:
        offset[0] += seconds

    return move


@pytest.mark.parametrize("jump_s", [-DAY_S, DAY_S])
def test_a_transfer_that_is_tried_again_does_not_wait_for_the_clock(
    tmp_path: Path, set_clock: Set, jump_s: float
) -> None:
    with web_server() as web:
        file = web.file("x", b"bytes")
        web.errors["/x"] = 2
        threading.Timer(0.1, set_clock, (jump_s,)).start()
        began = time.monotonic()
        paths = stage_in([file], tmp_path / "in", Staging(patience_s=20))
        assert time.monotonic() - began < 10
        assert measure(str(paths[file.dataset_id])).checksum == file.checksum


def test_a_pause_that_was_begun_before_the_clock_was_set_back_is_over(tmp_path: Path) -> None:
    endpoint = endpoint_of("http://example.org/x")
    endpoints = Endpoints(tmp_path, 4, 30.0)
    for _ in range(5):
        health = endpoints.failed(endpoint, "no answer")
    assert health.until > time.time()
    path = next(tmp_path.glob("*.health"))
    path.write_text(path.read_text().replace(f"{health.until}", f"{health.until + DAY_S}"))
    assert endpoints.health(endpoint).until == 0.0
    assert endpoints.health(endpoint).why == "no answer"


@pytest.mark.parametrize("jump_s", [-DAY_S, DAY_S])
def test_a_run_is_none_the_wiser_when_the_clock_jumps_between_and_during_its_calls(
    tmp_path: Path, set_clock: Set, jump_s: float
) -> None:
    survey = Survey.create(tmp_path, range(1, 4))
    run = survey.begin(survey.plan("Total", config={"raises": (2,)}))
    moved = []

    def progress(_: object) -> None:
        if not moved:
            moved.append(set_clock(jump_s))

    assert survey.execute(run, progress=progress).counts["failed"] == 1
    set_clock(-2 * jump_s)
    found = survey.execute(run)
    assert found.counts["failed"] == 1
    assert set(survey.contents("doubled")) == {1, 3}
    assert survey.staged() == []
