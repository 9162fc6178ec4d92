"""Tasks that try what a task may not, and one that does what many do: it starts helpers of its own."""

import multiprocessing
import os
from pathlib import Path

from loadmaster_pipelines.connections import Output
from loadmaster_pipelines.task import Inputs, Outputs, Task, TaskConfig

# Opened when a worker imports this, before there is any job.
LEFT_OPEN = os.open(os.environ["LEFT_OPEN"], os.O_RDWR) if "LEFT_OPEN" in os.environ else -1


class Places(TaskConfig):
    path: str = ""


class _Task(Task):
    Config = Places
    config: Places
    dimensions = ("instrument", "detector")
    a = Output("a", "Text", ("instrument", "detector"))


class ReadQuietly(_Task):
    """Reads, and says nothing of it when it cannot."""

    def run(self, inputs: Inputs, outputs: Outputs) -> None:
        try:
            text = Path(self.config.path).read_text()
        except OSError:
            text = "nothing"
        outputs.a.put(text)


class ReadLoudly(_Task):
    """Reads, or fails."""

    def run(self, inputs: Inputs, outputs: Outputs) -> None:
        outputs.a.put(Path(self.config.path).read_text())


class UseWhatIsOpen(_Task):
    """Reads all that is open."""

    def run(self, inputs: Inputs, outputs: Outputs) -> None:
        found = b""
        for number in range(3, 300):
            try:
                found += os.pread(number, 100, 0)
                os.pwrite(number, b"spoilt", 0)
            except OSError:
                continue
        outputs.a.put(found.decode(errors="replace"))


class Share(_Task):
    """Shares its work with processes of its own, and objects with them by way of a server."""

    def run(self, inputs: Inputs, outputs: Outputs) -> None:
        context = multiprocessing.get_context("fork")
        with context.Pool(2) as pool, context.Manager() as manager:
            shared = manager.list(pool.map(abs, range(-3, 3)))
            outputs.a.put(str(list(shared)))
