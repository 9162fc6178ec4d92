"""Removals that are killed between database and file, and that meet others, really."""

import json
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import polars as pl
from loadmaster_registry.records import Collection, CollectionType, DatasetType
from loadmaster_registry.store import Registry
from loadmaster_staging.backbone import Backbone
from loadmaster_staging.fsck import check
from loadmaster_staging.removal import empty_trash


def test_whatever_is_killed_no_row_is_without_a_file_and_the_same_command_does_the_rest(
    tmp_path: Path,
) -> None:
    script = Path(__file__).with_name("removal_kills.py")
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    reached = {point: wrong for point, wrong in found.items() if wrong != "never reached"}
    assert {point: wrong for point, wrong in reached.items() if wrong} == {}, done.stderr
    assert {point.split(" ")[0] for point in reached} == {"delete:", "gc:"}
    assert len(reached) >= 16


def test_whoever_publishes_and_removes_the_same_names_at_once_no_row_loses_its_file(tmp_path: Path) -> None:
    """Some of them are killed; a file that one of these had not registered yet is all that may be left over."""
    registry = Registry.create(str(tmp_path / "registry.sqlite3"))
    with registry.transaction() as write:
        write.insert_records("instrument", pl.DataFrame({"instrument": ["Cam"]}))
        write.insert_records("detector", pl.DataFrame({"instrument": "Cam", "detector": range(10)}))
        group = registry.universe.group(["instrument", "detector"])
        write.register_dataset_type(DatasetType("text", group, "Text"))
        write.register_collection(Collection("run", CollectionType.RUN))
    script = str(Path(__file__).with_name("removal_races.py"))
    begun = [
        subprocess.Popen(
            [sys.executable, script, str(tmp_path), str(seed), "4"], stdout=subprocess.PIPE, text=True
        )
        for seed in range(4)
    ]
    for process in begun:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
    time.sleep(1)
    begun[0].kill()
    done = [process.communicate()[0] for process in begun][1:]
    assert [process.returncode for process in begun] == [-9, 0, 0, 0]
    counts = sum((Counter(json.loads(text)) for text in done), Counter[str]())
    assert min(counts["added"], counts["removed"], counts["taken"]) > 10
    backbone = Backbone(str(tmp_path / "files"))
    empty_trash(registry, backbone)
    found = check(registry, backbone, deep=True, grace_s=0).problems
    assert set(found["kind"]) <= {"orphan"}
    assert found.height <= 1
