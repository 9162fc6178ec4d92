"""All that is known of one dataset: what it is, where it is, what made it and from what, who shows it."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any
from uuid import UUID

import polars as pl
from loadmaster_registry import holdings
from loadmaster_registry.records import DatasetType
from loadmaster_registry.snapshot import Snapshot
from loadmaster_staging.backbone import Backbone

from .tables import Table, format_bytes, frame_rows

_ELSEWHERE = "not in this registry"
_MADE = ("task", "status", "started", "ended", "host", "sandbox", "software")
_DIGESTS = ("code_digest", "config_digest", "environment_digest")


def dataset_facts(now: Snapshot, backbone: Backbone, id: UUID) -> dict[str, Any]:
    """Return what the registry says of a dataset, as plain values.

    Raises
    ------
    NotFound
        If there is no such dataset.
    """
    found = now.find(id)
    type = now.dataset_type(found.type)
    number = now.known(pl.Series([id.bytes], dtype=pl.Binary))["dataset"]
    row = holdings.stored(now, number).row(0, named=True)
    return {
        "id": str(id),
        "dataset_type": found.type,
        "data_id": dict(zip(type.dimensions.required, found.data_id, strict=True)),
        "run": found.run,
        "collections": holdings.holders(now, number)["collection"].to_list(),
        **_file_facts(backbone, type, row),
        "parts": _places(backbone, now.parts(number)),
        "copies": _places(backbone, now.copies(number)),
        "quantum": _quantum_facts(now, row["quantum"]),
        **_lineage_facts(now, id),
    }


def dataset_table(facts: Mapping[str, Any]) -> Table:
    """Make a table with a line for each fact."""
    data_id = " ".join(f"{name}={value}" for name, value in facts["data_id"].items())
    return Table(("what", ""), tuple(_lines(facts)), f"{facts['dataset_type']} {data_id}".rstrip())


def _file_facts(backbone: Backbone, type: DatasetType, row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "storage_class": type.storage_class,
        "url": None if row["url"] is None else backbone.url(row["url"]),
        "size_bytes": row["size_bytes"],
        "checksum": row["checksum"],
        "content": row["content"] or row["checksum"],
        "created": row["created"],
    }


def _places(backbone: Backbone, files: pl.DataFrame) -> list[dict[str, Any]]:
    rows = frame_rows(files.drop("dataset"))
    return [{**row, "url": backbone.url(str(row["url"]))} for row in rows]


def _quantum_facts(now: Snapshot, quantum: bytes | None) -> dict[str, Any] | None:
    if quantum is None:
        return None
    id = UUID(bytes=quantum)
    recorded = now.recorded_quanta(id=id)
    facts = frame_rows(recorded)[0] if recorded.height else {}
    return {"id": str(id), **{name: facts.get(name) for name in (*_MADE, *_DIGESTS)}}


def _lineage_facts(now: Snapshot, id: UUID) -> dict[str, dict[str, int]]:
    """Return by dataset type how many datasets it was made from, and how many were made from it."""
    return {
        way: dict(
            Counter(
                name or _ELSEWHERE for name in now.lineage(id, upstream=way == "made_from")["dataset_type"]
            )
        )
        for way in ("made_from", "used_in")
    }


def _lines(facts: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    size = facts["size_bytes"]
    yield "id", facts["id"]
    yield "run", facts["run"]
    yield "shown by", ", ".join(facts["collections"])
    yield "format", facts["storage_class"]
    yield "file", facts["url"] or "none"
    yield "size", "" if size is None else f"{format_bytes(size)} ({size} bytes)"
    yield "checksum", facts["checksum"] or ""
    yield "content", facts["content"] or ""
    yield "registered", facts["created"] or ""
    for kind, name in (("parts", "name"), ("copies", "destination")):
        for place in facts[kind]:
            yield f"{kind}: {place[name]}", place["url"]
    yield from _quantum_lines(facts["quantum"])
    for words, way in (("made from", "made_from"), ("used in", "used_in")):
        yield words, ", ".join(f"{n} {name}" for name, n in facts[way].items()) or "nothing"


def _quantum_lines(quantum: Mapping[str, Any] | None) -> Iterator[tuple[str, str]]:
    if quantum is None:
        yield "quantum", "none: it came from outside"
        return
    yield "quantum", quantum["id"]
    for name in (*_MADE, *_DIGESTS):
        if quantum[name] is not None:
            yield name.removesuffix("_digest"), quantum[name]
