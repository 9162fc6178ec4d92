"""The jobs of a plan: quanta put together, what is handed on in memory, what each job asks for and waits for."""

import polars as pl
from loadmaster_pipelines.batch import Clustering
from loadmaster_pipelines.pipeline import Pipeline

from .clusters import make_jobs
from .elision import elided_types
from .freeze import QuantumGraph
from .header import JobFacts
from .orders import make_orders


def planned_jobs(
    graph: QuantumGraph, pipeline: Pipeline, clustering: Clustering
) -> tuple[JobFacts, dict[str, pl.DataFrame], Pipeline]:
    """Make the jobs of a plan.

    Returns
    -------
    facts : JobFacts
        For the plan's header.
    frames : dict of DataFrame
        Tables of the plan; for a table ``quanta/LABEL`` only its column `job`.
    pipeline : Pipeline
        With the resources that the clustering asks for.

    Raises
    ------
    PipelineError
        If the clustering names tasks or dataset types that the pipeline has not.
    PlanError
        If it cannot be done: see `make_jobs`, `elided_types` and `make_orders`.
    """
    known = clustering.of(pipeline)
    asking = known.applied(pipeline)
    jobs = make_jobs(graph, asking, known)
    elided, notes = elided_types(graph, pipeline, jobs, known)
    orders = make_orders(graph, jobs, known.orders)
    frames = jobs.tables()
    for order in orders:
        frames |= order.tables()
    for label in graph.quanta:
        if (job := jobs.listed(label)) is not None:
            frames[f"quanta/{label}"] = pl.DataFrame({"job": pl.Series(job, dtype=pl.UInt32)})
    facts = JobFacts(
        clusters=jobs.facts(),
        elided=elided,
        orders=tuple(order.facts() for order in orders),
        sites={site: known.resources(pipeline, site) for site in sorted(known.sites)},
        notes=(*known.notes, *notes),
    )
    return facts, frames, asking
