"""A job's own folder: inputs to read, a place to work, outputs to write, logs.

Light: the job runner imports this.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from types import MappingProxyType

from loadmaster_staging.junk import Undeclared, pack, undeclared_files
from loadmaster_staging.manifest import OutputFile, QuantumSpec, local_names
from loadmaster_staging.stage import WrittenFile, signature

FOLDERS = ("out", "log", "work", "tmp")  # beside `in`, and `made` where there are several quanta
_MADE = "made"
Noted = tuple[str, Sequence[int]]  # digest of a file's content, signature of the file then
_NOTHING: Mapping[str, Noted] = MappingProxyType({})


class JobFolder:
    """What the quanta of one job may read, where they write, and what must not change any more."""

    def __init__(self, root: Path, quanta: Sequence[QuantumSpec]) -> None:
        self.root = root
        outputs = [file for spec in quanta for file in spec.outputs]
        names = local_names([file.path for file in outputs])
        # By dataset id: where each output belongs.
        self.outputs = {f.dataset_id: root / "out" / name for f, name in zip(outputs, names, strict=True)}
        self.readable: dict[str, Path] = {}  # by dataset id; outputs join when their quantum has succeeded
        self.memory: list[int] = []  # descriptors of what quanta hand on in memory
        # Names below `root` that are no undeclared files, or not any more.
        self._known = {f"out/{path.name}" for file in outputs for path in self.places(file).values()}
        self._contents: dict[str, Noted] = {}
        self._is_shared = len(quanta) > 1
        self._frozen: dict[Path, tuple[int, ...]] = {}

    def furnish(self, inputs: Mapping[str, Path]) -> None:
        """Make the folders in it, but that of the inputs, which are there."""
        self.readable.update(inputs)
        self.freeze(inputs.values())
        for name in (*FOLDERS, *((_MADE,) if self._is_shared else ())):
            (self.root / name).mkdir()

    def freeze(self, paths: Iterable[Path]) -> None:
        """Remember how files are that must stay so."""
        self._frozen.update((path, signature(path)) for path in paths)

    def changed(self) -> list[Path]:
        """Return the files that did not stay as they were."""
        return [path for path, before in self._frozen.items() if not _is_still(path, before)]

    def taken(self, spec: QuantumSpec) -> list[Path]:
        """Return the places of a quantum's outputs at which there is something."""
        places = [path for file in spec.outputs for path in self.places(file).values()]
        return [path for path in places if os.path.lexists(path)]

    def note(self, path: Path, content: str) -> None:
        """Remember the digest of a file's content, and how the file is of which that is true."""
        self._contents[str(path)] = (content, signature(path))

    def take_contents(self) -> dict[str, Noted]:
        """Return what was noted since this was last asked."""
        contents, self._contents = self._contents, {}
        return contents

    def written(self, spec: QuantumSpec, contents: Mapping[str, Noted] = _NOTHING) -> list[WrittenFile]:
        """Return the declared outputs that are there, in all their formats, with what was noted of them."""
        return [
            WrittenFile(file.dataset_id, path, part, _content(path, contents))
            for file in spec.outputs
            if all(_is_written(path, file) for path in self.places(file).values())
            for part, path in self.places(file).items()
        ]

    def settle(self, written: Sequence[WrittenFile]) -> list[WrittenFile]:
        """Take what a quantum wrote to where no later one can write, and return where it is."""
        if self._is_shared:
            written = [replace(file, path=self._moved(file.path)) for file in written]
        self.freeze(file.path for file in written)
        return list(written)

    def undeclared(self, index: int) -> list[Undeclared]:
        """Return what a quantum wrote, and earlier ones did not, beside outputs and temporary files."""
        work = f"work/{index}" if self._is_shared else "work"
        found = undeclared_files(self.root, (work, "out"), self._known)
        self._known.update(file.name for file in found)
        return found

    def pack(self, files: Sequence[Undeclared], index: int, limit_bytes: int) -> Path:
        """Pack undeclared files of a quantum into an archive and return its path."""
        target = self.root / f"junk-{index}.tar"
        pack(self.root, files, target, limit_bytes)
        return target

    def work(self, index: int) -> Path:
        """Return the empty working folder of a quantum."""
        path = self.root / "work"
        if self._is_shared:
            path /= str(index)
            path.mkdir()
        return path

    def temporary(self, index: int) -> Path:
        """Return the empty folder for temporary files of a quantum."""
        path = self.root / "tmp"
        if self._is_shared:
            path /= str(index)
            path.mkdir()
        return path

    def log(self, index: int) -> Path:
        """Return where a quantum's log is written."""
        return log_path(self.root, index)

    def places(self, file: OutputFile) -> dict[str, Path]:
        """Return where the files of an output belong: "" is its own, the others are the same in other formats."""
        own = self.outputs[file.dataset_id]
        others = {name: own.with_suffix(PurePosixPath(path).suffix) for name, path in file.parts.items()}
        return {"": own, **others}

    def _moved(self, path: Path) -> Path:
        return path.rename(self.root / _MADE / path.name)


def log_path(root: Path, index: int) -> Path:
    """Return where in a job's folder the log of a quantum is."""
    return root / "log" / f"{index}.txt"


def _is_written(path: Path, file: OutputFile) -> bool:
    """Whether there is a file, and no link to elsewhere; an elided one may be in memory."""
    return path.is_file() and (file.is_elided or not path.is_symlink())


def _content(path: Path, contents: Mapping[str, Noted]) -> str:
    """Return the digest of a file's content; "" where none was noted, or the file was written once more."""
    content, before = contents.get(str(path), ("", ()))
    return content if _is_still(path, tuple(before)) else ""


def _is_still(path: Path, before: tuple[int, ...]) -> bool:
    try:
        return signature(path) == before
    except FileNotFoundError:
        return False
