"""Other places than the backbone that get copies of some datasets, each by itself: what goes where, and the going."""

import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from loadmaster_registry.errors import StageError

from .backbone import Backbone, NameTaken
from .checksum import algorithm_of
from .harvest import Harvested
from .location import staged

_FIRST_WAIT_S = 1.0
_LONGEST_WAIT_S = 300.0


@dataclass(frozen=True, slots=True)
class Destination:
    """A place for copies."""

    name: str
    url: str  # the folder below which they lie as they do below the backbone's root
    dataset_types: tuple[str, ...]  # globs of what goes there
    days: int | None = None  # how long they are kept; None: for good

    def wants(self, dataset_type: str) -> bool:
        """Whether datasets of a type go there."""
        return any(fnmatchcase(dataset_type, glob) for glob in self.dataset_types)


@dataclass(frozen=True, slots=True)
class File:
    """One file of a dataset."""

    source: str  # on the backbone
    path: str  # at the destination
    checksum: str


@dataclass(frozen=True, slots=True)
class Delivery:
    """One dataset that is to go to one destination; all its files arrive before it counts."""

    dataset: str  # its uuid
    destination: str
    files: tuple[File, ...]
    n_tries: int = 0
    due_s: float = 0.0  # not before, in seconds since 1970
    error: str = ""  # of the last try

    def failed(self, error: str, now_s: float) -> "Delivery":
        """Return it after a try that failed: the next one comes later each time."""
        wait_s = min(_FIRST_WAIT_S * 2**self.n_tries, _LONGEST_WAIT_S)
        return replace(self, n_tries=self.n_tries + 1, due_s=now_s + wait_s, error=error)

    def files_json(self) -> str:
        """Return the files as JSON; see `files_from_json`."""
        return json.dumps([[file.source, file.path, file.checksum] for file in self.files])


def files_from_json(text: str) -> tuple[File, ...]:
    """Read what `Delivery.files_json` wrote."""
    return tuple(File(*row) for row in json.loads(text))


def deliveries(harvested: Iterable[Harvested], destinations: Sequence[Destination]) -> list[Delivery]:
    """Return what is to go where of what came home."""
    if not destinations:
        return []
    return [
        Delivery(id, destination.name, files)
        for job in harvested
        if job.outcome in ("done", "partial")
        for id, dataset_type, files in _datasets(job)
        for destination in destinations
        if destination.wants(dataset_type)
    ]


def deliver(delivery: Delivery, backbone: Backbone, destination: Destination, run: str) -> None:
    """Bring the files of a dataset to a destination, verified on the way, and over nothing.

    Done again it finds them there.

    Raises
    ------
    StageError
        If they cannot be brought there now, or another file has the name.
    """
    there = Backbone(destination.url)
    for file in delivery.files:
        place = staged(there.staging_url(run, delivery.dataset), file.path.rpartition("/")[2])
        try:
            _stage(file, backbone, there, place)
            _publish(file, there, place)
        except BaseException:
            with suppress(StageError):  # the first error says more
                there.remove_staged(place)
            raise
        there.remove_staged(place)


def _datasets(job: Harvested) -> Iterable[tuple[str, str, tuple[File, ...]]]:
    declared = {file.dataset_id: file for quantum in job.manifest.quanta for file in quantum.deliverables}
    files: dict[str, list[File]] = {}
    for quantum in job.report.quanta:
        for made in sorted(quantum.outputs, key=lambda made: made.part):  # the dataset's own file first
            planned = declared[made.dataset_id]
            path = planned.parts[made.part] if made.part else planned.path
            source = path if made.part else job.packed.get(made.dataset_id, path)
            file = File(source, path, made.checksum)
            files.setdefault(made.dataset_id, []).append(file)
    return [(id, declared[id].dataset_type, tuple(found)) for id, found in files.items()]


def _stage(file: File, backbone: Backbone, there: Backbone, place: str) -> None:
    with backbone.open(file.source) as reader:
        measured = there.stage(reader, place, algorithm_of(file.checksum))
    if measured.checksum != file.checksum:
        raise StageError(
            what=f"{file.path} is not on the backbone as it was recorded",
            where=backbone.url(file.source),
            why=f"its checksum is {measured.checksum}, {file.checksum} was recorded",
            todo="see what damaged it: loadmaster fsck --deep",
        )


def _publish(file: File, there: Backbone, place: str) -> None:
    try:
        there.publish(place, file.path)
    except NameTaken:  # by what an interrupted delivery left, perhaps
        if there.measure(file.path, algorithm_of(file.checksum)).checksum != file.checksum:
            raise
