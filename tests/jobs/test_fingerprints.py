"""Tests that a change of a stage's code comes with a decision: a raised version, or a recorded statement that the output stays the same."""

from __future__ import annotations

from shared.artifacts.fingerprint import current, recorded


def test_changed_code_has_a_new_version_or_someones_word() -> None:
    now, before = current(), recorded()
    changed = [
        f"jobs/{stage}.py: the code of this stage, or of a module that it imports, has changed (its version is {now[stage]['version']}). "
        f"If its output differs for the same inputs, raise the version of {stage} in shared/config/stages.py; either way run `make fingerprints` and "
        "commit jobs/fingerprints.json."
        for stage in now
        if now[stage] != before.get(stage)
    ]
    gone = [
        f"jobs/fingerprints.json: has {stage}, which is no stage; run `make fingerprints`"
        for stage in before.keys() - now.keys()
    ]
    assert not changed + gone, "\n" + "\n".join(changed + gone)
