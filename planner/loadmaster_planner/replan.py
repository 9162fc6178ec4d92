"""Plan again what an earlier plan asked for, with what the registry holds now."""

from dataclasses import replace
from typing import Any

from loadmaster_pipelines.pipeline import Pipeline
from loadmaster_pipelines.resolve import code_now
from loadmaster_registry.errors import PlanError
from loadmaster_registry.store import Registry

from .plain import clustering_from_json
from .plan import Plan
from .planner import make_plan
from .request import Request


def replan(registry: Registry, plan: Plan, **changes: Any) -> Plan:
    """Return the plan that the same request gives now: the very one that planning from scratch gives.

    Parameters
    ----------
    **changes
        Fields of the request that are to have other values, such as `output_run`.

    Raises
    ------
    PlanError
        If the code of a task is not what it was, or as `make_plan`.
    """
    pipeline = pipeline_of(plan)
    _refuse_other_code(pipeline, plan)
    clustering, _ = clustering_from_json(plan.header.clustering)
    return make_plan(registry, pipeline, replace(request_of(plan), **changes), clustering)


def request_of(plan: Plan) -> Request:
    """Return what was asked when a plan was made."""
    return Request.from_json(plan.header.request)


def pipeline_of(plan: Plan) -> Pipeline:
    """Return the pipeline of a plan as it was before the clustering said what its tasks ask for."""
    _, resources = clustering_from_json(plan.header.clustering)
    tasks = {label: replace(task, resources=resources[label]) for label, task in plan.pipeline.tasks.items()}
    return replace(plan.pipeline, tasks=tasks)


def _refuse_other_code(pipeline: Pipeline, plan: Plan) -> None:
    other = [label for label, task in pipeline.tasks.items() if code_now(task) != task.code_digest]
    if other:
        raise PlanError(
            what=f"the code of {len(other)} tasks is not what it was when the plan was made",
            where=f"plan of {plan.output_run}: {', '.join(other[:10])}{', …' if len(other) > 10 else ''}",
            why="the plan holds the pipeline as it was; other code may read and make other things",
            todo="plan from the pipeline's file (loadmaster plan … --save NEW), and compare: "
            "loadmaster replan OLD --against NEW",
        )
