"""A small survey of tasks that can be imported, and pipeline files to write beside it."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings
from loadmaster_pipelines.loader import load_pipeline
from loadmaster_pipelines.pipeline import Pipeline
from loadmaster_registry.universe import Universe, load_universe

settings.register_profile("untimed", deadline=None)  # a busy machine is no error
settings.load_profile("untimed")

TOY_TASKS = '''
"""Tasks of a survey that never was."""

from enum import Enum
from typing import Literal

from loadmaster_pipelines.connections import InitOutput, Input, Output, Prerequisite
from loadmaster_pipelines.task import Resources, Task, TaskConfig
from pydantic import Field

FRAME = ("instrument", "exposure", "detector")
VISIT = ("instrument", "visit", "detector")


class Mode(Enum):
    FAST = "fast"
    SLOW = "slow"


class Kernel(TaskConfig):
    name: str = "gauss"
    size: int = Field(5, ge=1)
    weights: list[float] = []


class IsrConfig(TaskConfig):
    dark: bool = True
    gain: float | None = None
    comment: str = ""
    mode: Mode = Mode.FAST


class Isr(Task):
    Config = IsrConfig
    dimensions = FRAME
    version = "2"
    resources = Resources(memory_mib=4096)

    raw = Input("raw", "Exposure", FRAME)
    bias = Prerequisite("bias", "ExposureF", ("instrument", "detector"), calibration=True)
    image = Output("post_isr", "ExposureF", FRAME)

    def run(self, inputs, outputs):
        outputs.image.put(inputs.raw.get())


class DetectConfig(TaskConfig):
    threshold: float = 5.0
    kernel: Kernel = Kernel()
    reuse: bool = True
    columns: tuple[str, ...] = ()
    method: Literal["peak", "isophote"] = "peak"
    seed: int


class Detect(Task):
    Config = DetectConfig
    dimensions = VISIT
    templates = {"kind": "deep", "suffix": "cat"}

    images = Input("post_isr", "Exposure", FRAME, multiple=True, deferred=True)
    sources = Output("{kind}_{suffix}", "SourceCatalog", VISIT)
    schema = InitOutput("{kind}_schema", "SourceCatalog")

    def run(self, inputs, outputs):
        pass


class Summarize(Task):
    dimensions = ("instrument", "visit")

    sources = Input("deep_cat", "SourceCatalog", VISIT, multiple=True)
    wcs = Input("post_isr.wcs", "Wcs", FRAME, multiple=True, minimum=0)
    table = Output("summary", "DataFrame", ("instrument", "visit"))

    def run(self, inputs, outputs):
        pass


class NotATask:
    pass
'''

TOY = """
description: toy survey
tasks:
  isr: sketch_tasks.Isr
  detect:
    class: sketch_tasks.Detect
    config: {seed: 1}
  summarize: sketch_tasks.Summarize
subsets:
  perDetector: [isr, detect]
  perVisit: {subset: [summarize], description: one row a visit}
steps:
  - {label: perDetector, dimensions: [visit, detector]}
  - {label: perVisit, dimensions: [visit]}
contracts:
  - detect.threshold > 3
  - {contract: "isr.dark or not detect.reuse", msg: reuse needs darks}
"""


@pytest.fixture(scope="session")
def universe() -> Universe:
    return load_universe()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty folder for pipeline files; `sketch_tasks` can be imported."""
    modules = tmp_path / "modules"
    modules.mkdir()
    (modules / "sketch_tasks.py").write_text(TOY_TASKS)
    monkeypatch.syspath_prepend(modules)
    files = tmp_path / "files"
    files.mkdir()
    (files / "toy.yaml").write_text(TOY)
    return files


@pytest.fixture
def load(folder: Path, universe: Universe) -> Callable[..., Pipeline]:
    """Return a function that writes text to ``pipeline.yaml`` (or another name) and loads it."""

    def write_and_load(
        text: str, fragment: str = "", name: str = "pipeline.yaml", **options: object
    ) -> Pipeline:
        (folder / name).write_text(text)
        return load_pipeline(f"{folder / name}{fragment}", universe=universe, **options)  # type: ignore[arg-type]

    return write_and_load
