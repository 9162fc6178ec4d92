"""Every error raised on purpose.

Error > ConfigError | RegistryError > (Conflict, NotFound, QueryError) | PipelineError | PlanError
      | StageError > PerhapsStaged | RunError

A class says whether the act surely did not happen (all of these) or perhaps did (`PerhapsStaged`): only after
the first may one retry or clean up without looking.
"""

import difflib
import re
from collections.abc import Iterable

# Passwords in URLs, and what signs a URL or stands for its user: messages end up in logs and tickets.
_SECRET = re.compile(
    r"(://[^\s/@:]*:)[^\s/@]+(?=@)"
    r"|([?&](?:[\w-]*(?:Signature|Credential|Security-Token|AccessKeyId)|sig|token|secret|password)=)[^\s&\"']+",
    re.IGNORECASE,
)


class Error(Exception):
    """Catch this to catch everything that is raised on purpose."""

    def __init__(self, what: str, where: str, why: str, todo: str) -> None:
        # All four, so that it survives pickling between processes.
        super().__init__(*(_SECRET.sub(r"\1\2***", text) for text in (what, where, why, todo)))

    def __str__(self) -> str:
        what, where, why, todo = self.args
        return f"{what}\n  where: {where}\n  why: {why}\n  do: {todo}"


class ConfigError(Error):
    """A file that a person wrote (YAML, configuration) is not what it should be."""


class RegistryError(Error):
    """The registry refuses; nothing was written."""


class Conflict(RegistryError):  # noqa: N818
    """The same name or data ID stands in the registry with another definition."""


class NotFound(RegistryError):  # noqa: N818
    """What was asked for is not in the registry."""


class QueryError(RegistryError):
    """A query or `where` expression cannot be understood."""


class PipelineError(Error):
    """The pipeline contradicts itself or cannot be loaded."""


class PlanError(Error):
    """The request cannot be planned; nothing was touched."""


class StageError(Error):
    """Bytes could not be moved, or are not what was promised; nothing became visible."""


class PerhapsStaged(StageError):  # noqa: N818
    """A transfer broke off after its last byte: look before doing it again."""


class RunError(Error):
    """A run cannot be started, continued or asked."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a suggestion for a misspelt `name`, or the known names where none is near."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    if near:
        return f"did you mean {' or '.join(repr(n) for n in near)}?"
    shown = ", ".join(names[:20]) + (", …" if len(names) > 20 else "")
    return f"known: {shown}" if names else "there are none yet"
