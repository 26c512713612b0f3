"""Takes what is pushed to a repository by as much of the Hugging Face hub's protocol as that needs."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

from tests.support.hub_server import COMMIT, TOKEN, served


@dataclass
class PushHub:
    """Holds the repositories by name, each a map of files, and what was uploaded and not committed yet."""

    url: str = ""
    repositories: dict[str, dict[str, bytes]] = field(default_factory=dict)
    private: dict[str, Any] = field(default_factory=dict)
    uploaded: dict[str, bytes] = field(default_factory=dict)
    """The bytes of large files by their SHA-256."""
    cards: list[str] = field(default_factory=list)
    """The metadata that was to be checked."""
    faults: list[str] = field(default_factory=list)
    """What the hub finds wrong with metadata."""
    status: int = 200
    """A status that replaces that of each answer."""

    def answer(self, method: str, path: str, body: bytes, token: str | None) -> tuple[int, dict[str, Any]]:
        if self.status != 200:
            return self.status, {"error": "refused by the test"}
        if path.startswith("/upload/"):
            self.uploaded[hashlib.sha256(body).hexdigest()] = body
            return 200, {}
        if token != f"Bearer {TOKEN}":
            return 401, {"error": "Invalid credentials"}
        if path == "/api/repos/create":
            given = json.loads(body)
            name = f"{given['organization']}/{given['name']}"
            self.repositories.setdefault(name, {})
            self.private[name] = given.get("private", given.get("visibility"))
            return 200, {"url": f"{self.url}/{name}", "name": name, "id": name}
        if path == "/api/validate-yaml":
            self.cards.append(json.loads(body)["content"])
            return 400 if self.faults else 200, {"errors": [{"message": said} for said in self.faults], "warnings": []}
        if path.endswith("/preupload/main"):
            files = [
                {"path": f["path"], "uploadMode": "lfs" if f["path"].endswith((".safetensors", ".onnx")) else "regular", "shouldIgnore": False}
                for f in json.loads(body)["files"]
            ]  # fmt: skip
            return 200, {"files": files}
        if path.endswith(".git/info/lfs/objects/batch"):
            objects = [
                {**o, "actions": {"upload": {"href": f"{self.url}/upload/{o['oid']}"}}}
                for o in json.loads(body)["objects"]
            ]
            return 200, {"transfer": "basic", "objects": objects}
        if path.endswith("/commit/main"):
            name = path.removeprefix("/api/models/").removesuffix("/commit/main")
            for line in body.splitlines():
                entry = json.loads(line)
                value = entry["value"]
                if entry["key"] == "file":
                    self.repositories[name][value["path"]] = base64.b64decode(value["content"])
                elif entry["key"] == "lfsFile":
                    self.repositories[name][value["path"]] = self.uploaded[value["oid"]]
            url = f"{self.url}/{name}/commit/{COMMIT}"
            return 200, {"commitUrl": url, "commitOid": COMMIT, "success": True}
        if method == "GET" and path.startswith("/api/models/"):
            name = path.removeprefix("/api/models/").partition("/revision/")[0]
            return 200, {"id": name, "sha": COMMIT, "siblings": []}
        return 404, {"error": path}


@contextmanager
def serve_push_hub() -> Iterator[PushHub]:
    """Serves an empty hub on loopback until the block ends."""
    hub = PushHub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def _any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.headers.get("Transfer-Encoding") == "chunked":
                while size := int(self.rfile.readline(), 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
            status, answer = hub.answer(self.command, self.path.split("?")[0], body, self.headers.get("Authorization"))
            text = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = do_PUT = _any

    with served(Handler) as hub.url:
        yield hub
