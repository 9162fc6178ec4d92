"""Pipeline files become pipelines: locations, classes, declared tasks, automatic datasets, graph rules, steps."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from loadmaster_pipelines.loader import load_pipeline
from loadmaster_pipelines.pipeline import Pipeline
from loadmaster_pipelines.resources import Resources
from loadmaster_registry.errors import PipelineError
from loadmaster_registry.universe import Universe

Load = Callable[..., Pipeline]


@pytest.fixture
def toy(folder: Path, universe: Universe) -> Pipeline:
    return load_pipeline(folder / "toy.yaml", universe=universe)


def declared(
    label: str, reads: str = "", writes: str = "", dimensions: str = "[visit]", more: str = ""
) -> str:
    """Return the YAML of a declared task; names are `dataset_type` or `dataset_type:StorageClass`."""
    lines = [f"  {label}:", f"    dimensions: {dimensions}"]
    for table, names in (("inputs", reads), ("outputs", writes)):
        if names:
            lines.append(f"    {table}:")
        for i, name in enumerate(names.split()):
            dataset_type, _, storage_class = name.partition(":")
            body = f"dataset_type: {dataset_type}, storage_class: {storage_class or 'Config'}"
            lines.append(f"      {table[0]}{i}: {{{body}, dimensions: {dimensions}}}")
    return "\n".join([*lines, *(f"    {line}" for line in more.splitlines())]) + "\n"


def tasks(*entries: str) -> str:
    return "description: x\ntasks:\n" + "".join(entries)


def test_a_class_brings_dimensions_connections_configuration_and_resources(toy: Pipeline) -> None:
    isr = toy.tasks["isr"]
    assert isr.task_class == "sketch_tasks.Isr"
    assert isr.runnable
    assert isr.dimensions == ("instrument", "exposure", "detector")
    assert [c.name for c in isr.connections] == ["raw", "bias", "image"]
    assert isr.config == {"dark": True, "gain": None, "comment": "", "mode": "fast"}
    assert isr.resources == Resources(memory_mib=4096)


def test_resources_of_the_file_go_before_those_of_the_class(load: Load) -> None:
    pipeline = load(tasks("  isr:\n    class: sketch_tasks.Isr\n    resources: {cpus: 4, walltime_s: 60}\n"))
    assert pipeline.tasks["isr"].resources == Resources(cpus=4, memory_mib=4096, walltime_s=60)


def test_the_code_digest_is_of_the_modules_source_and_the_version(toy: Pipeline, folder: Path) -> None:
    source = (folder.parent / "modules" / "sketch_tasks.py").read_bytes()
    assert toy.tasks["isr"].code_digest == hashlib.sha256(source + b"\0" + b"2").hexdigest()
    assert toy.tasks["detect"].code_digest == hashlib.sha256(source + b"\0").hexdigest()


def test_tasks_stand_in_an_order_that_can_be_run(load: Load) -> None:
    pipeline = load(tasks(declared("c", "y", "z"), declared("b", "x", "y"), declared("a", "", "x")))
    assert list(pipeline.tasks) == ["a", "b", "c"]


def test_without_dependences_the_order_of_the_file_stays(load: Load) -> None:
    pipeline = load(tasks(declared("c", "", "z"), declared("a", "", "x"), declared("b", "", "y")))
    assert list(pipeline.tasks) == ["c", "a", "b"]


def test_templates_have_defaults_and_can_be_set_as_any_connection_can(load: Load) -> None:
    text = """
description: x
tasks:
  detect:
    class: sketch_tasks.Detect
    config:
      seed: 1
      connections.kind: diff
      connections.images: flattened
  other:
    class: sketch_tasks.Detect
    config: {seed: 2, connections.sources: "{kind}_other_{suffix}", connections.schema: plain}
