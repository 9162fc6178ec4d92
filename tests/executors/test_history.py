"""What later runs are estimated from: what quanta used, and only of jobs that are done."""

import pytest
from loadmaster_executors.history import usage
from loadmaster_pipelines.batch import Cluster, Clustering
from toy_survey import Survey


def test_each_quantum_of_a_job_that_is_done_has_the_time_and_memory_of_its_job(survey: Survey) -> None:
    run = survey.begin(survey.plan("Total", config={"sleep_s": 0.1}))
    survey.execute(run)
    found = usage(run)
    assert sorted(found["task"]) == ["Double"] * 4 + ["Total"]
    jobs = run.journal.usage(range(5))
    assert sorted(found.select("wall_s", "peak_memory_mib").rows()) == sorted(row[1:] for row in jobs)
    assert found.filter(task="Double")["wall_s"].min() > 0.1  # type: ignore[operator]


def test_quanta_share_the_time_of_a_job_as_their_own_times_are(survey: Survey) -> None:
    together = Clustering(clusters=(Cluster("pair", ("Double", "Negate"), ("detector",)),))
    plan = survey.plan("Negate", config={"sleep_s": 0.3}, clustering=together)
    run = survey.begin(plan)
    survey.execute(run)
    found = usage(run)
    assert sorted(found["task"]) == ["Double"] * 4 + ["Negate"] * 4
    total = sum(wall_s for _, wall_s, _ in run.journal.usage(range(4)))
    assert found["wall_s"].sum() == pytest.approx(total)
    times = dict(found.group_by("task").mean().select("task", "wall_s").rows())
    assert times["Double"] > 0.3 > times["Negate"] > 0


def test_what_failed_says_nothing_of_what_a_task_needs(survey: Survey) -> None:
    run = survey.begin(survey.plan("Negate", config={"raises": [2]}))
    survey.execute(run)
    assert sorted(usage(run)["task"]) == ["Double"] * 3 + ["Negate"] * 3


def test_a_run_that_has_not_begun_has_no_history(survey: Survey) -> None:
    assert usage(survey.begin(survey.plan())).is_empty()
