"""Requests final trainings of a release with the best parameters found so far, for `make submit-final`, and follows them.

The request is a ConfigMap, which control carries out (`shared.pipeline.final_requests`). It goes on when this command ends.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from shared.config.near import near
from shared.config.task import BEGINS, ENDS
from shared.errors import InputError, UnavailableError
from shared.kube.api import Cluster, Object
from shared.kube.errors import ClusterError
from shared.kube.manifests import stages_name
from shared.kube.requests import SubmitRequest, new_name, request_body, withdrawal_body
from shared.log import Log, duration
from shared.metrics.table import METRICS
from shared.names import shown
from shared.pipeline.console import PlainConsole

POLL_SECONDS = 2.0
PATIENCE_SECONDS = 600.0  # for which control may be away, as it is while its node is drained
ENDED = ("done", "failed", "refused")

Row = Mapping[str, Any]
"""Holds the `experiment`, `seed`, `key` and `metrics` of one training."""
Ask = Callable[..., Mapping[str, Any]]
"""Asks control for its requests, with the results of the one that is named."""

log = Log("submit")


def submit_final(cluster: Cluster, release: str, ask: Ask, request: SubmitRequest, as_json: bool) -> str:
    """Creates a request, follows the logs of its trainings, and returns their metrics as a table or as JSON.

    Raises InputError if the request is refused or a training fails, and UnavailableError if control does not answer for PATIENCE_SECONDS. The request
    stays in either case.
    """
    name, uid = create_request(cluster, release, ask()["study"], request)
    log.info(f"requested as {name}, which goes on if this command ends; `tailfill status --release {release}` shows it")
    told = _follow(cluster, ask, name, uid)
    if told["state"] != "done":
        raise InputError(f"{name}: {told['state']}: {told['reason']}")
    rows: list[Row] = list(ask(results=name)["results"])
    return json.dumps(rows, indent=1) if as_json else table(rows)


def create_request(cluster: Cluster, release: str, study: str, request: SubmitRequest) -> tuple[str, str]:
    """Creates a request for the study of that name, and returns its own name and uid."""
    return _create(cluster, request_body(new_name(release), release, study, request, _owner(cluster, release)))


def withdraw(cluster: Cluster, release: str, ask: Ask, request: str) -> str:
    """Requests that control deletes a request, and says so; raises InputError if there is none of that name."""
    names = [each["request"] for each in ask()["requests"]]
    if request not in names:
        raise InputError(f"release {release}: has no request {shown(request)}{near(request, names)}")
    _create(cluster, withdrawal_body(new_name(release), release, request, _owner(cluster, release)))
    return (
        f"{request}: control deletes it within seconds; no more of its trainings begin, and those that have begun go on"
    )


def _owner(cluster: Cluster, release: str) -> Object:
    owner = cluster.get("configmaps", stages_name(release))
    if owner is None:
        raise InputError(f"configmap {stages_name(release)}: does not exist; install the chart again")
    return owner


def _create(cluster: Cluster, body: Object) -> tuple[str, str]:
    name = body["metadata"]["name"]
    cluster.create(
        "configmaps", body
    )  # if it exists, an attempt whose answer was lost has created it: nobody else has its name
    found = cluster.get("configmaps", name)
    if found is None:
        raise InputError(f"{name}: was deleted by somebody else; submit again")
    return name, str(found["metadata"]["uid"])


def _follow(cluster: Cluster, ask: Ask, name: str, uid: str) -> Mapping[str, Any]:
    """Prints the logs of the request's trainings until it has ended, and returns what control says of it then."""
    seen, reason, known = set[str](), None, time.monotonic()
    while True:
        told: Mapping[str, Any] | None = None
        try:
            answer = ask()
            told, problem = next((each for each in answer["requests"] if each["uid"] == uid), None), answer["problem"]
            if told is None and _is_gone(cluster, name, uid):
                raise InputError(
                    f"{name}: was withdrawn, so that no more of its trainings begin; those that have begun go on"
                )
        except UnavailableError as error:
            problem = str(error).splitlines()[0]
        if told is not None:
            known, problem = time.monotonic(), told["reason"]
            if told["state"] in ENDED:
                return told
        elif time.monotonic() - known >= PATIENCE_SECONDS:
            raise UnavailableError(
                f"{name}: control has not told of it for {duration(PATIENCE_SECONDS)}; it stays ({problem})"
            )
        if problem != reason:
            log.info(f"{name} waits: {problem}" if problem else f"{name} goes on")
        reason = problem
        if told is None or not _print_logs(cluster, told, seen):
            time.sleep(POLL_SECONDS)


