"""What the quanta of a run used, read from its journal: what later runs are estimated from."""

from collections.abc import Mapping

import numpy as np
import polars as pl
from loadmaster_planner.plan import Plan
from numpy.typing import NDArray

from .run import RunFolder

_PER_TASK = 10_000  # jobs that are looked at, evenly spaced among all: the spread does not change with more
_USAGE = {"job": pl.Int64, "wall_s": pl.Float64, "peak_memory_mib": pl.Float64}
_SHARE = {"job": pl.Int64, "task": pl.String, "share_s": pl.Float64}


def usage(run: RunFolder) -> pl.DataFrame:
    """Return what quanta of jobs that are done used, up to 10 000 jobs a task.

    A job's time counts whole, staging included: its quanta share it as their own times are to each other.

    Returns
    -------
    usage : DataFrame
        ``task``, ``wall_s``, ``peak_memory_mib`` (of its job); a row a quantum.
    """
    tasks = _tasks(run.plan)
    sampled = [int(job) for jobs in tasks.values() for job in _spaced(np.unique(jobs))]
    jobs = sorted(set(sampled))
    done = pl.DataFrame(run.journal.usage(jobs), schema=_USAGE, orient="row")
    several = pl.DataFrame(run.journal.shares(jobs), schema=_SHARE, orient="row")
    quanta = pl.concat([_single(tasks, run.plan.n_jobs), several])
    part = pl.when(pl.col("share_s").sum() > 0).then(pl.col("share_s") / pl.col("share_s").sum())
    return done.join(quanta, on="job").select(
        "task", pl.col("wall_s") * part.otherwise(1 / pl.len()).over("job"), "peak_memory_mib"
    )


def _tasks(plan: Plan) -> dict[str, NDArray[np.int64]]:
    return {task.label: plan.jobs_of(task.label) for task in plan.header.tasks}


def _spaced(jobs: NDArray[np.int64]) -> NDArray[np.int64]:
    return jobs[:: max(1, -(-jobs.size // _PER_TASK))]


def _single(tasks: Mapping[str, NDArray[np.int64]], n_jobs: int) -> pl.DataFrame:
    """Return the task of each job that has one quantum: it has all of the job's time."""
    quanta = np.zeros(n_jobs, dtype=np.int64)
    for jobs in tasks.values():
        quanta += np.bincount(jobs, minlength=n_jobs)
    pieces = [
        pl.DataFrame({"job": jobs[quanta[jobs] == 1]}).with_columns(task=pl.lit(label), share_s=pl.lit(1.0))
        for label, jobs in tasks.items()
    ]
    return pl.concat([pl.DataFrame(schema=_SHARE), *pieces])
