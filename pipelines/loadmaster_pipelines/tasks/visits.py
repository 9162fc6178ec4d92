"""The verdict on a visit, from what calibration found on each of its detectors."""

from dataclasses import asdict

from pydantic import Field

from ..connections import Input, Output
from ..imaging.quality import DetectorQuality, Limits, judge
from ..task import Inputs, Outputs, TaskConfig
from . import ImagingTask


class SummarizeVisitConfig(TaskConfig):
    """Beyond these limits a visit is bad."""

    max_fwhm_px: float = 5.0
    max_extinction_mag: float = 0.5
    max_astrometric_rms_px: float = 0.3
    min_matched: int = 20
    clear_zero_points: dict[str, float] = Field(
        default_factory=dict
    )  # by band: the zero point through a clear sky


class SummarizeVisit(ImagingTask):
    """Gather the detectors of a visit and say whether it is good, and if not, why."""

    Config = SummarizeVisitConfig
    config: SummarizeVisitConfig
    dimensions = ("instrument", "visit")

    qualities = Input(
        "calibration_quality", "StructuredDataDict", ("instrument", "visit", "detector"), multiple=True
    )
    summary = Output("visit_summary", "StructuredDataDict", ("instrument", "visit"))

    def run(self, inputs: Inputs, outputs: Outputs) -> None:
        """Write medians over the detectors, ``good``, ``reasons``, and the values of each detector."""
        config = self.config
        detectors = [DetectorQuality(**quality.get()) for quality in inputs.qualities]
        limits = Limits(
            fwhm_px=config.max_fwhm_px,
            extinction_mag=config.max_extinction_mag,
            astrometric_rms_px=config.max_astrometric_rms_px,
            matched=config.min_matched,
        )
        verdict = judge(detectors, limits, config.clear_zero_points.get(str(inputs.quantum["band"])))
        outputs.summary.put(
            {
                "visit": inputs.quantum["visit"],
                "band": inputs.quantum["band"],
                "good": verdict.is_good,
                **asdict(verdict),
                "detectors": [asdict(detector) for detector in detectors],
            }
        )
