"""All collections at one moment: looking names up, opening chains, refusing circles. No database here."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase

from .errors import Conflict, NotFound, RegistryError, did_you_mean
from .records import Collection, CollectionType


@dataclass(frozen=True)
class Catalog:
    """Every collection of a registry with its row id."""

    ids: Mapping[str, int]
    collections: Mapping[str, Collection]
    place: str  # where the registry is, for errors
    # By row: nobody searches them any more, but something in them is used elsewhere.
    removed_runs: Mapping[int, str] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Collection:
        if (found := self.collections.get(name)) is None:
            raise NotFound(
                what=f"there is no collection {name!r}",
                where=f"registry {self.place}",
                why="no collection has this name",
                todo=did_you_mean(name, self.collections),
            )
        return found

    def added(self, collection: Collection, number: int) -> "Catalog":
        """Return this catalog with one collection more, or with another definition of it."""
        name = collection.name
        return replace(
            self, ids={**self.ids, name: number}, collections={**self.collections, name: collection}
        )

    def matching(self, glob: str) -> list[Collection]:
        """Return the collections whose name matches, in order of name."""
        return [c for name, c in sorted(self.collections.items()) if fnmatchcase(name, glob)]

    def of_type(self, name: str, type: CollectionType, act: str) -> Collection:
        """Return the collection `name`, which must be of `type` so that one can `act`.

        Raises
        ------
        NotFound, RegistryError
            If there is none; if it is of another type.
        """
        found = self[name]
        if found.type is not type:
            raise RegistryError(
                what=f"cannot {act} {name!r}",
                where=f"registry {self.place}",
                why=f"the collection is {found.type}, this needs {type}",
                todo=f"give a {type} collection",
            )
        return found

    def flatten(self, names: Sequence[str]) -> list[Collection]:
        """Open all chains depth first; each collection stays where it appears first."""
        found: dict[str, Collection] = {}
        opened: set[str] = set()
        for collection in self._opened(names, opened):
            found.setdefault(collection.name, collection)
        return list(found.values())

    def check_children(self, name: str, children: Sequence[str]) -> None:
        """Refuse children that do not exist or that hold `name` themselves.

        Raises
        ------
        NotFound, RegistryError
        """
        for child in children:
            if path := self._path(child, name):
                raise RegistryError(
                    what=f"chain {name!r} cannot hold {child!r}",
                    where=f"registry {self.place}",
                    why="it would hold itself: " + " → ".join((name, *path)),
                    todo="leave that child out",
                )

    def check_same(self, new: Collection) -> None:
        """Refuse another definition of a name that exists; an empty `doc` says nothing.

        Raises
        ------
        Conflict
            Showing both.
        """
        old = self.collections[new.name]
        same_doc = not new.doc or new.doc == old.doc
        if (old.type, old.children) == (new.type, new.children) and same_doc:
            return
        chains = old.type is new.type is CollectionType.CHAINED
        raise Conflict(
            what=f"collection {new.name!r} exists with another definition",
            where=f"registry {self.place}",
            why=f"there: {_described(old)}; given: {_described(new)}",
            todo="redefine the chain with `set_chain`" if chains else "give the new one another name",
        )

    def _opened(self, names: Sequence[str], opened: set[str]) -> Iterator[Collection]:
        for name in names:
            collection = self[name]
            if collection.type is not CollectionType.CHAINED:
                yield collection
            elif name not in opened:  # a second visit could add nothing
                opened.add(name)
                yield from self._opened(collection.children, opened)

    def _path(self, start: str, goal: str) -> tuple[str, ...]:
        """Return the chain of names by which `start` holds `goal`; empty where it does not."""
        if start == goal:
            return (goal,)
        seen: set[str] = set()

        def search(name: str) -> tuple[str, ...]:
            for child in self[name].children:
                if child == goal:
                    return (name, goal)
                if child not in seen:
                    seen.add(child)
                    if below := search(child):
                        return (name, *below)
            return ()

        return search(start)


def check_name(collection: Collection) -> None:
    """Refuse names that could not be written in a search path or a glob.

    Raises
    ------
    RegistryError
    """
    bad = sorted({c for c in collection.name if c.isspace() or c in "*?[],"})
    if bad or not collection.name:
        raise RegistryError(
            what=f"{collection.name!r} cannot be the name of a collection",
            where=f"{collection.type} collection",
            why=f"it holds {bad[0]!r}" if bad else "it is empty",
            todo="use letters, digits and . _ - + / : @ ~ =",
        )


def _described(c: Collection) -> str:
    children = f" of {', '.join(c.children)}" if c.type is CollectionType.CHAINED else ""
    return f"{c.type}{children}" + (f", doc {c.doc!r}" if c.doc else "")
