"""Holds addresses of databases and stores, in the forms that people and services write them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from shared.artifacts.open import open_store
from shared.search.database_url import connection_arguments
from shared.search.monitor import read_searches
from shared.search.storage import Database
from shared.settings import Settings
from tests.corpus.case import PLANTED, Case

P = PLANTED
UNENCODED = ("unencoded @, / or ?", "%40")
NEVER = (PLANTED, "hunter", "2secret")


def _read(value: str) -> Callable[[Path], object]:
    """Returns an attempt that reads a value of DATABASE_URL, and tells the label and libpq's parameters but the password."""

    def attempt(_: Path) -> object:
        settings = Settings.from_environment({"DATABASE_URL": value})
        assert "DATABASE_URL" not in repr(settings)
        assert settings.database_url is not None
        arguments, label = connection_arguments(settings.database_url.get_secret_value())
        Database(settings.database_url.get_secret_value()).close()
        right = {"password": "right"} if arguments.get("password", P).startswith(P) else {}
        return f"{label} {sorted((arguments | right).items())} {settings!r}"

    return attempt


def _connect(value: str) -> Callable[[Path], object]:
    """Returns an attempt that connects, as what libpq itself refuses is known then."""

    def attempt(_: Path) -> object:
        return read_searches(value, ".*")

    return attempt


def _store(value: str, **others: str) -> Callable[[Path], object]:
    def attempt(_: Path) -> object:
        keys = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": PLANTED}
        return open_store(Settings.from_environment(keys | {"TAILFILL_STORE": value} | others)).url

    return attempt


def _accepted(name: str, value: str, *says: str) -> Case:
    return Case(f"database: {name}", _read(value), 0, says)


def _refused(name: str, value: str, *says: str) -> Case:
    return Case(f"database: {name}", _read(value), 2, ("DATABASE_URL", *says), NEVER)


