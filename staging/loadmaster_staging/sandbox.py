"""The sandbox of a job: what its tasks may read and write, put around the process that runs them.

Light: the job runner imports this.
"""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from . import kernel
from .manifest import SandboxMode, Staging
from .seccomp import Listener, is_known_machine, refuse_sockets, tell_of_calls
from .software import CHANGE, OWN, READ, USE, Software, opened, program_rights, software
from .watch import Attempt, Watch, granted

_HOME_FOLDERS = {
    "XDG_CACHE_HOME": ".cache",
    "XDG_CONFIG_HOME": ".config",
    "XDG_DATA_HOME": ".local/share",
    "XDG_STATE_HOME": ".local/state",
    "XDG_RUNTIME_DIR": ".run",
    "MPLCONFIGDIR": ".config/matplotlib",
}


@dataclass(frozen=True)
class Sandbox:
    """What may be done in a job's folder, and how much of that is seen to."""

    asked: SandboxMode
    root: str  # the job's own folder, a real path
    software: Software
    own: Mapping[str, int]  # rights by real path, beside those on software

    def enter(self, *, network: bool) -> tuple[SandboxMode, int | None]:
        """Shut this process in, for good, and return the mode that is in force and a listener for `Watch`.

        Parameters
        ----------
        network : bool
            Whether any quantum of the job may use the network. Where there is a listener, `Watch` tells them apart.
        """
        if self.asked == "off":
            return "off", None
        is_enforced = self.asked == "enforce" and kernel.landlock_abi() > 0
        if is_enforced:
            kernel.drop_capabilities()
            self._restrict(tcp=network)
        listener = self._listener(is_enforced, network)
        if is_enforced:
            return "enforce", listener
        return ("off" if listener is None else "audit"), listener

    def watch(self, mode: SandboxMode, listener: int) -> Watch:
        """Return the watch over what the processes in the sandbox try; not for these processes themselves."""
        is_enforced = mode == "enforce"
        return Watch(Listener(listener), self.software, self.own, self.root, is_enforced=is_enforced)

    def attempts_of(self, path: str) -> tuple[Attempt, ...]:
        """Return what a refusal that Python was given stands for, where there is no watch to say."""
        real = os.path.realpath(path)
        rights = granted(self.software.rights, real) | granted(self.own, real)
        return () if rights & kernel.READ_FILE else (Attempt("read", real),)

    def environment(self) -> dict[str, str]:
        """Return the variables by which libraries find a home that is the job's."""
        temporary = f"{self.root}/{TEMPORARY}"
        found = {"TMPDIR": temporary}
        if self.asked != "off":
            found["HOME"] = temporary
            found.update((name, f"{temporary}/{folder}") for name, folder in _HOME_FOLDERS.items())
        return found

    def _restrict(self, *, tcp: bool) -> None:
        """Let Landlock take all rights but ours; the descriptors that it needs are closed with all others."""
        places = ((opened(path), rights) for path, rights in self.own.items())
        own = (kernel.rule(descriptor, rights) for descriptor, rights in places if descriptor is not None)
        kernel.restrict_files((*self.software.rules, *own), tcp=tcp)

    def _listener(self, is_enforced: bool, network: bool) -> int | None:
        if not is_known_machine():
            return None
        try:
            return tell_of_calls()
        except OSError:  # inside a container that listens itself, or an old kernel: names stay unknown
            if is_enforced and not network:
                refuse_sockets()
            return None


TEMPORARY = "tmp"  # folder of a job's folder


def make_sandbox(
    root: Path, staging: Staging, software: Software, inputs: Mapping[str, Path], commands: Iterable[str]
) -> Sandbox:
    """Return the sandbox of a job whose folder `root` and the folders in it exist.

    Parameters
    ----------
    inputs : mapping
        Staged inputs; those that are symbolic links lead to places that may be read too.
    commands : iterable of str
        Of tasks that have one: what they name as their program is software.
    """
    folder = os.path.realpath(root)
    if staging.sandbox == "off":
        return Sandbox("off", folder, software, {})
    own = {f"{folder}/{name}": rights for name, rights in _OWN_FOLDERS.items()}
    for command in commands:
        own.update(program_rights(command))
    for path in inputs.values():
        if path.is_symlink():
            target = os.path.realpath(path)
            own[target] = READ if Path(target).is_dir() else kernel.READ_FILE
    return Sandbox(staging.sandbox, folder, software, own)


def software_of(staging: Staging, scratch: Path) -> Software:
    """Return the software of a site, which is found once in a process, before it forks."""
    if staging.sandbox == "off":
        return Software({}, (), ())
    return software(staging.software, (*staging.hidden, str(scratch)))


_OWN_FOLDERS = {
    "in": READ,
    "made": USE,  # what earlier quanta made
    "log": CHANGE | kernel.READ_DIR,  # programs write to /dev/stderr, which is a file there
    "out": OWN,
    "work": OWN,
    TEMPORARY: OWN,
}
