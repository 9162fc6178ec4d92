"""Kill -9 in the middle of removals: a process that forks one victim after another, and looks at what each left.

    python removal_kills.py FOLDER

It prints a JSON object: point → what was wrong afterwards ("" where nothing was).

The process itself never uses Polars, whose threads do not survive a fork; only its children do.
"""

import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID, uuid5

import polars as pl
from loadmaster_registry import holdings
from loadmaster_registry.records import Collection, CollectionType, DatasetType
from loadmaster_registry.store import Registry
from loadmaster_staging import removal
from loadmaster_staging.backbone import Backbone
from loadmaster_staging.fsck import check
from loadmaster_staging.inventory import listing

NAMES = UUID("8d9c1a0e-3c5f-4b0e-9f53-0a3d5c1b7e11")
N = 4
IDS = [uuid5(NAMES, str(n)) for n in range(N)]


def begin(folder: Path) -> None:
    """Make a run of files, one of which is tagged."""
    with Registry.create(str(folder / "registry.sqlite3")) as registry, registry.transaction() as write:
        write.insert_records("instrument", pl.DataFrame({"instrument": ["Cam"]}))
        write.insert_records("detector", pl.DataFrame({"instrument": "Cam", "detector": range(N)}))
        group = registry.universe.group(["instrument", "detector"])
        write.register_dataset_type(DatasetType("text", group, "Text"))
        write.register_collection(Collection("run", CollectionType.RUN))
        write.register_collection(Collection("best", CollectionType.TAGGED))
        files = folder / "files" / "run"
        files.mkdir(parents=True)
        for n in range(N):
            (files / f"{n}").write_text(str(n))
        facts = {"id": [id.bytes for id in IDS], "url": [f"run/{n}" for n in range(N)], "size_bytes": [1] * N}
        write.insert_datasets(
            "text", "run", pl.DataFrame({"instrument": "Cam", "detector": range(N), **facts})
        )
        write.associate("best", IDS[:1])


def delete(registry: Registry, backbone: Backbone) -> None:
    removal.delete_datasets(registry, backbone, IDS, force=True, reason="they are bad")


def remove_run(registry: Registry, backbone: Backbone) -> None:
    if registry.collections("run"):
        removal.remove_collections(registry, ["run"])
    removal.collect(registry, backbone)


# What is removed by what, and what is left when it is done.
ACTS: dict[str, tuple[Callable[[Registry, Backbone], None], list[str]]] = {
    "delete": (delete, []),
    "gc": (remove_run, ["run/0"]),
}


def kill_at(name: str, call: int, *, before: bool) -> None:
    """Make this process kill itself before or after the n-th removal of a file, or end of a transaction."""
    left = [call]

    def dying(act: Callable[[], Any]) -> Any:
        left[0] -= 1
        if left[0] == 0 and before:
            die()
        result = act()
        if left[0] == 0:
            die()
        return result

    class Block:
        def __init__(self, real: Any) -> None:
            self._real = real

        def __enter__(self) -> Any:
            return self._real.__enter__()

        def __exit__(self, *error: Any) -> Any:
            return dying(lambda: self._real.__exit__(*error))

    if name == "remove":
        remove = removal.remove
        removal.remove = lambda url, signed: dying(lambda: remove(url, signed))
    else:
        begun: Any = Registry.transaction
        Registry.transaction = lambda self: Block(begun(self))  # type: ignore[method-assign]


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def opened(folder: Path) -> tuple[Registry, Backbone]:
    return Registry.open(str(folder / "registry.sqlite3")), Backbone(str(folder / "files"))


def look(folder: Path) -> None:
    """What is registered is there, and what is there is registered or waits in the trash, even now."""
    registry, backbone = opened(folder)
    problems = check(registry, backbone, deep=True, grace_s=0).problems
    assert problems.is_empty(), problems


def finish(folder: Path, act: str) -> None:
    """The same command again does the rest, and nothing more."""
    registry, backbone = opened(folder)
    run, left = ACTS[act]
    run(registry, backbone)
    assert listing(backbone.root_url)["path"].to_list() == left, "files"
    with registry.snapshot() as now:
        assert holdings.trash(now).is_empty(), "trash"
        assert holdings.files(now)["url"].to_list() == left, "rows"
        n_stones = holdings.tombstones(now, pl.Series([id.bytes for id in IDS])).height
    assert n_stones == (N if act == "delete" else 0), "tombstones"
    look(folder)


def forked(act: Callable[..., object], *args: object) -> int:
    """Run `act` in a child and return its exit code, negative for a signal."""
    child = os.fork()
    if child == 0:
        try:
            act(*args)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def killed(folder: Path, act: str, name: str, call: int, before: bool) -> str:
    def victim() -> None:
        kill_at(name, call, before=before)
        ACTS[act][0](*opened(folder))

    if forked(begin, folder):
        return "it could not begin"
    code = forked(victim)
    if code == 0:
        return "never reached"
    if code != -signal.SIGKILL:
        return f"exit code {code}"
    for what, after in (("look", (look, folder)), ("finish", (finish, folder, act))):
        if forked(*after):
            return f"{what} failed"
    return ""


def main() -> None:
    root = Path(sys.argv[1])
    points = [*(("transaction", n) for n in range(1, 5)), ("remove", 2)]
    found = {}
    for act in ACTS:
        for name, call in points:
            for before in (True, False):
                point = f"{act}: {'before' if before else 'after'} {name} {call}"
                folder = root / point.replace(" ", "-").replace(":", "")
                folder.mkdir()
                found[point] = killed(folder, act, name, call, before)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
