"""Sky patches: visits brought to one grid, averaged, and their sources measured."""

from collections.abc import Iterable

import astropy.units as u
import numpy as np
from astropy.nddata import CCDData, StdDevUncertainty
from astropy.table import Table
from astropy.wcs import WCS

from ..connections import Input, Output
from ..imaging.coaddition import coadd, paste
from ..imaging.detection import detect, estimate_background, stellar_fwhm
from ..imaging.photometry import AB_ZERO_POINT_NJY, magnitude, magnitude_error, total_flux
from ..imaging.resampling import Resampled, warp
from ..task import Inputs, NoWork, Outputs, TaskConfig
from . import ImagingTask

_PATCH_VISIT = ("skymap", "tract", "patch", "instrument", "visit")
_PATCH_BAND = ("skymap", "tract", "patch", "band")


class Warp(ImagingTask):
    """Bring the detectors of one visit to the grid of a patch, in nanojansky; a bad visit has no warps."""

    dimensions = _PATCH_VISIT

    images = Input(
        "calibrated_image", "ExposureF", ("instrument", "visit", "detector"), multiple=True, deferred=True
    )
    summary = Input("visit_summary", "StructuredDataDict", ("instrument", "visit"))
    sky_map = Input("skyMap", "SkyMap", ("skymap",))
    warp = Output("warp", "ExposureF", _PATCH_VISIT)

    def run(self, inputs: Inputs, outputs: Outputs) -> None:
        """Write the visit as this patch sees it."""
        summary = inputs.summary.get()
        if not summary["good"]:
            raise NoWork(f"visit {summary['visit']} is bad: {'; '.join(summary['reasons'])}")
        target, shape = _patch_grid(inputs)
        parts = [_warped(image.get(), target, shape) for image in inputs.images]
        merged = paste(parts)
        if merged.mask.all():
            raise NoWork("no pixel of the visit lies in the patch")
        outputs.warp.put(_image(merged, target))


class CoaddConfig(TaskConfig):
    """How unlike each other images may be."""

    seeing_tolerance: float = 0.6


class Coadd(ImagingTask):
    """Average the visits of one band in a patch."""

    Config = CoaddConfig
    config: CoaddConfig
    dimensions = _PATCH_BAND

    warps = Input("warp", "ExposureF", _PATCH_VISIT, multiple=True)
    coadd = Output("coadd", "ExposureF", _PATCH_BAND)
    depth = Output("coadd_depth", "ImageI", _PATCH_BAND)

    def run(self, inputs: Inputs, outputs: Outputs) -> None:
        """Write the coadd in nanojansky, and how many visits count in each of its pixels."""
        images = [warp.get() for warp in inputs.warps]
        result = coadd([_resampled(image) for image in images], seeing_tolerance=self.config.seeing_tolerance)
        merged = Resampled(result.data, result.variance, ~np.isfinite(result.data))
        image = _image(merged, images[0].wcs)
        for number, handle in enumerate(inputs.warps, start=1):
            image.header[f"VISIT{number:03d}"] = handle.data_id["visit"]
        image.header["CLIPPED"] = (result.clipped, "pixels of single visits turned out")
        outputs.coadd.put(image)
        outputs.depth.put(CCDData(result.depth, unit=u.dimensionless_unscaled, wcs=images[0].wcs))


class MeasureConfig(TaskConfig):
    """How sources are found and measured."""

    background_box_px: int = 60
    detection_sigmas: float = 5.0
    aperture_fwhm: float = 1.5  # radii, in units of the seeing
    total_fwhm: float = 3.0


class Measure(ImagingTask):
    """Detect the sources of a coadd and measure where they are and how bright."""

    Config = MeasureConfig
    config: MeasureConfig
    dimensions = _PATCH_BAND

    coadd = Input("coadd", "ExposureF", _PATCH_BAND)
    catalogue = Output("object_catalog", "SourceCatalog", _PATCH_BAND)

    def run(self, inputs: Inputs, outputs: Outputs) -> None:
        """Write position, flux (nJy), AB magnitude and errors of each source."""
        image = inputs.coadd.get()
        mask = image.mask
        data = image.data - estimate_background(image.data, mask, box_px=self.config.background_box_px).level
        sources = detect(data, mask, threshold_sigmas=self.config.detection_sigmas)
        if not len(sources):
            raise NoWork(f"no source stands {self.config.detection_sigmas:g} sigma above the sky")
        fwhm = stellar_fwhm(data, mask, sources)
        fluxes = total_flux(
            data,
            image.uncertainty.array,
            mask,
            sources,
            radius_px=self.config.aperture_fwhm * fwhm,
            total_radius_px=self.config.total_fwhm * fwhm,
        )
        outputs.catalogue.put(_object_catalogue(sources, fluxes, image.wcs, fwhm))


def _patch_grid(inputs: Inputs) -> tuple[WCS, tuple[int, int]]:
    """Return the WCS and shape of the patch, its overlap with its neighbours included."""
    sky_map = inputs.sky_map.get()
    tract, patch = int(inputs.quantum["tract"]), int(inputs.quantum["patch"])
    return sky_map.patch_wcs(tract, patch), sky_map.patch_shape(tract, patch)


def _warped(image: CCDData, target: WCS, shape: tuple[int, int]) -> Resampled:
    scale = 10 ** (-0.4 * (image.header["MAGZERO"] - AB_ZERO_POINT_NJY))
    variance = np.square(image.uncertainty.array * np.float32(scale))
    return warp(image.data * np.float32(scale), variance, image.mask, image.wcs, target, shape)


def _resampled(image: CCDData) -> Resampled:
    return Resampled(image.data, np.square(image.uncertainty.array), np.asarray(image.mask, dtype=bool))


def _image(pixels: Resampled, wcs: WCS) -> CCDData:
    return CCDData(
        pixels.data,
        unit=u.nJy,
        uncertainty=StdDevUncertainty(np.sqrt(pixels.variance)),
        mask=pixels.mask,
        wcs=wcs,
    )


def _object_catalogue(sources: Table, fluxes: Table, wcs: WCS, fwhm_px: float) -> Table:
    ra, dec = wcs.wcs_pix2world(sources["x"], sources["y"], 0)
    columns: Iterable[str] = ("flux", "flux_err", "flagged")
    objects = Table(
        {"ra": ra, "dec": dec, "x": sources["x"], "y": sources["y"], **{n: fluxes[n] for n in columns}}
    )
    objects["mag"] = magnitude(np.asarray(objects["flux"]), AB_ZERO_POINT_NJY)
    objects["mag_err"] = magnitude_error(np.asarray(objects["flux"]), np.asarray(objects["flux_err"]))
    objects.meta["FWHM_PX"] = fwhm_px
    return objects
