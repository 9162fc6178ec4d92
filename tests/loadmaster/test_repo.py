"""A repository in a person's hands: what is put can be found and read, and nothing is overwritten."""

import subprocess
import sys
from pathlib import Path

import pytest
from loadmaster_registry.errors import Conflict, NotFound, RegistryError, StageError
from loadmaster_registry.records import CollectionType

from loadmaster import Repo

FRAME = {"instrument": "Cam", "exposure": 2, "detector": 1}


def test_what_was_put_is_found_and_read_back(survey: Repo) -> None:
    assert survey.get("raw", collections="Cam/raw", **FRAME) == "exposure 2 detector 1\n"
    found = survey.find_dataset("raw", collections=["Cam/raw"], **FRAME)
    path = survey.place.folder / "files" / found.url
    assert path.read_text() == "exposure 2 detector 1\n"
    assert found.size_bytes == path.stat().st_size
    assert found.checksum.startswith("sha256:")


def test_putting_the_same_data_id_again_is_refused_and_leaves_the_first(survey: Repo) -> None:
    with pytest.raises(Conflict, match="nothing is ever overwritten"):
        survey.put("other", "raw", run="Cam/raw", **FRAME)
    assert survey.get("raw", collections="Cam/raw", **FRAME) == "exposure 2 detector 1\n"


def test_a_put_that_the_registry_refuses_leaves_no_file(survey: Repo) -> None:
    before = files_of(survey)
    with pytest.raises(RegistryError):  # there is no exposure 99
        survey.put("light", "raw", run="Cam/raw", instrument="Cam", exposure=99, detector=1)
    assert files_of(survey) == before


def test_a_put_of_what_the_storage_class_does_not_hold_leaves_no_file(survey: Repo) -> None:
    before = files_of(survey)
    with pytest.raises(StageError):
        survey.put(object(), "raw", run="Cam/other", **FRAME)
    assert files_of(survey) == before


def test_a_put_that_was_killed_before_it_was_registered_goes_through_when_repeated(survey: Repo) -> None:
    here = survey.find_dataset("raw", collections="Cam/raw", **FRAME)
    orphan = survey.place.folder / "files" / here.url.replace("Cam/raw", "Cam/more", 1)
    orphan.parent.mkdir(parents=True)
    orphan.write_text("light\n")  # what was published, and nothing else, before the kill
    with pytest.raises(StageError):
        survey.put("darkness\n", "raw", run="Cam/more", **FRAME)
    survey.put("light\n", "raw", run="Cam/more", **FRAME)
    assert survey.get("raw", collections="Cam/more", **FRAME) == "light\n"


def test_a_data_id_with_a_misspelt_dimension_is_answered_with_the_nearest(survey: Repo) -> None:
    with pytest.raises(RegistryError, match="did you mean 'detector'"):
        survey.put("light", "raw", run="Cam/more", instrument="Cam", exposure=1, detektor=1)


def test_a_new_type_needs_dimensions_and_a_storage_class(survey: Repo) -> None:
    with pytest.raises(NotFound, match="dimensions and a storage class"):
        survey.put("light", "rwa", run="Cam/raw", **FRAME)


def test_what_is_not_there_says_how_to_see_what_is(survey: Repo) -> None:
    with pytest.raises(NotFound, match="loadmaster query-datasets raw"):
        survey.get("raw", collections="Cam/raw", instrument="Cam", exposure=2, detector=9)


def test_queries_return_frames(survey: Repo) -> None:
    where = "instrument='Cam' AND exposure <= :last"
    assert survey.query_data_ids("exposure", where=where, bind={"last": 2})["exposure"].to_list() == [1, 2]
    assert survey.query_datasets("raw", "Cam/raw", where="instrument='Cam' AND detector=1").height == 3
    assert survey.query_datasets("raw", "Cam/raw", limit=2).height == 2
    assert survey.query_collections("Cam/*")["name"].to_list() == ["Cam/raw"]
    records = survey.query_dimension_records("exposure", where="instrument='Cam' AND exposure>1")
    assert records["obs_id"].to_list() == ["2", "3"]


def test_certified_datasets_are_found_for_their_time_only(survey: Repo) -> None:
    survey.put(
        "bias",
        "bias",
        run="Cam/bias",
        dimensions=["detector"],
        storage_class="Text",
        is_calibration=True,
        instrument="Cam",
        detector=0,
    )
    assert survey.certify("Cam/calib", "bias", inputs="Cam/bias", begin="2026-03-01", end="2026-04-01") == 1
    assert survey.certify("Cam/calib", "bias", inputs="Cam/bias", begin="2026-03-01", end="2026-04-01") == 0
    assert survey.registry.collection("Cam/calib").type is CollectionType.CALIBRATION
    (found,) = survey.registry.calibrations("bias", ["Cam/calib"]).iter_rows(named=True)
    assert found["end"] - found["begin"] == 31 * 86_400_000_000_000


def test_certifying_nothing_is_an_error(survey: Repo) -> None:
    with pytest.raises(NotFound, match="to certify"):
        survey.certify("Cam/calib", "raw", inputs="Cam/raw", where="instrument='Cam' AND exposure=99")


def test_a_folder_is_made_a_repository_once(survey: Repo) -> None:
    with pytest.raises(RegistryError, match="is a repository already"):
        Repo.init(survey.place.folder)


def test_an_init_that_was_killed_is_finished_by_the_next(tmp_path: Path) -> None:
    Repo.init(tmp_path / "r").close()
    (tmp_path / "r" / "loadmaster.yaml").unlink()  # the last that is written
    with Repo.init(tmp_path / "r") as repo:
        assert repo.query_collections().is_empty()


def test_an_init_never_takes_over_a_registry_with_content(survey: Repo) -> None:
    (survey.place.folder / "loadmaster.yaml").unlink()
    with pytest.raises(RegistryError):
        Repo.init(survey.place.folder)


def test_two_repositories_are_open_in_one_process(survey: Repo, tmp_path: Path) -> None:
    with Repo.init(tmp_path / "second") as second:
        assert second.query_collections().is_empty()
        assert survey.query_collections().height == 1


def test_a_module_of_tasks_does_not_load_the_database() -> None:
    code = (
        "import sys; from loadmaster import Task, Input, Output, NoWork, Error;"
        "print(sorted({'sqlalchemy', 'polars', 'astropy', 'click'} & set(sys.modules)))"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout == "[]\n"


def files_of(repo: Repo) -> set[Path]:
    return {path for path in (repo.place.folder / "files").rglob("*") if path.is_file()}
