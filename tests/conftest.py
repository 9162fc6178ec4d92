"""What several parts' tests need: the folder of real cases."""

import os
from pathlib import Path

import pytest

CASES = Path(os.environ.get("LOADMASTER_CASES", Path(__file__).parents[2] / "shared" / "data"))


@pytest.fixture(scope="session")
def cases() -> Path:
    """Return the folder with real registries, pipelines and answers, or skip."""
    if not (CASES / "registry").is_dir():
        pytest.skip(f"no real cases at {CASES}; set LOADMASTER_CASES to the folder that holds them")
    return CASES


# In continuous integration a test may be skipped for this reason only: the folder is not part of the project.
EXPECTED_SKIPS = ("no real cases at",) if CASES.is_dir() else ("no real cases at", "got empty parameter set")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the run in CI if a test was skipped for a reason that nobody expects."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if not os.environ.get("CI") or reporter is None:
        return
    skipped = [(report.nodeid, _reason(report)) for report in reporter.stats.get("skipped", ())]
    odd = [(test, why) for test, why in skipped if not any(known in why for known in EXPECTED_SKIPS)]
    for test, why in odd:
        reporter.write_line(f"unexpected skip: {test}: {why}", red=True)
    if odd and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _reason(report: pytest.TestReport) -> str:
    return str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr)
