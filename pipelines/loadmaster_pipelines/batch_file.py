"""Batch files read strictly: whatever they say of jobs is understood or refused, with file and line."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from loadmaster_registry.errors import did_you_mean

from .batch import Cluster, Clustering, Order, one_home
from .loader import GIVEN
from .resources import NOTHING_ASKED, ResourceRequest
from .yaml_source import Block, Items, check_keys, expand, mapping_in, read_yaml, refuse

_TOP = (
    "clusters", "ordering", "memory_mb", "other_requests", "resources", "defaults", "sites", "elide",
    "store_after_all", "source",
)  # fmt: skip
_CLUSTER = (
    "tasks", "dimensions", "equal_dimensions", "partition_dimensions", "partition_max_jobs",
    "partition_max_size", "template", "find_method", "target_s", "resources",
)  # fmt: skip
_ORDER = ("labels", "dimensions", "equal_dimensions", "find_method", "blocking")
_RESOURCES = ("cpus", "memory_mib", "walltime_s", "disk_mib", "priority", "run_time_s", "output_mib")

# What a submit file calls these things, and what one unit of its number is in ours.
_SUBMIT_RESOURCES: Mapping[str, tuple[str, int]] = {
    "requestCpus": ("cpus", 1),
    "requestMemory": ("memory_mib", 1),
    "requestWalltime": ("walltime_s", 60),
    "requestDisk": ("disk_mib", 1),
    "priority": ("priority", 1),
}
_SUBMIT_CLUSTER = (
    "pipetasks", "dimensions", "equalDimensions", "partitionDimensions", "partitionMaxClusters",
    "partitionMaxSize", "clusterTemplate", "findDependencyMethod",
)  # fmt: skip
_SUBMIT_ORDER = (
    "labels", "dimensions", "equalDimensions", "findDependencyMethod", "blocking", "implementation",
    "ordering_type",
)  # fmt: skip
# What else a submit file may say of a job: for its own engine, and of no meaning here.
_SUBMIT_JOB = (
    "requestMemoryMax", "memoryMultiplier", "memoryLimit", "preemptible", "concurrencyLimit", "category",
    "numberOfRetries", "retryUnlessExit", "releaseExpr", "abortOnValue", "abortReturnValue", "computeSite",
    "computeCloud", "accountingGroup", "accountingUser", "queue", "nodeset", "environment", "profile",
    "runQuantumCommand", "extraRunQuantumOptions", "runPreCmdOpts", "defaultPreCmdOpts", "subDirTemplate",
    "templateDataId", "useNodeIdInClusterName", "executeMachinesPattern", "bpsUseShared",
)  # fmt: skip
_SUBMIT_TOP = (
    "cluster", "clusterAlgorithm", "pipetask", "site", "includeConfigs", "operator", "project", "campaign",
    "submitPath", "payload", "pipelineYaml", "qgraphFile", "extraQgraphOptions", "createQuantumGraph",
    "updateQuantumGraph", "extraUpdateQgraphOptions", "pipetaskInput", "pipetaskOutput", "pipetaskDataQuery",
    "whenSaveJobQgraph", "qgraphFileTemplate", "extraInitOptions", "qgraphPreCmdOpts", "initPreCmdOpts",
    "updateQgraphPreCmdOpts", "finalPreCmdOpts", "cloud", "fileDistributionEndPoint", "makeIdLink",
    "idLinkPath", "saveDot", "saveGenericWorkflow", "saveClusteredQgraph", "validateClusteredQgraph",
    "overwriteJobFiles", "wmsServiceClass", "wmsConfig", "provisionResources", "provisioning", "finalJob",
    "customJob", "parsl", "bpsGenerateConfig", "bps_defined", "pipetaskInit",
)  # fmt: skip
_DIMENSIONWISE = "dimension_clustering"
_SINGLY = "single_quantum_clustering"


def read_clustering(location: str | Path) -> Clustering:
    """Read a batch file: our own form, or the sections of a `bps` submit file that say the same.

    Raises
    ------
    PipelineError
        On the first thing that is unknown, misspelt or of the wrong kind, with file, line and column.
    """
    return parse_clustering(read_yaml(str(location)))


def parse_clustering(block: Block) -> Clustering:
    """Return what a batch file says; a submit file is known by keys that only it has."""
    is_submit_file = "clusters" not in block and any(key in _SUBMIT_TOP for key in block)
    read = _submitted(block, ()) if is_submit_file else _own(block)
    one_home(read.clusters)
    return read


def _own(block: Block) -> Clustering:
    check_keys(block, _TOP, "a batch file")
    clusters, tables = mapping_in(block, "clusters"), mapping_in(block, "resources")
    asked = {label: _resources(tables, label) for label in tables}
    places = {f"tasks.{label}": tables.at(label) for label in tables}
    memory, others = mapping_in(block, "memory_mb"), mapping_in(block, "other_requests")
    for label in memory:
        request = ResourceRequest(memory_mib=_number(memory, label))
        asked[label] = asked.get(label, NOTHING_ASKED).over(request)
        places.setdefault(f"tasks.{label}", memory.at(label))
    for label in others:
        request = _submit_resources(mapping_in(others, label), _SUBMIT_JOB, f"what {label!r} asks for")
        asked[label] = asked.get(label, NOTHING_ASKED).over(request)
        places.setdefault(f"tasks.{label}", others.at(label))
    sites, elided = mapping_in(block, "sites"), _names(block, "elide")
    places |= {f"elide.{name}": block.at("elide") for name in elided}
    return Clustering(
        clusters=tuple(_cluster(name, clusters) for name in clusters),
        orders=_orders(block),
        tasks=asked,
        defaults=_resources(block, "defaults"),
        sites={name: _resources(sites, name) for name in sites},
        elide=elided,
        store_after_all=_flag(block, "store_after_all"),
        is_shared="source" in block,
        places=places,
    )


def _cluster(name: Any, clusters: Block) -> Cluster:
    body = _named_body(name, clusters, "a cluster")
    check_keys(body, _CLUSTER, f"cluster {name!r}")
    cluster = Cluster(
        name=name,
        tasks=_names(body, "tasks"),
        dimensions=_names(body, "dimensions"),
        equal_dimensions=_pairs(body),
        partition_dimensions=_names(body, "partition_dimensions"),
        partition_max_jobs=_number(body, "partition_max_jobs") if "partition_max_jobs" in body else None,
        partition_max_size=_number(body, "partition_max_size") if "partition_max_size" in body else None,
        template=_text(body, "template"),
        find_method=_find_method(body, "find_method"),
        target_s=_number(body, "target_s") if "target_s" in body else None,
        resources=_resources(body, "resources"),
        places=_places(body, clusters.at(name), "tasks"),
    )
    _check_cluster(cluster, ("tasks", "partition_dimensions", "partition_max_jobs", "partition_max_size"))
    return cluster


def _submitted(block: Block, above: tuple[str, ...]) -> Clustering:
    """Read a submit file with what it includes."""
    whole = _included(block, above)
    check_keys(whole, ("ordering", *_SUBMIT_TOP, *_SUBMIT_JOB, *_SUBMIT_RESOURCES), "a submit file")
    clusters, tasks, sites = (mapping_in(whole, key) for key in ("cluster", "pipetask", "site"))
    return Clustering(
        clusters=tuple(_submit_cluster(name, clusters) for name in clusters) if _is_clustered(whole) else (),
        orders=_submit_orders(whole),
        tasks={label: _submit_resources(mapping_in(tasks, label), _SUBMIT_JOB, f"pipetask {label!r}")
               for label in tasks if label != "pipetaskInit"},
        defaults=_picked(whole),
        sites={name: _picked(mapping_in(sites, name)) for name in sites},
        is_shared=True,
        places={f"tasks.{label}": tasks.at(label) for label in tasks},
    )  # fmt: skip


def _is_clustered(block: Block) -> bool:
    """Whether the clusters of a submit file count; without a word on the algorithm they do."""
    algorithm = _text(block, "clusterAlgorithm").rpartition(".")[2] or _DIMENSIONWISE
    if algorithm not in (_DIMENSIONWISE, _SINGLY):
        refuse(block.at("clusterAlgorithm"), f"unknown way to cluster {algorithm!r}", "we have two",
               did_you_mean(algorithm, (_DIMENSIONWISE, _SINGLY)))  # fmt: skip
    return algorithm == _DIMENSIONWISE


def _included(block: Block, above: tuple[str, ...]) -> Block:
    """Return a submit file over what it includes: the later file wins, and the including one over all."""
    whole = Block(block.where)
    here = block.where.rsplit(":", 2)[0]
    if here in above:
        refuse(block.where, "submit files include each other", " → ".join((*above, here)), "take one out")
    named = block.get("includeConfigs") or []
    for name in [named] if isinstance(named, str) else named:
        location = expand(str(name), block.at("includeConfigs"), GIVEN)
        if not Path(location).exists() and not location.startswith("/") and "://" not in location:
            location = f"{Path(here).parent}/{location}"
        _lay_over(whole, _included(read_yaml(location), (*above, here)))
    _lay_over(whole, block)
    return whole


def _lay_over(below: Block, above: Block) -> None:
    for key, value in above.items():
        if isinstance(value, Block) and isinstance(below.get(key), Block):
            _lay_over(below[key], value)
        else:
            below[key] = value
            below.where_of[key] = above.at(key)


def _submit_cluster(name: Any, clusters: Block) -> Cluster:
    body = _named_body(name, clusters, "a cluster")
    check_keys(body, (*_SUBMIT_CLUSTER, *_SUBMIT_JOB, *_SUBMIT_RESOURCES), f"cluster {name!r}")
    cluster = Cluster(
        name=name,
        tasks=_listed(body, "pipetasks"),
        dimensions=_listed(body, "dimensions"),
        equal_dimensions=_submit_pairs(body),
        partition_dimensions=_listed(body, "partitionDimensions"),
        partition_max_jobs=_number(body, "partitionMaxClusters") if "partitionMaxClusters" in body else None,
        partition_max_size=_number(body, "partitionMaxSize") if "partitionMaxSize" in body else None,
        template=_text(body, "clusterTemplate"),
        find_method=_find_method(body, "findDependencyMethod"),
        resources=_picked(body),
        places=_places(body, clusters.at(name), "pipetasks"),
    )
    _check_cluster(cluster, ("pipetasks", "partitionDimensions", "partitionMaxClusters", "partitionMaxSize"))
    return cluster


def _orders(block: Block) -> tuple[Order, ...]:
    orders = mapping_in(block, "ordering")
    return tuple(_order(name, orders) for name in orders)


def _order(name: Any, orders: Block) -> Order:
    body = _named_body(name, orders, "an order")
    check_keys(body, _ORDER, f"order {name!r}")
    order = Order(
        name=name,
        labels=_names(body, "labels"),
        dimensions=_names(body, "dimensions"),
        equal_dimensions=_pairs(body),
        find_method=_find_method(body, "find_method"),
        is_blocking=_flag(body, "blocking"),
        places=_places(body, orders.at(name), "labels"),
    )
    return _checked(order)


def _submit_orders(block: Block) -> tuple[Order, ...]:
    orders = mapping_in(block, "ordering")
    return tuple(_submit_order(name, orders) for name in orders)


def _submit_order(name: Any, orders: Block) -> Order:
    """Read an order; jobs that only keep it, ``noop``, wait for jobs that are done, so that failures block."""
    body = _named_body(name, orders, "an order")
    check_keys(body, _SUBMIT_ORDER, f"order {name!r}")
    _one_of(body, "ordering_type", ("sort",))
    order = Order(
        name=name,
        labels=_listed(body, "labels"),
        dimensions=_listed(body, "dimensions"),
        equal_dimensions=_submit_pairs(body),
        find_method=_find_method(body, "findDependencyMethod"),
        is_blocking=_one_of(body, "implementation", ("group", "noop")) == "noop" or _flag(body, "blocking"),
        places=_places(body, orders.at(name), "labels"),
    )
    return _checked(order)


def _checked(order: Order) -> Order:
    for key, value in (("labels", order.labels), ("dimensions", order.dimensions)):
        if not value:
            what = f"order {order.name!r} has no {key}"
            refuse(order.at(key), what, f"`{key}` is required", "list them")
    return order


def _check_cluster(cluster: Cluster, words: tuple[str, str, str, str]) -> None:
    tasks, dimensions, max_jobs, max_size = words
    n_limits = (cluster.partition_max_jobs is not None) + (cluster.partition_max_size is not None)
    if not cluster.tasks:
        refuse(
            cluster.at(""), f"cluster {cluster.name!r} has no tasks", f"`{tasks}` is required", "list them"
        )
    if n_limits != bool(cluster.partition_dimensions):
        refuse(
            cluster.at(dimensions),
            f"cluster {cluster.name!r} does not say how to split jobs",
            f"`{dimensions}` goes with exactly one of `{max_jobs}` and `{max_size}`",
            f"give `{dimensions}` and one of them, or none of the three",
        )
    if cluster.target_s is not None and cluster.partition_dimensions:
        refuse(
            cluster.at("target_s"),
            f"cluster {cluster.name!r} has two sizes",
            "`target_s` and a partition both say how large a job is",
            "keep one of them",
        )


def _named_body(name: Any, sections: Block, what: str) -> Block:
    if not isinstance(name, str) or "/" in name:
        refuse(
            sections.at(name),
            f"{name!r} cannot name {what}",
            "a name is text without `/`",
            "choose another",
        )
    return mapping_in(sections, name)


def _pairs(body: Block) -> tuple[tuple[str, str], ...]:
    pairs = body.get("equal_dimensions") or []
    if not isinstance(pairs, list) or not all(_is_pair(pair) for pair in pairs):
        refuse(body.at("equal_dimensions"), "`equal_dimensions` is no list of pairs", f"it is {pairs!r}",
               "write [[visit, exposure]]")  # fmt: skip
    return tuple((pair[0], pair[1]) for pair in pairs)


def _submit_pairs(body: Block) -> tuple[tuple[str, str], ...]:
    pairs = tuple(tuple(pair.split(":")) for pair in _listed(body, "equalDimensions"))
    if not all(_is_pair(list(pair)) for pair in pairs):
        refuse(body.at("equalDimensions"), "`equalDimensions` is no list of pairs",
               f"it is {body['equalDimensions']!r}", "write visit:exposure")  # fmt: skip
    return tuple((pair[0].strip(), pair[1].strip()) for pair in pairs)


def _places(body: Block, where: str, tasks: str) -> dict[str, str]:
    labels = body.get(tasks)
    each = dict(zip(labels, labels.where_of, strict=True)) if isinstance(labels, Items) else {}
    if isinstance(labels, str):
        each = dict.fromkeys((label.strip() for label in labels.split(",")), body.at(tasks))
    return {"": where, **{key: body.at(key) for key in body}, **each}


def _resources(block: Block, key: str) -> ResourceRequest:
    body = mapping_in(block, key)
    check_keys(body, _RESOURCES, "resources")
    lowest = {"priority": None}
    return ResourceRequest(**{name: _number(body, name, lowest.get(name, 1)) for name in body})


def _submit_resources(body: Block, also: tuple[str, ...], what: str) -> ResourceRequest:
    check_keys(body, (*_SUBMIT_RESOURCES, *also), what)
    return _picked(body)


def _picked(body: Block) -> ResourceRequest:
    """Return what a section of a submit file asks for, whatever else is in it."""
    asked = {ours: _number(body, name, None if ours == "priority" else 1) * unit
             for name, (ours, unit) in _SUBMIT_RESOURCES.items() if name in body}  # fmt: skip
    return ResourceRequest(**asked)


def _find_method(body: Block, key: str) -> Any:
    return _one_of(body, key, ("source", "sink"))


def _one_of(body: Block, key: str, known: tuple[str, ...]) -> str:
    """Return one of the known words, or "" where nothing is said."""
    word = _text(body, key)
    if word not in ("", *known):
        why = f"it is {' or '.join(known)}"
        refuse(body.at(key), f"unknown `{key}` {word!r}", why, did_you_mean(word, known))
    return word


def _names(block: Block, key: str) -> tuple[str, ...]:
    value = block.get(key)
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        refuse(block.at(key), f"`{key}` is no list of names", f"it is {value!r}", "write [NAME, …]")
    return _distinct(tuple(value), block.at(key), key)


def _listed(block: Block, key: str) -> tuple[str, ...]:
    """Return names that stand in one text, between commas."""
    names = tuple(name.strip() for name in _text(block, key).split(",") if name.strip())
    return _distinct(names, block.at(key), key)


def _distinct(names: tuple[str, ...], where: str, key: str) -> tuple[str, ...]:
    if double := [name for i, name in enumerate(names) if name in names[:i]]:
        refuse(where, f"`{key}` holds {double[0]!r} twice", "once is enough", "delete one")
    return names


def _is_pair(value: Any) -> bool:
    return (
        isinstance(value, list) and len(value) == 2 and all(isinstance(v, str) and v.strip() for v in value)
    )


def _text(block: Block, key: str) -> str:
    value = block.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        refuse(block.at(key), f"`{key}` is no text", f"it is {value!r}", "quote it")
    return value


def _flag(block: Block, key: str) -> bool:
    value = block.get(key, False)
    if not isinstance(value, bool):
        refuse(block.at(key), f"`{key}` is neither true nor false", f"it is {value!r}", "write true or false")
    return value


def _number(block: Block, key: str, lowest: int | None = 1) -> int:
    value = block[key]
    if not isinstance(value, int) or isinstance(value, bool) or (lowest is not None and value < lowest):
        least = "" if lowest is None else f" from {lowest}"
        refuse(block.at(key), f"`{key}` is no whole number{least}", f"it is {value!r}", "give one")
    return value
