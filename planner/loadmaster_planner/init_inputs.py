"""Init inputs: datasets without dimensions that a task wants once a run, before any of its quanta."""

from collections.abc import Collection, Sequence

from loadmaster_pipelines.pipeline import Pipeline
from loadmaster_registry.errors import NotFound, PlanError
from loadmaster_registry.snapshot import Snapshot

from .request import Request


def refuse_missing_init_inputs(
    registry: Snapshot, pipeline: Pipeline, running: Collection[str], done: Collection[str], request: Request
) -> None:
    """Raise if a task of the plan wants an init dataset that nothing holds and no task of the plan makes.

    Parameters
    ----------
    running : collection of str
        The tasks that have quanta.
    done : collection of str
        The tasks that have quanta which are done. What such a task made must exist where done work is looked for, if
        nothing of it is left to run. A task of which nothing can run and nothing is done makes no init dataset, and
        nobody else's stands for it.
    """
    makers = {c.dataset_type: task.label for task in pipeline.tasks.values() for c in task.init_outputs}
    wanted: dict[str, list[str]] = {}
    for label in running:
        for c in pipeline.tasks[label].init_inputs:
            if makers.get(c.dataset_type) not in running:
                wanted.setdefault(c.dataset_type, []).append(label)
    for name, labels in wanted.items():
        collections = _places(makers.get(name), done, request)
        if not _exists(registry, name, collections):
            maker = f"task {makers[name]}, which makes it, has no quanta" if name in makers else ""
            raise PlanError(
                what=f"the init input {name!r} does not exist",
                where=f"task {', '.join(labels)}",
                why="; ".join(
                    filter(None, (maker, f"nothing in {', '.join(collections) or 'no collection'} holds it"))
                ),
                todo="add the collection that holds it to the inputs, or let the task that makes it run too",
            )


def _places(maker: str | None, done: Collection[str], request: Request) -> Sequence[str]:
    if maker is None:
        return request.inputs
    return (*request.skip_existing_in, *request.repair) if maker in done else ()


def _exists(registry: Snapshot, dataset_type: str, collections: Sequence[str]) -> bool:
    try:
        return bool(registry.datasets(dataset_type, collections).height)
    except NotFound:
        registry.flatten(collections)  # a collection that does not exist is an error of its own
        return False
