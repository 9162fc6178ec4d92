"""Collections: chains, search order, names; and the real answers for a small registry."""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from loadmaster_registry.catalog import Catalog
from loadmaster_registry.errors import Conflict, NotFound, RegistryError
from loadmaster_registry.records import Collection, CollectionType
from loadmaster_registry.store import Registry

CASES = Path(os.environ.get("LOADMASTER_CASES", Path(__file__).parents[3] / "shared" / "data"))
MICRO = CASES / "expected" / "collections-micro.json"

RUN, TAGGED, CHAINED = CollectionType.RUN, CollectionType.TAGGED, CollectionType.CHAINED


def answers() -> list[Any]:
    found = json.loads(MICRO.read_text())["answers"] if MICRO.exists() else []
    return [pytest.param(a, id=f"{a['dataset_type']} in {a['collections']}") for a in found]


def register(registry: Registry, *collections: Collection) -> None:
    with registry.transaction() as transaction:
        for collection in collections:
            transaction.register_collection(collection)


def names(collections: Sequence[Collection]) -> list[str]:
    return [c.name for c in collections]


def dataset_id(registry: Registry, dataset_type: str, run: str, data_id: dict[str, Any]) -> UUID:
    keep = {d: [v] for d, v in data_id.items()}
    found = registry.datasets(dataset_type, [run], keep=keep)
    return UUID(bytes=registry.files(found["dataset"])["id"][0])


def set_up(registry: Registry) -> None:
    for step in json.loads(MICRO.read_text())["setup"]:
        type = {"chain": CHAINED, "run": RUN, "tag": TAGGED}[step["op"]]
        register(registry, Collection(step["name"], type, children=tuple(step.get("children", ()))))
        if step["op"] == "tag":
            ids = [dataset_id(registry, *dataset) for dataset in step["datasets"]]
            with registry.transaction() as transaction:
                transaction.associate(step["name"], ids)


def found_in(registry: Registry, answer: dict[str, Any], find_first: bool) -> list[tuple[Any, ...]]:
    searched = [answer["collections"]]
    rows = registry.datasets(answer["dataset_type"], searched, find_first=find_first)
    flat = names(registry.flatten(searched))
    if "physical_filter" not in rows.columns:
        rows = rows.with_columns(physical_filter=pl.lit(None, pl.String))
    columns = rows.select("detector", "physical_filter", "rank").rows()
    return [(detector, filter_, flat[rank]) for detector, filter_, rank in columns]


@pytest.mark.parametrize("answer", answers())
def test_a_search_path_finds_first_what_rubins_registry_finds(
    answer: dict[str, Any], imported: Callable[[str], Registry]
) -> None:
    registry = imported("micro")
    set_up(registry)
    expected = {
        (row[0], row[1] if len(row) == 3 else None, row[-1])
        for row in answer["find_first"]
        if row[-1] != "NONE"
    }
    assert set(found_in(registry, answer, find_first=True)) == expected


@pytest.mark.parametrize("answer", answers())
def test_a_search_path_finds_all_that_rubins_registry_finds(
    answer: dict[str, Any], imported: Callable[[str], Registry]
) -> None:
    registry = imported("micro")
    set_up(registry)
    found = found_in(registry, answer, find_first=False)
    assert sorted(found, key=str) == sorted(map(tuple, answer["all_matches"]), key=str)


def test_nested_chains_are_searched_depth_first_and_keep_the_first_appearance(
    imported: Callable[[str], Registry],
) -> None:
    registry = imported("micro")
    set_up(registry)
    assert names(registry.flatten(["outer"])) == ["picked", "empty_run", "imported_g", "imported_r"]
    assert names(registry.flatten(["outer2"])) == ["empty_run", "imported_r", "imported_g", "picked"]
    assert names(registry.flatten(["twice"])) == ["imported_g", "picked", "imported_r"]
    assert registry.collection("twice").children == ("imported_g", "picked", "imported_g", "imported_r")


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
