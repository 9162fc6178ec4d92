"""Files in a store that fsspec opens: published by one act of the store that fails if the name is taken.

What the store can do is asked of the store itself, once: whether it copies under a condition (S3), or at least writes
under one. Only where it does neither is there a look first, and an instant between the look and the copy.
"""

import errno
import secrets
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import IO, TYPE_CHECKING
from urllib.parse import quote

from .checksum import algorithm_of, measure, pour
from .location import as_os_errors, remote

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

_IN_MEMORY_BYTES = 64 << 20  # what is smaller passes through memory, and needs one request each way
_TOO_LARGE = ("InvalidRequest", "EntityTooLarge")  # to be copied in one request: 5 GiB in Amazon's store
_PART_BYTES = 512 << 20
_PARTS_AT_ONCE = 8
_TRIES = 6  # where the store says that another conditional write is under way
_FIRST_WAIT_S = 0.05
_MARK = "staged"  # metadata of an object: from where it was published, which tells ours from another with equal bytes

# Brings `source` to `target` of one file system with a mark; FileExistsError if the name is taken.
_Way = Callable[["AbstractFileSystem", str, str, str], None]


class ObjectStore:
    """Files below `root_url`; all places are URLs. See `backbone._Store`."""

    def __init__(self, root_url: str) -> None:
        self._root_url = root_url
        self._way: _Way | None = None

    def create(self, staged: str, final: str, resumed_checksum: str) -> bool:
        """Make `staged` visible at `final`; False if another file is there."""
        with as_os_errors():
            (fs, source), (_, target) = remote(staged), remote(final)
            try:
                self._best_way(fs, source)(fs, source, target, self._mark(staged))
            except FileExistsError:
                return _is_ours(fs, final, self._mark(staged), resumed_checksum)
            except FileNotFoundError:  # freed after it was published, or lost
                if not self.exists(final):
                    raise
                return _is_ours(fs, final, self._mark(staged), resumed_checksum)
        return True

    def withdraw(self, staged: str, final: str, checksum: str) -> None:
        """Remove `final` if it is what `create(staged, final)` made, and `staged` before it."""
        self.remove(staged)
        with as_os_errors():
            fs, target = remote(final)
            if self.exists(final) and _is_ours(fs, final, self._mark(staged), checksum):
                fs.rm_file(target)

    def exists(self, url: str) -> bool:
        """Whether there is a file."""
        with as_os_errors():
            fs, path = remote(url)
            try:
                return bool(fs.info(path)["type"] == "file")
            except FileNotFoundError:
                return False

    def open(self, url: str) -> IO[bytes]:
        """Open for reading."""
        with as_os_errors():
            fs, path = remote(url)
            stream: IO[bytes] = fs.open(path, "rb")
            return stream

    def create_staged(self, url: str) -> IO[bytes]:
        """Open a new file of the staging area for writing."""
        with as_os_errors():
            fs, path = remote(url)
            stream: IO[bytes] = fs.open(path, "wb")
            return stream

    def names(self, folder: str) -> list[str]:
        """Return the files below a folder, by their paths below it."""
        fs, path = remote(folder)
        return _names(fs, f"{path.rstrip('/')}/", fs.find, path)

    def names_after(self, prefix: str) -> list[str]:
        """Return how the names of those files go on whose URL begins with `prefix`, in the same folder."""
        folder, _, begin = prefix.rpartition("/")
        fs, path = remote(folder)
        if hasattr(fs, "call_s3"):  # it lists by prefix
            return _names(fs, f"{path}/{begin}", lambda path: fs.find(path, prefix=begin), path)
        return _names(fs, f"{path.rstrip('/')}/{begin}", fs.find, path)

    def remove(self, url: str) -> None:
        """Remove a file or a whole folder, if it is there, and what killed processes had begun to send there."""
        with as_os_errors():
            fs, path = remote(url)
            with suppress(FileNotFoundError):
                if fs.info(path)["type"] == "file":
                    fs.rm_file(path)
                    return
                for name in self.names(url):
                    with suppress(FileNotFoundError):
                        fs.rm_file(f"{path}/{name}")
            _abort_uploads(fs, f"{path}/")

    def _mark(self, staged: str) -> str:
        return quote(staged.removeprefix(f"{self._root_url}/"))

    def _best_way(self, fs: "AbstractFileSystem", staged: str) -> _Way:
        if self._way is None:
            ways = (_copied_by_the_store, _written) if hasattr(fs, "call_s3") else (_written,)
            folder = staged.rpartition("/")[0]  # so that whoever sweeps it takes along what is left of this
            self._way = next((way for way in ways if _is_exclusive(fs, way, folder)), _looked_and_copied)
        return self._way


def _is_exclusive(fs: "AbstractFileSystem", way: _Way, folder: str) -> bool:
    """Whether the store refuses a name that is taken, if it is asked in this way; many stores just overwrite."""
    source, target = (f"{folder}/probe.{secrets.token_hex(8)}-{end}" for end in "ab")
    try:
        fs.pipe_file(source, b"probe")
    except FileNotFoundError as error:  # of the whole bucket: not to be taken for a file's
        raise OSError(errno.ENXIO, str(error)) from error
    try:
        way(fs, source, target, "probe")
        way(fs, source, target, "probe")
    except FileExistsError:
        return True
    except (NotImplementedError, TypeError, ValueError):
        return False
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.ENOTSUP, errno.EINVAL):
            raise
        return False
    else:
        return False
    finally:
        for path in (source, target):
            with suppress(FileNotFoundError):
                fs.rm_file(path)


