"""Holds the layouts of public data sets, with what a person expects of each."""

from __future__ import annotations

from tests.support.public_layouts.boxes import BOXES
from tests.support.public_layouts.folders import FOLDERS
from tests.support.public_layouts.lists import LISTS
from tests.support.public_layouts.tables import TABLES

PUBLIC_LAYOUTS = [*FOLDERS, *TABLES, *LISTS, *BOXES]
