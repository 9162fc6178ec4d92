"""Images as `astropy.nddata.CCDData`: put together from the planes of a file, and taken apart into them."""

import io
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.nddata import CCDData, InverseVariance, StdDevUncertainty, VarianceUncertainty
from astropy.units import Unit

from . import Parameters, not_a
from .fits_headers import drop_provenance
from .parts import Box, box_of

IMAGE, MASK, ERRORS, FLAGS, PSF = "IMAGE", "MASK", "UNCERT", "FLAGS", "PSFIMAGE"
PLANES = (IMAGE, MASK, ERRORS, FLAGS, PSF)
COMPONENTS = ("data", "mask", "flags", "uncertainty", "wcs", "header", "meta", "unit")
_PLATE_SOLUTION = re.compile(r"AMD[XY]\d+|PPO\d+|PLT(RA|DEC)\w*|CNPIX[12]|[XY]PIXELSZ")
_Box = Box | None


@dataclass(frozen=True, slots=True)
class Plane:
    """One array of a file with its header, not read yet."""

    header: Any  # astropy.io.fits.Header
    shape: tuple[int, ...]
    cut: Callable[[_Box], Any]  # reads a box of it, or all

    def pixels(self, box: _Box) -> Any:
        """Return the pixels in the machine's byte order: FITS has the other, which compiled code often refuses."""
        array = np.asarray(self.cut(box))
        return array.astype(array.dtype.newbyteorder("="), copy=False)


def image_of(planes: Mapping[str, Plane], component: str | None, parameters: Parameters, path: Path) -> Any:
    """Return the image that these planes (by their names in `PLANES`) are, or a part of it."""
    box = box_of(parameters, planes[IMAGE].shape, path)
    if component in _ARRAYS:
        return _ARRAYS[component](planes, box)
    frame = _frame(planes[IMAGE], box)
    if component is not None:
        return getattr(frame, component)
    return CCDData(
        planes[IMAGE].pixels(box),
        unit=frame.unit,
        meta=frame.meta,
        wcs=frame.wcs,
        psf=planes[PSF].pixels(None) if PSF in planes else None,
        **{name: _ARRAYS[name](planes, box) for name in ("mask", "uncertainty", "flags")},
    )


def planes_of(obj: Any) -> dict[str, Any]:
    """Return the planes of an image as FITS HDUs, by name.

    Raises
    ------
    StageError
        If it is no image.
    """
    if not isinstance(obj, CCDData):
        raise not_a(obj, "an image (astropy.nddata.CCDData)")
    hdus = obj.to_hdu(wcs_relax=True)
    if obj.wcs is not None:
        _drop_plate_solution(hdus[0].header)
    drop_provenance(hdus[0].header)
    if obj.flags is not None and FLAGS not in hdus:
        hdus.append(fits.ImageHDU(obj.flags, name=FLAGS))
    return {IMAGE: hdus[0], **{hdu.name: hdu for hdu in hdus[1:]}}


def _frame(plane: Plane, box: _Box) -> Any:
    """Return an image of one pixel with the unit, header and WCS of the file: astropy tells a WCS from a header."""
    header = plane.header.copy()
    drop_provenance(header)
    whole = io.BytesIO()
    pixel = np.zeros((1,) * len(plane.shape), "u1")
    fits.PrimaryHDU(pixel, header).writeto(whole, output_verify="silentfix")
    whole.seek(0)
    frame = CCDData.read(whole, format="fits", unit=_unit(header))
    if frame.wcs is not None:
        frame.wcs.pixel_shape = plane.shape[::-1]
        frame.wcs = frame.wcs if box is None else frame.wcs[box]
    return frame


def _unit(header: Any) -> Any:
    """Return the unit to give to the reader: None where the header itself names one that astropy knows."""
    written = header.get("BUNIT")
    if written is None:
        return "adu"
    try:
        Unit(written)
    except ValueError:
        # Cameras write many words here (counts, e-, DN…); they come back as they are, in no system of units.
        return Unit(written, parse_strict="silent")
    return None


def _mask(planes: Mapping[str, Plane], box: _Box) -> Any:
    return planes[MASK].pixels(box).astype(bool) if MASK in planes else None


def _flags(planes: Mapping[str, Plane], box: _Box) -> Any:
    return planes[FLAGS].pixels(box) if FLAGS in planes else None


def _errors(planes: Mapping[str, Plane], box: _Box) -> Any:
    if ERRORS not in planes:
        return None
    written = planes[ERRORS].header.get("UTYPE", "")
    kinds = (VarianceUncertainty, InverseVariance, StdDevUncertainty)
    kind = next((kind for kind in kinds if kind.__name__ == written), StdDevUncertainty)
    return kind(planes[ERRORS].pixels(box))


_ARRAYS: Mapping[str | None, Callable[[Mapping[str, Plane], _Box], Any]] = {
    "data": lambda planes, box: planes[IMAGE].pixels(box),
    "mask": _mask,
    "flags": _flags,
    "uncertainty": _errors,
}


def _drop_plate_solution(header: Any) -> None:
    """Take the keywords of a scanned plate's own solution out; the WCS beside them says the same.

    On a header that has both, wcslib (8.x) overruns its memory and the process dies.
    """
    for keyword in list(header):
        if _PLATE_SOLUTION.fullmatch(keyword):
            del header[keyword]
