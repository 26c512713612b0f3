"""Forwards a connection to a port, as the API server does for `pods/portforward` over a websocket (v4.channel.k8s.io)."""

from __future__ import annotations

import base64
import hashlib
import socket
import struct
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler

OFFERED = "v4.channel.k8s.io"
BINARY, CLOSE = 2, 8


def forward(handler: BaseHTTPRequestHandler, port: int, target: int | None) -> None:
    """Answers the request for a websocket, and connects it with the port `target` of this machine; with None, nothing listens there."""
    key = handler.headers["Sec-WebSocket-Key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
    assert OFFERED in handler.headers["Sec-WebSocket-Protocol"]
    handler.send_response(101, "Switching Protocols")
    handler.send_header("Upgrade", "websocket")
    handler.send_header("Connection", "Upgrade")
    handler.send_header("Sec-WebSocket-Accept", base64.b64encode(hashlib.sha1(key.encode()).digest()).decode())  # noqa: S324
    handler.send_header("Sec-WebSocket-Protocol", OFFERED)
    handler.end_headers()
    handler.wfile.flush()
    handler.close_connection = True
    for channel in (0, 1):
        _send(handler, bytes([channel]) + struct.pack("<H", port))
    with suppress(OSError):  # the client has gone
        if target is None:
            _send(handler, b"\x01error forwarding port: connection refused")
        else:
            _join(handler, target)
        _send(handler, b"", CLOSE)


def _join(handler: BaseHTTPRequestHandler, target: int) -> None:
    with socket.create_connection(("127.0.0.1", target), timeout=30) as connected:

        def pass_on() -> None:
            with suppress(OSError, ValueError):  # the other side, or the request, has ended
                while frame := _receive(handler):
                    connected.sendall(frame[1:])

        threading.Thread(target=pass_on, daemon=True).start()
        while data := connected.recv(1 << 16):
            _send(handler, b"\x00" + data)


def _send(handler: BaseHTTPRequestHandler, data: bytes, kind: int = BINARY) -> None:
    size = len(data)
    head = struct.pack("!BB", 0x80 | kind, size) if size < 126 else struct.pack("!BBQ", 0x80 | kind, 127, size)
    handler.wfile.write(head + data)
    handler.wfile.flush()


def _receive(handler: BaseHTTPRequestHandler) -> bytes | None:
    """Returns what one frame of the client holds; None at the end."""
    head = handler.rfile.read(2)
    if len(head) < 2 or head[0] & 15 == CLOSE:
        return None
    size = head[1] & 127
    if size == 126:
        (size,) = struct.unpack("!H", handler.rfile.read(2))
    elif size == 127:
        (size,) = struct.unpack("!Q", handler.rfile.read(8))
    mask = handler.rfile.read(4)
    return bytes(byte ^ mask[at % 4] for at, byte in enumerate(handler.rfile.read(size)))
