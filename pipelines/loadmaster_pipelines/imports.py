"""How pipeline files are merged: what an import brings along, and what the importing file does with it."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from loadmaster_registry.errors import PipelineError, did_you_mean

from .document import ConfigBlock, Document, Import, TaskEntry
from .pipeline import Step, Subset
from .yaml_source import refuse


def resolve(document: Document, read: Callable[[Import], Document]) -> Document:
    """Merge what `document` imports into it; `read` returns an imported document, its own imports merged."""
    imported = [(order, select(read(order), order)) for order in document.imports]
    merged = merge(document, imported)
    check_names(merged)
    return merged


def select(document: Document, order: Import) -> Document:
    """Return of an imported document what `order` asks for."""
    labels = _selected(document, order)
    document = _renamed(document, order, labels)
    labels = [order.rename.get(label, label) for label in labels]
    document = restrict(document, labels, edit=order.mode == "EDIT", keep_steps=order.steps)
    instrument = document.instrument if order.instrument is None else order.instrument
    return replace(
        document,
        instrument=None if instrument == "None" else instrument,
        contracts=document.contracts if order.contracts else (),
    )


def restrict(document: Document, labels: Iterable[str], *, edit: bool, keep_steps: bool = True) -> Document:
    """Return `document` with the tasks `labels` only.

    Contracts that name a task which is gone go too. Subsets that miss a member are dropped, or with `edit`
    lose that member; steps go with their subset.
    """
    keep = set(labels)
    tasks = {label: task for label, task in document.tasks.items() if label in keep}
    mentioned = {m for subset in document.subsets.values() for m in subset.members}
    gone = (set(document.tasks) | mentioned) - keep
    subsets = _left(document.subsets.values(), keep, edit=edit)
    return replace(
        document,
        tasks=tasks,
        subsets=subsets,
        steps=tuple(s for s in document.steps if s.label in subsets) if keep_steps else (),
        contracts=tuple(c for c in document.contracts if not c.names_any(gone)),
    )


def merge(own: Document, imported: Sequence[tuple[Import, Document]]) -> Document:
    """Merge imported documents, in their order, with the importing one, whose word is last."""
    tasks: dict[str, TaskEntry] = {}
    subsets: dict[str, Subset] = {}
    steps: dict[str, Step] = {}
    for order, document in imported:
        _check_unique(order, document, tasks, subsets)
        tasks |= document.tasks
        subsets |= document.subsets
        _add_steps(steps, document.steps, order.where)
    for label, entry in own.tasks.items():
        tasks[label] = merge_task(tasks[label], entry) if label in tasks else entry
    _add_steps(steps, own.steps, own.at("steps"))
    contracts = [c for _, document in imported for c in document.contracts] + list(own.contracts)
    return Document(
        description=own.description,
        instrument=_instrument(own, imported),
        parameters={k: v for d in (*(d for _, d in imported), own) for k, v in d.parameters.items()},
        tasks=tasks,
        subsets={**subsets, **own.subsets},
        steps=tuple(steps.values()),
        contracts=tuple(dict.fromkeys(contracts)),
        places={k: v for d in (*(d for _, d in imported), own) for k, v in d.places.items()},
    )


def merge_task(imported: TaskEntry, own: TaskEntry) -> TaskEntry:
    """Return the imported task with the importing file's changes, or the own task where it is another one."""
    same_class = own.class_name == imported.class_name and not own.is_declared
    if not (same_class or own.only_refines):
        return own
    blocks = list(imported.blocks)
    for block in own.blocks:
        merged = _merged(blocks[-1], block) if blocks else None
        blocks[-1:] = [merged] if merged else [*blocks[-1:], block]
    return replace(
        imported,
        blocks=tuple(blocks),
        resources={**imported.resources, **own.resources},
        environment={**imported.environment, **own.environment},
        network=imported.network if own.network is None else own.network,
    )


def check_names(document: Document) -> None:
    """Refuse subsets and steps that name what is not there, and tasks that are not defined."""
    for entry in document.tasks.values():
        if entry.only_refines:
            refuse(
                entry.where,
                f"task {entry.label!r} has neither a class nor connections",
                "no imported task has this label either",
                did_you_mean(entry.label, set(document.tasks) - {entry.label}),
            )
    for subset in document.subsets.values():
        where = document.at(f"subsets.{subset.name}")
        if subset.name in document.tasks:
            refuse(
                where,
                f"{subset.name!r} is a subset and a task",
                "a name means one thing",
                "rename the subset",
            )
        for member in subset.members:
            if member not in document.tasks:
                why, todo = "no task has this label", did_you_mean(member, document.tasks)
                refuse(where, f"subset {subset.name!r} holds {member!r}", why, todo)
    for step in document.steps:
        if step.label not in document.subsets:
            where, todo = document.at(f"steps.{step.label}"), did_you_mean(step.label, document.subsets)
            refuse(where, f"step {step.label!r} is no subset", "each step is a subset", todo)


