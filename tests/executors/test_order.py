"""Orders in real runs: group after group, and what a failure in one means for those after it."""

from itertools import pairwise

import pytest
from loadmaster_executors.journal import JobState
from loadmaster_pipelines.batch import Clustering, Order
from loadmaster_planner.plan import Plan
from toy_survey import Survey

BY_DETECTOR = Order("nights", ("Double",), ("detector",))
BLOCKING = Order("nights", ("Double",), ("detector",), is_blocking=True)


def ends(survey: Survey, plan: Plan, *, cpus: int = 4) -> dict[tuple[str, int], tuple[JobState, str, str]]:
    """Run a plan; return state, begin and end of each job by task and detector (-1 for none)."""
    run = survey.begin(plan)
    survey.execute(run, cpus=cpus)
    connection = run.journal._connection
    rows = connection.execute("SELECT job, state, started, ended FROM job ORDER BY job").fetchall()
    quanta = {job.index: job.quanta[0] for job in plan.jobs()}
    return {
        (quanta[job].task, int(quanta[job].data_id.get("detector", -1))): (JobState(state), started, ended)
        for job, state, started, ended in rows
    }


def test_a_group_begins_when_the_one_before_it_is_over(survey: Survey) -> None:
    found = ends(survey, survey.plan("Negate", "Total", clustering=Clustering(orders=(BY_DETECTOR,))))
    assert all(state == JobState.DONE for state, _, _ in found.values())
    spans = [found["Double", detector][1:] for detector in (1, 2, 3, 4)]
    assert all(ended <= begun for (_, ended), (begun, _) in pairwise(spans))
    assert survey.contents("total") == {-1: "20"}


@pytest.mark.parametrize("order", [BY_DETECTOR, BLOCKING])
def test_a_failure_keeps_later_groups_from_running_only_if_it_is_to(survey: Survey, order: Order) -> None:
    plan = survey.plan("Negate", config={"raises": "[2]"}, clustering=Clustering(orders=(order,)))
    found = {place: state for place, (state, _, _) in ends(survey, plan).items()}
    later = JobState.BLOCKED if order.is_blocking else JobState.DONE
    assert found["Double", 2] == JobState.FAILED
    assert found["Negate", 2] == JobState.BLOCKED
    assert found["Double", 1] == found["Negate", 1] == JobState.DONE
    assert {found[task, d] for task in ("Double", "Negate") for d in (3, 4)} == {later}


def test_what_a_failure_keeps_waiting_runs_once_the_run_is_taken_up_and_all_is_well(survey: Survey) -> None:
    path = survey.folder / "files" / "raw" / "1.txt"
    path.rename(path.with_suffix(".hidden"))
    plan = survey.plan(clustering=Clustering(orders=(BLOCKING,)))
    assert survey.execute(survey.begin(plan)).counts["blocked"] == 3
    path.with_suffix(".hidden").rename(path)
    assert survey.execute(survey.begin(plan)).is_good
    assert len(survey.contents("doubled")) == 4
