"""`loadmaster cache`: filled before a journey, read without a network, looked at, verified, cleared."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from uuid import uuid4

import polars as pl
import pytest
from loadmaster_registry.errors import StageError
from loadmaster_registry.records import DatasetType
from loadmaster_staging.checksum import measure
from loadmaster_staging.endpoints import Endpoints

from loadmaster import Repo

Command = Callable[..., Any]
PIPELINE = """\
description: reads what is far away
tasks:
  look:
    dimensions: [exposure, detector]
    command: "cp {inputs.far.path} {outputs.near.path}"
    inputs:
      far: {dataset_type: far, storage_class: Text, dimensions: [exposure, detector]}
    outputs:
      near: {dataset_type: near, storage_class: Text, dimensions: [exposure, detector]}
"""


class Server(ThreadingHTTPServer):
    """Serves a folder, and counts what it is asked for."""

    asked: list[str]


class Handler(SimpleHTTPRequestHandler):
    def do_GET(self) -> None:
        self.server.asked.append(self.path)  # type: ignore[attr-defined]
        super().do_GET()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def far(tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "far").mkdir()
    server = Server(("127.0.0.1", 0), lambda *args: Handler(*args, directory=str(tmp_path / "far")))  # type: ignore[arg-type]
    server.asked = []
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def repo(survey: Repo, far: Server, tmp_path: Path) -> Repo:
    """Return a repository in which every raw has a companion on a web server."""
    raws = survey.query_datasets("raw", "Cam/raw")
    keys = list(survey.registry.dataset_type("raw").dimensions.required)
    rows = []
    for number in range(raws.height):
        path = tmp_path / "far" / f"{number}.txt"
        path.write_text(f"far away {number}\n")
        found = measure(str(path))
        url = f"http://127.0.0.1:{far.server_port}/{number}.txt"
        rows.append((uuid4().bytes, url, found.size_bytes, found.checksum))
    files = pl.DataFrame(rows, schema=["id", "url", "size_bytes", "checksum"], orient="row")
    with survey.registry.transaction() as t:
        t.register_dataset_type(DatasetType("far", survey.registry.universe.group(keys), "Text"))
        t.insert_datasets("far", "Cam/raw", raws.select(keys).hstack(files))
    return survey


def site_file(tmp_path: Path, name: str, **settings: object) -> Path:
    lines = {
        "executor": "local",
        "jobs": 2,
        "transfer": "cache",
        "cache": str(tmp_path / "cache"),
        **settings,
    }
    path = tmp_path / f"{name}.yaml"
    path.write_text("".join(f"{key}: {json.dumps(value)}\n" for key, value in lines.items()))
    return path


def pulled(told: Any) -> tuple[int, int]:
    assert told.returncode == 0, told.stderr
    facts = json.loads(told.stdout)
    return facts["n_files"], facts["n_new"]


def test_what_a_query_finds_can_be_read_without_a_network(
    repo: Repo, far: Server, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    online, offline = site_file(tmp_path, "desk"), site_file(tmp_path, "train", offline=True)
    pull = (
        "cache",
        "pull",
        "far",
        "-i",
        "Cam/raw",
        "--where",
        "instrument='Cam' AND detector=1",
        "--site",
        online,
        "--json",
    )
    n = repo.query_datasets("far", "Cam/raw", where="instrument='Cam' AND detector=1").height
    assert pulled(command(*pull, "--repo", repo.place.folder)) == (n, n)
    assert pulled(command(*pull, "--repo", repo.place.folder)) == (n, 0)
    assert len(far.asked) == n
    far.shutdown()
    monkeypatch.setenv("LOADMASTER_SITE", str(offline))
    there = repo.query_datasets("far", "Cam/raw", where="instrument='Cam' AND detector=1").row(0, named=True)
    missing = repo.query_datasets("far", "Cam/raw", where="instrument='Cam' AND detector!=1").row(
        0, named=True
    )
    with Repo(repo.place.folder) as opened:
        keys = opened.registry.dataset_type("far").dimensions.required
        assert opened.get("far", {k: there[k] for k in keys}, collections="Cam/raw").startswith("far away")
        with pytest.raises(StageError, match="offline") as caught:
            opened.get("far", {k: missing[k] for k in keys}, collections="Cam/raw")
        assert missing["url"] in str(caught.value)
    assert len(far.asked) == n


def test_a_plan_runs_offline_once_its_inputs_were_pulled(
    repo: Repo, far: Server, tmp_path: Path, command: Command
) -> None:
    (tmp_path / "far.yaml").write_text(PIPELINE)
    here = ("--repo", repo.place.folder)
    plan = tmp_path / "far.plan"
    made = command("plan", tmp_path / "far.yaml", "-i", "Cam/raw", "-o", "u/me/far", "--save", plan, *here)
    assert made.returncode == 0, made.stderr
    offline = site_file(tmp_path, "train", offline=True)
    early = command("submit", plan, "--site", offline, *here)
    assert early.returncode == 1
    assert "loadmaster cache pull" in command("report", "u/me/far", *here).stdout + early.stdout
    n = repo.query_datasets("far", "Cam/raw").height
    told = command("cache", "pull", plan, "--site", site_file(tmp_path, "desk"), "--json", *here)
    assert pulled(told) == (n, n)
    far.shutdown()
    late = command("submit", plan, "--site", offline, *here)
    assert late.returncode == 0, late.stderr + late.stdout
    assert len(far.asked) == n


def test_what_cannot_be_pulled_is_told_and_the_rest_is_there(
    repo: Repo, tmp_path: Path, command: Command
) -> None:
    (tmp_path / "far" / "0.txt").unlink()
    (tmp_path / "far" / "1.txt").write_text("not what was recorded")
    site = site_file(tmp_path, "desk")
    n = repo.query_datasets("far", "Cam/raw").height
    told = command("cache", "pull", "far", "-i", "Cam/raw", "--site", site, "--repo", repo.place.folder)
    assert told.returncode == 1
    assert f"2 of {n} files are not in the cache" in told.stderr
    assert "/0.txt" in told.stderr
    assert "its checksum is" in told.stderr or "were promised" in told.stderr
    shown = json.loads(command("cache", "show", "--site", site, "--json").stdout)
    assert shown["n_entries"] == n - 2


def test_a_cache_is_shown_verified_and_cleared(repo: Repo, tmp_path: Path, command: Command) -> None:
    site = site_file(tmp_path, "desk", cache_bytes="1GB")
    n = repo.query_datasets("far", "Cam/raw").height
    pulled(
        command(
            "cache", "pull", "far", "-i", "Cam/raw", "--site", site, "--json", "--repo", repo.place.folder
        )
    )
    text = command("cache", "show", "--site", site).stdout
    assert f"{n} objects" in text
    assert "/0.txt" in text
    assert command("cache", "verify", "--site", site).returncode == 0
    entry = next((tmp_path / "cache" / "objects").glob("*/*"))
    entry.chmod(0o644)
    entry.write_text("spoilt")
    told = command("cache", "verify", "--site", site)
    assert told.returncode == 1
    assert str(entry) in told.stdout
    assert json.loads(command("cache", "show", "--site", site, "--json").stdout)["n_entries"] == n - 1
    assert command("cache", "clear", "--unused-for", "1", "--site", site).returncode == 0
    assert json.loads(command("cache", "show", "--site", site, "--json").stdout)["n_entries"] == n - 1
    assert "are free now" in command("cache", "clear", "--site", site).stderr
    assert json.loads(command("cache", "show", "--site", site, "--json").stdout)["n_entries"] == 0


def test_a_site_without_a_cache_and_a_misspelt_type_are_answered(
    repo: Repo, tmp_path: Path, command: Command
) -> None:
    here = ("--repo", repo.place.folder)
    told = command("cache", "pull", "far", "-i", "Cam/raw", *here)
    assert told.returncode == 3
    assert "has no cache" in told.stderr
    told = command("cache", "pull", "fra", "-i", "Cam/raw", "--site", site_file(tmp_path, "desk"), *here)
    assert told.returncode == 3
    assert "did you mean" in told.stderr
    assert "'far'" in told.stderr
    assert command("cache", "pull", "far", "--site", site_file(tmp_path, "desk"), *here).returncode == 2


def test_status_says_which_server_is_paused_since_when_and_why(
    survey: Repo, pipeline: Path, command: Command
) -> None:
    here = ("--repo", survey.place.folder)
    command("run", pipeline, "-i", "Cam/raw", "-o", "u/me/x", "--where", "instrument='Cam'", *here)
    (run,) = Repo(survey.place.folder).runs()
    endpoints = Endpoints(run.folder.path / "endpoints", 4, 600)
    for _ in range(5):
        endpoints.failed("s3://faraway", "connection refused")
    told = command("status", run.name, *here).stdout
    assert "s3://faraway: paused until" in told
    assert "5 failures in a row since" in told
    assert "connection refused" in told
    assert "inputs come by hard link from" in told
    (facts,) = json.loads(command("status", run.name, "--json", *here).stdout)
    (endpoint,) = facts["endpoints"]
    assert (endpoint["endpoint"], endpoint["failures"]) == ("s3://faraway", 5)
    assert endpoint["paused_until"] > endpoint["since"]
    endpoints.answered("s3://faraway")
    assert "s3://faraway" not in command("status", run.name, *here).stdout
