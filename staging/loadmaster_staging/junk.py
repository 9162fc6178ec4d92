"""Undeclared files of a quantum, packed into one tar archive with a listing, and unpacked again with care.

Light: the job runner imports this.
"""

import io
import json
import os
import shutil
import stat
import tarfile
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from loadmaster_registry.errors import StageError

LISTING = "LISTING.json"  # the first member: what there was, and why some of it was left out
LISTED = 10_000  # names that are told of one quantum


@dataclass(frozen=True, slots=True)
class Undeclared:
    """A file that a task left in its job's folder, and that is none of its outputs."""

    name: str  # below the job's folder
    size_bytes: int
    why_not: str = ""  # why it cannot be kept: it is no plain file


def undeclared_files(root: Path, folders: Iterable[str], declared: set[str]) -> list[Undeclared]:
    """Return what lies in some folders below `root` beside what is `declared`, by name; links are not followed."""
    found: list[Undeclared] = []
    for folder in folders:
        for parent, _, names, place in os.fwalk(root / folder, follow_symlinks=False):
            below = os.path.relpath(parent, root)
            for name in names:
                if (path := f"{below}/{name}") not in declared:
                    with suppress(FileNotFoundError):
                        found.append(_described(path, os.stat(name, dir_fd=place, follow_symlinks=False)))
    return sorted(found, key=lambda file: file.name)[:LISTED]


def pack(root: Path, files: Iterable[Undeclared], target: Path, limit_bytes: int) -> None:
    """Write files below `root` to a tar archive, the same for the same files, as far as `limit_bytes` go.

    The listing names all of them, with the reason where one is not in there.
    """
    kept: list[tuple[str, bytes]] = []
    listing: list[dict[str, str | int]] = []
    left_bytes = limit_bytes
    for file in files:
        why_not = file.why_not or (
            "" if file.size_bytes <= left_bytes else f"beyond {limit_bytes} bytes in all"
        )
        content = b"" if why_not else _content(root, file)
        if content is None:
            why_not = "it changed or went while it was packed"
        elif not why_not:
            kept.append((file.name, content))
            left_bytes -= len(content)
        entry: dict[str, str | int] = {"name": file.name, "size_bytes": file.size_bytes}
        listing.append({**entry, "left_out": why_not} if why_not else entry)
    text = json.dumps(listing, indent=1).encode()
    with tarfile.open(target, "x", format=tarfile.PAX_FORMAT) as archive:
        for name, content in ((LISTING, text), *kept):
            member = tarfile.TarInfo(name)  # of nobody, at no time
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def unpack(archive: Path, folder: Path) -> list[Path]:
    """Write the files of an archive into a new folder, and nothing anywhere else, and return their paths.

    Raises
    ------
    StageError
        If a member is no plain file, or its name would lead out of the folder. Nothing is written then.
    """
    with tarfile.open(archive) as opened:
        members = opened.getmembers()
        for member in members:
            if wrong := _what_is_wrong(member):
                raise StageError(
                    what=f"the archive holds {member.name!r}, which is not unpacked",
                    where=str(archive),
                    why=wrong,
                    todo="do not trust it: look at it with `tar -tvf`, and at the quantum that made it",
                )
        folder.mkdir(parents=True)
        return [_written(opened, member, folder / member.name) for member in members]


def _described(path: str, status: os.stat_result) -> Undeclared:
    if stat.S_ISREG(status.st_mode):
        return Undeclared(path, status.st_size)
    return Undeclared(path, 0, "a symbolic link" if stat.S_ISLNK(status.st_mode) else "no plain file")


def _content(root: Path, file: Undeclared) -> bytes | None:
    """Return what is in a file; None if it is not any more what it was, or if a link leads to it."""
    try:
        with _opened(root, file.name) as stream:
            content = stream.read(file.size_bytes + 1)
    except OSError:
        return None
    return content if len(content) == file.size_bytes else None


def _opened(root: Path, name: str) -> io.FileIO:
    """Open a file through folders that are no links."""
    *folders, last = PurePosixPath(name).parts
    place = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for folder in folders:
            below = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=place)
            os.close(place)
            place = below
        number = os.open(last, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=place)
    finally:
        os.close(place)
    return io.FileIO(number)


def _what_is_wrong(member: tarfile.TarInfo) -> str:
    if not member.isreg():
        return "it is no plain file"
    if member.name.startswith("/") or ".." in PurePosixPath(member.name).parts:
        return "its name leads out of the folder"
    return ""


def _written(opened: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    stream = opened.extractfile(member)
    assert stream is not None
    with open(path, "xb") as target:
        shutil.copyfileobj(stream, target)
    return path
