"""Serves `/metrics` if the environment names a port; only then is the Prometheus client imported."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from shared.errors import ConfigError
from shared.log import Log
from shared.search.http_server import Application, listen, serving
from shared.search.monitor import read_searches
from shared.settings import Settings

_log = Log("metrics")


def metrics_application(
    settings: Settings,
    study: str,
    names: str,
    steps: Callable[[], Mapping[tuple[str, str], int]] | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Application:
    """Returns what answers with the metrics of the searches whose name matches `names`; raises ConfigError if no database is set."""
    from prometheus_client import CollectorRegistry, make_wsgi_app

    from shared.search.metrics import SearchMetrics

    if settings.database_url is None:
        raise ConfigError("DATABASE_URL: is not set; metrics are read from the searches' PostgreSQL")
    url = settings.database_url.get_secret_value()
    registry = CollectorRegistry()  # our own: the default one has metrics of the process, too
    registry.register(SearchMetrics(study, lambda: read_searches(url, names), steps, clock))
    application: Application = make_wsgi_app(registry)
    return application


@contextmanager
def metrics_served(
    settings: Settings,
    study: str,
    names: str,
    steps: Callable[[], Mapping[tuple[str, str], int]] | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[int | None]:
    """Serves the metrics of the searches whose name matches `names` while the block runs; yields the port, or None if `settings` name none.

    `steps` returns how many steps of each stage are in which state. Raises ConfigError if it cannot listen on the port or the address.
    """
    if not settings.metrics_port:
        yield None
        return
    application = metrics_application(settings, study, names, steps, clock)
    try:
        server = listen(settings.metrics_host, settings.metrics_port, application)
    except (OSError, OverflowError) as error:
        raise ConfigError(
            f"TAILFILL_METRICS_PORT: {settings.metrics_port} cannot be listened on at {settings.metrics_host} ({error}); "
            "name another port, or unset it to serve no metrics"
        ) from error
    _log.info("metrics are served", address=f"http://{settings.metrics_host}:{server.server_port}/metrics")
    with serving(server):
        yield server.server_port
