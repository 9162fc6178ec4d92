"""One pipeline file as values: parsed strictly, its imports still to be merged."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from loadmaster_registry.errors import did_you_mean

from .connections import Connection, Kind
from .pipeline import Contract, Step, Subset
from .yaml_source import Block, Items, check_keys, mapping_in, refuse

ModifyMode = Literal["DROP", "EDIT"]

_TOP = ("description", "instrument", "parameters", "imports", "tasks", "subsets", "steps", "contracts")
# What tables of facts about a pipeline of other software say of themselves; documentation only.
_TOP_FACTS = ("pipeline", "source", "n_tasks", "n_connections", "overall_inputs", "automatic_inputs")
_TABLES: Mapping[str, Kind] = {
    "inputs": "input",
    "prerequisites": "prerequisite",
    "outputs": "output",
    "init_inputs": "init_input",
    "init_outputs": "init_output",
}
_TASK = (
    "class", "config", "command", "dimensions", *_TABLES, "resources", "environment", "network",
    "spatial_bounds_from", "flags",
)  # fmt: skip
_TASK_FLAGS = (
    "custom_adjust_quantum",
    "custom_adjust_all_quanta",
)  # the real task prunes further, in its own code
_RESOURCES = ("cpus", "memory_mib", "walltime_s", "disk_mib", "priority", "run_time_s", "output_mib")
_LOWEST = {"priority": -1000}  # every other resource is at least 1
_IMPORT = (
    "location", "include", "exclude", "rename", "labeledSubsetModifyMode", "importContracts", "importSteps",
    "instrument",
)  # fmt: skip
_COMMON = ("dataset_type", "storage_class")
_CONNECTION: Mapping[Kind, tuple[str, ...]] = {
    "input": (*_COMMON, "dimensions", "multiple", "deferred", "minimum", "calibration", "no_graph_constraint",
              "component", "custom_lookup"),
    "prerequisite": (*_COMMON, "dimensions", "multiple", "deferred", "minimum", "calibration", "component",
                     "custom_lookup"),
    "output": (*_COMMON, "dimensions", "multiple", "calibration"),
    "init_input": _COMMON,
    "init_output": _COMMON,
}  # fmt: skip
_LABEL = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_DATASET_TYPE = re.compile(r"[A-Za-z_]\w*(\.\w+)?")


@dataclass(frozen=True, slots=True)
class ConfigBlock:
    """Changes to one task's configuration, made together: files, then Python, then fields."""

    files: tuple[str, ...] = ()
    python: str | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)  # dotted name → value
    places: Mapping[str, str] = field(default_factory=dict, compare=False)  # key → file:line:column


@dataclass(frozen=True, slots=True)
class TaskEntry:
    """One task as it stands in a file."""

    label: str
    class_name: str | None = None
    command: str | None = None
    dimensions: tuple[str, ...] | None = None
    connections: tuple[Connection, ...] = ()
    blocks: tuple[ConfigBlock, ...] = ()
    resources: Mapping[str, int] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)  # name → version
    network: bool | None = None  # whether it may use the network; None leaves it to the class
    spatial_bounds_from: tuple[str, ...] = ()
    where: str = field(default="", compare=False)
    places: Mapping[str, str] = field(default_factory=dict, compare=False)

    @property
    def is_declared(self) -> bool:
        """Whether the file says itself what the task reads and writes, rather than a class."""
        return bool(self.connections)

    @property
    def only_refines(self) -> bool:
        """Whether this only changes settings of an imported task of the same label."""
        return self.class_name is None and not self.is_declared


@dataclass(frozen=True, slots=True)
class Import:
    """One entry of `imports`."""

    location: str
    include: tuple[str, ...] | None = None
    exclude: tuple[str, ...] | None = None
    rename: Mapping[str, str] = field(default_factory=dict)
    mode: ModifyMode = "DROP"
    contracts: bool = True
    steps: bool = True
    instrument: str | None = None  # "None" drops, another replaces, None keeps
    where: str = field(default="", compare=False)
    places: Mapping[str, str] = field(default_factory=dict, compare=False)


