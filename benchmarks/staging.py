"""How quickly inputs come to a job: beside `cp`, `rsync` and a plain fsspec loop on the same files in the same run.

    python benchmarks/staging.py [--large-mib MIB] [--small N] [--repeat N] [--folder DIR] [--s3 URL] [--streams N]

Large files are copied with checksums verified on the way; small ones come through links, read through to verify
them (and once more taken on trust). With --s3 the small ones come from an object store and nothing else is measured:
`eval "$(tests/services/s3-up)"` starts one, whose URL is then in LOADMASTER_TEST_S3.

Each way is the best of several turns, taken in turn, since other work on the machine slows all alike. Sources are
in the page cache. The last line is JSON.
"""

import argparse
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import uuid4

import fsspec
from loadmaster_staging.checksum import measure
from loadmaster_staging.inputs import stage_in
from loadmaster_staging.manifest import InputFile, Staging
from loadmaster_staging.stage import clear_folder

N_LARGE = 4
SMALL_BYTES = 2880  # one block of FITS


@dataclass(frozen=True)
class Way:
    """One way to bring files into a folder."""

    name: str
    bring: Callable[[Path], None]  # into this folder, which is not there yet


@dataclass(frozen=True)
class Cost:
    """What it took to bring all files."""

    wall_s: float
    cpu_s: float  # of this process and its children: does not grow with what else runs on the machine


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--large-mib", type=int, default=128, help=f"size of each of {N_LARGE} large files")
    parser.add_argument("--small", type=int, default=10_000, help="how many small files")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where files are made  [default: a temporary folder]")
    parser.add_argument("--s3", metavar="URL", help="folder of an object store for small files")
    parser.add_argument("--streams", type=int, default=Staging().streams, help="requests at once")
    asked = parser.parse_args()
    if asked.s3:
        print(json.dumps({"s3": measured_s3(asked)}))
        return
    with tempfile.TemporaryDirectory(prefix="loadmaster-staging-", dir=asked.folder) as name:
        folder = Path(name)
        large = measured_large(folder, asked.large_mib << 20, asked.repeat)
        small = measured_small(folder, asked.small, asked.repeat)
    print(json.dumps({"large": large, "small": small}))


def measured_large(folder: Path, size_bytes: int, repeat: int) -> dict[str, float]:
    """Copy a few large files in each way; return MB/s, and ours as a part of `cp`'s."""
    files = made_files(folder / "large", N_LARGE, size_bytes)
    ways = [
        Way("cp", lambda to: program("cp", "-r", folder / "large", to)),
        Way("loadmaster copy, sha256", lambda to: staged(files, to, Staging("copy"))),
        Way("fsspec loop", lambda to: fsspec_loop(files, to)),
        *rsync(folder / "large"),
    ]
    best = best_of(ways, folder, repeat)
    megabytes = N_LARGE * size_bytes / 1e6
    shown = show(f"{N_LARGE} files of {size_bytes >> 20} MiB", "MB/s", megabytes, best)
    return {**shown, "of_cp": round(best["cp"].wall_s / best["loadmaster copy, sha256"].wall_s, 3)}


def measured_small(folder: Path, n_files: int, repeat: int) -> dict[str, float]:
    """Bring many small files in each way; return files a second."""
    files = made_files(folder / "small", n_files, SMALL_BYTES)
    ways = [
        Way("loadmaster links, verified", lambda to: staged(files, to, Staging())),
        Way("loadmaster links, on trust", lambda to: staged(files, to, Staging(verify="moved"))),
        Way("loadmaster copy", lambda to: staged(files, to, Staging("copy"))),
        Way("cp", lambda to: program("cp", "-r", folder / "small", to)),
        Way("cp, links", lambda to: program("cp", "-rl", folder / "small", to)),
        Way("fsspec loop", lambda to: fsspec_loop(files, to)),
        *rsync(folder / "small"),
    ]
    best = best_of(ways, folder, repeat)
    return show(f"{n_files} files of {SMALL_BYTES} bytes", "files/s", n_files, best)


