"""Settings of other programs as datasets, so that a command-line task gets them like any other input."""

from ..connections import Output
from ..task import Inputs, Outputs, Task, TaskConfig


class WriteTextConfig(TaskConfig):
    """The text."""

    text: str


class WriteText(Task):
    """Write a text from the pipeline file as a dataset, once for each instrument."""

    Config = WriteTextConfig
    config: WriteTextConfig
    dimensions = ("instrument",)

    text = Output("text", "Text", ("instrument",))

    def run(self, inputs: Inputs, outputs: Outputs) -> None:
        """Write it as it stands."""
        outputs.text.put(self.config.text)