@dataclass(frozen=True, slots=True)
class Document:
    """One pipeline file, or several merged."""

    description: str
    instrument: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    imports: tuple[Import, ...] = ()
    tasks: Mapping[str, TaskEntry] = field(default_factory=dict)
    subsets: Mapping[str, Subset] = field(default_factory=dict)
    steps: tuple[Step, ...] = ()
    contracts: tuple[Contract, ...] = ()
    places: Mapping[str, str] = field(
        default_factory=dict, compare=False
    )  # "subsets.NAME", "steps.NAME"… → where

    def at(self, key: str) -> str:
        """Return where `key` stands."""
        return self.places.get(key, self.places.get("", "pipeline"))


def parse_document(block: Block, folder: str) -> Document:
    """Return the values in `block`; relative paths are below `folder`.

    Raises
    ------
    PipelineError
        On the first thing that is unknown, misspelt or of the wrong kind, with file, line and column.
    """
    _refuse_old_keys(block)
    check_keys(block, (*_TOP, *_TOP_FACTS), "a pipeline")
    if "description" not in block and "pipeline" not in block:
        refuse(
            block.where, "the pipeline has no description", "`description` is required", "say what it is for"
        )
    if "tasks" not in block and "imports" not in block:
        refuse(
            block.where,
            "the pipeline has no tasks",
            "neither `tasks` nor `imports` is there",
            "add one of them",
        )
    tasks = mapping_in(block, "tasks")
    subsets = mapping_in(block, "subsets")
    steps = _list(block, "steps")
    contracts = [(_contract(body, where), where) for body, where in _one_or_more(block, "contracts")]
    places = {"": block.where, **{key: block.at(key) for key in block}}
    places |= {f"subsets.{name}": subsets.at(name) for name in subsets}
    parsed_steps = tuple(_step(step, steps, i) for i, step in enumerate(steps))
    places |= {f"steps.{step.label}": steps.where_of[i] for i, step in enumerate(parsed_steps)}
    places |= {f"contracts.{contract.expression}": where for contract, where in contracts}
    return Document(
        description=_text(block, "description" if "description" in block else "pipeline"),
        instrument=_instrument(block),
        parameters=plain(mapping_in(block, "parameters")),
        imports=tuple(_import(body, where) for body, where in _one_or_more(block, "imports")),
        tasks={label: _task(label, body, tasks.at(label), folder) for label, body in tasks.items()},
        subsets={name: _subset(name, body, subsets.at(name)) for name, body in subsets.items()},
        steps=parsed_steps,
        contracts=tuple(contract for contract, _ in contracts),
        places=places,
    )


