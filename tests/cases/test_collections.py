"""Searches through chains, tags and runs find what Rubin's registry finds."""

import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from case_files import check_keys, files, names
from case_setup import set_up
from loadmaster_registry.errors import Error
from loadmaster_registry.records import CollectionType
from loadmaster_registry.store import Registry

Row = tuple[Any, ...]


def answers() -> list[Any]:
    found = []
    for file in files("collections-*.json"):
        content = json.loads(file.read_text())
        check_keys(content, {"registry", "setup", "answers", "errors"}, file.name)
        for i, a in enumerate([*content["answers"], *content.get("errors", ())]):
            what = f"{a.get('dataset_type', i)} in {'+'.join(names(a.get('collections', '')))}"
            found.append(pytest.param(content, a, id=f"{file.stem}:{what}"))
    return found


@pytest.mark.parametrize(("content", "answer"), answers())
def test_a_search_path_finds_what_rubins_registry_finds(
    content: dict[str, Any], answer: dict[str, Any], imported: Callable[[str], Registry]
) -> None:
    registry = imported(content["registry"])
    set_up(registry, content["setup"])
    if "find_first" not in answer:
        check_refusal(registry, answer)
        return
    check_keys(answer, {"collections", "dataset_type", "find_first", "all_matches"}, "answer")
    for kind in ("find_first", "all_matches"):
        wanted = {tuple(row) for row in answer[kind] if row[-1] != "NONE"}
        assert found_in(registry, answer, wanted, kind == "find_first") == {completed(row) for row in wanted}


def check_refusal(registry: Registry, error: Mapping[str, Any]) -> None:
    step = {k: v for k, v in error.items() if k not in ("error", "result", "reason")}
    with pytest.raises(Error):
        ask(registry, step)


def ask(registry: Registry, step: Mapping[str, Any]) -> None:
    if "op" in step:
        set_up(registry, [step])
    else:
        registry.datasets(step["dataset_type"], names(step["collections"]))


def completed(row: Row) -> Row:
    """Return detector, filter and place; the filter is left out where the type has none."""
    return row if len(row) == 3 else (row[0], None, row[1])


def found_in(registry: Registry, answer: Mapping[str, Any], wanted: set[Row], find_first: bool) -> set[Row]:
    """Return detector, filter and the RUN of each match, or the collection where the answer tells that."""
    searched = names(answer["collections"])
    rows = registry.datasets(answer["dataset_type"], searched, find_first=find_first)
    flat = registry.flatten(searched)
    runs = {c.name for c in registry.collections() if c.type is CollectionType.RUN}
    by_run = {row[-1] for row in wanted} <= runs
    places = registry.files(rows["dataset"])["run"] if by_run else [flat[r].name for r in rows["rank"]]
    filters = rows["physical_filter"] if "physical_filter" in rows.columns else [None] * rows.height
    return set(zip(rows["detector"], filters, places, strict=True))
