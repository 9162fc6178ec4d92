"""A file system that counts what is read of it, and a task that needs room: workers import both by this name."""

import os
import time
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem
from loadmaster_pipelines.connections import Input, Output
from loadmaster_pipelines.handles import Inputs, Outputs
from loadmaster_pipelines.task import Task


class Counted(LocalFileSystem):
    """Local files under counted://, with a line in a log for every read: path and bytes."""

    protocol = "counted"
    log = os.environ.get("COUNTED_LOG", "")

    def cat_file(self, path: str, start: Any = None, end: Any = None, **kwargs: Any) -> bytes:
        content: bytes = super().cat_file(path, start, end, **kwargs)
        with open(self.log, "a") as log:
            log.write(f"{path} {len(content)}\n")
        return content


fsspec.register_implementation("counted", Counted, clobber=True)


class Measure(Task):
    """Keeps its input for a while, and says how large it is."""

    dimensions = ("instrument", "detector")
    frame = Input("frame", "Bytes", ("instrument", "detector"))
    size = Output("size", "Text", ("instrument", "detector"))

    def run(self, inputs: Inputs, outputs: Outputs) -> None:
        time.sleep(0.15)
        outputs.size.path.write_text(str(len(inputs.frame.path.read_bytes())))