def plain(value: Any) -> Any:
    """Return `value` without the memory of where it stood."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value


def _refuse_old_keys(block: Block) -> None:
    if "inherits" in block:
        refuse(
            block.at("inherits"),
            "`inherits` is gone",
            "a pipeline is composed by `imports`",
            "write `imports`",
        )
    if "subset" in block and not block.get("subsets"):
        refuse(
            block.at("subset"), "unknown key 'subset'", "subsets have names", "write `subsets: {NAME: [...]}`"
        )


def _instrument(block: Block) -> str | None:
    if isinstance(block.get("instrument"), list):
        refuse(block.at("instrument"), "several instruments", "a pipeline has one at most", "keep one")
    return _text(block, "instrument") if block.get("instrument") is not None else None


def _task(label: Any, body: Any, where: str, folder: str) -> TaskEntry:
    if not isinstance(label, str) or not _LABEL.fullmatch(label):
        refuse(
            where, f"{label!r} cannot be a label", "a label is letters, digits, `_` and `-`", "choose another"
        )
    if label == "parameters":
        refuse(where, "a task may not be called 'parameters'", "the name is reserved", "choose another label")
    if isinstance(body, str):
        return TaskEntry(label, class_name=body, where=where, places={"class": where})
    if not isinstance(body, Block):
        refuse(
            where, f"task {label!r} is neither a class nor a mapping", f"it is {body!r}", "give `class: …`"
        )
    check_keys(body, _TASK, f"task {label!r}")
    for i, flag in enumerate(flags := _names(body, "flags") or ()):
        if flag not in _TASK_FLAGS:
            refuse(
                body["flags"].where_of[i],
                f"unknown flag {flag!r}",
                f"of {flags}",
                did_you_mean(flag, _TASK_FLAGS),
            )
    connections = tuple(
        _connection(name, kind, value, mapping_in(body, table).at(name))
        for table, kind in _TABLES.items()
        for name, value in mapping_in(body, table).items()
    )
    entry = TaskEntry(
        label=label,
        class_name=_text(body, "class") if "class" in body else None,
        command=_text(body, "command") if "command" in body else None,
        dimensions=_names(body, "dimensions"),
        connections=connections,
        blocks=_blocks(body, folder),
        resources=_resources(body),
        environment=_environment(body),
        network=_flag(body, "network") if "network" in body else None,
        spatial_bounds_from=_names(body, "spatial_bounds_from") or (),
        where=where,
        places={
            **{key: body.at(key) for key in body},
            **{
                c.name: body[t].at(c.name)
                for t in _TABLES
                for c in connections
                if c.name in (body.get(t) or ())
            },
        },
    )
    _check_declaration(entry, body)
    return entry


def _check_declaration(entry: TaskEntry, body: Block) -> None:
    label = entry.label
    names = [c.name for c in entry.connections]
    if double := {name for name in names if names.count(name) > 1}:
        name = min(double)
        refuse(
            entry.places[name],
            f"connection {name!r} stands twice",
            f"in task {label!r}",
            "rename one of them",
        )
    for name in entry.spatial_bounds_from:
        if name not in names:
            refuse(
                body.at("spatial_bounds_from"),
                f"there is no connection {name!r}",
                f"task {label!r} does not declare it",
                did_you_mean(name, names),
            )
    if entry.is_declared and entry.dimensions is None:
        refuse(
            entry.where,
            f"task {label!r} has no dimensions",
            "it declares its own connections",
            "add `dimensions`",
        )
    if not entry.is_declared:
        for key in ("command", "dimensions"):
            if key in body:
                refuse(
                    body.at(key),
                    f"task {label!r} has `{key}` and no connections",
                    "only a task that declares its own inputs and outputs can have it",
                    "add `inputs` and `outputs`, or leave everything to the class",
                )


def _connection(name: Any, kind: Kind, body: Any, where: str) -> Connection:
    if not isinstance(name, str) or not name.isidentifier() or name.startswith("_") or name == "quantum":
        refuse(
            where,
            f"{name!r} cannot name a connection",
            "it must be a plain identifier",
            "choose another name",
        )
    if not isinstance(body, Block):
        refuse(where, f"connection {name!r} is no mapping", f"it is {body!r}", "give `{dataset_type: …}`")
    check_keys(body, _CONNECTION[kind], f"{'an' if kind[0] in 'aio' else 'a'} {kind}")
    required = _COMMON if kind.startswith("init") else (*_COMMON, "dimensions")
    for key in required:
        if key not in body:
            refuse(where, f"connection {name!r} has no {key}", "it is required", f"add `{key}`")
    dataset_type, component = _dataset_type(body)
    return Connection(
        name=name,
        kind=kind,
        dataset_type=dataset_type,
        storage_class=_text(body, "storage_class"),
        dimensions=_names(body, "dimensions") or (),
        multiple=_flag(body, "multiple"),
        deferred=_flag(body, "deferred"),
        minimum=_count(body, "minimum", 1, lowest=0),
        calibration=_flag(body, "calibration"),
        no_graph_constraint=_flag(body, "no_graph_constraint"),
        component=component,
        custom_lookup=_flag(body, "custom_lookup"),
    )


def _dataset_type(body: Block) -> tuple[str, str | None]:
    written = _text(body, "dataset_type")
    if not _DATASET_TYPE.fullmatch(written):
        refuse(
            body.at("dataset_type"),
            f"{written!r} cannot name a dataset type",
            "a name is letters, digits and `_`, with `.component` for a part",
            "choose another name",
        )
    parent, _, component = written.partition(".")
    if component and body.get("component", component) != component:
        refuse(body.at("component"), "two different components", f"{written!r} names one already", "keep one")
    return parent, component or (_text(body, "component") if "component" in body else None)


def _blocks(body: Block, folder: str) -> tuple[ConfigBlock, ...]:
    return tuple(_block(block, where, folder) for block, where in _one_or_more(body, "config"))


def _block(block: Any, where: str, folder: str) -> ConfigBlock:
    if not isinstance(block, Block):
        refuse(
            where,
            "`config` is neither a mapping nor a list of mappings",
            f"it is {block!r}",
            "give FIELD: value",
        )
    if "dataId" in block:
        refuse(
            block.at("dataId"), "`dataId` is not supported", "a task has one configuration", "use two tasks"
        )
    for key in block:
        if not isinstance(key, str):
            refuse(block.at(key), f"{key!r} cannot name a field", "it is not text", "quote it")
    files = _names(block, "file") or ()
    return ConfigBlock(
        files=tuple(f if "://" in f or f.startswith(("/", "$")) else f"{folder}/{f}" for f in files),
        python=_text(block, "python") if "python" in block else None,
        fields={key: plain(value) for key, value in block.items() if key not in ("file", "python")},
        places={key: block.at(key) for key in block},
    )


def _resources(body: Block) -> dict[str, int]:
    block = mapping_in(body, "resources")
    check_keys(block, _RESOURCES, "`resources`")
    return {key: _count(block, key, 0, lowest=_LOWEST.get(key, 1)) for key in block}


def _environment(body: Block) -> dict[str, str]:
    """Return what a task's outputs depend on besides its code: names with their versions, as text."""
    block = mapping_in(body, "environment")
    for name, version in block.items():
        if not isinstance(name, str) or not isinstance(version, str):
            refuse(
                block.at(name),
                f"the version of {name!r} is no text",
                f"it is {version!r}",
                f'put quotes around it: {name}: "{version}"',
            )
    return dict(block)


