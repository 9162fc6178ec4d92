"""Formats by configuration, from the plan to the registry: one pipeline, FITS or HDF5, or both at once."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import polars as pl
import pytest
from astropy.io import fits
from astropy.nddata import CCDData
from astropy.table import Table
from loadmaster_pipelines.storage import read_provenance
from loadmaster_registry.errors import ConfigError, NotFound

from loadmaster import Repo

Command = Callable[..., Any]
ID = {"instrument": "Cam", "exposure": 2, "detector": 1}
TASKS = """\
import numpy as np
from astropy.nddata import CCDData
from astropy.table import Table
from loadmaster import Input, Inputs, Output, Outputs, Task

PLACES = ("exposure", "detector")

class Smooth(Task):
    dimensions = PLACES
    raw = Input("raw", "Text", PLACES)
    image = Output("image", "ExposureF", PLACES)
    peaks = Output("peaks", "SourceCatalog", PLACES)

    def run(self, inputs: Inputs, outputs: Outputs) -> None:
        seed = inputs.quantum["exposure"]
        pixels = np.random.default_rng(seed).normal(100, 5, (64, 48)).astype("f4")
        if SPOILED:
            pixels = "no image"
        outputs.image.put(CCDData(pixels, unit="adu"))
        outputs.peaks.put(Table({"x": [1.5, 2.5], "flux": [10.0, 20.0]}))

class Cut(Task):
    dimensions = PLACES
    image = Input("image", "ExposureF", PLACES)
    cut = Output("cut", "NumpyArray", PLACES)

    def run(self, inputs: Inputs, outputs: Outputs) -> None:
        part = inputs.image.get(parameters={"box": np.s_[10:20, 5:9]})
        outputs.cut.put(np.asarray(part.data))
"""
PIPELINE = """\
description: images and tables of them
tasks:
  smooth: format_tasks.Smooth
  cut: format_tasks.Cut
