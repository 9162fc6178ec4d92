"""Sky maps: their geometry, their records, and what their files may say."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loadmaster_registry.errors import ConfigError, NotFound
from loadmaster_registry.sky import overlapping_pairs
from loadmaster_registry.skymap import PixelBox, SkyMap, Tract, load_sky_map, unit_vectors
from loadmaster_registry.store import Registry
from lsst.sphgeom import Region, UnitVector3d

TEXT = """\
name: demo
pixel_scale: 2.0
patch_px: 100
overlap_px: 10
tracts:
  - {id: 3, ra: 150.0, dec: 2.2, nx: 3, ny: 2}
  - {id: 5, ra: 0.0, dec: -89.99, size_deg: 0.1}
"""


def written(folder: Path, text: str = TEXT) -> Path:
    path = folder / "skymap.yaml"
    path.write_text(text)
    return path


@pytest.fixture
def demo(tmp_path: Path) -> SkyMap:
    return load_sky_map(written(tmp_path))


sky_maps = st.builds(
    lambda ra, dec, nx, ny, overlap: SkyMap("m", 2.0, 100, overlap, (Tract(7, ra, dec, nx, ny),)),
    st.floats(0, 359.9),
    st.floats(-90, 90),
    st.integers(1, 4),
    st.integers(1, 4),
    st.integers(0, 150),
)


def test_a_size_in_degrees_becomes_enough_patches(demo: SkyMap) -> None:
    assert demo.tracts == (Tract(3, 150.0, 2.2, 3, 2), Tract(5, 0.0, -89.99, 2, 2))


def test_patches_grow_into_their_neighbours_but_not_out_of_the_tract(demo: SkyMap) -> None:
    assert demo.patch_bbox(3, 0) == PixelBox(0, 0, 110, 110)
    assert demo.patch_bbox(3, 4) == PixelBox(90, 90, 210, 200)
    assert demo.patch_shape(3, 4) == (110, 120)


@settings(max_examples=50, deadline=None)
@given(sky_maps, st.data())
def test_a_pixel_of_a_patch_is_the_same_place_as_in_its_tract(demo: SkyMap, data: st.DataObject) -> None:
    tract = demo.tracts[0]
    patch = data.draw(st.integers(0, tract.nx * tract.ny - 1))
    box = demo.patch_bbox(7, patch)
    inside = demo.patch_wcs(7, patch).wcs_pix2world([[3.0, 4.0]], 0)
    whole = demo.wcs(7).wcs_pix2world([[box.x_begin + 3.0, box.y_begin + 4.0]], 0)
    np.testing.assert_allclose(unit_vectors(*inside.T), unit_vectors(*whole.T), atol=1e-14)


@settings(max_examples=50, deadline=None)
@given(sky_maps, st.data())
def test_every_pixel_lies_in_the_region_of_each_patch_that_has_it(demo: SkyMap, data: st.DataObject) -> None:
    tract, patches = demo.tracts[0], demo.records()["patch"]
    x = data.draw(st.integers(0, tract.nx * 100 - 1))
    y = data.draw(st.integers(0, tract.ny * 100 - 1))
    place = UnitVector3d(*unit_vectors(*demo.wcs(7).wcs_pix2world([[x, y]], 0).T)[0].tolist())
    for row in patches.iter_rows(named=True):
        box = demo.patch_bbox(7, row["patch"])
        has_it = box.x_begin <= x < box.x_end and box.y_begin <= y < box.y_end
        assert Region.decode(row["region"]).contains(place) == has_it


def test_the_tangent_point_is_the_middle_of_the_tract(demo: SkyMap) -> None:
    x, y = demo.wcs(3).wcs_world2pix([[150.0, 2.2]], 0)[0]
    assert (x, y) == pytest.approx((149.5, 99.5))


def test_patches_with_overlap_meet_their_neighbours_and_no_others(demo: SkyMap) -> None:
    patches = demo.records()["patch"].filter(pl.col("tract") == 3)
    pairs = set(
        zip(*(p.tolist() for p in overlapping_pairs(patches["region"], patches["region"])), strict=True)
    )
    assert (0, 1) in pairs
    assert (0, 4) in pairs
    assert (0, 2) not in pairs


def test_its_records_go_into_a_registry_and_the_same_again_adds_nothing(demo: SkyMap, tmp_path: Path) -> None:
    with Registry.create(str(tmp_path / "registry.sqlite3")) as registry:
        for expected in ([1, 2, 10], [0, 0, 0]):
            with registry.transaction() as transaction:
                counts = [transaction.insert_records(name, rows) for name, rows in demo.records().items()]
            assert counts == expected
        assert registry.records("patch")["cell_x"].to_list()[:4] == [0, 1, 2, 0]
        assert registry.records("skymap")["hash"].to_list() == [demo.hash]


def test_a_sky_map_survives_its_json(demo: SkyMap) -> None:
    again = SkyMap.from_json(demo.to_json())
    assert again == demo
    assert again.hash == demo.hash
    other = SkyMap(demo.name, demo.pixel_scale, demo.patch_px, 11, demo.tracts)
    assert other.hash != demo.hash


def test_tracts_and_patches_that_do_not_exist_are_refused(demo: SkyMap) -> None:
    with pytest.raises(NotFound, match="no tract 4"):
        demo.wcs(4)
    with pytest.raises(NotFound, match=r"give 0 … 5"):
        demo.patch_bbox(3, 6)
    with pytest.raises(NotFound, match="no patch -1"):
        demo.patch_bbox(3, -1)


@pytest.mark.parametrize(
    ("old", "new", "line", "said"),
    [
        ("overlap_px", "overlap", 4, "did you mean 'overlap_px'"),
        ("nx: 3", "mx: 3", 6, "mx"),
        ("ra: 150.0", "ra: 361", 6, "less than 360"),
        ("id: 5", "id: 3", 1, "two tracts have the id 3"),
        ("nx: 3, ny: 2", "nx: 3", 6, "either nx and ny, or size_deg"),
        ("pixel_scale: 2.0", "pixel_scale: broad", 2, "number"),
        ("name: demo\n", "", 1, "name"),
        ("pixel_scale: 2.0", "name: twice", 2, "stands twice"),
        ("nx: 3,", "nx: 3", 6, "expected"),
    ],
)
def test_a_wrong_file_is_refused_with_file_and_line(
    tmp_path: Path, old: str, new: str, line: int, said: str
) -> None:
    path = written(tmp_path, TEXT.replace(old, new, 1))
    with pytest.raises(ConfigError) as caught:
        load_sky_map(path)
    assert f"{path}:{line}" in str(caught.value)
    assert said in str(caught.value)


def test_a_file_that_is_not_there_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml"):
        load_sky_map(tmp_path / "nowhere.yaml")
