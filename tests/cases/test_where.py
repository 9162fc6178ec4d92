"""Expressions over real registries select what they select in Rubin's, and what is refused there is refused here."""

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from case_files import check_keys, files
from case_values import bound
from loadmaster_registry.errors import Error, QueryError
from loadmaster_registry.queries import query_data_ids
from loadmaster_registry.store import Registry

ASKED = {"id", "registry", "dimensions", "where", "bind", "order_by", "limit"}
ANSWERED = {"n", "keys", "data_ids", "refused", "reason", "peer_seconds"}


def answers() -> list[Any]:
    cases = [(file, case) for file in files("where*.json") for case in json.loads(file.read_text())]
    return [pytest.param(case, id=f"{file.stem}:{case['id']}") for file, case in cases]


@pytest.mark.parametrize("case", answers())
def test_an_expression_selects_what_rubins_registry_selects(
    case: dict[str, Any], opened: Callable[[str], Registry]
) -> None:
    check_keys(case, ASKED | ANSWERED, case["id"])
    if "refused" in case:
        check_refusal(case, opened)
        return
    limited = "limit" in case and "order_by" not in case
    rows = selected(case, opened)
    assert len(rows) == case["n"]
    if limited:  # which ones is not said then
        rows = selected({k: v for k, v in case.items() if k != "limit"}, opened)
        assert set(map(tuple, case["data_ids"])) <= set(map(tuple, rows))
    elif "order_by" in case:
        assert rows == case["data_ids"]
    else:
        assert sorted(rows) == sorted(case["data_ids"])


def selected(case: dict[str, Any], opened: Callable[[str], Registry]) -> list[list[Any]]:
    """Return the rows in the order of the answer's keys. CIRCLE has there twice the radius that is written."""
    order = case.get("order_by", ())
    found = query_data_ids(
        opened(case["registry"]),
        case["dimensions"],
        where=case["where"] or "",
        bind=bound(case.get("bind")),
        order_by=[order] if isinstance(order, str) else order,
        limit=case.get("limit"),
        rubin_circles=True,
    )
    return [list(row) for row in (found.select(case["keys"]) if case["keys"] else found).rows()]


def check_refusal(case: dict[str, Any], opened: Callable[[str], Registry]) -> None:
    """Check that the error points at the place: the column, or what is asked for besides the expression."""
    with pytest.raises(Error) as caught:
        selected(case | {"keys": []}, opened)
    _, where, why, todo = caught.value.args
    assert why
    assert todo
    if isinstance(caught.value, QueryError) and "order_by" not in case:
        assert re.search(r"column \d+", str(where)), f"the place is not told: {caught.value}"
        assert "^" in str(where)
