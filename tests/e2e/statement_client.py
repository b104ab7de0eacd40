"""A frontend that can send one statement in every mode of the protocol and returns rows, tags and errors."""

import socket
import struct
import uuid
from typing import NamedTuple

from protocol import backend, codes, copy_data, frontend, startup

TIMEOUT = 5.0
_HEADER = struct.Struct("!BI")
OIDS = {
    "bool": 16,
    "int8": 20,
    "int2": 21,
    "int4": 23,
    "text": 25,
    "varchar": 1043,
    "uuid": 2950,
    "int4[]": 1007,
    "int8[]": 1016,
    "text[]": 1009,
}
_INTEGERS = {"int2": "!h", "int4": "!i", "int8": "!q"}


class Typed(NamedTuple):
    """A parameter: the name of its type, and its text (a list of texts for an array; None for NULL)."""

    type: str
    value: str | list[str] | None

    @property
    def text(self):
        """The value of a parameter in text format."""
        if isinstance(self.value, list):
            return "{" + ",".join(self.value) + "}"
        return self.value

    @property
    def literal(self):
        """The value as an SQL constant."""
        if self.value is None:
            return "NULL"
        if self.type in _INTEGERS:
            return self.text
        return "'" + self.text.replace("'", "''") + "'"

    @property
    def binary(self):
        """The value of a parameter in binary format."""
        return None if self.value is None else _binary(self.type, self.value)


def _binary(name, value):
    if name.endswith("[]"):
        element = name.removesuffix("[]")
        head = struct.pack("!5i", 1, 0, OIDS[element], len(value), 1)
        return head + b"".join(struct.pack("!i", len(_binary(element, one))) + _binary(element, one) for one in value)
    if name in _INTEGERS:
        return struct.pack(_INTEGERS[name], int(value))
    if name == "bool":
        return b"\1" if value in ("t", "true") else b"\0"
    if name == "uuid":
        return uuid.UUID(value).bytes
    return value.encode()


def int4(value):
    return Typed("int4", str(value))


def text(value):
    return Typed("text", value)


def inlined(sql, arguments):
    """The statement with constants in place of its parameters."""
    for number in range(len(arguments), 0, -1):
        sql = sql.replace(f"${number}", arguments[number - 1].literal)
    return sql


class Answer(NamedTuple):
    """What was received up to a ReadyForQuery."""

    rows: list[list[bytes | None]]
    tags: list[str]
    errors: list[str]
    """SQLSTATEs."""
    status: str
    """The transaction status: I, T or E."""


