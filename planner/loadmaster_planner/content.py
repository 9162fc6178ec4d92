"""Quanta whose result is there already: the same code and configuration once made it from the same inputs.

An earlier quantum stands for a planned one if both are of one task (by its label) and one data ID, because that is
handed to the code and names the outputs, and if their code, configuration and declared environment have the same
digests. By *provenance* their inputs must be the very same datasets. By *content* they may be others, of the same
type and data ID by the same connection, with the same digest of content; what has none is the same only as itself.
Inputs that somebody must make first have neither, so whatever reads them is planned.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from loadmaster_pipelines.pipeline import Pipeline, TaskNode
from loadmaster_registry.provenance import NO_INPUTS, QUANTUM_DIGESTS, input_keys
from loadmaster_registry.snapshot import Snapshot
from numpy.typing import NDArray

from .earlier import WELL_ENDED, earlier_idle, earlier_outputs
from .graph import Part, keep_quanta
from .prerequisites import find_prerequisites
from .request import Request

_INPUT = {"row": pl.UInt32, "connection": pl.String, "dataset": pl.Int64, "dataset_type": pl.String}


@dataclass
class _Progress:
    """What is known of the datasets while tasks are gone through downstream."""

    existing: dict[str, NDArray[np.int64]]  # the registry's row ids, −1 for none
    anew: dict[str, NDArray[np.bool_]]  # a planned quantum will make it
    reused: dict[str, NDArray[np.int64]]  # outputs of earlier quanta that stand for planned ones


def without_the_same(registry: Snapshot, pipeline: Pipeline, part: Part, request: Request) -> Part:
    """Take out the quanta that an earlier one stands for; its outputs serve others as input, and are listed.

    Parameters
    ----------
    part : Part
        Only quanta that could run if nothing were done.
    """
    tables = part.datasets.items()
    so_far = _Progress(
        existing={name: table.existing.copy() for name, table in tables},
        anew={name: np.zeros(table.count, dtype=bool) for name, table in tables},
        reused={},
    )
    quanta, done = {}, {}
    for task in pipeline.tasks.values():
        before = part.quanta[task.label]
        outputs = _standing_for(registry, task, part, request, so_far)
        is_done = np.zeros(before.count, dtype=bool)
        is_done[outputs["row"].to_numpy()] = True
        _take_over(task, outputs, so_far)
        for c in task.outputs:
            edges = before.outputs[c.name]
            so_far.anew[c.dataset_type][edges.dataset[~is_done[edges.quantum]]] = True
        quanta[task.label] = keep_quanta(before, ~is_done)
        done[task.label] = int(is_done.sum())
    datasets = {name: replace(table, existing=so_far.existing[name]) for name, table in tables}
    counts = {label: n for label, n in done.items() if n}
    return replace(part, quanta=quanta, datasets=datasets, done=counts, reused=so_far.reused)


def _take_over(task: TaskNode, outputs: pl.DataFrame, so_far: _Progress) -> None:
    """Note which datasets stand for outputs."""
    for c in task.outputs:
        mine = outputs.filter(pl.col("connection") == c.name).sort("place")
        if mine.height:
            so_far.existing[c.dataset_type][mine["place"].to_numpy()] = mine["dataset"].to_numpy()
            so_far.reused[c.dataset_type] = mine["dataset"].to_numpy()


def _standing_for(
    registry: Snapshot, task: TaskNode, part: Part, request: Request, so_far: _Progress
) -> pl.DataFrame:
    """Return the outputs of earlier quanta that stand for planned ones, as `earlier_outputs` does."""
    where = request.skip_existing_in
    ours = (task.code_digest, task.config_digest, task.environment_digest)
    digests = dict(zip(QUANTUM_DIGESTS, ours, strict=True))
    outputs = pl.concat(
        [
            earlier_outputs(registry, task, part, where, digests),
            earlier_idle(registry, task, part, where, digests),
        ]
    ).filter(pl.col("status").is_in(WELL_ENDED))
    outputs = _complete(task, part, outputs)
    if not outputs.height:
        return outputs
    pairs = outputs.group_by("row", "quantum").agg(pl.col("rank").min(), pl.col("inputs_key").first())
    inputs = _inputs(registry, task, part, request, so_far, pairs["row"].unique())
    same = _with_same_inputs(registry, pairs, inputs, by_content=request.skip_existing == "content")
    first = same.sort("row", "rank", "quantum").unique("row", keep="first")
    return outputs.join(first.select("row", "quantum"), on=["row", "quantum"], how="semi")


def _complete(task: TaskNode, part: Part, outputs: pl.DataFrame) -> pl.DataFrame:
    """Keep the earlier quanta that made all that the planned one would make, or nothing for want of work."""
    planned = part.quanta[task.label]
    wanted = np.zeros(planned.count, dtype=np.int64)
    for c in task.outputs:
        wanted += np.bincount(planned.outputs[c.name].quantum, minlength=planned.count)
    made = pl.col("place").n_unique().over("row", "quantum", "connection").alias("made")
    per_pair = (
        outputs.with_columns(made)
        .unique(["row", "quantum", "connection"])
        .group_by("row", "quantum")
        .agg(pl.col("made").sum(), (pl.col("status") == "no_work").any().alias("idle"))
    )
    enough = per_pair["idle"] | (
        per_pair["made"].cast(pl.Int64) == pl.Series(wanted[per_pair["row"].to_numpy()])
    )
    kept = outputs.join(per_pair.filter(enough), on=["row", "quantum"], how="semi", maintain_order="left")
    return kept.sort("rank").unique(["row", "quantum", "connection", "place"], keep="first")


def _inputs(
    registry: Snapshot,
    task: TaskNode,
    part: Part,
    request: Request,
    so_far: _Progress,
    rows: pl.Series,
) -> pl.DataFrame:
    """Return the stored datasets that some planned quanta read; `dataset` is null for what is to be made first."""
    quanta = part.quanta[task.label]
    pieces = [pl.DataFrame(schema=_INPUT)]
    for c in task.inputs:
        edges = quanta.inputs[c.name]
        stored = so_far.existing[c.dataset_type][edges.dataset]
        there = (stored >= 0) | so_far.anew[c.dataset_type][edges.dataset]
        pieces.append(_input_frame(c.name, c.dataset_type, edges.quantum[there], stored[there]))
    if task.prerequisites:
        found = find_prerequisites(registry, task, part, request.inputs, request.overrides)
        for name, f in found.items():
            stored = f.datasets["dataset"].to_numpy()[f.edges.dataset]
            pieces.append(_input_frame(name, f.dataset_type, f.edges.quantum, stored))
    return pl.concat(pieces).join(rows.to_frame("row"), on="row", how="semi")


def _input_frame(
    connection: str, dataset_type: str, rows: NDArray[np.uint32], stored: NDArray[np.int64]
) -> pl.DataFrame:
    frame = pl.DataFrame({"row": rows.astype(np.uint32), "dataset": stored})
    known = pl.when(pl.col("dataset") >= 0).then(pl.col("dataset"))
    return frame.select(
        "row",
        pl.lit(connection).alias("connection"),
        known.alias("dataset"),
        pl.lit(dataset_type).alias("dataset_type"),
    )


def _with_same_inputs(
    registry: Snapshot, pairs: pl.DataFrame, inputs: pl.DataFrame, *, by_content: bool
) -> pl.DataFrame:
    """Keep the pairs of a planned and an earlier quantum that read the same."""
    with_key = pairs.join(_keys(registry, pairs, inputs), on="row", how="left")
    is_same = pl.col("inputs_key") == pl.col("own_key")
    same = with_key.filter(is_same).drop("own_key")
    others = with_key.filter(~is_same.fill_null(False)).drop("own_key")
    if not by_content or not others.height:
        return same
    inputs = inputs.join(others, on="row", how="semi")
    read = registry.inputs_of(others["quantum"].unique())
    contents = content_classes(registry, [inputs, read])
    return pl.concat([same, _agreeing(others, _by_class(inputs, contents), _by_class(read, contents))])


def _keys(registry: Snapshot, pairs: pl.DataFrame, inputs: pl.DataFrame) -> pl.DataFrame:
    """Return the key of the inputs of each planned quantum, as those that ran have it; null where some are to come."""
    ids = registry.files(inputs["dataset"].drop_nulls().unique()).select("dataset", "id")
    named = inputs.join(ids, on="dataset", how="left").select("row", "connection", "id")
    unknown = named.filter(pl.col("id").is_null()).select("row").unique()
    whole = named.join(unknown, on="row", how="anti").unique()
    keys = input_keys(whole, "row").rename({"inputs_key": "own_key"})
    rows = pairs.select("row").unique().join(unknown, on="row", how="anti")
    return rows.join(keys, on="row", how="left").with_columns(pl.col("own_key").fill_null(NO_INPUTS))


def _agreeing(pairs: pl.DataFrame, inputs: pl.DataFrame, read: pl.DataFrame) -> pl.DataFrame:
    """Keep the pairs for which both sides hold the same datasets, as often, by the same connections."""
    key = ["connection", "dataset"]
    ours = inputs.group_by("row", *key).len("n")
    theirs = read.group_by("quantum", *key).len("n")
    both = (
        pairs.select("row", "quantum")
        .join(ours, on="row")
        .join(theirs, on=["quantum", *key, "n"], how="semi")  # a null is equal to nothing
        .group_by("row", "quantum")
        .len("common")
    )
    counted = (
        pairs.join(both, on=["row", "quantum"], how="left")
        .join(ours.group_by("row").len("ours"), on="row", how="left")
        .join(theirs.group_by("quantum").len("theirs"), on="quantum", how="left")
        .with_columns(pl.col("common", "ours", "theirs").fill_null(0))
    )
    agree = (pl.col("common") == pl.col("ours")) & (pl.col("common") == pl.col("theirs"))
    return counted.filter(agree).select(pairs.columns)


def content_digest() -> pl.Expr:
    """Return the digest by which files are compared: what says which run made it is not of a file's content."""
    return pl.coalesce("content", "checksum").alias("content")


