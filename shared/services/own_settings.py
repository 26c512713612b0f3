"""Hides from this process, and from those that it starts, the settings of other servers that would reach our own.

libpq reads `PG*` variables, and boto3 `AWS_*`, its files in `~/.aws` and the proxies. A person sets them for servers of theirs. Our own on
loopback need none of them: `DATABASE_URL`, and the variables of SeaweedFS, say all. Not all can be overridden by a parameter
(`PGTZ`, `PGSERVICE`), so the variables go for as long as our servers are used.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

LOOPBACK = "127.0.0.1"
OF_STORES = ("TAILFILL_S3_ADDRESSING", "TAILFILL_CA_FILE")


@contextmanager
def own_settings(database: bool, store: bool) -> Iterator[None]:
    """Hides the settings of other databases if the database is our own, and those of other S3 servers if the store is, until the block ends.

    The proxies stay for the hub, which is elsewhere; they are not used for loopback.
    """
    before = dict(os.environ)
    hidden = [
        name
        for name in before
        if (database and name.startswith("PG")) or (store and (name.startswith("AWS_") or name in OF_STORES))
    ]
    changed: dict[str, str] = {}
    if store:
        changed |= {"AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull}
        direct = before.get("no_proxy") or before.get("NO_PROXY") or ""
        if direct.strip() != "*":  # means everything, but only if it stands alone
            changed |= dict.fromkeys(("no_proxy", "NO_PROXY"), f"{direct},{LOOPBACK}".strip(","))
    for name in hidden:
        del os.environ[name]
    os.environ.update(changed)
    try:
        yield
    finally:
        for name in {*hidden, *changed}:
            os.environ.pop(name, None)
            if name in before:
                os.environ[name] = before[name]
