"""Tasks that the tests run: arithmetic, and every way to go wrong that a configuration can ask for."""

import logging
import os
import signal
import time
from pathlib import Path

from loadmaster_pipelines.connections import Input, Output
from loadmaster_pipelines.handles import NoWork
from loadmaster_pipelines.task import Inputs, Outputs, Task, TaskConfig

log = logging.getLogger(__name__)
PLACES = ("instrument", "detector")


class DoubleConfig(TaskConfig):
    raises: tuple[int, ...] = ()  # detectors for which the task goes wrong in this way
    omits: tuple[int, ...] = ()
    has_no_work: tuple[int, ...] = ()
    dies: tuple[int, ...] = ()
    exits: tuple[int, ...] = ()
    spoils_input: tuple[int, ...] = ()
    fills_bytes: int = 0
    sleep_s: float = 0.0
    until: str = ""  # wait until this file exists


class Double(Task):
    """Doubles a number."""

    Config = DoubleConfig
    config: DoubleConfig
    dimensions = PLACES
    number = Input("number", "Text", PLACES)
    doubled = Output("doubled", "Text", PLACES)
    note = Output("doubled_note", "Text", PLACES)

    def run(self, inputs: Inputs, outputs: Outputs) -> None:
        detector, config = inputs.quantum["detector"], self.config
        value = int(inputs.number.get())
        log.info("detector %s has %s", detector, value)
        print("doubling", value)
        time.sleep(config.sleep_s)
        deadline = time.monotonic() + 60
        while config.until and not Path(config.until).exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        if detector in config.raises:
            raise ValueError(f"detector {detector} is bad at {time.time()}")
        if detector in config.has_no_work:
            raise NoWork("no stars")
        if detector in config.dies:
            os.kill(os.getpid(), signal.SIGSEGV)
        if detector in config.exits:
            os._exit(3)
        if detector in config.spoils_input:
            inputs.number.path.unlink()
            inputs.number.path.write_text("0")
        outputs.note.path.write_text(
            "x" * config.fills_bytes + f"{Path.cwd().name} {list(Path.cwd().iterdir())}"
        )
        if detector not in config.omits:
            outputs.doubled.put(str(2 * value))


class Total(Task):
    """Adds up what there is."""

    dimensions = ("instrument",)
    doubled = Input("doubled", "Text", PLACES, multiple=True)
    total = Output("total", "Text", ("instrument",))

    def run(self, inputs: Inputs, outputs: Outputs) -> None:
        outputs.total.put(str(sum(int(handle.get()) for handle in inputs.doubled)))


class Negate(Task):
    """Needs exactly one number."""

    dimensions = PLACES
    doubled = Input("doubled", "Text", PLACES)
    negated = Output("negated", "Text", PLACES)

    def run(self, inputs: Inputs, outputs: Outputs) -> None:
        outputs.negated.put(str(-int(inputs.doubled.get())))
