"""What a name in an expression stands for: a dimension's value, or a field of an element's records."""

from dataclasses import dataclass
from typing import Literal

from .errors import QueryError, did_you_mean
from .universe import DimensionGroup, Element, Universe

FieldType = Literal["int", "float", "str", "bool", "bytes", "time", "span", "region"]
_BOUNDS = {"begin": "timespan_begin", "end": "timespan_end"}
_DATASET_FIELDS = {"ingest_date", "run", "collection", "dataset_id", "timespan"}


@dataclass(frozen=True, slots=True)
class Field:
    """Something that a row has one value of."""

    name: str  # in full: "visit", "visit.exposure_time", "visit.timespan.begin"
    type: FieldType
    element: str  # the dimension itself, or the element whose records hold it
    is_key: bool  # the value of a dimension, which needs no records
    columns: tuple[str, ...]  # of the frame that a predicate is applied to


def resolve(name: str, universe: Universe, group: DimensionGroup | None = None) -> Field:
    """Find what `name` stands for.

    Parameters
    ----------
    name : str
        A dimension (``visit``), a field (``visit.exposure_time``, ``visit.timespan.begin``), another name
        of a dimension (``visit.id``, ``visit.instrument``), or a field alone (``exposure_time``).
    group : DimensionGroup, optional
        Where a field alone is looked for; everywhere without it.

    Raises
    ------
    QueryError
        If there is no such thing, or several.
    """
    parts = name.split(".")
    if len(parts) == 1 and name in universe and universe[name].is_dimension:
        return _key(universe[name])
    if len(parts) == 1 or parts[0] == "timespan":
        return _bare(name, parts, universe, group)
    if parts[0] not in universe:
        raise _no_element(name, parts, universe)
    field = _field_of(universe[parts[0]], parts[1:])
    return _key(universe[field]) if isinstance(field, str) else field


def _key(element: Element) -> Field:
    assert element.key is not None
    return Field(element.name, element.key.type, element.name, True, (element.name,))


def _field_of(element: Element, parts: list[str]) -> Field | str:
    """Return the field `parts` of an element, or the name of the dimension that it is."""
    first, *bound = parts
    if not bound and element.key is not None and first in (element.key.name, element.name):
        return element.name
    if not bound and first in element.required + element.implied:
        return first
    if (found := _stored(element, first, bound)) is not None:
        return found
    raise QueryError(
        what=f"{element.name} has no field {'.'.join(parts)!r}",
        where=f"the name {element.name}.{'.'.join(parts)}",
        why="neither its key, its alternates nor its columns are called that",
        todo=did_you_mean(first, _names(element)),
    )


def _stored(element: Element, first: str, bound: list[str]) -> Field | None:
    """Return the field that the element's records hold under this name, if any."""
    name = ".".join([element.name, first, *bound])
    if first == "timespan" and element.has_timespan:
        if not bound:
            columns = (f"{element.name}.timespan_begin", f"{element.name}.timespan_end")
            return Field(name, "span", element.name, False, columns)
        if bound[0] in _BOUNDS:
            return Field(name, "time", element.name, False, (f"{element.name}.{_BOUNDS[bound[0]]}",))
    if bound:
        return None
    if first == "region" and element.has_region:
        return Field(name, "region", element.name, False, (element.name if element.is_skypix else name,))
    for column in (*element.alternates, *element.metadata, *element.versioned):
        if column.name == first:
            return Field(name, column.type, element.name, False, (name,))
    return None


def _names(element: Element) -> set[str]:
    columns = (*element.alternates, *element.metadata, *element.versioned)
    names = {c.name for c in columns} | {*element.required, *element.implied}
    names |= {"region"} if element.has_region else set()
    names |= {"timespan", "timespan.begin", "timespan.end"} if element.has_timespan else set()
    return names | ({element.key.name} if element.key else set())


def _bare(name: str, parts: list[str], universe: Universe, group: DimensionGroup | None) -> Field:
    """Find a field that stands alone; the elements around must leave no doubt whose it is."""
    around = [e for e in universe.elements.values() if group is None or set(e.required) <= set(group)]
    owners = [e for e in around if parts[0] in _names(e) - {*e.required, *e.implied}]
    if len(owners) > 1:
        raise QueryError(
            what=f"{name!r} may be a field of several elements",
            where=f"the name {name}",
            why=f"{', '.join(e.name for e in owners)} have one",
            todo=f"say which: {' or '.join(f'{e.name}.{name}' for e in owners[:3])}",
        )
    if not owners:
        raise _unknown(name, universe, around)
    field = _field_of(owners[0], parts)
    return _key(universe[field]) if isinstance(field, str) else field


def _unknown(name: str, universe: Universe, around: list[Element]) -> QueryError:
    if name in _DATASET_FIELDS:
        return _dataset_field(name)
    if name in universe:
        element = universe[name]
        return QueryError(
            what=f"{name!r} is no dimension",
            where=f"the name {name}",
            why=f"it joins {' and '.join(element.required)} and has no value of its own",
            todo=f"name one of its fields: {did_you_mean('', _names(element))}",
        )
    known = {*universe.dimensions, *(n for e in around for n in _names(e))}
    return QueryError(
        what=f"nothing is called {name!r}",
        where=f"the name {name}",
        why="no dimension, no field of the query's dimensions and no bound value has this name",
        todo=did_you_mean(name, known),
    )


def _no_element(name: str, parts: list[str], universe: Universe) -> QueryError:
    if len(parts) == 2 and parts[1] in _DATASET_FIELDS:
        return _dataset_field(name)
    return QueryError(
        what=f"there is no dimension element {parts[0]!r}",
        where=f"the name {name}",
        why="what stands before the point must be a dimension or a join of dimensions",
        todo=did_you_mean(parts[0], universe.elements),
    )


def _dataset_field(name: str) -> QueryError:
    return QueryError(
        what=f"{name!r} is a field of datasets, and such fields cannot be used here",
        where=f"the name {name}",
        why="an expression selects data IDs; datasets are chosen by type and collections",
        todo="name the collections to search, or filter the list of datasets afterwards",
    )
