"""The output chain: what a person who names the output collection sees, newest run first, inputs last."""

from collections.abc import Sequence

from loadmaster_registry.errors import Conflict


def output_chain(
    output: str,
    run: str,
    inputs: Sequence[str],
    children: Sequence[str] = (),
    *,
    reused: str = "",
    rebase: bool = False,
) -> tuple[str, ...]:
    """Return the children of `output` once `run` starts: this run, older runs of the same output, `inputs`.

    What the run reuses comes right after it.

    Parameters
    ----------
    inputs : sequence of str
        Input collections, chains opened.
    children : sequence of str
        What `output` holds now; empty where it does not exist yet.
    reused : str
        The TAGGED collection of earlier datasets that stand for outputs of the run; empty where there are none.
    rebase : bool
        Put `inputs` in the place of those from which older runs were made. Of what the chain holds now, the
        runs called ``output/…`` stay.

    Raises
    ------
    Conflict
        If `output` rests on other inputs and `rebase` does not allow to replace them.
    """
    own_parts = (run, reused) if reused else (run,)
    inputs = [name for name in inputs if name not in own_parts]
    rests_on = [child for child in children if child not in own_parts]
    older = rests_on[: max(0, len(rests_on) - len(inputs))]
    if rests_on[len(older) :] == inputs or not children:
        return (*own_parts, *older, *inputs)
    if rebase:
        own = [c for c in rests_on if c.startswith(f"{output}/") and c not in inputs]
        return (*own_parts, *own, *inputs)
    raise Conflict(
        what=f"{output!r} was made from other inputs",
        where=f"output collection {output!r}",
        why=f"it holds {', '.join(rests_on)}, not ending with the inputs {', '.join(inputs) or 'none'}",
        todo="choose another output collection, or put it on the new inputs (--rebase)",
    )
