"""The plan file's container: row ranges across chunks, equal bytes for equal content, damage noticed."""

from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loadmaster_planner import tables
from loadmaster_planner.tables import FileTables, write_tables
from loadmaster_registry.errors import PlanError


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "CHUNK_ROWS", 7)


@settings(max_examples=60, deadline=None)
@given(rows=st.integers(0, 40), start=st.integers(0, 40), length=st.integers(0, 40))
def test_any_range_of_rows_is_that_of_the_frame(
    tmp_path_factory: pytest.TempPathFactory, rows: int, start: int, length: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "CHUNK_ROWS", 7)
        frame = pl.DataFrame(
            {"n": range(rows), "name": [str(i) for i in range(rows)]},
            schema={"n": pl.Int64, "name": pl.String},
        )
        path = tmp_path_factory.mktemp("tables") / "plan"
        write_tables(path, {}, {"t/x": frame})
        start = min(start, rows)
        stop = min(start + length, rows)
        assert FileTables(path).rows("t/x", start, stop).equals(frame[start:stop])


def test_equal_content_makes_equal_bytes(tmp_path: Path) -> None:
    frame = pl.DataFrame({"n": [1, 2, 3]})
    for name in ("a", "b"):
        write_tables(tmp_path / name, {"b": 1, "a": 2}, {"t": frame})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_file_that_is_no_plan_is_refused_with_words(tmp_path: Path) -> None:
    (tmp_path / "plan").write_text("not a plan")
    with pytest.raises(PlanError, match="damaged, or no plan file"):
        FileTables(tmp_path / "plan")


@pytest.mark.usefixtures("small_chunks")
def test_a_flipped_byte_is_noticed_when_its_chunk_is_read(tmp_path: Path) -> None:
    path = tmp_path / "plan"
    write_tables(path, {}, {"t": pl.DataFrame({"n": range(100)})})
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(PlanError, match="damaged"):
        FileTables(path).rows("t", 0, 100)


def test_a_cut_off_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "plan"
    write_tables(path, {}, {"t": pl.DataFrame({"n": range(100)})})
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(PlanError, match="damaged"):
        FileTables(path)


def test_nothing_is_left_behind_when_writing_fails(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        write_tables(tmp_path / "plan", {"x": object()}, {})
    assert list(tmp_path.iterdir()) == []
