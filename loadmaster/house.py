"""Keeping house: is everything there, what may go, what goes, and how long the rest stays."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID

import polars as pl
from loadmaster_registry import retention
from loadmaster_registry.errors import ConfigError
from loadmaster_registry.removal import Removed
from loadmaster_registry.store import Registry, utc_now
from loadmaster_staging import fsck, removal
from loadmaster_staging.backbone import Backbone
from loadmaster_staging.fsck import GRACE_S, Findings
from loadmaster_staging.removal import Collected, Emptied

from .submit import reused_by

_DAY_S = 86_400.0


class House:
    """What keeps a repository in order."""

    def __init__(self, registry: Registry, backbone: Backbone) -> None:
        self._registry = registry
        self._backbone = backbone

    def check(self, *, deep: bool = False, grace_s: float = GRACE_S) -> Findings:
        """Compare the registry with the files; see `loadmaster_staging.fsck.check`."""
        return fsck.check(self._registry, self._backbone, deep=deep, grace_s=grace_s)

    def repair(self, findings: Findings) -> Findings:
        """Mend what can be mended without losing a byte; see `loadmaster_staging.fsck.repair`."""
        return fsck.repair(self._registry, self._backbone, findings)

    def delete(
        self, ids: Sequence[UUID], *, force: bool = False, reason: str = "", dry_run: bool = False
    ) -> tuple[Removed, Emptied]:
        """Remove datasets with their files; see `loadmaster_staging.removal.delete_datasets`."""
        return removal.delete_datasets(
            self._registry, self._backbone, ids, force=force, reason=reason, dry_run=dry_run
        )

    def remove(self, names: Sequence[str], *, unlink: bool = False, force: bool = False) -> None:
        """Remove collections, runs with the tags of what they reuse.

        See `loadmaster_staging.removal.remove_collections`.
        """
        tags = [reused_by(name) for name in names]
        more = [tag for tag in tags if tag not in names and self._registry.collections(tag)]
        removal.remove_collections(self._registry, [*names, *more], unlink=unlink, force=force)

    def collect(self, *, dry_run: bool = False) -> Collected:
        """Remove what nobody needs any more; see `loadmaster_staging.removal.collect`."""
        return removal.collect(self._registry, self._backbone, dry_run=dry_run)

    def policies(self, glob: str = "*") -> pl.DataFrame:
        """List whose collections are, and how long they stay; see `loadmaster_registry.retention.policies`."""
        with self._registry.snapshot() as now:
            return retention.policies(now, glob)

    def set_policy(
        self,
        name: str,
        *,
        retention_class: str | None = None,
        expires: str | None = None,
        owner: str | None = None,
    ) -> None:
        """Say how long a collection stays, and whose it is; what is not given stays.

        Parameters
        ----------
        retention_class : {"permanent", "standard", "temporary"}, optional
        expires : str, optional
            ``30d`` for days from now, a date or time (ISO, UTC), or ``never``.
        owner : str, optional
            A user's name; "" for nobody's.

        Raises
        ------
        NotFound, RegistryError, ConfigError
            If there is no such collection, class or instant, or they contradict each other.
        """
        instant = None if expires is None else _instant(expires)
        with self._registry.transaction() as write:
            retention.set_policy(write, name, retention=retention_class, expires=instant, owner=owner)


def _instant(text: str) -> str:
    """Return the instant that is meant, as the registry writes it; "" for never."""
    if text == "never":
        return ""
    if days := re.fullmatch(r"(\d+)d", text):
        return utc_now(int(days[1]) * _DAY_S)
    try:
        given = datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigError(
            what=f"{text!r} is no time at which something can expire",
            where="the time of expiry",
            why=str(error),
            todo="write 30d, a date like 2027-01-31, or never",
        ) from error
    return f"{given.replace(tzinfo=given.tzinfo or UTC).astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
