"""Every step of Rubin's own pipelines is planned over real visits, and the plan holds what it promises."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path

import pytest
from loadmaster_planner.plan import Plan
from loadmaster_registry.store import Registry
from real_inputs import RealSurvey, real_survey, steps

STEPS = pytest.mark.parametrize(("name", "step"), steps())
# Its detectors, tracts and pixels are three families of regions: Rubin's builder asks for a word on them, too.
ASKS = {"step2d-recalibrate-visits"}
Survey = Callable[[str], RealSurvey]
Planned = Callable[[str, str], Plan]


@pytest.fixture(scope="module")
def survey(originals: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Survey]:
    """Return a function that gives a real pipeline with a registry that holds what it reads; made once."""
    with ExitStack() as stack:

        @cache
        def made(name: str) -> RealSurvey:
            path = shutil.copy(originals("rc2-full"), tmp_path_factory.mktemp(name) / "registry.sqlite3")
            return real_survey(name, stack.enter_context(Registry.open(str(path))))

        yield made


@pytest.fixture(scope="module")
def planned(survey: Survey) -> Planned:
    """Return a function that plans a step, once."""

    @cache
    def plan(name: str, step: str) -> Plan:
        if step in ASKS:
            pytest.skip(
                f"{step} is refused without a word on how its regions overlap: a test of its own says so"
            )
        return survey(name).plan(step)

    return plan
