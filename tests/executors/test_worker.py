"""Worker processes: light to start, warm when they fork, gone with their controller."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from loadmaster_executors.executor import RunPlace
from loadmaster_executors.lease import Lease, end_holders, holder
from loadmaster_executors.local import LocalExecutor
from loadmaster_registry.errors import RunError

HEAVY = {
    "sqlalchemy",
    "polars",
    "astropy",
    "numpy",
    "scipy",
    "pydantic",
    "fsspec",
    "networkx",
    "yaml",
    "click",
}


@pytest.mark.parametrize("module", ["worker", "job", "quantum"])
def test_the_job_runner_imports_nothing_heavy(module: str) -> None:
    code = f"import sys, loadmaster_executors.{module}; print(*{{m.partition('.')[0] for m in sys.modules}})"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not HEAVY & set(loaded)


def test_a_worker_answers(tmp_path: Path) -> None:
    executor = LocalExecutor(2)
    executor.prepare(RunPlace(tmp_path, "t", ("json",)))
    assert executor.ping().startswith("local: 2 at once, Python 3.")
    executor.close()
    assert end_holders(tmp_path / "workers" / "0.lease", 0)


def test_a_worker_that_cannot_start_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    executor = LocalExecutor(1)
    executor.prepare(RunPlace(tmp_path, "t", ()))
    with pytest.raises(RunError, match="does not start"):
        executor.ping()
    executor.close()


def start_worker(folder: Path, modules: list[str]) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-m", "loadmaster_executors.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdin is not None
    hello = {"lease": str(folder / "w.lease"), "path": [*sys.path, str(folder)], "modules": modules}
    process.stdin.write(json.dumps(hello).encode() + b"\n")
    process.stdin.flush()
    return process


def test_a_worker_goes_when_its_controller_is_gone(tmp_path: Path) -> None:
    process = start_worker(tmp_path, [])
    assert process.stdout is not None
    assert process.stdin is not None
    assert json.loads(process.stdout.readline())["news"] == "ready"
    assert holder(tmp_path / "w.lease") == str(process.pid)
    process.stdin.close()
    assert process.wait(30) == 0
    process.stdout.close()


def test_a_module_that_cannot_be_imported_does_not_keep_a_worker_from_starting(tmp_path: Path) -> None:
    (tmp_path / "noisy.py").write_text(
        "print('hello'); import os; os.write(1, b'hello'); raise SystemExit(1)\n"
    )
    process = start_worker(tmp_path, ["noisy", "no_such_module"])
    out, err = process.communicate(timeout=60)
    assert [json.loads(line)["news"] for line in out.splitlines()] == ["ready"]
    assert b"no_such_module" in err


def test_a_lease_ends_with_its_holder_and_its_holders_children(tmp_path: Path) -> None:
    path = tmp_path / "l"
    code = (
        "import os, subprocess, sys, time; from pathlib import Path\n"
        "from loadmaster_executors.lease import Lease\n"
        "lease = Lease.take(Path(sys.argv[1])); lease.say(str(os.getpid())); lease.share()\n"
        "subprocess.Popen(['sleep', '100'], close_fds=False)\n"
        "print('held', flush=True); time.sleep(100)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, start_new_session=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    process.kill()
    process.wait()
    assert Lease.take(path) is None, "the child holds it still"
    assert end_holders(path, 30)
    process.stdout.close()


def test_a_process_that_only_has_the_number_of_a_former_holder_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "l"
    bystander = subprocess.Popen(["sleep", "100"], start_new_session=True)
    lease = Lease.take(path)
    assert lease is not None
    lease.say(str(bystander.pid))
    assert not end_holders(path, 0.2)
    assert bystander.poll() is None
    lease.give_back()
    bystander.kill()
    bystander.wait()


def test_processes_of_an_earlier_life_are_ended_before_anything_runs(tmp_path: Path) -> None:
    process = start_worker(tmp_path, [])
    assert process.stdout is not None
    process.stdout.readline()
    os.kill(process.pid, signal.SIGSTOP)  # it hangs, and does not hear that its controller is gone
    (tmp_path / "workers").mkdir()
    (tmp_path / "w.lease").rename(tmp_path / "workers" / "0.lease")
    begun = time.monotonic()
    LocalExecutor(1).prepare(RunPlace(tmp_path, "t", ()))
    assert process.wait(10) == -signal.SIGKILL
    assert time.monotonic() - begun < 30
    process.stdout.close()
