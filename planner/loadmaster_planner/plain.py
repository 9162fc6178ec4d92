"""What was asked for as plain JSON values, and back: bound values, small tables, what is said of jobs."""

import base64
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import polars as pl
from loadmaster_pipelines.batch import Cluster, Clustering, Order
from loadmaster_pipelines.pipeline import Pipeline
from loadmaster_pipelines.resources import ResourceRequest, Resources
from loadmaster_registry.literals import Constant, bound_constant
from loadmaster_registry.times import time_of
from loadmaster_registry.timespan import Timespan
from lsst.sphgeom import Region


def bind_to_json(bind: Mapping[str, object]) -> dict[str, Any]:
    """Return JSON for values bound to an expression.

    Raises
    ------
    QueryError
        If a value of this kind cannot be in an expression.
    """
    found = {}
    for name, value in sorted(bind.items()):
        constant = bound_constant(name, value)
        found[name] = [*map(_plain, constant)] if isinstance(constant, tuple) else _plain(constant)
    return found


def bind_from_json(values: Mapping[str, Any]) -> dict[str, object]:
    """Return values that stand for the same as those that `bind_to_json` was given."""
    return {
        name: [_value(v) for v in value] if isinstance(value, list) else _value(value)
        for name, value in values.items()
    }


def frame_to_json(frame: pl.DataFrame) -> dict[str, Any]:
    """Return JSON for a small table of numbers and texts."""
    return {
        name: {"type": str(frame.schema[name]), "values": frame[name].to_list()} for name in frame.columns
    }


def frame_from_json(columns: Mapping[str, Any]) -> pl.DataFrame:
    """Read what `frame_to_json` wrote."""
    return pl.DataFrame(
        [pl.Series(name, c["values"], dtype=getattr(pl, c["type"])) for name, c in columns.items()]
    )


def _plain(constant: Constant) -> Any:
    match constant.value:
        case Timespan() as span:
            return {"span_ns": [span.begin_ns, span.end_ns]}
        case Region() as region:
            return {"region": base64.b64encode(region.encode()).decode()}
        case value if constant.type == "time":
            return {"time_ns": value}
        case value:
            return value


def _value(plain: Any) -> object:
    if not isinstance(plain, dict):
        return plain
    ((kind, value),) = plain.items()
    if kind == "span_ns":
        return Timespan(*value)
    return time_of(value) if kind == "time_ns" else Region.decode(base64.b64decode(value))


def clustering_to_json(clustering: Clustering, pipeline: Pipeline) -> dict[str, Any]:
    """Return JSON for what was said of the jobs of `pipeline`, and what its tasks themselves ask for."""
    known = asdict(clustering.of(pipeline))
    for entry in (known, *known["clusters"], *known["orders"]):
        del entry["places"]
    return {**known, "resources": {label: asdict(task.resources) for label, task in pipeline.tasks.items()}}


def clustering_from_json(values: Mapping[str, Any]) -> tuple[Clustering, dict[str, Resources]]:
    """Read what `clustering_to_json` wrote: the clustering, and the resources of tasks by label."""
    rest = dict(values)
    resources = {label: Resources(**r) for label, r in rest.pop("resources").items()}
    for name in ("tasks", "sites"):
        rest[name] = {key: ResourceRequest(**r) for key, r in rest[name].items()}
    rest["defaults"] = ResourceRequest(**rest["defaults"])
    rest["clusters"] = tuple(
        Cluster(
            **{
                **_tupled(c),
                "equal_dimensions": _pairs(c),
                "resources": ResourceRequest(**c["resources"]),
            }
        )
        for c in rest["clusters"]
    )
    rest["orders"] = tuple(Order(**{**_tupled(o), "equal_dimensions": _pairs(o)}) for o in rest["orders"])
    return Clustering(**_tupled(rest)), resources


def _pairs(values: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(map(tuple, values["equal_dimensions"]))


def _tupled(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
