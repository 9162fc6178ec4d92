"""The demos: the whole of Loadmaster on a simulated sky whose truth is known, and on real images."""

from .real import run_real_demo
from .simulated import run_demo

__all__ = ["run_demo", "run_real_demo"]
