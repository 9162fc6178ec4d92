"""One quantum inside a job: its handles, its code, and what became of it.

Light: the job runner imports this.
"""

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TypeVar
from uuid import UUID

from loadmaster_pipelines.command import fill
from loadmaster_pipelines.connections import Connection
from loadmaster_pipelines.handles import InputHandle, Inputs, NoWork, OutputHandle, Outputs
from loadmaster_staging.manifest import InputFile, OutputFile, QuantumReport, QuantumSpec
from loadmaster_staging.stage import WrittenFile

from .evidence import CommandEnded, Verdict, tail, verdict
from .folder import JobFolder

_H = TypeVar("_H", InputHandle, OutputHandle)


@dataclass(frozen=True, slots=True)
class Finished:
    """A quantum that is over: its report, and the files it wrote that are to be staged."""

    report: QuantumReport
    written: tuple[WrittenFile, ...] = ()


def run_quantum(spec: QuantumSpec, index: int, folder: JobFolder) -> Finished:
    """Run the code of one quantum on files of the job's folder; whatever it raises becomes its status.

    Outputs of a quantum that succeeded can be read by later ones of the same job.
    """
    wall_s, cpu_s = time.monotonic(), _cpu_s()
    found = _judged(_run(spec, index, folder), spec, folder)
    written = _written(spec, folder) if found.status in ("succeeded", "missing_output") else ()
    folder.freeze(file.path for file in written)
    if found.status == "succeeded":
        folder.readable.update((file.dataset_id, file.path) for file in written)
    report = QuantumReport(
        id=spec.id,
        status=found.status,
        error=found.error,
        message=found.message,
        first_frame=found.first_frame,
        traceback=found.traceback,
        wall_s=round(time.monotonic() - wall_s, 6),
        cpu_s=round(_cpu_s() - cpu_s, 6),
    )
    elided = {file.dataset_id for file in spec.outputs if file.is_elided}
    return Finished(report, tuple(file for file in written if file.dataset_id not in elided))


def _run(spec: QuantumSpec, index: int, folder: JobFolder) -> Verdict:
    if taken := [path.name for path in _output_paths(spec, folder) if os.path.lexists(path)]:
        message = f"an earlier quantum of the job wrote {', '.join(taken)}, which is not its own"
        return Verdict("overwrite_attempt", message=message)
    log = folder.log(index)
    started = time.time()
    try:
        with _captured(log), _working_in(folder.work(index)) as work:
            _execute(spec, folder, work, log)
            _write_automatic(spec, folder, started, log)
    except NoWork as nothing:
        return Verdict("no_work", message=nothing.reason)
    except BaseException as error:  # whatever a task raises, SystemExit too, ends itself and nothing else
        return verdict(error, spec.task_class or "", folder.frozen)
    return Verdict("succeeded")


def _judged(found: Verdict, spec: QuantumSpec, folder: JobFolder) -> Verdict:
    """Return the verdict after a look at the files."""
    if changed := [path.name for path in folder.changed()]:
        message = f"{', '.join(changed)} was written, but is there to be read only"
        return Verdict("overwrite_attempt", found.error, message, found.first_frame, found.traceback)
    if found.status == "succeeded":
        paths = {file.path for file in _written(spec, folder)}
        missing = [file for file in spec.outputs if folder.outputs[file.dataset_id] not in paths]
        if missing:
            names = ", ".join(f"{f.dataset_type} ({f.connection})" for f in missing)
            return Verdict("missing_output", message=f"the task ended well without writing {names}")
    return found


def _execute(spec: QuantumSpec, folder: JobFolder, work: Path, log: Path) -> None:
    if spec.task_class is not None:
        _run_class(spec, folder)
    else:
        _run_command(spec, folder, work, log)


def _run_class(spec: QuantumSpec, folder: JobFolder) -> None:
    module, _, name = str(spec.task_class).rpartition(".")
    task = getattr(import_module(module), name)
    _seed(UUID(spec.id))
    inputs = {c.name: _shaped(c, _input_handles(c, spec, folder)) for c in spec.connections if _is_input(c)}
    outputs = {
        c.name: _shaped(c, _output_handles(c, spec, folder)) for c in spec.connections if _is_output(c)
    }
    config = task.Config.model_validate(dict(spec.config))
    task(config).run(Inputs(spec.data_id, inputs), Outputs(spec.data_id, outputs))


def _run_command(spec: QuantumSpec, folder: JobFolder, work: Path, log: Path) -> None:
    line = fill(
        str(spec.command),
        inputs={
            c.name: _paths(_inputs_of(c, spec, folder), folder.readable)
            for c in spec.connections
            if c.is_read
        },
        outputs={
            c.name: _paths(_outputs_of(c, spec), folder.outputs) for c in spec.connections if not c.is_read
        },
        config=spec.config,
        data_id=spec.data_id,
        folder=work,
    )
    for path, text in line.lists.items():
        path.write_text(text)
    # Descriptors stay open: with the worker's lease inherited, a command that outlives its job is noticed.
    process = subprocess.Popen(line.argv, cwd=work, close_fds=False)
    if returncode := process.wait():
        raise CommandEnded(returncode, line.argv[0], tail(log))


