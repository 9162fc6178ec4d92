"""Which files datasets are written to, as a person says it: by storage class and by dataset type.

A formats file is YAML::

    storage_classes:
      ExposureF: {formats: [hdf5]}                      # all datasets of this class
      PeakTable: {type: table, formats: [parquet]}      # a class that Loadmaster does not know
    dataset_types:
      calexp: {formats: {fits: {compression: RICE_1, quantize: 16, tile: [100, 100]}}}
      "*_catalog": {formats: {parquet: {compression: zstd, level: 9}}}
      coadd: {formats: [fits, hdf5]}                    # both, registered together; readers get the first
      swarped: {provenance: true}                       # what a command writes is to say what made it
      flat: {provenance: false}                         # the same pixels are to be the same file, whoever made it

Files that Python tasks write say what made them, where their format has room for it, unless `provenance` is false;
files that commands write only where it is true.
What is said of a dataset type comes before what is said of its storage class; of several patterns the first
counts. Tasks read whichever format they find.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from loadmaster_registry.documents import Document, read_document
from loadmaster_registry.errors import ConfigError, did_you_mean
from pydantic import BaseModel, ConfigDict, Field, model_validator

from .connections import FileFormat
from .formats import FORMATS, PythonType
from .storage import storage_classes

EXTENSIONS = {
    "fits": ".fits",
    "hdf5": ".h5",
    "parquet": ".parq",
    "ecsv": ".ecsv",
    "votable": ".vot",
    "json": ".json",
    "yaml": ".yaml",
    "npy": ".npy",
    "png": ".png",
    "pdf": ".pdf",
    "svg": ".svg",
}
_LEVELS = {"zstd": (1, 22), "gzip": (0, 9), "brotli": (0, 11)}
_Positive = Annotated[int, Field(ge=1)]


@dataclass(frozen=True, slots=True)
class FormatRules:
    """What formats files say; those of `types` are by name or pattern, in the order in which they count."""

    classes: Mapping[str, PythonType] = field(default_factory=dict)  # those that only the files know
    of_class: Mapping[str, tuple[FileFormat, ...]] = field(default_factory=dict)
    of_type: Mapping[str, tuple[FileFormat, ...]] = field(default_factory=dict)
    labelled: Mapping[str, bool] = field(default_factory=dict)  # whether files are to say what made them
    places: Mapping[str, str] = field(
        default_factory=dict, compare=False
    )  # name or pattern → where it stands

    def python_type(self, storage_class: str) -> PythonType | None:
        """Return what a storage class is in Python; None where only other software knows."""
        known = storage_classes().get(storage_class)
        return known.type if known else self.classes.get(storage_class)

    def formats(self, dataset_type: str, storage_class: str) -> tuple[FileFormat, ...]:
        """Return the formats of a dataset, the first of which readers get; none where nothing is said of it."""
        found = self.rule(dataset_type)
        return self.of_type[found] if found else self.of_class.get(storage_class, ())

    def rule(self, dataset_type: str) -> str | None:
        """Return the name or pattern that speaks of the formats of a dataset type."""
        return _matching(dataset_type, self.of_type)

    def is_labelled(self, dataset_type: str, otherwise: bool) -> bool:
        """Whether files of this type are to say what made them; `otherwise` where nothing is said of it."""
        rule = _matching(dataset_type, self.labelled)
        return otherwise if rule is None else self.labelled[rule]

    def over(self, others: "FormatRules") -> "FormatRules":
        """Return these rules, and those of `others` where these say nothing."""
        return FormatRules(
            {**others.classes, **self.classes},
            {**others.of_class, **self.of_class},
            {**self.of_type, **{k: v for k, v in others.of_type.items() if k not in self.of_type}},
            {**self.labelled, **{k: v for k, v in others.labelled.items() if k not in self.labelled}},
            {**others.places, **self.places},
        )


def read_format_rules(paths: Iterable[str | Path]) -> FormatRules:
    """Read formats files; what a later one says counts before what an earlier one says.

    Raises
    ------
    ConfigError
        With file and line: unknown keys, formats that cannot hold a class, options that a format does not have.
    """
    rules = FormatRules()
    for path in paths:
        rules = _rules(read_document(path)).over(rules)
    return rules


def check_holds(type_: PythonType, formats: Iterable[FileFormat], what: str, where: str) -> None:
    """Refuse formats that cannot hold a type, and options that they do not have for it."""
    for one in formats:
        if (type_, one.extension) not in FORMATS:
            able = [name for name, extension in EXTENSIONS.items() if (type_, extension) in FORMATS]
            raise ConfigError(
                what=f"{what} cannot be written as {one.name}",
                where=where,
                why=f"it is a {type_}, for which {one.name} has no writer",
                todo=f"choose of {', '.join(able)}" if able else "leave its format as it is",
            )
        if one.name == "fits" and type_ != "image" and one.options:
            raise ConfigError(
                what=f"{what} cannot be compressed as FITS",
                where=where,
                why=f"it is a {type_}, and only images are compressed in FITS files",
                todo="take the options out, or choose parquet",
            )


class _Options(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Fits(_Options):
    compression: Literal["RICE_1", "GZIP_1", "GZIP_2", "HCOMPRESS_1"] | None = None
    tile: list[_Positive] | None = None  # rows first, as the shapes of arrays
    quantize: Annotated[float, Field(gt=0)] | None = (
        None  # steps in the noise of real numbers: loses the rest
    )

    @model_validator(mode="after")
    def _needs_compression(self) -> Self:
        if self.compression is None and (self.tile or self.quantize):
            raise ValueError("`tile` and `quantize` mean nothing without `compression`")
        return self


class _Levelled(_Options):
    compression: str | None = None
    level: int | None = None

    @model_validator(mode="after")
    def _level_is_in_range(self) -> Self:
        low, high = _LEVELS.get(self.compression or "", (0, -1))
        if self.level is not None and not low <= self.level <= high:
            allowed = f"{low} to {high}" if high >= low else "none"
            raise ValueError(f"the levels of compression {self.compression!r} are: {allowed}")
        return self


class _Parquet(_Levelled):
    compression: Literal["zstd", "snappy", "gzip", "lz4", "brotli", "uncompressed"] | None = None
    rows_per_group: _Positive | None = None


class _Hdf5(_Levelled):
    compression: Literal["gzip", "lzf"] | None = None
    tile: list[_Positive] | None = None


class _Formats(_Options):
    fits: _Fits | None = None
    hdf5: _Hdf5 | None = None
    parquet: _Parquet | None = None
    ecsv: _Options | None = None
    votable: _Options | None = None
    json_: _Options | None = Field(None, alias="json")
    yaml: _Options | None = None
    npy: _Options | None = None
    png: _Options | None = None
    pdf: _Options | None = None
    svg: _Options | None = None

    @model_validator(mode="before")
    @classmethod
    def _list_is_without_options(cls, value: Any) -> Any:
        return {str(name): {} for name in value} if isinstance(value, list) else value

    @model_validator(mode="after")
    def _is_not_empty(self) -> Self:
        if not self.model_fields_set:
            raise ValueError("name one format at least")
        return self


class _Class(_Options):
    type: PythonType | None = None
    formats: _Formats


class _Type(_Options):
    formats: _Formats | None = None
    provenance: bool | None = None


class _FormatsFile(_Options):
    storage_classes: dict[str, _Class] = Field(default_factory=dict)
    dataset_types: dict[str, _Type] = Field(default_factory=dict)


def _rules(document: Document) -> FormatRules:
    file = document.validated(_FormatsFile, "formats file")
    content = document.content or {}

    def formats(section: str, name: str, body: _Formats) -> tuple[FileFormat, ...]:
        return tuple(_ordered(content[section][name]["formats"], body))

    rules = FormatRules(
        classes={name: body.type for name, body in file.storage_classes.items() if body.type is not None},
        of_class={n: formats("storage_classes", n, b.formats) for n, b in file.storage_classes.items()},
        of_type={
            n: formats("dataset_types", n, b.formats) for n, b in file.dataset_types.items() if b.formats
        },
        labelled={n: b.provenance for n, b in file.dataset_types.items() if b.provenance is not None},
        places={
            name: document.place((section, name))
            for section in ("storage_classes", "dataset_types")
            for name in content.get(section) or {}
        },
    )
    for name in rules.of_class:
        _check_class(name, rules)
    return rules


def _ordered(written: Any, body: _Formats) -> Iterator[FileFormat]:
    """Go through the formats in the order in which they are written."""
    options = body.model_dump(exclude_none=True, by_alias=True)
    for name in dict.fromkeys(written):
        yield FileFormat(name, EXTENSIONS[name], options.get(name, {}))


def _check_class(name: str, rules: FormatRules) -> None:
    where, known = rules.places[name], storage_classes().get(name)
    if known is not None and rules.classes.get(name, known.type) != known.type:
        raise ConfigError(
            what=f"the storage class {name!r} is no {rules.classes[name]}",
            where=where,
            why=f"it is a {known.type} already, and tasks rely on it",
            todo="leave `type` out, or choose a new name",
        )
    type_ = rules.python_type(name)
    if type_ is None:
        raise ConfigError(
            what=f"there is no storage class {name!r}",
            where=where,
            why="nothing says what it is in Python",
            todo=f"add `type: table` or the like, or correct the name: {did_you_mean(name, storage_classes())}",
        )
    check_holds(type_, rules.of_class[name], f"storage class {name!r}", where)


def _matching(name: str, patterns: Iterable[str]) -> str | None:
    listed = list(patterns)
    return name if name in listed else next((p for p in listed if fnmatchcase(name, p)), None)
