"""How fast finished jobs come home: reports on disk, files published, rows in SQLite, the run's journal written.

    python benchmarks/harvest.py [--jobs N] [--outputs N] [--inputs N] [--backbone FOLDER]

Beside it, on the same rows, what SQLite takes for bare inserts, and the file system for bare links. The last line
is JSON; times are the least of several rounds, and `cpu_…` beside wall times does not grow with other load.

Rubin's own, measured once on an idle machine of this kind: 1 250 datasets a second by `transfer-from-graph`, 340 by
`aggregate-graph`, 215 with provenance.
"""

import argparse
import json
import os
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import polars as pl
from loadmaster_executors.controller import HARVEST_JOBS
from loadmaster_executors.endings import keep_logs, write_endings
from loadmaster_executors.journal import Attempt, JobState, Journal
from loadmaster_pipelines.connections import Connection
from loadmaster_registry.records import DatasetType
from loadmaster_registry.store import Registry
from loadmaster_staging.backbone import Backbone
from loadmaster_staging.harvest import Harvested, Reported, harvest, open_run
from loadmaster_staging.manifest import (
    InputFile,
    Manifest,
    OutputFile,
    QuantumReport,
    QuantumSpec,
    Report,
    Staging,
    outcome_of,
)
from loadmaster_staging.shards import Shards
from loadmaster_staging.stage import WrittenFile, read_report, send_log, stage_out, write_report

RUN = "bench/run"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=4000)
    parser.add_argument("--outputs", type=int, default=10, help="of each job")
    parser.add_argument("--inputs", type=int, default=3, help="of each job")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--backbone", type=Path, default=None, help="a folder for the files")
    asked = parser.parse_args()
    rounds = [measured_round(asked) for _ in range(asked.rounds)]
    best = {name: min(r[name] for r in rounds) for name in rounds[0]}
    figures = summary(best, asked)
    for name, value in figures.items():
        print(f"{name:>24}  {value}")
    print(json.dumps(figures))


def measured_round(asked: argparse.Namespace) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="loadmaster-harvest-", dir=asked.backbone) as name:
        folder = Path(name)
        registry, backbone, types = survey(folder, asked.jobs, asked.outputs)
        manifests = [manifest(backbone, i, asked) for i in range(asked.jobs)]
        work = folder / "work"
        work.mkdir()
        for each in manifests:
            run_job(each, work)
        journal = Journal.create(folder / "journal.sqlite3", asked.jobs, {})
        with journal.batch():
            journal.move(range(asked.jobs), JobState.READY)
            journal.start(Attempt(m.job, 1, m.token) for m in manifests)
            journal.move(range(asked.jobs), JobState.FINISHED)
        wall_s, cpu_s = timed(lambda: bring_home(manifests, registry, backbone, types, journal))
        n_found = sum(registry.datasets(name, [RUN]).height for name in types)
        if n_found != asked.jobs * asked.outputs or backbone.staged_names(backbone.staging_url(RUN, "t")):
            raise SystemExit(f"only {n_found} datasets came home")
        registry.close()
        bare_s, _ = timed(lambda: bare_inserts(folder / "registry.sqlite3", folder / "bare.sqlite3"))
        links_s, _ = timed(lambda: bare_links(folder / "files" / RUN, folder / "linked"))
    return {"wall_s": wall_s, "cpu_s": cpu_s, "bare_s": bare_s, "links_s": links_s}


def summary(best: dict[str, float], asked: argparse.Namespace) -> dict[str, Any]:
    n_datasets = asked.jobs * asked.outputs
    n_rows = 3 * n_datasets + asked.jobs * (1 + asked.inputs)
    return {
        "jobs": asked.jobs,
        "datasets": n_datasets,
        "wall_s": round(best["wall_s"], 3),
        "cpu_s": round(best["cpu_s"], 3),
        "jobs_per_s": round(asked.jobs / best["wall_s"]),
        "datasets_per_s": round(n_datasets / best["wall_s"]),
        "datasets_per_cpu_s": round(n_datasets / best["cpu_s"]),
        "bare_sqlite_rows_per_s": round(n_rows / best["bare_s"]),
        "bare_sqlite_s": round(best["bare_s"], 3),
        "bare_links_s": round(best["links_s"], 3),
        "over_bare": round(best["wall_s"] / (best["bare_s"] + best["links_s"]), 2),
    }


def bring_home(
    manifests: Sequence[Manifest],
    registry: Registry,
    backbone: Backbone,
    types: dict[str, DatasetType],
    journal: Journal,
) -> None:
    """Do what a controller does with jobs that have ended, in its batches."""
    logs = Shards(str(journal.path.parent / "logs"), ".txt")

    def record(ends: Sequence[Harvested]) -> None:
        kept = keep_logs(ends, backbone, logs)
        with journal.batch():
            write_endings(journal, ends, kept)

    for start in range(0, len(manifests), HARVEST_JOBS):
        jobs = [
            Reported(m, report)
            for m in manifests[start : start + HARVEST_JOBS]
            if (report := read_report(m.staging_url, m.token)) is not None
        ]
        harvest(jobs, registry, backbone, types, record)