"""
    pipeline = load(text)
    names = {c.name: c.dataset_type for c in pipeline.tasks["detect"].connections}
    assert names == {"images": "flattened", "sources": "diff_cat", "schema": "diff_schema"}
    assert pipeline.tasks["other"].connection("sources").dataset_type == "deep_other_cat"


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("connections.imagse: a", "did you mean 'images'"),
        ("connections.sources: '{kin}_cat'", "did you mean 'kind'"),
        ("connections.sources: 'a b'", "cannot name a dataset type"),
        ("connections.sources: a.b", "cannot name a dataset type"),
        ("connections.sources: 3", "renames nothing"),
    ],
)
def test_a_connection_cannot_be_renamed_at_random(load: Load, setting: str, words: str) -> None:
    with pytest.raises(PipelineError, match=words) as caught:
        load(
            "description: x\ntasks:\n  d:\n    class: sketch_tasks.Detect\n"
            f"    config:\n      seed: 1\n      {setting}\n"
        )
    assert "pipeline.yaml:7:7" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("sketch_tasks.Ist", "did you mean 'Isr'"),
        ("sketch_tasks.NotATask", "it is no subclass"),
        ("toy_taks.Isr", "No module named 'toy_taks'"),
        ("Isr", "names no class"),
        ("./sketch_tasks.py:Isr", "names no class"),
        ("os.system", "it is no subclass"),
    ],
)
def test_a_class_without_declared_connections_must_import_and_be_a_task(
    load: Load, name: str, words: str
) -> None:
    with pytest.raises(PipelineError, match=words) as caught:
        load(f"description: x\ntasks:\n  isr: {name}\n")
    assert "pipeline.yaml:3:3" in str(caught.value)


def test_modules_beside_the_pipeline_file_are_not_importable(load: Load, folder: Path) -> None:
    (folder / "local_tasks.py").write_text("raise SystemExit('this ran')\n")
    with pytest.raises(PipelineError, match="No module named 'local_tasks'"):
        load("description: x\ntasks:\n  a: local_tasks.A\n")


def test_a_declared_task_is_runnable_with_a_command_and_planned_only_without(load: Load) -> None:
    pipeline = load(
        tasks(
            declared("sort", "a", "b", more="command: sort -o {outputs.o0.path} {inputs.i0.path}"),
            declared("plan", "b", "c", more="class: lsst.pipe.tasks.Nowhere"),
        )
    )
    assert pipeline.tasks["sort"].runnable
    assert pipeline.tasks["sort"].code_digest
    assert not pipeline.tasks["plan"].runnable
    assert pipeline.tasks["plan"].documented_class == "lsst.pipe.tasks.Nowhere"
    assert pipeline.tasks["plan"].task_class is None


def test_a_command_is_checked_when_it_is_loaded(load: Load) -> None:
    with pytest.raises(PipelineError, match="known: i0") as caught:
        load(tasks(declared("sort", "a", "b", more="command: sort {inputs.i9.path}")))
    assert "pipeline.yaml:9:5" in str(caught.value)


def test_metadata_of_a_task_is_made_automatically_where_another_reads_it(load: Load) -> None:
    text = (
        tasks(
            declared("isr", "raw", "image", "[exposure, detector]"),
            declared(
                "look", "isr_metadata:TaskMetadata isr_log:ButlerLogRecords", "plot", "[exposure, detector]"
            ),
        )
        + "    init_inputs:\n      config: {dataset_type: isr_config, storage_class: Config}\n"
    )
    pipeline = load(text)
    automatic = {c.dataset_type: c for c in pipeline.tasks["isr"].connections if c.automatic}
    assert set(automatic) == {"isr_metadata", "isr_log", "isr_config"}
    assert automatic["isr_metadata"].storage_class == "TaskMetadata"
    assert automatic["isr_metadata"].dimensions == ("exposure", "detector")
    assert automatic["isr_config"].kind == "init_output"
    assert not any(c.automatic for c in pipeline.tasks["look"].connections)
    assert list(pipeline.tasks) == ["isr", "look"]
    assert pipeline.overall_inputs() == ("raw",)


def test_metadata_stays_when_only_its_producer_is_selected_because_the_reader_may_come_later(
    load: Load,
) -> None:
    text = tasks(declared("isr", "raw", "image"), declared("look", "isr_metadata:TaskMetadata", "plot"))
    assert load(text, "#isr").tasks["isr"].outputs[-1].dataset_type == "isr_metadata"
    assert load(text, "#look").overall_inputs() == ("isr_metadata",)


def test_metadata_of_the_wrong_dimensions_is_refused(load: Load) -> None:
    text = tasks(
        declared("isr", "raw", "image", "[exposure, detector]"),
        declared("look", "isr_metadata:TaskMetadata", "plot", "[exposure]"),
    )
    with pytest.raises(PipelineError, match="'isr_metadata' has the dimensions"):
        load(text)


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ([declared("a", "", "x"), declared("b", "", "x")], "'x' is made by a and b"),
        ([declared("a", "x", "x")], "task a reads and writes 'x'"),
        ([declared("a", "y", "x"), declared("b", "x", "y")], "a → b → a"),
        ([declared("a", "", "x"), declared("b", "x", "y", "[tract]")], r"\{visit\} in a and \{tract\} in b"),
        ([declared("a", "z", "x"), declared("b", "z", "y", "[tract]")], r"\{visit\} in a and \{tract\} in b"),
        ([declared("a", "", "x:Plot"), declared("b", "x:ExposureF", "y")], "Plot in a, which cannot be read as"),
        (
            [declared("a", "", "x"), declared("b", "", "y")
             + "    prerequisites:\n      p: {dataset_type: x, storage_class: Config, dimensions: [visit]}\n"],
            "'x' is a prerequisite of b, and a of the same pipeline makes it",
        ),
        (
            [declared("a", "", "x"), declared("b", "", "y")
             + "    init_inputs:\n      p: {dataset_type: x, storage_class: Config}\n"],
            "once a run for one of a and b",
        ),
    ],
)  # fmt: skip
def test_a_pipeline_that_contradicts_itself_is_refused_with_the_places(
    load: Load, entries: list[str], words: str
) -> None:
    with pytest.raises(PipelineError, match=words) as caught:
        load(tasks(*entries))
    assert "pipeline.yaml" in str(caught.value)


def test_all_contradictions_are_told_together(load: Load) -> None:
    with pytest.raises(PipelineError, match="in 2 places") as caught:
        load(tasks(declared("a", "", "x y"), declared("b", "", "x"), declared("c", "y", "y2", "[tract]")))
    assert "'x' is made by a and b" in str(caught.value)
    assert "'y' has the dimensions" in str(caught.value)


def test_dimensions_agree_when_their_completion_does(load: Load) -> None:
    text = tasks(declared("a", "", "x", "[instrument, visit]"), declared("b", "x", "y", "[band, visit]"))
    assert list(load(text).tasks) == ["a", "b"]


def test_only_what_is_selected_must_agree(load: Load) -> None:
    text = tasks(declared("a", "", "x"), declared("b", "", "x"), declared("c", "x", "y"))
    assert list(load(text, "#a,c").tasks) == ["a", "c"]


def test_a_task_that_is_not_selected_need_not_import(load: Load) -> None:
    text = tasks(declared("a", "", "x"), "  b: nowhere.to.be.Found\n")
    assert list(load(text, "#a").tasks) == ["a"]
    with pytest.raises(PipelineError, match="cannot be imported"):
        load(text, "#a..")


def test_a_component_is_read_from_the_whole_dataset(toy: Pipeline) -> None:
    wcs = toy.tasks["summarize"].connection("wcs")
    assert (wcs.dataset_type, wcs.component, wcs.storage_class) == ("post_isr", "wcs", "Wcs")
    assert toy.dataset_types()["post_isr"].storage_class == "ExposureF"


def test_dataset_types_say_who_makes_and_who_reads_them(toy: Pipeline) -> None:
    found = toy.dataset_types()
    assert (found["post_isr"].producer, found["post_isr"].consumers) == ("isr", ("detect", "summarize"))
    assert found["bias"].producer is None
    assert found["bias"].calibration
    assert found["bias"].is_prerequisite
    assert not found["raw"].is_prerequisite
    assert found["deep_schema"].is_init
    assert toy.overall_inputs() == ("raw", "bias")


def test_the_graph_has_an_edge_for_each_connection(toy: Pipeline) -> None:
    graph = toy.graph()
    assert graph.number_of_edges() == sum(len(t.connections) for t in toy.tasks.values())
    assert graph.edges[("dataset_type", "post_isr"), ("task", "detect"), "images"]["connection"].multiple


def test_tasks_that_have_only_overall_inputs_in_common_are_separate_components(load: Load) -> None:
    text = tasks(
        declared("a", "r", "x"), declared("b", "x", "y"), declared("c", "q", "z"), declared("d", "r", "w")
    )
    assert load(text).components() == [("a", "b"), ("c",), ("d",)]


def test_a_subset_of_a_pipeline_keeps_what_is_left_of_subsets_steps_and_contracts(toy: Pipeline) -> None:
    part = toy.subset(["isr"])
    assert list(part.tasks) == ["isr"]
    assert {name: s.members for name, s in part.subsets.items()} == {"perDetector": ("isr",)}
    assert [s.label for s in part.steps] == ["perDetector"]
    assert part.contracts == ()
    with pytest.raises(PipelineError, match="did you mean 'isr'"):
        toy.subset(["isrr"])


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        ("[{label: one, dimensions: [visit]}]", "task b is in no step"),
        (
            "[{label: one, dimensions: [visit]}, {label: both, dimensions: [visit]}]",
            "a is in the steps one and both",
        ),
        (
            "[{label: two, dimensions: [visit]}, {label: one, dimensions: [visit]}]",
            "b of step two needs what a of the later step one makes",
        ),
        ("[{label: both, dimensions: [detector]}]", "split by detector, which task a does not have"),
        ("[{label: both, dimensions: [vist]}]", "split by 'vist', which is no dimension"),
        ("[{label: both, dimensions: [visit]}, {label: both, dimensions: [visit]}]", "stands twice"),
    ],
)
def test_steps_must_part_the_tasks_and_run_in_order(load: Load, steps: str, words: str) -> None:
    text = tasks(declared("a", "", "x"), declared("b", "x", "y"))
    with pytest.raises(PipelineError, match=words):
        load(f"{text}subsets: {{one: [a], two: [b], both: [a, b]}}\nsteps: {steps}\n")


def test_a_step_can_be_split_by_visits_though_its_tasks_work_on_exposures(toy: Pipeline) -> None:
    assert toy.steps[0].dimensions == ("visit", "detector")
    assert "visit" not in toy.tasks["isr"].dimensions


def test_environment_variables_in_locations_are_expanded(
    folder: Path, universe: Universe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOY_DIR", str(folder))
    assert len(load_pipeline("$TOY_DIR/toy.yaml", universe=universe).tasks) == 3
    assert len(load_pipeline("${TOY_DIR}/toy.yaml#isr", universe=universe).tasks) == 1
    with pytest.raises(PipelineError, match="'TOY_DIRR' is not set"):
        load_pipeline("$TOY_DIRR/toy.yaml", universe=universe)


def test_shipped_pipelines_load_and_can_be_run(universe: Universe) -> None:
    from loadmaster_pipelines.loader import SHIPPED

    for path in sorted(SHIPPED.glob("*.yaml")):
        pipeline = load_pipeline(f"$LOADMASTER_PIPELINES_DIR/{path.name}", universe=universe)
        assert all(task.runnable for task in pipeline.tasks.values())


def test_a_location_may_be_any_url(universe: Universe) -> None:
    import fsspec

    with fsspec.open("memory://pipelines/a.yaml", "wt") as stream:
        stream.write(tasks(declared("a", "", "x")))
    with fsspec.open("memory://pipelines/b.yaml", "wt") as stream:
        stream.write("description: b\nimports: a.yaml\n")
    assert list(load_pipeline("memory://pipelines/b.yaml#a", universe=universe).tasks) == ["a"]
    with pytest.raises(PipelineError, match="cannot be read"):
        load_pipeline("memory://pipelines/c.yaml", universe=universe)
    with pytest.raises(PipelineError, match="cannot be read"):
        load_pipeline("nosuch://pipelines/c.yaml", universe=universe)


@pytest.mark.parametrize(
    ("fragment", "words"),
    [
        (":isr", r"write .*toy\.yaml#isr"),
        ("#isr#detect", "two `#`"),
        ("#isr..,detect", "a list and a range together"),
        ("#irs", "did you mean 'isr'"),
        ("#irs..", "did you mean 'isr'"),
        ("#summarize..isr", "no task is left"),
    ],
)
def test_a_fragment_that_selects_nothing_is_refused(
    folder: Path, universe: Universe, fragment: str, words: str
) -> None:
    with pytest.raises(PipelineError, match=words):
        load_pipeline(f"{folder / 'toy.yaml'}{fragment}", universe=universe)


@pytest.mark.parametrize(
    ("fragment", "labels"),
    [
        ("#isr", ["isr"]),
        ("#perDetector", ["isr", "detect"]),
        ("#perVisit,isr", ["isr", "summarize"]),
        ("#isr..detect", ["isr", "detect"]),
        ("#detect..", ["detect", "summarize"]),
        ("#..isr", ["isr"]),
        ("#..", ["isr", "detect", "summarize"]),
        ("#is%72", ["isr"]),
    ],
)
def test_fragments_select_labels_subsets_and_ranges(
    folder: Path, universe: Universe, fragment: str, labels: list[str]
) -> None:
    assert list(load_pipeline(f"{folder / 'toy.yaml'}{fragment}", universe=universe).tasks) == labels


def test_the_set_language_selects_from_what_the_fragment_left(folder: Path, universe: Universe) -> None:
    pipeline = load_pipeline(f"{folder / 'toy.yaml'}#perDetector", universe=universe, select=">=detect")
    assert list(pipeline.tasks) == ["detect"]


def test_the_same_file_gives_the_same_pipeline(folder: Path, universe: Universe, toy: Pipeline) -> None:
    assert load_pipeline(folder / "toy.yaml", universe=universe) == toy
    assert replace(toy, description="other") != toy
