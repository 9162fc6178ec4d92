"""One of several processes that publish, register and remove the same few names: FOLDER SEED SECONDS.

It prints how often it did each.
"""

import json
import random
import sys
import time
from collections import Counter
from pathlib import Path
from uuid import UUID, uuid4

import polars as pl
from loadmaster_registry.errors import Conflict, NotFound
from loadmaster_registry.store import Registry
from loadmaster_staging.backbone import Backbone, NameTaken
from loadmaster_staging.checksum import measure
from loadmaster_staging.removal import delete_datasets, empty_trash

N = 4


def add(registry: Registry, backbone: Backbone, n: int) -> str:
    """Publish a file, then register it, as the harvest does."""
    staged = Path(backbone.root_url) / ".staging" / f"run.x-{uuid4()}"
    staged.parent.mkdir(parents=True, exist_ok=True)
    staged.write_text(f"{n} {random.random()}")
    measured = measure(str(staged))
    facts = {"size_bytes": [measured.size_bytes], "checksum": [measured.checksum], "url": [f"run/{n}"]}
    row = pl.DataFrame({"instrument": ["Cam"], "detector": [n], "id": [uuid4().bytes], **facts})
    try:
        backbone.publish(str(staged), f"run/{n}")
        with registry.transaction() as write:
            write.insert_datasets("text", "run", row)
    except NameTaken:
        return "taken"
    finally:
        staged.unlink()
    return "added"


def remove(registry: Registry, backbone: Backbone, n: int) -> str:
    with registry.snapshot() as now:
        rows = now.datasets("text", ["run"], keep={"detector": [n]})
        ids = [now.files(rows["dataset"])["id"][0]] if rows.height else []
    if not ids:
        return "absent"
    try:
        delete_datasets(registry, backbone, [UUID(bytes=id) for id in ids])
    except (NotFound, Conflict):
        return "removed by another"
    return "removed"


def main() -> None:
    folder, seed, seconds = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    random.seed(seed)
    registry, backbone = Registry.open(str(folder / "registry.sqlite3")), Backbone(str(folder / "files"))
    done: Counter[str] = Counter()
    print("begun", flush=True)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        act = random.choice((add, remove, None))
        if act is None:
            empty_trash(registry, backbone)
        else:
            done[act(registry, backbone, random.randrange(N))] += 1
    print(json.dumps(done))


if __name__ == "__main__":
    main()
