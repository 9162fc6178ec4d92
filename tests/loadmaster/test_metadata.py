"""Observation metadata, flags and checked expressions, as people set and ask for them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from astropy.table import Table
from loadmaster_registry.errors import ConfigError, NotFound, QueryError, RegistryError

from loadmaster import Repo
from loadmaster.metadata import read_data_id

Command = Callable[..., Any]


def exposures(survey: Repo, where: str) -> list[int]:
    return survey.query_data_ids("exposure", where=f"instrument='Cam' AND {where}")["exposure"].to_list()


@pytest.fixture
def asked(survey: Repo, command: Command) -> Command:
    return lambda *words: command(*words, "--repo", survey.place.folder)


def test_a_table_sets_values_that_every_query_knows_from_then_on(
    survey: Repo, asked: Command, tmp_path: Path
) -> None:
    (tmp_path / "seeing.csv").write_text("exposure,seeing,good\n1,0.7,yes\n2,1.2,no\n3,,yes\n")
    told = asked("metadata", "set", tmp_path / "seeing.csv")  # there is one instrument only
    assert (told.returncode, told.stderr) == (0, "5 new values\n")
    told = asked("metadata", "set", tmp_path / "seeing.csv")
    assert (told.returncode, told.stderr) == (0, "nothing new: these values hold already\n")
    with Repo(survey.place.folder) as opened:
        assert exposures(opened, "exposure.seeing < 1") == [1]
        assert exposures(opened, "good") == [1, 3]
    records = json.loads(
        asked("query-dimension-records", "exposure", "--where", "instrument='Cam'", "--json").stdout
    )
    assert [r["seeing"] for r in records] == [0.7, 1.2, None]


def test_the_history_tells_when_and_from_where_each_value_came(
    survey: Repo, asked: Command, tmp_path: Path
) -> None:
    for name, seeing in (("first.ecsv", 0.7), ("second.fits", 0.9)):
        Table({"exposure": [1], "seeing": [seeing]}).write(tmp_path / name)
        assert asked("metadata", "set", tmp_path / name, "instrument=Cam").returncode == 0
    told = json.loads(asked("metadata", "history", "exposure", "exposure=1", "--json").stdout)
    assert [(t["value"], t["source"], t["is_newest"]) for t in told] == [
        ("0.7", "first.ecsv", False),
        ("0.9", "second.fits", True),
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("exposure,seeing\n1,good\n2,1.0\n", None),  # texts, then
        ("exposure,seeing\n9,1.0\n", "row 1: instrument='Cam' exposure=9"),
        ("exposure,seeing\n,1.0\n", "'exposure' has no value in row 1"),
        ("exposure,exposure_time\n1,long\n", "'exposure_time' does not hold a number in row 1"),
        ("physical_filter,tract,seeing\nr,1,1.0\n", "no element has records over"),
        ("exposure,flagged\n1,perhaps\n", "'flagged' does not hold true or false in row 1"),
    ],
)
def test_a_table_that_cannot_be_meant_is_refused_by_its_row(
    text: str, words: str | None, survey: Repo, asked: Command, tmp_path: Path
) -> None:
    (tmp_path / "values.csv").write_text(text)
    told = asked("metadata", "set", tmp_path / "values.csv")
    assert told.returncode == (3 if words else 0)
    assert (words or "new values") in told.stderr
    assert survey.metadata_history("exposure").is_empty() == bool(words)


def test_a_data_frame_serves_as_well_as_a_file(survey: Repo) -> None:
    rows = pl.DataFrame({"exposure": [1, 2], "seeing": [0.7, 1.2]})
    assert survey.set_metadata(rows) == 2
    assert survey.metadata_history("exposure")["source"].to_list() == ["a data frame"] * 2


def test_flags_come_and_go_and_are_listed_with_their_reason(survey: Repo, asked: Command) -> None:
    assert (
        asked("flag", "exposure=1", "detector=1 instrument=Cam", "--reason", "satellite trail").returncode
        == 0
    )
    told = asked("flag", "exposure=1", "--reason", "satellite trail")
    assert told.stderr.startswith("nothing new")
    flags = json.loads(asked("query-flags", "--json").stdout)
    assert [(f["element"], f["data_id"], f["reason"]) for f in flags] == [
        ("detector", "instrument=Cam detector=1", "satellite trail"),
        ("exposure", "instrument=Cam exposure=1", "satellite trail"),
    ]
    assert "T" in flags[0]["since"]
    assert asked("unflag", "exposure=1", "--reason", "masked").returncode == 0
    assert survey.query_flags()["element"].to_list() == ["detector"]
    history = survey.metadata_history("exposure").filter(column="flag_reason")
    assert history["value"].to_list() == ["satellite trail", "masked"]


def test_a_flag_needs_a_record_and_taking_it_off_needs_a_flag(survey: Repo) -> None:
    with pytest.raises(RegistryError, match="exposure=99"):
        survey.flag({"exposure": 99}, reason="none")
    with pytest.raises(NotFound, match=r"have no flag(?s:.*)exposure=2"):
        survey.unflag({"exposure": 2})
    with pytest.raises(ConfigError, match="no element has records over"):
        survey.flag({"exposure": 1, "patch": 2}, reason="none")
    assert survey.query_flags().is_empty()


def test_of_several_data_ids_all_are_flagged_or_none(survey: Repo) -> None:
    with pytest.raises(RegistryError):
        survey.flag({"detector": 0}, {"exposure": 99}, reason="none")
    assert survey.query_flags().is_empty()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("vist=3", r"'vist=3' is no DIMENSION=VALUE(?s:.*)did you mean 'visit'"),
        ("visit", "no equals sign"),
        ("visit=three", "'three' is no value of visit(?s:.*)whole number"),
    ],
)  # fmt: skip
def test_a_data_id_that_cannot_be_read_says_which_part(text: str, words: str, survey: Repo) -> None:
    with pytest.raises(QueryError, match=words):
        read_data_id(text, survey.registry.universe)


def test_a_data_id_is_read_with_the_types_of_its_dimensions(survey: Repo) -> None:
    found = read_data_id("instrument='Cam', group=007 visit=-3", survey.registry.universe)
    assert found == {"instrument": "Cam", "group": "007", "visit": -3}


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("vist = 3", "did you mean 'visit'"),
        ("instrument = 'Cam' AND exposure.exposure_tim > 3", "did you mean 'exposure_time'"),
        (
            "instrument = 'Cam' AND exposure.exposure_time = 'long'",
            "exposure.exposure_time is a number (records of exposure)",
        ),
        ("instrument = 3", "instrument is a text (dimension)"),
        ("visit =", "    visit =\n           ^\n"),
    ],
)
def test_a_wrong_expression_is_shown_where_it_is_wrong(expression: str, words: str, command: Command) -> None:
    told = command("check-where", expression)
    assert (told.returncode, told.stdout) == (2, "")
    assert words in told.stderr
    assert "expression, column" in told.stderr


def test_a_right_expression_is_told_condition_by_condition(command: Command) -> None:
    told = command("check-where", "instrument = 'Cam' AND visit IN (1..9)")
    assert told.returncode == 0
    assert told.stdout == "instrument = 'Cam'  (instrument)\nvisit IN (1..9)  (instrument, visit)\n"
    told = command("check-where", "visit = 1", "--json")
    assert (told.returncode, json.loads(told.stdout)["right"]) == (2, False)


def test_an_expression_is_checked_with_the_metadata_of_a_repository(survey: Repo, asked: Command) -> None:
    expression = "instrument = 'Cam' AND exposure.seeing < :limit"
    assert asked("check-where", expression, "--bind", "limit=1").returncode == 2
    survey.set_metadata(pl.DataFrame({"exposure": [1], "seeing": [0.7]}))
    assert asked("check-where", expression, "--bind", "limit=1").returncode == 0
    assert asked("check-where", expression).returncode == 2  # nothing is bound


def test_a_bare_name_is_looked_for_among_the_dimensions_given(command: Command) -> None:
    expression = "instrument = 'Cam' AND exposure_time > 3"
    assert "several elements" in command("check-where", expression).stderr
    assert command("check-where", expression, "-d", "visit,detector").returncode == 0
    assert "no dimension" in command("check-where", expression, "-d", "vist").stderr
