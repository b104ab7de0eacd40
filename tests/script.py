"""A fake PostgreSQL and a fake client that follow a script, for cases which real ones cannot be made to produce.

    client = Client(host, port)
    client.log_in("postgres", "app")
    client.send(frontend.Query(b"SELECT 1"))
    client.expect(backend.RowDescription, backend.DataRow([b"1"]), backend.CommandComplete, READY)

    with FakeServer(lambda peer: (peer.accept_login(), peer.expect(frontend.Query), peer.send(b"garbage"))) as server:
        …

Messages, packets and raw bytes can be sent; messages are expected, or classes where any message of the class is right.
A mismatch fails the test and prints all messages so far. Sockets are blocking, with a timeout for every operation.
"""

import contextlib
import socket
import threading
from collections.abc import Callable
from typing import Self

import pytest

from protocol import authentication, backend, codes, frontend, startup, tracing
from protocol.message import HEADER, Message

TIMEOUT = 10.0
READY = backend.ReadyForQuery(codes.IDLE)

Sendable = Message | startup.Packet | bytes
Expected = Message | type[Message]


class Peer:
    """One end of a connection. `dialogue` has one line for every message sent or received."""

    def __init__(self, connection: socket.socket, *, reads: str) -> None:
        connection.settimeout(TIMEOUT)
        self.socket = connection
        self.dialogue: list[str] = []
        self.received = bytearray()  # every byte received
        self._buffer = bytearray()
        self._decode = backend.decode if reads == "backend" else frontend.decode
        self._render = tracing.render_backend if reads == "backend" else tracing.render_frontend

    def send(self, *messages: Sendable) -> None:
        """Send all messages in one piece."""
        self.dialogue += [f"→ {_line(message)}" for message in messages]
        self.socket.sendall(b"".join(map(bytes, messages)))

    def receive(self) -> Message:
        """The next message; fails at the end of the stream, and when nothing comes within TIMEOUT."""
        kind, length = HEADER.unpack(self._read(HEADER.size))
        body = self._read(length - 4)
        self.dialogue.append(f"← {self._render(kind, body)}")
        return self._decode(kind, body)

    def expect(self, *expected: Expected) -> list[Message]:
        """Fails unless these are the next messages. Returns them."""
        messages = []
        for wanted in expected:
            message = self.receive()
            if not (isinstance(message, wanted) if isinstance(wanted, type) else message == wanted):
                self._fail(f"expected {wanted.__name__ if isinstance(wanted, type) else wanted}, got {message}")
            messages.append(message)
        return messages

    def receive_until(self, kind: type[Message]) -> list[Message]:
        """All messages up to and including the first of this class."""
        messages = [self.receive()]
        while not isinstance(messages[-1], kind):
            messages.append(self.receive())
        return messages

    def read_packet(self) -> startup.Packet:
        """The next startup packet."""
        length = self._read(4)
        packet = startup.decode(length + self._read(int.from_bytes(length) - 4))
        self.dialogue.append(f"← {tracing.render(packet)}")
        return packet

    def expect_bytes(self, expected: bytes) -> None:
        """Fails unless these bytes are next, such as the answer to an SSLRequest."""
        got = self._read(len(expected))
        self.dialogue.append(f"← {got!r}")
        if got != expected:
            self._fail(f"expected {expected!r}, got {got!r}")

    def expect_end(self) -> None:
        """Fails unless the other side has closed the connection, normally or by RST, and has sent nothing more."""
        with contextlib.suppress(ConnectionResetError):
            rest = bytes(self._buffer) + self.socket.recv(65536)
            if rest:
                self._fail(f"expected the end of the stream, got {rest[:100]!r}")

    def expect_silence(self, seconds: float = 0.2) -> None:
        """Fails if a byte arrives or the connection ends within `seconds`."""
        self.socket.settimeout(seconds)
        try:
            self._buffer += (data := self.socket.recv(65536))
            self._fail(f"expected silence, got {data[:100]!r}" if data else "expected silence, got the end")
        except TimeoutError:
            self.socket.settimeout(TIMEOUT)

    def half_close(self) -> None:
        """Close the sending direction; the other direction stays open."""
        self.dialogue.append("→ end")
        self.socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close both directions."""
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read(self, size: int) -> bytes:
        while len(self._buffer) < size:
            try:
                data = self.socket.recv(65536)
            except TimeoutError:
                self._fail(f"nothing more came within {TIMEOUT:g} s; {len(self._buffer)} bytes of {size} are here")
            except ConnectionResetError:
                self._fail("the connection was reset")
            if not data:
                self._fail(f"the stream ended; {len(self._buffer)} bytes of {size} are here")
            self._buffer += data
            self.received += data
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data

    def _fail(self, reason: str) -> None:
        pytest.fail("\n  ".join([f"{reason}; the dialogue so far:", *self.dialogue]), pytrace=True)


class Client(Peer):
    """A frontend, connected to `host` and `port`."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(socket.create_connection((host, port), TIMEOUT), reads="backend")

    def log_in(self, user: str, database: str, **parameters: str) -> list[Message]:
        """Start a session at a server that authenticates by `trust`. Returns the messages up to ReadyForQuery."""
        words = {"user": user, "database": database} | parameters
        pairs = tuple((name.encode(), value.encode()) for name, value in words.items())
        self.send(startup.StartupMessage(codes.PROTOCOL_3_0, pairs))
        messages = self.receive_until(backend.ReadyForQuery)
        assert isinstance(messages[0], authentication.AuthenticationOk), messages
        return messages

    def query(self, sql: str) -> list[Message]:
        """Send one simple query. Returns the messages up to ReadyForQuery."""
        self.send(frontend.Query(sql.encode()))
        return self.receive_until(backend.ReadyForQuery)


class FakeServer:
    """Runs `script(peer)` with each connection, one after the other. Listens on `.host`, `.port`.

    Leaving the `with` block waits for the scripts and raises the first exception one of them raised.
    """

    def __init__(self, script: Callable[["ServerPeer"], object]) -> None:
        self._script = script
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.host, self.port = self._listener.getsockname()[:2]
        self._failures: list[BaseException] = []
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(2 * TIMEOUT)
        assert not self._thread.is_alive()
        if self._failures and kind is None:
            raise self._failures[0]

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with ServerPeer(connection, reads="frontend") as peer:
                try:
                    self._script(peer)
                except BaseException as failure:  # noqa: BLE001 — pytest's failures are BaseException; raised again above
                    self._failures.append(failure)


class ServerPeer(Peer):
    """The server's end of one connection."""

    def accept_login(self, *between: Message, process_id: int = 1, secret_key: bytes = b"\1\2\3\4") -> startup.Packet:
        """Accept a client without authentication: decline encryption, answer the startup message with `between` before
        ReadyForQuery."""
        packet = self.read_packet()
        while isinstance(packet, startup.SSLRequest | startup.GSSENCRequest):
            self.send(b"N")
            packet = self.read_packet()
        if isinstance(packet, startup.StartupMessage):
            key = backend.BackendKeyData(process_id, secret_key)
            self.send(authentication.AuthenticationOk(), key, *between, READY)
        return packet


def _line(message: Sendable) -> str:
    return repr(message[:80]) if isinstance(message, bytes) else tracing.render(message)
