"""Holds the layouts of public data sets, with what a person expects of each."""

from __future__ import annotations

from tests.support.public_layouts.boxes import BOXES
from tests.support.public_layouts.folders import FOLDERS
from tests.support.public_layouts.left_out import LEFT_OUT
from tests.support.public_layouts.lists import LISTS
from tests.support.public_layouts.nested_folders import NESTED_FOLDERS
from tests.support.public_layouts.several_labels import SEVERAL_LABELS
from tests.support.public_layouts.tables import TABLES
from tests.support.public_layouts.tables_and_folders import TABLES_AND_FOLDERS

PUBLIC_LAYOUTS = [*FOLDERS, *NESTED_FOLDERS, *TABLES, *SEVERAL_LABELS, *TABLES_AND_FOLDERS, *LEFT_OUT, *LISTS, *BOXES]