def survey(folder: Path, n_jobs: int, n_types: int) -> tuple[Registry, Backbone, dict[str, DatasetType]]:
    registry = Registry.create(str(folder / "registry.sqlite3"))
    keys = pl.DataFrame({"instrument": ["Bench"] * n_jobs, "detector": range(n_jobs)})
    with registry.transaction() as transaction:
        transaction.insert_records("instrument", pl.DataFrame({"instrument": ["Bench"]}))
        names = keys["detector"].cast(pl.String).alias("full_name")
        transaction.insert_records("detector", keys.with_columns(names))
    group = registry.universe.group(("instrument", "detector"))
    types = {f"result{i}": DatasetType(f"result{i}", group, "Bytes") for i in range(n_types)}
    open_run(registry, RUN, types.values())
    return registry, Backbone(str(folder / "files")), types


def manifest(backbone: Backbone, number: int, asked: argparse.Namespace) -> Manifest:
    data_id: dict[str, int | str] = {"instrument": "Bench", "detector": number}
    names = [f"result{i}" for i in range(asked.outputs)]
    paths = [f"{RUN}/{name}/{name}_Bench_{number}.bin" for name in names]
    quantum = QuantumSpec(
        id=str(uuid4()),
        task="nothing",
        task_class="a.b",
        command=None,
        config={},
        data_id=data_id,
        connections=(Connection("raw", "input", "raw", "Bytes"),),
        inputs=tuple(
            InputFile("raw", str(uuid4()), "raw", data_id, f"/raw/{i}") for i in range(asked.inputs)
        ),
        outputs=tuple(
            OutputFile(name, str(uuid4()), name, data_id, path)
            for name, path in zip(names, paths, strict=True)
        ),
        code_digest="sha256:" + "c" * 64,
        config_digest="sha256:" + "d" * 64,
    )
    url = f"{backbone.staging_url(RUN, 't')}/{number // 1000:06d}/{number}.1"
    return Manifest(RUN, number, 1, f"token{number}", url, Staging(), 1, (quantum,))


def run_job(manifest: Manifest, work: Path) -> None:
    """Leave what the job runner leaves."""
    (spec,) = manifest.quanta
    written = []
    for file in spec.outputs:
        path = work / file.path.rsplit("/", 1)[1]
        path.write_bytes(b"%d" % manifest.job)
        written.append(WrittenFile(file.dataset_id, path))
    staged = tuple(stage_out(written, manifest.staging_url))
    (work / "log").write_text("INFO nothing: there is nothing to do\n")
    log = send_log(work / "log", manifest.staging_url, ".log-0.txt")
    quantum = QuantumReport(spec.id, "succeeded", outputs=staged, log=log, wall_s=1.0)
    when = "2026-11-24T12:00:00.000Z"
    facts = (when, when, 1.0, 1.0, 100.0)
    report = Report(RUN, manifest.job, 1, manifest.token, outcome_of([quantum]), (quantum,), "host", *facts)
    write_report(report, manifest.staging_url)


def bare_inserts(registry: Path, copy: Path) -> None:
    """Insert the same rows into the same tables, with their indices, by bare executemany in one transaction."""
    source, target = sqlite3.connect(registry), sqlite3.connect(copy, isolation_level=None)
    target.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;")
    written = ("dataset", "file", "data_id_%", "quantum", "quantum_input")
    for sql in definitions(source, written):
        target.execute(sql)
    target.execute("BEGIN")
    for (table,) in tables(source, written):
        rows = source.execute(f"SELECT * FROM {table}").fetchall()
        if rows:
            marks = ", ".join("?" * len(rows[0]))
            target.executemany(f"INSERT INTO {table} VALUES ({marks})", rows)
    target.execute("COMMIT")
    source.close()
    target.close()


def tables(source: sqlite3.Connection, written: Sequence[str]) -> list[tuple[str]]:
    where = " OR ".join("name LIKE ?" for _ in written)
    return source.execute(
        f"SELECT name FROM sqlite_master WHERE type = 'table' AND ({where})", written
    ).fetchall()


def definitions(source: sqlite3.Connection, written: Sequence[str]) -> Iterator[str]:
    where = " OR ".join("tbl_name LIKE ?" for _ in written)
    order = "ORDER BY type = 'index'"
    query = f"SELECT sql FROM sqlite_master WHERE sql IS NOT NULL AND ({where}) {order}"
    yield from (sql for (sql,) in source.execute(query, written))


def bare_links(files: Path, target: Path) -> None:
    """Give each file a second name, then take that away again."""
    target.mkdir()
    names = [entry.path for folder in os.scandir(files) for entry in os.scandir(folder.path)]
    for number, name in enumerate(names):
        os.link(name, f"{target}/{number}")
    for number in range(len(names)):
        os.unlink(f"{target}/{number}")  # noqa: PTH108 (bare, as the link is)


def timed(act: Callable[[], object]) -> tuple[float, float]:
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    act()
    return time.perf_counter() - wall_s, time.process_time() - cpu_s


if __name__ == "__main__":
    main()