"""
ASK = {"inputs": "Cam/raw", "where": "instrument='Cam' AND exposure=2 AND detector=1"}


@pytest.fixture
def tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "tasks"
    folder.mkdir()
    (folder / "format_tasks.py").write_text(f"SPOILED = False\n{TASKS}")
    (folder / "pipeline.yaml").write_text(PIPELINE)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "format_tasks", raising=False)
    return folder / "pipeline.yaml"


def test_one_pipeline_writes_fits_or_hdf5_as_configured_and_reads_the_same(
    survey: Repo, tasks: Path, tmp_path: Path
) -> None:
    said = "storage_classes: {ExposureF: {formats: [hdf5]}}\ndataset_types: {peaks: {provenance: false}}"
    formats = written(tmp_path, said)
    found = {}
    for name, more in (("fits", {}), ("hdf5", {"formats": formats})):
        survey.run(tasks, output=f"u/{name}", **ASK, **more).wait()
        found[name] = survey.find_dataset("image", ID, collections=f"u/{name}").url
    assert [Path(url).suffix for url in found.values()] == [".fits", ".h5"]
    one, two = (survey.get("image", ID, collections=f"u/{name}") for name in found)
    np.testing.assert_array_equal(one.data, two.data)
    assert dict(one.meta) == dict(two.meta)
    cuts = [survey.get("cut", ID, collections=f"u/{name}") for name in found]
    np.testing.assert_array_equal(cuts[0], one.data[10:20, 5:9])
    np.testing.assert_array_equal(cuts[0], cuts[1])
    peaks = [survey.find_dataset("peaks", ID, collections=f"u/{name}").url for name in found]
    told = [read_provenance(survey.place.folder / "files" / url) for url in peaks]
    assert [one is None for one in told] == [False, True]


def test_several_formats_are_one_dataset_with_several_files(
    survey: Repo, tasks: Path, tmp_path: Path
) -> None:
    formats = written(
        tmp_path,
        "dataset_types: {image: {formats: {fits: {compression: GZIP_2}, hdf5: {compression: gzip}}}}",
    )
    plan = survey.plan(tasks, output="u/both", formats=formats, **ASK)
    planned = plan.planned.quantum("smooth", 0).outputs["image"][0]
    assert planned.path.endswith(".fits")
    assert {name: Path(path).suffix for name, path in planned.parts.items()} == {"hdf5": ".h5"}
    plan.submit().wait()
    found = survey.find_dataset("image", ID, collections="u/both")
    assert found.url == planned.path
    assert (survey.place.folder / "files" / planned.parts["hdf5"]).is_file()
    first, second = (survey.get("image", ID, collections="u/both", part=part) for part in ("", "hdf5"))
    np.testing.assert_array_equal(first.data, second.data)
    with fits.open(survey.place.folder / "files" / found.url) as hdus:
        assert isinstance(hdus[1], fits.CompImageHDU)
    with pytest.raises(NotFound, match="did you mean 'hdf5'"):
        survey.get("image", ID, collections="u/both", part="hdf")


def test_where_one_of_two_formats_cannot_be_written_nothing_is_registered(
    survey: Repo, tasks: Path, tmp_path: Path
) -> None:
    (tasks.parent / "format_tasks.py").write_text(f"SPOILED = True\n{TASKS}")
    formats = written(tmp_path, "dataset_types: {image: {formats: [fits, hdf5]}}")
    survey.run(tasks, output="u/bad", formats=formats, **ASK).wait()
    with pytest.raises(NotFound):
        survey.find_dataset("image", ID, collections="u/bad")


def test_a_file_of_a_run_says_what_made_it_and_from_what(survey: Repo, tasks: Path, command: Command) -> None:
    survey.run(tasks, output="u/told", **ASK).wait()
    raw = survey.find_dataset("raw", ID, collections="Cam/raw")
    for name in ("image", "peaks"):
        found = survey.find_dataset(name, ID, collections="u/told")
        told = command("what-is", survey.place.folder / "files" / found.url, "--json")
        facts = json.loads(told.stdout)
        assert (facts["id"], facts["run"], facts["dataset_type"]) == (str(found.id), found.run, name)
        assert facts["data_id"] | ID == facts["data_id"]
        assert [(one["id"], one["run"]) for one in facts["inputs"]] == [(str(raw.id), "Cam/raw")]
        with survey.registry.snapshot() as now:
            assert now.recorded_quanta(id=UUID(facts["quantum"]))["task"].to_list() == ["smooth"]
    said = command("what-is", survey.place.folder / "files" / found.url).stdout
    assert "made from" in said
    assert "exposure=2" in said


def test_a_format_that_cannot_hold_a_class_is_refused_while_planning(
    survey: Repo, tasks: Path, tmp_path: Path
) -> None:
    formats = written(tmp_path, "dataset_types:\n  peaks: {formats: [png]}")
    with pytest.raises(ConfigError, match="has no writer") as told:
        survey.plan(tasks, output="u/x", formats=formats, **ASK)
    assert "formats.yaml:2" in str(told.value)


def test_the_formats_of_a_repository_hold_for_its_plans_and_for_put(
    survey: Repo, tasks: Path, tmp_path: Path
) -> None:
    folder = survey.place.folder
    text = "dataset_types: {image: {formats: [hdf5, fits]}, '*peaks': {formats: [parquet]}}"
    (folder / "formats.yaml").write_text(text)
    with open(folder / "loadmaster.yaml", "a") as file:
        file.write("formats: formats.yaml\n")
    with Repo(folder) as repo:
        planned = repo.plan(tasks, output="u/own", **ASK).planned.quantum("smooth", 0)
        assert planned.outputs["image"][0].path.endswith(".h5")
        assert planned.outputs["peaks"][0].path.endswith(".parq")
        image = CCDData(np.arange(12.0).reshape(3, 4), unit="adu")
        put = repo.put(
            image, "image", ID, run="u/put", dimensions=["exposure", "detector"], storage_class="ExposureF"
        )
        assert put.url.endswith(".h5")
        for part in ("", "fits"):
            got = repo.get("image", ID, collections="u/put", part=part)
            np.testing.assert_array_equal(got.data, image.data)
        box = repo.get("image", ID, collections="u/put", parameters={"box": np.s_[1:2, :]})
        assert box.data.tolist() == [[4, 5, 6, 7]]
        assert repo.get("image", ID, collections="u/put", component="data").shape == (3, 4)


def test_a_put_that_was_killed_goes_through_when_repeated_although_files_carry_their_id(
    survey: Repo,
) -> None:
    table = Table({"x": [1, 2]})
    new = {"dimensions": ["exposure", "detector"], "storage_class": "SourceCatalog"}
    first = survey.put(table, "stars", ID, run="u/a", **new)
    orphan = survey.place.folder / "files" / first.url
    told = read_provenance(orphan)
    assert told is not None
    assert told.id == str(first.id)
    with Repo.init(survey.place.folder.parent / "twin") as twin:
        copy_records(survey, twin)
        place = twin.place.folder / "files" / first.url
        place.parent.mkdir(parents=True)
        place.write_bytes(orphan.read_bytes())  # published, and nothing else before the kill
        assert twin.put(table, "stars", ID, run="u/a", **new).id == first.id


def copy_records(source: Repo, target: Repo) -> None:
    elements = ("instrument", "physical_filter", "day_obs", "group", "detector", "exposure")
    with target.registry.transaction() as write:
        for element in elements:
            rows = source.registry.records(element)
            write.insert_records(element, rows.select([c for c in rows.columns if rows[c].dtype != pl.Null]))


def test_what_a_command_writes_says_what_made_it_where_that_is_asked_for(
    survey: Repo, tmp_path: Path
) -> None:
    code = "import sys, numpy; from astropy.io import fits; "
    code += "fits.PrimaryHDU(numpy.arange(20.0).reshape(4, 5)).writeto(sys.argv[1])"
    places = "dimensions: [exposure, detector]"
    pipeline = tmp_path / "p.yaml"
    pipeline.write_text(
        f"description: x\ntasks:\n  make:\n    {places}\n    command: >-\n"
        f"      {sys.executable} -c '{code}' {{outputs.image.path}} {{inputs.raw.path}}\n"
        f"    inputs: {{raw: {{dataset_type: raw, storage_class: Text, {places}}}}}\n"
        f"    outputs: {{image: {{dataset_type: image, storage_class: ExposureF, {places}}}}}\n"
    )
    formats = written(tmp_path, "dataset_types: {image: {provenance: true}}")
    survey.run(pipeline, output="u/cmd", formats=formats, **ASK).wait()
    found = survey.find_dataset("image", ID, collections="u/cmd")
    told = read_provenance(survey.place.folder / "files" / found.url)
    assert told is not None
    assert (told.id, told.n_inputs) == (str(found.id), 1)
    np.testing.assert_array_equal(
        survey.get("image", ID, collections="u/cmd").data, np.arange(20.0).reshape(4, 5)
    )
    refused = written(tmp_path, "dataset_types: {image: {formats: [hdf5]}}")
    with pytest.raises(ConfigError, match="the command of task 'make' writes the file itself"):
        survey.plan(pipeline, output="u/x", formats=refused, **ASK)


def written(folder: Path, text: str) -> Path:
    path = folder / "formats.yaml"
    path.write_text(text)
    return path
