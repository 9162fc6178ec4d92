"""Descriptions that come with Loadmaster: instruments, sky maps."""

from pathlib import Path

from loadmaster_pipelines.loader import SHIPPED
from loadmaster_registry.errors import NotFound, did_you_mean


def shipped(kind: str, name: str | Path) -> Path:
    """Return the path of a YAML file: as given, or of the one that Loadmaster ships under this name."""
    path, own = Path(name), SHIPPED / kind / f"{name}.yaml"
    if path.exists() or not own.is_relative_to(SHIPPED):
        return path
    if own.is_file():
        return own
    raise NotFound(
        what=f"there is no file {str(name)!r}",
        where=str(path.absolute()),
        why=f"nor is one of the shipped {kind} called so",
        todo=f"correct the path; of the shipped ones: {did_you_mean(str(name), _stems(SHIPPED / kind))}",
    )


def _stems(folder: Path) -> list[str]:
    return [path.stem for path in folder.glob("*.yaml")]
