"""How a file of this machine comes into another folder without its bytes moving: reflink, hard or symbolic link.

Light: the job runner imports this.
"""

import fcntl
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Literal

Means = Literal["reflink", "hard link", "symbolic link", "copy"]
_FICLONE = 0x40049409  # linux/fs.h: the new file shares the blocks until one of the two is written to
_SEPARATOR = "\n"


class Links:
    """Which means work from one file system to another: found by trying, the closest first, and remembered.

    Parameters
    ----------
    folder : Path
        Where links are made.
    memory : Path, optional
        Folder in which the answers are kept, so that other processes need not try and people can read them.
    """

    def __init__(self, folder: Path, memory: Path | None = None) -> None:
        self._folder = folder
        self._device = folder.stat().st_dev
        self._memory = memory
        self._known: dict[int, Means] = {}  # by the device that files come from

    def link(self, source: Path, target: Path) -> Means | None:
        """Make `target`, in the folder, from the file `source`; None if no link of any kind can be made there.

        Raises
        ------
        OSError
            If there is no such file, it cannot be read, or there is something at `target`.
        """
        status = source.lstat()
        if stat.S_ISLNK(status.st_mode):
            source = source.resolve()  # a link to a link would hang on both
            status = source.stat()
        known = self._known.get(status.st_dev)
        if known is not None and _is_made(known, source, target):
            return known
        return self._tried(status.st_dev, source, target)

    def _tried(self, device: int, source: Path, target: Path) -> Means | None:
        """Try one means after the other; what works for the first file of a file system will for others."""
        pair = device, self._device
        recalled = None if device in self._known else self._recalled(pair)
        for means in [*([recalled] if recalled else []), *_BY_MEANS]:
            if _is_made(means, source, target):
                if self._known.setdefault(device, means) == means != recalled:
                    self._remember(pair, means, source.parent)
                return means
        return None

    def _recalled(self, pair: tuple[int, int]) -> Means | None:
        if self._memory is None:
            return None
        with suppress(OSError):
            means = self._place(self._memory, pair).read_text().partition(_SEPARATOR)[0]
            return means if means in _BY_MEANS else None
        return None

    def _remember(self, pair: tuple[int, int], means: Means, source: Path) -> None:
        if self._memory is None:
            return
        with suppress(OSError):  # it is tried again then
            self._memory.mkdir(parents=True, exist_ok=True)
            part = self._memory / f"{os.getpid()}.part"
            part.write_text(_SEPARATOR.join((means, str(source), str(self._folder))))
            part.rename(self._place(self._memory, pair))

    @staticmethod
    def _place(memory: Path, pair: tuple[int, int]) -> Path:
        """Return where an answer is kept: numbers of file systems mean something on one machine only."""
        return memory / f"{os.uname().nodename}.{pair[0]}.{pair[1]}.link"


def remembered(memory: Path) -> Iterator[tuple[Means, str, str]]:
    """Go through what is remembered: the means, and the folders from and to which it was tried first."""
    for path in sorted(memory.glob("*.link")):
        means, source, target = path.read_text().split(_SEPARATOR)
        yield means, source, target  # type: ignore[misc]


def _is_made(means: Means, source: Path, target: Path) -> bool:
    try:
        _BY_MEANS[means](source, target)
    except (FileNotFoundError, FileExistsError):
        raise
    except OSError:
        return False
    return True


def _reflink(source: Path, target: Path) -> None:
    with open(source, "rb", buffering=0) as reader:
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o444)
        try:
            fcntl.ioctl(descriptor, _FICLONE, reader.fileno())
        except OSError:
            target.unlink()
            raise
        finally:
            os.close(descriptor)


def _symbolic_link(source: Path, target: Path) -> None:
    source.stat()  # a symbolic link to nothing would be made without complaint
    target.symlink_to(source)


_BY_MEANS: dict[Means, Callable[[Path, Path], None]] = {
    "reflink": _reflink,
    "hard link": os.link,
    "symbolic link": _symbolic_link,
}