class StatementClient:
    """One session. `simple`, `text`, `binary`, `prepared` and `pipelined` each send one statement and read its answer.

    They take SQL with `$1` … and `Typed` arguments; all but `simple` send these as parameters.
    """

    def __init__(self, host, port, *, database, user="postgres", **parameters):
        self.socket = socket.create_connection((host, port), timeout=TIMEOUT)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.key = b""
        self.is_idle = False
        """Everything sent was answered, and no transaction block is open."""
        self._buffer = b""
        self._names = 0
        words = {"user": user, "database": database, "client_encoding": "UTF8", **parameters}
        pairs = tuple((name.encode(), value.encode()) for name, value in words.items())
        self.send(startup.StartupMessage(codes.PROTOCOL_3_0, pairs))
        answer = self.answer()
        assert not answer.errors, answer

    def __enter__(self):
        return self

    def __exit__(self, *_exc):
        self.close()

    def close(self):
        self.socket.close()

    def abort(self):
        """Reset the connection, as when the client is killed."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def send(self, *messages):
        self.is_idle = False
        self.socket.sendall(b"".join(bytes(message) for message in messages))

    def answer(self, count=1, *, copy=None):
        """All that is received up to the `count`th ReadyForQuery. `copy` is sent when COPY FROM asks for data."""
        rows, tags, errors, status = [], [], [], ""
        while count:
            kind, body = self._message()
            if kind == backend.DATA_ROW:
                rows.append(backend.column_values(body, 0, len(body)))
            elif kind == backend.COMMAND_COMPLETE:
                tags.append(body[:-1].decode())
            elif kind == backend.ERROR_RESPONSE:
                errors.append(backend.ErrorResponse.decode(body).sqlstate.decode())
            elif kind == backend.COPY_IN_RESPONSE:
                self.send(copy_data.CopyData(copy or b""), copy_data.CopyDone())
            elif kind == backend.BACKEND_KEY_DATA:
                self.key = body
            elif kind == backend.READY_FOR_QUERY:
                status = chr(body[0])
                count -= 1
        self.is_idle = status == "I"
        return Answer(rows, tags, errors, status)

    def _message(self):
        self._fill(_HEADER.size)
        kind, length = _HEADER.unpack_from(self._buffer)
        self._fill(1 + length)
        body, self._buffer = self._buffer[_HEADER.size : 1 + length], self._buffer[1 + length :]
        return kind, body

    def _fill(self, size):
        while len(self._buffer) < size:
            data = self.socket.recv(1 << 16)
            if not data:
                raise ConnectionError("the server closed the connection")
            self._buffer += data

    def name(self):
        """A new name for a prepared statement."""
        self._names += 1
        return f"s{self._names}".encode()

    # One method for each mode.

    def simple(self, sql, *arguments, copy=None):
        self.send(frontend.Query(inlined(sql, arguments).encode()))
        return self.answer(copy=copy)

    def text(self, sql, *arguments):
        self.send(extended(sql, arguments), frontend.SYNC_FRAME)
        return self.answer()

    def binary(self, sql, *arguments):
        self.send(extended(sql, arguments, binary=True), frontend.SYNC_FRAME)
        return self.answer()

    def prepared(self, sql, *arguments):
        """Parse and Describe of a named statement up to Sync, then Bind and Execute; the portal is not described."""
        name = self.name()
        described = frontend.Describe(codes.PREPARED_STATEMENT, name)
        self.send(frontend.Parse(name, sql.encode()), described, frontend.SYNC_FRAME)
        answer = self.answer()
        if answer.errors:
            return answer
        self.send(frontend.Bind(b"", name, (), _texts(arguments)), frontend.Execute(b"", 0), frontend.SYNC_FRAME)
        return self.answer()

    def pipelined(self, sql, *arguments):
        """Send the statement between two others, before any of them is answered."""
        before = extended("SELECT 1", ()) + frontend.SYNC_FRAME
        after = extended("SELECT 2", ()) + frontend.SYNC_FRAME
        self.send(before, extended(sql, arguments), frontend.SYNC_FRAME, after)
        first, second, third = self.answer(), self.answer(), self.answer()
        assert (first.rows, third.rows) == ([[b"1"]], [[b"2"]]) or third.status == "E"
        return second

    def together(self, *statements):
        """Send several statements, each with its arguments, in one pipeline with one Sync: one implicit transaction."""
        self.send(*(extended(sql, arguments) for sql, *arguments in statements), frontend.SYNC_FRAME)
        return self.answer()


def _texts(arguments):
    return [None if argument.text is None else argument.text.encode() for argument in arguments]


def extended(sql, arguments, *, binary=False):
    """Parse, Bind, Describe and Execute of the unnamed statement. With `binary`, parameters have their types, and
    parameters and results are in binary format."""
    types = tuple(OIDS[argument.type] for argument in arguments) if binary else ()
    if binary:
        values = [argument.binary for argument in arguments]
    else:
        values = _texts(arguments)
    formats = (1,) if binary else ()
    return b"".join(
        bytes(message)
        for message in (
            frontend.Parse(b"", sql.encode(), types),
            frontend.Bind(b"", b"", formats, values, formats),
            frontend.Describe(codes.PORTAL, b""),
            frontend.Execute(b"", 0),
        )
    )


SEND_MODES = ("simple", "text", "binary", "prepared", "pipelined")