def measured_s3(asked: argparse.Namespace) -> dict[str, float]:
    """Bring many small files from an object store in each way; return files a second, and ours beside a plain loop."""
    root_url = f"{asked.s3.rstrip('/')}/benchmark-{uuid4().hex}"
    fs, root = fsspec.core.url_to_fs(root_url)
    with tempfile.TemporaryDirectory(prefix="loadmaster-staging-", dir=asked.folder) as name:
        folder = Path(name)
        made = made_files(folder / "small", asked.small, SMALL_BYTES)
        try:
            fs.put([file.url for file in made], [f"{root}/{Path(file.url).name}" for file in made])
            files = [replace(file, url=f"{root_url}/{Path(file.url).name}") for file in made]
            staging = Staging(streams=asked.streams)
            ways = [
                Way("loadmaster, sha256", lambda to: staged(files, to, staging)),
                Way("fsspec loop", lambda to: remote_loop(fs, files, to)),
                Way("fsspec get(list)", lambda to: remote_list(fs, files, to)),
            ]
            best = best_of(ways, folder, asked.repeat)
        finally:
            fs.rm(root, recursive=True)
    title = f"{asked.small} objects of {SMALL_BYTES} bytes"
    shown = show(title, "files/s", asked.small, best)
    of_loop = best["fsspec loop"].wall_s / best["loadmaster, sha256"].wall_s
    return {**shown, "of_loop": round(of_loop, 2)}


def made_files(folder: Path, n_files: int, size_bytes: int) -> list[InputFile]:
    """Write files of random bytes and return them as the inputs of a job."""
    folder.mkdir()
    files = []
    for i in range(n_files):
        path = folder / f"{i}.fits"
        with open(path, "wb") as stream:
            for begin in range(0, size_bytes, 1 << 20):
                stream.write(os.urandom(min(1 << 20, size_bytes - begin)))
        path.chmod(0o444)
        found = measure(str(path))
        facts = (str(path), found.size_bytes, found.checksum)
        files.append(InputFile("c", str(i), "raw", {"visit": i}, *facts))
    os.sync()
    return files


def staged(files: Sequence[InputFile], to: Path, staging: Staging) -> None:
    stage_in(files, to / "in", staging)


def fsspec_loop(files: Sequence[InputFile], to: Path) -> None:
    """Copy file by file, as one would write it down first."""
    to.mkdir()
    for file in files:
        with (
            fsspec.open(f"local://{file.url}", "rb") as source,
            open(to / Path(file.url).name, "wb") as target,
        ):
            shutil.copyfileobj(source, target)


def remote_loop(fs: fsspec.AbstractFileSystem, files: Sequence[InputFile], to: Path) -> None:
    """Get object by object, as one would write it down first."""
    to.mkdir()
    for file in files:
        fs.get_file(file.url, str(to / Path(file.url).name))


def remote_list(fs: fsspec.AbstractFileSystem, files: Sequence[InputFile], to: Path) -> None:
    """Get all objects by one call of fsspec, which asks for many at once and verifies nothing."""
    to.mkdir()
    fs.get([file.url for file in files], [str(to / Path(file.url).name) for file in files])


def program(*words: str | Path) -> None:
    subprocess.run(words, check=True)


def rsync(source: Path) -> list[Way]:
    """Return rsync as a way, where there is one."""
    if shutil.which("rsync") is None:
        return []
    return [Way("rsync", lambda to: program("rsync", "-a", f"{source}/", f"{to}/"))]


def best_of(ways: Sequence[Way], folder: Path, repeat: int) -> dict[str, Cost]:
    """Go each way in turn, several times; return the least cost of each."""
    best = {way.name: Cost(float("inf"), float("inf")) for way in ways}
    for _ in range(repeat):
        for way in ways:
            to = folder / "to"
            os.sync()  # what was written before is no burden for who writes next
            cpu_s, started = -sum(os.times()[:4]), time.perf_counter()
            way.bring(to)
            wall_s, cpu_s = time.perf_counter() - started, cpu_s + sum(os.times()[:4])
            best[way.name] = Cost(min(best[way.name].wall_s, wall_s), min(best[way.name].cpu_s, cpu_s))
            clear_folder(to)
    return best


def show(title: str, unit: str, amount: float, best: dict[str, Cost]) -> dict[str, float]:
    """Print and return how much comes in a second."""
    print(f"{title:>34}  {unit:>14}  {'CPU s':>8}")
    for name, cost in best.items():
        print(f"{name:>34}  {amount / cost.wall_s:>14,.0f}  {cost.cpu_s:>8.2f}")
    return {name: round(amount / cost.wall_s, 1) for name, cost in best.items()}


if __name__ == "__main__":
    main()
