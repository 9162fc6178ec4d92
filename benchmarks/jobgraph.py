"""What the graph of jobs costs: dependencies put in order, levels, critical path, wall time on slots.

    python benchmarks/jobgraph.py [--jobs N] [--slots N]

Four shapes, each with N jobs. The last line is JSON: seconds by shape and step.
"""

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from loadmaster_planner.jobgraph import JobGraph
from numpy.typing import NDArray

Pairs = NDArray[np.int64]
STEPS = ("graph", "levels", "critical_path", "simulate")


def chain(n: int, _: np.random.Generator) -> Pairs:
    """Each job needs the one before it."""
    return np.stack([np.arange(1, n), np.arange(n - 1)], axis=1)


def lanes(n: int, _: np.random.Generator) -> Pairs:
    """Forty chains side by side: levels too narrow for arrays to pay."""
    return np.stack([np.arange(40, n), np.arange(n - 40)], axis=1)


def release(n: int, random: np.random.Generator) -> Pairs:
    """The shape of a data release: detectors, visits, warps, coadds, tracts, with gathers between them."""
    bounds = (np.array([0, 0.45, 0.5, 0.9, 0.99, 1]) * n).astype(np.int64)
    pairs = []
    for first, middle, last in zip(bounds, bounds[1:], bounds[2:], strict=False):
        job = np.repeat(np.arange(middle, last), max(3, (middle - first) // (last - middle)))
        pairs.append(np.stack([job, random.integers(first, middle, job.size)], axis=1))
    return np.unique(np.concatenate(pairs), axis=0)


def tangle(n: int, random: np.random.Generator) -> Pairs:
    """Each job needs three that came before it, no matter which."""
    job = random.integers(1, n, 3 * n)
    return np.unique(np.stack([job, (job * random.random(job.size)).astype(np.int64)], axis=1), axis=0)


def timed(action: Callable[[], Any]) -> tuple[Any, float]:
    begin = time.perf_counter()
    result = action()
    return result, round(time.perf_counter() - begin, 3)


def measured(n: int, pairs: Pairs, duration_s: NDArray[np.float64], slots: int) -> dict[str, float]:
    """Return seconds of each step, and facts of the graph."""
    job, needs = np.ascontiguousarray(pairs[:, 0]), np.ascontiguousarray(pairs[:, 1])
    graph, graph_s = timed(lambda: JobGraph(n, job, needs))
    levels, levels_s = timed(graph.levels)
    path, path_s = timed(lambda: graph.critical_path(duration_s))
    wall, wall_s = timed(lambda: graph.simulate(duration_s, slots))
    facts = {"dependencies": len(pairs), "n_levels": int(levels.max()) + 1, "path_s": path, "wall_s": wall}
    return dict(zip(STEPS, (graph_s, levels_s, path_s, wall_s), strict=True)) | facts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=1_000_000)
    parser.add_argument("--slots", type=int, default=1000)
    asked = parser.parse_args()
    random = np.random.default_rng(1)
    duration_s = random.uniform(10, 100, asked.jobs)
    print(
        f"{'shape':>8} {'dependencies':>12} {'levels':>8} " + " ".join(f"{step + ' s':>15}" for step in STEPS)
    )
    results = {}
    for shape in (chain, lanes, release, tangle):
        found = measured(asked.jobs, shape(asked.jobs, random), duration_s, asked.slots)
        results[shape.__name__] = {step: found[step] for step in STEPS}
        times = " ".join(f"{found[step]:15.2f}" for step in STEPS)
        print(f"{shape.__name__:>8} {found['dependencies']:12} {found['n_levels']:8} {times}")
    print(json.dumps({"jobs": asked.jobs, "slots": asked.slots, "seconds": results}))


if __name__ == "__main__":
    main()
