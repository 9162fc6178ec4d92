"""The command that shows what a quantum said."""

import click

from ..repo import Repo
from .options import repo_option


@click.command("log")
@click.argument("run")
@click.argument("quantum")
@click.option(
    "--attempt", type=click.IntRange(min=1), help="Of its job.  [default: the last one that said anything]"
)
@repo_option
def log_command(run: str, quantum: str, attempt: int | None, repo: str) -> None:
    """Show what a quantum wrote to stdout and stderr.

    RUN is a run, or an output collection, which means its newest run. QUANTUM is 'isr exposure=1228 detector=41', its
    uuid, or the number of a job that has one quantum.
    """
    with Repo(repo) as opened:
        click.echo(opened.open_run(run).log(quantum, attempt), nl=False)
