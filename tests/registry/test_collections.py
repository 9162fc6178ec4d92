"""Collections: chains, search order, names."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from loadmaster_registry.catalog import Catalog
from loadmaster_registry.errors import Conflict, NotFound, RegistryError
from loadmaster_registry.records import Collection, CollectionType
from loadmaster_registry.store import Registry

RUN, TAGGED, CHAINED = CollectionType.RUN, CollectionType.TAGGED, CollectionType.CHAINED


def register(registry: Registry, *collections: Collection) -> None:
    with registry.transaction() as transaction:
        for collection in collections:
            transaction.register_collection(collection)


def names(collections: Sequence[Collection]) -> list[str]:
    return [c.name for c in collections]


def test_nested_chains_are_searched_depth_first_and_keep_the_first_appearance(registry: Registry) -> None:
    register(registry, Collection("g", RUN), Collection("r", RUN), Collection("picked", TAGGED))
    register(registry, Collection("g-then-r", CHAINED, children=("g", "r")))
    register(registry, Collection("outer", CHAINED, children=("picked", "g-then-r")))
    register(registry, Collection("outer2", CHAINED, children=("r", "outer")))
    register(registry, Collection("twice", CHAINED, children=("g", "picked", "g", "r")))
    assert names(registry.flatten(["outer"])) == ["picked", "g", "r"]
    assert names(registry.flatten(["outer2"])) == ["r", "picked", "g"]
    assert names(registry.flatten(["twice"])) == ["g", "picked", "r"]
    assert registry.collection("twice").children == ("g", "picked", "g", "r")


def test_a_chain_can_be_redefined_at_once(registry: Registry) -> None:
    register(registry, Collection("a", RUN), Collection("b", RUN), Collection("c", CHAINED, children=("a",)))
    with registry.transaction() as transaction:
        transaction.set_chain("c", ["b", "a"])
    assert names(registry.flatten(["c"])) == ["b", "a"]


def test_a_chain_that_would_hold_itself_is_refused_with_the_way_it_would(registry: Registry) -> None:
    register(registry, Collection("a", RUN), Collection("c1", CHAINED, children=("a",)))
    register(registry, Collection("c2", CHAINED, children=("c1",)))
    with (
        pytest.raises(RegistryError, match="c1 → c2 → c1"),
        registry.transaction() as transaction,
    ):
        transaction.set_chain("c1", ["c2"])
    assert registry.collection("c1").children == ("a",)


def test_a_chain_of_itself_is_refused(registry: Registry) -> None:
    register(registry, Collection("c", CHAINED))
    with pytest.raises(RegistryError, match="c → c"), registry.transaction() as transaction:
        transaction.set_chain("c", ["c"])


def test_a_chains_child_must_exist(registry: Registry) -> None:
    register(registry, Collection("calib", RUN))
    with pytest.raises(NotFound, match="did you mean 'calib'"):
        register(registry, Collection("c", CHAINED, children=("callib",)))
    assert names(registry.collections()) == ["calib"]


def test_the_same_collection_again_changes_nothing(registry: Registry) -> None:
    run = Collection("a", RUN, doc="first light")
    register(registry, run)
    with registry.transaction() as transaction:
        assert not transaction.register_collection(run)
        assert not transaction.register_collection(Collection("a", RUN))  # no doc says nothing about it


def test_another_definition_of_a_collection_is_a_conflict_that_shows_both(registry: Registry) -> None:
    register(registry, Collection("a", RUN), Collection("c", CHAINED, children=("a",)))
    with pytest.raises(Conflict, match="there: RUN; given: TAGGED"):
        register(registry, Collection("a", TAGGED))
    with pytest.raises(Conflict, match="there: CHAINED of a; given: CHAINED of "):
        register(registry, Collection("c", CHAINED))


@pytest.mark.parametrize("name", ["", "a b", "a*", "x,y", "[a]"])
def test_a_name_that_no_search_path_could_hold_is_refused(registry: Registry, name: str) -> None:
    with pytest.raises(RegistryError, match="cannot be the name"):
        register(registry, Collection(name, RUN))


def test_collections_are_listed_by_glob(registry: Registry) -> None:
    register(registry, Collection("u/me/a", RUN), Collection("u/me/b", RUN), Collection("HSC/raw", RUN))
    assert names(registry.collections("u/me/*")) == ["u/me/a", "u/me/b"]


@st.composite
def catalogs(draw: st.DrawFn) -> Catalog:
    """A catalog of a few runs and of chains that hold earlier ones."""
    runs = [Collection(f"run{i}", RUN) for i in range(draw(st.integers(1, 4)))]
    known = list(runs)
    for i in range(draw(st.integers(0, 5))):
        children = draw(st.lists(st.sampled_from(names(known)), max_size=4))
        known.append(Collection(f"chain{i}", CHAINED, children=tuple(children)))
    ids = {c.name: i for i, c in enumerate(known)}
    return Catalog(ids, {c.name: c for c in known}, "memory")


def opened(catalog: Catalog, name: str) -> list[str]:
    """The slow and obvious twin: every appearance, in order."""
    collection = catalog[name]
    if collection.type is not CHAINED:
        return [name]
    return [leaf for child in collection.children for leaf in opened(catalog, child)]


@given(catalogs(), st.data())
def test_flattening_keeps_the_first_appearance_of_each_leaf(catalog: Catalog, data: st.DataObject) -> None:
    searched = data.draw(st.lists(st.sampled_from(sorted(catalog.ids)), max_size=4))
    every = [leaf for name in searched for leaf in opened(catalog, name)]
    assert names(catalog.flatten(searched)) == list(dict.fromkeys(every))
