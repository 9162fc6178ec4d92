"""Images in FITS files, tile-compressed or not."""

import gzip
from functools import partial
from pathlib import Path
from typing import IO, Any

from astropy.io import fits
from astropy.io.fits.hdu.compressed import _codecs

from . import Format, Parameters, Recipe, unreadable
from .fits_headers import label, read_header, write_told
from .images import COMPONENTS, IMAGE, PLANES, Plane, image_of, planes_of
from .parts import Box

_LOSSLESS = "GZIP_2"
# Else each tile has the time in it, and the same image is never the same file again.
_codecs.gzip_compress = partial(gzip.compress, mtime=0)


def _read(path: Path, component: str | None, parameters: Parameters) -> Any:
    # Without memory mapping only the rows or tiles that are asked for are read.
    with fits.open(path, memmap=False) as hdus:
        first = next((hdu for hdu in hdus if hdu.is_image and hdu.shape), None)
        if first is None:
            raise unreadable(path, "the file holds no image")
        planes = {name: _plane(hdus[name]) for name in PLANES[1:] if name in hdus}
        planes[IMAGE] = _plane(first, hdus[0])
        return image_of(planes, component, parameters, path)


def _plane(hdu: Any, primary: Any = None) -> Plane:
    def cut(box: Box | None) -> Any:
        return hdu.data if box is None else hdu.section[box]

    header = hdu.header
    if primary not in (None, hdu):
        header = header.copy()
        header.extend(primary.header, unique=True)
        if header.get("EXTNAME") in (IMAGE, "COMPRESSED_IMAGE"):  # names that writers give, and no camera
            del header["EXTNAME"]
    return Plane(header, hdu.shape, cut)


def _write(obj: Any, stream: IO[bytes], recipe: Recipe) -> str | None:
    planes = planes_of(obj).values()
    if "compression" in recipe.options:
        hdus = fits.HDUList([fits.PrimaryHDU(), *(_compressed(hdu, recipe) for hdu in planes)])
    else:
        hdus = fits.HDUList(list(planes))
    return write_told(hdus, stream, recipe)


def _compressed(hdu: Any, recipe: Recipe) -> Any:
    """Return the plane in compressed tiles: nothing is lost unless `quantize` says so."""
    kind, options = recipe.options["compression"], recipe.options
    is_float = hdu.data.dtype.kind == "f"
    quantize = options.get("quantize", 0) if is_float else 0
    is_long = hdu.data.dtype.kind in "iu" and hdu.data.dtype.itemsize == 8
    if not kind.startswith("GZIP") and (is_long or (is_float and not quantize)):
        kind = _LOSSLESS  # the others would round real numbers, and cut 64 bits to 32
    tile = options.get("tile")
    return fits.CompImageHDU(
        hdu.data,
        hdu.header,
        name=hdu.name if hdu.name != "PRIMARY" else IMAGE,
        compression_type=kind,
        tile_shape=tuple(min(t, n) for t, n in zip(tile, hdu.shape, strict=False)) if tile else None,
        quantize_level=float(quantize),
        quantize_method=2,  # subtractive dithering that keeps zeros
        dither_seed=-1,  # from the data: the same image is the same file
    )


IMAGE_FORMAT = Format(
    _read, _write, components=COMPONENTS, parameters=("box",), header=read_header, label=label
)
