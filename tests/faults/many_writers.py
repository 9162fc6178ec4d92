"""Many processes that write to one repository at once, each in transactions of its own; prints what is there after.

    python many_writers.py FOLDER WRITERS

The process itself never uses Polars, whose threads do not survive a fork; only its children do.
"""

import json
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import polars as pl
from loadmaster_registry.records import Collection, CollectionType
from loadmaster_staging import fsck
from toy_survey import Survey

N_EACH = 4


def begin(folder: Path) -> None:
    """Make a repository without data."""
    Survey.create(folder, (1,))


def write(folder: Path, me: int) -> None:
    """Put files, one by one, each with its record and row, and look at what the others do in between."""
    survey = Survey.open(folder)
    run = f"u/{me}"
    with survey.registry.transaction() as transaction:
        transaction.register_collection(Collection(run, CollectionType.RUN))
    for number in range(N_EACH):
        detector = 100 * (me + 1) + number
        keys = pl.DataFrame({"instrument": ["Toy"], "detector": [detector]})
        rows = survey._raws(keys)
        with survey.registry.transaction() as transaction:
            transaction.insert_records(
                "detector", keys.with_columns(full_name=pl.col("detector").cast(pl.String))
            )
            transaction.insert_datasets("number", run, rows)
        seen = survey.registry.datasets("number", [run]).height
        assert seen == number + 1, f"writer {me} sees {seen} of its {number + 1}"


def look(folder: Path, n_writers: int) -> None:
    """Print what there is of each writer's, and what is wrong."""
    survey = Survey.open(folder)
    n_found = [survey.registry.datasets("number", [f"u/{me}"]).height for me in range(n_writers)]
    problems = fsck.check(survey.registry, survey.backbone, deep=True, grace_s=0.0).problems
    print(json.dumps({"n_found": n_found, "n_problems": problems.height, "staged": survey.staged()}))


def child(act: Callable[..., None], *words: object) -> int:
    """Begin to do something in a process of its own, and return its number."""
    process = os.fork()
    if process == 0:
        try:
            act(*words)
            sys.stdout.flush()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    return process


def main() -> None:
    folder, n_writers = Path(sys.argv[1]), int(sys.argv[2])
    steps: list[list[tuple[object, ...]]] = [
        [(begin, folder)],
        [(write, folder, me) for me in range(n_writers)],
        [(look, folder, n_writers)],
    ]
    for step in steps:
        children = [child(*words) for words in step]  # type: ignore[arg-type]
        ended = [os.waitpid(process, 0)[1] for process in children]
        if any(ended):
            sys.exit("a process failed")


if __name__ == "__main__":
    main()
