"""Implements `tailfill gc`: lists what no study in a store needs, and removes it."""

from __future__ import annotations

import json
from pathlib import Path

from shared.artifacts.garbage import OLD_SECONDS, Garbage, find_garbage, remove_garbage
from shared.log import duration
from shared.pipeline.stored import opened_store

SHOWN = 20  # objects of each kind in the text; --json has all


def gc(location: str | None, workdir: Path | None, delete: bool, as_json: bool) -> str:
    """Returns the text for stdout; raises ConfigError if the location is wrong, and the errors of the store."""
    with opened_store(location, workdir) as opened:
        garbage = find_garbage(opened.store)
        removed = remove_garbage(opened.store, garbage) if delete else None
        return _json(opened.store.url, garbage, removed) if as_json else describe(opened.store.url, garbage, removed)


def describe(url: str, garbage: Garbage, removed: int | None) -> str:
    """Returns the result as text; `removed` counts the blobs that were removed, and is None if none should be."""
    lines = [f"{url}: {garbage.manifests} results name {garbage.named} blobs"]
    lines += [f"{url}/{b.key}: {b.size} bytes, {duration(b.age)} old" for b in garbage.blobs[:SHOWN]]
    if len(garbage.blobs) > SHOWN:
        lines.append(f"and {len(garbage.blobs) - SHOWN} others, which --json lists")
    lines += [f"{url}/{w.key}: an unfinished write, {duration(w.age)} old" for w in garbage.uploads[:SHOWN]]
    if len(garbage.uploads) > SHOWN:
        lines.append(f"and {len(garbage.uploads) - SHOWN} other unfinished writes, which --json lists")
    what = f"{len(garbage.blobs)} blobs ({garbage.bytes / 2**20:,.1f} MiB) that no result names, and {len(garbage.uploads)} unfinished writes"
    if removed is None:
        anything = garbage.blobs or garbage.uploads or garbage.interrupted
        lines.append(f"{what}{'; --delete removes them' if anything else ''}")
    else:
        lines.append(f"removed {removed} of {what}")
    if garbage.interrupted:
        ended = (
            "those that a result names were put back" if removed is not None else "--delete puts back what is needed"
        )
        lines.append(
            f"{garbage.interrupted} blobs are in removed/, of a `gc --delete` that was killed or is at work: {ended}"
        )
    if garbage.young:
        lines.append(
            f"{garbage.young} other blobs that no result names stay, as they are younger than {duration(OLD_SECONDS)}"
        )
    return "\n".join(lines)


def _json(url: str, garbage: Garbage, removed: int | None) -> str:
    return json.dumps(
        {
            "store": url,
            "results": garbage.manifests,
            "named": garbage.named,
            "young": garbage.young,
            "interrupted": garbage.interrupted,
            "blobs": [blob._asdict() for blob in garbage.blobs],
            "bytes": garbage.bytes,
            "unfinished": [write._asdict() for write in garbage.uploads],
            "removed": removed,
        }
    )
