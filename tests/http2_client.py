"""A gRPC client that does as it is told: sends parts of messages, reads nothing, answers no pings. Frames of RFC 9113 by hand."""

from __future__ import annotations

import socket
import time

DATA, HEADERS, RESET, SETTINGS, PING, GOAWAY, WINDOW = 0, 1, 3, 4, 6, 7, 8
SERVICE = "/inference.GRPCInferenceService"
FIRST_WINDOW = 65535
Frame = tuple[int, int, bytes]  # kind, stream, payload


class Http2:
    """`window`: bytes of each answer that the client lets the server send; it never allows more."""

    def __init__(self, port: int, window: int = FIRST_WINDOW, receive_buffer: int | None = None) -> None:
        self.socket = socket.socket()
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.connect(("127.0.0.1", port))
        self.socket.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(SETTINGS, 0, 0, b"\0\4" + window.to_bytes(4, "big")))
        if window > FIRST_WINDOW:
            self.socket.sendall(_frame(WINDOW, 0, 0, (window - FIRST_WINDOW).to_bytes(4, "big")))
        self._last, self._rest = -1, b""

    def __enter__(self) -> Http2:
        return self

    def __exit__(self, *error: object) -> None:
        self.socket.close()

    def call(self, message: bytes, whole: bool = True, token: str | None = None, method: str = "ModelInfer") -> int:
        """Begins a call; its stream. Not whole: the message is announced twice as long."""
        self._last += 2
        fields = {
            ":method": "POST",
            ":scheme": "http",
            ":path": f"{SERVICE}/{method}",
            ":authority": "x",
            "te": "trailers",
            "content-type": "application/grpc",
        }
        if token is not None:
            fields["authorization"] = token
        block = b"".join(b"\0" + _text(name) + _text(value) for name, value in fields.items())
        size = len(message) if whole else 2 * len(message)
        text, sent = b"\0" + size.to_bytes(4, "big") + message, [_frame(HEADERS, 4, self._last, block)]
        for start in range(0, len(text), 1 << 14):
            last = whole and start + (1 << 14) >= len(text)
            sent.append(_frame(DATA, int(last), self._last, text[start : start + (1 << 14)]))
        self.socket.sendall(b"".join(sent))
        return self._last

    def frames(self, seconds: float, pings: bool = True) -> list[Frame]:
        """What comes in that time, or until the connection ends; settings and, unless told otherwise, pings are acknowledged."""
        found, end = [], time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.socket.settimeout(left)
            try:
                data = self.socket.recv(1 << 16)
            except (TimeoutError, ConnectionError):
                break
            if not data:
                break
            self._rest += data
            while len(self._rest) >= (size := 9 + int.from_bytes(self._rest[:3], "big")):
                kind, flags, stream = self._rest[3], self._rest[4], int.from_bytes(self._rest[5:9], "big")
                payload, self._rest = self._rest[9:size], self._rest[size:]
                found.append((kind, stream, payload))
                if (kind == SETTINGS or (kind == PING and pings)) and not flags & 1:
                    self.socket.sendall(_frame(kind, 1, 0, payload if kind == PING else b""))
                if len(self._rest) < 9:
                    break
        return found

    def ended(self, seconds: float) -> bool:
        """Whether the server ends the connection in that time; nothing is answered meanwhile."""
        self.socket.settimeout(seconds)
        try:
            while self.socket.recv(1 << 16):
                pass
        except TimeoutError:
            return False
        except ConnectionError:
            pass
        return True


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def _text(value: str) -> bytes:
    """Of HPACK, neither compressed nor indexed."""
    assert len(value) < 127
    return bytes([len(value)]) + value.encode()
