"""Plan again what an earlier plan asked for, in a run of its own."""

import loadmaster_planner.plan as planner
from loadmaster_planner.replan import pipeline_of, replan, request_of
from loadmaster_planner.request import Request, SkipExisting

from .plan import Plan
from .repo import Repo
from .submit import request_digest


def planned_again(
    repo: Repo,
    old: planner.Plan,
    *,
    skip_existing: SkipExisting | None = None,
    skip_existing_in: tuple[str, ...] = (),
) -> Plan:
    """Return the plan that the request of `old` gives now; where `old` was begun, for a new run.

    Parameters
    ----------
    skip_existing : {"exists", "provenance", "content"}, optional
        Instead of what `old` says.
    skip_existing_in : tuple of str
        Instead of what `old` says, which by default is its output.

    Raises
    ------
    PlanError
        If the code of a task is not what it was, or as planning does.
    """
    request = request_of(old)
    policy = skip_existing or request.skip_existing
    within = skip_existing_in or request.skip_existing_in or (request.output or request.output_run,)
    new = replan(
        repo.registry,
        old,
        output_run=_run(repo, request),
        skip_existing=policy,
        skip_existing_in=within if policy else (),
    )
    return Plan(repo, new, request_digest(pipeline_of(new), request_of(new), new.header.clustering))


def _run(repo: Repo, request: Request) -> str:
    """Return the name of the run: that of the request, unless it was begun."""
    begun = repo.registry.collections(request.output_run)
    return repo.new_run(request.output) if begun and request.output else request.output_run
