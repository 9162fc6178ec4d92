"""What a person asks to be planned."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from .data_id_tables import DataIdTable

if TYPE_CHECKING:
    from .overrides import Override

SkipExisting = Literal["exists", "provenance", "content"]


@dataclass(frozen=True)
class Request:
    """Which data a pipeline is to run on, and where its outputs go."""

    inputs: tuple[str, ...]  # collections, in search order
    output_run: str  # the RUN that will hold every output
    output: str = ""  # the CHAINED collection that will show inputs and outputs together; none if empty
    where: str = ""  # restricts every data ID
    bind: Mapping[str, object] = field(default_factory=dict)
    tables: tuple[DataIdTable, ...] = ()  # each admits only its rows
    target: str = ""  # like `where`, but about end products only: what these need is planned, complete
    target_type: str = ""  # the dataset type that `target` is about; that of the last tasks if empty
    allow_partial_gather: bool = False  # `where` or a table may leave gathers with a part of their inputs
    include_flagged: bool = False  # observations with a flag take part
    overrides: tuple["Override", ...] = ()  # calibrations that are to be used whatever is valid
    skip_existing: SkipExisting | None = None  # what makes a quantum count as done
    skip_existing_in: tuple[str, ...] = ()  # collections with what may have been done
    clobber: bool = False  # plan as if outputs that are in the way were gone
