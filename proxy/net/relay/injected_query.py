"""One query of our own over a client's session, without any I/O.

It goes by the extended protocol under a statement name of its own, because a simple Query would drop the client's
unnamed prepared statement. All of it is one implicit transaction that ends with our Sync; settings made for it are
local to that. The client gets nothing of it but what the server would have sent without it: notices, notifications,
changed parameters.
"""

from __future__ import annotations

from protocol import backend, codes
from protocol.errors import MessageError, ProtocolError
from protocol.fields import MAXIMUM_LENGTH
from protocol.frontend import SYNC_FRAME, Bind, Close, Execute, Parse
from protocol.message import HEADER
from proxy.net.startup import message_end

NAME = b"rowtap.question"
SERVER_TIMEOUT = "4s"
"""statement_timeout of the query: the server gives up before we do."""
MAX_RESULT = 67_108_864
"""Bytes of the answer that are kept; a longer one counts as none."""

_PLANNER = (
    *("bitmapscan", "gathermerge", "hashagg", "hashjoin", "indexonlyscan", "indexscan", "material", "mergejoin"),
    *("nestloop", "seqscan", "sort", "tidscan"),
)
_LOCAL = {
    "search_path": "pg_catalog, pg_temp",
    "statement_timeout": SERVER_TIMEOUT,
    "jit": "off",
    **{f"enable_{node}": "on" for node in _PLANNER},
    "max_parallel_workers_per_gather": "0",
    "work_mem": "16MB",
    "seq_page_cost": "1",
    "random_page_cost": "1.1",
    "cpu_tuple_cost": "0.01",
    "cpu_index_tuple_cost": "0.005",
    "cpu_operator_cost": "0.0025",
    "effective_cache_size": "4GB",
    "from_collapse_limit": "8",
    "join_collapse_limit": "8",
    "geqo": "on",
    "geqo_threshold": "12",
    "plan_cache_mode": "auto",
}
"""What the client may have set otherwise, by names that PostgreSQL 12 to 18 know. With some of these settings the
catalog query would take seconds, or compile for as long."""
_SETTINGS = (
    b"SELECT pg_catalog.set_config(name, value, true) FROM (VALUES %s) AS local (name, value)"
    % ", ".join(f"('{name}', '{value}')" for name, value in _LOCAL.items()).encode()
)
_CLEAN_UP = bytes(Close(codes.PREPARED_STATEMENT, NAME)) + SYNC_FRAME

# Notices of these severities are about our statements; others are meant for the client.
_OURS = frozenset((b"DEBUG", b"DEBUG1", b"DEBUG2", b"DEBUG3", b"DEBUG4", b"DEBUG5", b"LOG", b"INFO"))
_FATAL = frozenset((b"FATAL", b"PANIC"))
_SILENT = frozenset((backend.BIND_COMPLETE, backend.CLOSE_COMPLETE, backend.COMMAND_COMPLETE))


def request(query: bytes) -> bytes:
    """The messages that ask ``query``: one statement, in the session's encoding. All names it uses are found in
    pg_catalog."""
    buffer = bytearray()
    for statement in (_SETTINGS, query):
        for message in (
            Parse(NAME, statement),
            Bind(NAME, NAME),
            Execute(NAME),
            Close(codes.PORTAL, NAME),
            Close(codes.PREPARED_STATEMENT, NAME),
        ):
            message.append_to(buffer)
    buffer += SYNC_FRAME
    return bytes(buffer)


class InjectedQuery:
    """Reads the answer to one ``request`` out of what the server sends.

    The session must be idle when the request is sent, and the request must be the next the server reads.
    """

    __slots__ = (
        "_buffer",
        "_cleaned",
        "_failed",
        "_rows",
        "_size",
        "_skip",
        "done",
        "fatal",
        "lost",
        "rest",
        "to_send",
    )

    def __init__(self, query: bytes) -> None:
        self._buffer = bytearray()
        self._skip = 0
        self._rows: list[bytes] = []
        self._size = 0
        self._failed = False
        self._cleaned = False
        self.to_send = request(query)
        """What is to be sent to the server now; the caller empties it."""
        self.done = False
        self.rest = b""
        """What followed the answer in its chunk: it belongs to the session."""
        self.fatal = False
        """The server ended the session instead of answering; its error is for the client."""
        self.lost = False
        """The answer cannot be read: ``rest`` is where that begins."""

    @property
    def result(self) -> bytes | None:
        """The answer's first column, rows concatenated, or None if there was an error or it was too long."""
        if not self.done or self._failed or self.lost:
            return None
        return b"".join(self._rows)

    def feed(self, data: bytes) -> bytes:
        """Take a chunk of the server's; returns what of it is for the client."""
        buffer = self._buffer
        buffer += data
        output = bytearray()
        start = 0
        try:
            while not self.done and (end := self._next(start)) is not None:
                output += self._message(bytes(buffer[start:end]))
                start = end
        except ProtocolError:
            self.done = self.lost = True
        del buffer[:start]
        if self.done:
            self.rest = bytes(buffer)
            buffer.clear()
        return bytes(output)

    def _next(self, start: int) -> int | None:
        """Where the next message to look at ends; None while more of it is needed. What is here of a row too long to
        keep is dropped."""
        buffer = self._buffer
        while True:
            dropped = min(self._skip, len(buffer) - start)
            del buffer[start : start + dropped]
            self._skip -= dropped
            if len(buffer) - start < HEADER.size:
                return None
            kind, length = HEADER.unpack_from(buffer, start)
            if kind != backend.DATA_ROW or not MAX_RESULT < length <= MAXIMUM_LENGTH:
                return message_end(buffer, start, backend.LIMITS)
            self._failed = True
            self._skip = 1 + length

    def _message(self, message: bytes) -> bytes:
        kind, body = message[0], message[5:]
        if kind == backend.DATA_ROW:
            self._keep(backend.DataRow.decode(body).values)
        elif kind == backend.PARSE_COMPLETE:
            # The rows before it were those of the settings.
            self._rows.clear()
            self._size = 0
        elif kind == backend.READY_FOR_QUERY:
            self._ready(backend.ReadyForQuery.decode(body).status)
        elif kind == backend.ERROR_RESPONSE:
            return self._error(message)
        elif kind == backend.NOTICE_RESPONSE:
            return b"" if backend.NoticeResponse.decode(body).severity in _OURS else message
        elif kind in (backend.PARAMETER_STATUS, backend.NOTIFICATION_RESPONSE):
            return message
        elif kind not in _SILENT:
            raise MessageError(f"message of type 0x{kind:02x} in the answer to a query")
        return b""

    def _keep(self, values: list[bytes | None]) -> None:
        value = values[0] if values else None
        if value is None:
            return
        self._size += len(value)
        if self._size > MAX_RESULT:
            self._failed = True
            self._rows.clear()
        if not self._failed:
            self._rows.append(value)

    def _error(self, message: bytes) -> bytes:
        self._failed = True
        if backend.ErrorResponse.decode(message[5:]).severity in _FATAL:
            self.done = self.fatal = True
            return message
        return b""

    def _ready(self, status: int) -> None:
        if status != codes.IDLE:
            raise MessageError("a query of ours left a transaction open")
        if self._failed and not self._cleaned:
            self._cleaned = True
            self.to_send = _CLEAN_UP
        else:
            self.done = True
