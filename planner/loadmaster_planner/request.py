"""What a person asks to be planned."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Request:
    """Which data a pipeline is to run on, and where its outputs go."""

    inputs: tuple[str, ...]  # collections, in search order
    output_run: str  # the RUN that will hold every output
    output: str = ""  # the CHAINED collection that will show inputs and outputs together; none if empty
    where: str = ""
    bind: Mapping[str, object] = field(default_factory=dict)
