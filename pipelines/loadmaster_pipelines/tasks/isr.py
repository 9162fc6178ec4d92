"""Instrument signature removal: the raw frame of one detector, corrected as far as its calibrations go."""

from typing import ClassVar

import numpy as np
from astropy.nddata import CCDData

from ..connections import Input, Output, Prerequisite
from ..imaging.detrending import detrend, electrons, mask_cosmic_rays
from ..task import Inputs, NoWork, Outputs
from . import ImagingTask

_FRAME = ("instrument", "exposure", "detector")
_PER_DETECTOR = ("instrument", "detector")


class Isr(ImagingTask):
    """Correct a science frame: overscan, bias, dark, flat, defects, cosmic rays; add errors and a mask."""

    dimensions = _FRAME

    raw = Input("raw", "Exposure", _FRAME)
    bias = Prerequisite("bias", "ExposureF", _PER_DETECTOR, calibration=True)
    dark = Prerequisite("dark", "ExposureF", _PER_DETECTOR, calibration=True)
    flat = Prerequisite("flat", "ExposureF", ("instrument", "physical_filter", "detector"), calibration=True)
    defects = Prerequisite("defects", "MaskX", _PER_DETECTOR, calibration=True)
    image = Output("post_isr", "ExposureF", _FRAME)

    def run(self, inputs: Inputs, outputs: Outputs) -> None:
        """Write the corrected frame, in electrons."""
        outputs.image.put(mask_cosmic_rays(_corrected(inputs.raw.get(), inputs)))


class BiasFrame(ImagingTask):
    """Prepare a bias frame to be combined: only the overscan can be taken off."""

    dimensions = _FRAME
    kind: ClassVar[str] = "bias"  # value of OBSTYPE

    raw = Input("raw", "Exposure", _FRAME)
    image = Output("bias_frame", "ExposureF", _FRAME)

    def run(self, inputs: Inputs, outputs: Outputs) -> None:
        """Write the frame in electrons; frames of another kind are left alone."""
        raw = inputs.raw.get()
        if raw.header["OBSTYPE"] != self.kind:
            raise NoWork(f"a {raw.header['OBSTYPE']} frame is no {self.kind}")
        outputs.image.put(_corrected(raw, inputs))


class DarkFrame(BiasFrame):
    """Prepare a dark frame to be combined."""

    kind = "dark"

    bias = Input("bias", "ExposureF", _PER_DETECTOR, calibration=True)
    image = Output("dark_frame", "ExposureF", _FRAME)


class FlatFrame(DarkFrame):
    """Prepare a flat frame to be combined."""

    kind = "flat"

    dark = Input("dark", "ExposureF", _PER_DETECTOR, calibration=True)
    image = Output("flat_frame", "ExposureF", _FRAME)


def _corrected(raw: CCDData, inputs: Inputs) -> CCDData:
    """Apply whichever calibrations the task declares."""
    calibrations = {name: inputs[name].get() for name in ("bias", "dark", "flat") if name in set(inputs)}
    defects = np.asarray(inputs.defects.get().data, dtype=bool) if "defects" in set(inputs) else None
    return detrend(electrons(raw), **calibrations, defects=defects)
