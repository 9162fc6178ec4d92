"""One quantum inside a job, in the process that is shut in with it: its handles and its code.

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
from importlib import import_module
from pathlib import Path
from typing import TypeVar
from uuid import UUID

from loadmaster_pipelines.command import fill
from loadmaster_pipelines.connections import Connection
from loadmaster_pipelines.handles import InputHandle, Inputs, NoWork, OutputHandle, Outputs
from loadmaster_staging.manifest import InputFile, OutputFile, QuantumSpec

from .evidence import CommandEnded, Verdict, tail, verdict
from .folder import JobFolder
from .outputs import label, recipes_of

_H = TypeVar("_H", InputHandle, OutputHandle)


def run_quantum(spec: QuantumSpec, index: int, folder: JobFolder, log_descriptor: int) -> Verdict:
    """Run the code of one quantum on files of the job's folder; whatever it raises becomes its verdict.

    Parameters
    ----------
    log_descriptor : int
        Of the quantum's log, open for writing; it is closed.
    """
    log = folder.log(index)
    started = time.time(), time.monotonic()
    try:
        with _captured(log_descriptor), _working_in(folder.work(index), folder.temporary(index)) as work:
            _execute(spec, folder, work, log)
            _write_automatic(spec, folder, started, log)
    except NoWork as nothing:
        return Verdict("no_work", message=nothing.reason)
    except BaseException as error:  # whatever a task raises, SystemExit too, ends itself and nothing else
        return verdict(error, spec.task_class or "", set(folder.readable.values()))
    return Verdict("succeeded")


def _execute(spec: QuantumSpec, folder: JobFolder, work: Path, log: Path) -> None:
    if spec.task_class is not None:
        _run_class(spec, folder)
    else:
        _run_command(spec, folder, work, log)
        label(spec, folder)


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
        folder=Path(os.environ["TMPDIR"]),
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
            python_type=connection.python_type,
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
            recipes=recipes_of(file, connection, spec, folder),
            python_type=connection.python_type,
            note=folder.note,
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


def _write_automatic(spec: QuantumSpec, folder: JobFolder, started: tuple[float, float], log: Path) -> None:
    """Write what the framework itself writes for a task, where another task reads it."""
    content: dict[str, Callable[[], object]] = {
        "_metadata": lambda: _metadata(spec, started),
        "_log": lambda: log.read_text(errors="replace").splitlines(),
    }
    for connection in spec.connections:
        if connection.automatic and connection.kind == "output":
            for file in _outputs_of(connection, spec):
                folder.outputs[file.dataset_id].write_text(json.dumps(content[connection.name]()))


def _metadata(spec: QuantumSpec, started: tuple[float, float]) -> dict[str, object]:
    return {
        "quantum": spec.id,
        "task": spec.task,
        "data_id": dict(spec.data_id),
        "started_unix_s": started[0],
        "wall_s": time.monotonic() - started[1],
        "n_inputs": len(spec.inputs),
    }


@contextmanager
def _captured(stream: int) -> Iterator[None]:
    """Send what this process and its children say on stdout and stderr to a file."""
    os.dup2(stream, 1)
    os.dup2(stream, 2)
    os.close(stream)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


@contextmanager
def _working_in(folder: Path, temporary: Path) -> Iterator[Path]:
    """Work in a folder, with temporary files in another."""
    before = Path.cwd()
    os.chdir(folder)
    os.environ["TMPDIR"] = str(temporary)
    tempfile.tempdir = None  # it remembers the folder that it found first
    try:
        yield folder
    finally:
        os.chdir(before)
