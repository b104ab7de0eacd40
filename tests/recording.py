"""Records every byte of both directions of a connection, and decides when two recordings are equal.

    with Recorder(postgres.host, postgres.port) as recorder:
        psycopg.connect(host=recorder.host, port=recorder.port, …)
    recorder.sessions()                    # one `Session` for each connection, in the order they were opened

A `Session` is the messages of a connection, in order, as readable lines. What differs from run to run even if the
client does the same is replaced: process IDs, cancel keys, salts and SCRAM payloads, the numbers in asyncpg's statement
names (counted per process), and the OIDs of objects that are not built in (numbered in order of appearance). A Flush
directly behind a Sync is left out: it asks for nothing, and psycopg sends it only if the Sync has not been answered
yet. Everything else is compared: an additional byte, or a missing or moved message, gives a different line.
"""

import contextlib
import re
import socket
import struct
import threading
from dataclasses import dataclass, field

from protocol import authentication, backend, codes, frontend, startup

FIRST_NORMAL_OID = 16384
LONGEST_LINE = 400
_HEADER = struct.Struct("!BI")
_COUNTED_NAME = re.compile(rb"(__asyncpg_[a-z]+_)[0-9a-f]+(__)")


@dataclass
class Session:
    """One connection, normalized."""

    frontend: list[str]
    backend: list[str]


@dataclass
class Recording:
    """The bytes of one connection."""

    frontend: bytearray = field(default_factory=bytearray)
    backend: bytearray = field(default_factory=bytearray)

    def session(self) -> Session:
        """The normalized messages."""
        normalizer = Normalizer()
        sent = frontend_lines(bytes(self.frontend), normalizer)
        return Session(sent, backend_lines(bytes(self.backend), normalizer, answers=requests(bytes(self.frontend))))


class Recorder:
    """A TCP relay to `host:port` that listens on `.host`, `.port`. It passes on the end of each direction by itself."""

    def __init__(self, host, port):
        self._target = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.host, self.port = self._listener.getsockname()[:2]
        self.recordings: list[Recording] = []
        self._threads: list[threading.Thread] = []
        self._sockets: list[socket.socket] = []
        self._acceptor = threading.Thread(target=self._accept, daemon=True)
        self._acceptor.start()

    def __enter__(self):
        return self

    def __exit__(self, *_exc):
        self.close()

    def close(self):
        """Stop accepting and wait for the open connections to end; then close those that did not, and fail."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._acceptor.join(5)
        for thread in self._threads:
            thread.join(5)
        alive = any(thread.is_alive() for thread in self._threads)
        for leg in self._sockets:
            leg.close()
        assert not alive, "a recorded connection was never closed"

    def sessions(self):
        """The recorded connections. Call it when all of them have ended."""
        self.close()
        return [recording.session() for recording in self.recordings]

    def _accept(self):
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(self._target)
            recording = Recording()
            self.recordings.append(recording)
            self._sockets += [client, server]
            for source, sink, record in ((client, server, recording.frontend), (server, client, recording.backend)):
                source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                thread = threading.Thread(target=self._pump, args=(source, sink, record), daemon=True)
                self._threads.append(thread)
                thread.start()

    @staticmethod
    def _pump(source, sink, record):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                record += data
                sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)


class Normalizer:
    """Replaces the parts of one connection's messages that differ from run to run."""

    def __init__(self):
        self._oids: dict[int, int] = {}
        self._names: dict[bytes, bytes] = {}

    def oid(self, oid):
        """`oid` itself for a built-in object; otherwise a number in the order of appearance."""
        if oid < FIRST_NORMAL_OID:
            return oid
        return self._oids.setdefault(oid, FIRST_NORMAL_OID + len(self._oids))

    def names(self, body):
        """The body with the statement names of asyncpg counted per connection."""

        def counted(match):
            number = b"%d" % len(self._names)
            return self._names.setdefault(match[0], match[1] + number + match[2])

        return _COUNTED_NAME.sub(counted, body)

    def frontend(self, kind, body):
        """A frontend message's body, normalized."""
        if kind == frontend.PASSWORD:
            # SASLInitialResponse begins with the mechanism, which stays; the rest of all four differs from run to run.
            return body[: body.find(0) + 1] if body.startswith(b"SCRAM") else b""
        return self.names(body)

    def backend(self, kind, body):
        """A backend message's body, normalized."""
        if kind == backend.BACKEND_KEY_DATA:
            return bytes(len(body))
        if kind == backend.NOTIFICATION_RESPONSE:
            return bytes(4) + body[4:]
        if kind == backend.AUTHENTICATION:
            secret = int.from_bytes(body[:4]) in {
                authentication.AuthenticationMD5Password.CODE,
                authentication.AuthenticationSASLContinue.CODE,
                authentication.AuthenticationSASLFinal.CODE,
            }
            return body[:4] if secret else body
        if kind == backend.ROW_DESCRIPTION:
            message = backend.RowDescription.decode(body)
            for column in message.fields:
                column.table_oid, column.type_oid = self.oid(column.table_oid), self.oid(column.type_oid)
            return message.body()
        if kind == backend.PARAMETER_DESCRIPTION:
            return backend.ParameterDescription(
                tuple(self.oid(oid) for oid in backend.ParameterDescription.decode(body).type_oids)
            ).body()
        return self.names(body)