def _is_input(connection: Connection) -> bool:
    return connection.is_read and not connection.is_init


def _is_output(connection: Connection) -> bool:
    return connection.kind == "output" and not connection.automatic


def _inputs_of(connection: Connection, spec: QuantumSpec, folder: JobFolder) -> list[InputFile]:
    return [
        file
        for file in spec.inputs
        if file.connection == connection.name and file.dataset_id in folder.readable
    ]


def _outputs_of(connection: Connection, spec: QuantumSpec) -> list[OutputFile]:
    return [file for file in spec.outputs if file.connection == connection.name]


def _paths(files: list[InputFile] | list[OutputFile], places: Mapping[str, Path]) -> list[Path]:
    return [places[file.dataset_id] for file in files]


def _input_handles(connection: Connection, spec: QuantumSpec, folder: JobFolder) -> list[InputHandle]:
    return [
        InputHandle(
            dataset_type=file.dataset_type,
            data_id=file.data_id,
            id=UUID(file.dataset_id),
            path=folder.readable[file.dataset_id],
            storage_class=connection.storage_class,
            component=connection.component,
        )
        for file in _inputs_of(connection, spec, folder)
    ]


def _output_handles(connection: Connection, spec: QuantumSpec, folder: JobFolder) -> list[OutputHandle]:
    return [
        OutputHandle(
            dataset_type=file.dataset_type,
            data_id=file.data_id,
            id=UUID(file.dataset_id),
            path=folder.outputs[file.dataset_id],
            storage_class=connection.storage_class,
            memory=folder.memory if file.is_elided else None,
        )
        for file in _outputs_of(connection, spec)
    ]


def _shaped(connection: Connection, handles: list[_H]) -> list[_H] | _H | None:
    if connection.multiple:
        return handles
    return handles[0] if handles else None


def _seed(id: UUID) -> None:
    """Give each quantum random numbers of its own: processes forked from one would all draw the same."""
    random.seed(id.int)
    if numpy_random := sys.modules.get("numpy.random"):
        numpy_random.seed(id.int & 0xFFFFFFFF)


def _write_automatic(spec: QuantumSpec, folder: JobFolder, started: float, log: Path) -> None:
    """Write what the framework itself writes for a task, where another task reads it."""
    content: dict[str, Callable[[], object]] = {
        "_metadata": lambda: _metadata(spec, started),
        "_log": lambda: log.read_text(errors="replace").splitlines(),
    }
    for connection in spec.connections:
        if connection.automatic and connection.kind == "output":
            for file in _outputs_of(connection, spec):
                folder.outputs[file.dataset_id].write_text(json.dumps(content[connection.name]()))


def _metadata(spec: QuantumSpec, started: float) -> dict[str, object]:
    return {
        "quantum": spec.id,
        "task": spec.task,
        "data_id": dict(spec.data_id),
        "started_unix_s": started,
        "wall_s": time.time() - started,
        "n_inputs": len(spec.inputs),
    }


def _output_paths(spec: QuantumSpec, folder: JobFolder) -> list[Path]:
    return [folder.outputs[file.dataset_id] for file in spec.outputs]


def _written(spec: QuantumSpec, folder: JobFolder) -> tuple[WrittenFile, ...]:
    """Return the declared outputs that are there: files, and no links to elsewhere; elided ones may be in memory."""
    places = ((file, folder.outputs[file.dataset_id]) for file in spec.outputs)
    return tuple(
        WrittenFile(file.dataset_id, path)
        for file, path in places
        if path.is_file() and (file.is_elided or not path.is_symlink())
    )


def _cpu_s() -> float:
    return sum(os.times()[:4])


@contextmanager
def _captured(log: Path) -> Iterator[None]:
    """Send what this process and its children say on stdout and stderr to a file."""
    saved = [os.dup(1), os.dup(2)]
    stream = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.dup2(stream, 1)
        os.dup2(stream, 2)
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, descriptor in zip((1, 2), saved, strict=True):
            os.dup2(descriptor, number)
            os.close(descriptor)
        os.close(stream)


@contextmanager
def _working_in(folder: Path) -> Iterator[Path]:
    """Work in a folder, temporary files included."""
    before = Path.cwd()
    os.chdir(folder)
    os.environ["TMPDIR"] = str(folder)
    tempfile.tempdir = None  # it remembers the folder that it found first
    try:
        yield folder
    finally:
        os.chdir(before)
