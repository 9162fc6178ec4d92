"""Loadmaster plans survey processing, carries each job's inputs to it, and brings its outputs home.

Start with a repository::

    from loadmaster import Repo

    repo = Repo("survey")
    plan = repo.plan("drp.yaml", inputs=["HSC/defaults"], output="u/me/test", where="tract=9813 AND patch=40")
    run = plan.submit()
    run.wait()

Each name is loaded when it is first used: the command line starts quickly, and a module of tasks that says
``from loadmaster import Task`` does not bring the database into every job.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from loadmaster_pipelines.connections import InitInput, InitOutput, Input, Output, Prerequisite
    from loadmaster_pipelines.task import Inputs, NoWork, Outputs, Resources, Task, TaskConfig
    from loadmaster_registry.errors import (
        ConfigError,
        Conflict,
        Error,
        NotFound,
        PipelineError,
        PlanError,
        QueryError,
        RegistryError,
        RunError,
        StageError,
    )

    from .astropy_tables import astropy_table
    from .plan import Plan
    from .repo import Repo
    from .run import Run

_HOME = {
    "Repo": "loadmaster.repo",
    "Plan": "loadmaster.plan",
    "Run": "loadmaster.run",
    "astropy_table": "loadmaster.astropy_tables",
    **dict.fromkeys(
        ["Inputs", "NoWork", "Outputs", "Resources", "Task", "TaskConfig"], "loadmaster_pipelines.task"
    ),
    **dict.fromkeys(
        ["InitInput", "InitOutput", "Input", "Output", "Prerequisite"], "loadmaster_pipelines.connections"
    ),
}
_ERRORS = "loadmaster_registry.errors"

__all__ = [
    "ConfigError",
    "Conflict",
    "Error",
    "InitInput",
    "InitOutput",
    "Input",
    "Inputs",
    "NoWork",
    "NotFound",
    "Output",
    "Outputs",
    "PipelineError",
    "Plan",
    "PlanError",
    "Prerequisite",
    "QueryError",
    "RegistryError",
    "Repo",
    "Resources",
    "Run",
    "RunError",
    "StageError",
    "Task",
    "TaskConfig",
    "astropy_table",
]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME.get(name, _ERRORS)), name)


def __dir__() -> list[str]:
    return __all__
