"""What was said on a connection: a relay that records every byte of both directions, and what makes two records equal.

    with Recorder(postgres.host, postgres.port) as recorder:
        psycopg.connect(host=recorder.host, port=recorder.port, …)
    recorder.sessions()                    # one `Session` a connection, in the order they were opened

A `Session` is its messages, in order, as readable lines. What differs from run to run though nobody did anything else
is replaced: process ids, cancel keys, salts and SCRAM payloads, the numbers in asyncpg's names (counted per process),
object ids above the server's own, which become "first seen, second seen, …", and a Flush right behind a Sync, which
asks for nothing and which psycopg sends if the Sync has not been answered yet. Nothing else is: a byte too many, a
message missing or moved is a different line.
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
    """One connection, normalised."""

    frontend: list[str]
    backend: list[str]


@dataclass
class Recording:
    """The bytes of one connection."""

    frontend: bytearray = field(default_factory=bytearray)
    backend: bytearray = field(default_factory=bytearray)

    def session(self) -> Session:
        """The messages in it."""
        normaliser = Normaliser()
        sent = frontend_lines(bytes(self.frontend), normaliser)
        return Session(sent, backend_lines(bytes(self.backend), normaliser, answers=requests(bytes(self.frontend))))


class Recorder:
    """A TCP relay to `host:port` that listens on `.host`, `.port`. An end of stream passes through on its own."""

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
        """Stop accepting, wait until every open connection has ended by itself, then for as long end them."""
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
        """The recorded connections; call when all have ended."""
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


class Normaliser:
    """Replaces in one connection what no two runs share."""

    def __init__(self):
        self._oids: dict[int, int] = {}
        self._names: dict[bytes, bytes] = {}

    def oid(self, oid):
        """The server's own objects keep their number; others are numbered as they come."""
        if oid < FIRST_NORMAL_OID:
            return oid
        return self._oids.setdefault(oid, FIRST_NORMAL_OID + len(self._oids))

    def names(self, body):
        """Counted names are counted per connection."""

        def counted(match):
            number = b"%d" % len(self._names)
            return self._names.setdefault(match[0], match[1] + number + match[2])

        return _COUNTED_NAME.sub(counted, body)

    def frontend(self, kind, body):
        """A frontend message's body."""
        if kind == frontend.PASSWORD:
            # SASLInitialResponse begins with the mechanism, which is no secret; the rest of all four is.
            return body[: body.find(0) + 1] if body.startswith(b"SCRAM") else b""
        return self.names(body)

    def backend(self, kind, body):
        """A backend message's body."""
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
    """The messages of a stream behind its startup: (type byte, body) pairs, then (None, rest) when one is cut short."""
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
    """The untyped packets a frontend's stream begins with, and where they end."""
    packets, pos = [], 0
    while (end := startup.packet_end(stream[pos:])) is not None:
        packets.append(stream[pos : pos + end])
        pos += end
        if int.from_bytes(packets[-1][4:8]) not in {codes.SSL_REQUEST, codes.GSSENC_REQUEST}:
            break
    return packets, pos


def requests(stream):
    """How many one-byte answers the backend owes before its first message."""
    packets, _ = split_startup(stream)
    return sum(int.from_bytes(packet[4:8]) in {codes.SSL_REQUEST, codes.GSSENC_REQUEST} for packet in packets)


def frontend_lines(stream, normaliser):
    """What a frontend sent, a line for each packet and message."""
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
            lines.append(line(chr(kind), normaliser.frontend(kind, body)))
        before = kind
    return lines


def backend_lines(stream, normaliser, *, answers=0):
    """What a backend sent, a line for each message, behind `answers` bytes to requests."""
    lines = [line("answer", stream[pos : pos + 1]) for pos in range(answers)]
    return lines + [
        line("rest", body) if kind is None else line(chr(kind), normaliser.backend(kind, body))
        for kind, body in split_messages(stream[answers:])
    ]


def line(kind, body):
    """Readable, short, and different for different bodies."""
    text = f"{kind} {body!r}"
    if len(text) <= LONGEST_LINE:
        return text
    return f"{text[:LONGEST_LINE]}… {len(body)} bytes, hash {hash(body)}"
