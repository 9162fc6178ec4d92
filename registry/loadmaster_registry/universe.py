"""The dimension universe: which axes data can have, how they depend on each other, read from a data file."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import yaml

from .errors import ConfigError, did_you_mean

ColumnType = Literal["int", "float", "str", "bool", "bytes"]
COLUMN_TYPES: tuple[ColumnType, ...] = ("int", "float", "str", "bool", "bytes")
_PACKAGED = Path(__file__).with_name("universe.yaml")
_ELEMENT_KEYS = {
    "key", "alternates", "requires", "implies", "metadata", "region", "timespan",
    "governor", "values_of", "populated_by", "always_join",
}  # fmt: skip
_TOP_KEYS = {"namespace", "version", "skypix", "spatial_families", "temporal_families", "elements"}


@dataclass(frozen=True, slots=True)
class Column:
    """One typed column of an element's records."""

    name: str
    type: ColumnType
    nullable: bool = True


@dataclass(frozen=True, slots=True)
class Element:
    """A kind of record: a dimension (it has a key of its own) or a join of dimensions."""

    name: str
    key: Column | None
    alternates: tuple[Column, ...]
    required: tuple[str, ...]  # all dimensions of the identity, itself included, in the universe's order
    implied: tuple[str, ...]  # those named by the element itself, in the universe's order
    metadata: tuple[Column, ...]
    has_region: bool
    has_timespan: bool
    is_governor: bool
    values_of: str | None  # the element whose distinct values this one is; it has no table then
    populated_by: str | None
    always_join: bool
    is_skypix: bool = False
    versioned: tuple[Column, ...] = ()  # what a registry holds beside the records, in versions

    @property
    def is_dimension(self) -> bool:
        """Whether data IDs can hold it."""
        return self.key is not None

    @property
    def has_table(self) -> bool:
        """Whether its records are stored."""
        return self.values_of is None and not self.is_skypix


@dataclass(frozen=True, slots=True)
class DimensionGroup:
    """A set of dimensions that is closed over what they require and imply."""

    required: tuple[str, ...]  # these identify a data ID, in the universe's order
    implied: tuple[str, ...]  # these follow from records

    @property
    def names(self) -> tuple[str, ...]:
        """Required, then implied."""
        return self.required + self.implied

    def __contains__(self, name: object) -> bool:
        return name in self.required or name in self.implied

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __str__(self) -> str:
        return "{" + ", ".join(self.required) + "}"


