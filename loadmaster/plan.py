"""A plan in the hands of a person: it shows itself, is written to a file, and is submitted."""

from pathlib import Path
from typing import TYPE_CHECKING

import loadmaster_planner.plan as planner

from .run import Run
from .tables import Table, plan_table

if TYPE_CHECKING:
    from .repo import Repo