def _is_gone(cluster: Cluster, name: str, uid: str) -> bool:
    found = cluster.get("configmaps", name)
    return found is None or found["metadata"]["uid"] != uid


def _print_logs(cluster: Cluster, told: Mapping[str, Any], seen: set[str]) -> bool:
    """Prints the log of one Pod of the request's Jobs, which is not among those `seen`, to its end; returns False if there is none."""
    trainings = {each["key"]: f"{each['experiment']} {each['seed']}" for each in told["trainings"]}
    first = next((trainings[each["key"]] for each in told["trainings"] if not each["committed"]), "")
    for job in told["jobs"]:
        for pod in cluster.list("pods", f"batch.kubernetes.io/job-name={job}"):
            name = pod["metadata"]["name"]
            if name not in seen and pod["status"].get("phase") in ("Running", "Succeeded", "Failed"):
                seen.add(name)
                _print_log(cluster, name, first, trainings)
                return True
    return False


def _print_log(cluster: Cluster, pod: str, training: str, trainings: Mapping[str, str]) -> None:
    """Prints the log of a Pod; `training` is what it works on before it says so."""
    try:
        for line in cluster.logs(pod):
            training = print_line(training, line, trainings)
    except (ClusterError, UnavailableError) as error:  # the training continues without being followed
        log.warning("its log cannot be followed any more", pod=pod, reason=str(error))


def print_line(training: str, line: str, trainings: Mapping[str, str]) -> str:
    """Prints a line of a Pod's log as text, after the name of the training that it is of; returns that name."""
    try:
        values = json.loads(line)
        if values["event"] == BEGINS:
            return trainings.get(values["key"], f"{values['experiment']}")
        if values["event"] != ENDS:
            PlainConsole().line(training, values)
    except (ValueError, TypeError, KeyError):
        PlainConsole().say(f"[{training}] {line}")  # no log line: a traceback, or a library's warning
    return training


def table(rows: Sequence[Row]) -> str:
    """Returns the headline metrics of each training and, of several ones of an experiment, their mean and deviation."""
    names = [metric.name for metric in METRICS if metric.headline]
    width = max(map(len, names))
    lines = [f"{'experiment':20} {'seed':>4}  " + "  ".join(f"{name:>{width}}" for name in names)]
    for row in rows:
        values = "  ".join(f"{_number(row['metrics'][name]):>{width}}" for name in names)
        lines.append(f"{row['experiment'] or '':20} {row['seed']:>4}  {values}")
    for experiment in dict.fromkeys(row["experiment"] for row in rows):
        own = [row["metrics"] for row in rows if row["experiment"] == experiment]
        if len(own) > 1:
            means = (_mean([metrics[name] for metrics in own]) for name in names)
            lines.append(f"{experiment or '':20} mean  " + "  ".join(f"{text:>{width}}" for text in means))
    return "\n".join(lines)


def _number(value: float | None) -> str:
    """Returns a metric as text; a dash if it is undefined, as that of rare classes in a study without any."""
    return "–" if value is None else f"{value:.4f}"


def _mean(values: Sequence[float | None]) -> str:
    defined = [value for value in values if value is not None]
    return f"{statistics.mean(defined):.4f} ± {statistics.stdev(defined):.4f}" if len(defined) > 1 else "–"
