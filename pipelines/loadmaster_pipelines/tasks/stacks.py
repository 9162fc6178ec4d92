"""Frames that other programs or no calibrations wait for: prepared, laid upon each other, averaged."""

from collections.abc import Mapping

import astropy.units as u
import numpy as np
from astropy.nddata import CCDData
from numpy.typing import NDArray

from ..connections import Input, Output
from ..imaging.alignment import image_offset
from ..imaging.coaddition import coadd
from ..imaging.detection import estimate_background
from ..imaging.detrending import mask_hot_pixels
from ..imaging.resampling import Resampled, translate
from ..task import Inputs, Outputs, TaskConfig
from . import ImagingTask

_FRAME = ("instrument", "exposure", "detector")
_STACK = ("instrument", "physical_filter", "detector")


class PrepareFrameConfig(TaskConfig):
    """How the background is taken off."""

    background_box_px: int = 128


class PrepareFrame(ImagingTask):
    """Take the background (and with it the bias level) off a raw frame and mask hot pixels."""

    Config = PrepareFrameConfig
    config: PrepareFrameConfig
    dimensions = _FRAME

    raw = Input("raw", "Exposure", _FRAME)
    frame = Output("prepared_frame", "ExposureF", _FRAME)

    def run(self, inputs: Inputs, outputs: Outputs) -> None:
        """Write the frame, its noise in the header as NOISE."""
        raw = inputs.raw.get()
        pixels = raw.data.astype(np.float32)
        mask = mask_hot_pixels(pixels)
        background = estimate_background(pixels, mask, box_px=self.config.background_box_px)
        header = {"NOISE": background.noise}
        outputs.frame.put(CCDData(pixels - background.level, unit=raw.unit, mask=mask, header=header))


class AlignAndStackConfig(TaskConfig):
    """How images are compared."""

    smooth_px: float = 4.0
    seeing_tolerance: float = 0.6


class AlignAndStack(ImagingTask):
    """Shift frames onto the first by cross-correlation, and average them."""

    Config = AlignAndStackConfig
    config: AlignAndStackConfig
    dimensions = _STACK

    frames = Input("prepared_frame", "ExposureF", _FRAME, multiple=True)
    stack = Output("stack", "ImageF", _STACK)
    weight = Output("stack_weight", "ImageF", _STACK)
    offsets = Output("stack_offsets", "StructuredDataDict", _STACK)

    def run(self, inputs: Inputs, outputs: Outputs) -> None:
        """Write the stack, the inverse variance of its pixels, and the offsets found."""
        frames = {int(handle.data_id["exposure"]): handle.get() for handle in inputs.frames}
        offsets = self._offsets(frames)
        moved = [_moved(frames[exposure], offsets[exposure]) for exposure in frames]
        result = coadd(moved, seeing_tolerance=self.config.seeing_tolerance)
        # Plain images without extensions: other programs take each extension for one more image.
        outputs.stack.put(CCDData(np.nan_to_num(result.data), unit=u.adu))
        outputs.weight.put(CCDData(np.nan_to_num(1 / result.variance), unit=u.adu**-2))
        outputs.offsets.put({str(exposure): offset.tolist() for exposure, offset in sorted(offsets.items())})

    def _offsets(self, frames: Mapping[int, CCDData]) -> dict[int, NDArray[np.float64]]:
        first = frames[min(frames)]
        return {
            exposure: image_offset(
                frame.data, frame.mask, first.data, first.mask, smooth_px=self.config.smooth_px
            )
            for exposure, frame in frames.items()
        }


def _moved(frame: CCDData, offset: NDArray[np.float64]) -> Resampled:
    image = translate(frame.data, frame.mask, -offset[0], -offset[1])
    variance = np.full_like(image.data, frame.header["NOISE"] ** 2)
    return Resampled(image.data, variance, image.mask)


class ScaleFrame(ImagingTask):
    """Write a frame as SWarp wants it: with a factor FLXSCALE that brings its zero point to magnitude 25."""

    dimensions = _FRAME

    raw = Input("raw", "Exposure", _FRAME)
    frame = Output("scaled_frame", "ImageF", _FRAME)

    def run(self, inputs: Inputs, outputs: Outputs) -> None:
        """Write the frame uncompressed, as 32-bit floats."""
        raw = inputs.raw.get()
        header = raw.wcs.to_header()
        header["FLXSCALE"] = 10 ** (-0.4 * (raw.header["MAGZP"] - 25))
        outputs.frame.put(CCDData(raw.data.astype(np.float32), unit=raw.unit, header=header))
