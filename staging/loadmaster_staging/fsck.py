"""The registry against the backbone, both ways: what is missing, damaged, or known to nobody; and what can be mended.

One listing of the backbone, one reading of the registry, joined by columns. The listing comes first: what was
registered after it is looked at again, what was published before it and is not registered yet is young.
"""

import os
import secrets
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from io import BytesIO

import polars as pl
from loadmaster_registry import holdings
from loadmaster_registry.errors import StageError
from loadmaster_registry.store import Registry

from .backbone import STAGING_FOLDER, Backbone
from .checksum import Measured, algorithm_of, copy, measure
from .inventory import each, listing, move_aside, size_of
from .location import as_os_errors, join, remote
from .shards import piece_of, read_piece

GRACE_S = 3600.0  # a file without a row that is younger may be on its way into the registry
_UNREACHABLE, _UNTOLD = -1, -2  # in place of a size
_RANGE = r"^(.*)#(\d+)\+(\d+)$"  # a part of a file that several datasets share


@dataclass(frozen=True)
class Findings:
    """What a check found."""

    n_files: int  # that the registry records
    n_bytes: int  # of those whose size it knows
    n_read: int  # read through, for their checksums
    n_young: int  # without a row, and perhaps on their way into the registry
    problems: pl.DataFrame  # kind, dataset_type, run, id, part, url, size_bytes, checksum, found, repair


def check(
    registry: Registry, backbone: Backbone, *, deep: bool = False, grace_s: float = GRACE_S
) -> Findings:
    """Compare the registry with the backbone.

    Parameters
    ----------
    deep : bool
        Read every file with a recorded checksum through and compare, too.
    grace_s : float
        How old a file without a row must be to count as an orphan.

    Returns
    -------
    findings : Findings
        Problems are of kind ``missing``, ``wrong_size``, ``wrong_checksum``, ``unreadable`` (in all of which
        the file is recorded), and ``orphan``.
    """
    there = listing(backbone.root_url)
    with registry.snapshot() as now:
        recorded = _ranged(holdings.files(now))
        trashed = holdings.trash(now)["url"]
    own = recorded.filter("is_own").join(there.rename({"size_bytes": "there"}), on="path", how="left")
    foreign = recorded.filter(~pl.col("is_own"))
    known = pl.concat([_looked_at_again(own, backbone), _looked_at(foreign.drop("is_own"), backbone)])
    wrong = _wrong(known)
    sound = known.join(wrong, on=["dataset", "part"], how="anti")
    read = sound.filter(pl.col("checksum") != "") if deep else sound.clear()
    orphans = there.join(recorded, on="path", how="anti").filter(~pl.col("path").is_in(trashed.implode()))
    is_old = pl.col("changed_s") <= time.time() - grace_s
    lost = _still_there(orphans.filter(is_old), backbone)
    return Findings(
        n_files=recorded.height,
        n_bytes=int(recorded["size_bytes"].sum()),
        n_read=read.height,
        n_young=orphans.filter(~is_old).height,
        problems=pl.concat([_shown(wrong), _shown(_read_through(read, backbone)), _shown(lost)]),
    )


def repair(registry: Registry, backbone: Backbone, findings: Findings) -> Findings:
    """Mend what can be mended without losing a byte, and say in ``repair`` what was done or why nothing was.

    What is recorded and missing or damaged comes back from a copy at another destination that has the recorded
    checksum; the damaged file and orphans are moved aside, never removed.
    """
    ids = findings.problems["id"].drop_nulls().unique()
    with registry.snapshot() as now:
        copies = now.copies(now.known(ids)["dataset"]).join(now.known(ids), on="dataset")
    places: dict[bytes, list[str]] = {}
    for id, url in copies.select("id", "url").iter_rows():
        places.setdefault(id, []).append(url)
    rows = findings.problems.to_dicts()
    done = [_repaired(row, places.get(row["id"], []), backbone) for row in rows]
    problems = findings.problems.with_columns(repair=pl.Series(done, dtype=pl.String))
    return replace(findings, problems=problems)


def _ranged(files: pl.DataFrame) -> pl.DataFrame:
    """Tell the file of each URL, and where a range of it ends."""
    parts = pl.col("url").str.extract_groups(_RANGE).struct
    path = pl.coalesce(parts.field("1"), "url")
    is_own = ~(path.str.contains("://", literal=True) | path.str.starts_with("/"))
    ends = parts.field("2").cast(pl.Int64) + parts.field("3").cast(pl.Int64)
    return files.with_columns(
        pl.col("size_bytes").fill_null(-1),
        pl.col("checksum").fill_null(""),
        path=path,
        ends=ends,
        is_own=is_own,
    )


def _looked_at_again(own: pl.DataFrame, backbone: Backbone) -> pl.DataFrame:
    """Look at the files that the listing did not have: they may have come since."""
    own = own.drop("is_own", "changed_s")
    absent = own.filter(pl.col("there").is_null()).drop("there")
    return pl.concat([own.filter(pl.col("there").is_not_null()), _looked_at(absent, backbone)])


def _looked_at(files: pl.DataFrame, backbone: Backbone) -> pl.DataFrame:
    """Look at files one by one: ``there`` is their size, or what stands for it; null without a file."""
    paths = files["path"].unique(maintain_order=True)
    urls = [backbone.url(path) for path in paths]
    is_near = all("://" not in url for url in urls)
    sizes = each("/" if is_near else "memory://", _size, urls)
    found = pl.DataFrame({"path": paths, "there": pl.Series(sizes, dtype=pl.Int64)})
    return files.join(found, on="path", how="left", maintain_order="left")


