"""A task in Python: typed connections, a strict configuration, and `run`."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from loadmaster_registry.errors import PipelineError
from pydantic import BaseModel, ConfigDict

from .connections import Connection
from .handles import Inputs, NoWork, Outputs
from .resources import Resources

__all__ = ["Inputs", "NoWork", "Outputs", "Resources", "Task", "TaskConfig"]

_RESERVED = {"quantum", "config"}  # `inputs.quantum` is the data ID, `self.config` the configuration


class TaskConfig(BaseModel):
    """What can be set for a task; a field that is not declared is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Task(ABC):
    """One step of processing, run once for each data ID over its dimensions.

    Subclasses declare connections as class attributes, name their dimensions, and implement `run`::

        class Detect(Task):
            Config = DetectConfig
            config: DetectConfig
            dimensions = ("tract", "patch", "band")
            templates = {"coadd_name": "deep"}

            coadd = Input("{coadd_name}_coadd", "ExposureF", ("tract", "patch", "band"))
            peaks = Output("{coadd_name}_peaks", "SourceCatalog", ("tract", "patch", "band"))

    An inherited connection is taken away by setting its name to None.
    """

    Config: ClassVar[type[TaskConfig]] = TaskConfig
    dimensions: ClassVar[tuple[str, ...]]
    templates: ClassVar[Mapping[str, str]] = {}  # defaults of the {names} inside dataset type names
    resources: ClassVar[Resources] = Resources()
    version: ClassVar[str] = ""  # for code that this module calls and that its own text does not show
    network: ClassVar[bool] = False  # whether it may use the network while it runs
    environment: ClassVar[Mapping[str, str]] = {}  # what else its outputs depend on: name → version
    connections: ClassVar[Mapping[str, Connection]] = {}  # collected from the class bodies

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        found = dict(cls.connections)
        for name, value in vars(cls).items():
            if isinstance(value, Connection):
                found[name] = _named(value, name, cls)
            elif value is None:
                found.pop(name, None)
        cls.connections = found

    def __init__(self, config: TaskConfig) -> None:
        self.config = config

    @abstractmethod
    def run(self, inputs: Inputs, outputs: Outputs) -> None:
        """Read `inputs`, write every one of `outputs`.

        Raises
        ------
        NoWork
            When there is nothing to do for this data ID.
        """


def _named(connection: Connection, name: str, cls: type) -> Connection:
    if name in _RESERVED or hasattr(Task, name):
        raise PipelineError(
            what=f"a connection may not be called {name!r}",
            where=f"{cls.__module__}.{cls.__qualname__}",
            why="the name means something else in every task",
            todo="rename the connection",
        )
    return replace(connection, name=name)
