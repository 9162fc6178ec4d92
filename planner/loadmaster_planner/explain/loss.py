"""Say in words how a quantum that everything admits was lost: done already, or without an input, down to the root."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from loadmaster_pipelines.connections import Connection
from loadmaster_registry.errors import NotFound
from loadmaster_registry.snapshot import Snapshot
from numpy.typing import NDArray

from ..graph import Datasets, Part, positions, quantum_data_id
from .funnel import Outcome, available_datasets
from .restrictions import Component, done_name

DataId = Mapping[str, int | str]


def done_text(registry: Snapshot, component: Component, label: str, data_id: DataId) -> str:
    """Say where it is seen that a quantum is done."""
    request = component.request
    if request.repair:
        return f"it is left out by {done_name(request)}"
    keep = {d: [value] for d, value in data_id.items()}
    outputs = [c.dataset_type for c in component.pipeline.tasks[label].outputs]
    for name in (f"{label}_metadata", *outputs):
        try:
            held = registry.datasets(name, request.skip_existing_in, keep=keep)
        except NotFound:
            continue
        if held.height:
            run = registry.files(held["dataset"].head(1))["run"][0]
            return f"it is done already: {name} is in run {run}"
    return f"it is done already in {', '.join(request.skip_existing_in)}, where it found nothing to do"


@dataclass(frozen=True)
class _Search:
    """Where the inputs of lost quanta are looked for."""

    component: Component
    outcome: Outcome
    available: Mapping[str, NDArray[np.bool_]]  # datasets that exist or will be made

    def reasons(self, label: str, row: int) -> Iterator[str]:
        """Say what a quantum lacks, and then what became of what should have made it."""
        part = self.outcome.remaining
        for c in self.component.pipeline.tasks[label].inputs:
            edges = part.quanta[label].inputs[c.name]
            linked = edges.dataset[edges.quantum == row]
            there = self.available[c.dataset_type][linked]
            if there.sum() < c.minimum:
                yield self._lacks(label, row, c, int(there.sum()), linked.size)
                if linked.size >= c.minimum:
                    yield from self._origin(c, int(linked[~there][0]))
                return

    def _lacks(self, label: str, row: int, connection: Connection, n_there: int, n_linked: int) -> str:
        part = self.outcome.remaining
        quantum = _said(quantum_data_id(part.quanta[label], part.axes, row))
        has = f"has {n_there} of the {n_linked} that go with it" if n_linked else "none goes with it"
        return (
            f"{label} {quantum} needs at least {connection.minimum} {connection.dataset_type!r} "
            f"({connection.name}) and {has}"
        )

    def _origin(self, connection: Connection, dataset: int) -> Iterator[str]:
        """Say why a dataset is missing."""
        name, request = connection.dataset_type, self.component.request
        table = self.outcome.candidates.datasets[name]
        said = f"{name} {_dataset(table, self.outcome.candidates, dataset)}"
        producer = next(
            (
                (task.label, c)
                for task in self.component.pipeline.tasks.values()
                for c in task.outputs
                if c.dataset_type == name
            ),
            None,
        )
        if producer is None:
            yield f"{said} is in none of {', '.join(request.inputs)}"
            return
        label, output = producer
        edges = self.outcome.candidates.quanta[label].outputs[output.name]
        makers = edges.quantum[edges.dataset == dataset]
        if not makers.size:
            yield f"no quantum of {label} that is wanted makes {said}"
            return
        place = self._place(label, int(makers[0]))
        if place < 0:
            where = ", ".join((*request.skip_existing_in, *request.repair))
            yield f"{label} counts as done in {where}, but its {said} is not there"
            return
        yield from self.reasons(label, place)

    def _place(self, label: str, candidate: int) -> int:
        """Return where a candidate is among the quanta that are not done; −1 where it is done."""
        before, after = self.outcome.candidates.quanta[label], self.outcome.remaining.quanta[label]
        if not after.count or not before.codes.width:
            return after.count - 1
        return int(positions(before.codes[[candidate]], after.codes, self.outcome.candidates.axes)[0])


def dropped_texts(component: Component, outcome: Outcome, label: str, row: int) -> tuple[str, ...]:
    """Say what a quantum lacks, then what removed what would have made that, down to the root.

    Parameters
    ----------
    row : int
        Of the quantum, among those that are left when the done ones are out.
    """
    available = available_datasets(component.pipeline, outcome.finished)
    return tuple(_Search(component, outcome, available).reasons(label, row))


def _dataset(table: Datasets, part: Part, row: int) -> str:
    axes = part.axes
    return _said(
        {
            d: axes.values[d][int(table.codes[d][row]) if d in table.codes.columns else 0]
            for d in table.dimensions
        }
    )


def _said(data_id: DataId) -> str:
    return " ".join(f"{d}={value}" for d, value in data_id.items())
