"""A frontend on a plain socket: a test decides about each message it sends, and it keeps every message it receives."""

import contextlib
import socket
import struct
import time

from protocol import backend, codes, frontend, startup
from tests.recording import Normalizer, line

TIMEOUT = 20.0
_HEADER = struct.Struct("!BI")


class Wire:
    """One connection. `send` sends messages, the `read_…` methods receive, and `transcript` has what was received,
    normalized.

    A method reads no more messages than its arguments say, until `terminate` reads the rest. So a transcript does not
    depend on timing.
    """

    def __init__(self, host, port, *, user="postgres", database="postgres", version=codes.PROTOCOL_3_0, **parameters):
        self.socket = socket.create_connection((host, port), timeout=TIMEOUT)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.address = (host, port)
        self.user, self.database = user, database
        self.kinds = ""
        """The type bytes of the messages received since the session began; "$" is the end of the stream."""
        self.transcript: list[str] = []
        self.bodies: list[tuple[int, bytes]] = []
        self.key = b""
        self._buffer = b""
        self._normalizer = Normalizer()
        words = {"user": user, "database": database, "client_encoding": "UTF8", **parameters}
        self.startup = startup.StartupMessage(version, tuple((k.encode(), v.encode()) for k, v in words.items()))

    def __enter__(self):
        return self

    def __exit__(self, *_exc):
        self.socket.close()

    def start(self):
        """Authenticate by `trust`, up to ReadyForQuery. These messages are in `transcript` but not in `kinds`."""
        self.send(self.startup)
        self.read_until("Z")
        self.kinds = ""
        return self

    def send(self, *messages, chunk=None):
        """Send messages or bytes: in one piece, or in pieces of `chunk` bytes."""
        data = b"".join(message if isinstance(message, bytes) else bytes(message) for message in messages)
        if chunk is None:
            self.socket.sendall(data)
        else:
            for pos in range(0, len(data), chunk):
                self.socket.sendall(data[pos : pos + chunk])

    def query(self, text):
        """Send a simple query and read up to its ReadyForQuery."""
        self.send(frontend.Query(text.encode() if isinstance(text, str) else text))
        self.read_until("Z")

    def read_until(self, kinds, count=1):
        """Read until a message of one of these types has come `count` times, or until the end of the stream."""
        while count and not self.kinds.endswith("$"):
            kind = self._read_message()
            count -= kind is not None and chr(kind) in kinds

    def read_byte(self):
        """Read the answer to an SSLRequest or GSSENCRequest."""
        self._fill(1)
        byte, self._buffer = self._buffer[:1], self._buffer[1:]
        self.transcript.append(line("answer", byte))
        return byte

    def terminate(self):
        """Send Terminate and read up to the end of the stream."""
        with contextlib.suppress(OSError):
            self.send(frontend.TERMINATE_FRAME)
        self.read_to_end()

    def read_to_end(self):
        """Read until the backend closes the connection."""
        self.read_until("")

    def half_close(self):
        """Close the sending direction; the backend's messages can still be read."""
        with contextlib.suppress(OSError):  # the backend may have closed the connection already
            self.socket.shutdown(socket.SHUT_WR)

    def is_silent(self, seconds=0.1):
        """Whether nothing is received for `seconds`."""
        self.socket.settimeout(seconds)
        try:
            self._buffer += self.socket.recv(65536)
        except TimeoutError:
            return not self._buffer
        finally:
            self.socket.settimeout(TIMEOUT)
        return False

    def values(self):
        """The values of all rows received."""
        return [backend.column_values(body, 0, len(body)) for kind, body in self.bodies if kind == backend.DATA_ROW]

    def sqlstates(self):
        """The SQLSTATEs of all errors received."""
        errors = (body for kind, body in self.bodies if kind == backend.ERROR_RESPONSE)
        return [backend.ErrorResponse.decode(body).sqlstate.decode() for body in errors]

    def _read_message(self):
        if not self._fill(_HEADER.size):
            return self._end()
        kind, length = _HEADER.unpack_from(self._buffer)
        if not self._fill(1 + length):
            return self._end()
        body, self._buffer = self._buffer[_HEADER.size : 1 + length], self._buffer[1 + length :]
        if kind == backend.BACKEND_KEY_DATA:
            self.key = body
        self.kinds += chr(kind)
        self.bodies.append((kind, body))
        self.transcript.append(line(chr(kind), self._normalizer.backend(kind, body)))
        return kind

    def _fill(self, size):
        """Read until `size` bytes are buffered; False if the stream ends before."""
        pieces = [self._buffer]
        have = len(self._buffer)
        while have < size:
            try:
                data = self.socket.recv(1 << 20)
            except ConnectionResetError:
                data = b""
            if not data:
                break
            pieces.append(data)
            have += len(data)
        self._buffer = b"".join(pieces)
        return have >= size

    def _end(self):
        if self._buffer:
            self.transcript.append(line("rest", self._buffer))
        self.kinds += "$"
        self.transcript.append("end of stream")


SYNC, FLUSH, TERMINATE = frontend.SYNC_FRAME, frontend.FLUSH_FRAME, frontend.TERMINATE_FRAME


def query(text):
    return frontend.Query(text.encode())


def parse(text, name="", types=()):
    return frontend.Parse(name.encode(), text.encode(), tuple(types))


def bind(*parameters, statement="", portal="", formats=(), results=()):
    encoded = [value.encode() if isinstance(value, str) else value for value in parameters]
    return frontend.Bind(portal.encode(), statement.encode(), tuple(formats), encoded, tuple(results))


def describe_statement(name=""):
    return frontend.Describe(codes.PREPARED_STATEMENT, name.encode())


def describe_portal(name=""):
    return frontend.Describe(codes.PORTAL, name.encode())


def close_statement(name=""):
    return frontend.Close(codes.PREPARED_STATEMENT, name.encode())


def close_portal(name=""):
    return frontend.Close(codes.PORTAL, name.encode())


def execute(portal="", rows=0):
    return frontend.Execute(portal.encode(), rows)


def run(text, *parameters):
    """Parse, Bind, Describe and Execute of the unnamed statement, without Sync."""
    return bytes(parse(text)) + bytes(bind(*parameters)) + bytes(describe_portal()) + bytes(execute())


def cancel(wire):
    """Cancel what the session of `wire` executes, over another connection; returns when the server has closed
    that one."""
    key = backend.BackendKeyData.decode(wire.key)
    request = startup.CancelRequest(key.process_id, key.secret_key)
    with socket.create_connection(wire.address, timeout=TIMEOUT) as connection:
        connection.sendall(bytes(request))
        assert connection.recv(1) == b""


def wait_until(condition, timeout=TIMEOUT):
    """Wait until `condition()` is true."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"the condition did not hold within {timeout} s"
        time.sleep(0.01)
