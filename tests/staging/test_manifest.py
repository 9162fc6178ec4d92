"""Manifests and reports travel as JSON; outcomes follow from what became of quanta."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from loadmaster_pipelines.connections import Connection
from loadmaster_registry.errors import StageError
from loadmaster_staging.manifest import (
    FATAL,
    HARMLESS,
    InputFile,
    Manifest,
    OutputFile,
    QuantumReport,
    QuantumSpec,
    Report,
    StagedFile,
    Staging,
    local_names,
    manifest_from_json,
    outcome_of,
    report_from_json,
    to_json,
    too_few_inputs,
)

TEXTS = st.text(max_size=8)
DATA_IDS = st.dictionaries(TEXTS, st.integers() | TEXTS, max_size=3)
INPUTS = st.builds(
    InputFile,
    TEXTS,
    TEXTS,
    TEXTS,
    DATA_IDS,
    TEXTS,
    st.integers(-1),
    TEXTS,
    st.lists(TEXTS, max_size=2).map(tuple),
)
OUTPUTS = st.builds(OutputFile, TEXTS, TEXTS, TEXTS, DATA_IDS, TEXTS)
STAGINGS = st.builds(
    Staging,
    st.sampled_from(["direct", "copy", "cache"]),
    TEXTS,
    st.integers(-1),
    st.integers(1),
    TEXTS,
    st.sampled_from(["enforce", "audit", "off"]),
    st.lists(TEXTS, max_size=2).map(tuple),
)
CONNECTIONS = st.builds(
    Connection, TEXTS, st.just("input"), TEXTS, TEXTS, st.lists(TEXTS, max_size=2).map(tuple), st.booleans()
)


def tuples(items: st.SearchStrategy[object]) -> st.SearchStrategy[tuple[object, ...]]:
    return st.lists(items, max_size=3).map(tuple)


SPECS = st.builds(
    QuantumSpec,
    id=TEXTS,
    task=TEXTS,
    task_class=st.none() | TEXTS,
    command=st.none() | TEXTS,
    config=st.dictionaries(TEXTS, st.integers() | TEXTS | st.lists(st.integers(), max_size=2), max_size=2),
    data_id=DATA_IDS,
    connections=tuples(CONNECTIONS),
    inputs=tuples(INPUTS),
    outputs=tuples(OUTPUTS),
    junk=st.none() | OUTPUTS,
)
MANIFESTS = st.builds(
    Manifest,
    TEXTS,
    st.integers(0),
    st.integers(1),
    TEXTS,
    TEXTS,
    STAGINGS,
    st.integers(1),
    tuples(SPECS),
)
STATUSES = st.sampled_from(sorted(FATAL | HARMLESS | {"missing_output", "blocked"}))
QUANTA = st.builds(
    QuantumReport,
    id=TEXTS,
    status=STATUSES,
    message=TEXTS,
    outputs=tuples(st.builds(StagedFile, TEXTS, TEXTS, st.integers(0), TEXTS)),
)


@given(MANIFESTS)
def test_a_manifest_survives_the_way_through_json(manifest: Manifest) -> None:
    assert manifest_from_json(to_json(manifest)) == manifest


@given(tuples(QUANTA))
def test_a_report_survives_the_way_through_json(quanta: tuple[QuantumReport, ...]) -> None:
    report = Report("r", 1, 2, "t", "done", quanta, "host", "then", "now", 1.5, 1.0, 12.5)
    assert report_from_json(to_json(report)) == report


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"quanta": []}', '{"quanta": [{"x": 1}]}'])
def test_what_is_no_report_is_refused(text: str) -> None:
    with pytest.raises(StageError, match="report cannot be read"):
        report_from_json(text)


@given(st.lists(QUANTA, min_size=1))
def test_outputs_come_home_unless_some_code_failed(quanta: list[QuantumReport]) -> None:
    outcome = outcome_of(quanta)
    statuses = {q.status for q in quanta}
    assert (outcome == "failed") >= bool(statuses & FATAL)
    if outcome == "done":
        assert statuses <= HARMLESS | {"blocked"}
    if outcome == "partial":
        assert "missing_output" in statuses
        assert any(q.outputs for q in quanta)


def test_a_missing_output_makes_a_job_partial_only_if_something_exists() -> None:
    missing = QuantumReport("q", "missing_output")
    assert outcome_of([missing]) == "failed"
    assert outcome_of([replace(missing, outputs=(StagedFile("d", "n", 1, "c"),))]) == "partial"


@given(st.lists(st.sampled_from(["a/x.fits", "b/x.fits", "c/y.fits", "0-x.fits", "1-x.fits", ""])))
def test_files_in_one_folder_get_names_of_their_own(paths: list[str]) -> None:
    names = local_names(paths)
    assert len(set(names)) == len(paths)
    assert all(name.endswith(path.rsplit("/", 1)[-1]) for name, path in zip(names, paths, strict=True))


def test_a_quantum_needs_the_minimum_of_each_connection() -> None:
    connection = Connection("stars", "input", "src", "Catalog", multiple=True, minimum=2)
    files = tuple(InputFile("stars", id, "src", {}, "") for id in "abc")
    spec = QuantumSpec("q", "t", None, "true", {}, {}, (connection,), files, ())
    assert too_few_inputs(spec, {"a", "b"}) == ""
    assert too_few_inputs(spec, {"a", "z"}) == "stars: 1 of at least 2 'src'"
    optional = replace(spec, connections=(replace(connection, minimum=0),))
    assert too_few_inputs(optional, ()) == ""
