"""Copies at other destinations: verified, over nothing, and as often as it takes."""

from pathlib import Path
from uuid import uuid4

import pytest
from loadmaster_registry.errors import StageError
from loadmaster_staging.backbone import Backbone, NameTaken
from loadmaster_staging.checksum import measure
from loadmaster_staging.destinations import Delivery, Destination, File, deliver, files_from_json
from loadmaster_staging.location import remote


@pytest.fixture(params=["path", "memory"])
def destination(request: pytest.FixtureRequest, tmp_path: Path) -> Destination:
    url = str(tmp_path / "elsewhere") if request.param == "path" else f"memory://{uuid4().hex}"
    return Destination("mirror", url, ("calexp", "src*"), 30)


@pytest.fixture
def backbone(tmp_path: Path) -> Backbone:
    (tmp_path / "files" / "run").mkdir(parents=True)
    (tmp_path / "files" / "run" / "a.fits").write_bytes(b"pixels")
    (tmp_path / "files" / "run" / "a.png").write_bytes(b"picture")
    return Backbone(str(tmp_path / "files"))


def given(backbone: Backbone, *paths: str, source: str = "") -> Delivery:
    files = (File(source or path, path, backbone.measure(source or path).checksum) for path in paths)
    return Delivery(str(uuid4()), "mirror", tuple(files))


def content(destination: Destination, path: str) -> bytes:
    fs, inner = remote(f"{destination.url}/{path}")
    found: bytes = fs.cat_file(inner)
    return found


def staged(destination: Destination) -> list[str]:
    return Backbone(destination.url).staged_names(f"{destination.url}/.staging")


def test_types_are_chosen_by_globs(destination: Destination) -> None:
    assert [name for name in ("calexp", "calexp2", "src", "srcMatch") if destination.wants(name)] == [
        "calexp",
        "src",
        "srcMatch",
    ]


def test_all_files_of_a_dataset_arrive_under_their_own_names(
    backbone: Backbone, destination: Destination
) -> None:
    deliver(given(backbone, "run/a.fits", "run/a.png"), backbone, destination, "u/run")
    assert content(destination, "run/a.fits") == b"pixels"
    assert content(destination, "run/a.png") == b"picture"
    assert staged(destination) == []


def test_a_small_output_arrives_as_a_file_of_its_own(backbone: Backbone, destination: Destination) -> None:
    _, piece = backbone.pack("u/run", "cafe", ".json", [b"{}", b"[1]"])
    deliver(given(backbone, "run/m.json", source=piece), backbone, destination, "u/run")
    assert content(destination, "run/m.json") == b"[1]"


def test_done_again_it_finds_them_there(backbone: Backbone, destination: Destination) -> None:
    delivery = given(backbone, "run/a.fits", "run/a.png")
    for _ in range(2):
        deliver(delivery, backbone, destination, "u/run")
    assert content(destination, "run/a.fits") == b"pixels"


def test_another_file_there_stays_and_is_told(backbone: Backbone, destination: Destination) -> None:
    fs, inner = remote(f"{destination.url}/run/a.fits")
    fs.makedirs(inner.rsplit("/", 1)[0], exist_ok=True)
    fs.pipe_file(inner, b"another's")
    with pytest.raises(NameTaken):
        deliver(given(backbone, "run/a.fits"), backbone, destination, "u/run")
    assert content(destination, "run/a.fits") == b"another's"
    assert staged(destination) == []


def test_what_is_not_what_was_recorded_does_not_leave(backbone: Backbone, destination: Destination) -> None:
    delivery = given(backbone, "run/a.fits")
    Path(backbone.url("run/a.fits")).write_bytes(b"pixelz")
    with pytest.raises(StageError, match="not on the backbone as it was recorded"):
        deliver(delivery, backbone, destination, "u/run")
    assert staged(destination) == []
    assert not Backbone(destination.url).exists("run/a.fits")


def test_each_failure_makes_the_next_try_later(backbone: Backbone) -> None:
    delivery = given(backbone, "run/a.fits")
    waits = []
    for n_tries in range(1, 12):
        delivery = delivery.failed("no route", 1000.0)
        assert (delivery.n_tries, delivery.error) == (n_tries, "no route")
        waits.append(delivery.due_s - 1000.0)
    assert waits == sorted(waits)
    assert (waits[0], waits[-1]) == (1.0, 300.0)


def test_files_survive_the_journal(backbone: Backbone) -> None:
    delivery = given(backbone, "run/a.fits", "run/a.png")
    assert files_from_json(delivery.files_json()) == delivery.files
    assert delivery.files[0].checksum == measure(backbone.url("run/a.fits")).checksum