@dataclass(frozen=True)
class Universe:
    """All elements, in a fixed order in which each follows what it depends on.

    The order is by depth of dependence, then by name: it is also the order of columns and of import.
    """

    namespace: str
    version: int
    elements: Mapping[str, Element]  # stored ones; sky pixels come through `universe[name]`
    spatial_families: Mapping[str, tuple[str, ...]]
    temporal_families: Mapping[str, tuple[str, ...]]
    skypix_systems: Mapping[str, int]
    common_skypix: str
    source: tuple[Mapping[str, Any], ...] = field(compare=False, repr=False, default=())

    def __getitem__(self, name: str) -> Element:
        element = self.elements.get(name) or self._skypix(name)
        if element is None:
            raise ConfigError(
                what=f"there is no dimension element {name!r}",
                where=f"universe {self.namespace} version {self.version}",
                why="the name is not in the universe",
                todo=did_you_mean(name, self.elements),
            )
        return element

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and (name in self.elements or self._skypix(name) is not None)

    @property
    def dimensions(self) -> tuple[str, ...]:
        """Names of the stored elements that data IDs can hold, in order."""
        return tuple(e.name for e in self.elements.values() if e.is_dimension)

    def dimension(self, name: str) -> Element:
        """Return the element `name`, which must be a dimension.

        Raises
        ------
        ConfigError
            If there is none, or it only joins others.
        """
        element = self[name]
        if not element.is_dimension:
            raise ConfigError(
                what=f"{name!r} is not a dimension",
                where=f"universe {self.namespace} version {self.version}",
                why=f"it only joins {' and '.join(element.required)}",
                todo="name those",
            )
        return element

    def group(self, names: Iterable[str]) -> DimensionGroup:
        """Complete `names` with everything required and implied by them."""
        return _close(self, tuple(sorted(set(names))))

    def ordered(self, names: Iterable[str]) -> tuple[str, ...]:
        """Sort element names into the universe's order."""
        return tuple(sorted(names, key=self._position))

    def joins_of(self, group: DimensionGroup) -> tuple[Element, ...]:
        """Return the elements that are always joined when all their dimensions are in `group`."""
        return tuple(e for e in self.elements.values() if e.always_join and set(e.required) <= set(group))

    def implications(
        self, known: Iterable[str], group: DimensionGroup
    ) -> Iterator[tuple[Element, tuple[str, ...]]]:
        """Go through the elements of `group` whose records tell more than is `known`, each once its keys are known."""
        told = set(known)
        waiting = [self[name] for name in reversed(self.ordered(group.names))]
        while ready := next((e for e in waiting if set(e.required) <= told and set(e.implied) - told), None):
            new = tuple(d for d in ready.implied if d not in told)
            yield ready, new
            told.update(new)

    def finest(self, families: Mapping[str, Sequence[str]], group: DimensionGroup) -> dict[str, str]:
        """Return for each family that takes part in `group` its finest member there."""
        found = {}
        for family, members in families.items():
            for member in members:
                if set(self[member].required) <= set(group):
                    found[family] = member
                    break
        return found

    def region_of(self, group: DimensionGroup) -> str | None:
        """Return the element that gives data IDs of `group` their region; None without or with several."""
        members = set(self.finest(self.spatial_families, group).values())
        members |= {d for d in group.required if self[d].is_skypix}
        return members.pop() if len(members) == 1 else None

    def timespan_of(self, group: DimensionGroup) -> str | None:
        """Return the element that gives data IDs of `group` their time span, if any."""
        members = set(self.finest(self.temporal_families, group).values())
        return members.pop() if len(members) == 1 else None

    def _position(self, name: str) -> tuple[int, str]:
        return _depth(self, name), name

    def _skypix(self, name: str) -> Element | None:
        match = re.fullmatch(r"([a-z]+)(\d{1,2})", name)
        if not match or int(match[2]) > self.skypix_systems.get(match[1], -1):
            return None
        return Element(
            name, Column(name, "int", False), (), (name,), (), (), True, False, False, None, None, False, True
        )

    def __hash__(self) -> int:
        return hash((self.namespace, self.version, tuple(self.elements)))


@lru_cache(maxsize=4096)
def _depth(universe: Universe, name: str) -> int:
    element = universe[name]
    below = [d for d in (*element.required, *element.implied) if d != name]
    return 1 + max((_depth(universe, d) for d in below), default=-1)


@lru_cache(maxsize=4096)
def _close(universe: Universe, names: tuple[str, ...]) -> DimensionGroup:
    required: set[str] = set()
    for name in names:
        required |= set(universe.dimension(name).required)
    everything = set(required)
    fresh = set(required)
    while fresh:
        found = {d for name in fresh for d in (*universe[name].required, *universe[name].implied)}
        fresh = found - everything
        everything |= fresh
    # As in Rubin: what some dimension of the set implies is no identity, even where another one requires it.
    implied = {d for name in everything for d in universe[name].implied}
    return DimensionGroup(universe.ordered(everything - implied), universe.ordered(implied))


def load_universe(*extensions: str | Path) -> Universe:
    """Read Rubin's universe, then each extension: a file of the same form whose elements are added.

    Raises
    ------
    ConfigError
        On unknown keys, unknown dependencies, or an element that is defined twice.
    """
    documents = []
    for path in (_PACKAGED, *map(Path, extensions)):
        with open(path) as stream:
            documents.append((str(path), yaml.safe_load(stream)))
    return build_universe(documents)


