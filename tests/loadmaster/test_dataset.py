"""One dataset and all that is known of it, as people ask."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import polars as pl
from loadmaster_registry.records import Collection, CollectionType

from loadmaster import Repo

Command = Callable[..., Any]


def test_a_dataset_is_shown_with_its_file_its_quantum_and_its_lineage(
    survey: Repo, pipeline: Path, command: Command
) -> None:
    survey.run(pipeline, inputs=["Cam/raw"], output="u/me/out", jobs=1).wait()
    frame = survey.find_dataset("frame", collections="u/me/out", instrument="Cam", exposure=1, detector=0)
    with survey.registry.transaction() as write:
        write.register_collection(Collection("best", CollectionType.TAGGED))
        write.associate("best", [frame.id])
    told = command("dataset", "show", frame.id, "--json", "--repo", survey.place.folder)
    facts = json.loads(told.stdout)
    assert (facts["id"], facts["run"], facts["collections"]) == (str(frame.id), frame.run, ["best"])
    assert (facts["size_bytes"], facts["checksum"]) == (frame.size_bytes, frame.checksum)
    assert Path(facts["url"]).read_text() == "exposure 1 detector 0\n"
    assert facts["created"].endswith("Z")
    assert (facts["quantum"]["task"], facts["quantum"]["status"]) == ("copy", "succeeded")
    assert facts["quantum"]["host"]
    assert (facts["made_from"], facts["used_in"]) == ({"raw": 1}, {"whole": 1})
    shown = command("dataset", "show", frame.id, "--repo", survey.place.folder).stdout
    assert "frame instrument=Cam detector=0 exposure=1" in shown
    assert frame.checksum in shown


def test_what_came_from_outside_says_so(survey: Repo, command: Command) -> None:
    raw = survey.find_dataset("raw", collections="Cam/raw", instrument="Cam", exposure=2, detector=1)
    told = command("dataset", "show", raw.id, "--repo", survey.place.folder)
    assert "it came from outside" in told.stdout


def test_an_unknown_dataset_is_refused_in_words(survey: Repo, command: Command) -> None:
    told = command("dataset", "show", uuid4(), "--repo", survey.place.folder)
    assert told.returncode
    assert "no dataset has this uuid" in told.stderr


def test_parts_and_copies_are_shown(survey: Repo, command: Command) -> None:
    raw = survey.find_dataset("raw", collections="Cam/raw", instrument="Cam", exposure=2, detector=1)
    copies = pl.DataFrame({"id": [raw.id.bytes], "destination": ["cache"], "url": ["memory://x/raw"]})
    with survey.registry.transaction() as write:
        assert write.insert_copies(copies) == 1
        assert write.insert_copies(copies) == 0
    told = command("dataset", "show", raw.id, "--repo", survey.place.folder)
    assert "memory://x/raw" in told.stdout
