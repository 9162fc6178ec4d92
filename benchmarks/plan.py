"""How fast is planning? A synthetic survey of growing size, beside lsst.pipe.base on the same survey in the same run.

    python benchmarks/plan.py --quanta 10000000 --peer /path/to/python-with-lsst-pipe-base

Prints, for each size, the rate and what opening the plan costs; for the size of `--detail`, beside the peer, where
the time goes, the floor of bare columnar joins, and what smaller questions cost. Seconds are wall time, pipeline and
registry open already, until the plan file is on disk; the CPU's seconds stand beside them. The last line is JSON.
"""

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import floor
import ours
import survey as synthetic
from loadmaster_pipelines.pipeline import Pipeline
from loadmaster_planner.plan import Plan
from loadmaster_planner.planner import make_plan
from loadmaster_planner.request import Request
from loadmaster_registry.store import Registry
from opening import peak_mib
from rich.console import Console
from rich.table import Table
from stages import watched

REQUEST = Request(ours.INPUTS, "out", where=synthetic.WHERE)
PATCH = replace(REQUEST, where=f"{synthetic.WHERE} AND tract=0 AND patch=27", allow_partial_gather=True)
VISITS = ("isr", "calibrate", "summarize")
T = TypeVar("T")


@dataclass(frozen=True)
class Measured:
    """One planning of one size, by us or by the peer."""

    quanta: int
    edges: int
    seconds: float
    cpu_s: float
    peak_mib: float
    digests: dict[str, str]

    @property
    def quanta_per_s(self) -> float:
        """The rate."""
        return self.quanta / self.seconds


def main() -> None:
    """Measure each size in a process of its own, so that peak memory is its own too."""
    options = arguments().parse_args()
    if options.fill:
        ours.fill(ours.new_registry(Path(options.fill)), synthetic.survey_of(options.quanta))
        return
    if options.one:
        print(json.dumps(measure(Path(options.one), options.quanta, options.detail)))
        return
    rows = []
    for size in sizes(options.quanta):
        command = [sys.executable, __file__, "--quanta", str(size), "--detail", str(options.detail), "--one"]
        rows.append((size, run(command)))
    theirs = None
    if options.peer:
        raw = run([options.peer, str(Path(__file__).with_name("peer_plan.py"))], str(options.detail))
        theirs = Measured(**raw)
    report(rows, theirs, options.detail)


def arguments() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument(
        "--quanta", type=int, default=100_000, help="the largest size; 10 000 and × 10 before"
    )
    parser.add_argument("--detail", type=int, default=100_000, help="the size that is looked at more closely")
    parser.add_argument("--peer", metavar="PYTHON", help="interpreter of an environment with lsst-pipe-base")
    parser.add_argument("--one", metavar="FOLDER", help=argparse.SUPPRESS)
    parser.add_argument("--fill", metavar="FOLDER", help=argparse.SUPPRESS)
    return parser


def sizes(largest: int) -> Iterator[int]:
    """Count up to the largest size."""
    size = 10_000
    while size < largest:
        yield size
        size *= 10
    yield largest


