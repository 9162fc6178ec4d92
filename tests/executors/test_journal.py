"""The run's journal: batches whole or not at all, legal moves only, totals that always add up."""

import sqlite3
from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from loadmaster_executors.journal import Attempt, Failure, JobEnd, JobState, Journal, Log, Made
from loadmaster_registry.errors import RunError

FACTS = {"run": "u/run", "plan": "d1ge57", "token": "cafe"}


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal.create(tmp_path / "journal.sqlite3", 5, FACTS)


def end(job: int, state: JobState, class_: str = "", *, left_out: bool = False) -> JobEnd:
    return JobEnd(state, class_, "", left_out, "host", "then", "now", 1.0, 0.5, 10.0, job)


def run_to_end(journal: Journal, job: int, state: JobState, class_: str = "") -> None:
    with journal.batch():
        journal.move([job], JobState.READY)
        journal.start([Attempt(job, 1, "token")])
        journal.move([job], JobState.FINISHED)
        journal.end([end(job, state, class_)])


def test_a_new_journal_has_all_jobs_waiting(journal: Journal) -> None:
    assert journal.counts() | {"waiting": 0} == dict.fromkeys(journal.counts(), 0)
    assert journal.counts()["waiting"] == 5
    assert journal.facts() == FACTS


def test_a_journal_without_jobs_is_one(tmp_path: Path) -> None:
    assert sum(Journal.create(tmp_path / "j", 0, FACTS).counts().values()) == 0


def test_a_batch_that_breaks_off_changes_nothing(journal: Journal) -> None:
    def broken() -> None:
        with journal.batch():
            journal.move([0, 1], JobState.READY)
            journal.add_made([Made(uuid4(), 1, "c")])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        broken()
    assert journal.counts()["waiting"] == 5


@pytest.mark.parametrize("state", [JobState.RUNNING, JobState.FINISHED, JobState.DONE, JobState.FAILED])
def test_an_illegal_move_changes_nothing(journal: Journal, state: JobState) -> None:
    def half_legal() -> None:
        with journal.batch():
            journal.move([0], JobState.READY)
            journal.move([0, 1], JobState.READY)

    with pytest.raises(RunError, match="1 of 2 jobs cannot become ready"):
        half_legal()
    with pytest.raises(RunError, match=f"cannot become {state.name.lower()}"), journal.batch():
        journal.move([0], state)
    assert journal.counts()["waiting"] == 5


MOVES = st.lists(st.tuples(st.integers(0, 4), st.sampled_from(JobState)), max_size=20)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None)
@given(MOVES)
def test_totals_add_up_whatever_is_tried(tmp_path: Path, moves: list[tuple[int, JobState]]) -> None:
    journal = Journal.create(tmp_path / f"{uuid4().hex}", 5, FACTS)
    for job, state in moves:
        try:
            with journal.batch():
                journal.move([job], state)
        except RunError:
            pass
        assert sum(journal.counts().values()) == 5
        assert journal.states().shape == (5,)
    journal.close()


def test_what_was_written_is_there_after_opening_again(journal: Journal) -> None:
    id = uuid4()
    run_to_end(journal, 2, JobState.DONE)
    with journal.batch():
        journal.add_made([Made(id, 3, "sha256:abc", "r/.shards/1.shard.json#0+3")])
        journal.move([0], JobState.READY)
        journal.start([Attempt(0, 4, "t0")])
    journal.close()
    again = Journal.open(journal.path)
    assert again.in_state(JobState.RUNNING) == [Attempt(0, 4, "t0")]
    assert again.attempts().tolist() == [4, 0, 1, 0, 0]
    assert again.made([id, uuid4()]) == {id: Made(id, 3, "sha256:abc", "r/.shards/1.shard.json#0+3")}


def test_the_log_of_a_quantum_is_that_of_its_last_attempt_unless_another_is_named(journal: Journal) -> None:
    with journal.batch():
        journal.add_logs([Log("q", 2, "1.shard.txt#5+1"), Log("q", 10, "2.shard.txt#0+9"), Log("r", 1, "x")])
    assert journal.log("q") == Log("q", 10, "2.shard.txt#0+9")
    assert journal.log("q", 2) == Log("q", 2, "1.shard.txt#5+1")
    assert journal.log("q", 3) is None
    assert journal.log("nobody") is None


def test_what_failed_or_was_blocked_waits_again_and_what_is_done_stays(journal: Journal) -> None:
    run_to_end(journal, 0, JobState.DONE)
    run_to_end(journal, 1, JobState.FAILED, "code_error")
    run_to_end(journal, 2, JobState.PARTIAL, "missing_output")
    with journal.batch():
        journal.block([3], 1)
        journal.starve({4: "nothing"})
    assert journal.blocked() == {1: 1, None: 1}
    with journal.batch():
        journal.wait_again()
    assert journal.states().tolist() == [4, 0, 5, 0, 0]
    assert journal.blocked() == {}


def test_failures_are_those_of_the_last_attempt(journal: Journal) -> None:
    def failure(attempt: int) -> Failure:
        return Failure(1, attempt, "q", "task", "{}", "code_error", "E", f"m{attempt}", "", "", "")

    run_to_end(journal, 1, JobState.FAILED, "code_error")
    with journal.batch():
        journal.add_failures([failure(1)])
    assert [f.message for f in journal.failures()] == ["m1"]
    with journal.batch():
        journal.wait_again()
    assert journal.failures() == []
    with journal.batch():
        journal.move([1], JobState.READY)
        journal.start([Attempt(1, 2, "t")])
        journal.move([1], JobState.FINISHED)
        journal.add_failures([failure(2)])
        journal.end([end(1, JobState.FAILED, "code_error")])
    assert [f.message for f in journal.failures()] == ["m2"]


def test_one_reads_while_another_writes(journal: Journal) -> None:
    reader = Journal.open(journal.path)
    with journal.batch():
        journal.move([0], JobState.READY)
        assert reader.counts()["waiting"] == 5
    assert reader.counts()["waiting"] == 4


def test_a_journal_of_another_format_is_refused(journal: Journal) -> None:
    journal.close()
    with sqlite3.connect(journal.path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(RunError, match="format 99"):
        Journal.open(journal.path)
