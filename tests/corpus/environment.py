"""Holds settings of the environment, and what boto3 finds in its files and at its servers."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from unittest import mock

from botocore.httpsession import where

from shared.artifacts.s3 import S3Store
from shared.settings import Settings
from shared.tracking.observers import check_trackers
from tests.corpus.case import PLANTED, Case

KEYS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": PLANTED}
ALONE = {"AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": "config", "AWS_SHARED_CREDENTIALS_FILE": "credentials"}
NOBODY = "http://127.0.0.1:1"
STYLES = ("path", "virtual", "auto")
Answer = tuple[int, Mapping[str, str], str]


@contextmanager
def _environment(folder: Path, variables: Mapping[str, str], files: Mapping[str, str]) -> Iterator[None]:
    """Replaces the variables of AWS, and writes files into the folder, which is current."""
    for name, text in files.items():
        (folder / name).write_text(text)
    others = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    with mock.patch.dict(os.environ, others | ALONE | dict(variables), clear=True):
        yield


def _setting(name: str, value: str) -> Callable[[Path], object]:
    """Returns an attempt that reads one variable, and tells its value unless it is a secret."""

    def attempt(_: Path) -> object:
        settings = Settings.from_environment({name: value})
        return f"{settings!r} {settings.s3_region}"

    return attempt


def _tracker(name: str, value: str) -> Callable[[Path], object]:
    """Returns an attempt that checks, before a study runs, what is to follow it."""

    def attempt(folder: Path) -> object:
        (folder / "file").write_text("")
        check_trackers(Settings.from_environment({name: value.replace("FOLDER", str(folder))}), "study")
        return "checked"

    return attempt


def _addresses(name: str) -> list[Case]:
    """Returns the cases that every address of HTTP has, whose path or password is secret."""
    return [
        Case(f"{name}: {what}", _tracker(name, value), code, words if code == 0 else (name, "not shown", *words))
        for what, value, code, words in (
            ("https", f"https://example.org/{PLANTED}", 0, ("checked",)),
            ("user and password", f"http://me:{PLANTED}@example.org:5000", 0, ("checked",)),
            ("IPv6", f"http://[::1]:5000/{PLANTED}", 0, ("checked",)),
            ("no scheme", f"example.org/{PLANTED}", 2, ("https://",)),
            ("a file", f"file:///{PLANTED}", 2, ("http://",)),
            ("a database", f"sqlite:///{PLANTED}.db", 2, ("http://",)),
            ("a bucket", f"s3://{PLANTED}/x", 2, ("http://",)),
            ("no host", f"https:///{PLANTED}", 2, ("names no host",)),
            ("a port that is none", f"https://example.org:{PLANTED}/", 2, ("is no URL",)),
            ("a port too high", f"https://example.org:70000/{PLANTED}", 2, ("is no URL",)),
            ("half a bracket", f"https://[::1/{PLANTED}", 2, ("is no URL",)),
            ("a fragment", f"https://example.org/#{PLANTED}", 2, ("#",)),
        )
    ]


def _boto(config: str = "", credentials: str = "", **variables: str) -> Callable[[Path], object]:
    """Returns an attempt that opens a store with files of boto3's, and reads an object at a server that does not answer."""

    def attempt(folder: Path) -> object:
        with _environment(folder, variables, {"config": config, "credentials": credentials}):
            store = S3Store("bucket", "p", Settings.from_environment(os.environ), attempts=1)
            found = f"{store._client.meta.region_name} {store._client.meta.endpoint_url}"
            if "127.0.0.1" in found:
                store.get("a")
            return found

    return attempt


def _listening(scheme: str, **variables: str) -> Callable[[Path], object]:
    """Returns an attempt that reads an object at a port of this machine where connections are accepted and nothing is said."""

    def attempt(folder: Path) -> object:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            endpoint = f"{scheme}://127.0.0.1:{listener.getsockname()[1]}"
            return _boto(AWS_ENDPOINT_URL_S3=endpoint, **variables, **KEYS)(folder)

    return attempt


