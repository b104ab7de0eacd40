"""What the server of one session answers: each reply meets the request it answers, and statements come to their end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cache.sql.plans import Command
from protocol import backend, codes
from proxy.session.pipeline import Kind, OutOfStep, Pipeline, Request
from proxy.session.prepared import Prepared
from proxy.session.requests import query_payload

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cache.capture.database import Database
    from cache.capture.outcomes import Execution, Outcomes
    from cache.capture.session_settings import Settings
    from proxy.session.prepared_objects import Names
    from proxy.session.requests import Requests


class Replies:
    """Handlers of the backend's messages."""

    __slots__ = (
        "_columns",
        "_database",
        "_index",
        "_names",
        "_outcomes",
        "_pipeline",
        "_requests",
        "_running",
        "_settings",
        "fatal",
        "handlers",
        "status",
    )

    def __init__(
        self,
        database: Database,
        settings: Settings,
        pipeline: Pipeline[object],
        names: Names,
        requests: Requests,
        outcomes: Outcomes,
    ) -> None:
        self.status = codes.IDLE
        """Transaction status of the last ReadyForQuery."""
        self.fatal = False
        """The server said that it ends the session."""
        self._database = database
        self._settings = settings
        self._pipeline = pipeline
        self._names = names
        self._requests = requests
        self._outcomes = outcomes
        self._index = 0
        """Which statement of the Query at the head is running."""
        self._running: Execution | None = None
        """The statement at the head, once something of its answer came that matters."""
        self.handlers: list[Callable[[bytes, int, int], None] | None] = [None] * 256
        """For a FrameScanner, by type byte."""
        handlers = self.handlers
        handlers[backend.PARSE_COMPLETE] = self._parse_complete
        handlers[backend.BIND_COMPLETE] = self._bind_complete
        handlers[backend.CLOSE_COMPLETE] = self._close_complete
        handlers[backend.ROW_DESCRIPTION] = self._row_description
        handlers[backend.NO_DATA] = self._no_data
        handlers[backend.DATA_ROW] = self._first_row
        handlers[backend.COMMAND_COMPLETE] = self._command_complete
        handlers[backend.EMPTY_QUERY_RESPONSE] = self._empty_query
        handlers[backend.PORTAL_SUSPENDED] = self._portal_suspended
        handlers[backend.COPY_IN_RESPONSE] = self._copy_in
        handlers[backend.COPY_BOTH_RESPONSE] = self._copy_both
        handlers[backend.FUNCTION_CALL_RESPONSE] = self._function_result
        handlers[backend.ERROR_RESPONSE] = self._error
        handlers[backend.READY_FOR_QUERY] = self._ready
        handlers[backend.PARAMETER_STATUS] = self._parameter_status

    # -- statements and portals are made

    def _parse_complete(self, buffer: bytes, start: int, end: int) -> None:
        request = self._pipeline.pop(Kind.PARSE)
        assert isinstance(request.payload, tuple)
        name, prepared = request.payload
        self._names.statements[name] = prepared
        self._outcomes.buffer.touch(request.seq, request.sent_ns)

    def _bind_complete(self, buffer: bytes, start: int, end: int) -> None:
        request = self._pipeline.pop(Kind.BIND)
        assert isinstance(request.payload, bytes)
        self._outcomes.buffer.touch(request.seq, request.sent_ns)
        self._names.bind(request.payload, request.seq, request.sent_ns)

    def _close_complete(self, buffer: bytes, start: int, end: int) -> None:
        request = self._pipeline.pop(Kind.CLOSE)
        assert isinstance(request.payload, tuple)
        kind, name = request.payload
        names = self._names.statements if kind == codes.PREPARED_STATEMENT else self._names.portals
        names.pop(name, None)

    # -- a statement runs

    def _row_description(self, buffer: bytes, start: int, end: int) -> None:
        head = self._pipeline.head()
        if head is None:
            raise OutOfStep("RowDescription came while nothing was due")
        if head.kind is Kind.QUERY:
            if not self._trivial(head):
                self._names.tap(self._begin(head), buffer[start:end])
            return
        request = self._pipeline.pop(Kind.DESCRIBE)
        assert isinstance(request.payload, tuple)
        kind, name = request.payload
        if kind == codes.PREPARED_STATEMENT:
            self._names.statement_described(name, buffer[start:end])
        else:
            self._names.described(name, buffer[start:end])

    def _no_data(self, buffer: bytes, start: int, end: int) -> None:
        self._pipeline.pop(Kind.DESCRIBE)

    def _first_row(self, buffer: bytes, start: int, end: int) -> None:
        """The first row of a statement decides who reads its rows: readers, or nobody."""
        head = self._pipeline.head()
        if head is None or head.kind not in (Kind.QUERY, Kind.EXECUTE):
            raise OutOfStep("DataRow came while no statement was running")
        readers = () if self._trivial(head) else self._begin(head).readers
        if not readers:
            self.handlers[backend.DATA_ROW] = None
            return
        self._columns = max([reader.tap.columns for reader in readers])
        self.handlers[backend.DATA_ROW] = self._row
        self._row(buffer, start, end)

    def _row(self, buffer: bytes, start: int, end: int) -> None:
        assert self._running is not None
        row = backend.first_values(buffer, start, end, self._columns)
        more = False
        for reader in self._running.readers:
            # Whether a RETURNING had more rows than are read matters as well.
            if reader.read(row) or reader.tap.write is not None:
                more = True
            if reader.room < 0 and reader.tap.write is None:
                self._outcomes.many_rows(self._running)
        if not more:
            self.handlers[backend.DATA_ROW] = None

    def _command_complete(self, buffer: bytes, start: int, end: int) -> None:
        head = self._pipeline.head()
        if head is None:
            raise OutOfStep("CommandComplete came while nothing was due")
        if self._trivial(head):
            self._outcomes.buffer.touch(head.seq, head.sent_ns)
            self._next(head)
            return
        execution = self._begin(head)
        plan = execution.plan
        self._outcomes.finished(execution, buffer[start : end - 1])
        if plan.command is not Command.NONE:
            self._names.finished(execution, head.seq, head.sent_ns, self._prepared(plan.command, head))
        self._next(head)
        if plan.settings or plan.shadows:
            self._requests.plan_again()

    def _prepared(self, command: Command, request: Request[object]) -> Prepared | None:
        """What an SQL PREPARE that has run makes."""
        if command is not Command.PREPARE:
            return None
        if request.kind is Kind.QUERY:
            return Prepared(query_payload(request)[2], by_sql=True, index=self._index)
        assert isinstance(request.payload, bytes)
        return self._names.prepared_by_portal(request.payload)

    def _empty_query(self, buffer: bytes, start: int, end: int) -> None:
        head = self._pipeline.head()
        if head is None or head.kind not in (Kind.QUERY, Kind.EXECUTE):
            raise OutOfStep("EmptyQueryResponse came while no statement was running")
        self._next(head)

    def _portal_suspended(self, buffer: bytes, start: int, end: int) -> None:
        head = self._pipeline.expect(Kind.EXECUTE)
        self._outcomes.suspended(self._begin(head))
        assert isinstance(head.payload, bytes)
        self._names.suspended(head.payload)
        self._next(head)

    def _next(self, head: Request[object]) -> None:
        """The statement at the head is over."""
        self._running = None
        self.handlers[backend.DATA_ROW] = self._first_row
        if head.kind is Kind.QUERY:
            self._index += 1
        else:
            self._pipeline.pop(Kind.EXECUTE)

    def _copy_in(self, buffer: bytes, start: int, end: int) -> None:
        self._pipeline.copy_in()

    def _copy_both(self, buffer: bytes, start: int, end: int) -> None:
        raise OutOfStep("replication is not observed")

    def _function_result(self, buffer: bytes, start: int, end: int) -> None:
        self._pipeline.expect(Kind.FUNCTION_CALL)
        self._outcomes.buffer.doubt()

    # -- ends

    def _error(self, buffer: bytes, start: int, end: int) -> None:
        self.fatal = self.fatal or _is_fatal(buffer[start:end])
        self._running = None
        self.handlers[backend.DATA_ROW] = self._first_row
        failed = self._pipeline.error()
        if failed is None:
            return
        self._outcomes.buffer.touch(failed.seq, failed.sent_ns)
        self._outcomes.failed()
        if failed.kind is Kind.PARSE:
            assert isinstance(failed.payload, tuple)
            if failed.payload[0] == b"":
                # The old unnamed statement is gone before the new one is read.
                self._names.statements.pop(b"", None)

    def _ready(self, buffer: bytes, start: int, end: int) -> None:
        request = self._pipeline.ready()
        self.status = buffer[start]
        if request.kind is Kind.QUERY:
            self._index = 0
            self._names.statements.pop(b"", None)
        if self.status == codes.IDLE:
            self._names.transaction_ended()
        self._outcomes.ready(self.status, at_rest=self._pipeline.at_rest)

    def _parameter_status(self, buffer: bytes, start: int, end: int) -> None:
        message = backend.ParameterStatus.decode(buffer[start:end])
        self._settings.report(message.name.decode("utf-8", "replace"), message.value.decode("utf-8", "replace"))

    def oversize(self, kind: int, length: int, prefix: bytes) -> None:
        """Only rows, errors and parameters may be that long; nothing else that matters is."""
        if kind == backend.DATA_ROW:
            execution = self._running or self._begin_head()
            for reader in execution.readers:
                reader.miss()
        elif kind == backend.ERROR_RESPONSE:
            self._error(prefix, 0, len(prefix))
        elif kind != backend.PARAMETER_STATUS:
            raise OutOfStep(f"a message of {length} bytes where a short one was due")

    # -- which statement it is

    def _trivial(self, head: Request[object]) -> bool:
        """The statement at the head is a Query's and concerns nobody: the common case, kept short."""
        if head.kind is not Kind.QUERY or not self._database.learned:
            return False
        plans = query_payload(head)[0]
        return self._index < len(plans) and plans[self._index].trivial

    def _begin_head(self) -> Execution:
        head = self._pipeline.head()
        if head is None:
            raise OutOfStep("an answer came while nothing was due")
        return self._begin(head)

    def _begin(self, head: Request[object]) -> Execution:
        """The statement at the head, once known."""
        execution = self._running
        if execution is None:
            if head.kind is Kind.QUERY:
                execution = self._query_execution(head)
            elif head.kind is Kind.EXECUTE:
                assert isinstance(head.payload, bytes)
                execution = self._names.execution(head.payload, head.seq, head.sent_ns)
            else:
                raise OutOfStep(f"rows or a tag came while an answer to {head.kind.name} was due")
            self._running = execution
        return execution

    def _query_execution(self, head: Request[object]) -> Execution:
        plans, literals, _ = query_payload(head)
        if self._index < len(plans):
            plan = plans[self._index]
        elif plans and plans[-1].whole:
            plan = plans[-1]
        else:
            raise OutOfStep(f"the server found more than {len(plans)} statements in a Query")
        return self._names.query(plan, literals, head.seq, head.sent_ns)

    def outstanding(self) -> Iterator[Execution]:
        """Every statement the server has not finished, as if all of them succeeded. Ends the session: names change."""
        index = self._index
        for request in self._pipeline.outstanding():
            payload = request.payload
            if request.kind is Kind.PARSE:
                assert isinstance(payload, tuple)
                self._names.statements[payload[0]] = payload[1]
            elif request.kind is Kind.BIND:
                assert isinstance(payload, bytes)
                self._names.bind(payload, request.seq, request.sent_ns)
            elif request.kind is Kind.EXECUTE:
                assert isinstance(payload, bytes)
                yield self._names.execution(payload, request.seq, request.sent_ns)
            elif request.kind is Kind.QUERY:
                plans, literals, _ = query_payload(request)
                for plan in plans[index:]:
                    yield self._names.query(plan, literals, request.seq, request.sent_ns)
                index = 0

    def foreseen(self) -> list[Execution]:
        """The same as ``outstanding``, and the session goes on."""
        names = self._names
        statements, portals = dict(names.statements), dict(names.portals)
        try:
            return list(self.outstanding())
        finally:
            names.statements, names.portals = statements, portals


def _is_fatal(body: bytes) -> bool:
    """The error ends the session (severity, field V; manual, "Error and Notice Message Fields")."""
    return b"VFATAL\0" in body or b"VPANIC\0" in body
