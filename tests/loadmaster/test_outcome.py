"""How commands end: every error becomes words and an exit code."""

import pytest
from loadmaster_registry.errors import Conflict, PlanError, StageError

from loadmaster.cli import main
from loadmaster.cli.outcome import DONE, FAILED, REFUSED, USAGE, tell_error

REFUSAL = PlanError("no bias", "detector 3", "none is valid", "certify one")
LOSS = StageError("a file is gone", "/there", "the disk died", "look for it")


def test_what_was_refused_before_anything_began_is_told_apart_from_what_failed() -> None:
    assert tell_error(REFUSAL) == REFUSED
    assert tell_error(LOSS) == FAILED


def test_all_errors_of_a_group_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    second = Conflict("twice", "run x", "it is there", "choose another")
    group = ExceptionGroup("several", [REFUSAL, ExceptionGroup("inner", [second])])
    assert tell_error(group) == REFUSED
    assert tell_error(ExceptionGroup("mixed", [REFUSAL, LOSS])) == FAILED
    told = capsys.readouterr().err
    assert "error: no bias\n  where: detector 3\n  why: none is valid\n  do: certify one\n" in told
    assert "error: twice\n" in told


def test_an_error_of_the_system_is_told_without_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert tell_error(OSError(28, "No space left on device", "/there")) == FAILED
    told = capsys.readouterr().err
    assert "No space left on device" in told
    assert "/there" in told
    assert "Traceback" not in told


def test_a_defect_keeps_its_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(IndexError) as caught:
        [].pop()
    assert tell_error(caught.value) == FAILED
    told = capsys.readouterr().err
    assert "IndexError" in told
    assert "this should not have happened" in told


def test_wrong_usage_has_its_own_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["query-datasets", "raw"]) == USAGE
    assert "Missing option '-i'" in capsys.readouterr().err


def test_help_is_no_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == DONE
    assert main(["run", "--help"]) == DONE
    assert "Usage: loadmaster run" in capsys.readouterr().out


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["version"]) == DONE
    assert capsys.readouterr().out.startswith("loadmaster ")
