"""What a running task holds: its inputs to read, its outputs to write; light, the job runner imports it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Generic, TypeVar
from uuid import UUID

from loadmaster_registry.errors import PipelineError, did_you_mean

from .formats import Recipe


class NoWork(Exception):  # noqa: N818 (no error: the quantum is done, and there was nothing to do)
    """A task raises this when its inputs leave nothing to do; the reason goes into the report."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class NoSuchConnection(PipelineError, AttributeError):  # noqa: N818 (named as its siblings are)
    """A task asked for a connection that it does not declare."""


@dataclass(frozen=True, slots=True)
class InputHandle:
    """One dataset in the job's own folder, to be read only."""

    dataset_type: str
    data_id: Mapping[str, int | str]  # required dimensions, then implied ones
    id: UUID
    path: Path
    storage_class: str  # as the task declared it
    component: str | None = None
    python_type: str = ""  # of the storage class; "" to look it up

    def get(
        self, *, component: str | None = None, parameters: Mapping[str, Any] = MappingProxyType({})
    ) -> Any:
        """Read the dataset, or a part of it, as its storage class says.

        Parameters
        ----------
        component : str, optional
            A part with a name, such as ``wcs`` or ``mask`` of an image; by default the one that the task declares.
        parameters : mapping
            ``box`` of an image or array, ``rows`` and ``columns`` of a table: what whole would be cut to. As far as
            the file's format allows it, nothing else of the file is read.

        Raises
        ------
        StageError
            If the file cannot be read so; unknown names are answered with those that there are.
        """
        from .storage import read  # here: a command-line task never reads through Python, and pays nothing

        return read(
            self.storage_class,
            self.path,
            type_=self.python_type,
            component=component or self.component,
            parameters=parameters,
        )


@dataclass(frozen=True, slots=True)
class OutputHandle:
    """One dataset that the task is to write, at `path`, exactly once."""

    dataset_type: str
    data_id: Mapping[str, int | str]
    id: UUID
    path: Path
    storage_class: str
    memory: list[int] | None = None  # open files that are in memory only; `put` adds its own to a list
    recipes: Mapping[Path, Recipe] = field(
        default_factory=dict
    )  # of the file, and of the same in other formats
    python_type: str = ""  # of the storage class; "" to look it up
    note: Callable[[Path, str], None] | None = None  # is told of each file and the digest of its content

    def put(self, obj: Any) -> None:
        """Write `obj` as the storage class says, in all the formats that are asked for.

        Raises
        ------
        StageError
            If something stands at the path already, or `obj` is not what the storage class holds.
        """
        from .storage import write  # here: see `InputHandle.get`

        for path, recipe in (self.recipes or {self.path: Recipe()}).items():
            content = write(
                obj, self.storage_class, path, type_=self.python_type, memory=self.memory, recipe=recipe
            )
            if content and self.note is not None:
                self.note(path, content)


H = TypeVar("H", InputHandle, OutputHandle)


class _Handles(Generic[H]):
    """Handles by connection name: one, a list (`multiple`), or None (optional, and absent)."""

    def __init__(
        self, quantum: Mapping[str, int | str], handles: Mapping[str, H | Sequence[H] | None]
    ) -> None:
        self.quantum = dict(quantum)
        self._handles: dict[str, H | Sequence[H] | None] = dict(handles)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # asked by copy, pickle and friends before there is anything
            raise AttributeError(name)
        try:
            return self._handles[name]
        except KeyError:
            raise NoSuchConnection(
                what=f"there is no connection {name!r} here",
                where=f"quantum {self.quantum}",
                why="the task does not declare it in this direction",
                todo=did_you_mean(name, self._handles),
            ) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._handles)

    def __getitem__(self, name: str) -> Any:
        return getattr(self, name)


class Inputs(_Handles[InputHandle]):
    """The inputs of one quantum: ``inputs.NAME`` by connection name, ``inputs.quantum`` the data ID."""


class Outputs(_Handles[OutputHandle]):
    """The outputs of one quantum: ``outputs.NAME`` by connection name, ``outputs.quantum`` the data ID."""
