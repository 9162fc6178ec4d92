"""The command that shows it all at work."""

from pathlib import Path

import click

from ..demo import run_demo, run_real_demo
from .outcome import DONE, FAILED


@click.command("demo")
@click.argument("folder", required=False, type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--real",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="DATA",
    help="Use the real images in the folder DATA, which has m13/ and gc2mass/.",
)
@click.option("-j", "--jobs", type=click.IntRange(min=1), metavar="N", help="How many jobs at once.")
def demo_command(folder: Path | None, real: Path | None, jobs: int | None) -> int:
    """See it all work on a simulated sky, or on real images.

    The repository is made in FOLDER, where nothing may be yet.  [default: demo, or demo-real with --real]
    """
    if real is not None:
        run_real_demo(real, folder or Path("demo-real"), jobs=jobs)
        return DONE
    return DONE if run_demo(folder or Path("demo"), jobs=jobs).is_good else FAILED
