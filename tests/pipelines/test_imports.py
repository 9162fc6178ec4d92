"""Pipeline files are merged by rules that leave no room for surprise."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from loadmaster_pipelines.document import Document, Import, TaskEntry
from loadmaster_pipelines.imports import merge, resolve, restrict, select
from loadmaster_pipelines.loader import load_pipeline
from loadmaster_pipelines.pipeline import Contract, Pipeline, Step, Subset
from loadmaster_registry.errors import PipelineError
from loadmaster_registry.universe import Universe

Load = Callable[..., Pipeline]


@pytest.fixture
def importing(load: Load) -> Callable[..., Pipeline]:
    """Return a function that loads a file which imports ``toy.yaml`` with some keys, and more text."""

    def write(keys: str = "", more: str = "", **options: object) -> Pipeline:
        return load(f"description: mine\nimports:\n  - {{location: toy.yaml{keys}}}\n{more}", **options)

    return write


def test_an_import_alone_is_the_imported_pipeline(load: Load, folder: Path, universe: Universe) -> None:
    alone = load("description: toy survey\nimports: toy.yaml\n")
    assert alone == load_pipeline(folder / "toy.yaml", universe=universe)


def test_locations_are_relative_to_the_importing_file(load: Load, folder: Path, universe: Universe) -> None:
    (folder / "sub").mkdir()
    (folder / "sub" / "outer.yaml").write_text("description: x\nimports: [../toy.yaml]\n")
    assert len(load("description: y\nimports: sub/outer.yaml\n").tasks) == 3
    assert len(load_pipeline(folder / "sub" / "outer.yaml", universe=universe).tasks) == 3


def test_environment_variables_in_imports_are_expanded(
    load: Load, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOY_DIR", str(folder))
    assert len(load("description: y\nimports: $TOY_DIR/toy.yaml\n").tasks) == 3


def test_include_takes_labels_and_subsets(importing: Callable[..., Pipeline]) -> None:
    assert list(importing(", include: [perDetector]").tasks) == ["isr", "detect"]
    assert list(importing(", include: [summarize, isr], importSteps: false").tasks) == ["isr", "summarize"]
    assert list(importing(", include: isr").tasks) == ["isr"]


def test_exclude_takes_labels_and_subsets(importing: Callable[..., Pipeline]) -> None:
    assert list(importing(", exclude: [perDetector]").tasks) == ["summarize"]
    assert list(importing(", exclude: [isr, perVisit]").tasks) == ["detect"]


@pytest.mark.parametrize("key", ["include", "exclude"])
def test_a_misspelt_label_in_an_import_is_suggested(importing: Callable[..., Pipeline], key: str) -> None:
    with pytest.raises(PipelineError, match="did you mean 'perDetector'") as caught:
        importing(f", {key}: [perDetecter]")
    assert "pipeline.yaml:3:26" in str(caught.value)


def test_subsets_that_miss_a_member_are_dropped_with_their_steps(importing: Callable[..., Pipeline]) -> None:
    pipeline = importing(", exclude: [detect], importSteps: false", "subsets: {all: [isr, summarize]}\n")
    assert set(pipeline.subsets) == {"perVisit", "all"}


def test_a_step_whose_subset_was_dropped_is_gone_and_missed(importing: Callable[..., Pipeline]) -> None:
    with pytest.raises(PipelineError, match="task isr is in no step"):
        importing(", exclude: [detect]")
    assert importing(", exclude: [detect], importSteps: false").steps == ()


def test_edit_takes_members_out_of_subsets_and_keeps_steps(importing: Callable[..., Pipeline]) -> None:
    pipeline = importing(", exclude: [detect], labeledSubsetModifyMode: EDIT")
    assert pipeline.subsets["perDetector"].members == ("isr",)
    assert [s.label for s in pipeline.steps] == ["perDetector", "perVisit"]


def test_contracts_go_with_the_tasks_they_name_or_all_if_asked(importing: Callable[..., Pipeline]) -> None:
    assert len(importing().contracts) == 2
    part = importing(", exclude: [isr], importSteps: false")
    assert [c.expression for c in part.contracts] == ["detect.threshold > 3"]
    assert importing(", importContracts: false").contracts == ()


def test_the_instrument_is_kept_dropped_or_replaced(load: Load, folder: Path) -> None:
    (folder / "cam.yaml").write_text("description: x\ninstrument: a.Cam\nimports: toy.yaml\n")
    base = "description: y\nimports: {location: cam.yaml%s}\n"
    assert load(base % "").instrument == "a.Cam"
    assert load(base % ", instrument: None").instrument is None
    assert load(base % ", instrument: null").instrument is None
    assert load(base % ", instrument: b.Cam").instrument == "b.Cam"
    assert load(base % "" + "instrument: c.Cam\n").instrument == "c.Cam"


def test_two_instruments_need_a_decision(load: Load, folder: Path) -> None:
    for name in ("a", "b"):
        (folder / f"{name}.yaml").write_text(
            f"description: x\ninstrument: {name}.Cam\ntasks: {{isr_{name}: {{class: sketch_tasks.Isr, "
            f"config: {{connections.image: image_{name}}}}}}}\n"
        )
    text = "description: y\nimports: [a.yaml, b.yaml]\n"
    with pytest.raises(PipelineError, match=r"a\.Cam and b\.Cam"):
        load(text)
    assert load(text + "instrument: a.Cam\n").instrument == "a.Cam"


def test_a_renamed_task_keeps_everything_but_its_label(importing: Callable[..., Pipeline]) -> None:
    pipeline = importing(", include: [isr, detect, summarize], rename: {detect: find}, importSteps: false")
    assert list(pipeline.tasks) == ["isr", "find", "summarize"]
    assert pipeline.tasks["find"].config["seed"] == 1
    assert set(pipeline.subsets) == {"perVisit"}
    assert pipeline.contracts == ()


def test_every_included_task_survives_a_rename_of_another(importing: Callable[..., Pipeline]) -> None:
    for renamed in ("isr", "detect", "summarize"):
        pipeline = importing(
            f", include: [isr, detect, summarize], rename: {{{renamed}: x}}, importSteps: false"
        )
        assert len(pipeline.tasks) == 3


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        (", rename: {detct: find}", "did you mean 'detect'"),
        (", rename: {detect: isr}", "the name is taken"),
        (", rename: {detect: perVisit}", "the name is taken"),
        (", rename: {detect: x, isr: x}", "labels are unique"),
        (", exclude: [detect], rename: {detect: find}", "it is not among the tasks that are imported"),
        (", rename: {detect: a b}", "renames nothing"),
    ],
)
def test_a_rename_that_cannot_be_is_refused(
    importing: Callable[..., Pipeline], keys: str, words: str
) -> None:
    with pytest.raises(PipelineError, match=words):
        importing(keys)


def test_a_label_is_imported_once(load: Load, folder: Path) -> None:
    (folder / "again.yaml").write_text("description: x\ntasks: {isr: sketch_tasks.Isr}\n")
    with pytest.raises(PipelineError, match="task 'isr' is imported twice") as caught:
        load("description: x\nimports: [toy.yaml, again.yaml]\n")
    assert "again.yaml:2:9" in str(caught.value)


def test_a_subset_is_imported_once_and_is_no_task(load: Load, folder: Path) -> None:
    (folder / "b.yaml").write_text(
        "description: x\ntasks: {d: {class: sketch_tasks.Isr}}\nsubsets: {perVisit: [d]}\n"
    )
    with pytest.raises(PipelineError, match="subset 'perVisit' is imported"):
        load("description: x\nimports: [toy.yaml, b.yaml]\n")
    (folder / "c.yaml").write_text("description: x\ntasks: {perVisit: sketch_tasks.Isr}\n")
    with pytest.raises(PipelineError, match="'perVisit' is imported"):
        load("description: x\nimports: [toy.yaml, c.yaml]\n")
    with pytest.raises(PipelineError, match="'perVisit' is a subset and a task"):
        load("description: x\nimports: toy.yaml\ntasks: {perVisit: sketch_tasks.Isr}\n")


def test_own_settings_are_applied_after_imported_ones(importing: Callable[..., Pipeline]) -> None:
    own = "tasks:\n  detect:\n    class: sketch_tasks.Detect\n    config: {threshold: 4, seed: 2}\n"
    got = importing(more=own).tasks["detect"].config
    assert (got["threshold"], got["seed"]) == (4.0, 2)


def test_the_same_class_without_settings_keeps_the_imported_ones(importing: Callable[..., Pipeline]) -> None:
    assert importing(more="tasks: {detect: sketch_tasks.Detect}\n").tasks["detect"].config["seed"] == 1


def test_settings_may_be_added_without_repeating_the_class(importing: Callable[..., Pipeline]) -> None:
    got = importing(more="tasks: {detect: {config: {threshold: 4}, resources: {cpus: 2}}}\n").tasks["detect"]
    assert (got.config["threshold"], got.config["seed"], got.resources.cpus) == (4.0, 1, 2)


def test_another_class_replaces_the_task_with_its_settings(importing: Callable[..., Pipeline]) -> None:
    own = "tasks: {summarize: {class: sketch_tasks.Detect, config: {seed: 3, connections.kind: other}}}\nsteps: []\n"
    pipeline = importing(", importSteps: false", own)
    assert pipeline.tasks["summarize"].task_class == "sketch_tasks.Detect"


def test_own_subsets_replace_imported_ones(importing: Callable[..., Pipeline]) -> None:
    pipeline = importing(", importSteps: false", "subsets: {perVisit: [isr, detect]}\n")
    assert pipeline.subsets["perVisit"].members == ("isr", "detect")


def test_a_step_may_be_repeated_but_not_contradicted(importing: Callable[..., Pipeline]) -> None:
    same = "steps: [{label: perVisit, dimensions: [visit]}]\n"
    assert [s.label for s in importing(more=same).steps] == ["perDetector", "perVisit"]
    with pytest.raises(PipelineError, match="declared twice, differently"):
        importing(more=same.replace("[visit]", "[instrument]"))


def test_later_parameters_win_and_own_ones_most(load: Load, folder: Path) -> None:
    (folder / "a.yaml").write_text("description: a\nparameters: {x: 1, y: 1, z: 1}\ntasks: {}\n")
    (folder / "b.yaml").write_text("description: b\nparameters: {y: 2, z: 2}\ntasks: {}\n")
    text = "description: c\nimports: [a.yaml, b.yaml]\nparameters: {z: 3}\ntasks: {isr: sketch_tasks.Isr}\n"
    assert load(text).parameters == {"x": 1, "y": 2, "z": 3}


def test_imported_settings_use_the_parameters_of_the_whole(load: Load, folder: Path) -> None:
    (folder / "a.yaml").write_text(
        "description: a\nparameters: {n: 1}\ntasks:\n  d: {class: sketch_tasks.Detect, config: {seed: parameters.n}}\n"
    )
    pipeline = load("description: b\nimports: a.yaml\nparameters: {n: 8}\n")
    assert pipeline.tasks["d"].config["seed"] == 8


def test_files_that_import_each_other_are_refused(load: Load, folder: Path) -> None:
    (folder / "a.yaml").write_text("description: a\nimports: pipeline.yaml\n")
    with pytest.raises(PipelineError, match="import each other"):
        load("description: b\nimports: a.yaml\n")


def test_an_import_names_what_it_takes_by_keys(load: Load) -> None:
    with pytest.raises(PipelineError, match="use `include`"):
        load("description: b\nimports: toy.yaml#isr\n")


# The algebra, on documents alone.

labels = st.sampled_from("abcdef")


@st.composite
def documents(draw: st.DrawFn) -> Document:
    names = draw(st.lists(labels, unique=True, min_size=1))
    members = st.lists(st.sampled_from(names), unique=True, min_size=1).map(tuple)
    subsets = draw(st.dictionaries(st.sampled_from(["s", "t", "u"]), members))
    steps = draw(st.lists(st.sampled_from(sorted(subsets)), unique=True)) if subsets else []
    contracts = draw(st.lists(st.sampled_from(names), unique=True))
    return Document(
        description="x",
        instrument=draw(st.none() | st.just("Cam")),
        parameters=draw(st.dictionaries(st.sampled_from(["p", "q"]), st.integers())),
        tasks={name: TaskEntry(name, class_name=f"m.{name.upper()}") for name in names},
        subsets={name: Subset(name, m) for name, m in subsets.items()},
        steps=tuple(Step(s, ("visit",)) for s in steps),
        contracts=tuple(Contract(f"{c}.x == 1") for c in contracts),
    )


@given(documents())
def test_importing_everything_changes_nothing(document: Document) -> None:
    assert select(document, Import("f")) == document
    own = Document(description="x", imports=(Import("f"),))
    assert resolve(own, lambda _: document) == document


@given(documents())
def test_an_import_of_an_import_is_the_import(document: Document) -> None:
    own = Document(description="x", imports=(Import("f"),))
    once = resolve(own, lambda _: document)
    assert resolve(own, lambda _: once) == once


@given(documents(), st.sets(labels), st.sets(labels), st.booleans())
def test_restricting_twice_is_restricting_to_what_both_keep(
    document: Document, one: set[str], two: set[str], edit: bool
) -> None:
    both = restrict(document, one & two, edit=edit)
    assert restrict(restrict(document, one, edit=edit), two, edit=edit) == both
    assert restrict(both, one & two, edit=edit) == both


@given(documents(), st.sets(labels))
def test_including_is_excluding_the_others(document: Document, names: set[str]) -> None:
    include = tuple(sorted(names & set(document.tasks)))
    exclude = tuple(sorted(set(document.tasks) - names))
    assert select(document, Import("f", include=include)) == select(document, Import("f", exclude=exclude))


@given(documents())
def test_what_is_left_is_consistent(document: Document) -> None:
    for edit in (True, False):
        left = restrict(document, ["a", "c", "e"], edit=edit)
        assert all(set(s.members) <= set(left.tasks) for s in left.subsets.values())
        assert all(step.label in left.subsets for step in left.steps)


@given(documents(), st.dictionaries(labels, st.sampled_from("uvwxyz"), max_size=3))
def test_a_rename_is_a_bijection_of_the_selected_tasks(document: Document, rename: dict[str, str]) -> None:
    rename = {old: new for old, new in rename.items() if old in document.tasks}
    rename = {old: new for old, new in rename.items() if list(rename.values()).count(new) == 1}
    rename = {old: new for old, new in rename.items() if new not in document.subsets}
    renamed = select(document, Import("f", rename=rename))
    assert list(renamed.tasks) == [rename.get(label, label) for label in document.tasks]
    assert [t.class_name for t in renamed.tasks.values()] == [t.class_name for t in document.tasks.values()]
    assert all(label == task.label for label, task in renamed.tasks.items())


@given(documents())
def test_merging_nothing_with_a_document_is_the_document(document: Document) -> None:
    assert merge(document, []) == document
