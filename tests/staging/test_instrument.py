"""Instruments described by files, and single frames read through them."""

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import loadmaster_pipelines
import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from loadmaster_registry.errors import ConfigError, StageError
from loadmaster_registry.timespan import format_ns
from loadmaster_staging.frame import RawFrame, read_frame
from loadmaster_staging.instrument import Instrument, load_instrument
from lsst.sphgeom import ConvexPolygon, LonLat, Region, UnitVector3d

SHIPPED = Path(loadmaster_pipelines.__file__).parent / "shipped" / "instruments"
TEXT = """\
name: Cam
detectors:
  - {id: 0, full_name: S00, purpose: SCIENCE}
  - {id: 1, full_name: S01}
filters: {cam-g: g, cam-r: r}
files:
  fields: '_(?P<number>[0-9]+)'
detector: DETECTOR
exposure:
  id: {file: number}
  physical_filter: {keyword: FILTER, map: {G: cam-g}}
  begin: {keyword: DATE-OBS, format: isot, scale: utc}
  exposure_time: EXPTIME
  observation_type: {keyword: IMAGETYP, map: {Light: science}, default: unknown}
  target_name: {keyword: OBJECT, default: null}
  has_simulated: {keyword: SIM, default: false}
visits:
  padding_px: 2
"""
CARDS: dict[str, Any] = {
    "DETECTOR": "S01", "FILTER": "G", "DATE-OBS": "2026-03-01T05:00:00", "EXPTIME": 30, "IMAGETYP": "Light",
}  # fmt: skip


@pytest.fixture
def described(tmp_path: Path) -> Callable[..., Instrument]:
    def load(*changes: tuple[str, str]) -> Instrument:
        text = TEXT
        for old, new in changes:
            assert old in text
            text = text.replace(old, new, 1)
        path = tmp_path / "cam.yaml"
        path.write_text(text)
        return load_instrument(path)

    return load


@pytest.fixture
def frame(tmp_path: Path, described: Callable[..., Instrument]) -> Callable[..., RawFrame]:
    def read(*changes: tuple[str, str], wcs: bool = True, **cards: Any) -> RawFrame:
        header = sky().to_header() if wcs else fits.Header()
        for key, value in {**CARDS, **cards}.items():
            if value is not None:
                header[key.replace("_", "-")] = value
        path = tmp_path / "cam_0007.fits"
        fits.PrimaryHDU(np.zeros((10, 20), dtype=np.int16), header).writeto(path, overwrite=True)
        return read_frame(path, described(*changes))

    return read


