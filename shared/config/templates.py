"""Checks the templates of captions and prompts, in which fields in braces stand for labels."""

from __future__ import annotations

import re
from collections.abc import Collection

from shared.config.near import near
from shared.errors import ConfigError

ALL = "labels"
"""Names the field that stands for the phrases of all groups, in group order."""
FIELD = re.compile(r"\{([^{}]*)\}")


def check_template(template: str, groups: Collection[str], setting: str) -> None:
    """Raises ConfigError for a field that is no group, or a brace without a partner."""
    fields = [ALL, *groups]
    for field in FIELD.findall(template):
        if field not in fields:
            raise ConfigError(f"{setting}: {{{field}}} in {template!r} is no label group{near(field, fields)}")
    if re.search("[{}]", FIELD.sub("", template)):
        raise ConfigError(f"{setting}: a brace in {template!r} has no partner; write fields as {{labels}} or {{group}}")
