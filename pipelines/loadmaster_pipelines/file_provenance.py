"""What a file says of itself: which dataset it is, which quantum made it, from what. Light: jobs import it.

The keys are Rubin's: ``LSST BUTLER ID``, ``LSST BUTLER INPUT 0 RUN`` and so on, with blanks in FITS headers and
dots elsewhere. ``INPUT n DATAID`` is ours, one of the extra keys that Rubin's readers accept for each input:
with it two files can be compared without a registry.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

MAX_INPUTS = 3000  # a file with more says only how many they were, as Rubin's do
_KEY = re.compile(r"LSST([ .])BUTLER\1(.+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class InputProvenance:
    """One dataset that a file was made from."""

    id: str
    run: str = ""
    dataset_type: str = ""
    data_id: Mapping[str, int | str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FileProvenance:
    """Which dataset a file is, and what made it from what."""

    id: str
    run: str
    dataset_type: str
    data_id: Mapping[str, int | str]
    quantum: str = ""  # "" where no quantum made it
    inputs: tuple[InputProvenance, ...] = ()
    n_inputs: int = 0  # `inputs` is empty where they are more than MAX_INPUTS

    def keys(self, separator: str) -> dict[str, int | str]:
        """Return header keys and values, which `from_keys` reads."""
        found: dict[tuple[str, ...], int | str] = {
            ("ID",): self.id,
            ("RUN",): self.run,
            ("DATASETTYPE",): self.dataset_type,
            **{("DATAID", name.upper()): value for name, value in self.data_id.items()},
        }
        if self.quantum:
            found["QUANTUM",] = self.quantum
        found["N_INPUTS",] = self.n_inputs
        if self.n_inputs <= MAX_INPUTS:
            for number, one in enumerate(self.inputs):
                of = ("INPUT", str(number))
                found[*of, "ID"] = one.id
                found[*of, "RUN"] = one.run
                found[*of, "DATASETTYPE"] = one.dataset_type
                found[*of, "DATAID"] = json.dumps(dict(one.data_id))
        return {separator.join(("LSST", "BUTLER", *parts)): value for parts, value in found.items()}

    @classmethod
    def from_keys(cls, header: Mapping[str, Any]) -> "FileProvenance | None":
        """Read what is among the keys of a header, Rubin's own files included; None if it does not say."""
        found = {
            tuple(re.split("[ .]", match[2].upper())): header[key]
            for key in header
            if (match := _KEY.fullmatch(key)) is not None
        }
        if ("ID",) not in found:
            return None
        numbers = sorted({int(key[1]) for key in found if key[0] == "INPUT" and key[1:2]})
        inputs = tuple(_input(found, str(number)) for number in numbers)
        return cls(
            id=str(found["ID",]),
            run=str(found.get(("RUN",), "")),
            dataset_type=str(found.get(("DATASETTYPE",), "")),
            data_id={key[1].lower(): value for key, value in found.items() if key[0] == "DATAID"},
            quantum=str(found.get(("QUANTUM",), "")),
            inputs=inputs,
            n_inputs=int(found.get(("N_INPUTS",), len(inputs))),
        )


def provenance_keys(header: Iterable[str]) -> list[str]:
    """Return the keys of a header that speak of provenance: a file made from this one must not repeat them."""
    return [key for key in header if _KEY.fullmatch(key)]


def _input(found: Mapping[tuple[str, ...], Any], number: str) -> InputProvenance:
    def value(name: str) -> str:
        return str(found.get(("INPUT", number, name), ""))

    return InputProvenance(
        value("ID"), value("RUN"), value("DATASETTYPE"), json.loads(value("DATAID") or "{}")
    )
