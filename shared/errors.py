"""The errors a person sees, and the exit codes that Kubernetes and scripts rely on.

TailfillError
├── InputError          exit 2   no retry mends it: configuration, data, credentials
│   ├── ConfigError              a study file, `--set`, or the environment
│   ├── DataError                an image, a table, a label, an archive, a weights file
│   └── ArtifactError            a digest, a manifest, a bucket, credentials of the store
├── UnavailableError    exit 75  a service is away or a read was cut short; a later run may succeed
└── Stopped             exit 143 a signal came before the manifest was committed

Anything else that reaches the top is a bug: exit 1, with a traceback.

A message names the thing, the value that was found, and the remedy, on one line.
"""

from __future__ import annotations

COMMITTED = 0
BUG = 1
INPUT = 2  # also click's own code for bad usage
UNAVAILABLE = 75  # EX_TEMPFAIL of sysexits.h
STOPPED = 143  # 128 + SIGTERM


class TailfillError(Exception):
    """Base of every error that is shown as one line, without a traceback."""

    exit_code = BUG


class InputError(TailfillError):
    """What no retry mends."""

    exit_code = INPUT


class ConfigError(InputError):
    """A study file, a `--set` value or an environment variable is wrong."""


class DataError(InputError):
    """An image, a label table, an archive or a weights file is wrong."""


class ArtifactError(InputError):
    """The store holds something else than its digest says, or refuses us for good."""


class UnavailableError(TailfillError):
    """A service did not answer after bounded retries; the same command may succeed later."""

    exit_code = UNAVAILABLE


class Stopped(TailfillError):
    """A SIGTERM or SIGINT ended the work before it was committed; what was checkpointed stays."""

    exit_code = STOPPED