def _subset(name: Any, body: Any, where: str) -> Subset:
    if not isinstance(name, str):
        refuse(where, f"{name!r} cannot name a subset", "it is not text", "quote it")
    if isinstance(body, Items):
        return Subset(name, _members(name, body, where))
    if not isinstance(body, Block):
        refuse(where, f"subset {name!r} is no list", f"it is {body!r}", "list the labels")
    check_keys(body, ("subset", "description"), f"subset {name!r}")
    if not isinstance(body.get("subset"), Items):
        refuse(where, f"subset {name!r} has no list `subset`", "it is required", "list the labels")
    description = _text(body, "description") if "description" in body else ""
    return Subset(name, _members(name, body["subset"], where), description)


def _members(name: str, items: Items, where: str) -> tuple[str, ...]:
    for i, item in enumerate(items):
        if not isinstance(item, str):
            refuse(items.where_of[i], f"subset {name!r} holds {item!r}", "that is no label", "list labels")
        if item in items[:i]:
            refuse(items.where_of[i], f"subset {name!r} holds {item!r} twice", "once is enough", "delete one")
    return tuple(items)


def _step(body: Any, steps: Items, i: int) -> Step:
    where = steps.where_of[i]
    if not isinstance(body, Block):
        refuse(where, "a step is no mapping", f"it is {body!r}", "give {label: SUBSET, dimensions: [...]}")
    check_keys(body, ("label", "dimensions"), "a step")
    if "label" not in body or "dimensions" not in body:
        refuse(
            where, "a step has `label` and `dimensions`", f"here are {sorted(body)}", "add what is missing"
        )
    if not isinstance(body["dimensions"], Items):
        # Rubin's loader takes a text and later walks its letters.
        refuse(
            body.at("dimensions"),
            "`dimensions` is no list",
            f"it is {body['dimensions']!r}",
            "write [visit, …]",
        )
    return Step(_text(body, "label"), _names(body, "dimensions") or ())


