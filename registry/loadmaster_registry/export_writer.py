"""The text of an export file, as Rubin's reader and ours take it."""

import base64
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any
from uuid import UUID

import numpy as np

from .export import Export, RunDatasets
from .export_file import REGION_CLASSES
from .records import Collection, CollectionType, DatasetType
from .timespan import MAX_NS, MIN_NS, Timespan
from .universe import Element, Universe

_UNPRINTABLE = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")


def export_text(export: Export, universe: Universe) -> Iterator[str]:
    """Yield the lines of an export file."""
    yield "description: Loadmaster export\n"
    yield "version: 1.0.2\n"
    yield f"universe_version: {universe.version}\n"
    yield f"universe_namespace: {_text(universe.namespace)}\n"
    yield "data:\n"
    for name, rows in export.records.items():
        yield from _records(universe.elements[name], rows.to_dict(as_series=False))
    for type in export.dataset_types:
        yield from _dataset_type(type)
    for collection in export.collections:
        yield from _collection(collection)
    for datasets in export.datasets:
        yield from _datasets(datasets)
    for name, ids in export.tags:
        yield from _block("associations", collection=_text(name), collection_type="TAGGED")
        yield f"  dataset_ids: {_ids(ids)}\n"
    yield from _all_ranges(export.ranges)


def _records(element: Element, columns: Mapping[str, list[Any]]) -> Iterator[str]:
    yield from _block("dimension", element=element.name)
    yield "  records:\n"
    names = {element.name: element.key.name} if element.key else {}
    names |= {"timespan_begin": "datetime_begin", "timespan_end": "datetime_end"}
    writers: list[tuple[str, Callable[[Any], str]]] = [
        (names.get(name, name), _writer(name)) for name in columns
    ]
    for values in zip(*columns.values(), strict=True):
        named = zip(writers, values, strict=True)
        yield from _record((name, write(v)) for (name, write), v in named if v is not None)


def _dataset_type(type: DatasetType) -> Iterator[str]:
    yield from _block(
        "dataset_type",
        name=_text(type.name),
        dimensions=_list(type.dimensions.names),
        storage_class=_text(type.storage_class),
        is_calibration=_value(type.is_calibration),
    )


def _collection(c: Collection) -> Iterator[str]:
    keys = {"collection_type": c.type.value, "name": _text(c.name)}
    if c.doc:
        keys["doc"] = _text(c.doc)
    if c.type is CollectionType.RUN:
        keys |= {"host": "null", "timespan_begin": "null", "timespan_end": "null"}
    if c.type is CollectionType.CHAINED:
        keys["children"] = _list(c.children)
    yield from _block("collection", **keys)


def _datasets(datasets: RunDatasets) -> Iterator[str]:
    yield from _block("dataset", dataset_type=_text(datasets.dataset_type), run=_text(datasets.run))
    yield "  records:\n"
    for row in datasets.rows.iter_rows(named=True):
        id, path = row.pop("id"), row.pop("url")
        # Rubin's reader passes over them.
        ours = {name: row.pop(name, None) for name in ("size_bytes", "checksum", "content")}
        data_id = ", ".join(f"{d}: {_value(v)}" for d, v in row.items())
        keys = {"dataset_id": f"[{_uuid(UUID(bytes=id))}]", "data_id": f"[{{{data_id}}}]"}
        facts = {"path": path, **ours}
        keys |= {name: _value(fact) for name, fact in facts.items() if fact is not None}
        yield from _record(keys.items())


def _all_ranges(ranges: Sequence[tuple[str, Timespan, tuple[UUID, ...]]]) -> Iterator[str]:
    """Write one block a collection, in which a time span stands once: Rubin's reader keeps the last only."""
    found: dict[str, dict[Timespan, list[UUID]]] = {}
    for collection, timespan, ids in ranges:
        found.setdefault(collection, {}).setdefault(timespan, []).extend(ids)
    for collection, by_span in found.items():
        yield from _block("associations", collection=_text(collection), collection_type="CALIBRATION")
        yield "  validity_ranges:\n"
        for timespan, some in by_span.items():
            yield "  - timespan: !lsst.daf.butler.Timespan\n"
            yield f"      begin: {_time(timespan.begin_ns)}\n      end: {_time(timespan.end_ns)}\n"
            yield f"    dataset_ids: {_ids(some)}\n"


def _block(type: str, **keys: str) -> Iterator[str]:
    yield f"- type: {type}\n"
    for name, text in keys.items():
        yield f"  {name}: {text}\n"


def _record(pairs: Iterable[tuple[str, str]]) -> Iterator[str]:
    mark = "-"
    for name, text in pairs:
        yield f"  {mark} {name}: {text}\n"
        mark = " "


def _writer(name: str) -> Callable[[Any], str]:
    if name == "region":
        return _region
    return _time if name.startswith("timespan_") else _value


def _value(value: Any) -> str:
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, bytes):
        return f"!!binary {_text(base64.b64encode(value).decode())}"
    return _float(value) if isinstance(value, float) else str(value)


def _float(value: float) -> str:
    if not np.isfinite(value):
        return {"inf": ".inf", "-inf": "-.inf"}.get(repr(value), ".nan")
    mantissa, e, exponent = repr(value).partition("e")
    return f"{mantissa}.0e{exponent}" if e and "." not in mantissa else repr(value)  # YAML 1.1 wants the dot


def _text(value: str) -> str:
    """Quote a text: JSON's strings are YAML's but for what YAML does not take as it is."""
    return _UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(value, ensure_ascii=False))


def _list(names: Sequence[str]) -> str:
    return f"[{', '.join(map(_text, names))}]"


def _time(ns: int) -> str:
    if ns in (MIN_NS, MAX_NS):
        return "null"
    text = str(np.datetime_as_string(np.datetime64(ns, "ns"))).replace("T", " ")
    return f"!butler_time/tai/iso '{text}'"


def _region(encoded: bytes) -> str:
    name = REGION_CLASSES[encoded[:1].decode("latin1")]
    return f"!<lsst.sphgeom.{name}>\n      encoded: '{encoded.hex()}'"


def _uuid(id: UUID) -> str:
    return f"!uuid '{id}'"


def _ids(ids: Sequence[UUID]) -> str:
    return f"[{', '.join(map(_uuid, ids))}]"
