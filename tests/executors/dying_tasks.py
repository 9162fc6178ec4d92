"""A task in whose process something dies, once: the test's environment says where.

``TOY_DEATH`` holds ``[MODULE:]FUNCTION before|after job|worker MARKER``. Importing this module, as a worker does to get
warm, wraps that function (without a module: of the job runner); whoever makes the file MARKER is the one to die.
"""

import os
import signal
from collections.abc import Callable
from functools import reduce
from importlib import import_module
from typing import Any

from loadmaster_executors import job
from loadmaster_pipelines.connections import Input, Output
from loadmaster_pipelines.task import Inputs, Outputs, Task

PLACES = ("instrument", "detector")


class Copy(Task):
    """Copies a number."""

    dimensions = PLACES
    number = Input("number", "Text", PLACES)
    copied = Output("copied", "Text", PLACES)

    def run(self, inputs: Inputs, outputs: Outputs) -> None:
        outputs.copied.put(inputs.number.get())


def die_once(victim: str, marker: str) -> None:
    try:
        os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return
    if victim == "worker":
        os.kill(os.getppid(), signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)


def dying(real: Callable[..., Any], when: str, victim: str, marker: str) -> Callable[..., Any]:
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if when == "before":
            die_once(victim, marker)
        result = real(*args, **kwargs)
        die_once(victim, marker)
        return result

    return wrapped


if death := os.environ.get("TOY_DEATH"):
    place, when, victim, marker = death.split(" ")
    module, _, path = place.rpartition(":")
    *owners, name = path.split(".")
    owner = reduce(getattr, owners, import_module(module) if module else job)
    setattr(owner, name, dying(getattr(owner, name), when, victim, marker))
