"""Serves repositories on this machine by as much of the Hugging Face hub's protocol as a download needs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import unquote

COMMIT = "5" * 40
TOKEN = "hf_secret_of_the_test"
Answer = tuple[int, bytes, dict[str, str]]


@dataclass
class Hub:
    """Holds the repositories, each a folder, by name, and records the requests. A data set's name begins with `datasets/`."""

    repositories: dict[str, Path]
    gated: set[str] = field(default_factory=set)
    """The repositories whose files need TOKEN."""
    asked: list[str] = field(default_factory=list)
    """The files that were requested, in order."""
    cut: int = 0
    """The number of files whose transfer will end early."""
    wrong_digests: bool = False
    tag: str | None = None
    """An ETag that replaces that of each file."""
    commit: str = COMMIT
    """The commit that the hub names."""
    url: str = ""

    def answer(self, path: str, token: str | None) -> Answer:
        """Returns status, body and headers."""
        for name, folder in self.repositories.items():
            api = f"/api/{name}" if name.startswith("datasets/") else f"/api/models/{name}"
            if path in (api, *(f"{api}/revision/{r}" for r in (COMMIT, "main"))):
                return 200, json.dumps(self._info(name, folder)).encode(), {}
            if path.startswith((f"{api}/revision/", f"/{name}/resolve/main")):
                return 404, b"", {"X-Error-Code": "RevisionNotFound"}
            if path.startswith(f"/{name}/resolve/{COMMIT}/"):
                file = path.removeprefix(f"/{name}/resolve/{COMMIT}/")
                self.asked.append(file)
                if name in self.gated and token != f"Bearer {TOKEN}":
                    return 403, b"", {"X-Error-Code": "GatedRepo"}
                body = (folder / file).read_bytes()
                return 200, body, {"ETag": f'"{self.tag or hashlib.sha256(body).hexdigest()}"', "X-Repo-Commit": COMMIT}
        return 404, b"", {"X-Error-Code": "RepoNotFound"}

    def _info(self, name: str, folder: Path) -> dict[str, object]:
        siblings = []
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            body = path.read_bytes()
            sibling: dict[str, object] = {"rfilename": path.relative_to(folder).as_posix(), "size": len(body)}
            if path.suffix != ".json":
                digest = "0" * 64 if self.wrong_digests else hashlib.sha256(body).hexdigest()
                sibling["lfs"] = {"sha256": digest, "size": len(body), "pointerSize": 130}
            siblings.append(sibling)
        return {"id": name.removeprefix("datasets/"), "sha": self.commit, "siblings": siblings}


@contextmanager
def served(handler: type[BaseHTTPRequestHandler], address: tuple[str, int] = ("127.0.0.1", 0)) -> Iterator[str]:
    """Answers requests until the block ends, by default on loopback, and yields the URL."""
    server = ThreadingHTTPServer(address, handler)
    Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def serve_hub(repositories: dict[str, Path], address: tuple[str, int] = ("127.0.0.1", 0)) -> Iterator[Hub]:
    """Serves the repositories until the block ends, by default on loopback."""
    hub = Hub(repositories)

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            status, body, headers = hub.answer(unquote(self.path.split("?")[0]), self.headers.get("Authorization"))
            start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").split("-")[0])
            if start:
                status, headers = 206, {**headers, "Content-Range": f"bytes {start}-{len(body) - 1}/{len(body)}"}
            body = body[start:]
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                if hub.cut and "/resolve/" in self.path:
                    hub.cut -= 1
                    body = body[: len(body) // 2]
                    self.close_connection = True
                self.wfile.write(body)

    with served(Handler, address) as hub.url:
        yield hub