def split_messages(stream):
    """The messages of a stream behind its startup packets: (type byte, body) pairs, then (None, rest) if one is
    truncated."""
    pos = 0
    while pos + _HEADER.size <= len(stream):
        kind, length = _HEADER.unpack_from(stream, pos)
        end = pos + 1 + length
        if length < 4 or end > len(stream):
            break
        yield kind, stream[pos + _HEADER.size : end]
        pos = end
    if pos < len(stream):
        yield None, stream[pos:]


def split_startup(stream):
    """The startup packets at the beginning of a frontend's stream, and the position behind them."""
    packets, pos = [], 0
    while (end := startup.packet_end(stream[pos:])) is not None:
        packets.append(stream[pos : pos + end])
        pos += end
        if int.from_bytes(packets[-1][4:8]) not in {codes.SSL_REQUEST, codes.GSSENC_REQUEST}:
            break
    return packets, pos


def requests(stream):
    """How many one-byte answers (to SSLRequest and GSSENCRequest) the backend sends before its first message."""
    packets, _ = split_startup(stream)
    return sum(int.from_bytes(packet[4:8]) in {codes.SSL_REQUEST, codes.GSSENC_REQUEST} for packet in packets)


def frontend_lines(stream, normalizer):
    """One line for each packet and message a frontend sent."""
    packets, pos = split_startup(stream)
    lines = []
    for packet in packets:
        cancel = int.from_bytes(packet[4:8]) == codes.CANCEL_REQUEST
        lines.append(line("packet", packet[:8] + bytes(len(packet) - 8) if cancel else packet))
    before = None
    for kind, body in split_messages(stream[pos:]):
        if kind is None:
            lines.append(line("rest", body))
        elif (before, kind) != (frontend.SYNC, frontend.FLUSH):
            lines.append(line(chr(kind), normalizer.frontend(kind, body)))
        before = kind
    return lines


def backend_lines(stream, normalizer, *, answers=0):
    """One line for each message a backend sent, behind `answers` one-byte answers."""
    lines = [line("answer", stream[pos : pos + 1]) for pos in range(answers)]
    return lines + [
        line("rest", body) if kind is None else line(chr(kind), normalizer.backend(kind, body))
        for kind, body in split_messages(stream[answers:])
    ]


def line(kind, body):
    """A readable, short line that differs for different bodies."""
    text = f"{kind} {body!r}"
    if len(text) <= LONGEST_LINE:
        return text
    return f"{text[:LONGEST_LINE]}… {len(body)} bytes, hash {hash(body)}"
