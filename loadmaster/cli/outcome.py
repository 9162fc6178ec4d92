"""How a command ends: the exit codes, and errors as text on stderr."""

import traceback
from collections.abc import Iterator

import click
from loadmaster_registry.errors import Error, StageError

DONE, FAILED, USAGE, REFUSED = 0, 1, 2, 3


def tell_error(error: Exception) -> int:
    """Tell a person what went wrong, and return the code to exit with.

    An error of Loadmaster is its four parts, never a traceback; all of a group are told. Anything else is a
    defect, of which the traceback is the best account.
    """
    leaves = list(_leaves(error))
    if all(isinstance(leaf, Error) for leaf in leaves):
        for leaf in leaves:
            _tell(str(leaf))
        return FAILED if any(isinstance(leaf, StageError) for leaf in leaves) else REFUSED
    if len(leaves) == 1 and isinstance(leaves[0], OSError):
        _tell(_system_error(leaves[0]))
        return FAILED
    traceback.print_exception(error)
    _tell(
        "this should not have happened\n"
        "  why: Loadmaster has a defect, or its environment does\n"
        "  do: report it with the lines above; a run that was going on goes on with the same command"
    )
    return FAILED


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


def _tell(text: str) -> None:
    first, _, rest = text.partition("\n")
    click.echo(f"{click.style('error:', fg='red', bold=True)} {first}", err=True)
    if rest:
        click.echo(rest, err=True)


def _system_error(error: OSError) -> str:
    return (
        f"{error.strerror or error}\n  where: {error.filename or 'not told'}\n"
        "  why: the operating system refused\n  do: see to it, then give the same command again"
    )