DATABASES = [
    _accepted("plain", f"postgresql://u:{P}@h:5433/d", "h:5433/d", "('password', 'right')"),
    _accepted("no port", f"postgresql://u:{P}@h/d", "h:5432/d"),
    _accepted("the uri of CloudNativePG", f"postgresql://app:{P}@db-rw.here:5432/app", "db-rw.here:5432/app", "('password', 'right')"),
    _accepted("postgres scheme", f"postgres://u:{P}@h/d", "h:5432/d"),
    _accepted("SQLAlchemy's driver", f"postgresql+psycopg2://u:{P}@h/d", "h:5432/d"),
    _accepted("another driver of SQLAlchemy", f"postgresql+asyncpg://u:{P}@h/d", "h:5432/d"),
    _accepted("line break at the end", f"postgresql://u:{P}@h/d\n", "h:5432/d "),
    _accepted("CR LF at the end", f"postgresql://u:{P}@h/d\r\n", "h:5432/d "),
    _accepted("spaces around", f"  postgresql://u:{P}@h/d\t", "h:5432/d "),
    _accepted("encoded password", f"postgresql://u:{P}%40%2F%3F@h/d", "h:5432/d", "('password', 'right')"),
    _accepted("hash in the password", f"postgresql://u:{P}#@h/d", "h:5432/d", "('password', 'right')"),
    _accepted("colon in the password", f"postgresql://u:{P}:x@h/d", "h:5432/d", "('password', 'right')"),
    _accepted("folder of sockets", f"postgresql://u:{P}@/d?host=/var/run/postgresql", "/var/run/postgresql/d"),
    _accepted("no host", "postgresql:///d", "('dbname', 'd')"),
    _accepted("encoded socket", f"postgresql://u:{P}@%2Fvar%2Frun/d", "('host', '/var/run')"),
    _accepted("several hosts", f"postgresql://u:{P}@a:1,b:2/d?target_session_attrs=read-write", "a:1,b:2/d", "('host', 'a,b')"),
    _accepted("several hosts, one port", f"postgresql://u:{P}@a,b/d", "a:5432,b:5432/d"),
    _accepted("IPv6", f"postgresql://u:{P}@[::1]:5433/d", "('host', '::1')", "('port', '5433')"),
    _accepted("SSL", f"postgresql://u:{P}@h/d?sslmode=verify-full&sslrootcert=/ca.pem", "('sslmode', 'verify-full')"),
    _accepted("JDBC's ssl", f"postgresql://u:{P}@h/d?ssl=true", "('sslmode', 'require')"),
    _accepted("options", f"postgresql://u:{P}@h/d?options=-c%20statement_timeout%3D5", "statement_timeout=5"),
    _accepted("keywords", f"host=h port=5433 dbname=d user=u password={P}", "h:5433/d"),
    _accepted("keywords of a socket", f"host=/run dbname=d user=u password='{P} x'", "/run/d"),
    _accepted("password in the query", f"postgresql://h/d?user=u&password={P}", "h:5432/d"),
    _refused("pgbouncer", f"postgresql://u:{P}@h/d?pgbouncer=true", "unknown parameter pgbouncer"),
    _refused("two of Prisma's", f"postgresql://u:{P}@h/d?pgbouncer=true&connection_limit=1", "pgbouncer, connection_limit"),
    _refused("schema", f"postgresql://u:{P}@h/d?schema=public", "unknown parameter schema"),
    _refused("upper case", f"postgresql://u:{P}@h/d?SSLMODE=require", "unknown parameter SSLMODE"),
    _refused("query without a value", f"postgresql://u:{P}@h/d?sslmode", "after ?"),
    _refused("@ in the password", f"postgresql://u:{P}@2secret@h/d", *UNENCODED),
    _refused("@ in the user", f"postgresql://u@server:{P}@h/d", *UNENCODED),
    _refused("/ in the password", f"postgresql://u:{P}/2secret@h/d", *UNENCODED),
    _refused("? in the password", f"postgresql://u:{P}?2secret@h/d", *UNENCODED),
    _refused("? and = in the password", f"postgresql://u:{P}?2secret=hunter@h/d", *UNENCODED),
    _refused("@ and ? in the password", f"postgresql://u:{P}@hunter?2secret@h/d", *UNENCODED),
    _refused("% in the password", f"postgresql://u:{P}%zz@h/d", "%25"),
    _refused("port too large", f"postgresql://u:{P}@h:99999/d", "1 to 65535"),
    _refused("port 0", f"postgresql://u:{P}@h:0/d", "1 to 65535"),
    _refused("second port too large", f"postgresql://u:{P}@a:1,b:65536/d", "1 to 65535"),
    _refused("port of letters", f"postgresql://u:{P}@h:port/d", "1 to 65535"),
    _refused("no @ at all", f"postgresql://u:{P}", "1 to 65535"),
    _refused("double quotes", f'"postgresql://u:{P}@h/d"', "quotes"),
    _refused("single quotes", f"'postgresql://u:{P}@h/d'", "quotes"),
    _refused("line break inside", f"postgresql://u:{P}\n@h/d", "line break"),
    _refused("space inside", f"postgresql://u:{P} x@h/d", "white space"),
    _refused("MySQL", f"mysql://u:{P}@h/d", "postgresql://"),
    _refused("SQLite", "sqlite:///d.db", "postgresql://"),
    _refused("the jdbc-uri of CloudNativePG", f"jdbc:postgresql://db-rw.here:5432/app?password={P}&user=app", "postgresql://"),
    _refused("JDBC", f"jdbc:postgresql://h/d?user=u&password={P}", "postgresql://"),
    _refused("no scheme", f"u:{P}@h/d", "postgresql://"),
    _refused("a password alone", PLANTED, "postgresql://"),
    _refused("an assignment", f"DATABASE_URL=postgresql://u:{P}@h/d", "postgresql://"),
    _refused("keywords with a space in the password", f"host=h password={P} hunter dbname=d", "got something else"),
    _refused("an unknown keyword", f"host=h pasword={P}", "got something else"),
    _refused("one slash", f"postgresql:/u:{P}@h/d", "postgresql://"),
    Case("database: wrong sslmode", _connect(f"postgresql://u:{P}@h/d?sslmode=required"), 2, ("required", "verify-full")),
    Case(
        "database: wrong target_session_attrs",
        _connect(f"postgresql://u:{P}@h/d?target_session_attrs=master"),
        2,
        ("master", "read-write"),
    ),
    Case("database: wrong number", _connect(f"postgresql://u:{P}@127.0.0.1:1/d?connect_timeout=yes"), 2, ("connect_timeout",)),
    Case("database: more ports than hosts", _connect(f"host=a,b port=1,2,3 password={P}"), 2, ("ports", "as many")),
    Case("database: missing certificate", _connect(f"postgresql://u:{P}@127.0.0.1:1/d?sslmode=verify-ca&sslrootcert=/no"), 75),
    Case("database: nobody listens", _connect(f"postgresql://u:{P}@127.0.0.1:1/d"), 75, ("127.0.0.1:1/d", "unavailable")),
    Case("database: no such socket", _connect(f"postgresql://u:{P}@/d?host=/nowhere"), 75, ("/nowhere",)),
]  # fmt: skip
STORES = [
    Case("store: bucket", _store("s3://bucket"), 0, ("s3://bucket",)),
    Case("store: bucket and prefix", _store("s3://bucket/a/b/"), 0, ("s3://bucket/a/b",)),
    Case("store: white space around", _store(" s3://bucket/a\n"), 0, ("s3://bucket/a",)),
    Case("store: folder", _store("store"), 0, ("store",)),
    Case("store: no bucket", _store("s3:///a"), 2, ("names no bucket",)),
    Case("store: Google's", _store("gs://bucket"), 2, ("TAILFILL_STORE", "gs://bucket")),
    Case("store: Azure's", _store("az://bucket"), 2, ("TAILFILL_STORE",)),
    Case("store: web address", _store("https://bucket.s3.amazonaws.com/"), 2, ("TAILFILL_STORE",)),
    Case("store: upper case scheme", _store("S3://bucket"), 2, ("TAILFILL_STORE",)),
    Case("store: up and out", _store("s3://bucket/../x"), 2, ("'..'",)),
    Case("store: keys within", _store(f"s3://key:{PLANTED}@bucket/a"), 2, ("keys",)),
    Case("store: keys within a web address", _store(f"https://key:{PLANTED}@host/a"), 2, ("keys",)),
    Case("endpoint: no scheme", _store("s3://b", AWS_ENDPOINT_URL_S3="host:9000"), 2, ("AWS_ENDPOINT_URL_S3",)),
    Case("endpoint: line break", _store("s3://b", AWS_ENDPOINT_URL_S3="http://h:9000\n"), 0, ("s3://b",)),
    Case("endpoint: keys within", _store("s3://b", AWS_ENDPOINT_URL_S3=f"http://k:{PLANTED}@h:9000"), 2, ("without keys",)),
    Case("endpoint: port too large", _store("s3://b", AWS_ENDPOINT_URL_S3="http://h:99999"), 2, ("AWS_ENDPOINT_URL_S3", "65535")),
    Case("endpoint: port of letters", _store("s3://b", AWS_ENDPOINT_URL_S3="http://h:port"), 2, ("AWS_ENDPOINT_URL_S3",)),
    Case("endpoint: an s3 location", _store("s3://b", AWS_ENDPOINT_URL_S3="s3://h"), 2, ("http://host:port",)),
    Case("endpoint: quotes", _store("s3://b", AWS_ENDPOINT_URL_S3='"http://h:9000"'), 2, ("AWS_ENDPOINT_URL_S3",)),
    Case("region: nonsense", _store("s3://b", AWS_REGION="eu west 1"), 2, ("AWS_REGION",)),
    Case("region: quotes", _store("s3://b", AWS_REGION='"eu-west-1"'), 2, ("AWS_REGION",)),
]  # fmt: skip
CASES = DATABASES + STORES
