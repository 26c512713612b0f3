"""Writes and reads what people request of a release: ConfigMaps with a label, which people create and control picks up.

Who may create ConfigMaps may request. What a person may delete is said by names alone, as RBAC knows no labels, and who may delete any ConfigMap may
delete the chart's own, which own the Jobs. So people do not delete requests: they withdraw them, by a request too, and control deletes both.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shared.config.near import near
from shared.config.plain_yaml import NAME_LENGTH, parse_value
from shared.config.search import MOST_SEEDS
from shared.errors import ConfigError
from shared.kube.api import Object
from shared.kube.mirror import OMITTED
from shared.names import shown
from shared.terminal import shortened

REQUEST = "tailfill/request"
"""Names the label of a request, whose value says what is requested."""
FINAL = "final"
WITHDRAW = "withdraw"
INSTANCE = "app.kubernetes.io/instance"
FIELDS = ("study", "experiment", "seeds", "params")


@dataclass(frozen=True)
class SubmitRequest:
    """Says which final trainings to run."""

    experiment: str | None = None
    """Names the experiment; None stands for all experiments."""
    seeds: int | None = None
    """Sets the number of repetitions per experiment; None takes the study's `final.seeds`."""
    parameters: Mapping[str, Any] | None = None
    """Holds the parameters by path; None takes the best found so far."""


def new_name(release: str) -> str:
    """Returns a name that no request has."""
    return f"{release}-request-{uuid.uuid4().hex[:10]}"


def request_body(name: str, release: str, study: str, request: SubmitRequest, owner: Object) -> Object:
    """Returns the ConfigMap of a request for the study of that name; it is deleted with `owner`, the ConfigMap of the release's manifests."""
    given = {"study": study}
    if request.experiment is not None:
        given["experiment"] = request.experiment
    if request.seeds is not None:
        given["seeds"] = str(request.seeds)
    if request.parameters is not None:
        given["params"] = json.dumps(request.parameters)
    return _body(name, release, FINAL, given, owner)


def withdrawal_body(name: str, release: str, request: str, owner: Object) -> Object:
    """Returns the ConfigMap that withdraws the request of that name."""
    return _body(name, release, WITHDRAW, {"request": request}, owner)


def _body(name: str, release: str, what: str, given: Mapping[str, str], owner: Object) -> Object:
    described = owner["metadata"]
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": described["name"], "uid": described["uid"]}
    labels = {INSTANCE: release, REQUEST: what, "app.kubernetes.io/component": "request"}
    metadata = {"name": name, "labels": labels, "ownerReferences": [reference]}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "immutable": True, "data": dict(given)}


def what_is_requested(found: Object) -> str | None:
    """Returns the value of a request's label."""
    value: str | None = (found["metadata"].get("labels") or {}).get(REQUEST)
    return value


def read_request(found: Object, release: str, study: str) -> SubmitRequest:
    """Returns what a ConfigMap requests of the release, whose study has that name; raises ConfigError if it is no such request.

    Whoever may create ConfigMaps has written it.
    """
    data = _data(found, release, FIELDS)
    what = f"configmap {found['metadata']['name']}"
    if data.get("study") != study:
        # so that one that is left from another study does not train for this one
        raise ConfigError(f"{what}: its study is {shown(data.get('study'))}, and this release runs {study}; name that")
    parameters = data.get("params")
    return SubmitRequest(
        data.get("experiment"),
        _seeds(data["seeds"], what) if "seeds" in data else None,
        None if parameters is None else parse_parameters(parameters, f"{what}: params"),
    )


def read_withdrawal(found: Object, release: str) -> str:
    """Returns the name of the request that a ConfigMap withdraws; raises ConfigError if it is no such ConfigMap."""
    data = _data(found, release, ("request",))
    if not data.get("request"):
        raise ConfigError(f"configmap {found['metadata']['name']}: has no field request; name there what it withdraws")
    return data["request"]


def _data(found: Object, release: str, fields: Sequence[str]) -> Mapping[str, str]:
    """Returns the data of a request to the release, which have no other than these fields; raises ConfigError if it is none."""
    metadata = found["metadata"]
    what, labels = f"configmap {metadata['name']}", metadata.get("labels") or {}
    if labels.get(INSTANCE) != release:
        raise ConfigError(
            f"{what}: its label {INSTANCE} is {shown(labels.get(INSTANCE))}, and this release is {release}; "
            f"delete it, and set the label to {release}"
        )
    if labels.get(REQUEST) not in (FINAL, WITHDRAW):
        raise ConfigError(
            f"{what}: its label {REQUEST} is {shown(labels.get(REQUEST))}; it must be {FINAL} or {WITHDRAW}"
        )
    if OMITTED in found:
        raise ConfigError(f"{what}: has {found[OMITTED]:,} bytes, which no request has; delete it")
    if found.get("binaryData"):
        raise ConfigError(f"{what}: has binaryData; a request has text only: {', '.join(fields)}")
    data: dict[str, str] = found.get("data") or {}
    for field in data:
        if field not in fields:
            raise ConfigError(f"{what}: a request has no field {shown(field)}{near(field, fields)}")
    return data


def _seeds(text: str, what: str) -> int:
    if not re.fullmatch(r"[0-9]{1,6}", text) or not 1 <= int(text) <= MOST_SEEDS:
        raise ConfigError(f"{what}: seeds must be a whole number from 1 to {MOST_SEEDS}, got {shown(text)}")
    return int(text)


def parse_parameters(text: str, name: str) -> Mapping[str, Any]:
    """Returns parameters by path from JSON or YAML, which may be a search's best.json; raises ConfigError if it is neither.

    `name` is what errors call the text.
    """
    tree = parse_value(text, name)[0]
    tree = tree.get("parameters", tree) if isinstance(tree, dict) else tree
    if not isinstance(tree, dict) or not tree:
        raise ConfigError(
            f"{shortened(name, NAME_LENGTH)}: must be a mapping of paths to values, e.g. training.lr: 0.001"
        )
    for path, value in tree.items():
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError):  # a date, which YAML has and JSON has not, or a number without end
            raise ConfigError(
                f"{shortened(name, NAME_LENGTH)}: {shown(path)} must be a finite number, true, false or text, got {shown(value)}"
            ) from None
    return tree