def sky(ra: float = 150.0, dec: float = 2.0) -> WCS:
    """Return a WCS with pixels of 1 arcsecond; RA, Dec is at the first pixel."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval, wcs.wcs.crpix, wcs.wcs.cdelt = [ra, dec], [1, 1], [-1 / 3600, 1 / 3600]
    return wcs


# --- what a description says


def test_a_frame_is_read_as_described(frame: Callable[..., RawFrame]) -> None:
    found = frame(OBJECT="M 13")
    assert found.detector == 1
    assert found.exposure == {
        "instrument": "Cam", "exposure": 7, "obs_id": "7", "group": "7", "physical_filter": "cam-g",
        "exposure_time": 30.0, "observation_type": "science", "target_name": "M 13", "has_simulated": False,
        "day_obs": 20260228, "timespan_begin": found.exposure["timespan_begin"],
        "timespan_end": found.exposure["timespan_end"],
    }  # fmt: skip
    begin, end = found.exposure["timespan_begin"], found.exposure["timespan_end"]
    assert isinstance(begin, int)
    assert isinstance(end, int)
    assert (format_ns(begin), format_ns(end)) == ("2026-03-01T05:00:37 TAI", "2026-03-01T05:01:07 TAI")


def test_a_night_lasts_from_its_offset_to_the_next(frame: Callable[..., RawFrame]) -> None:
    found = frame()
    assert found.day_span is not None
    assert format_ns(found.day_span[0]) == "2026-02-28T12:00:00 TAI"
    assert found.day_span[1] - found.day_span[0] == 86_400 * 10**9
    assert frame(("visits:", "day_obs: {offset_hours: 4}\nvisits:")).exposure["day_obs"] == 20260301


@pytest.mark.parametrize("value", [20260227, "20260227", "2026-02-27", "2026-02-27T03:00:00"])
def test_a_night_may_stand_in_the_header(frame: Callable[..., RawFrame], value: int | str) -> None:
    found = frame(("visits:", "day_obs: NIGHT\nvisits:"), NIGHT=value)
    assert found.exposure["day_obs"] == 20260227
    assert found.day_span is None


@pytest.mark.parametrize(
    ("source", "cards", "shown"),
    [
        ("{keyword: MJD-OBS, format: mjd, scale: tai}", {"MJD_OBS": 61100.25}, "2026-03-01T06:00:00 TAI"),
        (
            "{keyword: DAY, time_of_day: UT}",
            {"DAY": "2026-03-01", "UT": "00:57:33"},
            "2026-03-01T00:58:10 TAI",
        ),
        ('{keyword: WHEN, format: "%d.%m.%Y %H:%M"}', {"WHEN": "1.3.2026 05:00"}, "2026-03-01T05:00:37 TAI"),
        ("DATE-OBS", {"DATE_OBS": "2026-03-01T05:00:00.25Z"}, "2026-03-01T05:00:37.25 TAI"),
    ],
)
def test_times_come_in_every_form(
    frame: Callable[..., RawFrame], source: str, cards: dict[str, Any], shown: str
) -> None:
    begin = frame(("{keyword: DATE-OBS, format: isot, scale: utc}", source), **cards).exposure[
        "timespan_begin"
    ]
    assert isinstance(begin, int)
    assert format_ns(begin) == shown


@pytest.mark.parametrize("value", ["S01", " S01 ", 1, "1"])
def test_a_detector_is_named_by_id_or_full_name(frame: Callable[..., RawFrame], value: int | str) -> None:
    assert frame(DETECTOR=value).detector == 1


def test_the_region_is_what_the_pixels_cover_and_the_padding(frame: Callable[..., RawFrame]) -> None:
    padded, exact = frame().region, frame(("padding_px: 2", "padding_px: 0")).region
    assert padded is not None
    assert exact is not None
    region, wider = Region.decode(exact), Region.decode(padded)
    for x, y, is_in in (
        (-0.4, -0.4, True),
        (19.4, 9.4, True),
        (-0.6, 0, False),
        (19.6, 0, False),
        (0, 9.6, False),
    ):
        place = UnitVector3d(LonLat.fromDegrees(*sky().wcs_pix2world([[x, y]], 0)[0].tolist()))
        assert region.contains(place) == is_in
        assert wider.contains(place)
    assert isinstance(region, ConvexPolygon)
    assert len(region.getVertices()) == 4


def test_galactic_coordinates_are_brought_to_icrs(frame: Callable[..., RawFrame]) -> None:
    cards = {"CTYPE1": "GLON-TAN", "CTYPE2": "GLAT-TAN", "CRVAL1": 0.0, "CRVAL2": 0.0}
    region = frame(**cards).region
    assert region is not None
    assert Region.decode(region).contains(UnitVector3d(LonLat.fromDegrees(266.40499, -28.93617)))


def test_frames_without_coordinates_are_treated_as_the_description_says(
    frame: Callable[..., RawFrame],
) -> None:
    assert (frame(wcs=False).region, frame(wcs=False).is_visit) == (None, True)
    assert not frame(("padding_px: 2", "without_wcs: no_visit"), wcs=False).is_visit
    with pytest.raises(StageError, match="no celestial WCS"):
        frame(("padding_px: 2", "without_wcs: refuse"), wcs=False)
    calibration = frame(("padding_px: 2", "without_wcs: refuse"), wcs=False, IMAGETYP="Bias")
    assert not calibration.is_visit


def test_without_a_rule_for_visits_there_are_none(frame: Callable[..., RawFrame]) -> None:
    assert not frame(("visits:\n  padding_px: 2\n", "")).is_visit


def test_pixels_may_be_in_an_extension(tmp_path: Path, described: Callable[..., Instrument]) -> None:
    path = tmp_path / "cam_12.fits.fz"
    image = fits.CompImageHDU(np.zeros((10, 20), dtype=np.int16), sky().to_header(), name="SCI")
    primary = fits.PrimaryHDU(header=fits.Header({**CARDS, "DETECTOR": "S00"}))
    fits.HDUList([primary, image]).writeto(path)
    found = read_frame(path, described(("files:", "files:\n  hdu: SCI")))
    assert (found.detector, found.exposure["exposure"]) == (0, 12)
    assert found.region is not None
    with pytest.raises(StageError, match="holds no image"):
        read_frame(path, described())
    with pytest.raises(StageError, match="no HDU 'RAW'"):
        read_frame(path, described(("files:", "files:\n  hdu: RAW")))


# --- what is wrong with a frame


@pytest.mark.parametrize(
    ("changes", "cards", "said"),
    [
        ([], {"EXPTIME": None}, "the keyword 'EXPTIME' is not in the header"),
        ([], {"EXPTIME": "long"}, "is 'long', which is no float"),
        ([], {"DATE_OBS": "yesterday"}, "which is no time"),
        ([], {"FILTER": "cam-x"}, "its filter 'cam-x' is unknown"),
        ([], {"DETECTOR": "S07"}, "which is no detector"),
        ([], {"SIM": "maybe"}, "which is no bool"),
        ([("_(?P<number>", "x(?P<number>")], {}, "its name has no 'number'"),
        ([("{file: number}", "NUMBER")], {"NUMBER": 1.5}, "is 1.5, which is no int"),
        ([("visits:", "day_obs: NIGHT\nvisits:")], {"NIGHT": "20261399"}, "no number of a night"),
    ],
)  # fmt: skip
def test_a_frame_that_cannot_be_understood_says_why(
    frame: Callable[..., RawFrame], changes: list[tuple[str, str]], cards: dict[str, Any], said: str
) -> None:
    with pytest.raises(StageError) as caught:
        frame(*changes, **cards)
    assert said in str(caught.value)
    assert "cam_0007.fits" in str(caught.value)


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.999])
@pytest.mark.parametrize("compressed", [False, True])
def test_a_file_that_breaks_off_is_found_out(
    tmp_path: Path, described: Callable[..., Instrument], kept: float, compressed: bool
) -> None:
    whole = tmp_path / "cam_1.fits"
    pixels = np.random.default_rng(1).integers(0, 99, (200, 200), dtype=np.int16)
    fits.PrimaryHDU(pixels, fits.Header(CARDS)).writeto(whole)
    content = whole.read_bytes()
    if compressed:
        whole = tmp_path / "cam_1.fits.gz"
        content = gzip.compress(content)
    whole.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(StageError, match=r"cam_1\.fits(\.gz)? is no complete FITS file"):
        read_frame(whole, described())


def test_a_file_that_is_no_fits_file_is_named(tmp_path: Path, described: Callable[..., Instrument]) -> None:
    path = tmp_path / "cam_1.fits"
    path.write_text("not at all")
    with pytest.raises(StageError, match=r"cam_1\.fits is no complete FITS file"):
        read_frame(path, described())
    with pytest.raises(StageError, match=r"cam_2\.fits"):
        read_frame(tmp_path / "cam_2.fits", described())


# --- what is wrong with a description


@pytest.mark.parametrize(
    ("old", "new", "line", "said"),
    [
        ("filters:", "filter:", 5, "did you mean 'filters'"),
        ("purpose: SCIENCE", "purpos: SCIENCE", 3, "did you mean 'purpose'"),
        ("exposure_time:", "exposure_tim:", 13, "did you mean 'exposure_time'"),
        ("{keyword: FILTER,", "{keywrod: FILTER,", 11, "did you mean 'keyword'"),
        ("{file: number}", "{file: nummer}", 10, "did you mean 'number'"),
        ("{file: number}", "{file: number, value: 3}", 10, "one of keyword, file and value"),
        ("{file: number}", "7", 10, "exposure.id"),
        ("map: {G: cam-g}", "map: {G: cam_g}", 11, "did you mean 'cam-g'"),
        ("detector: DETECTOR", "detector: {value: 7}", 8, "7 is no detector"),
        ("format: isot", "format: isod", 12, "isot"),
        ("scale: utc", "scale: ut", 12, "utc"),
        ("id: 1,", "id: 0,", 1, "2 detectors have the id 0"),
        ("  exposure_time: EXPTIME\n", "", 12, "end or exposure_time"),
        ("  physical_filter: {keyword: FILTER, map: {G: cam-g}}\n", "", 1, "physical_filter"),
        ("[0-9]+)", "[0-9]+", 7, "no regular expression"),
        ("padding_px: 2", "padding_px: -2", 18, "greater than or equal to 0"),
        ("padding_px: 2", "without_wcs: maybe", 18, "'visit', 'no_visit' or 'refuse'"),
        ("visits:", "day_obs: {offset_hours: 3, keyword: X}\nvisits:", 17, "either offset_hours or a source"),
        ("name: Cam", "name: Cam\nname: Cam", 2, "stands twice"),
    ],
)  # fmt: skip
def test_a_wrong_description_is_refused_with_file_and_line(
    tmp_path: Path, described: Callable[..., Instrument], old: str, new: str, line: int, said: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        described((old, new))
    assert f"cam.yaml:{line}" in str(caught.value)
    assert said in str(caught.value)


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_instruments_can_be_loaded(path: Path) -> None:
    assert load_instrument(path).detectors
