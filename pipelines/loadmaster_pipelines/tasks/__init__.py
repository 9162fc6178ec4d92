"""Shipped tasks: imaging from raw frames to catalogues. What they compute with is in `imaging`."""

from abc import ABC
from typing import ClassVar

from ..imaging import source_digest
from ..task import Task


class ImagingTask(Task, ABC):
    """A task whose computing is done in `imaging`: that code is part of its own."""

    version: ClassVar[str] = source_digest()
