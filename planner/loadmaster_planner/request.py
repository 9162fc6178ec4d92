"""What a person asks to be planned."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, Self

from .data_id_tables import DataIdTable
from .overrides import Override
from .plain import bind_from_json, bind_to_json, frame_from_json, frame_to_json

SkipExisting = Literal["exists", "provenance", "content"]


@dataclass(frozen=True)
class Request:
    """Which data a pipeline is to run on, and where its outputs go.

    With `clobber` the plan answers what would run if the outputs that are in its way were gone. It is no more than
    the answer, for comparison with other planners: nothing on the backbone is ever overwritten, no command asks for
    it, and a run of such a plan is refused.
    """

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
    overrides: tuple[Override, ...] = ()  # calibrations that are to be used whatever is valid
    skip_existing: SkipExisting | None = None  # what makes a quantum count as done
    skip_existing_in: tuple[str, ...] = ()  # collections with what may have been done
    repair: tuple[str, ...] = ()  # collections in which what is contaminated is made anew, and nothing else
    clobber: bool = False  # plan as if outputs that are in the way were gone; a question, not to be run

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values from which `from_json` makes a request that asks for the same."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        values["bind"] = bind_to_json(self.bind)
        values["tables"] = [{"name": t.name, "frame": frame_to_json(t.frame)} for t in self.tables]
        values["overrides"] = [
            {**vars(o), "given": list(o.given), "frame": frame_to_json(o.frame)} for o in self.overrides
        ]
        return {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Return the request that `to_json` wrote."""
        rest: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
        rest["bind"] = bind_from_json(values["bind"])
        rest["tables"] = tuple(DataIdTable(t["name"], frame_from_json(t["frame"])) for t in values["tables"])
        rest["overrides"] = tuple(
            Override(**{**o, "given": tuple(o["given"]), "frame": frame_from_json(o["frame"])})
            for o in values["overrides"]
        )
        return cls(**rest)
