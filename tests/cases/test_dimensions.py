"""The dimensions: elements, and what lists of names expand to, as Rubin's universe has them."""

import json
from collections.abc import Mapping
from typing import Any

import pytest
from case_files import check_keys, files
from loadmaster_registry.universe import Universe, load_universe

UNIVERSE = load_universe()


def answers(part: str) -> list[Any]:
    """Return one parameter for each element, or each set, of each file."""
    found = []
    for file in files("dimensions*.json"):
        content = json.loads(file.read_text())
        check_keys(content, {"universe", "elements", "sets"}, file.name)
        cases = content.get(part, ())
        if isinstance(cases, Mapping):
            found += [pytest.param(name, e, id=f"{file.stem}:{name}") for name, e in cases.items()]
        else:
            found += [pytest.param(c, id=f"{file.stem}:{','.join(c['given']) or 'none'}") for c in cases]
    return found


def family_of(families: Mapping[str, tuple[str, ...]], name: str) -> str | None:
    return next((family for family, members in families.items() if name in members), None)


@pytest.mark.parametrize(("name", "expected"), answers("elements"))
def test_an_element_is_what_it_is_in_rubins_universe(name: str, expected: dict[str, Any]) -> None:
    element = UNIVERSE[name]
    found = {
        "required": set(element.required),
        "implied": set(element.implied),
        "spatial": family_of(UNIVERSE.spatial_families, name),
        "temporal": family_of(UNIVERSE.temporal_families, name),
        "metadata": {c.name for c in element.metadata},
        "is_dimension": element.is_dimension,
        "governor": element.is_governor,
    }
    check_keys(expected, found, name)
    assert found == {k: set(v) if isinstance(v, list) else v for k, v in expected.items()}


@pytest.mark.parametrize("case", answers("sets"))
def test_a_list_of_names_expands_as_in_rubins_universe(case: dict[str, Any]) -> None:
    assert expanded(UNIVERSE, case["given"]) == {
        k: set(v) if isinstance(v, list) else v for k, v in case.items() if k != "given"
    }


def expanded(universe: Universe, given: list[str]) -> dict[str, Any]:
    group = universe.group(given)
    pixels = {d for d in group.required if universe[d].is_skypix}
    return {
        "required": set(group.required),
        "implied": set(group.implied),
        "spatial": set(universe.finest(universe.spatial_families, group))
        | {p.rstrip("0123456789") for p in pixels},
        "temporal": set(universe.finest(universe.temporal_families, group)),
        "region_of": universe.region_of(group),
    }
