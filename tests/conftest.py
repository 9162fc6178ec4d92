"""What several parts' tests need: the folder of real cases, and its registries."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from uuid import uuid4

import pytest
from fsspec.core import url_to_fs
from loadmaster_registry.exchange import import_export
from loadmaster_registry.store import Registry

CASES = Path(os.environ.get("LOADMASTER_CASES", Path(__file__).parents[2] / "shared" / "data"))


@pytest.fixture(scope="session")
def cases() -> Path:
    """Return the folder with real registries, pipelines and answers, or skip."""
    if not (CASES / "registry").is_dir():
        pytest.skip(f"no real cases at {CASES}; set LOADMASTER_CASES to the folder that holds them")
    return CASES


@pytest.fixture(scope="session")
def originals(cases: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return where the registry file of a case is, imported once."""
    folder = tmp_path_factory.mktemp("originals")
    files = json.loads((cases / "registry" / "registries.json").read_text())

    def original(name: str) -> Path:
        path = folder / f"{name}.sqlite3"
        if not path.exists():
            with Registry.create(str(path)) as made:
                for file in files[name]:
                    import_export(made, cases / "registry" / file)
        return path

    return original


@pytest.fixture(scope="session")
def opened(originals: Callable[[str], Path]) -> Iterator[Callable[[str], Registry]]:
    """Return a function that gives a case's registry, shared by all: only to be read."""
    with ExitStack() as stack:
        registries: dict[str, Registry] = {}

        def open_(name: str) -> Registry:
            if name not in registries:
                registries[name] = stack.enter_context(Registry.open(str(originals(name))))
            return registries[name]

        yield open_


@pytest.fixture
def imported(originals: Callable[[str], Path], tmp_path: Path) -> Iterator[Callable[[str], Registry]]:
    """Return a function that gives a copy of a case's registry, to do with as one likes."""
    with ExitStack() as opened:

        def copy(name: str) -> Registry:
            path = shutil.copy(originals(name), tmp_path / f"{name}.sqlite3")
            return opened.enter_context(Registry.open(str(path)))

        yield copy


@pytest.fixture(scope="session")
def object_store() -> Iterator[str]:
    """Return the URL of a new folder in a real object store, or skip."""
    bucket = os.environ.get("LOADMASTER_TEST_S3")
    if not bucket:
        pytest.skip('no object store; to start one: eval "$(tests/services/s3-up)"')
    fs, path = url_to_fs(f"{bucket}/{uuid4().hex}")
    yield f"{bucket}/{path.rpartition('/')[2]}"
    fs.invalidate_cache()
    with suppress(FileNotFoundError):
        fs.rm(path, recursive=True)


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