def run(command: list[str], *more: str) -> dict[str, Any]:
    """Run `command FOLDER more…` with a fresh folder; return the JSON of its last line."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run([*command, folder, *more], stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def measure(folder: Path, quanta: int, detail: int) -> dict[str, Any]:
    """Plan, write the plan, and open it in a process of its own; look closer at one size.

    The registry is filled by another process, so that this one's peak of memory is planning's.
    """
    subprocess.run([sys.executable, __file__, "--quanta", str(quanta), "--fill", str(folder)], check=True)
    registry = ours.registry_in(folder)
    pipeline = ours.pipeline_in(folder, registry)
    plan, seconds, cpu_s = clocked(lambda: planned(registry, pipeline, REQUEST, folder / "plan"))
    peak = peak_mib()
    edges = sum(c.edges for task in plan.header.tasks for c in task.connections)
    n_quanta = sum(task.quanta for task in plan.header.tasks)
    digests = {label: digest(plan, label) for label in synthetic.TASKS} if quanta == detail else {}
    found: dict[str, Any] = {"ours": asdict(Measured(n_quanta, edges, seconds, cpu_s, peak, digests))}
    found["file_mib"] = (folder / "plan").stat().st_size / 2**20
    if quanta == detail:
        found |= closer(folder, registry, pipeline, plan, quanta)
    del plan
    return found | opened(folder / "plan")


def planned(registry: Registry, pipeline: Pipeline, request: Request, path: Path) -> Plan:
    """Plan and write."""
    plan = make_plan(registry, pipeline, request)
    plan.write(path)
    return plan


def opened(path: Path) -> dict[str, Any]:
    """Open a plan in a fresh process."""
    script = str(Path(__file__).with_name("opening.py"))
    done, process_s, _ = clocked(
        lambda: subprocess.run(
            [sys.executable, script, str(path)], stdout=subprocess.PIPE, text=True, check=True
        )
    )
    return {**json.loads(done.stdout), "open_process_s": process_s}


def closer(folder: Path, registry: Registry, pipeline: Pipeline, plan: Plan, quanta: int) -> dict[str, Any]:
    """Measure stages, floor, an irrelevant dimension, one patch, and planning again when all is done."""
    with watched() as spent:
        _, warm_s, warm_cpu_s = clocked(lambda: planned(registry, pipeline, REQUEST, folder / "again"))
    given = floor.tables(synthetic.survey_of(quanta))
    (rows, edges), floor_s, floor_cpu_s = clocked(lambda: floor.joined(given))
    expected = sum(t.quanta for t in plan.header.tasks), sum(_regular_edges(plan))
    if (rows, edges) != expected:
        raise SystemExit(f"the floor makes {rows} quanta and {edges} edges, the plan {expected}")
    visits = pipeline.subset(VISITS)
    wider = replace(REQUEST, where=f"{synthetic.WHERE} AND tract >= 0", allow_partial_gather=True)
    plain_s = best_s(lambda: make_plan(registry, visits, REQUEST))
    wider_s = best_s(lambda: make_plan(registry, visits, wider))
    patch = make_plan(registry, pipeline, PATCH)
    patch_s = best_s(lambda: make_plan(registry, pipeline, PATCH))
    first_s = best_s(lambda: make_plan(registry, pipeline, REQUEST))
    ours.finish(registry, plan, "done")
    done = replace(REQUEST, skip_existing="exists", skip_existing_in=("done",))
    if n_jobs := make_plan(registry, pipeline, done).n_jobs:
        raise SystemExit(f"{n_jobs} jobs are planned again, although all is done")
    again_s = best_s(lambda: make_plan(registry, pipeline, done))
    return {
        "stages": dict(spent), "warm_s": warm_s, "warm_cpu_s": warm_cpu_s,
        "floor_s": floor_s, "floor_cpu_s": floor_cpu_s,
        "visits_s": plain_s, "visits_with_tract_s": wider_s,
        "patch_quanta": sum(t.quanta for t in patch.header.tasks), "patch_s": patch_s,
        "first_again_s": first_s, "all_done_s": again_s,
    }  # fmt: skip


def _regular_edges(plan: Plan) -> Iterator[int]:
    for task in plan.header.tasks:
        for c in task.connections:
            if c.name not in synthetic.PREREQUISITES.get(task.label, {}):
                yield c.edges


def clocked(act: Callable[[], T]) -> tuple[T, float, float]:
    """Return what `act` returns, its seconds, and its CPU seconds in all threads."""
    begin, cpu = time.perf_counter(), time.process_time()
    result = act()
    return result, time.perf_counter() - begin, time.process_time() - cpu


def best_s(act: Callable[[], object]) -> float:
    """Return the least of five times: the others tell of what else the machine does."""
    return min(clocked(act)[1] for _ in range(5))


def report(rows: list[tuple[int, dict[str, Any]]], theirs: Measured | None, detail: int) -> None:
    """Print the tables, and the figures as JSON."""
    console = Console(width=130)
    table = Table(
        "quanta", "edges", "seconds", "CPU s", "quanta/s", "peak MiB", "file MiB", "open s", "open MiB"
    )
    for _, found in rows:
        one = Measured(**found["ours"])
        table.add_row(
            f"{one.quanta:,}", f"{one.edges:,}", f"{one.seconds:.3f}", f"{one.cpu_s:.3f}",
            f"{one.quanta_per_s:,.0f}", f"{one.peak_mib:,.0f}", f"{found['file_mib']:,.0f}",
            f"{found['open_s']:.3f}", f"{found['open_mib']:,.0f}",
        )  # fmt: skip
    console.print(table)
    largest = Measured(**rows[-1][1]["ours"])
    figures: dict[str, Any] = {
        "quanta": largest.quanta, "quanta_per_s": largest.quanta_per_s, "peak_mib": largest.peak_mib,
        "open_s": rows[-1][1]["open_s"], "open_mib": rows[-1][1]["open_mib"],
        "open_process_s": rows[-1][1]["open_process_s"],
    }  # fmt: skip
    for size, found in rows:
        if size == detail:
            figures |= looked_at(console, found, theirs)
    print(json.dumps({name: round(value, 4) for name, value in figures.items()}))


def looked_at(console: Console, found: dict[str, Any], theirs: Measured | None) -> dict[str, Any]:
    """Print what was found about the size that was looked at more closely; return its figures."""
    one = Measured(**found["ours"])
    spent = {**found["stages"]}
    spent["the rest"] = found["warm_s"] - sum(spent.values())
    table = Table("stage", "seconds", "share", title=f"{one.quanta:,} quanta, planned a second time")
    for stage, seconds in spent.items():
        table.add_row(stage, f"{seconds:.3f}", f"{seconds / found['warm_s']:.0%}")
    table.add_row("all", f"{found['warm_s']:.3f}", "100%")
    console.print(table)
    table = Table("question", "seconds", "beside")
    table.add_row(
        "bare joins (the floor)",
        f"{found['floor_s']:.3f}",
        f"{found['warm_s'] / found['floor_s']:.1f} × for all of planning",
    )
    ratio = found["visits_with_tract_s"] / found["visits_s"]
    table.add_row("visits' tasks only", f"{found['visits_s']:.3f}", "")
    table.add_row("the same with tract >= 0", f"{found['visits_with_tract_s']:.3f}", f"{ratio:.2f} ×")
    table.add_row(f"one patch ({found['patch_quanta']} quanta)", f"{found['patch_s']:.3f}", "best of 5")
    again = found["all_done_s"] / found["first_again_s"]
    table.add_row(
        "all done already", f"{found['all_done_s']:.3f}", f"{again:.3f} of {found['first_again_s']:.3f}"
    )
    figures = {
        "detail_quanta": one.quanta, "detail_quanta_per_s": one.quanta_per_s, "floor_s": found["floor_s"],
        "irrelevant_dimension_ratio": ratio, "patch_s": found["patch_s"], "all_done_ratio": again,
    }  # fmt: skip
    if theirs:
        if theirs.digests != one.digests:
            raise SystemExit(f"the graphs differ: {differing(one, theirs)}")
        ratio = one.quanta_per_s / theirs.quanta_per_s
        cpu_ratio = theirs.cpu_s / one.cpu_s
        table.add_row(
            "the peer",
            f"{theirs.seconds:.1f}",
            f"{ratio:,.0f} × ours ({cpu_ratio:,.0f} × of CPU), {theirs.peak_mib:,.0f} MiB",
        )
        figures |= {"peer_quanta_per_s": theirs.quanta_per_s, "ratio": ratio, "cpu_ratio": cpu_ratio}
    console.print(table)
    return figures


def differing(one: Measured, theirs: Measured) -> str:
    """Name the tasks whose quanta or edges are not the same."""
    tasks = [label for label, digest in one.digests.items() if theirs.digests[label] != digest]
    return (
        f"{', '.join(tasks)}; {one.quanta} and {theirs.quanta} quanta, {one.edges} and {theirs.edges} edges"
    )


def digest(plan: Plan, label: str) -> str:
    """Digest a task's quanta with their edges: one JSON line a quantum, [id, inputs, outputs], in order of id."""
    facts = next(task for task in plan.header.tasks if task.label == label)
    ids = plan.quanta(label).select(facts.dimensions).rows()
    lines: list[list[Any]] = [[list(row), {}, {}] for row in ids]
    dimensions = {t.name: t.dimensions for t in plan.header.types}
    for c in facts.connections:
        known = plan.datasets(c.dataset_type).select(dimensions[c.dataset_type]).rows()
        for quantum, dataset in plan.edges(label, c.name).rows():
            lines[quantum][1 + c.is_output].setdefault(c.dataset_type, []).append(list(known[dataset]))
    result = hashlib.sha256()
    for line in lines:
        line[1:] = [{name: sorted(ids) for name, ids in side.items()} for side in line[1:]]
        result.update(json.dumps(line, sort_keys=True, separators=(",", ":")).encode() + b"\n")
    return result.hexdigest()


if __name__ == "__main__":
    main()
