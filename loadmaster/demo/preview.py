"""Pictures of what came out, as PNG."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from astropy.nddata import CCDData
from astropy.visualization import AsinhStretch, AsymmetricPercentileInterval, ImageNormalize
from matplotlib.figure import Figure
from numpy.typing import NDArray

Pixels = NDArray[np.float32]


def write_preview(path: Path, images: Mapping[str, Pixels], *, columns: int = 2) -> None:
    """Draw images beside each other, each under its title, faint light stretched."""
    rows = -(-len(images) // columns)
    figure = Figure(figsize=(6 * columns, 6 * rows), layout="constrained")
    for number, (title, pixels) in enumerate(images.items(), start=1):
        axes = figure.add_subplot(rows, columns, number)
        finite = pixels[np.isfinite(pixels)]
        norm = ImageNormalize(
            finite, interval=AsymmetricPercentileInterval(2, 99.7), stretch=AsinhStretch(0.2)
        )
        axes.imshow(pixels, origin="lower", cmap="gray", norm=norm, interpolation="nearest")
        axes.set_title(title)
        axes.set_axis_off()
    figure.savefig(path, dpi=80)


def mosaic(patches: Mapping[tuple[int, int], CCDData], shape: tuple[int, int]) -> Pixels:
    """Lay the patches of a tract on one canvas.

    Parameters
    ----------
    patches : mapping
        By the (column, row) of their first pixel in the tract.
    shape : tuple of int
        Rows and columns of the tract.
    """
    canvas = np.full(shape, np.nan, dtype=np.float32)
    for (x, y), image in patches.items():
        rows, columns = image.shape
        place = canvas[y : y + rows, x : x + columns]
        seen = ~np.asarray(image.mask, dtype=bool)
        place[seen] = image.data[seen]
    return canvas