def content_classes(registry: Snapshot, frames: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """Tell which datasets have the same content.

    Parameters
    ----------
    frames : sequence of DataFrame
        With ``dataset`` and ``dataset_type``.

    Returns
    -------
    classes : DataFrame
        ``dataset``, ``class``: equal for datasets of one type and data ID with one digest of content.
    """
    whole = pl.concat([f.select("dataset", "dataset_type") for f in frames]).drop_nulls().unique()
    found = [pl.DataFrame(schema={"dataset": pl.Int64, "class": pl.Int64})]
    for (name,), rows in whole.group_by("dataset_type"):
        ids = registry.data_ids(str(name), rows["dataset"])
        files = registry.files(ids["dataset"]).select("dataset", content_digest())
        known = ids.join(files, on="dataset")
        agree = [c for c in known.columns if c != "dataset"]
        first = pl.when(pl.col("content").is_not_null()).then(pl.col("dataset").min().over(agree))
        found.append(known.select("dataset", first.fill_null(pl.col("dataset")).alias("class")))
    return pl.concat(found)


def _by_class(inputs: pl.DataFrame, classes: pl.DataFrame) -> pl.DataFrame:
    return inputs.join(classes, on="dataset", how="left").with_columns(dataset=pl.col("class")).drop("class")


def reused_rows(registry: Snapshot, parts: Sequence[Part], run: str) -> Mapping[str, pl.DataFrame]:
    """Return the reused datasets by type, but for those that are in `run` already: halves of ids, and checksum."""
    found: dict[str, pl.DataFrame] = {}
    for part in parts:
        for name, datasets in part.reused.items():
            files = registry.files(pl.Series("dataset", datasets)).filter(pl.col("run") != run)
            if files.height:
                ids = np.frombuffer(b"".join(files["id"].to_list()), dtype=">u8").reshape(-1, 2)
                halves = {f"id_{half}": ids[:, i].astype(np.uint64) for i, half in enumerate(("hi", "lo"))}
                found[name] = pl.DataFrame({**halves, "checksum": files["checksum"]})
    return found
