"""The command line: `loadmaster VERB …`. A command parses, calls one function, prints.

A command's module is loaded when it is asked for, and no other: `loadmaster --help` or a misspelt verb need
neither Polars nor SQLAlchemy nor Astropy, and nobody should wait for them.
"""

import importlib
import logging
import sys
from collections.abc import Sequence

import click
from loadmaster_registry.errors import did_you_mean

from .outcome import DONE, FAILED, USAGE, tell_error

# section → verb → (module that holds it, its promise); a test compares the promises with the commands' own.
COMMANDS: dict[str, dict[str, tuple[str, str]]] = {
    "Repository": {
        "init": ("repository", "Make a new repository in a folder."),
        "import": ("repository", "Load Rubin export files: records, collections, datasets."),
        "ingest": ("repository", "Take raw frames into the repository."),
        "register-skymap": ("repository", "Register a sky map with its tracts and patches."),
        "certify": ("repository", "Give calibrations a range of validity."),
    },
    "Keeping house": {
        "delete": ("house", "Remove datasets with their files."),
        "collection": ("house", "Say how long collections stay and whose they are; remove them."),
        "gc": (
            "house",
            "Remove what nobody needs any more: expired collections, datasets of removed runs, the trash.",
        ),
        "fsck": (
            "fsck",
            "Compare the registry with the files: missing, orphaned, of wrong size or checksum.",
        ),
    },
    "Questions": {
        "query-data-ids": ("query", "List the data IDs over some dimensions."),
        "query-datasets": ("query", "List the datasets of one type."),
        "query-collections": ("query", "List collections and what chains hold."),
        "query-dimension-records": ("query", "List the records of one dimension element."),
        "dataset": ("dataset", "Look at single datasets."),
        "unpack": ("unpack", "Unpack undeclared files that `--junk keep` brought home into a new folder."),
        "what-is": ("what_is", "Say what a file is, what made it, and from what, by its header alone."),
        "query-flags": ("flag", "List what is flagged, since when, and why."),
        "check-where": ("check", "Check an expression without running it."),
    },
    "Observations": {
        "metadata": ("metadata", "Set values of observations that change, and see their history."),
        "flag": ("flag", "Flag observations: plans leave them out unless told otherwise."),
        "unflag": ("flag", "Take flags off; the history keeps them."),
    },
    "Work": {
        "pipeline": ("pipeline", "Look at pipelines."),
        "plan": ("work", "Plan what a pipeline will do, and show it."),
        "show": (
            "show",
            "Show a plan: its tasks and dataset types, some quanta, shards, one quantum or job.",
        ),
        "estimate": ("estimate", "Estimate what a plan costs: core hours, wall time, bytes, files, scratch."),
        "replan": ("replan", "Plan again what a plan asked for, and show what is different."),
        "submit": ("work", "Start the run of a saved plan and wait for it."),
        "run": ("work", "Plan, submit and wait; after an interruption, go on."),
        "status": ("work", "Say how far runs are."),
        "report": ("work", "Say what a run did, and why what failed failed."),
        "log": ("log", "Show what a quantum wrote to stdout and stderr."),
        "why": ("why", "Say why a quantum is run: what differs from the nearest earlier one."),
    },
    "Site": {
        "cache": ("cache", "Fill a site's cache, look at it, verify it, clear it."),
    },
    "First steps": {
        "demo": ("demo", "See it all work on a simulated sky, or on real images."),
        "version": ("version", "Say which version this is."),
    },
}
_MODULES = {verb: module for section in COMMANDS.values() for verb, (module, _) in section.items()}


class Commands(click.Group):
    """The verbs, each loaded when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the verbs in the order in which a newcomer needs them."""
        return list(_MODULES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Load the module that holds the verb."""
        if cmd_name not in _MODULES:
            return None
        module = importlib.import_module(f"{__name__}.{_MODULES[cmd_name]}")
        command: click.Command = getattr(module, f"{cmd_name.replace('-', '_')}_command")
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the verb, or say which one was perhaps meant."""
        if args[0] not in _MODULES and not args[0].startswith("-"):
            ctx.fail(f"there is no command {args[0]!r}; {did_you_mean(args[0], _MODULES)}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the verbs and promises without loading any."""
        for section, verbs in COMMANDS.items():
            with formatter.section(section):
                formatter.write_dl([(verb, promise) for verb, (_, promise) in verbs.items()])


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("-v", "--verbose", is_flag=True, help="Say on stderr what goes on.")
def loadmaster(verbose: bool) -> None:
    """Plan survey processing, carry each job's inputs to it, bring its outputs home.

    Results go to stdout, talk to stderr. Exit codes: 0 done, 1 failed, 2 wrong usage, 3 refused before
    anything was started.
    """
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING,
        format="%(asctime)s %(levelname)s %(message)s",
        stream=sys.stderr,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; whatever goes wrong becomes a message and an exit code."""
    try:
        return loadmaster.main(arguments, prog_name="loadmaster", standalone_mode=False) or DONE
    except click.ClickException as error:
        error.show()
        return USAGE
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        return FAILED
    except Exception as error:
        return tell_error(error)
