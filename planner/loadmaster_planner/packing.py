"""Work put together into jobs of a target duration, so that what shares inputs shares a job."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import reverse_cuthill_mckee

from .freeze import QuantumGraph
from .graph import Quanta
from .jobgraph import Ints


def packed_units(
    graph: QuantumGraph,
    quanta: Sequence[Quanta],
    unit: Ints,
    seconds: NDArray[np.float64],
    target_s: float,
) -> Ints:
    """Return the job of each quantum.

    Units are lined up so that those with common inputs stand near each other (the order of Cuthill and McKee [1]_ over
    units and datasets), and the line is cut into jobs that take no longer than the target, if one unit does not.

    Parameters
    ----------
    quanta : sequence of Quanta
        The tasks whose quanta are packed.
    unit : ndarray of int64, shape (n_quanta of all tasks,)
        The unit of each quantum, one task after another.
    seconds : ndarray of float64, shape (n_units,)

    References
    ----------
    .. [1] E. Cuthill and J. McKee, Proc. ACM National Conference (1969) 157, doi:10.1145/800195.805928
    """
    line = _lined_up(*_inputs(graph, quanta, unit), seconds.size)
    job = np.empty(seconds.size, dtype=np.int64)
    job[line] = _cut(seconds[line], target_s)
    first_unit = np.full(int(job.max()) + 1, seconds.size)
    np.minimum.at(first_unit, job, np.arange(seconds.size))
    rank = np.empty(first_unit.size, dtype=np.int64)
    rank[np.argsort(first_unit)] = np.arange(first_unit.size)  # jobs by the data ID of their first unit
    return rank[job[unit]]


def _inputs(graph: QuantumGraph, quanta: Sequence[Quanta], unit: Ints) -> tuple[Ints, Ints]:
    """Return which unit reads which dataset, numbered through all types."""
    offset, n = {}, 0
    for name, table in graph.datasets.items():
        offset[name] = n
        n += table.count
    reader, read, first = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], 0
    for q in quanta:
        for c, edges in q.inputs.items():
            if len(edges):
                reader.append(unit[first + edges.quantum.astype(np.int64)])
                read.append(edges.dataset.astype(np.int64) + offset[q.types[c]])
        first += q.count
    return np.concatenate(reader), np.concatenate(read)


def _lined_up(reader: Ints, read: Ints, n_units: int) -> Ints:
    """Return all units in an order in which sharers of an input are near each other."""
    _, dataset, readers = np.unique(read, return_inverse=True, return_counts=True)
    # What one unit reads, or all do, says nothing of who should be together.
    telling = (readers[dataset] > 1) & (readers[dataset] < n_units)
    if not telling.any():
        return np.arange(n_units)
    _, shared = np.unique(dataset[telling], return_inverse=True)
    rows, columns = reader[telling], n_units + shared
    size = n_units + int(shared.max()) + 1
    ones = np.ones(2 * rows.size, dtype=np.int8)
    both = coo_array((ones, (np.append(rows, columns), np.append(columns, rows))), shape=(size, size))
    order = np.asarray(reverse_cuthill_mckee(both.tocsr(), symmetric_mode=True))
    return order[order < n_units].astype(np.int64)


def _cut(seconds: NDArray[np.float64], target_s: float) -> Ints:
    """Return the number of the stretch of each unit; a stretch is as long as the target allows."""
    ends = np.cumsum(seconds)
    starts = [0]
    while starts[-1] < seconds.size:
        begun = ends[starts[-1] - 1] if starts[-1] else 0.0
        fits = int(np.searchsorted(ends, begun + target_s * (1 + 1e-9), side="right"))
        starts.append(max(fits, starts[-1] + 1))
    return np.repeat(np.arange(len(starts) - 1), np.diff(starts))
