"""What the client of one session sends: each request is noted in the pipeline until the server has answered it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from protocol import frontend
from protocol.errors import MessageError
from proxy.session.pending_requests import (
    BindRequest,
    CloseRequest,
    DescribeRequest,
    ExecuteRequest,
    FunctionCallRequest,
    ParseRequest,
    QueryRequest,
    SyncRequest,
)
from proxy.session.pipeline import Desynchronized, Pipeline
from proxy.session.prepared import PreparedStatement
from proxy.session.prepared_objects import unseen_statement

if TYPE_CHECKING:
    from collections.abc import Callable

    from cache.capture.database import Database
    from cache.capture.outcomes import Outcomes
    from proxy.session.prepared_objects import PreparedObjects


class Requests:
    """Handlers of the frontend's messages. ``seq`` and ``sent_ns`` are the date and the instant of the chunk they are
    in."""

    __slots__ = ("_database", "_objects", "_outcomes", "_pipeline", "sent_ns", "seq", "terminated")

    def __init__(self, database: Database, pipeline: Pipeline, objects: PreparedObjects, outcomes: Outcomes) -> None:
        self.seq = 0
        self.sent_ns = 0
        self.terminated = False
        """The client sent Terminate."""
        self._database = database
        self._pipeline = pipeline
        self._objects = objects
        self._outcomes = outcomes

    def handlers(self) -> list[Callable[[bytes, int, int], None] | None]:
        """For a FrameScanner, by type byte."""
        handlers: list[Callable[[bytes, int, int], None] | None] = [None] * 256
        handlers[frontend.QUERY] = self._query
        handlers[frontend.PARSE] = self._parse
        handlers[frontend.BIND] = self._bind
        handlers[frontend.DESCRIBE] = self._describe
        handlers[frontend.EXECUTE] = self._execute
        handlers[frontend.CLOSE] = self._close
        handlers[frontend.SYNC] = self._sync
        handlers[frontend.FUNCTION_CALL] = self._function_call
        handlers[frontend.COPY_DONE] = self._copy_end
        handlers[frontend.COPY_FAIL] = self._copy_end
        handlers[frontend.TERMINATE] = self._terminate
        return handlers

    def _query(self, buffer: bytes, start: int, end: int) -> None:
        text = buffer[start : end - 1]
        plans, literals = self._objects.plans(text)
        for plan in plans:
            if plan.ddl:
                self._outcomes.ddl_forwarded()
        reading = self._objects.settings.reading
        self._pipeline.send(QueryRequest(self.seq, self.sent_ns, end - start, text, reading, plans, literals))

    def _parse(self, buffer: bytes, start: int, end: int) -> None:
        message = frontend.Parse.decode(buffer[start:end])
        prepared = PreparedStatement(message.query, message.parameter_types, self._objects.settings.reading)
        if self._objects.view_of(prepared).plan.ddl:
            self._outcomes.ddl_forwarded()
        self._pipeline.send(ParseRequest(self.seq, self.sent_ns, end - start, message.name, prepared))

    def _bind(self, buffer: bytes, start: int, end: int) -> None:
        body = buffer[start:end]
        portal_end = body.find(0)
        statement_end = body.find(0, portal_end + 1)
        if statement_end < 0:
            raise MessageError("the name of the portal or of the prepared statement has no end")
        portal, statement = body[:portal_end], body[portal_end + 1 : statement_end]
        self._pipeline.send(BindRequest(self.seq, self.sent_ns, end - start, portal, statement, body))

    def _describe(self, buffer: bytes, start: int, end: int) -> None:
        message = frontend.Describe.decode(buffer[start:end])
        self._pipeline.send(DescribeRequest(self.seq, self.sent_ns, end - start, message.kind, message.name))

    def _execute(self, buffer: bytes, start: int, end: int) -> None:
        name_end = buffer.find(0, start, end)
        if name_end < 0:
            raise MessageError("the portal's name has no end")
        self._pipeline.send(ExecuteRequest(self.seq, self.sent_ns, end - start, buffer[start:name_end]))

    def _close(self, buffer: bytes, start: int, end: int) -> None:
        message = frontend.Close.decode(buffer[start:end])
        self._pipeline.send(CloseRequest(self.seq, self.sent_ns, end - start, message.kind, message.name))

    def _sync(self, buffer: bytes, start: int, end: int) -> None:
        self._pipeline.send(SyncRequest(self.seq, self.sent_ns, 0))

    def _function_call(self, buffer: bytes, start: int, end: int) -> None:
        self._pipeline.send(FunctionCallRequest(self.seq, self.sent_ns, 0))

    def _copy_end(self, buffer: bytes, start: int, end: int) -> None:
        self._pipeline.copy_end()

    def _terminate(self, buffer: bytes, start: int, end: int) -> None:
        self.terminated = True

    def oversize(self, kind: int, length: int, prefix: bytes) -> None:
        """A message too long to be looked at: it may write every table."""
        if kind == frontend.QUERY:
            self._outcomes.ddl_forwarded()
            plans = (self._database.unreadable(),)
            reading = self._objects.settings.reading
            self._pipeline.send(QueryRequest(self.seq, self.sent_ns, 0, b"", reading, plans, ()))
        elif kind == frontend.PARSE:
            self._outcomes.ddl_forwarded()
            name = _first_string(prefix)
            statement = unseen_statement()
            self._pipeline.send(ParseRequest(self.seq, self.sent_ns, len(name), name, statement))
        elif kind == frontend.BIND:
            portal = _first_string(prefix)
            prepared = _first_string(prefix[len(portal) + 1 :])
            size = len(portal) + len(prepared)
            self._pipeline.send(BindRequest(self.seq, self.sent_ns, size, portal, prepared, None))
        elif kind == frontend.FUNCTION_CALL:
            self._pipeline.send(FunctionCallRequest(self.seq, self.sent_ns, 0))
        else:
            raise Desynchronized(f"a message of {length} bytes where a short one was due")

    def plan_again(self) -> None:
        """Names may mean something else now in Queries that were sent already."""
        for request in self._pipeline.outstanding():
            if isinstance(request, QueryRequest) and request.text:
                self.plan(request)

    def plan(self, request: QueryRequest) -> None:
        """Make the plans of a Query again, by the settings in force."""
        request.plans, request.literals = self._objects.plans(request.text)
        request.reading = self._objects.settings.reading


def _first_string(prefix: bytes) -> bytes:
    """The C string that a message too long to be looked at begins with."""
    end = prefix.find(0)
    if end < 0:
        raise Desynchronized(f"a name of more than {len(prefix)} bytes")
    return prefix[:end]
