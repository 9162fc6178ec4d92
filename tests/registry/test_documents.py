"""YAML documents: every complaint says where."""

from typing import Literal

import pytest
from loadmaster_registry.documents import parse_document
from loadmaster_registry.errors import ConfigError
from pydantic import BaseModel, ConfigDict

TEXT = """\
name: a
parts:
  - {size: 1}
  - {size: 2, kind: round}
"""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")
    size: int
    kind: Literal["round", "square"] = "round"


class _Whole(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str
    parts: tuple[_Part, ...]


def test_a_document_of_the_right_form_is_accepted() -> None:
    assert parse_document(TEXT, "a.yaml").validated(_Whole, "whole").parts[1].size == 2


@pytest.mark.parametrize(
    ("old", "new", "place", "said"),
    [
        ("kind:", "kid:", "a.yaml:4: parts.1.kid", "did you mean 'kind'"),
        ("round", "oval", "a.yaml:4: parts.1.kind", "'round' or 'square'"),
        ("size: 1", "size: one", "a.yaml:3: parts.0.size", "integer"),
        ("{size: 1}", "{}", "a.yaml:3: parts.0", "parts.0.size: Field required"),
        ("name:", "nam:", "a.yaml", "did you mean 'name'"),
        ("name: a", "name: a\nname: b", "a.yaml:2", "its first value, on line 1, would be lost"),
        ("{size: 1}", "{size: 1", "a.yaml:4:5", "not valid YAML"),
    ],
)
def test_a_wrong_document_is_refused_with_line_and_advice(old: str, new: str, place: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_document(TEXT.replace(old, new, 1), "a.yaml").validated(_Whole, "whole")
    assert place in str(caught.value)
    assert said in str(caught.value)


def test_all_that_is_wrong_is_told_together() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_document(TEXT.replace("size: 1", "sise: x"), "a.yaml").validated(_Whole, "whole")
    assert "unknown key 'parts.0.sise'" in str(caught.value)
    assert "parts.0.size: Field required" in str(caught.value)
