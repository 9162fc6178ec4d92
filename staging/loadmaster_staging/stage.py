"""Outputs, logs and report of a job into the staging area.

Light: the job runner imports this.
"""

import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from loadmaster_registry.errors import StageError

from .checksum import ALGORITHM, Measured, Reader, copy, measure, pour
from .location import as_os_errors, local_path, remote, staged
from .manifest import Report, StagedFile, local_names, report_from_json, to_json

REPORT_NAME = ".report.json"  # no output is called so: dataset types do not begin with a dot
_WRITE_BITS = 0o222


@dataclass(frozen=True, slots=True)
class WrittenFile:
    """A file that a task wrote for one of its declared outputs."""

    dataset_id: str
    path: Path
    part: str = ""  # name of the part of the dataset that it is; "" for the dataset's own file
    content: str = ""  # checksum that it would have without the keys of its provenance; "" where it has none


def stage_out(files: Sequence[WrittenFile], staging_url: str, algorithm: str = ALGORITHM) -> list[StagedFile]:
    """Hash what a job wrote and bring it, read only, to the staging area.

    Raises
    ------
    StageError
        If bytes cannot be written there, as on a full disk. Nothing of it stays there then: the report still
        needs a place.
    """
    names = local_names([file.path.name for file in files])
    beside = local_path(staging_url)
    try:
        if beside is not None:
            beside.parent.mkdir(parents=True, exist_ok=True)
        return [_send(file, staging_url, name, algorithm) for file, name in zip(files, names, strict=True)]
    except OSError as error:
        for name in names:
            _discard(staged(staging_url, name))
        raise StageError(
            what="the outputs could not be brought to the staging area",
            where=staging_url,
            why=str(error),
            todo="see that there is space and permission to write, then run the same command again",
        ) from error


def write_report(report: Report, staging_url: str) -> None:
    """Write the report, whole or not at all; without it nothing that the attempt staged counts."""
    text = to_json(report).encode()
    url = staged(staging_url, REPORT_NAME)
    if (path := local_path(url)) is None:
        with as_os_errors():
            fs, inner = remote(url)
            fs.pipe_file(inner, text)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    part.write_bytes(text)
    part.rename(path)


def read_report(staging_url: str, token: str) -> Report | None:
    """Return the report of the attempt that has this token; None while there is none."""
    url = staged(staging_url, REPORT_NAME)
    try:
        if (path := local_path(url)) is None:
            with as_os_errors():
                fs, inner = remote(url)
                text = fs.cat_file(inner)
        else:
            text = path.read_bytes()
    except FileNotFoundError:
        return None
    report = report_from_json(text)
    return report if report.token == token else None


def send_log(path: Path, staging_url: str, name: str) -> str:
    """Lay a log beside the report and return its name there; "" if nothing was said."""
    if not path.stat().st_size:
        return ""
    target = local_path(staged(staging_url, name))
    if target is None:
        _upload(path, staged(staging_url, name), ALGORITHM)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(path, target)
    return name


def signature(path: Path) -> tuple[int, int, int]:
    """Return what changes when a file is written or replaced: size, time of change in ns, inode."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns, status.st_ino


def staged_signature(url: str) -> tuple[int | str, ...]:
    """Return what would change if the staged file at `url` were written or replaced; () where nothing tells.

    Raises
    ------
    OSError
        If there is no such file.
    """
    if "://" not in url or url.startswith("file://"):
        status = os.stat(url.removeprefix("file://"))  # noqa: PTH116 (for each output of a run)
        return status.st_mtime_ns, status.st_ctime_ns, status.st_ino
    with as_os_errors():
        fs, inner = remote(url)
        tag = fs.info(inner).get("ETag")
    return (str(tag),) if tag else ()


def clear_folder(folder: Path) -> None:
    """Remove a job's own folder with its read-only inputs."""
    if (folder / "in").is_dir():
        (folder / "in").chmod(0o755)
    shutil.rmtree(folder, ignore_errors=True)


def _received(reader: Reader, target: Path, algorithm: str) -> Measured:
    with open(target, "xb") as writer:
        os.fchmod(writer.fileno(), 0o444)
        return copy(reader, writer, algorithm)


def _send(file: WrittenFile, staging_url: str, name: str, algorithm: str) -> StagedFile:
    url = staged(staging_url, name)
    target = local_path(url)
    if target is None:
        measured = _upload(file.path, url, algorithm)
    elif _can_move(file.path, target):
        file.path.chmod(file.path.stat().st_mode & 0o777 & ~_WRITE_BITS)
        measured = measure(str(file.path), algorithm)
        file.path.rename(target)
    else:
        with open(file.path, "rb", buffering=0) as reader:
            measured = _received(reader, target, algorithm)
    kept = staged_signature(url)
    size_bytes, checksum = measured.size_bytes, measured.checksum
    return StagedFile(file.dataset_id, name, size_bytes, checksum, kept, file.part, file.content)


def _discard(url: str) -> None:
    with suppress(OSError):
        if (path := local_path(url)) is not None:
            path.unlink()
        else:
            with as_os_errors():
                fs, inner = remote(url)
                fs.rm_file(inner)


def _can_move(path: Path, target: Path) -> bool:
    """Whether a rename does it: on one file system, with no other name through which bytes could change."""
    status = path.stat()
    return status.st_nlink == 1 and status.st_dev == target.parent.stat().st_dev


def _upload(path: Path, url: str, algorithm: str) -> Measured:
    with as_os_errors(), open(path, "rb", buffering=0) as reader:
        fs, inner = remote(url)
        return pour(reader, fs.open(inner, "wb"), algorithm)
