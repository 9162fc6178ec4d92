"""Errors say what they have to say, and no secrets."""

import pickle

import pytest
from loadmaster_registry.errors import StageError


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("postgresql://me:s3cr3t@host/db", "postgresql://me:***@host/db"),
        (
            "ftp://me:s3cr3t/x@host/file",
            "ftp://me:s3cr3t/x@host/file",
        ),  # no password: slashes end the user's part
        ("https://h/x?X-Amz-Signature=abc&part=1", "https://h/x?X-Amz-Signature=***&part=1"),
        ("https://h/x?AWSAccessKeyId=AKIA&Signature=abc", "https://h/x?AWSAccessKeyId=***&Signature=***"),
        ("https://h/x?part=1&sig=abc", "https://h/x?part=1&sig=***"),
        ("s3://bucket/a@b:c/d", "s3://bucket/a@b:c/d"),
        ("job token=cafe has no report", "job token=cafe has no report"),
    ],
)
def test_what_lets_people_in_is_left_out_of_every_part_of_an_error(text: str, told: str) -> None:
    error = StageError(what=text, where=text, why=f"it said: {text}", todo=text)
    assert error.args == (told, told, f"it said: {told}", told)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
