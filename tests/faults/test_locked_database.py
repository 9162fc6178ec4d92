"""Another process writes to a database and does not end: a run waits for it, or says so and goes on later."""

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from loadmaster_executors import journal
from loadmaster_executors.run import RunFolder
from loadmaster_registry import database
from loadmaster_registry.errors import RegistryError, RunError
from toy_survey import Survey

DETECTORS = (1, 2, 3)


@contextmanager
def locked(path: Path) -> Iterator[sqlite3.Connection]:
    """Write to a database, and do not come to an end, until the block does."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield connection
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        connection.close()


@pytest.fixture
def begun(tmp_path: Path) -> Callable[[], tuple[Survey, RunFolder]]:
    """Return what begins a run, or opens the survey anew and goes on."""

    def begin() -> tuple[Survey, RunFolder]:
        if (tmp_path / "run").exists():
            return Survey.open(tmp_path), RunFolder.open(tmp_path / "run")
        survey = Survey.create(tmp_path, DETECTORS)
        return survey, survey.begin(survey.plan("Total"))

    return begin


Begun = Callable[[], tuple[Survey, RunFolder]]


def is_whole(survey: Survey) -> bool:
    return survey.contents("total") == {-1: "12"} and survey.staged() == []


@pytest.mark.parametrize("file", ["registry.sqlite3", "run/journal.sqlite3"])
def test_a_run_waits_for_a_writer_that_takes_its_time(tmp_path: Path, begun: Begun, file: str) -> None:
    survey, run = begun()
    with locked(tmp_path / file) as connection:
        threading.Timer(3.0, connection.execute, ("ROLLBACK",)).start()
        assert survey.execute(run).is_good
    assert is_whole(survey)


@pytest.mark.parametrize(
    ("file", "error"), [("registry.sqlite3", RegistryError), ("run/journal.sqlite3", RunError)]
)
def test_a_writer_that_does_not_end_is_told_of_and_the_same_command_goes_on_later(
    tmp_path: Path, begun: Begun, monkeypatch: pytest.MonkeyPatch, file: str, error: type[Exception]
) -> None:
    begun()
    with monkeypatch.context() as impatient:
        impatient.setattr(database, "_BUSY_TIMEOUT_S", 0.3)
        impatient.setattr(journal, "_BUSY_S", 0.3)
        survey, run = begun()
        with locked(tmp_path / file), pytest.raises(error, match="locked") as told:
            survey.execute(run)
        assert str(tmp_path / file) in str(told.value)
        assert "do: " in str(told.value)
    survey, run = begun()
    assert survey.execute(run).is_good
    assert is_whole(survey)


def test_a_registry_that_is_locked_in_the_middle_of_a_run_loses_nothing(
    tmp_path: Path, begun: Begun, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun()
    with monkeypatch.context() as impatient, locked_once_it_runs(tmp_path / "registry.sqlite3") as progress:
        impatient.setattr(database, "_BUSY_TIMEOUT_S", 0.3)
        survey, run = begun()
        with pytest.raises(RegistryError, match="locked"):
            survey.execute(run, progress=progress)
    survey, run = begun()
    assert survey.execute(run).is_good
    assert is_whole(survey)


@contextmanager
def locked_once_it_runs(path: Path) -> Iterator[Callable[[object], None]]:
    """Yield a listener to a run's progress that locks a database when the first job runs."""
    connection = sqlite3.connect(path, isolation_level=None)

    def listen(progress: object) -> None:
        if not connection.in_transaction and progress.counts["running"]:  # type: ignore[attr-defined]
            connection.execute("BEGIN IMMEDIATE")

    try:
        yield listen
    finally:
        connection.close()
