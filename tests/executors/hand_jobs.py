"""Jobs given to an executor by hand: manifests of shell scripts, and what became of them."""

import time
from collections.abc import Sequence
from pathlib import Path
from uuid import uuid4

from loadmaster_executors.executor import Ended
from loadmaster_executors.local import LocalExecutor
from loadmaster_pipelines.connections import Connection
from loadmaster_staging.manifest import InputFile, Manifest, OutputFile, QuantumSpec, Report, Staging
from loadmaster_staging.stage import read_report


def reads(name: str, *, multiple: bool = False, minimum: int = 1) -> Connection:
    return Connection(name, "input", name, "Text", multiple=multiple, minimum=minimum)


def writes(name: str) -> Connection:
    return Connection(name, "output", name, "Text")


def output(name: str) -> OutputFile:
    return OutputFile(name, str(uuid4()), name, {"visit": 1}, f"run/{name}.txt")


def of(file: OutputFile, connection: str = "") -> InputFile:
    """Return the output of an earlier quantum as an input."""
    return InputFile(connection or file.connection, file.dataset_id, file.dataset_type, file.data_id, url="")


def quantum(
    script: str,
    inputs: Sequence[InputFile] = (),
    outputs: Sequence[OutputFile] = (),
    connections: Sequence[Connection] = (),
) -> QuantumSpec:
    """Return a quantum that runs a shell script; $1 … are its outputs, then its inputs."""
    written = [f"{{outputs.{file.connection}.path}}" for file in outputs]
    read = [f"{{inputs.{c.name}.path}}" for c in connections]
    words = " ".join([*written, *read])
    return QuantumSpec(
        id=str(uuid4()),
        task="shell",
        task_class=None,
        command=f"sh -ec '{script}' - {words}",
        config={},
        data_id={"visit": 1},
        connections=(*connections, *(writes(file.connection) for file in outputs)),
        inputs=tuple(inputs),
        outputs=tuple(outputs),
    )


def job(
    folder: Path, *quanta: QuantumSpec, number: int = 0, cpus: int = 1, staging: Staging | None = None
) -> Manifest:
    url = str(folder / "staging" / f"{number}.1")
    return Manifest("run", number, 1, uuid4().hex, url, staging or Staging(), cpus, quanta)


def run(executor: LocalExecutor, manifest: Manifest) -> Report:
    executor.submit([manifest])
    (ended,) = wait(executor, 1)
    assert ended.token == manifest.token
    assert ended.returncode == 0
    report = read_report(manifest.staging_url, manifest.token)
    assert report is not None
    return report


def wait(executor: LocalExecutor, n: int) -> list[Ended]:
    found: list[Ended] = []
    deadline = time.monotonic() + 60
    while len(found) < n and time.monotonic() < deadline:
        found += executor.status(1.0)
    return found


def statuses(report: Report) -> list[str]:
    return [quantum.status for quantum in report.quanta]


def staged(manifest: Manifest) -> dict[str, str]:
    prefix = Path(f"{manifest.staging_url}-")
    names = (path.name.removeprefix(prefix.name) for path in prefix.parent.glob(f"{prefix.name}*"))
    return {name: Path(f"{prefix}{name}").read_text() for name in names if not name.startswith(".")}
