"""A whole run: planned, staged, run, harvested."""

from toy_survey import Survey


def test_a_run_makes_what_was_planned(survey: Survey) -> None:
    run = survey.begin(survey.plan("Total", "Negate"))
    report = survey.execute(run)
    assert report.is_good
    assert report.counts["done"] == report.n_jobs == 9
    assert survey.contents("doubled") == {1: "2", 2: "4", 3: "6", 4: "8"}
    assert survey.contents("total") == {-1: "20"}
