"""Failures that are of one kind are told together."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from loadmaster_executors.report import normalised, report
from toy_survey import Survey


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ("detector 12 has 3.5e-7 counts", "detector <n> has <n> counts"),
        ("no such file: '/scratch/u me/12/x.fits'", "no such file: '<path> me/<n>/x.fits'"),
        ("cannot open /a/b/c.fits.", "cannot open <path>"),
        ("s3://bucket/key is gone", "<path> is gone"),
        ("id 12345678-1234-5678-1234-567812345678 at 0x7f3a", "id <id> at <n>"),
        ("band_2 and F814W stay", "band_2 and F814W stay"),
        ("singular matrix", "singular matrix"),
    ],
)
def test_a_message_loses_what_tells_quanta_apart(message: str, kind: str) -> None:
    assert normalised(message) == kind


PARTICULARS = st.tuples(
    st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.uuids(), st.integers(0)
)


@given(PARTICULARS, PARTICULARS)
def test_messages_that_differ_in_particulars_only_are_one(
    one: tuple[object, ...], other: tuple[object, ...]
) -> None:
    message = "visit {0}: flux {1} of {2} in /data/{3}/x.fits, at 0x{3:x}"
    assert normalised(message.format(*one)) == normalised(message.format(*other))


def test_failures_are_grouped_and_all_jobs_are_accounted_for(survey: Survey) -> None:
    run = survey.begin(survey.plan("Negate", "Total", config={"raises": [1, 2], "omits": [3], "dies": [4]}))
    found = survey.execute(run)
    assert sum(found.counts.values()) == found.n_jobs == run.plan.n_jobs == 9
    assert [(g.class_, g.count) for g in found.failures] == [
        ("code_error", 2),
        ("missing_output", 1),
        ("signal", 1),
    ]
    assert sum(g.n_blocked for g in found.failures) == found.counts["blocked"] == 5
    assert found.is_over
    assert not found.is_good
    assert report(run) == found


def test_a_run_that_was_not_begun_is_not_over(survey: Survey) -> None:
    found = report(survey.begin(survey.plan()))
    assert found.counts["waiting"] == 4
    assert not found.is_over
    assert not found.is_good
