"""One detector of a visit, calibrated against a reference catalogue: background, stars, WCS, zero point."""

from dataclasses import asdict, dataclass

import numpy as np
from astropy.nddata import CCDData, StdDevUncertainty
from astropy.table import Table, unique, vstack

from ..connections import Input, Output, Prerequisite
from ..imaging.astrometry import Astrometry, match, refine_wcs
from ..imaging.detection import Background, detect, estimate_background, stellar_fwhm
from ..imaging.photometry import ZeroPoint, fit_zero_point, magnitude, magnitude_error, total_flux
from ..imaging.quality import DetectorQuality
from ..task import Inputs, NoWork, Outputs, TaskConfig
from . import ImagingTask

_DETECTOR = ("instrument", "visit", "detector")


class CalibrateConfig(TaskConfig):
    """How sources are found, matched and measured."""

    background_box_px: int = 50
    detection_sigmas: float = 5.0
    aperture_fwhm: float = 1.5  # radii, in units of the seeing
    total_fwhm: float = 3.0
    search_px: float = 20.0  # the header's pointing is right to this
    match_px: float = 3.0
    zero_point_match_px: float = 1.0


@dataclass(frozen=True, slots=True)
class Measured:
    """What one detector's image has shown before it was compared with anything."""

    background: Background
    sources: Table  # x, y, peak, area, flux, flux_err, flagged
    fwhm_px: float


class Calibrate(ImagingTask):
    """Measure the stars of one detector and tie them to a reference catalogue, in place and in brightness.

    The image keeps its electrons; the zero point stands in its header as MAGZERO.
    """

    Config = CalibrateConfig
    config: CalibrateConfig
    dimensions = _DETECTOR

    exposures = Input("post_isr", "ExposureF", ("instrument", "exposure", "detector"), multiple=True)
    reference = Prerequisite("reference_stars", "Catalog", ("skypix",), multiple=True)
    image = Output("calibrated_image", "ExposureF", _DETECTOR)
    background = Output("sky_background", "ImageF", _DETECTOR)
    stars = Output("star_catalog", "SourceCatalog", _DETECTOR)
    quality = Output("calibration_quality", "StructuredDataDict", _DETECTOR)

    def run(self, inputs: Inputs, outputs: Outputs) -> None:
        """Write the calibrated image, its background, its stars, and how well all of that went."""
        image = _only(inputs.exposures)
        reference = unique(vstack([shard.get() for shard in inputs.reference]), keys="id")
        measured = self._measure(image)
        astrometry = self._astrometry(measured, reference, image)
        zero_point = self._zero_point(measured, reference, astrometry, f"mag_{inputs.quantum['band']}")
        outputs.image.put(_calibrated(image, measured.background, astrometry, zero_point))
        outputs.background.put(CCDData(measured.background.level, unit=image.unit))
        outputs.stars.put(_star_catalogue(measured, astrometry, zero_point))
        outputs.quality.put(
            asdict(_quality(int(inputs.quantum["detector"]), measured, astrometry, zero_point))
        )

    def _measure(self, image: CCDData) -> Measured:
        background = estimate_background(image.data, image.mask, box_px=self.config.background_box_px)
        data = image.data - background.level
        sources = detect(data, image.mask, threshold_sigmas=self.config.detection_sigmas)
        if not len(sources):
            raise NoWork(f"no source stands {self.config.detection_sigmas:g} sigma above the sky")
        fwhm = stellar_fwhm(data, image.mask, sources)
        fluxes = total_flux(
            data,
            image.uncertainty.array,
            image.mask,
            sources,
            radius_px=self.config.aperture_fwhm * fwhm,
            total_radius_px=self.config.total_fwhm * fwhm,
        )
        for name in fluxes.colnames:
            sources[name] = fluxes[name]
        return Measured(background, sources, fwhm)

    def _astrometry(self, measured: Measured, reference: Table, image: CCDData) -> Astrometry:
        clean = measured.sources[~measured.sources["flagged"]]
        found = refine_wcs(
            np.column_stack([clean["x"], clean["y"]]),
            np.asarray(reference["ra"]),
            np.asarray(reference["dec"]),
            image.wcs,
            search_px=self.config.search_px,
            radius_px=self.config.match_px,
        )
        if found is None:
            raise NoWork(
                f"too few of {len(clean)} stars match the {len(reference)} of the reference within "
                f"{self.config.match_px:g} px after a search of {self.config.search_px:g} px"
            )
        return found

    def _zero_point(
        self, measured: Measured, reference: Table, astrometry: Astrometry, column: str
    ) -> ZeroPoint:
        clean = measured.sources[~measured.sources["flagged"]]
        expected = np.column_stack(astrometry.wcs.wcs_world2pix(reference["ra"], reference["dec"], 0))
        rows, partners = match(
            np.column_stack([clean["x"], clean["y"]]), expected, radius_px=self.config.zero_point_match_px
        )
        found = fit_zero_point(
            np.asarray(clean["flux"])[rows],
            np.asarray(clean["flux_err"])[rows],
            np.asarray(reference[column])[partners],
            np.asarray(reference["mag_err"])[partners],
        )
        if not found.stars:
            raise NoWork(f"no star of the reference with {column} has a usable flux here")
        return found


def _only(exposures: list[object]) -> CCDData:
    if len(exposures) > 1:
        raise NoWork(f"the visit has {len(exposures)} exposures, and snaps are not combined here")
    return exposures[0].get()  # type: ignore[attr-defined]


def _calibrated(
    image: CCDData, background: Background, astrometry: Astrometry, zero_point: ZeroPoint
) -> CCDData:
    header = image.header.copy()
    header["MAGZERO"] = (zero_point.value, "magnitude of one electron")
    return CCDData(
        image.data - background.level,
        unit=image.unit,
        uncertainty=StdDevUncertainty(image.uncertainty.array),
        mask=image.mask,
        header=header,
        wcs=astrometry.wcs,
    )


def _star_catalogue(measured: Measured, astrometry: Astrometry, zero_point: ZeroPoint) -> Table:
    stars = measured.sources.copy()
    stars["ra"], stars["dec"] = astrometry.wcs.wcs_pix2world(stars["x"], stars["y"], 0)
    stars["mag"] = magnitude(np.asarray(stars["flux"]), zero_point.value)
    stars["mag_err"] = magnitude_error(np.asarray(stars["flux"]), np.asarray(stars["flux_err"]))
    return stars


def _quality(
    detector: int, measured: Measured, astrometry: Astrometry, zero_point: ZeroPoint
) -> DetectorQuality:
    return DetectorQuality(
        detector=detector,
        fwhm_px=measured.fwhm_px,
        sky=float(np.median(measured.background.level)),
        zero_point=zero_point.value,
        astrometric_rms_px=astrometry.rms_px,
        matched=astrometry.matched,
    )
