"""What opening a plan costs: its summary and the manifest of one job, in a fresh process.

    python benchmarks/opening.py PLAN

Prints one JSON line: seconds and peak memory, imports told apart.
"""

import json
import sys
import time
from pathlib import Path


def main(path: str) -> None:
    begin = time.perf_counter()
    from loadmaster_planner.plan import Plan

    imported = time.perf_counter()
    before = peak_mib()
    plan = Plan.open(path)
    quanta = sum(line.quanta for line in plan.summary)
    job = plan.job(plan.n_jobs // 2)
    done = time.perf_counter()
    print(
        json.dumps(
            {
                "open_s": done - imported,
                "imports_s": imported - begin,
                "open_mib": peak_mib(),
                "imports_mib": before,
                "open_quanta": quanta,
                "job_inputs": sum(len(found) for quantum in job.quanta for found in quantum.inputs.values()),
            }
        )
    )


def peak_mib() -> float:
    """Return this program's own peak: what `getrusage` tells begins with that of the process it was forked from."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


if __name__ == "__main__":
    main(sys.argv[1])
