"""Posts a study's end, a spent budget and a stall to an address, as JSON that Slack's incoming webhooks accept too.

The whole address is a secret. Each happening is posted once, which a record in the store says even after a restart.
"""

from __future__ import annotations

import hashlib
import http.client
import json
from base64 import b64encode
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Any, Literal
from urllib.error import HTTPError
from urllib.request import HTTPRedirectHandler, Request, build_opener

from shared.artifacts.store import Store
from shared.errors import DataError, UnavailableError
from shared.log import Log
from shared.retries import Backoff, retrying
from shared.settings import Settings
from shared.terminal import shortened
from shared.tracking.records import tailfill_version
from shared.tracking.urls import read_address

VARIABLE = "TAILFILL_WEBHOOK"
ATTEMPTS = 4
BACKOFF = Backoff(1.0, longest=20.0)
ANSWER_SECONDS = 10.0  # that the server may take to connect, and between two parts of its answer
LONGEST_WAIT = 60.0  # seconds that a server may ask us to wait
LONGEST_SENTENCE = 1000  # characters
RETRIED = (408, 425, 429)
"""Lists the statuses below 500 that another attempt may not meet."""

log = Log("webhook")


@dataclass(frozen=True)
class Happening:
    """Says what happened to a study."""

    event: Literal["done", "failed", "budget spent", "stalled"]
    sentence: str
    identity: str
    """Identifies the happening, so that it is posted once."""
    step: str | None = None
    """Gives the label of the step that it concerns; None if it concerns the study."""
    report: str | None = None
    """Says where in the store the report is, if the study is done."""


class _Unanswered(UnavailableError):
    """Says that another attempt may succeed, after the seconds that the server asks for."""

    def __init__(self, reason: str, seconds: float = 0.0) -> None:
        super().__init__(reason)
        self.seconds = seconds


class _NoRedirect(HTTPRedirectHandler):
    """Follows no redirect, so that the study's news go nowhere else."""

    def redirect_request(self, *_: Any) -> None:
        """Returns None, so that the answer is an error."""
        return


class Webhook:
    """Posts happenings to the address in TAILFILL_WEBHOOK."""

    name = VARIABLE

    def __init__(self, settings: Settings, study: str, store: Store, backoff: Backoff = BACKOFF) -> None:
        """Connects to nothing yet; raises ConfigError if the address is none of HTTP."""
        assert settings.webhook is not None
        self._address = read_address(VARIABLE, settings.webhook)
        self._study, self._store, self._backoff = study, store, backoff
        self._posted = set[str]()
        """Holds the records of what this process has posted, for when the store is unavailable, which may be the news."""

    def post(self, happening: Happening) -> None:
        """Posts a happening unless it was posted before.

        Raises DataError if the server refuses it or does not answer after `ATTEMPTS`; the next run of the study then tries again.
        """
        name = hashlib.sha256(happening.identity.encode()).hexdigest()[:32]
        record = f"{self._study}/events/{name}.json"
        if record in self._posted or self._is_recorded(record):
            return
        retry = retrying(
            _Unanswered,
            self._backoff,
            partial(log.warning, "the webhook is tried again"),
            attempts=ATTEMPTS,
            asked=lambda error: error.seconds if isinstance(error, _Unanswered) else 0.0,
        )
        try:
            retry(self._send, self._body(happening))
        except _Unanswered as error:
            raise DataError(f"{self._address.shown} did not take it in {ATTEMPTS} attempts ({error})") from None
        self._posted.add(record)
        with suppress(UnavailableError):
            self._store.create(record, json.dumps({"event": happening.event, "step": happening.step}).encode())

    def _is_recorded(self, record: str) -> bool:
        try:
            return self._store.exists(record)
        except UnavailableError:
            return False

    def _body(self, happening: Happening) -> bytes:
        sentence = shortened(happening.sentence, LONGEST_SENTENCE)
        fields = asdict(happening) | {
            "sentence": sentence,
            "text": f"tailfill, study {self._study}: {sentence}",
            "study": self._study,
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "tailfill": tailfill_version(),
        }
        fields["id"] = hashlib.sha256(fields.pop("identity").encode()).hexdigest()[:32]
        return json.dumps({name: value for name, value in fields.items() if value is not None}).encode()

    def _send(self, body: bytes) -> None:
        """Posts once; raises _Unanswered and DataError, whose messages have nothing of the address."""
        headers = {"Content-Type": "application/json", "User-Agent": f"tailfill/{tailfill_version()}"}
        if self._address.user is not None:
            password = self._address.password.get_secret_value() if self._address.password else ""
            headers["Authorization"] = f"Basic {b64encode(f'{self._address.user}:{password}'.encode()).decode()}"
        url = self._address.secret.get_secret_value()
        request = Request(url, body, headers, method="POST")  # noqa: S310 - http or https (shared.tracking.urls)
        try:
            with build_opener(_NoRedirect).open(request, timeout=ANSWER_SECONDS):
                return
        except HTTPError as error:
            status, asked = error.code, error.headers.get("Retry-After")
            error.close()
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise _Unanswered(_reason(error)) from None
        if status in RETRIED or status >= 500:
            raise _Unanswered(f"it answers {status}", _seconds(asked))
        what = (
            "a redirect, which is not followed; set it to the address itself"
            if 300 <= status < 400
            else "see that it is right"
        )
        raise DataError(f"{self._address.shown} answers {status}: {what}")


def _reason(error: Exception) -> str:
    """Returns why there was no answer, without the error's own text, which may contain the address."""
    inner = getattr(error, "reason", error)
    if isinstance(inner, TimeoutError) or isinstance(error, TimeoutError):
        return f"no answer in {ANSWER_SECONDS:g} s"
    if isinstance(inner, OSError) and inner.strerror:
        return inner.strerror
    return type(inner if isinstance(inner, Exception) else error).__name__


def _seconds(asked: str | None) -> float:
    """Returns the seconds that a header `Retry-After` asks for, as a number or a date, at most `LONGEST_WAIT`."""
    if asked is None:
        return 0.0
    try:
        seconds = float(asked) if asked.strip().isdecimal() else _until(asked)
    except (ValueError, TypeError):
        return 0.0
    return max(0.0, min(seconds, LONGEST_WAIT))


def _until(date: str) -> float:
    when = parsedate_to_datetime(date)
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp() - datetime.now(UTC).timestamp()
