"""What a task reads and writes, as typed declarations; light, because the job runner imports it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

Kind = Literal["input", "prerequisite", "output", "init_input", "init_output"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True, slots=True)
class FileFormat:
    """One kind of file in which a dataset is written."""

    name: str
    extension: str  # with its dot
    options: Mapping[str, Any] = field(default_factory=dict)  # compression and the like


@dataclass(frozen=True, slots=True)
class Connection:
    """One named edge between a task and a dataset type."""

    name: str
    kind: Kind
    dataset_type: str  # of the whole dataset where the task reads a component
    storage_class: str  # as the task sees it: of the component, where there is one
    dimensions: tuple[str, ...] = ()  # as written; may hold the placeholder "skypix"
    multiple: bool = False
    deferred: bool = False
    minimum: int = 1
    calibration: bool = False
    no_graph_constraint: bool = False
    component: str | None = None
    custom_lookup: bool = False
    automatic: bool = False
    formats: tuple[FileFormat, ...] = ()  # of an output, where formats files speak of it; the first counts
    python_type: str = field(default="", compare=False)  # of the storage class; "" where others know it
    is_labelled: bool = False  # an output whose files are to say what made them

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> "Connection":
        """Return the connection of which `body` is the JSON of `dataclasses.asdict`."""
        formats = tuple(FileFormat(**format) for format in body["formats"])
        return cls(**{**body, "dimensions": tuple(body["dimensions"]), "formats": formats})

    @property
    def is_read(self) -> bool:
        """Whether the task reads here, rather than writes."""
        return self.kind in ("input", "prerequisite", "init_input")

    @property
    def is_init(self) -> bool:
        """Whether there is one dataset a run, and not one a quantum."""
        return self.kind in ("init_input", "init_output")


# The five functions below are written like classes because they stand in class bodies as declarations do.


def Input(  # noqa: N802
    dataset_type: str,
    storage_class: str,
    dimensions: Sequence[str],
    *,
    multiple: bool = False,
    deferred: bool = False,
    minimum: int = 1,
    calibration: bool = False,
    no_graph_constraint: bool = False,
) -> Connection:
    """Declare an input whose existence decides which quanta there are.

    Parameters
    ----------
    dataset_type : str
        Name, ``parent.component`` for a part of a dataset; may hold ``{template}``.
    storage_class : str
        As the task sees it.
    dimensions : sequence of str
        Of the dataset type.
    multiple : bool
        Any number of datasets a quantum; otherwise exactly one.
    deferred : bool
        The task opens them one by one; no effect on planning.
    minimum : int
        The fewest datasets with which a quantum makes sense; 0 makes the input optional.
    calibration : bool
        Found by its range of validity.
    no_graph_constraint : bool
        Does not restrict which data IDs are considered.
    """
    parent, component = _split(dataset_type)
    return Connection(
        name="",
        kind="input",
        dataset_type=parent,
        storage_class=storage_class,
        dimensions=tuple(dimensions),
        multiple=multiple,
        deferred=deferred,
        minimum=minimum,
        calibration=calibration,
        no_graph_constraint=no_graph_constraint,
        component=component,
    )


def Prerequisite(  # noqa: N802
    dataset_type: str,
    storage_class: str,
    dimensions: Sequence[str],
    *,
    multiple: bool = False,
    deferred: bool = False,
    minimum: int = 1,
    calibration: bool = False,
) -> Connection:
    """Declare an input that exists before and is looked up for each quantum; no task of the plan makes it."""
    parent, component = _split(dataset_type)
    return Connection(
        name="",
        kind="prerequisite",
        dataset_type=parent,
        storage_class=storage_class,
        dimensions=tuple(dimensions),
        multiple=multiple,
        deferred=deferred,
        minimum=minimum,
        calibration=calibration,
        component=component,
    )


def Output(  # noqa: N802
    dataset_type: str,
    storage_class: str,
    dimensions: Sequence[str],
    *,
    multiple: bool = False,
    calibration: bool = False,
) -> Connection:
    """Declare an output; `calibration` says that it may later be certified for a range of time."""
    return Connection(
        name="",
        kind="output",
        dataset_type=dataset_type,
        storage_class=storage_class,
        dimensions=tuple(dimensions),
        multiple=multiple,
        calibration=calibration,
    )


def InitInput(dataset_type: str, storage_class: str) -> Connection:  # noqa: N802
    """Declare an input that there is once a run."""
    return Connection("", "init_input", dataset_type, storage_class)


def InitOutput(dataset_type: str, storage_class: str) -> Connection:  # noqa: N802
    """Declare an output that there is once a run."""
    return Connection("", "init_output", dataset_type, storage_class)


def _split(dataset_type: str) -> tuple[str, str | None]:
    parent, _, component = dataset_type.partition(".")
    return parent, component or None
