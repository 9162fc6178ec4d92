"""A job's own folder: inputs to read, a place to work, outputs to write, logs.

Light: the job runner imports this.
"""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from loadmaster_staging.stage import signature


class JobFolder:
    """What the quanta of one job may read, where they write, and what must not change any more."""

    def __init__(self, root: Path, inputs: Mapping[str, Path], outputs: Mapping[str, Path]) -> None:
        self.root = root
        self.outputs = outputs  # by dataset id: where each output belongs
        self.readable = dict(inputs)  # by dataset id; outputs join when their quantum has succeeded
        self.memory: list[int] = []  # descriptors of what quanta hand on in memory
        self._frozen: dict[Path, tuple[int, int, int]] = {}
        self.freeze(inputs.values())

    def close(self) -> None:
        """Let go of what is in memory."""
        while self.memory:
            os.close(self.memory.pop())

    def freeze(self, paths: Iterable[Path]) -> None:
        """Remember how files are that must stay so."""
        self._frozen.update((path, signature(path)) for path in paths)

    @property
    def frozen(self) -> set[Path]:
        """The files that must stay as they are."""
        return set(self._frozen)

    def changed(self) -> list[Path]:
        """Return the files that did not stay as they were."""
        return [path for path, before in self._frozen.items() if not _is_still(path, before)]

    def work(self, index: int) -> Path:
        """Return the empty working folder of a quantum, which is made."""
        path = self.root / (f"work-{index}" if index else "work")
        path.mkdir()
        return path

    def log(self, index: int) -> Path:
        """Return where a quantum's log is written."""
        return log_path(self.root, index)


def log_path(root: Path, index: int) -> Path:
    """Return where in a job's folder the log of a quantum is."""
    return root / f"log-{index}.txt"


def _is_still(path: Path, before: tuple[int, int, int]) -> bool:
    try:
        return signature(path) == before
    except FileNotFoundError:
        return False
