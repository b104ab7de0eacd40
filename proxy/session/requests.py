"""What the client of one session says: each request is noted in the pipeline until the server has answered it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from protocol import frontend
from proxy.session.pipeline import Kind, OutOfStep, Pipeline, Request
from proxy.session.prepared import Prepared

if TYPE_CHECKING:
    from collections.abc import Callable

    from cache.capture.database import Database
    from cache.capture.outcomes import Outcomes
    from cache.sql.plans import Literals, Plan
    from proxy.session.prepared_objects import Names


class Requests:
    """Handlers of the frontend's messages. ``seq`` and ``sent_ns`` are those of the chunk that is being looked at."""

    __slots__ = ("_database", "_names", "_outcomes", "_pipeline", "sent_ns", "seq", "terminated")

    def __init__(self, database: Database, pipeline: Pipeline[object], names: Names, outcomes: Outcomes) -> None:
        self.seq = 0
        self.sent_ns = 0
        self.terminated = False
        """The client said that it leaves."""
        self._database = database
        self._pipeline = pipeline
        self._names = names
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

    def _send(self, kind: Kind, payload: object, weight: int = 0) -> None:
        self._pipeline.send(Request(kind, payload, self.seq, self.sent_ns, weight))

    def _query(self, buffer: bytes, start: int, end: int) -> None:
        text = buffer[start : end - 1]
        found = self._names.plans(text)
        for plan in found[0]:
            if plan.ddl:
                self._outcomes.ddl_forwarded()
        self._send(Kind.QUERY, (*found, text), end - start)

    def _parse(self, buffer: bytes, start: int, end: int) -> None:
        message = frontend.Parse.decode(buffer[start:end])
        prepared = Prepared(message.query, message.parameter_types)
        if self._names.plan_of(prepared).ddl:
            self._outcomes.ddl_forwarded()
        self._send(Kind.PARSE, (message.name, prepared), end - start)

    def _bind(self, buffer: bytes, start: int, end: int) -> None:
        self._send(Kind.BIND, buffer[start:end], end - start)

    def _describe(self, buffer: bytes, start: int, end: int) -> None:
        message = frontend.Describe.decode(buffer[start:end])
        self._send(Kind.DESCRIBE, (message.kind, message.name), end - start)

    def _execute(self, buffer: bytes, start: int, end: int) -> None:
        self._send(Kind.EXECUTE, buffer[start : buffer.index(0, start, end)], end - start)

    def _close(self, buffer: bytes, start: int, end: int) -> None:
        message = frontend.Close.decode(buffer[start:end])
        self._send(Kind.CLOSE, (message.kind, message.name), end - start)

    def _sync(self, buffer: bytes, start: int, end: int) -> None:
        self._send(Kind.SYNC, None)

    def _function_call(self, buffer: bytes, start: int, end: int) -> None:
        self._send(Kind.FUNCTION_CALL, None)

    def _copy_end(self, buffer: bytes, start: int, end: int) -> None:
        self._pipeline.copy_end()

    def _terminate(self, buffer: bytes, start: int, end: int) -> None:
        self.terminated = True

    def oversize(self, kind: int, length: int, prefix: bytes) -> None:
        """A message too long to be looked at: what it may write is everything."""
        if kind == frontend.QUERY:
            self._outcomes.ddl_forwarded()
            self._send(Kind.QUERY, ((self._database.unreadable(),), (), b""))
        elif kind == frontend.PARSE:
            self._outcomes.ddl_forwarded()
            name = prefix[: prefix.index(0)]
            self._send(Kind.PARSE, (name, Prepared(None)), len(name))
        elif kind == frontend.BIND:
            portal, _, rest = prefix.partition(b"\0")
            statement = rest[: rest.index(0)]
            self._send(Kind.BIND, portal + b"\0" + statement + b"\0", len(portal) + len(statement))
        elif kind == frontend.FUNCTION_CALL:
            self._send(Kind.FUNCTION_CALL, None)
        else:
            raise OutOfStep(f"a message of {length} bytes where a short one was due")

    def plan_again(self) -> None:
        """Names may mean something else now in Queries that were sent already."""
        for request in self._pipeline.outstanding():
            if request.kind is Kind.QUERY:
                text = query_payload(request)[2]
                if text:
                    request.payload = (*self._names.plans(text), text)


def query_payload(request: Request[object]) -> tuple[tuple[Plan, ...], Literals, bytes]:
    """The plans, the literals and the text of a Query; no text where it was too long."""
    assert isinstance(request.payload, tuple)
    plans, literals, text = request.payload
    return plans, literals, text