def _contract(body: Any, where: str) -> Contract:
    if isinstance(body, str):
        return Contract(body)
    if not isinstance(body, Block):
        refuse(
            where,
            f"{body!r} is no contract",
            "it is neither text nor a mapping",
            "give {contract: …, msg: …}",
        )
    check_keys(body, ("contract", "msg"), "a contract")
    if "contract" not in body:
        refuse(where, "a contract has no `contract`", "the expression is missing", "add it")
    return Contract(_text(body, "contract"), _text(body, "msg") if "msg" in body else "")


def _import(body: Any, where: str) -> Import:
    if isinstance(body, str):
        return Import(location=body, where=where)
    if not isinstance(body, Block):
        refuse(
            where, f"{body!r} is no import", "it is neither a location nor a mapping", "give `location: …`"
        )
    check_keys(body, _IMPORT, "an import")
    if "location" not in body:
        refuse(where, "an import has no location", "it is required", "add `location`")
    if "include" in body and "exclude" in body:
        refuse(body.at("exclude"), "`include` and `exclude` together", "one says it all", "keep one")
    mode = body.get("labeledSubsetModifyMode", "DROP")
    if mode not in ("DROP", "EDIT"):
        refuse(
            body.at("labeledSubsetModifyMode"), f"unknown mode {mode!r}", "it is DROP or EDIT", "choose one"
        )
    rename = mapping_in(body, "rename")
    for old in rename:
        if not isinstance(old, str) or not isinstance(rename[old], str) or not _LABEL.fullmatch(rename[old]):
            refuse(
                rename.at(old),
                f"{old!r}: {rename[old]!r} renames nothing",
                "both are labels",
                "write OLD: NEW",
            )
    return Import(
        location=_text(body, "location"),
        include=_names(body, "include"),
        exclude=_names(body, "exclude"),
        rename=plain(rename),
        mode=mode,
        contracts=_flag(body, "importContracts", True),
        steps=_flag(body, "importSteps", True),
        # YAML reads an unquoted None as text and null as nothing; both mean to drop it.
        instrument=str(body["instrument"]) if "instrument" in body else None,
        where=where,
        places={key: body.at(key) for key in body},
    )


def _one_or_more(block: Block, key: str) -> list[tuple[Any, str]]:
    """Return the entries below `key`, one or a list of them, each with its place."""
    value = block.get(key)
    if isinstance(value, Items):
        return list(zip(value, value.where_of, strict=True))
    return [] if value is None else [(value, block.at(key))]


def _list(block: Block, key: str) -> Items:
    value = block.get(key)
    if value is None:
        return Items(block.at(key))
    if not isinstance(value, Items):
        refuse(block.at(key), f"`{key}` is no list", f"it is {value!r}", "begin each entry with `- `")
    return value


def _text(block: Block, key: str) -> str:
    value = block[key]
    if not isinstance(value, str):
        refuse(block.at(key), f"`{key}` is no text", f"it is {value!r}", "quote it")
    return value


def _names(block: Block, key: str) -> tuple[str, ...] | None:
    value = block.get(key)
    if value is None:
        return None
    names = [value] if isinstance(value, str) and key in ("include", "exclude", "file") else value
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        refuse(block.at(key), f"`{key}` is no list of names", f"it is {value!r}", "write [NAME, …]")
    if double := {name for name in names if names.count(name) > 1}:
        refuse(block.at(key), f"`{key}` holds {min(double)!r} twice", "once is enough", "delete one")
    return tuple(names)


def _flag(block: Block, key: str, default: bool = False) -> bool:
    value = block.get(key, default)
    if not isinstance(value, bool):
        refuse(block.at(key), f"`{key}` is neither true nor false", f"it is {value!r}", "write true or false")
    return value


def _count(block: Block, key: str, default: int, *, lowest: int) -> int:
    value = block.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or value < lowest:
        refuse(
            block.at(key), f"`{key}` is no number from {lowest}", f"it is {value!r}", f"give {lowest} or more"
        )
    return value
