"""What a run needs is kept for it, as long as it goes on."""

from pathlib import Path
from uuid import UUID, uuid5

import pytest
from loadmaster_executors import claim
from loadmaster_executors.claim import claimed, input_ids
from loadmaster_registry import leases
from loadmaster_registry.errors import Conflict, RunError
from loadmaster_registry.store import utc_now
from loadmaster_staging.harvest import open_run
from loadmaster_staging.removal import delete_datasets, remove_collections
from toy_survey import NAMESPACE, RAWS, RUN, Survey


def raw(detector: int) -> UUID:
    return uuid5(NAMESPACE, str(detector))


def test_nobody_can_remove_what_a_running_plan_needs(tmp_path: Path) -> None:
    survey = Survey.create(tmp_path, (1, 2, 3))
    plan = survey.plan()
    run = survey.begin(plan)
    assert set(input_ids(plan)) == {raw(n).bytes for n in (1, 2, 3)}
    open_run(survey.registry, RUN, plan.dataset_types)
    with claimed(survey.registry, run):
        for refused in (
            lambda: delete_datasets(survey.registry, survey.backbone, [raw(1)]),
            lambda: remove_collections(survey.registry, [RAWS]),
            lambda: remove_collections(survey.registry, [RUN]),
        ):
            with pytest.raises(Conflict, match=f"the run {RUN} .process"):
                refused()
    delete_datasets(survey.registry, survey.backbone, [raw(1)])


def test_the_lease_of_a_run_that_ended_is_given_back(tmp_path: Path) -> None:
    survey = Survey.create(tmp_path, (1,))
    run = survey.begin(survey.plan())
    survey.execute(run)
    with survey.registry.snapshot() as now:
        assert leases.live(now, utc_now()).is_empty()


def test_a_claim_is_renewed_when_it_is_due(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    survey = Survey.create(tmp_path, (1,))
    run = survey.begin(survey.plan())
    open_run(survey.registry, RUN, run.plan.dataset_types)
    monkeypatch.setattr(claim, "_RENEW_S", 0.0)
    with claimed(survey.registry, run) as held:
        with survey.registry.snapshot() as now:
            (before,) = leases.live(now, utc_now())["until"]
        monkeypatch.setattr(claim, "LEASE_S", 7200.0)
        held.renew()
        with survey.registry.snapshot() as now:
            (after,) = leases.live(now, utc_now())["until"]
    assert after > before


def test_a_plan_whose_input_was_removed_is_refused_with_who_and_why(tmp_path: Path) -> None:
    survey = Survey.create(tmp_path, (1, 2))
    run = survey.begin(survey.plan())
    delete_datasets(survey.registry, survey.backbone, [raw(2)], force=True, reason="a satellite")
    with pytest.raises(RunError, match="1 inputs of the plan were removed") as caught:
        survey.execute(run)
    assert "a satellite" in str(caught.value)
    assert "number" in str(caught.value)
