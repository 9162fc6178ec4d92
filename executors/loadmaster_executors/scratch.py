"""How much of a site's scratch jobs need. It is known before they run, so that they wait, and never fill the disk.

A job needs what it said of its disk, and at least what is copied to it together with what it said of its outputs.
"""

from collections.abc import Iterable

import polars as pl
from loadmaster_pipelines.resources import Resources
from loadmaster_planner.plan import Plan
from loadmaster_registry.errors import RunError
from loadmaster_staging.location import local_path
from loadmaster_staging.manifest import InputFile, Staging

_MIB = 1 << 20


def scratch_need(asked: Resources, inputs: Iterable[InputFile], staging: Staging) -> int:
    """Return how many bytes a job's folder may come to hold; -1 where nobody said."""
    copied = [
        f.size_bytes for f in {f.dataset_id: f for f in inputs if f.url}.values() if _is_copied(f, staging)
    ]
    known = -1 if asked.disk_mib is None else asked.disk_mib * _MIB
    if asked.output_mib is None or min(copied, default=0) < 0:
        return known
    return max(known, sum(copied) + asked.output_mib * _MIB)


def refuse_too_large(plan: Plan, staging: Staging, site: str = "") -> None:
    """Refuse a plan with jobs that can never run within the site's scratch.

    Raises
    ------
    RunError
        Naming some of them.
    """
    if staging.scratch_bytes < 0:
        return
    jobs = plan.job_table(site).join(_copied(plan, staging), on="job", how="left")
    declared = pl.max_horizontal(pl.col("disk_mib"), pl.col("output_mib")).fill_null(0) * _MIB
    together = pl.col("copied").fill_null(0) + pl.col("output_mib").fill_null(0) * _MIB
    jobs = jobs.with_columns(need=pl.max_horizontal(declared, together))
    jobs = jobs.filter(pl.col("need") > staging.scratch_bytes).sort("need", descending=True)
    if jobs.height:
        largest = [
            f"{plan.job(j).name} ({need / 1e9:.3g} GB)" for j, need in jobs["job", "need"].head(5).rows()
        ]
        raise RunError(
            what=f"{jobs.height} jobs need more scratch than the site has in all",
            where="; ".join(largest),
            why=f"all jobs together may use {staging.scratch_bytes / 1e9:.3g} GB there (scratch_bytes)",
            todo="run at a site with a larger disk, let inputs come by links or a cache (`transfer`), make clusters "
            "smaller, or correct what the tasks declare (disk_mib, output_mib)",
        )


def _copied(plan: Plan, staging: Staging) -> pl.DataFrame:
    """Return ``job`` and ``copied``: the bytes of existing inputs that are copied to its folder."""
    pieces = [
        pl.DataFrame(schema={"job": pl.Int64, "type": pl.String, "dataset": pl.Int64, "size": pl.Int64})
    ]
    for task in plan.header.tasks if staging.transfer == "copy" else ():
        for c in task.connections:
            files = plan.datasets(c.dataset_type) if c.edges and not c.is_output else pl.DataFrame()
            if "size_bytes" in files.columns:
                edges = plan.edges(task.label, c.name)
                job = plan.jobs_of(task.label)[edges["quantum"].to_numpy()]
                size = files["size_bytes"].cast(pl.Int64).gather(edges["dataset"])
                dataset = edges["dataset"].cast(pl.Int64)
                pieces.append(
                    pl.DataFrame({"job": job, "type": c.dataset_type, "dataset": dataset, "size": size})
                )
    unique = pl.concat(pieces, how="vertical_relaxed").unique(["job", "type", "dataset"])
    return unique.filter(pl.col("size") > 0).group_by("job").agg(copied=pl.col("size").sum())


def _is_copied(file: InputFile, staging: Staging) -> bool:
    """Whether the bytes of a file come into the job's folder: not what is linked, or stays in the cache."""
    if staging.transfer == "cache":
        return 0 <= staging.cache_bytes < file.size_bytes
    return staging.transfer == "copy" or local_path(file.url) is None
