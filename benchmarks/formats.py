"""What each format costs: bytes, seconds to write and read, and what a part of it costs beside the whole.

    python benchmarks/formats.py [--pixels 4000] [--rows 200000] [--columns 200]

Seconds are the least of several rounds, of the process's CPU; bytes read are those that the kernel counted.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from astropy.nddata import CCDData
from loadmaster_pipelines import storage
from loadmaster_pipelines.formats import Recipe

IMAGES: dict[str, tuple[str, dict[str, Any]]] = {
    "fits": (".fits", {}),
    "fits GZIP_2": (".fits", {"compression": "GZIP_2", "tile": [256, 256]}),
    "fits RICE_1 quantize 16": (".fits", {"compression": "RICE_1", "quantize": 16.0, "tile": [256, 256]}),
    "hdf5": (".h5", {}),
    "hdf5 gzip": (".h5", {"compression": "gzip", "level": 4, "tile": [256, 256]}),
}
TABLES: dict[str, tuple[str, dict[str, Any]]] = {
    "parquet": (".parq", {}),
    "parquet snappy": (".parq", {"compression": "snappy"}),
    "parquet zstd 9": (".parq", {"compression": "zstd", "level": 9}),
}


def main() -> None:
    """Measure, print a table, and the same as one line of JSON."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("--pixels", type=int, default=4000, help="of a side of the image")
    arguments.add_argument("--rows", type=int, default=200_000)
    arguments.add_argument("--columns", type=int, default=200)
    asked = arguments.parse_args()
    rng = np.random.default_rng(0)
    image = CCDData(rng.normal(1000, 5, (asked.pixels, asked.pixels)).astype("f4"), unit="adu")
    frame = pl.DataFrame({f"c{n}": rng.random(asked.rows) for n in range(asked.columns)})
    corner = asked.pixels // 2
    box = np.s_[corner : corner + 500, corner : corner + 500]
    found = [
        measured(name, image, "ExposureF", *how, {"box": box}, image.data[box].nbytes)
        for name, how in IMAGES.items()
    ]
    found += [
        measured(name, frame, "DataFrame", *how, {"columns": ["c1", "c2"]}, 16 * asked.rows)
        for name, how in TABLES.items()
    ]
    show(found)
    print(
        json.dumps({"pixels": asked.pixels, "rows": asked.rows, "columns": asked.columns, "formats": found})
    )


def measured(
    name: str,
    obj: Any,
    storage_class: str,
    extension: str,
    options: dict[str, Any],
    part: dict[str, Any],
    part_bytes: int,
) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"a{extension}"
        write_s, _ = cost(lambda: rewritten(obj, storage_class, path, Recipe(options)))
        read_s, _ = cost(lambda: storage.read(storage_class, path))
        part_s, part_read = cost(lambda: storage.read(storage_class, path, parameters=part))
        return {
            "format": name,
            "bytes": path.stat().st_size,
            "write_s": write_s,
            "read_s": read_s,
            "part_s": part_s,
            "part_read_bytes": part_read,
            "part_bytes": part_bytes,
        }


def rewritten(obj: Any, storage_class: str, path: Path, recipe: Recipe) -> None:
    path.unlink(missing_ok=True)
    storage.write(obj, storage_class, path, recipe=recipe)


def cost(act: Callable[[], Any], rounds: int = 3) -> tuple[float, int]:
    """Return the least CPU seconds, and the bytes that the last round read."""
    least = float("inf")
    for _ in range(rounds):
        before, started = bytes_read(), time.process_time()
        act()
        least = min(least, time.process_time() - started)
    return round(least, 4), bytes_read() - before


def bytes_read() -> int:
    return int(Path("/proc/self/io").read_text().split()[1])


def show(found: list[dict[str, Any]]) -> None:
    print(
        f"{'format':26}{'MiB':>9}{'write s':>9}{'read s':>9}{'part s':>9}{'part read MiB':>15}{'of MiB':>9}"
    )
    for row in found:
        sizes = (row[key] / 2**20 for key in ("bytes", "part_read_bytes", "part_bytes"))
        size, part_read, part = sizes
        print(
            f"{row['format']:26}{size:9.1f}{row['write_s']:9.2f}{row['read_s']:9.2f}{row['part_s']:9.3f}"
            f"{part_read:15.2f}{part:9.2f}"
        )


if __name__ == "__main__":
    main()
