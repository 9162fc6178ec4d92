"""The demo on real data: frames of M13, images of 2MASS, and the registry of a real survey."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from loadmaster_registry.errors import NotFound, RegistryError
from rich.console import Console

from ..plan import Plan
from ..repo import Repo
from .guide import Guide
from .preview import write_preview

TOOLS = {"source-extractor": "source-extractor", "SWarp": "swarp"}  # program → Debian package

_M13 = "OrionSSDSI"
_TWOMASS = "2MASS"
_PATCH = "instrument='HSC' AND skymap='hsc_rings_v1' AND tract = 9813 AND patch = 40 AND band = 'i'"


@dataclass(frozen=True, slots=True)
class RealDemoResult:
    """What came out of the real data."""

    missing_packages: tuple[str, ...]  # of Debian; what needs them was left out
    sources: Mapping[str, int]  # catalogue → its number of sources
    offsets_px: Mapping[str, tuple[float, float]]  # of the frames of M13, by exposure
    preview: Path
    survey_plan: Plan | None = field(default=None)  # None where the registry is not at hand


def run_real_demo(
    data_folder: Path, folder: Path, *, jobs: int | None = None, console: Console | None = None
) -> RealDemoResult:
    """Take real images through ingest, plan, run and harvest, and plan a patch of a real survey.

    Parameters
    ----------
    data_folder : Path
        With ``m13/`` and ``gc2mass/``. Where ``registry/rc2-small`` and ``pipelines/drp-mini.yaml`` lie
        beside it, a patch of that survey is planned too.
    folder : Path
        Where the repositories are made; nothing may be there.
    jobs : int, optional
        How many jobs at once; as many as there are cores by default.
    console : Console, optional
        Where the story is told; stdout by default.

    Raises
    ------
    NotFound
        If the images are not there.
    RegistryError
        If `folder` exists.
    RunError
        If a job fails.
    """
    m13, twomass = (_images(data_folder / name) for name in ("m13", "gc2mass"))
    if folder.exists():
        raise RegistryError(
            what=f"{str(folder)!r} exists already",
            where=str(folder.resolve()),
            why="the demo starts from nothing and overwrites nothing",
            todo=f"take it away (rm -r {folder}), or name another folder",
        )
    missing = {program: package for program, package in TOOLS.items() if shutil.which(program) is None}
    with Repo.init(folder) as repo:
        guide = Guide(repo, jobs) if console is None else Guide(repo, jobs, console)
        _tell_missing(guide, missing)
        guide.say("M13: five raw frames, aligned by cross-correlation and averaged")
        _ingest_and_run(
            guide, "orion-ssdsi", m13, _M13, "m13", _without({"extract": "source-extractor"}, missing)
        )
        guide.say("\n2MASS: the galactic centre in J, H and K, averaged and searched for sources")
        needs = {"coadd": "SWarp", "extract": "source-extractor"}
        _ingest_and_run(guide, "twomass", twomass, _TWOMASS, "twomass", _without(needs, missing))
        preview = folder / "coadds.png"
        write_preview(preview, _pictures(repo, missing))
        survey_plan = _plan_survey(guide, data_folder.parent, folder / "rc2")
        result = RealDemoResult(
            tuple(sorted(missing.values())), _source_counts(repo), _offsets(repo), preview, survey_plan
        )
        _conclude(guide, folder, result)
    return result


def _images(folder: Path) -> list[Path]:
    found = sorted(folder.glob("*.fits.gz"))
    if not found:
        raise NotFound(
            what="there are no images for the demo",
            where=str(folder),
            why="no file there ends in .fits.gz",
            todo="name the folder that holds m13/ and gc2mass/",
        )
    return found


def _tell_missing(guide: Guide, missing: Mapping[str, str]) -> None:
    for program, package in missing.items():
        guide.say(
            f"There is no {program} here, and what needs it is left out. On Debian: apt-get install {package}"
        )


def _without(needs: Mapping[str, str], missing: Mapping[str, str]) -> str | None:
    """Return what to select so that no task needs a missing program: not those, nor what comes after them."""
    lacking = [label for label, program in needs.items() if program in missing]
    return " & ".join(f"~>={label}" for label in lacking) or None


def _ingest_and_run(
    guide: Guide, camera: str, files: list[Path], instrument: str, pipeline: str, select: str | None
) -> None:
    raw = f"{instrument}/raw/all"
    guide.repo.ingest(camera, files, mode="link")
    guide.process(
        f"{pipeline}.yaml",
        inputs=[raw],
        output=f"u/demo/{pipeline}",
        where=f"instrument='{instrument}'",
        select=select,
    )


def _pictures(repo: Repo, missing: Mapping[str, str]) -> dict[str, np.ndarray]:
    stack = repo.get("stack", collections="u/demo/m13", instrument=_M13, physical_filter="blue", detector=0)
    pictures = {"M13, five frames": stack.data}
    if "SWarp" not in missing:
        coadd = repo.get("mosaic", collections="u/demo/twomass", instrument=_TWOMASS, detector=0)
        pictures["galactic centre, J + H + K"] = coadd.data
    return pictures


def _source_counts(repo: Repo) -> dict[str, int]:
    """Count the sources of each catalogue that was made."""
    counts = {}
    for catalogue, output in (("stack_sources", "u/demo/m13"), ("mosaic_sources", "u/demo/twomass")):
        if not repo.registry.dataset_types(catalogue):
            continue
        keys = repo.registry.dataset_type(catalogue).dimensions.required
        for row in repo.query_datasets(catalogue, output).select(keys).iter_rows(named=True):
            counts[catalogue] = len(repo.get(catalogue, row, collections=output))
    return counts


def _offsets(repo: Repo) -> dict[str, tuple[float, float]]:
    found = repo.get(
        "stack_offsets", collections="u/demo/m13", instrument=_M13, physical_filter="blue", detector=0
    )
    return {exposure: (dx, dy) for exposure, (dx, dy) in found.items()}


def _plan_survey(guide: Guide, shared: Path, folder: Path) -> Plan | None:
    """Plan one patch of Hyper Suprime-Cam data from the survey's own registry; nothing is run."""
    registry, pipeline = shared / "registry" / "rc2-small", shared / "pipelines" / "drp-mini.yaml"
    if not (registry.is_dir() and pipeline.is_file()):
        guide.say(f"\nThe registry rc2-small is not at {registry}: no patch of it is planned.")
        return None
    guide.say(
        "\nA real survey: the records of 240 raw frames of Hyper Suprime-Cam, one patch in one band planned"
    )
    with Repo.init(folder) as repo:
        repo.import_file(registry / "rc2_subset-export.yaml", registry / "visits.yaml")
        plan = repo.plan(
            pipeline,
            inputs="HSC/RC2/defaults",
            output="u/demo/patch",
            where=_PATCH,
            allow_partial_gather=True,
        )
    guide.show(plan.table())
    return plan


def _conclude(guide: Guide, folder: Path, result: RealDemoResult) -> None:
    """Show where things are and what to do next."""
    for exposure, (dx, dy) in result.offsets_px.items():
        guide.say(f"M13, frame {exposure}: moved by ({dx:+.2f}, {dy:+.2f}) pixels")
    for catalogue, count in result.sources.items():
        guide.say(f"{catalogue}: {count} sources by Source Extractor")
    for coadd, output in (("stack", "u/demo/m13"), ("mosaic", "u/demo/twomass")):
        if guide.repo.registry.dataset_types(coadd):
            for url in guide.repo.query_datasets(coadd, output)["url"]:
                guide.say(f"The {coadd}: {guide.repo.backbone.url(url)}")
    guide.say(f"Pictures: {result.preview}")
    guide.say(f"Next: loadmaster query-datasets stack_sources -i u/demo/m13 --repo {folder}")
