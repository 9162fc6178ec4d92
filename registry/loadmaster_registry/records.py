"""The shared nouns of what exists: dataset types, datasets, collections. Light values, no database here."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID

from .universe import DimensionGroup

DataId = Mapping[str, int | str]  # dimension name → value, required dimensions at least


class CollectionType(StrEnum):
    """How datasets get into a collection, and how it is searched."""

    RUN = "RUN"
    TAGGED = "TAGGED"
    CHAINED = "CHAINED"
    CALIBRATION = "CALIBRATION"


@dataclass(frozen=True, slots=True)
class Collection:
    """A named set of datasets, or (CHAINED) an ordered list of other collections."""

    name: str
    type: CollectionType
    doc: str = ""
    children: tuple[str, ...] = ()  # of a chain, in search order


@dataclass(frozen=True, slots=True)
class DatasetType:
    """What datasets of one kind have in common."""

    name: str
    dimensions: DimensionGroup
    storage_class: str
    is_calibration: bool = False

    def __str__(self) -> str:
        calibration = ", calibration" if self.is_calibration else ""
        return f"{self.name} {self.dimensions} as {self.storage_class}{calibration}"


@dataclass(frozen=True, slots=True)
class DatasetRef:
    """One dataset of one type in one run: it exists, or is planned."""

    id: UUID
    type: str
    data_id: tuple[
        int | str, ...
    ]  # one value for each required dimension of the type, in the universe's order
    run: str
    size_bytes: int  # measured once stored, predicted before; -1 where nobody measured it
    url: str = ""  # where it is, or will be
    checksum: str = ""  # "sha256:…"; empty where unknown
