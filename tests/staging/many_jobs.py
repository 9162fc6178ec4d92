"""Many jobs of a site that want the same inputs at once: `python many_jobs.py N_JOBS USER FOLDER < JSON`.

Each is a process of its own. JSON: the site's staging, and the inputs of every job. Prints what went wrong.
"""

import concurrent.futures.thread  # noqa: F401 (here once, not in each job)
import json
import os
import sys
from pathlib import Path
from typing import Any

import fsspec.implementations.http  # noqa: F401
from loadmaster_staging.inputs import stage_in
from loadmaster_staging.manifest import InputFile, Staging


def main() -> int:

    n_jobs, user, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    asked = json.load(sys.stdin)
    files = [InputFile(**file) for file in asked["files"]]
    ready, begin = os.pipe()
    children = []
    for i in range(n_jobs):
        if (child := os.fork()) == 0:
            if user:
                os.setgroups([])
                os.setgid(user)
                os.setuid(user + i)
            os.close(begin)
            os.read(ready, 1)  # until all are there
            os._exit(be_a_job(files, folder / f"{i}-{user}", asked["staging"]))
        children.append(child)
    os.close(begin)
    return sum(os.waitpid(child, 0)[1] != 0 for child in children)


def be_a_job(files: list[InputFile], folder: Path, staging: dict[str, Any]) -> int:
    try:
        paths = stage_in(files, folder / "in", Staging(**{**staging, "software": ()}))
        for file in files:
            assert paths[file.dataset_id].stat().st_size == file.size_bytes
    except Exception as error:
        print(folder.name, type(error).__name__, error, flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
