"""Inputs into a job's own folder, outputs and report into the staging area.

Light: the job runner imports this.
"""

import os
import shutil
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from loadmaster_registry.errors import StageError

from .checksum import Measured, Reader, algorithm_of, copy, measure
from .location import join, local_path, remote
from .manifest import InputFile, Report, StagedFile, Staging, Transfer, local_names, report_from_json, to_json

REPORT_NAME = ".report.json"  # no output is called so: dataset types do not begin with a dot
_WRITE_BITS = 0o222


@dataclass(frozen=True, slots=True)
class WrittenFile:
    """A file that a task wrote for one of its declared outputs."""

    dataset_id: str
    path: Path


def stage_in(files: Iterable[InputFile], folder: Path, staging: Staging) -> dict[str, Path]:
    """Bring each input into the new `folder`, verified, read only, and return the path of each dataset.

    A dataset that several quanta read comes once. Linked bytes are those of the backbone itself, and are read
    through to verify them; copied ones are verified while they move.

    Raises
    ------
    StageError
        If an input is not there or not what was promised.
    """
    wanted = {file.dataset_id: file for file in files}
    names = local_names([file.url for file in wanted.values()])
    folder.mkdir(parents=True)
    paths = {file.dataset_id: folder / name for file, name in zip(wanted.values(), names, strict=True)}
    for file in wanted.values():
        _bring(file, paths[file.dataset_id], staging.transfer)
    folder.chmod(0o555)
    return paths


def stage_out(files: Sequence[WrittenFile], staging_url: str) -> list[StagedFile]:
    """Hash what a job wrote and bring it, read only, to the staging folder.

    Raises
    ------
    StageError
        If bytes cannot be written there, as on a full disk. Nothing of it stays there then: the report still
        needs a place.
    """
    names = local_names([file.path.name for file in files])
    folder = local_path(staging_url)
    try:
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        return [_send(file, staging_url, name) for file, name in zip(files, names, strict=True)]
    except OSError as error:
        for name in names:
            _discard(join(staging_url, name))
        raise StageError(
            what="the outputs could not be brought to the staging area",
            where=staging_url,
            why=str(error),
            todo="see that there is space and permission to write, then run the same command again",
        ) from error


def write_report(report: Report, staging_url: str) -> None:
    """Write the report, whole or not at all; without it nothing of the staging folder counts."""
    text = to_json(report).encode()
    url = join(staging_url, REPORT_NAME)
    if (path := local_path(url)) is None:
        fs, inner = remote(url)
        fs.pipe_file(inner, text)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{REPORT_NAME}.part")
    part.write_bytes(text)
    part.rename(path)


def read_report(staging_url: str, token: str) -> Report | None:
    """Return the report of the attempt that has this token; None while there is none."""
    url = join(staging_url, REPORT_NAME)
    try:
        if (path := local_path(url)) is None:
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
    target = local_path(join(staging_url, name))
    if target is None:
        _upload(path, join(staging_url, name))
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(path, target)
    return name


def fetch_log(staging_url: str, name: str, path: Path) -> None:
    """Bring a log from beside its report to `path`; a no-op if that was done."""
    path.parent.mkdir(parents=True, exist_ok=True)
    source = local_path(join(staging_url, name))
    try:
        if source is None:
            fs, inner = remote(join(staging_url, name))
            fs.get_file(inner, str(path))
        else:
            shutil.move(source, path)
    except FileNotFoundError:
        if not path.exists():
            raise


def signature(path: Path) -> tuple[int, int, int]:
    """Return what changes when a file is written or replaced: size, time of change in ns, inode."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns, status.st_ino


def clear_folder(folder: Path) -> None:
    """Remove a job's own folder with its read-only inputs."""
    if (folder / "in").is_dir():
        (folder / "in").chmod(0o755)
    shutil.rmtree(folder, ignore_errors=True)


def _bring(file: InputFile, target: Path, transfer: Transfer) -> None:
    try:
        measured = _brought(file, target, transfer)
    except OSError as error:
        raise _not_staged(file, str(error)) from error
    if wrong := measured.differs_from(file.size_bytes, file.checksum):
        raise _not_staged(file, wrong)


def _brought(file: InputFile, target: Path, transfer: Transfer) -> Measured:
    source = local_path(file.url)
    if source is None:
        fs, inner = remote(file.url)
        with fs.open(inner, "rb") as reader:
            return _received(reader, target, file.checksum)
    if transfer == "copy" or not _is_linked(source, target):
        with open(source, "rb", buffering=0) as reader:
            return _received(reader, target, file.checksum)
    if file.checksum:
        return measure(str(target), algorithm_of(file.checksum))
    return Measured(target.stat().st_size, "")


def _received(reader: Reader, target: Path, checksum: str) -> Measured:
    with open(target, "xb") as writer:
        os.fchmod(writer.fileno(), 0o444)
        return copy(reader, writer, algorithm_of(checksum))


def _is_linked(source: Path, target: Path) -> bool:
    """Link by the closest means that the file systems allow; False if by none."""
    real = source.resolve() if source.is_symlink() else source.absolute()
    for link in (os.link, os.symlink):
        try:
            link(real, target)
        except FileNotFoundError:
            raise
        except OSError:
            continue
        target.stat()  # a symlink to nothing is made without complaint
        return True
    return False


def _send(file: WrittenFile, staging_url: str, name: str) -> StagedFile:
    url = join(staging_url, name)
    target = local_path(url)
    if target is None:
        measured = _upload(file.path, url)
    elif _can_move(file.path, target):
        file.path.chmod(file.path.stat().st_mode & 0o777 & ~_WRITE_BITS)
        measured = measure(str(file.path))
        file.path.rename(target)
    else:
        with open(file.path, "rb", buffering=0) as reader:
            measured = _received(reader, target, "")
    return StagedFile(file.dataset_id, name, measured.size_bytes, measured.checksum)


def _discard(url: str) -> None:
    with suppress(OSError):
        if (path := local_path(url)) is not None:
            path.unlink()
        else:
            fs, inner = remote(url)
            fs.rm_file(inner)


def _can_move(path: Path, target: Path) -> bool:
    """Whether a rename does it: on one file system, with no other name through which bytes could change."""
    status = path.stat()
    return status.st_nlink == 1 and status.st_dev == target.parent.stat().st_dev


def _upload(path: Path, url: str) -> Measured:
    fs, inner = remote(url)
    with open(path, "rb", buffering=0) as reader, fs.open(inner, "wb") as writer:
        return copy(reader, writer)


def _not_staged(file: InputFile, why: str) -> StageError:
    return StageError(
        what=f"the input {file.dataset_type} {dict(file.data_id)} could not be brought to the job",
        where=file.url,
        why=why,
        todo="see that the file is there and whole, then run the same command again",
    )
