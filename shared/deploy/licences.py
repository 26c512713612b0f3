"""Says under which licences a model, its pretrained weights and its data stand, for its card and its `config.json`."""

from __future__ import annotations

import re
from typing import Any

from shared.config.near import did_you_mean
from shared.data.sources.table import DrawnSource, source_entry
from shared.deploy.choose import Chosen, Repetition
from shared.errors import ConfigError
from shared.log import Log
from shared.report.pictures import RESTRICTED_SOURCES

log = Log("export")
HUB_IDS = frozenset({
    "afl-3.0", "agpl-3.0", "apache-2.0", "artistic-2.0", "bsd", "bsd-2-clause", "bsd-3-clause", "bsd-3-clause-clear", "bsl-1.0", "c-uda", "cc",
    "cc-by-2.0", "cc-by-2.5", "cc-by-3.0", "cc-by-4.0", "cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nc-nd-3.0", "cc-by-nc-nd-4.0",
    "cc-by-nc-sa-2.0", "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0", "cc-by-nd-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0", "cc0-1.0", "cdla-permissive-1.0",
    "cdla-permissive-2.0", "cdla-sharing-1.0", "ecl-2.0", "epl-1.0", "epl-2.0", "etalab-2.0", "eupl-1.1", "gfdl", "gpl", "gpl-2.0", "gpl-3.0",
    "isc", "lgpl", "lgpl-2.1", "lgpl-3.0", "lgpl-lr", "lppl-1.3c", "mit", "mpl-2.0", "ms-pl", "ncsa", "odbl", "odc-by", "ofl-1.1", "openrail",
    "osl-3.0", "pddl", "postgresql", "unlicense", "wtfpl", "zlib",
})  # fmt: skip
"""Lists the ids of general licences in the hub's documentation; its client has no list. Every other licence is `other` with a name."""
OWN = "apache-2.0"
"""Names the licence of tailfill, under which the images stand that it draws itself."""


def hub_licence(text: str | None) -> dict[str, str]:
    """Returns the keys of a card's metadata block that name a licence, in a form that the hub accepts; None says that its author states none.

    A licence that the hub does not list is `other`, and its name has lower-case letters, digits, dots and dashes alone. Raises ConfigError for
    text without a letter or a digit.
    """
    if text is None:
        return {"license": "other", "license_name": "not-stated"}
    name = re.sub("[^a-z0-9.]+", "-", text.lower()).strip("-.")
    if not name:
        raise ConfigError(f"--licence {text!r}: must have letters or digits; name a licence, e.g. apache-2.0")
    return {"license": name} if name in HUB_IDS else {"license": "other", "license_name": name}


def check_licence(text: str | None) -> None:
    """Raises what `hub_licence` raises, and logs a warning for a licence that the hub does not list, which may be a slip of the pen."""
    found = hub_licence(text)
    if text is not None and "license_name" in found:
        log.warning(
            f"--licence {text}: is none of the hub's licences{did_you_mean(found['license_name'], HUB_IDS)}; the card says "
            f"license: other, license_name: {found['license_name']}"
        )


def licences(chosen: Chosen, repetition: Repetition, pretrained: str | None, given: str | None) -> dict[str, Any]:
    """Returns what is known of the licences of the model, the weights and the data; null is unknown and not a permission."""
    classifier = repetition.arm.classifier
    experiment = chosen.study.experiment(chosen.experiment)
    generator = {"name": experiment.finetune.generator, "base": experiment.finetune.base_location}
    return {
        "model": given,
        "pretrained_weights": {
            "name": classifier.model if classifier.pretrained else None,
            "from": str(classifier.pretrained),
            "licence": pretrained,
        },
        "data": data_licence(chosen.info.source),
        "generator": generator if experiment.images == "real+synthetic" else None,
    }


def data_licence(source: str) -> dict[str, str | None]:
    """Returns what is known of the licence of a data set from an image source."""
    if isinstance(source_entry(source), DrawnSource):
        return {"source": source, "licence": OWN, "note": "tailfill drew these images itself"}
    restricted = source in RESTRICTED_SOURCES
    note = "its terms forbid passing images on; read what they say of models" if restricted else None
    return {"source": source, "licence": None, "note": note}