def _selected(document: Document, order: Import) -> list[str]:
    if order.include is not None:
        wanted = _opened(document, order.include, order, "include")
        return [label for label in document.tasks if label in wanted]
    unwanted = _opened(document, order.exclude or (), order, "exclude")
    return [label for label in document.tasks if label not in unwanted]


def _opened(document: Document, names: Iterable[str], order: Import, key: str) -> set[str]:
    found: set[str] = set()
    for name in names:
        if name in document.subsets:
            found.update(document.subsets[name].members)
        elif name in document.tasks:
            found.add(name)
        else:
            refuse(
                order.places.get(key, order.where),
                f"`{key}` names {name!r}",
                f"{order.location} has no task and no subset of this name",
                did_you_mean(name, {*document.tasks, *document.subsets}),
            )
    return found


def _renamed(document: Document, order: Import, labels: Sequence[str]) -> Document:
    where, new_names = order.places.get("rename", order.where), list(order.rename.values())
    for old, new in order.rename.items():
        if old not in labels:
            why = "it is not among the tasks that are imported"
            refuse(where, f"`rename` names {old!r}", why, did_you_mean(old, labels))
        if new in document.tasks or new in document.subsets:
            refuse(where, f"{old!r} cannot become {new!r}", "the name is taken there", "choose another")
        if new_names.count(new) > 1:
            refuse(where, f"two tasks become {new!r}", "labels are unique", "choose another")
    tasks = {
        order.rename.get(label, label): replace(task, label=order.rename.get(label, label))
        for label, task in document.tasks.items()
    }
    return replace(document, tasks=tasks)


def _left(subsets: Iterable[Subset], keep: set[str], *, edit: bool) -> dict[str, Subset]:
    left = {}
    for subset in subsets:
        members = tuple(m for m in subset.members if m in keep)
        if edit:
            left[subset.name] = replace(subset, members=members)
        elif members and members == subset.members:
            left[subset.name] = subset
    return left


def _check_unique(
    order: Import, document: Document, tasks: dict[str, TaskEntry], subsets: dict[str, Subset]
) -> None:
    for label, entry in document.tasks.items():
        if label in tasks:
            refuse(
                order.where,
                f"task {label!r} is imported twice",
                f"it stands at {tasks[label].where} and at {entry.where}",
                "exclude it from one import, or rename it there",
            )
    for name in document.subsets:
        if name in subsets or name in tasks:
            what = "a task" if name in tasks else "a subset"
            refuse(
                order.where,
                f"subset {name!r} is imported",
                f"{what} of this name is there already",
                "exclude it",
            )
    if clash := set(document.tasks) & set(subsets):
        name = min(clash)
        refuse(
            order.where, f"task {name!r} is imported", "a subset of this name is there already", "rename it"
        )


def _add_steps(steps: dict[str, Step], more: Iterable[Step], where: str) -> None:
    own: set[str] = set()
    for step in more:
        if step.label in own:
            refuse(where, f"step {step.label!r} stands twice", "a step is declared once", "delete one")
        own.add(step.label)
        if steps.setdefault(step.label, step) != step:
            refuse(
                where,
                f"step {step.label!r} is declared twice, differently",
                f"its dimensions are {list(steps[step.label].dimensions)} and {list(step.dimensions)}",
                "use `importSteps: false`, or make them equal",
            )


def _instrument(own: Document, imported: Sequence[tuple[Import, Document]]) -> str | None:
    if own.instrument is not None:
        return own.instrument
    found = {d.instrument: order for order, d in imported if d.instrument is not None}
    if len(found) > 1:
        where = " and ".join(order.where for order in found.values())
        raise PipelineError(
            what="imports are for different instruments",
            where=where,
            why=" and ".join(sorted(filter(None, found))),
            todo="set `instrument` in the importing file, or `instrument: None` in an import",
        )
    return next(iter(found), None)


def _merged(last: ConfigBlock, new: ConfigBlock) -> ConfigBlock | None:
    if last.python or new.python or last.files or new.files:
        return None
    if any(last.fields[key] != value for key, value in new.fields.items() if key in last.fields):
        return None
    return replace(last, fields={**last.fields, **new.fields}, places={**last.places, **new.places})