def _server(answer: Callable[[str], Answer], use: Callable[[S3Store], object]) -> Callable[[Path], object]:
    """Returns an attempt that uses a store at a server of HTTP which gives the answers of `answer(method)`."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if length := int(self.headers.get("Content-Length") or 0):
                self.rfile.read(length)
            status, headers, body = answer(self.command)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body.encode())

        do_PUT = do_HEAD = do_DELETE = do_GET

        def log_message(self, *_: object) -> None:
            """Logs nothing."""

    def attempt(folder: Path) -> object:
        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        try:
            named = KEYS | {"AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{server.server_port}"}
            with _environment(folder, named, {}):
                return use(S3Store("bucket", "p", Settings.from_environment(os.environ), attempts=1))
        finally:
            server.shutdown()
            server.server_close()

    return attempt


def _error(status: int, code: str, more: str = "", **headers: str) -> Callable[[str], Answer]:
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>words</Message>{more}</Error>"
    return lambda _: (status, {name.replace("_", "-"): value for name, value in headers.items()}, body)


def _get(store: S3Store) -> object:
    return store.get("a")


def _put(store: S3Store) -> object:
    return store.put("a", b"data")


def _list(store: S3Store) -> object:
    return list(store.list(""))


LOGIN = "<html><body>Log in to the guest network<br></body></html>"


def _portal(_: str) -> Answer:
    return 200, {"Content-Type": "text/html"}, LOGIN


def _of_every_secret(name: str) -> list[Case]:
    """Returns the cases that every secret has."""
    return [
        Case(f"{name}: line break at the end", _setting(name, f"{PLANTED}\n"), 0),
        Case(f"{name}: spaces around", _setting(name, f" {PLANTED}\r\n"), 0),
        Case(f"{name}: line break inside", _setting(name, f"{PLANTED}\nx"), 2, (name, "line break")),
        Case(f"{name}: NUL inside", _setting(name, f"{PLANTED}\0x"), 2, (name, "control character")),
    ]


SECRETS = [
    *_of_every_secret("AWS_ACCESS_KEY_ID"),
    *_of_every_secret("AWS_SECRET_ACCESS_KEY"),
    *_of_every_secret("AWS_SESSION_TOKEN"),
    *_of_every_secret("HF_TOKEN"),
    *_of_every_secret("DATABASE_URL"),
    *_of_every_secret("MLFLOW_TRACKING_URI"),
    *_of_every_secret("MLFLOW_TRACKING_PASSWORD"),
    *_of_every_secret("MLFLOW_TRACKING_TOKEN"),
    *_of_every_secret("TAILFILL_WEBHOOK"),
    Case("HF_TOKEN: quotes", _setting("HF_TOKEN", f'"{PLANTED}"'), 2, ("HF_TOKEN", "quotes")),
    Case("AWS_SECRET_ACCESS_KEY: a space inside", _setting("AWS_SECRET_ACCESS_KEY", f"{PLANTED} x"), 2, ("a space",)),
    Case("AWS_ACCESS_KEY_ID: a dash of typographers", _setting("AWS_ACCESS_KEY_ID", f"{PLANTED}–x"), 2, ("outside ASCII",)),
    Case("AWS_SECRET_ACCESS_KEY: blank", _setting("AWS_SECRET_ACCESS_KEY", " \n"), 0, ("s3_secret_key=None",)),
]  # fmt: skip
OTHERS = [
    *_addresses("MLFLOW_TRACKING_URI"),
    *_addresses("TAILFILL_WEBHOOK"),
    Case("AWS_DEFAULT_REGION", _setting("AWS_DEFAULT_REGION", "eu-west-1"), 0, ("s3_region='eu-west-1'",)),
    Case("AWS_REGION: line break", _setting("AWS_REGION", "eu-west-1\n"), 0, ("s3_region='eu-west-1'",)),
    Case("TAILFILL_DEVICE: nonsense", _setting("TAILFILL_DEVICE", "gpu"), 2, ("TAILFILL_DEVICE", "gpu")),
    *(
        Case(
            f"TAILFILL_S3_ADDRESSING: {style}",
            _setting("TAILFILL_S3_ADDRESSING", style),
            0,
            (f"s3_addressing='{style}'",),
        )
        for style in STYLES
    ),
    Case("TAILFILL_S3_ADDRESSING: empty", _setting("TAILFILL_S3_ADDRESSING", ""), 0, ("s3_addressing=None",)),
    Case(
        "TAILFILL_S3_ADDRESSING: nonsense",
        _setting("TAILFILL_S3_ADDRESSING", "vhost"),
        2,
        ("TAILFILL_S3_ADDRESSING", "vhost", "virtual"),
    ),
    Case(
        "TAILFILL_S3_ADDRESSING: upper case",
        _setting("TAILFILL_S3_ADDRESSING", "Path"),
        2,
        ("TAILFILL_S3_ADDRESSING", '"Path"'),
    ),
    Case(
        "TAILFILL_CA_FILE: white space around", _setting("TAILFILL_CA_FILE", " /ca.crt\n"), 0, ("PosixPath('/ca.crt')",)
    ),
    Case("TAILFILL_CA_FILE: empty", _setting("TAILFILL_CA_FILE", ""), 0, ("authorities=None",)),
    Case(
        "TAILFILL_CA_FILE: the certificates themselves",
        _setting("TAILFILL_CA_FILE", f"-----BEGIN KEY-----\n{PLANTED}\n-----END"),
        2,
        ("TAILFILL_CA_FILE", "must name a file"),
    ),
    Case("TAILFILL_COUNT: nonsense", _setting("TAILFILL_COUNT", "many"), 2, ("TAILFILL_COUNT", "many")),
    Case("TAILFILL_COUNT: negative", _setting("TAILFILL_COUNT", "-1"), 2, ("TAILFILL_COUNT", "-1")),
    Case("TAILFILL_TENSORBOARD: a folder", _tracker("TAILFILL_TENSORBOARD", "FOLDER/a/b"), 0, ("checked",)),
    Case(
        "TAILFILL_TENSORBOARD: a file",
        _tracker("TAILFILL_TENSORBOARD", "FOLDER/file"),
        2,
        ("TAILFILL_TENSORBOARD", "cannot be written"),
    ),
    Case(
        "TAILFILL_TENSORBOARD: below a file",
        _tracker("TAILFILL_TENSORBOARD", "FOLDER/file/x"),
        2,
        ("TAILFILL_TENSORBOARD", "Not a directory"),
    ),
    Case(
        "TAILFILL_TENSORBOARD: a bucket",
        _tracker("TAILFILL_TENSORBOARD", "s3://b/x"),
        2,
        ("TAILFILL_TENSORBOARD", "a folder on this machine"),
    ),
    Case(
        "TAILFILL_TENSORBOARD: too long",
        _tracker("TAILFILL_TENSORBOARD", "FOLDER/" + "x" * 300),
        2,
        ("TAILFILL_TENSORBOARD", "too long"),
    ),
    Case("TAILFILL_TENSORBOARD: blank", _tracker("TAILFILL_TENSORBOARD", " "), 0, ("checked",)),
    Case("TAILFILL_WEBHOOK: blank", _tracker("TAILFILL_WEBHOOK", " \n"), 0, ("checked",)),
    Case("TAILFILL_METRICS_PORT: a float", _setting("TAILFILL_METRICS_PORT", "1.5"), 2, ("TAILFILL_METRICS_PORT",)),
]
CREDENTIALS_FILE = f"[mine]\naws_access_key_id = key\naws_secret_access_key = {PLANTED}\n"
SSO = "[default]\nsso_account_id = 1\nsso_role_name = r\nsso_region = eu-west-1\nsso_start_url = https://x\n"
WEB_IDENTITY = {"AWS_WEB_IDENTITY_TOKEN_FILE": "/nowhere/token", "AWS_ROLE_ARN": "arn:aws:iam::1:role/r"}
BOTO = [
    Case("boto: a profile that does not exist", _boto(AWS_PROFILE="nobody"), 2, ("AWS_PROFILE", "nobody", "unset it")),
    Case("boto: such a profile though keys are given", _boto(AWS_PROFILE="nobody", **KEYS), 2, ("AWS_PROFILE", "nobody")),
    Case("boto: region of a profile", _boto("[profile mine]\nregion = eu-north-1\n", CREDENTIALS_FILE, AWS_PROFILE="mine"), 0, ("eu-north-1",)),
    Case("boto: keys of a profile", _boto("", CREDENTIALS_FILE, AWS_PROFILE="mine", AWS_ENDPOINT_URL_S3=NOBODY), 75, ("does not answer",)),
    Case("boto: default region", _boto(AWS_DEFAULT_REGION="eu-west-1", **KEYS), 0, ("eu-west-1",)),
    Case("boto: no region", _boto(**KEYS), 0, ("us-east-1",)),
    Case("boto: endpoint of all services", _boto(AWS_ENDPOINT_URL=NOBODY, **KEYS), 75, (NOBODY,)),
    Case("boto: no keys", _boto(AWS_ENDPOINT_URL_S3=NOBODY), 2, ("no credentials", "AWS_ACCESS_KEY_ID")),
    Case("boto: half of the keys", _boto(AWS_ACCESS_KEY_ID="key", AWS_ENDPOINT_URL_S3=NOBODY), 2, ("AWS_SECRET_ACCESS_KEY",)),
    Case("boto: half of the keys in a file", _boto("", "[default]\naws_access_key_id = key\n", AWS_ENDPOINT_URL_S3=NOBODY), 2, ("aws_secret_access_key",)),
    Case("boto: a config that cannot be parsed", _boto("[default\nx", **KEYS), 2, ("~/.aws/config",)),
    Case("boto: a role without a source", _boto("[default]\nrole_arn = arn:aws:iam::1:role/r\nsource_profile = none\n"), 2, ("none", "~/.aws/config")),
    Case("boto: SSO without a login", _boto(SSO), 2, ("aws sso login",)),
    Case("boto: an SSO profile that lacks a line", _boto("[default]\nsso_account_id = 1\nsso_start_url = https://x\n"), 2, ("sso_role_name",)),
    Case("boto: an SSO session that does not exist", _boto("[default]\nsso_session = s\nsso_account_id = 1\nsso_role_name = r\n"), 2, ("AWS",)),
    Case("boto: web identity without its file", _boto(**WEB_IDENTITY), 2, ("/nowhere/token",)),
    Case("boto: a credential process that does not exist", _boto("[default]\ncredential_process = /nowhere/program\n"), 2, ("/nowhere/program",)),
    Case("boto: a credential process that fails", _boto("[default]\ncredential_process = false\n"), 2, ("settings of AWS",)),
    Case("boto: a credential process without JSON", _boto("[default]\ncredential_process = echo hello\n"), 2, ("settings of AWS",)),
    Case("boto: a container that does not answer", _boto(AWS_CONTAINER_CREDENTIALS_FULL_URI="http://192.0.2.1.invalid/"), 2, ("settings of AWS",)),
    Case("boto: addressing style that is none", _boto("[default]\ns3 =\n  addressing_style = sideways\n", **KEYS), 2, ("sideways",)),
    Case("boto: a retry mode that is none, as ours is used", _boto("[default]\nretry_mode = never\n", **KEYS), 0, ("us-east-1",)),
    Case("boto: certificates that are not there", _listening("https", AWS_CA_BUNDLE="/nowhere.pem"),
        2, ("certificate cannot be checked", "No such file", "in AWS_CA_BUNDLE")),
    Case("boto: own authorities that are not there", _boto(TAILFILL_CA_FILE="/nowhere.pem", **KEYS), 2, ("TAILFILL_CA_FILE", "/nowhere.pem")),
    Case("boto: own authorities that are a folder", _boto(TAILFILL_CA_FILE=".", **KEYS), 2, ("TAILFILL_CA_FILE", "directory")),
    Case("boto: own authorities that are no certificates", _boto(TAILFILL_CA_FILE=__file__, **KEYS), 2, ("TAILFILL_CA_FILE", "PEM")),
    Case("boto: own authorities that are empty", _boto(TAILFILL_CA_FILE="config", **KEYS), 2, ("TAILFILL_CA_FILE", "PEM")),
    Case("boto: own authorities that are binary", _boto(TAILFILL_CA_FILE="/bin/sh", **KEYS), 2, ("TAILFILL_CA_FILE", "PEM")),
    Case("boto: own authorities without end", _boto(TAILFILL_CA_FILE="/dev/zero", **KEYS), 2, ("TAILFILL_CA_FILE", "more than")),
    Case("boto: the public authorities as own ones", _boto(TAILFILL_CA_FILE=where(), **KEYS), 0, ("us-east-1",)),
    Case("boto: own authorities beside a bundle that is not there", _boto(TAILFILL_CA_FILE=where(), AWS_CA_BUNDLE="/no.pem", **KEYS),
        2, ("AWS_CA_BUNDLE", "/no.pem")),
    Case("boto: own authorities beside requests' bundle that is not there", _boto(TAILFILL_CA_FILE=where(), REQUESTS_CA_BUNDLE="/no.pem", **KEYS),
        2, ("CA_BUNDLE", "/no.pem")),
    Case("boto: an addressing style beside another in a file", _boto("[default]\ns3 =\n  addressing_style = sideways\n", TAILFILL_S3_ADDRESSING="path", **KEYS),
        0, ("us-east-1",)),
    Case("boto: a proxy that does not answer",
        _boto(AWS_ENDPOINT_URL_S3=NOBODY, HTTP_PROXY=f"http://u:{PLANTED}@127.0.0.1:1", NO_PROXY="", no_proxy="", **KEYS),
        75, ("HTTP_PROXY", "NO_PROXY")),
    Case("boto: a proxy that is none", _boto(AWS_ENDPOINT_URL_S3=NOBODY, HTTP_PROXY="nonsense.invalid", NO_PROXY="", no_proxy="", **KEYS), 75, ("HTTP_PROXY",)),
    Case("boto: an endpoint mode that is none", _boto(AWS_DEFAULTS_MODE="zz", **KEYS), 2, ("invalid defaults mode: zz", "AWS_*")),
    Case("boto: a size that is no number", _boto(AWS_REQUEST_MIN_COMPRESSION_SIZE_BYTES="zz", **KEYS), 2, ("request_min_compression_size_bytes", "AWS_*")),
    Case("boto: an empty profile", _boto(AWS_PROFILE="", **KEYS), 2, ("AWS_PROFILE", "unset it")),
    Case("boto: a region that is none", _boto("[default]\nregion = eu west\n", **KEYS), 2, ("eu west", "AWS_REGION")),
]  # fmt: skip
ANSWERS = [
    Case("S3: clock", _server(_error(403, "RequestTimeTooSkewed"), _get), 2, ("clock",)),
    Case("S3: region in the error", _server(_error(400, "AuthorizationHeaderMalformed", "<Region>eu-west-7</Region>"), _get), 2, ("AWS_REGION=eu-west-7",)),
    Case("S3: region in the header", _server(_error(301, "PermanentRedirect", x_amz_bucket_region="eu-west-7"), _get), 2, ("AWS_REGION=eu-west-7",)),
    Case("S3: refused", _server(_error(403, "AccessDenied"), _get), 2, ("access refused", "AWS_SECRET_ACCESS_KEY")),
    Case("S3: wrong signature", _server(_error(403, "SignatureDoesNotMatch"), _put), 2, ("access refused",)),
    Case("S3: expired token", _server(_error(400, "ExpiredToken"), _get), 2, ("get new temporary keys",)),
    Case("S3: no bucket", _server(_error(404, "NoSuchBucket"), _get), 2, ("has no bucket",)),
    Case("S3: a write that finds nothing to write to", _server(_error(404, "NoSuchKey"), _put), 2, ("has no bucket",)),
    Case("S3: slow down", _server(_error(503, "SlowDown"), _get), 75, ("503",)),
    Case("S3: internal error", _server(_error(500, "InternalError"), _put), 75, ("500",)),
    Case("S3: too many requests", _server(_error(429, "TooMany"), _get), 75, ("busy",)),
    Case("S3: no conditional writes", _server(_error(501, "NotImplemented"), lambda s: s.create("a", b"")), 2, ("NotImplemented",)),
    Case("login page: a write", _server(_portal, _put), 75, ("login page",)),
    Case("login page: a commit", _server(_portal, lambda s: s.create("a", b"data")), 75, ("login page",)),
    Case("login page: a list", _server(_portal, _list), 75, ("login page",)),
    Case("login page: a redirect", _server(lambda _: (302, {"Location": "http://login/"}, LOGIN), _put), 75, ("login page",)),
    Case("login page: an empty 200 to everything", _server(lambda _: (200, {}, ""), _put), 2, ("gives back something else",)),
    Case("proxy: bad gateway", _server(lambda _: (502, {}, LOGIN), _get), 75, ("502",)),
    Case("proxy: wants a password", _server(lambda _: (407, {}, LOGIN), _get), 2, ("407",)),
]  # fmt: skip
CASES = SECRETS + OTHERS + BOTO + ANSWERS
