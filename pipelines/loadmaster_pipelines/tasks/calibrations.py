"""Calibration products: bias, dark, flat and defects of one detector, from many frames."""

import astropy.units as u
import numpy as np
from astropy.nddata import CCDData

from ..connections import Input, Output
from ..imaging.calibrations import combine, combine_darks, combine_flats, find_defects
from ..task import Inputs, Outputs, TaskConfig
from . import ImagingTask

_FRAME = ("instrument", "exposure", "detector")
_PER_DETECTOR = ("instrument", "detector")
_PER_FILTER = ("instrument", "physical_filter", "detector")


class CombineBias(ImagingTask):
    """Average bias frames."""

    dimensions = _PER_DETECTOR

    frames = Input("bias_frame", "ExposureF", _FRAME, multiple=True)
    bias = Output("bias", "ExposureF", _PER_DETECTOR, calibration=True)

    def run(self, inputs: Inputs, outputs: Outputs) -> None:
        """Write the bias in electrons."""
        outputs.bias.put(combine([frame.get() for frame in inputs.frames]))


class CombineDark(ImagingTask):
    """Average dark frames to a rate."""

    dimensions = _PER_DETECTOR

    frames = Input("dark_frame", "ExposureF", _FRAME, multiple=True)
    dark = Output("dark", "ExposureF", _PER_DETECTOR, calibration=True)

    def run(self, inputs: Inputs, outputs: Outputs) -> None:
        """Write the dark current in electrons a second."""
        outputs.dark.put(combine_darks([frame.get() for frame in inputs.frames]))


class CombineFlat(ImagingTask):
    """Average the flat frames of one filter."""

    dimensions = _PER_FILTER

    frames = Input("flat_frame", "ExposureF", _FRAME, multiple=True)
    flat = Output("flat", "ExposureF", _PER_FILTER, calibration=True)

    def run(self, inputs: Inputs, outputs: Outputs) -> None:
        """Write the relative response."""
        outputs.flat.put(combine_flats([frame.get() for frame in inputs.frames]))


class DefectsConfig(TaskConfig):
    """What counts as a defect."""

    hot_e_per_s: float = 10.0
    response_tolerance: float = 0.3


class FindDefects(ImagingTask):
    """Find hot pixels, dead pixels and bad columns in the dark and the flats of all filters."""

    Config = DefectsConfig
    config: DefectsConfig
    dimensions = _PER_DETECTOR

    dark = Input("dark", "ExposureF", _PER_DETECTOR, calibration=True)
    flats = Input("flat", "ExposureF", _PER_FILTER, multiple=True, calibration=True)
    defects = Output("defects", "MaskX", _PER_DETECTOR, calibration=True)

    def run(self, inputs: Inputs, outputs: Outputs) -> None:
        """Write an image that is 1 where the detector is not to be trusted."""
        found = find_defects(
            inputs.dark.get().data,
            [flat.get().data for flat in inputs.flats],
            hot_e_per_s=self.config.hot_e_per_s,
            response_tolerance=self.config.response_tolerance,
        )
        outputs.defects.put(CCDData(found.astype(np.uint8), unit=u.dimensionless_unscaled))