def build_universe(documents: Sequence[tuple[str, Mapping[str, Any]]]) -> Universe:
    """Build a universe from (origin, document) pairs, the first of which is the base."""
    raw: dict[str, tuple[str, Mapping[str, Any]]] = {}
    spatial: dict[str, tuple[str, ...]] = {}
    temporal: dict[str, tuple[str, ...]] = {}
    for origin, document in documents:
        _known_keys(document, _TOP_KEYS, origin)
        for name, body in document.get("elements", {}).items():
            _known_keys(body, _ELEMENT_KEYS, f"{origin}: element {name}")
            if name in raw and raw[name][1] != body:
                raise ConfigError(
                    what=f"dimension element {name!r} is defined twice",
                    where=f"{raw[name][0]} and {origin}",
                    why="an extension may only add elements",
                    todo="give the new element another name",
                )
            raw[name] = (origin, body)
        spatial |= {k: tuple(v) for k, v in document.get("spatial_families", {}).items()}
        temporal |= {k: tuple(v) for k, v in document.get("temporal_families", {}).items()}
    base = documents[0][1]
    order = _sorted_elements(raw)
    elements = {name: _element(name, raw, order) for name in order}
    for element in elements.values():
        _check_implied(element, elements, raw[element.name][0])
    last = documents[-1][1]
    skypix = base.get("skypix", {"common": "htm7", "systems": {"htm": 24, "healpix": 17}})
    return Universe(
        namespace=last.get("namespace", base["namespace"]),
        version=last.get("version", base["version"]),
        elements=elements,
        spatial_families=spatial,
        temporal_families=temporal,
        skypix_systems=dict(skypix["systems"]),
        common_skypix=skypix["common"],
        source=tuple(dict(document) for _, document in documents),
    )


def _known_keys(body: Mapping[str, Any], known: set[str], where: str) -> None:
    for key in body:
        if key not in known:
            raise ConfigError(
                what=f"unknown key {key!r}",
                where=where,
                why="it means nothing here",
                todo=did_you_mean(key, known),
            )


def _sorted_elements(raw: Mapping[str, tuple[str, Mapping[str, Any]]]) -> list[str]:
    depth: dict[str, int] = {}

    def visit(name: str, path: tuple[str, ...]) -> int:
        if name in path:
            raise ConfigError(
                what=f"dimension element {name!r} depends on itself",
                where=raw[name][0],
                why=" → ".join((*path, name)),
                todo="break the circle",
            )
        if name not in depth:
            body = raw[name][1]
            below = [*body.get("requires", ()), *body.get("implies", ())]
            for other in below:
                if other not in raw:
                    raise ConfigError(
                        what=f"element {name!r} depends on {other!r}, which does not exist",
                        where=raw[name][0],
                        why="no element has this name",
                        todo=did_you_mean(other, raw),
                    )
            depth[name] = 1 + max((visit(other, (*path, name)) for other in below), default=-1)
        return depth[name]

    for name in raw:
        visit(name, ())
    return sorted(raw, key=lambda name: (depth[name], name))


def _element(name: str, raw: Mapping[str, tuple[str, Mapping[str, Any]]], order: Sequence[str]) -> Element:
    origin, body = raw[name]

    def required(of: str) -> set[str]:
        own = {of} if "key" in raw[of][1] else set()
        return own.union(*(required(other) for other in raw[of][1].get("requires", ())))

    def columns(key: str) -> tuple[Column, ...]:
        return tuple(_column(c, t, f"{origin}: element {name}") for c, t in body.get(key, {}).items())

    keys = columns("key")
    return Element(
        name=name,
        key=Column(keys[0].name, keys[0].type, False) if keys else None,
        alternates=columns("alternates"),
        required=tuple(sorted(required(name), key=order.index)),
        implied=tuple(sorted(body.get("implies", ()), key=order.index)),
        metadata=columns("metadata"),
        has_region=bool(body.get("region")),
        has_timespan=bool(body.get("timespan")),
        is_governor=bool(body.get("governor")),
        values_of=body.get("values_of"),
        populated_by=body.get("populated_by"),
        always_join=bool(body.get("always_join")),
    )


def _check_implied(element: Element, elements: Mapping[str, Element], origin: str) -> None:
    """Refuse an implied dimension whose value says nothing without that of another one."""
    own = {*element.required, *element.implied}
    for name in element.implied:
        if lacking := [d for d in elements[name].required if d not in own]:
            raise ConfigError(
                what=f"{element.name!r} implies {name!r}, of which it does not know the {lacking[0]!r}",
                where=f"{origin}: element {element.name}",
                why=f"a {name} is told from others by {', '.join(elements[name].required)}",
                todo=f"let it require or imply {lacking[0]} too",
            )


def _column(name: str, text: str, where: str) -> Column:
    plain: Any = text.removesuffix("!")
    if plain not in COLUMN_TYPES:
        raise ConfigError(
            what=f"column {name!r} has the unknown type {text!r}",
            where=where,
            why="a column is one of " + ", ".join(COLUMN_TYPES),
            todo=did_you_mean(plain, COLUMN_TYPES),
        )
    return Column(name, plain, nullable=not text.endswith("!"))
