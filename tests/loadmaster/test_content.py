"""Equal content is found although files say which run made them: FITS, Parquet, and what commands write."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import polars as pl
import pytest
from loadmaster_registry.exchange import write_export

from loadmaster import Repo

Command = Callable[..., Any]
TASKS = """\
import numpy as np
import os
import polars as pl
from astropy.nddata import CCDData
from loadmaster import Input, Inputs, Output, Outputs, Task

PLACES = ("exposure", "detector")

class Make(Task):
    dimensions = PLACES
    raw = Input("raw", "Text", PLACES)
    image = Output("image", "ExposureF", PLACES)
    table = Output("table", "DataFrame", PLACES)

    def run(self, inputs: Inputs, outputs: Outputs) -> None:
        pixels = np.random.default_rng(inputs.quantum["exposure"]).normal(100, 5, (64, 48)).astype("f4")
        outputs.image.put(CCDData(pixels, unit="adu"))
        outputs.table.put(pl.DataFrame({"x": [1.5, 2.5]}))
"""
FOLLOWERS = """\
from loadmaster import Input, Inputs, Output, Outputs, Task

PLACES = ("exposure", "detector")

class FromImage(Task):
    dimensions = PLACES
    image = Input("image", "ExposureF", PLACES)
    peak = Output("peak", "Json", PLACES)

    def run(self, inputs: Inputs, outputs: Outputs) -> None:
        outputs.peak.put(float(inputs.image.get().data.max()))

class FromTable(Task):
    dimensions = PLACES
    table = Input("table", "DataFrame", PLACES)
    names = Output("names", "Json", PLACES)

    def run(self, inputs: Inputs, outputs: Outputs) -> None:
        outputs.names.put(inputs.table.get().columns)
"""
PIPELINE = """\
description: an image and a table, and what is made of each
tasks:
  make: content_tasks.Make
  from_image: content_followers.FromImage
  from_table: content_followers.FromTable
