"""The demos: the whole of Loadmaster on a simulated sky whose truth is known, and on real images."""

from importlib.util import find_spec

from loadmaster_registry.errors import ConfigError

_SCIENCE = ("ccdproc", "matplotlib", "photutils", "reproject")  # what the shipped tasks compute with

if _absent := [name for name in _SCIENCE if find_spec(name) is None]:
    raise ConfigError(
        what="the demo has nothing to compute with",
        where="the Python environment",
        why=f"not installed: {', '.join(_absent)}",
        todo="pip install 'loadmaster[science]'",
    )

from .real import run_real_demo  # noqa: E402 (after the look at what they import)
from .simulated import run_demo  # noqa: E402

__all__ = ["run_demo", "run_real_demo"]