def _copied_by_the_store(fs: "AbstractFileSystem", source: str, target: str, mark: str) -> None:
    """Let S3 copy: no byte passes through this machine."""
    from_bucket, from_key, _ = fs.split_path(source)
    bucket, key, _ = fs.split_path(target)
    origin, place = {"Bucket": from_bucket, "Key": from_key}, {"Bucket": bucket, "Key": key}
    marked = {"Metadata": {_MARK: mark}}
    call = {"CopySource": origin, "IfNoneMatch": "*", "MetadataDirective": "REPLACE"}
    try:
        _conditional(lambda: fs.call_s3("copy_object", **place, **call, **marked))
    except OSError as error:
        if _code(error) not in _TOO_LARGE:
            raise
        _copied_in_parts(fs, origin, place, marked, int(fs.info(source)["size"]))


def _copied_in_parts(
    fs: "AbstractFileSystem",
    origin: dict[str, str],
    place: dict[str, str],
    marked: dict[str, dict[str, str]],
    size_bytes: int,
) -> None:
    upload = {**place, "UploadId": fs.call_s3("create_multipart_upload", **place, **marked)["UploadId"]}

    def part(number: int) -> dict[str, object]:
        begin = (number - 1) * _PART_BYTES
        range = f"bytes={begin}-{min(begin + _PART_BYTES, size_bytes) - 1}"
        call = {"CopySource": origin, "CopySourceRange": range, "PartNumber": number}
        done = fs.call_s3("upload_part_copy", **upload, **call)
        return {"PartNumber": number, "ETag": done["CopyPartResult"]["ETag"]}

    try:
        with ThreadPoolExecutor(_PARTS_AT_ONCE) as pool:
            parts = list(pool.map(part, range(1, -(-size_bytes // _PART_BYTES) + 1)))
        call = {"MultipartUpload": {"Parts": parts}, "IfNoneMatch": "*"}
        _conditional(lambda: fs.call_s3("complete_multipart_upload", **upload, **call))
    except BaseException:
        with suppress(Exception):  # what is told is why it was broken off
            fs.call_s3("abort_multipart_upload", **upload)
        raise


def _written(fs: "AbstractFileSystem", source: str, target: str, mark: str) -> None:
    """Write what was read, under the condition that nothing is there."""
    marked = {"Metadata": {_MARK: mark}} if hasattr(fs, "call_s3") else {}
    if fs.info(source)["size"] <= _IN_MEMORY_BYTES:
        content = fs.cat_file(source)
        _conditional(lambda: fs.pipe_file(target, content, mode="create", **marked))
        return

    def stream() -> None:
        with fs.open(source, "rb") as reader:
            pour(reader, fs.open(target, "xb", **marked))

    _conditional(stream)


def _looked_and_copied(fs: "AbstractFileSystem", source: str, target: str, mark: str) -> None:
    if fs.exists(target):
        raise FileExistsError(errno.EEXIST, "the name is taken", target)
    fs.cp_file(source, target)


def _conditional(act: Callable[[], object]) -> None:
    """Do what has a condition; FileExistsError where it does not hold, in whatever words the store says so."""
    for attempt in range(_TRIES):
        try:
            act()
        except OSError as error:
            code = _code(error)
            if code in ("PreconditionFailed", "412"):
                raise FileExistsError(errno.EEXIST, "the name is taken") from error
            # Another conditional write to this name is under way: it may yet fail.
            if code != "ConditionalRequestConflict" or attempt == _TRIES - 1:
                raise
            time.sleep(_FIRST_WAIT_S * 2**attempt)
        else:
            return


def _code(error: BaseException) -> str:
    """Return what S3 calls an error."""
    response = getattr(error.__cause__, "response", None) or {}
    return str(response.get("Error", {}).get("Code", ""))


def _is_ours(fs: "AbstractFileSystem", url: str, mark: str, checksum: str) -> bool:
    """Whether what is published was published from what has this mark; where stores keep no marks: has its bytes."""
    if hasattr(fs, "call_s3"):
        return bool(fs.metadata(remote(url)[1]).get(_MARK) == mark)
    return bool(checksum) and measure(url, algorithm_of(checksum)).checksum == checksum


def _names(fs: "AbstractFileSystem", begin: str, find: Callable[[str], list[str]], path: str) -> list[str]:
    with as_os_errors():
        try:
            found = find(path)
        except FileNotFoundError:
            return []
    return sorted(name[len(begin) :] for name in found if name.startswith(begin) and not name.endswith("/"))


def _abort_uploads(fs: "AbstractFileSystem", begin: str) -> None:
    """Give up uploads below a folder that nobody will finish; they cost like what is stored, and are not listed."""
    if not hasattr(fs, "call_s3"):
        return
    bucket, key, _ = fs.split_path(begin)
    for upload in fs.call_s3("list_multipart_uploads", Bucket=bucket, Prefix=key).get("Uploads", ()):
        with suppress(FileNotFoundError):
            fs.call_s3(
                "abort_multipart_upload", Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"]
            )