"""
ASK: dict[str, Any] = {
    "inputs": "Cam/raw",
    "output": "u/me",
    "where": "instrument='Cam' AND exposure=2 AND detector=1",
}
ID = {"instrument": "Cam", "exposure": 2, "detector": 1}
PUT_IMAGE, PUT_TABLE = "outputs.image.put(", "outputs.table.put("
ONE_PIXEL = "pixels[1, 1] += 1\n        "
AGAIN = "with open(outputs.image.path, 'r+b') as file:\n            file.seek(-9, 2), file.write(b'x')"
CHANGES = {
    "only the code": ({"import os\n": "import os  # really\n"}, set()),
    "one pixel": ({PUT_IMAGE: f"{ONE_PIXEL}{PUT_IMAGE}"}, {"from_image"}),
    "one card": ({'unit="adu")': 'unit="adu", meta={"A": 1})'}, {"from_image"}),
    "the name of a column": ({'"x"': '"y"'}, {"from_table"}),
    "written once more": ({PUT_TABLE: f"{AGAIN}\n        {PUT_TABLE}"}, {"from_image"}),
}


@pytest.fixture
def tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "tasks"
    folder.mkdir()
    (folder / "content_tasks.py").write_text(TASKS)
    (folder / "content_followers.py").write_text(FOLLOWERS)
    (folder / "pipeline.yaml").write_text(PIPELINE)
    monkeypatch.syspath_prepend(str(folder))
    for name in ("content_tasks", "content_followers"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return folder / "pipeline.yaml"


def change(pipeline: Path, words: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    code = TASKS
    for old, new in words.items():
        assert old in code
        code = code.replace(old, new)
    (pipeline.parent / "content_tasks.py").write_text(code)
    monkeypatch.delitem(sys.modules, "content_tasks", raising=False)


def planned(repo: Repo, pipeline: Path, policy: str, *within: str) -> set[str]:
    asked = {"output_run": "u/me/3", "skip_existing": policy, "skip_existing_in": within, **ASK}
    return {t.label for t in repo.plan(pipeline, **asked).planned.summary if t.quanta}


@pytest.mark.parametrize("what", CHANGES)
def test_what_follows_is_reused_where_its_input_was_made_again_with_the_same_content(
    survey: Repo, tasks: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    words, expected = CHANGES[what]
    assert survey.run(tasks, output_run="u/me/1", **ASK).wait().is_good
    change(tasks, words, monkeypatch)
    assert survey.run(f"{tasks}#make", output_run="u/me/2", **ASK).wait().is_good
    checksums = [survey.find_dataset("image", ID, collections=f"u/me/{n}").checksum for n in (1, 2)]
    assert checksums[0] != checksums[1]  # the files name their runs
    followers = {"from_image", "from_table"}
    assert planned(survey, tasks, "provenance", "u/me/2", "u/me/1") == followers
    assert planned(survey, tasks, "content", "u/me/2", "u/me/1") == expected


def test_what_a_command_made_again_is_the_same_whichever_run_it_names(survey: Repo, tmp_path: Path) -> None:
    places = "dimensions: [exposure, detector]"
    make = (
        "import sys, numpy; from astropy.io import fits; fits.PrimaryHDU(numpy.eye(5)).writeto(sys.argv[1])"
    )
    image = f"{{image: {{dataset_type: image, storage_class: ExposureF, {places}}}}}"
    formats = tmp_path / "formats.yaml"
    formats.write_text("dataset_types: {image: {provenance: true}}")

    def pipeline(code: str) -> Path:
        path = tmp_path / "p.yaml"
        path.write_text(
            f"description: x\ntasks:\n"
            f"  make:\n    {places}\n"
            f"    command: {sys.executable} -c '{code}' {{outputs.image.path}} {{inputs.raw.path}}\n"
            f"    inputs: {{raw: {{dataset_type: raw, storage_class: Text, {places}}}}}\n"
            f"    outputs: {image}\n"
            f"  size:\n    {places}\n"
            f"    command: cp {{inputs.image.path}} {{outputs.copy.path}}\n"
            f"    inputs: {image}\n"
            f"    outputs: {{copy: {{dataset_type: copied, storage_class: File, {places}}}}}\n"
        )
        return path

    asked = {"formats": formats, **ASK}
    assert survey.run(pipeline(make), output_run="u/me/1", **asked).wait().is_good
    pipeline(f"{make}; None")
    assert survey.run(f"{tmp_path}/p.yaml#make", output_run="u/me/2", **asked).wait().is_good
    again = {"output_run": "u/me/3", "skip_existing_in": ("u/me/2", "u/me/1"), **asked}
    plans = [
        survey.plan(tmp_path / "p.yaml", skip_existing=policy, **again)
        for policy in ("provenance", "content")
    ]
    assert [{t.label for t in p.planned.summary if t.quanta} for p in plans] == [{"size"}, set()]


def test_both_digests_are_shown_and_why_speaks_of_content(
    survey: Repo, tasks: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    survey.run(tasks, output_run="u/me/1", **ASK).wait()
    change(tasks, CHANGES["only the code"][0], monkeypatch)
    survey.run(f"{tasks}#make", output_run="u/me/2", **ASK).wait()
    facts = []
    for run in ("u/me/1", "u/me/2"):
        id = survey.find_dataset("image", ID, collections=run).id
        facts.append(
            json.loads(command("dataset", "show", id, "--json", "--repo", survey.place.folder).stdout)
        )
        shown = command("dataset", "show", id, "--repo", survey.place.folder).stdout
        assert facts[-1]["checksum"] in shown
        assert facts[-1]["content"] in shown
    assert facts[0]["content"] == facts[1]["content"]
    assert facts[0]["checksum"] != facts[1]["checksum"]
    within = {"skip_existing": "provenance", "skip_existing_in": ("u/me/2", "u/me/1")}
    survey.plan(tasks, output_run="u/me/3", **within, **ASK).write(tasks.with_name("plan"))
    line = ("from_image exposure=2 detector=1", "--plan", tasks.with_name("plan"), "--json")
    told = json.loads(command("why", *line, "--repo", survey.place.folder).stdout)
    assert [one["kind"] for one in told["inputs"]] == ["same content"]
    assert told["stands_by"] == {"provenance": False, "content": True}


def test_what_is_put_and_what_is_carried_to_another_repository_keeps_its_content(
    survey: Repo, tasks: Path, tmp_path: Path
) -> None:
    survey.run(tasks, output_run="u/me/1", **ASK).wait()
    made = survey.find_dataset("image", ID, collections="u/me/1")
    again = survey.put(survey.get("image", ID, collections="u/me/1"), "image", run="by-hand", **ID)
    assert made.checksum != again.checksum
    assert content_of(survey, made.id)
    assert content_of(survey, made.id) == content_of(survey, again.id)
    assert content_of(survey, survey.find_dataset("raw", ID, collections="Cam/raw").id) is None
    write_export(survey.registry, ["by-hand"], tmp_path / "export.yaml")
    with Repo.init(tmp_path / "other") as other:
        other.import_file(tmp_path / "export.yaml")
        assert content_of(other, again.id) == content_of(survey, again.id)


def content_of(repo: Repo, id: UUID) -> str | None:
    with repo.registry.snapshot() as now:
        known = now.known(pl.Series([id.bytes], dtype=pl.Binary))
        content: str | None = now.files(known["dataset"])["content"][0]
        return content