def _size(url: str) -> int | None:
    try:
        size_bytes = size_of(url)
    except OSError:
        return _UNREACHABLE
    if size_bytes is None:
        return _UNTOLD
    return None if size_bytes < 0 else size_bytes


def _wrong(files: pl.DataFrame) -> pl.DataFrame:
    """Return the files that are not there, cannot be reached, or are not of the recorded size."""
    there, size = pl.col("there"), pl.col("size_bytes")
    is_whole = pl.col("ends").is_null()
    is_short = pl.when(is_whole).then((size >= 0) & (there != size)).otherwise(there < pl.col("ends"))
    kind = (
        pl.when(there.is_null())
        .then(pl.lit("missing"))
        .when(there == _UNREACHABLE)
        .then(pl.lit("unreadable"))
        .when(is_short & (there != _UNTOLD))
        .then(pl.lit("wrong_size"))
    )
    found = (
        pl.when(there.is_null())
        .then(pl.lit("no file"))
        .when(there == _UNREACHABLE)
        .then(pl.lit("its place cannot be reached"))
        .otherwise(pl.format("{} bytes", there))
    )
    return files.with_columns(kind=kind, found=found).filter(pl.col("kind").is_not_null())


def _read_through(files: pl.DataFrame, backbone: Backbone) -> pl.DataFrame:
    """Read files and return those whose bytes are not those that were recorded."""

    def found(url: str, checksum: str) -> tuple[str, str]:
        try:
            measured = _measured(backbone.url(url), algorithm_of(checksum))
        except (OSError, StageError) as error:
            return "unreadable", str(error)
        return ("", "") if measured.checksum == checksum else ("wrong_checksum", measured.checksum)

    with ThreadPoolExecutor(max(4, os.cpu_count() or 1)) as pool:
        answers = list(pool.map(found, files["url"], files["checksum"]))
    columns = {"kind": [kind for kind, _ in answers], "found": [what for _, what in answers]}
    read = files.with_columns(pl.DataFrame(columns, schema={"kind": pl.String, "found": pl.String}))
    return read.filter(pl.col("kind") != "")


def _measured(url: str, algorithm: str) -> Measured:
    """Read a file, or what a shard holds, and return size and checksum."""
    piece = piece_of(url)
    return measure(url, algorithm) if piece is None else copy(BytesIO(read_piece(piece)), None, algorithm)


def _still_there(orphans: pl.DataFrame, backbone: Backbone) -> pl.DataFrame:
    """Return the files without a row that nobody has removed in the meantime."""
    urls = [backbone.url(path) for path in orphans["path"]]
    is_there = [size is not None for size in each(backbone.root_url, _size, urls)]
    found = orphans.filter(pl.Series(is_there, dtype=pl.Boolean))
    return found.with_columns(
        kind=pl.lit("orphan"), found=pl.lit("no row in the registry"), url=pl.col("path")
    )


_SHOWN = {
    "kind": pl.String, "dataset_type": pl.String, "run": pl.String, "id": pl.Binary, "part": pl.String,
    "url": pl.String, "size_bytes": pl.Int64, "checksum": pl.String, "found": pl.String, "repair": pl.String,
}  # fmt: skip


def _shown(files: pl.DataFrame) -> pl.DataFrame:
    absent = [
        pl.lit(None, dtype=dtype).alias(name) for name, dtype in _SHOWN.items() if name not in files.columns
    ]
    return files.with_columns(absent).select(*_SHOWN).sort("url")


def _repaired(row: dict[str, object], copies: list[str], backbone: Backbone) -> str:
    kind, url = str(row["kind"]), str(row["url"])
    try:
        if kind == "orphan":
            return f"moved to {move_aside(backbone.root_url, url)}"
        if row["part"] or "#" in url or "://" in url or url.startswith("/"):
            return "nothing: no copy is recorded of parts, packed files and files elsewhere"
        if not row["checksum"]:
            return "nothing: without a recorded checksum no copy can be told from a wrong one"
        for copied in copies:
            if _restored(copied, url, str(row["checksum"]), kind, backbone):
                return f"restored from {copied}"
    except (OSError, StageError) as error:
        return f"failed: {error}"
    return "nothing: no copy has the recorded bytes; make it again, or restore it from a back-up"


def _restored(source: str, path: str, checksum: str, kind: str, backbone: Backbone) -> bool:
    """Bring the bytes from `source` to `path`, if they are those that are recorded."""
    staged = join(backbone.root_url, STAGING_FOLDER, f"fsck.{secrets.token_hex(8)}")
    try:
        if _brought(source, staged, algorithm_of(checksum)).checksum != checksum:
            return False
        if kind != "missing":
            move_aside(backbone.root_url, path)
        backbone.publish(staged, path)
    except FileNotFoundError:
        return False
    finally:
        backbone.remove_staged(staged)
    return True


@as_os_errors()
def _brought(source: str, target: str, algorithm: str) -> Measured:
    from_fs, from_path = remote(source)
    to_fs, to_path = remote(target)
    to_fs.makedirs(to_path.rsplit("/", 1)[0], exist_ok=True)
    with from_fs.open(from_path, "rb") as reader, to_fs.open(to_path, "wb") as writer:
        return copy(reader, writer, algorithm)
